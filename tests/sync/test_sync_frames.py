# SPDX-License-Identifier: MIT
"""A pull of a small change appends frames to the live WAL.

Whatever the WAL looks like before, everybody who has the file open finds the
pulled version with SQLite's own means, and so does a recovery."""
import os
import pathlib
import shutil
import sqlite3
import struct
import subprocess
import sys

import pytest

from remote import pull, push

SIZES = [512, 4096, 65536]

# Another process with its own SQLite: Python's, or the newest.
OTHER = """
import sys
path, newest = sys.argv[1], sys.argv[2] == "apsw"
if newest:
    import apsw
    con = apsw.Connection(path)
    con.setbusytimeout(20000)
else:
    import sqlite3
    con = sqlite3.connect(path, isolation_level=None, timeout=20)
def rows(sql, *params):
    return con.execute(sql, params).fetchall()
"""


def other(path, script, sqlite, *args):
    return subprocess.run([sys.executable, "-c", OTHER + script, str(path),
                           sqlite, *args], capture_output=True, text=True,
                          timeout=300)


def content(db):
    rows = db.rows if hasattr(db, "rows") else \
        lambda sql: db.execute(sql).fetchall()
    schema = rows("SELECT name, sql FROM sqlite_schema ORDER BY 1, 2")
    tables = [n for n, in rows("SELECT name FROM sqlite_schema WHERE"
                               " type = 'table' ORDER BY 1")]
    return [tuple(r) for r in schema], {
        t: sorted(map(repr, rows(f'SELECT * FROM "{t}"'))) for t in tables}


def wal(path):
    """Bytes of the WAL."""
    return os.path.getsize(f"{path}-wal") if os.path.exists(f"{path}-wal") \
        else 0


def frames(path):
    """In the WAL, by its index; read by another process, because closing a file
    here would drop SQLite's locks."""
    head = subprocess.run(["head", "-c", "20", f"{path}-shm"],
                          capture_output=True, check=True).stdout
    return struct.unpack("=5I", head)[4]


def copied(path, to):
    """Database, WAL and wal-index, by another process too."""
    for end in ("", "-wal", "-shm"):
        subprocess.run(["cp", f"{path}{end}", f"{to}{end}"], check=True)
    return pathlib.Path(to)


def index(shm):
    """(frames, pages, checksum, salts), page numbers by frame; every page is
    found by its hash."""
    raw = shm.read_bytes()
    head = struct.unpack("=IIIBBHIIII8sII", raw[:48])
    assert raw[:48] == raw[48:96]
    n, numbers = head[6], []
    if n == 0:  # begun anew, and nothing written since
        return None, []
    block = 0
    while len(numbers) < n:
        at = raw[block * 32768:(block + 1) * 32768]
        skip = 34 if block == 0 else 0
        here = struct.unpack("=4096I", at[:16384])[skip:]
        slots = struct.unpack("=8192H", at[16384:])
        here = here[:n - len(numbers)]
        for i, page in enumerate(here, 1):
            key = page * 383 & 8191
            while slots[key] != i:
                assert slots[key], (block, i, page)
                key = key + 1 & 8191
        numbers += here
        block += 1
    return (n, head[7], head[8], head[9], head[10]), numbers


def recovered(path, folder):
    """The same without a wal-index: what recovery makes of it is what is there.
    """
    folder.mkdir()
    live = copied(path, folder / "live.db")
    for end in ("", "-wal"):
        shutil.copy(f"{live}{end}", f"{folder / 'again.db'}{end}")
    con = sqlite3.connect(folder / "again.db", isolation_level=None)
    try:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        again = copied(folder / "again.db", folder / "seen.db")
        assert index(pathlib.Path(f"{again}-shm")) == index(
            pathlib.Path(f"{live}-shm"))
        return content(con)
    finally:
        con.close()
        shutil.rmtree(folder)


