#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""artifact_put, artifact_get and artifact_ls beside plain SQL that does the
same: bench_store_put.py [rounds]

20,000 artifacts of 2 KB in a WAL file, synchronous NORMAL. Plain SQL writes the
same rows into the same table (SHA-256 from hashlib, id and times made in
Python, outside the measured time; the same triggers fire). `bare` writes into a
table of the same columns and indexes that has no triggers. The ways take turns
in slices of 100 calls inside one transaction; figures are medians over all
calls, in microseconds, each with Python's share.
"""
import hashlib
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
SLICE = 100
INSERT = ("INSERT INTO {}(id, path, name, mime_type, content, size_bytes, hash,"
          " created_at, updated_at, metadata) VALUES(?,?,?,?,?,?,?,?,?,?)")
LIST = ("SELECT path, size_bytes, mime_type, updated_at, id FROM artifacts"
        " WHERE path >= '/d07/' AND path < '/d070' AND deleted_at IS NULL"
        " AND instr(substr(path, 6), '/') = 0 ORDER BY path")
LIKE = ("SELECT path, size_bytes, mime_type, updated_at, id FROM artifacts"
        " WHERE path LIKE '/d07/%' AND path NOT LIKE '/d07/%/%' ORDER BY name")
serial = 0


def timed(call):
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e3


def next_path():
    global serial
    serial += 1
    return f"/d{serial % 40:02}/s{serial % 7}/file{serial:06}.md"


def body():
    return f"{serial:08} " + "lorem ipsum dolor sit amet, " * 73


def plain(con, table):
    path, text = next_path(), body()[:2048]
    now = time.time_ns() // 1000000
    ident = f"{now:012x}"
    ident = f"{ident[:8]}-{ident[8:]}-7{uuid.uuid4().hex[:3]}-{str(uuid.uuid4())[19:]}"
    row = (ident, path, path.rsplit("/", 1)[1], "text/markdown", text, len(text),
           hashlib.sha256(text.encode()).hexdigest(), now, now, "{}")
    sql = INSERT.format(table)
    return timed(lambda: con.execute(sql, row))


def put(con, path=None):
    path = path or next_path()
    text = body()[:2048]
    return timed(lambda: con.execute("SELECT artifact_put(?, ?)", (path, text)).fetchall())


def report(name, times):
    times.sort()
    print(f"{name:44} p50 {statistics.median(times):8.1f}"
          f"   p99 {times[len(times) * 99 // 100]:8.1f}   n {len(times)}")


def main():
    folder = tempfile.mkdtemp()
    con = sqlite3.connect(os.path.join(folder, "ws.db"), isolation_level=None,
                          cached_statements=500)
    con.enable_load_extension(True)
    con.load_extension(os.path.join(ROOT, "choir.so"))
    con.execute("SELECT choir_init()")
    con.execute("PRAGMA synchronous=NORMAL")
    triggers = con.execute("SELECT count(*) FROM sqlite_schema WHERE type='trigger'"
                           " AND tbl_name='artifacts'").fetchone()[0]
    for (sql,) in con.execute("SELECT sql FROM sqlite_schema WHERE tbl_name='artifacts'"
                              " AND type IN ('table', 'index') AND sql NOT NULL").fetchall():
        con.execute(sql.replace("artifacts", "bare"))
    with open("/proc/cpuinfo") as f:
        cpu = next(l.split(":")[1].strip() for l in f if l.startswith("model name"))
    print(f"{cpu}, {os.cpu_count()} CPUs, Linux {platform.release()}, SQLite"
          f" {sqlite3.sqlite_version}, {triggers} triggers on artifacts\n")
    con.execute("BEGIN")
    while serial < 18000:
        put(con)
    con.execute("COMMIT")
    ways = {"artifact_put, new, in a transaction": lambda: put(con),
            "  INSERT of the same row": lambda: plain(con, "artifacts"),
            "  INSERT into a table without triggers": lambda: plain(con, "bare")}
    times = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            con.execute("BEGIN")
            times[name] += [way() for _ in range(SLICE)]
            con.execute("COMMIT")
    some = [r[0] for r in con.execute("SELECT path FROM artifacts ORDER BY random() LIMIT 500")]
    more = {
        "artifact_put, unchanged": [],
        "artifact_put, changed": [],
        "artifact_put, new, its own transaction": [],
        "artifact_get by path": [],
        "  SELECT content by path": [],
        "SELECT from artifact_ls, 7 entries": [],
        "SELECT from artifact_ls, 70 entries": [],
        "  range SELECT, same 7 entries' files": [],
        "  LIKE SELECT of the first design": [],
    }
    text = con.execute("SELECT content FROM artifacts WHERE path=?", (some[0],)).fetchone()[0]

    def run(name, call):
        more[name].append(timed(call))
    for i in range(70):
        con.execute("SELECT artifact_put(?, 'x')", (f"/flat/{i:02}",)).fetchall()
    for i, path in enumerate(some):
        run("artifact_put, unchanged", lambda: con.execute(
            "SELECT artifact_put(?, ?)", (some[0], text)).fetchall())
        run("artifact_put, new, its own transaction", lambda: con.execute(
            "SELECT artifact_put(?, ?)", (f"/own/{i}", text)).fetchall())
        run("artifact_get by path", lambda: con.execute(
            "SELECT artifact_get(?)", (path,)).fetchall())
        run("  SELECT content by path", lambda: con.execute(
            "SELECT content FROM artifacts WHERE path=? AND deleted_at IS NULL",
            (path,)).fetchall())
        run("SELECT from artifact_ls, 7 entries", lambda: con.execute(
            "SELECT * FROM artifact_ls('/d07/')").fetchall())
        run("SELECT from artifact_ls, 70 entries", lambda: con.execute(
            "SELECT * FROM artifact_ls('/flat/')").fetchall())
        run("  range SELECT, same 7 entries' files", lambda: con.execute(LIST).fetchall())
        if i < 50:
            run("  LIKE SELECT of the first design", lambda: con.execute(LIKE).fetchall())
    con.execute("BEGIN")
    for i, path in enumerate(some):
        changed = text[::-1] + str(i)
        run("artifact_put, changed", lambda: con.execute(
            "SELECT artifact_put(?, ?)", (path, changed)).fetchall())
    con.execute("COMMIT")
    for name, values in {**times, **more}.items():
        report(name, values)
    rows = con.execute("SELECT count(*) FROM artifacts").fetchone()[0]
    print(f"\n{rows} artifacts, {os.path.getsize(os.path.join(folder, 'ws.db')) / 1e6:.0f} MB")
    con.close()
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    os.rmdir(folder)


if __name__ == "__main__":
    main()
