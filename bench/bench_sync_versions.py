#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a merge costs, and an old version attached.

  bench/bench_sync_versions.py [MB=200] [ROUNDS=3]

The database of bench_sync_folder.py, a million rows, in a file:// folder. A
merge: 100 rows were changed on each of two devices; processor time, medians, and
how far the resident peak rose. Attached: requests that sync_attached counts and
processor time, of the first version, of one two pushes later, and of rows read
there; in a process that did nothing before. BENCH_DIR: the folder to work in.
"""
import multiprocessing
import os
import pathlib
import shutil
import statistics
import sys
import tempfile

from bench_sync_folder import ROWS, SO, build, connect, peak, sqlite3, timed

CHANGE = ("WITH RECURSIVE c(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM c"
          " LIMIT 100) UPDATE doc SET n = n + 1 WHERE id IN (SELECT"
          " printf('%032x', i * 1000) FROM c)")


def merges(here, there, url, rounds):
    took, rose = [], 0
    for i in range(rounds):
        there.execute("SELECT sync_pull(?)", (url,)).fetchall()
        there.execute(CHANGE, (2000 * i + 1,))
        there.execute("SELECT sync_push(?)", (url,)).fetchall()
        here.execute(CHANGE, (2000 * i + 1001,))
        before = peak()
        took.append(timed(lambda: here.execute(
            "SELECT sync_pull(?, 'merge')", (url,)).fetchall())[1])
        rose = max(rose, peak() - before)
        here.execute("SELECT sync_push(?)", (url,)).fetchall()
    print(f"merge of 100 rows a side: {statistics.median(took) / 1e3:,.2f} s of"
          f" processor time, memory +{rose} MiB", flush=True)


def attached(url):
    con = sqlite3.connect("file::memory:", uri=True, isolation_level=None)
    con.enable_load_extension(True)
    con.load_extension(SO)

    def step(what, sql, *args):
        ms = timed(lambda: con.execute(sql, args).fetchall())[1]
        n, = con.execute("SELECT sum(requests) FROM sync_attached").fetchone()
        print(f"| {what} | {n} | {ms:.1f} ms |")

    for version, what in ((1, "the first version"), (3, "two pushes later")):
        step(what, f"ATTACH 'file:ws?vfs=choir_at&version={version}"
             f"&remote={url}' AS old")
        for i in (ROWS // 3, 2 * ROWS // 3):
            step("and a row of it", "SELECT n FROM old.doc WHERE id = ?",
                 f"{i * 1000:032x}")
        con.execute("DETACH old")
    print(f"the process took {peak()} MiB in all", flush=True)


def main():
    mb = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    folder = pathlib.Path(tempfile.mkdtemp(dir=os.environ.get("BENCH_DIR")))
    os.environ["HOME"] = str(folder / "home")
    url = f"file://{folder}/remote/"
    (folder / "remote").mkdir()
    try:
        build(folder / "ws.db", mb)
        here, there = (connect(folder / n) for n in ("ws.db", "other.db"))
        here.execute("SELECT sync_push(?)", (url,)).fetchall()
        size = (folder / "ws.db").stat().st_size / 1e6
        print(f"{size:,.0f} MB, load {os.getloadavg()[0]:.1f}", flush=True)
        merges(here, there, url, rounds)
        fresh = multiprocessing.get_context("spawn").Process(
            target=attached, args=(url,))
        fresh.start()
        fresh.join()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
