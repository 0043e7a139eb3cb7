#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a push and a pull of page deltas cost, beside Litestream 0.5.

  bench/bench_sync_folder.py [MB=500] [ROUNDS=9]

A database of a million rows of about MB/1M bytes each, a file:// folder. Times
by the clock and of the processor, medians of rounds that take turns; bytes are
the size of the object. Litestream runs once, on a copy of the same file: its
first snapshot, the same updates, a restore.
"""
import json
import os
import pathlib
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SO = os.environ.get("CHOIR_SO", str(ROOT / "choir.so"))
sys.path.insert(0, str(ROOT / "tests/servers"))
ROWS = 1_000_000


def connect(path):
    con = sqlite3.connect(path, isolation_level=None)
    con.enable_load_extension(True)
    con.load_extension(SO)
    return con


def build(path, mb):
    con = connect(path)
    con.execute("SELECT choir_init()")
    con.execute("PRAGMA synchronous=OFF")
    con.execute("CREATE TABLE doc(id TEXT PRIMARY KEY, n INTEGER, body TEXT)"
                " WITHOUT ROWID")
    body = max(mb * 1_000_000 // ROWS - 60, 20)
    con.execute(
        "INSERT INTO doc WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT"
        " i + 1 FROM c WHERE i < ?) SELECT printf('%032x', i * 1000), i,"
        " substr(hex(randomblob(64)), 1, 128) || substr(replace(hex(zeroblob("
        "?)), '00', 'lorem ipsum '), 1, ?) FROM c",
        (ROWS, body // 12 + 1, max(body - 128, 0)))
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    con.close()


def timed(f):
    wall, cpu = time.perf_counter(), time.process_time()
    out = f()
    return (time.perf_counter() - wall) * 1e3, (
        time.process_time() - cpu) * 1e3, out


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def median(rows):
    return " / ".join(f"{statistics.median(r[i] for r in rows):,.1f}"
                      for i in (0, 1))


def line(what, rows, size=None):
    print(f"| {what} | {median(rows)} | {'' if size is None else size} |",
          flush=True)


def litestream(folder, rounds):
    import litestream as tool
    if not tool.program():
        return
    (folder / "theirs").mkdir()
    url, db = f"file://{folder}/theirs", folder / "copy.db"
    log = open(folder / "litestream.log", "wb")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen([tool.program(), "replicate", str(db), url],
                               stdout=log, stderr=log)
    start = time.perf_counter()

    def size(pattern="*.ltx"):
        return sum(p.stat().st_size for p in (folder / "theirs").rglob(pattern))

    while not size() or size() != (time.sleep(1), size())[1]:
        pass
    first, first_size = time.perf_counter() - start, size()
    con = sqlite3.connect(db, isolation_level=None)
    for i in range(rounds):
        con.execute("UPDATE doc SET n = n + 1 WHERE id = ?",
                    (f"{(i * 7919 + 1) * 1000:032x}",))
        time.sleep(1.2)
    con.close()
    time.sleep(1)
    process.terminate()
    process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    l0 = sorted((folder / "theirs/ltx/0").glob("*.ltx"))
    print(f"| Litestream: first snapshot, until it is there | {first:,.1f} s |"
          f" {first_size / 1e6:,.0f} MB |")
    print(f"| Litestream: an updated row | | "
          f"{statistics.median(p.stat().st_size for p in l0[-rounds:]):,.0f} |")
    print("| Litestream: processor, all of it | "
          f"{after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:,.1f} s | |")
    for name, u in (("its own", url), ("choir's", f"file://{folder}/remote/")):
        out = folder / "restored.db"
        wall, _, _ = timed(lambda: tool.restore(u, out))
        print(f"| Litestream restores {name} remote | {wall / 1e3:,.1f} s | |")
        out.unlink()


def main():
    mb = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 9
    folder = pathlib.Path(tempfile.mkdtemp(dir=os.environ.get("BENCH_DIR")))
    os.environ["HOME"] = str(folder / "home")
    try:
        run(folder, mb, rounds)
    finally:
        shutil.rmtree(folder)


def run(folder, mb, rounds):
    (folder / "remote").mkdir()
    url, path = f"file://{folder}/remote/", folder / "ws.db"
    build(path, mb)
    shutil.copy(path, folder / "copy.db")
    size = path.stat().st_size / 1e6
    print(f"{size:,.0f} MB, {ROWS:,} rows, load {os.getloadavg()[0]:.1f}\n")
    print("| what | ms, clock / processor | bytes |\n|--|--|--|")
    con = connect(path)
    push = lambda: json.loads(con.execute(  # noqa: E731
        "SELECT sync_push(?)", (url,)).fetchone()[0])
    con.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    low = peak()
    one = timed(push)
    print(f"| first push | {one[0]:,.0f} / {one[1]:,.0f} |"
          f" {one[2]['bytes']:,} |")
    print(f"| – MB/s of database; memory it added | {size / one[0] * 1e3:,.0f}"
          f" | {peak() - low} MB |")
    wal, scan, idle, insert = [], [], [], []
    for i in range(rounds):
        key = f"{(i * 104729 + 5) % ROWS * 1000:032x}"
        con.execute("UPDATE doc SET n = n + 1 WHERE id = ?", (key,))
        wal.append(timed(push))
        push()  # looks at the frame that remembered the last one
        idle.append(timed(push))
        con.executemany("INSERT INTO doc VALUES(?, ?, ?)", (
            (f"{(ROWS + 1 + i * 100 + k) * 1000:032x}", k, "x" * (mb - 60))
            for k in range(100)))
        insert.append(timed(push))
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        con.execute("UPDATE doc SET n = n + 1 WHERE id = ?", (key,))
        scan.append(timed(push))
    each = lambda rows: f"{statistics.median(r[2]['bytes'] for r in rows):,.0f}"  # noqa: E731
    line("push, 1 row updated, by the WAL", wal, each(wal))
    line("push, 1 row updated, by a scan", scan, each(scan))
    line("push, 100 rows inserted", insert, each(insert))
    line("push, nothing changed", idle)
    other = connect(folder / "other.db")
    pull = lambda: json.loads(other.execute(  # noqa: E731
        "SELECT sync_pull(?)", (url,)).fetchone()[0])
    one = timed(pull)
    print(f"| pull of all | {one[0]:,.0f} / {one[1]:,.0f} |"
          f" {one[2]['bytes']:,} |")
    print(f"| – MB/s of database | {size / one[0] * 1e3:,.0f} | |")
    few = []
    for i in range(max(rounds // 3, 1)):
        con.execute("UPDATE doc SET n = n + 1 WHERE id = ?", (key,))
        push()
        few.append(timed(pull))
    line("pull of one updated row", few, each(few))
    other.close()
    con.close()
    litestream(folder, rounds)


if __name__ == "__main__":
    main()
