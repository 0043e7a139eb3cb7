#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""state_get, state_set, cache_get, message_add and task_claim, timed:
bench_store_state.py [rounds [tasks]]

A WAL file, synchronous NORMAL. The short calls run inside one SELECT over 500
rows inside a transaction, so Python takes no part; the same SELECT without the
call is subtracted. Plain SQL that does the same takes turns with them. Figures
are the processor time of one call, in microseconds, medians over the rounds.
message_add is timed by the clock, a transaction a call. task_claim: 8 processes
empty a queue; every task must have been claimed exactly once.
"""
import collections
import multiprocessing
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 15
TASKS = int(sys.argv[2]) if len(sys.argv) > 2 else 10000
N = 500
CALLS = {
    "state_get, a path in 20 members": "state_get('k', '$.a' || (i % 20))",
    "- plain json_extract of the same row":
        "(SELECT json_extract(value_json, '$.a' || (i % 20)) FROM state_storage WHERE key_name = 'k' AND i)",
    "state_set, a path in 20 members": "state_set('k', '$.a' || (i % 20), i + abs(random() % 1000))",
    "state_set, a small key": "state_set('small', '$.a', i + abs(random() % 1000))",
    "cache_get": "cache_get('c' || (i % 20))",
    "- plain SELECT of the same row":
        "(SELECT value FROM server_cache WHERE key = 'c' || (i % 20))",
    "cache_set": "cache_set('c' || (i % 20), i)",
}


def connect(path):
    con = sqlite3.connect(path, isolation_level=None, timeout=60)
    con.enable_load_extension(True)
    con.load_extension(os.path.join(ROOT, "choir.so"))
    con.execute("PRAGMA synchronous = NORMAL")
    return con


def loop(con, call):
    con.execute("BEGIN")
    start = time.process_time_ns()
    con.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
                f" SELECT count({call}) FROM n", (N,)).fetchall()
    spent = time.process_time_ns() - start
    con.execute("COMMIT")
    return spent / N / 1e3


def worker(path, start, results):
    con = connect(path)
    start.wait()
    mine = []
    while True:
        got = con.execute("SELECT task_claim()").fetchone()[0]
        if got is None:
            break
        mine.append(got[7:43])
    results.put((time.time(), mine))


def claims(path, con):
    con.execute("BEGIN")
    for i in range(TASKS):
        con.execute("SELECT task_add('t', ?)", (i,)).fetchall()
    con.execute("COMMIT")
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    workers = [context.Process(target=worker, args=(path, start, results)) for _ in range(8)]
    for w in workers:
        w.start()
    time.sleep(2)
    began = time.time()
    start.set()
    got = [results.get() for _ in workers]
    for w in workers:
        w.join()
    seen = collections.Counter(i for _, mine in got for i in mine)
    assert len(seen) == TASKS and set(seen.values()) == {1}
    return TASKS / (max(t for t, _ in got) - began)


def main():
    path = os.path.join(tempfile.mkdtemp(), "ws.db")
    con = connect(path)
    con.execute("SELECT choir_init()").fetchall()
    con.execute("PRAGMA synchronous = NORMAL")
    for i in range(20):
        con.execute("SELECT state_set('k', ?, ?), cache_set(?, 'x')", (f"$.a{i}", i, f"c{i}")).fetchall()
    times = collections.defaultdict(list)
    for _ in range(ROUNDS):
        base = loop(con, "i")
        for name, call in CALLS.items():
            times[name].append(loop(con, call) - base)
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, SQLite"
          f" {con.execute('SELECT sqlite_version()').fetchone()[0]}")
    for name in CALLS:
        print(f"{name:40} {statistics.median(times[name]):8.2f}")
    conv = con.execute("SELECT conversation_create('c')").fetchone()[0]
    spent = []
    for i in range(2000):
        start = time.perf_counter_ns()
        con.execute("SELECT message_add(?, 'user', 'Hello, how are you?')", (conv,)).fetchall()
        spent.append((time.perf_counter_ns() - start) / 1e3)
    print(f"{'message_add, a transaction of its own':40} {statistics.median(spent):8.2f}"
          f"   p99 {sorted(spent)[len(spent) * 99 // 100]:.1f}")
    print(f"task_claim, 8 processes, {TASKS} tasks: {claims(path, con):.0f}/s, each exactly once")


if __name__ == "__main__":
    main()
