#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What encryption adds to a first push and a pull of all, in processor time.

  bench/bench_sync_crypt.py [MB=100] [ROUNDS=5]

A workspace of incompressible artifacts of 1 MB, file:// folders in clear and
encrypted by turns; medians. Set BENCH_DIR to a folder in memory.
"""
import json
import os
import pathlib
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SO = os.environ.get("CHOIR_SO", str(ROOT / "choir.so"))


def connect(path, scope):
    con = sqlite3.connect(path, isolation_level=None)
    con.enable_load_extension(True)
    con.load_extension(SO)
    con.execute("SELECT choir_secret('k', ?)", (json.dumps(
        {"type": "sync", "scope": scope, "key": "5a" * 32}),))
    return con


def cpu(con, sql, *args):
    start = time.process_time()
    con.execute(sql, args)
    return time.process_time() - start


def main():
    mb = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    folder = pathlib.Path(tempfile.mkdtemp(dir=os.environ.get("BENCH_DIR")))
    os.environ["HOME"] = str(folder)
    secret = f"file://{folder}/encrypted/"
    con = connect(folder / "ws.db", secret)
    con.execute("SELECT choir_init()")
    for i in range(mb):
        con.execute("INSERT INTO artifacts(path, name, content)"
                    " VALUES(?, ?, ?)", (f"/{i}", f"{i}", os.urandom(10**6)))
    took = {}
    for i in range(rounds):
        for kind in "plain", "encrypted":
            (folder / kind / str(i)).mkdir(parents=True)
            url = f"file://{folder}/{kind}/{i}/"
            took.setdefault(("push", kind), []).append(
                cpu(con, "SELECT sync_push(?)", url))
            other = connect(":memory:", secret)
            took.setdefault(("pull", kind), []).append(
                cpu(other, "SELECT sync_pull(?)", url))
            other.close()
            shutil.rmtree(folder / kind / str(i))
    print(f"{mb} MB, processor seconds, medians of {rounds}, load"
          f" {os.getloadavg()[0]:.0f}")
    for what in "push", "pull":
        plain, crypt = (statistics.median(took[what, kind])
                        for kind in ("plain", "encrypted"))
        print(f"{what}: {plain:.3f} in clear, {crypt:.3f} encrypted,"
              f" ratio {crypt / plain:.2f}")
    con.close()
    shutil.rmtree(folder)


main()