class Pair:
    """a pushes, b pulls."""

    def __init__(self, open_db, folder, size=4096, **kw):
        (folder / "remote").mkdir()
        self.folder = folder
        self.url = f"file://{folder}/remote/"
        self.a = open_db(folder / "a.db", pragmas=[f"page_size={size}"],
                         init=True)
        self.a.run("CREATE TABLE t(i INTEGER PRIMARY KEY, v, x);"
                   "CREATE INDEX t_v ON t(v);"
                   "WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n"
                   " WHERE i < 600) INSERT INTO t SELECT i, 0,"
                   " hex(randomblob(200)) FROM n")
        push(self.a, self.url)
        self.path = folder / "b.db"
        first = open_db(self.path)
        pull(first, self.url)
        self.b = open_db(**{"path": self.path, **kw}) if kw else first

    def change(self, sql="UPDATE t SET x = 'changed' WHERE i = 300"):
        """A version that differs from b's."""
        self.a.run(sql)
        push(self.a, self.url)

    def take(self):
        """b pulls; it, a recovery and others' SQLite see what a has."""
        assert pull(self.b, self.url)["pulled"] == 1
        self.same()

    def same(self):
        want = content(self.a)
        assert content(self.b) == want
        assert self.b.rows("PRAGMA integrity_check") == [("ok",)]
        assert recovered(self.path, self.folder / "again") == want


@pytest.fixture
def pair(open_db, tmp_path):
    return lambda *args, **kw: Pair(open_db, tmp_path, *args, **kw)


