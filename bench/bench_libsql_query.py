#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""libsql_query against the official JavaScript client (npm @libsql/client) on
the same server, 100,000 rows of three columns, and the memory that it takes.

  /usr/bin/python3 bench/bench_libsql_query.py [rows]
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

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/servers"))
import hrana_server  # noqa: E402
import libsql_client  # noqa: E402

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
SQL = (f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT"
       f" {ROWS}) SELECT i, i * 0.5, 'the text of row ' || i FROM n")


def main():
    folder = tempfile.mkdtemp()
    server = subprocess.Popen(
        [sys.executable, hrana_server.__file__, folder + "/remote.db"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    url = server.stdout.readline().strip()
    con = sqlite3.connect(":memory:")
    con.enable_load_extension(True)
    con.load_extension(os.environ.get("CHOIR_SO", str(ROOT / "choir.so")))
    script = libsql_client.folder() / "libsql_client.mjs"
    shutil.copy(ROOT / "bench/libsql_client.mjs", script)
    node = subprocess.Popen(["node", str(script), url, SQL], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    ours, theirs = [], []
    query = "SELECT sum(c0) FROM libsql_query(?, ?)"
    con.execute(query, (url, "SELECT 1")).fetchall()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(5):
        start = time.perf_counter()
        (total,), = con.execute(query, (url, SQL)).fetchall()
        ours.append((time.perf_counter() - start) * 1000)
        node.stdin.write("\n")
        node.stdin.flush()
        reply = json.loads(node.stdout.readline())
        assert reply["sum"] == str(total), (reply, total)
        theirs.append(reply["ms"])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"libsql_query {ROWS} rows: choir {a:.0f} ms, @libsql/client {b:.0f}"
          f" ms, ratio {a / b:.2f}; memory grew {(after - before) / 1024:.1f}"
          f" MiB; load {os.getloadavg()[0]:.1f}")
    for p in (node, server):
        p.stdin.close()
        p.wait(10)
    shutil.rmtree(folder)


main()
