#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How fast a live database is copied and hashed, and in how much memory.

  bench/bench_sync_snapshot.py [MB=500] [ROUNDS=5]

Each figure is the median of interleaved rounds, every run in a process of its
own: time by the clock, processor time (which other load on the machine hardly
changes), and how far the process's resident peak rises during the call, after
the connection has been opened and used. `sqlite3_backup to a file` and `SHA-256
of a file` are the two halves of the work done plainly, for comparison.
"""
import hashlib
import os
import pathlib
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SO = os.environ.get("CHOIR_SO", str(ROOT / "choir.so"))


def connect(path):
    con = sqlite3.connect(path, isolation_level=None)
    con.enable_load_extension(True)
    con.load_extension(SO)
    con.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    return con


def build(path, mb):
    con = connect(path)
    con.execute("SELECT choir_init()")
    con.execute("CREATE TABLE rows(id INTEGER PRIMARY KEY, a TEXT, b BLOB)")
    con.execute("INSERT INTO rows WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL"
                " SELECT i+1 FROM c WHERE i < ?) SELECT i, 'row ' || i,"
                " randomblob(480) FROM c", (mb * 1000000 // 512,))
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    con.close()


def one(what, folder):
    """In the child: one figure as 'seconds bytes-of-peak'."""
    db, url = f"{folder}/ws.db", f"file://{folder}/remote.sqlite"
    if what == "backup":
        source = sqlite3.connect(db)
        target = sqlite3.connect(f"{folder}/plain.db")
        target.execute("PRAGMA synchronous=OFF")
        return *timed(lambda: source.backup(target)), 0
    if what == "sha256":
        with open(db, "rb") as f:
            return *timed(lambda: hashlib.file_digest(f, "sha256")), 0
    con = connect(db)
    sql = {"scan": "SELECT changed FROM sync_status",
           "idle": f"SELECT sync_push('{url}')",
           "push": f"SELECT sync_push('{url}')",
           "copy": f"SELECT choir_backup('{folder}/copy.db')"}[what]
    if what == "push":
        con.execute("UPDATE rows SET a = a || '!' WHERE id = 1")
    before = memory()
    out = timed(lambda: con.execute(sql).fetchall())
    return *out, memory("VmHWM") - before


def timed(f):
    start, cpu = time.perf_counter(), time.process_time()
    f()
    return time.perf_counter() - start, time.process_time() - cpu


def memory(field="VmRSS"):
    """Bytes resident now, which also becomes the peak so far; or the peak."""
    if field == "VmRSS":
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1]) * 1024


NAMES = {
    "scan": "snapshot with hashing (is it changed?)",
    "idle": "sync_push, nothing changed",
    "push": "sync_push, one row changed",
    "copy": "choir_backup, verified",
    "backup": "sqlite3_backup to a file, no hash, no fsync",
    "sha256": "SHA-256 of a file (OpenSSL)",
}


def main():
    mb = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    folder = tempfile.mkdtemp(dir=os.environ.get("TMPDIR"))
    try:
        build(f"{folder}/ws.db", mb)
        size = os.path.getsize(f"{folder}/ws.db")
        connect(f"{folder}/ws.db").execute(
            f"SELECT sync_push('file://{folder}/remote.sqlite')").fetchall()
        results = {k: [] for k in NAMES}
        for _ in range(rounds):
            for what in NAMES:
                for f in "copy.db", "plain.db":
                    pathlib.Path(folder, f).unlink(missing_ok=True)
                out = subprocess.run([sys.executable, __file__, "--one", what,
                                      folder], check=True,
                                     capture_output=True, text=True).stdout
                results[what].append([float(x) for x in out.split()])
        print(f"{size / 1e6:.0f} MB, median of {rounds}\n")
        print(f"{'':46} {'clock':>7} {'cpu':>7} {'by cpu':>9}  memory")
        for what, values in results.items():
            s, cpu = (statistics.median(v[i] for v in values) for i in (0, 1))
            peak = max(v[2] for v in values) / 2**20
            print(f"{NAMES[what]:46} {s:5.2f} s {cpu:5.2f} s"
                  f" {size / cpu / 1e6:4.0f} MB/s"
                  + (f"  +{peak:.1f} MiB" if peak else ""))
    finally:
        shutil.rmtree(folder)


if sys.argv[1:2] == ["--one"]:
    print(*one(*sys.argv[2:]))
else:
    main()