def test_only_the_pages_that_differ_are_written(pair, open_db):
    p = pair()
    p.b.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    before = os.path.getsize(p.path)
    reader = open_db(p.path, choir=False)
    reader.run("BEGIN")
    assert reader.one("SELECT x FROM t WHERE i = 300") != "changed"
    p.change("UPDATE t SET x = 'changed' WHERE i = 300;"
             "CREATE TABLE more(y); INSERT INTO more VALUES(7)")
    p.take()
    pages = p.b.one("PRAGMA page_count")
    assert 0 < wal(p.path) < pages * 4096 / 3
    assert os.path.getsize(p.path) == before
    assert p.b.one("SELECT y FROM more") == 7
    assert reader.one("SELECT x FROM t WHERE i = 300") != "changed"
    reader.run("COMMIT")
    assert content(reader) == content(p.a)
    assert reader.rows("PRAGMA integrity_check") == [("ok",)]
    assert reader.rows("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0
    assert content(reader) == content(p.a)


@pytest.mark.inprocess
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_own_pages_are_not_copied_either(pair):
    """Once a pull has left its mark in the WAL."""
    def written():
        lines = pathlib.Path("/proc/self/io").read_text().split("\n")
        return int(dict(x.split(": ") for x in lines if x)["wchar"])
    p = pair()
    for i in (1, 2, 3):
        p.change(f"UPDATE t SET x = 'changed' WHERE i = {i}")
        n = written()
        assert pull(p.b, p.url)["pulled"] == 1
        n = written() - n
        assert (n < os.path.getsize(p.path) / 3) == (i > 1), (i, n)
    p.same()


def test_own_pages_that_are_damaged_are_not_kept(pair, open_db):
    """The hashes of before do not know of it, quick_check does: the remote's
    pages take their place."""
    p = pair()
    p.change()
    p.take()
    p.b.rows("PRAGMA wal_checkpoint(PASSIVE)")
    row = p.b.one("SELECT x FROM t WHERE i = 200")
    content(open_db(p.path, choir=False))  # keeps the WAL
    p.b.close()  # its page cache still has the page
    assert other(p.path, """
with open(sys.argv[1], "r+b") as f:
    f.seek(f.read().index(sys.argv[3].encode()) // 4096 * 4096)
    f.write(bytes(4096))
""", "sqlite3", row).returncode == 0
    p.b = open_db(p.path)
    p.change("UPDATE t SET x = 'changed' WHERE i = 1")
    p.take()


@pytest.mark.parametrize("size", SIZES)
def test_a_database_grows_and_shrinks(pair, size):
    p = pair(size)
    for sql in ["INSERT INTO t VALUES(1000, 1, randomblob(300000))",
                "DELETE FROM t WHERE i > 400; VACUUM",
                "DROP TABLE t", "CREATE TABLE t(a, b)",
                "INSERT INTO t VALUES(1, zeroblob(100000))"]:
        p.change(sql)
        p.take()
    p.b.run("INSERT INTO t VALUES(2, 3)")
    assert push(p.b, p.url)["pushed"] == 1
    assert pull(p.a, p.url)["pulled"] == 1
    assert content(p.a) == content(p.b)


@pytest.mark.parametrize("mode", ["PASSIVE", "RESTART", "TRUNCATE"])
def test_after_a_checkpoint_the_wal_begins_anew(pair, mode):
    p = pair()
    for i in range(3):
        p.b.rows(f"PRAGMA wal_checkpoint({mode})")
        p.change(f"UPDATE t SET v = v + 1 WHERE i = {i + 1}")
        p.take()
        assert wal(p.path) < 100000 + (mode == "PASSIVE") * 1000000
    # Devices that only pull do not let the WAL grow without end.
    p.b.run("PRAGMA wal_autocheckpoint=10")
    most = 0
    for i in range(8):
        p.change(f"UPDATE t SET v = v + 1 WHERE i = {i + 1}")
        assert pull(p.b, p.url)["pulled"] == 1
        most = max(most, wal(p.path))
    assert most < 300000
    p.same()


@pytest.mark.once
@pytest.mark.parametrize("target", [4060, 4062, 4063, 8158])
def test_frames_cross_the_blocks_of_the_wal_index(pair, target):
    """Block 0 ends with frame 4,062, the next one with 8,158."""
    p = pair(512)
    p.b.run("PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF")
    same = p.b.one("PRAGMA user_version")
    p.b.run(f"PRAGMA user_version={same}")
    for _ in range(target - 1 - frames(p.path)):
        p.b.rows(f"PRAGMA user_version={same}")  # a frame each
    assert frames(p.path) == target - 1
    p.change()
    p.take()
    assert frames(p.path) > target
    p.b.run("UPDATE t SET v = 9 WHERE i = 1")
    assert p.b.rows("PRAGMA integrity_check") == [("ok",)]
    p.b.rows("PRAGMA wal_checkpoint(RESTART)")
    p.change("UPDATE t SET v = 10 WHERE i = 2")
    pull(p.b, p.url, "theirs")
    p.same()


SPILL = """
rows("PRAGMA cache_size=5"), rows("BEGIN")
rows("CREATE TABLE junk(x)")
for i in range(60):
    rows("INSERT INTO junk VALUES(randomblob(8000))")
"""


@pytest.mark.parametrize("end", ["con.execute('ROLLBACK')",
                                 "import os; os._exit(9)"])
@pytest.mark.parametrize("sqlite", ["sqlite3", "apsw"])
def test_behind_frames_that_nobody_committed(pair, end, sqlite):
    p = pair()
    p.change()
    content(p.b)  # so that it has the WAL open
    n = wal(p.path)
    assert other(p.path, SPILL + end, sqlite).returncode in (0, 9)
    assert wal(p.path) > n + 200000
    p.take()
    p.change("UPDATE t SET v = 5 WHERE i < 5")
    p.take()


@pytest.mark.parametrize("sqlite", ["sqlite3", "apsw"])
def test_another_process_reads_and_writes_on(pair, sqlite):
    p = pair()
    p.change()
    p.take()
    out = other(p.path, """
assert rows("PRAGMA integrity_check")[0][0] == "ok"
assert rows("SELECT x FROM t WHERE i = 300")[0][0] == "changed"
rows("UPDATE t SET x = 'theirs' WHERE i = 301")
rows("PRAGMA wal_checkpoint(RESTART)")
rows("UPDATE t SET x = 'again' WHERE i = 302")
""", sqlite)
    assert out.returncode == 0, out.stderr
    assert p.b.rows("SELECT x FROM t WHERE i IN (300, 301, 302)") == [
        ("changed",), ("theirs",), ("again",)]
    assert push(p.b, p.url)["pushed"] == 1
    assert pull(p.a, p.url)["pulled"] == 1
    p.same()


# A version is whole when each row has its number: nobody may see a mixture. That
# somebody is too busy for too long is no error here.
LOOP = """
import itertools, random, time
def turns():
    for i in itertools.count():
        try:
            if once(i) == 4:
                return
        except Exception as e:
            if "locked" not in str(e):
                raise
            if con.in_transaction:
                rows("ROLLBACK")
"""

READER = LOOP + """
seen = [0]
def once(i):
    rows("BEGIN")
    low, high, n = rows("SELECT min(v), max(v), count(*) FROM t")[0]
    again = rows("SELECT min(v), max(v) FROM t NOT INDEXED")[0]
    rows("COMMIT")
    assert low == high and n == 600 + low, (low, high, n)
    assert tuple(again) == (low, high), (again, low)
    assert low >= seen[-1], (seen, low)
    seen.append(low)
    time.sleep(0.02)  # else a checkpoint waits for a moment without readers
    return low
turns()
"""

# It changes nothing, but it commits and checkpoints.
WRITER = LOOP + """
modes = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"]
def once(i):
    time.sleep(random.random() / 2)
    rows("PRAGMA user_version=%d" % rows("PRAGMA user_version")[0][0])
    rows("PRAGMA wal_checkpoint(%s)" % modes[i % 4])
    return rows("SELECT max(v) FROM t")[0][0]
turns()
"""


@pytest.mark.once
def test_readers_and_writers_in_other_processes_go_on(pair):
    p = pair()
    children = [subprocess.Popen(
        [sys.executable, "-c", OTHER + script, str(p.path), sqlite],
        stderr=subprocess.PIPE, text=True)
        for script in (READER, WRITER) for sqlite in ("sqlite3", "apsw")]
    done = 0
    try:
        for i in range(1, 5):
            p.change(f"UPDATE t SET v = {i};"
                     f"INSERT INTO t VALUES({1000 + i}, {i}, 'x')")
            for attempt in range(200):
                try:
                    done += pull(p.b, p.url)["pulled"]
                    break
                except p.b.failure as e:
                    assert "try again" in str(e), e
        assert done == 4
        for c in children:
            assert c.wait(120) == 0, c.stderr.read()
    finally:
        for c in children:
            if c.poll() is None:
                c.kill()
            c.stderr.close()
            c.wait()
    p.same()


def test_while_another_process_writes_the_file_stays_as_it_is(pair):
    p = pair()
    p.change()
    want = content(p.b)
    p.b.run("PRAGMA busy_timeout=50")
    with subprocess.Popen(
            [sys.executable, "-c", OTHER + """
rows("BEGIN IMMEDIATE"); print("held", flush=True); sys.stdin.read()""",
             str(p.path), "sqlite3"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True) as held:
        assert held.stdout.readline() == "held\n"
        assert p.b.error("SELECT sync_pull(?)", p.url) == (
            "sync_pull: another connection is using this file; try again when"
            " it is done")
        held.stdin.close()
    assert content(p.b) == want
    p.take()


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "PERSIST"])
def test_without_a_wal_the_whole_is_replaced(pair, mode):
    p = pair()
    p.b.rows(f"PRAGMA journal_mode={mode}")
    p.change()
    assert pull(p.b, p.url)["pulled"] == 1
    assert content(p.b) == content(p.a)
    assert not wal(p.path)


@pytest.mark.inprocess  # the shell opens no URI
def test_what_is_not_understood_is_left_to_sqlite(pair, open_db):
    """unix-excl keeps its wal-index on the heap."""
    p = pair()
    p.b.close()
    p.change()
    b = open_db(f"file:{p.path}?vfs=unix-excl", uri=True)
    assert pull(b, p.url)["pulled"] == 1
    assert content(b) == content(p.a)
    assert wal(p.path) > b.one("PRAGMA page_count") * 4096
