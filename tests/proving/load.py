# SPDX-License-Identifier: MIT
"""L: large numbers, and that nothing grows with them.

    load.py DIR [--rows 10000000] [--mib 1100] [--cycles 10000]

  rows     that many rows of the action log: written through a tracked table,
           sealed, verified, read, pruned; times and memory
  mib      a database beyond SQLite's lock page (1 GiB, pages of 4 KiB): backup,
           push to a plain file and to a folder, status, a second push, verify,
           pull into a new file, restore; compared by content
  cycles   load, use, close, in one process; then pushes of small changes: the
           slopes of memory and descriptors, printed

A slope of memory above 1 MiB for 10,000 cycles, or one descriptor, is a
violation.
"""
import argparse
import hashlib
import json
import os
import pathlib
import shutil
import sqlite3
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]
from conftest import Db  # noqa: E402

facts, violations = {}, []


def need(condition, what):
    if not condition:
        violations.append({"replay": "", "what": str(what)[:500]})


def rss():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096


def peak():
    with open("/proc/self/status") as f:
        return next(int(x.split()[1]) // 1024 for x in f if "VmHWM" in x)


def fds():
    return len(os.listdir("/proc/self/fd"))


class timed:
    def __init__(self, name):
        self.name = name

    def __enter__(self):
        self.start = time.monotonic()

    def __exit__(self, *_):
        facts[self.name + ", s"] = round(time.monotonic() - self.start, 1)


def rows(folder, n):
    path = folder / "log.db"
    d = Db(path, init=True)
    d.run("PRAGMA synchronous = normal; CREATE TABLE t(id INTEGER PRIMARY KEY,"
          " a)")
    d.one("SELECT log_track('t')")
    with timed("log: writing the rows"):
        for first in range(0, n, 500_000):
            d.rows("WITH n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE"
                   " i < ?2) INSERT INTO t SELECT i, 'row ' || i FROM n",
                   first + 1, min(n, first + 500_000))
    need(d.one("SELECT count(*) FROM action_log") == n, "rows are missing")
    facts["log: file, MiB"] = path.stat().st_size >> 20
    with timed("log: sealing"):
        d.one("SELECT log_seal()")
    with timed("log: verifying"):
        need(json.loads(d.one("SELECT log_verify()"))["ok"] == 1, "log_verify")
    with timed("log: reading the last thousand changes"):
        need(len(d.rows("SELECT seq FROM log_changes(?)", n - 1000)) == 1000,
             "log_changes")
    with timed("log: choir_check"):
        need(json.loads(d.one("SELECT choir_check()"))["ok"] == 1, "check")
    with timed("log: pruning"):
        d.one("SELECT log_prune(99999999999999, 'all')")
    with timed("log: one more write and its undo"):
        d.rows("UPDATE t SET a = 'x' WHERE id = 5")
        d.one("SELECT log_undo()")
        need(d.one("SELECT a FROM t WHERE id = 5") == "row 5", "undo")
    need(d.one("PRAGMA quick_check") == "ok", "quick_check")
    d.close()
    facts["log: peak memory, MiB"] = peak()
    for p in folder.glob("log.db*"):
        p.unlink()


def digest(path):
    """Of all content, by plain SQLite."""
    con = sqlite3.connect(path)
    h = hashlib.sha256()
    for row in con.execute("SELECT id, length(b), b FROM big ORDER BY id"):
        h.update(repr(row[:2]).encode() + row[2])
    ok = con.execute("PRAGMA quick_check").fetchone()
    con.close()
    return h.hexdigest() if ok == ("ok",) else str(ok)


def large(folder, mib):
    path = folder / "big.db"
    (folder / "pages").mkdir()
    pages, plain = f"file://{folder}/pages/", f"file://{folder}/plain.sqlite"
    d = Db(path, init=True)
    d.run("PRAGMA synchronous = normal;"
          "CREATE TABLE big(id INTEGER PRIMARY KEY, b BLOB)")
    for i in range(mib):
        d.rows("INSERT INTO big VALUES(?, randomblob(1048576))", i)
    d.rows("PRAGMA wal_checkpoint(truncate)")
    facts["large: file, bytes"] = path.stat().st_size
    need(path.stat().st_size > (1 << 30) or mib < 1025, "too small")
    need(d.one("PRAGMA page_size") == 4096, "page size")
    want = digest(path)
    with timed("large: choir_backup"):
        d.one("SELECT choir_backup(?)", str(folder / "copy.db"))
    need(digest(folder / "copy.db") == want, "the backup differs")
    (folder / "copy.db").unlink()
    with timed("large: push to a plain file"):
        d.one("SELECT sync_push(?)", plain)
    need(digest(folder / "plain.sqlite") == want, "the pushed file differs")
    (folder / "plain.sqlite").unlink()
    with timed("large: push of pages"):
        d.one("SELECT sync_push(?)", pages)
    d.rows("UPDATE big SET b = randomblob(1048576) WHERE id IN (1, ?)", mib - 3)
    with timed("large: push of two changed rows"):
        d.one("SELECT sync_push(?)", pages)
    d.rows("PRAGMA wal_checkpoint(truncate)")
    want = digest(path)
    with timed("large: sync_status"):
        need(d.rows("SELECT state FROM sync_status(?)", pages) == [
            ("in sync",)], "status")
    with timed("large: sync_verify, all bytes read"):
        need(json.loads(d.one("SELECT sync_verify(?, 1)", pages))["ok"] == 1,
             "verify")
    d.close()
    path.unlink()
    e = Db(folder / "new.db")
    with timed("large: pull into a new file"):
        e.one("SELECT sync_pull(?)", pages)
    e.rows("PRAGMA wal_checkpoint(truncate)")
    e.close()
    need(digest(folder / "new.db") == want, "what was pulled differs")
    facts["large: peak memory, MiB"] = peak()
    shutil.rmtree(folder / "pages")
    for p in folder.glob("*.db*"):
        p.unlink()


def slope(points):
    """Least squares: y for 10,000 x."""
    n = len(points)
    mx, my = (sum(p[i] for p in points) / n for i in (0, 1))
    sxx = sum((x - mx) ** 2 for x, _ in points)
    return 10000 * sum((x - mx) * (y - my) for x, y in points) / sxx


def repeated(name, n, work):
    points, handles = [], 0
    for i in range(n):
        work(i)
        if i == n // 5:
            handles = fds()
        if i > n // 5 and i % max(1, n // 100) == 0:
            points.append((i, rss()))
    grown = slope(points)
    facts[f"{name}: memory for 10,000, KiB"] = round(grown / 1024, 1)
    facts[f"{name}: descriptors left"] = fds() - handles
    need(grown < 1 << 20, f"{name}: memory grows {grown:.0f} bytes for 10,000")
    need(fds() <= handles, f"{name}: {fds() - handles} descriptors stay open")


def cycles(folder, n):
    path = folder / "small.db"
    Db(path, init=True).close()

    def use(i):
        d = Db(path)
        d.one("SELECT setting_set('n', ?)", i)
        d.rows("SELECT * FROM choir_search('tea', 2)")
        d.one("SELECT vec_distance_l2('[1, 2]', '[3, 4]')")
        d.rows("SELECT state FROM sync_status")
        try:
            d.one("SELECT s3_get('file:///none/x')")
        except sqlite3.Error:
            pass
        d.close()
    with timed("cycles: load, use, close"):
        repeated("cycles: load, use, close", n, use)
    (folder / "remote").mkdir()
    url = f"file://{folder}/remote/"
    d = Db(path)

    def push(i):
        d.one("SELECT setting_set('n', ?)", -i)
        d.one("SELECT sync_push(?)", url)
        if i % 500 == 499:
            d.one("SELECT sync_compact(?)", url)
    with timed("cycles: pushes of a change"):
        repeated("cycles: pushes of a change", max(200, n // 5), push)
    d.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--mib", type=int, default=1100)
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    folder = args.dir.resolve() / "l"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    os.environ.update(HOME=str(folder), TMPDIR=str(folder / "tmp"),
                      SQLITE_TMPDIR=str(folder / "tmp"))
    for work, n in ((large, args.mib), (rows, args.rows),
                    (cycles, args.cycles)):
        if n:
            work(folder, n)
            print(json.dumps(facts), file=sys.stderr, flush=True)
    print(json.dumps({"count": args.rows + args.cycles + args.mib,
                      "facts": facts, "violations": violations}))


if __name__ == "__main__":
    main()
