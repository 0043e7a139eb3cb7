#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""nats_flush and nats_fetch against nats.c's asynchronous publisher.

  bench/bench_nats.py [MESSAGES=100000] [ROUNDS=5]

One nats-server on 127.0.0.1 with file storage; rounds are interleaved, each
with a stream of its own; medians. nats.c sends payloads of the size that the
log's messages have. CPU is that of the client.
"""
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
sys.path.insert(0, str(ROOT / "tests/servers"))
import nats  # noqa: E402

SO = os.environ.get("CHOIR_SO", str(ROOT / "choir.so"))


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    folder = pathlib.Path(tempfile.mkdtemp(prefix="choir-bench-"))
    server, oracle = nats.Nats(folder / "nats"), nats.oracle()
    flush, fetch, async_ = [], [], []
    try:
        con = sqlite3.connect(folder / "ws.db", isolation_level=None)
        con.enable_load_extension(True)
        con.load_extension(SO)

        def one(sql, *args):
            return con.execute(sql, args).fetchall()[0][0]
        one("SELECT choir_init()")
        one("SELECT choir_config('nats.url', ?)", server.url)
        size = 200
        for i in range(rounds):
            name = f"U{i}"
            one("SELECT choir_config('user', ?)", name)
            one("SELECT choir_config('nats.stream', ?)", name)
            one("SELECT nats_stream_create(?, json_array(?))", name,
                f"choiros.user.{name}.>")
            con.execute("DELETE FROM action_log")
            con.execute("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT"
                        " i+1 FROM c WHERE i<?) INSERT INTO action_log("
                        "action_type, payload) SELECT 'RUN_STEP', "
                        "json_object('label', 'step number ' || i) FROM c",
                        (n,))
            start, used = time.perf_counter(), resource.getrusage(0)
            one("SELECT nats_flush()")
            after = resource.getrusage(0)
            flush.append(time.perf_counter() - start)
            cpu = after.ru_utime + after.ru_stime - used.ru_utime \
                - used.ru_stime
            start, got = time.perf_counter(), 0
            while got < n:
                got += one("SELECT count(*) + 0 * max(length(payload)) FROM"
                           " nats_fetch(?, 'c', 50000, 0,"
                           " '{\"max_ack_pending\":-1}')", name)
            fetch.append(time.perf_counter() - start)
            size = one("SELECT length(payload) FROM nats_fetch(?, 'd', 1, 0)",
                       name)
            name = f"O{i}"
            one("SELECT nats_stream_create(?, json_array(?))", name, name)
            async_.append(float(subprocess.run(
                [oracle, "publish", server.url, name, str(n), str(size)],
                check=True, capture_output=True, text=True).stdout))
        f, g, a = map(statistics.median, (flush, fetch, async_))
        print(f"nats_flush {n / f:,.0f} acknowledged messages/s"
              f" ({cpu / n * 1e6:.1f} us of CPU each), nats.c's asynchronous"
              f" publisher {n / a:,.0f}/s: ratio {a / f:.2f};"
              f" nats_fetch {n / g:,.0f} rows/s; {size} bytes,"
              f" load {os.getloadavg()[0]:.1f}")
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
