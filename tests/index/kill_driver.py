# SPDX-License-Identifier: MIT
"""Runs under LD_PRELOAD=shim.so, of tests/proving: kill_driver.py DIR SHIM STRIDE

For every kind of change and both journal modes: a child process makes it and is
killed (half of the write done, or none) at its 1st, 2nd, ... call that changes a
file. After each one the index and the table agree: choir_check() says so, and
searches give what reading every row gives; and after choir_index() as well.

Prints one line of JSON: how many kills of each change.
"""
import ctypes
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from conftest import Db  # noqa: E402

OFF, COUNT, KILL, HALF = range(4)
ROOT, SHIM, STRIDE = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
BASE, WORK = ROOT / "base", ROOT / "work"
shim = ctypes.CDLL(SHIM)
rnd = random.Random(3)
CENTRES = [[rnd.gauss(0, 1) for _ in range(6)] for _ in range(5)]

CHANGES = {
    "absorb, split, merge": "SELECT choir_index()",
    "optimize": "SELECT vec_index_optimize('near')",
    "create": "SELECT vec_index_create('far', 't', 'e', '{\"metric\":\"l2\"}')",
    "drop": "SELECT vec_index_drop('near')",
    "rows": "UPDATE t SET e = zeroblob(24) WHERE id % 7 = 3",
}


def vector(of=None):
    c = CENTRES[of if of is not None else rnd.randrange(5)]
    return struct.pack("<6f", *(x + rnd.gauss(0, 0.3) for x in c))


QUERIES = [vector() for _ in range(4)]


def build(mode):
    """Two thousand rows in lists; then many more near one centre and few left
    of another, all of them pending: lists are split and given up."""
    shutil.rmtree(BASE, ignore_errors=True)
    BASE.mkdir(parents=True)
    d = Db(BASE / "a.db", init=True)
    d.rows(f"PRAGMA journal_mode={mode}")
    d.run("CREATE TABLE t(id INTEGER PRIMARY KEY, e BLOB, c); BEGIN")
    for i in range(2000):
        d.rows("INSERT INTO t(e, c) VALUES(?, ?)", vector(i % 5), i % 5)
    d.run("COMMIT")
    d.one("""SELECT vec_index_create('near', 't', 'e', '{"mode":"lists"}')""")
    d.run("BEGIN")
    for i in range(900):
        d.rows("INSERT INTO t(e, c) VALUES(?, 1)", vector(1))
    d.run("DELETE FROM t WHERE c = 2 OR (c = 3 AND id % 20 > 0); COMMIT")
    d.close()


def agree(d, name, note):
    for q in QUERIES:
        want = d.rows("SELECT id FROM t ORDER BY vec_distance_cosine(e, ?)"
                      " IS NULL, vec_distance_cosine(e, ?), id LIMIT 20", q, q)
        got = d.rows(f"SELECT rowid FROM vec_search('{name}', ?, 20)"
                     " WHERE recall = 1.0", q)
        if name == "near":
            assert got == want, (note, len(set(got) & set(want)))
        assert len(got) == 20, note


def act(sql, n, kind):
    """One change in a child: was it killed, and the calls counted."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            d = Db(WORK / "a.db")
            shim.shim_root(str(WORK).encode())
            shim.shim_arm(n, kind, 0)
            d.run(sql)
            d.close()
            os.write(w, str(shim.shim_count()).encode())
        finally:
            os._exit(0)
    os.close(w)
    out = b""
    while chunk := os.read(r, 100):
        out += chunk
    os.close(r)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return True, 0
    return False, int(out)


def look(note):
    d = Db(WORK / "a.db")
    assert d.one("PRAGMA integrity_check") == "ok", note
    assert d.one("SELECT choir_check() ->> 'ok'") == 1, (
        note, d.one("SELECT choir_check()"))
    names = [r[0] for r in d.rows("SELECT name FROM _choir_vec")]
    for name in names:
        agree(d, name, note)
    d.one("SELECT choir_index()")
    for name in names:
        assert d.one(f"SELECT vec_index_info('{name}') ->> 'pending'") == 0
        agree(d, name, note)
    assert d.one("SELECT choir_check() ->> 'ok'") == 1, note
    d.close()


def main():
    tried = dict.fromkeys(CHANGES, 0)
    for mode in "WAL", "DELETE":
        build(mode)
        for name, sql in CHANGES.items():
            def fresh():
                shutil.rmtree(WORK, ignore_errors=True)
                shutil.copytree(BASE, WORK)
            fresh()
            killed, total = act(sql, 0, COUNT)
            assert not killed and total > 3, (name, total)
            look(f"{mode}, {name}, unharmed")
            first = 1 + len(name) % STRIDE
            for n in range(min(first, total), total + 1, STRIDE):
                fresh()
                kind = (KILL, HALF)[n % 2]
                killed, _ = act(sql, n, kind)
                assert killed, (mode, name, n)
                tried[name] += 1
                look(f"{mode}, {name}, call {n} of {total}, kind {kind}")
    print(json.dumps(tried))


main()
