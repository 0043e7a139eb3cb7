#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What loading choir costs: bench_load.py [rounds]

Three ways take turns: the bare sqlite3 shell, the shell with `.load`, and,
inside one process, sqlite3_load_extension() alone on a new connection. Medians
of whole runs in milliseconds and their difference; and the growth of the
resident set by the first load in this process. Needs ./choir.so (or CHOIR_SO) and the sqlite3 shell.
"""
import os
import pathlib
import sqlite3
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SO = os.path.abspath(os.environ.get("CHOIR_SO", str(ROOT / "choir.so")))


def shell(*args):
    start = time.perf_counter()
    subprocess.run(["sqlite3", ":memory:", *args, "select 1"], check=True,
                   stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


def load():
    con = sqlite3.connect(":memory:")
    con.enable_load_extension(True)
    con.execute("SELECT * FROM pragma_function_list").fetchall()
    before, start = resident(), time.perf_counter()
    con.load_extension(SO)
    spent, grown = (time.perf_counter() - start) * 1000, resident() - before
    con.close()
    return spent, grown


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    bare, loaded, alone = [], [], []
    first = load()
    for _ in range(rounds):
        bare.append(shell())
        loaded.append(shell("-cmd", f".load {SO}"))
        alone.append(load()[0])
    ways = [statistics.median(way) for way in (bare, loaded, alone)]
    print(f"SQLite {sqlite3.sqlite_version}, {rounds} rounds, medians in ms")
    print(f"bare shell        {ways[0]:7.2f}")
    print(f"shell with .load  {ways[1]:7.2f}  {ways[1] - ways[0]:+.2f}")
    print(f"load_extension    {ways[2]:7.2f}  (the first {first[0]:.2f})")
    print(f"resident set      {first[1]:+7d} KB")


if __name__ == "__main__":
    main()
