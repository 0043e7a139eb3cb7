#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What tracking costs, and how fast events, seals and undo are.

    build/venv/bin/python bench/bench_log_track.py [rounds [rows]]

A table of 6 columns, about 350 bytes a row, in WAL mode; one transaction of
INSERTs, one of UPDATEs of every row. Sides, interleaved: the table alone; with
log_track and undo off; with undo; with the least that recording and keeping the old
row can be, written by hand; with the seeds' own trigger (a UUID key, two
indexes, the whole row as JSON); with sqlite-sync (npm @sqliteai/sqlite-sync, when
CHOIR_SQLITE_SYNC names its .so). CPU time of the process, medians of the rounds
and of their ratios.
"""
import json
import os
import pathlib
import platform
import sqlite3
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SO = os.environ.get("CHOIR_SO", str(ROOT / "choir.so"))
SYNC = os.environ.get("CHOIR_SQLITE_SYNC")
TABLE = "CREATE TABLE t(id %s, title TEXT, body TEXT, n INTEGER, x REAL, at INTEGER)"
UUID = ("lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' ||"
        " substr(hex(randomblob(2)), 2) || '-a' || substr(hex(randomblob(2)), 2)"
        " || '-' || hex(randomblob(6)))")
JSON = ("json_object('id', {0}.id, 'title', {0}.title, 'body', {0}.body, 'n',"
        " {0}.n, 'x', {0}.x, 'at', {0}.at)")
SEED = [
    "CREATE TABLE seed_log(id TEXT PRIMARY KEY, timestamp INTEGER NOT NULL,"
    " action_type TEXT NOT NULL, payload JSON NOT NULL, synced INTEGER"
    " DEFAULT 0)",
    "CREATE INDEX seed_log_timestamp ON seed_log(timestamp)",
    "CREATE INDEX seed_log_synced ON seed_log(synced)"] + [
    f"CREATE TRIGGER seed_{e} AFTER {e} ON t BEGIN INSERT INTO seed_log(id,"
    f" timestamp, action_type, payload) VALUES({UUID}, unixepoch() * 1000,"
    f" 'ROW_{e}', {JSON.format('NEW')}); END" for e in ("INSERT", "UPDATE")]
LEAST = [
    "CREATE TABLE least(seq INTEGER PRIMARY KEY, id TEXT NOT NULL"
    " DEFAULT (lower(hex(randomblob(16)))), timestamp INTEGER NOT NULL DEFAULT"
    " (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),"
    " action_type TEXT NOT NULL, pk)",
    "CREATE TABLE least_image(n INTEGER PRIMARY KEY, tag, c1, c2, c3, c4, c5, c6)",
    "CREATE TRIGGER least_insert AFTER INSERT ON t BEGIN INSERT INTO least("
    "action_type, pk) VALUES('INSERT', NEW.id); END",
    "CREATE TRIGGER least_update AFTER UPDATE ON t BEGIN INSERT INTO least("
    "action_type, pk) VALUES('UPDATE', NEW.id); INSERT INTO least_image(tag, c1,"
    " c2, c3, c4, c5, c6) VALUES((SELECT max(seq) FROM least), OLD.id, OLD.title,"
    " OLD.body, OLD.n, OLD.x, OLD.at); END"]
SIDES = ["plain", "log", "undo", "least", "seed"] + ["sqlite-sync"] * bool(SYNC)


def open_db(path, side):
    c = sqlite3.connect(path, isolation_level=None)
    c.enable_load_extension(True)
    c.load_extension(SO)
    c.execute("SELECT choir_init()").fetchall()
    c.execute("PRAGMA synchronous=NORMAL")
    c.execute(TABLE % ("TEXT PRIMARY KEY NOT NULL" if side == "sqlite-sync"
                       else "INTEGER PRIMARY KEY"))
    if side in ("log", "undo"):
        c.execute("SELECT log_track('t', ?)",
                  (json.dumps({"undo": side == "undo"}),)).fetchall()
    elif side in ("seed", "least"):
        for sql in SEED if side == "seed" else LEAST:
            c.execute(sql)
    elif side == "sqlite-sync":
        c.execute("SELECT load_extension(?, 'sqlite3_cloudsync_init')", (SYNC,))
        c.execute("SELECT cloudsync_init('t')").fetchall()
    return c


def run(folder, side, rows):
    c = open_db(os.path.join(folder, "a.db"), side)
    data = [(i if side != "sqlite-sync" else f"{i:032x}", f"title {i}",
             "word " * 60, i, i / 3, 1700000000000 + i) for i in range(rows)]
    times = []
    for sql, values in (
            ("INSERT INTO t VALUES(?, ?, ?, ?, ?, ?)", data),
            ("UPDATE t SET n = n + 1, body = body || 'x' WHERE id = ?",
             [(r[0],) for r in data])):
        c.execute("BEGIN")
        start = time.process_time()
        c.executemany(sql, values)
        c.execute("COMMIT")
        times.append((time.process_time() - start) / rows * 1e6)
    if side == "undo":
        start = time.process_time()
        said = json.loads(c.execute("SELECT log_undo(?, 'since')",
                                    (rows,)).fetchone()[0])
        assert said["rows"] == rows and not said["not_restored"]
        times.append((time.process_time() - start) / rows * 1e6)
    c.close()
    return times


def others(folder, events, entries):
    """Events and seals: thousands a second of CPU time."""
    c = open_db(os.path.join(folder, "b.db"), "plain")
    c.execute("SELECT event_define('v1.Set', '{\"k\":\"integer\"}', 'INSERT INTO"
              " t(id, title) VALUES(NEW.payload->>''k'', NEW.name)')").fetchall()
    c.execute("BEGIN")
    start = time.process_time()
    c.executemany("INSERT INTO event_log(name, payload) VALUES('v1.Set', ?)",
                  (('{"k":%d}' % i,) for i in range(events)))
    c.execute("COMMIT")
    insert = events / (time.process_time() - start)
    c.execute("DELETE FROM t WHERE id % 2")
    found = {"insert into event_log": insert}
    for name, sql, n in (
            ("event_replay, half the rows gone", "SELECT event_replay()", events),
            ("event_replay, nothing to write", "SELECT event_replay()", events)):
        start = time.process_time()
        c.execute(sql).fetchall()
        found[name] = n / (time.process_time() - start)
    c.execute("WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
              " INSERT INTO action_log(action_type, payload, tbl, pk) SELECT"
              " 'ROW_INSERT', '{\"label\":\"a row of some length ' || i || '\"}',"
              " 'notes', i FROM n", (entries - events,))
    for name, sql in (("log_seal", "SELECT log_seal()"),
                      ("log_verify", "SELECT log_verify()")):
        start = time.process_time()
        c.execute(sql).fetchall()
        found[name] = entries / (time.process_time() - start)
    proof = c.execute("SELECT log_prove(?)", (entries // 3,)).fetchone()[0]
    c.close()
    return found, len(proof)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 100000
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo")
                if line.startswith("model name")), platform.machine())
    print(f"{cpu}, SQLite {sqlite3.sqlite_version}, {rounds} rounds of {rows}"
          f" rows, load {os.getloadavg()[0]:.1f}")
    times = {s: [] for s in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            with tempfile.TemporaryDirectory() as folder:
                times[side].append(run(folder, side, rows))
    print(f"{'':14}{'insert us':>10}{'ratio':>8}{'update us':>11}{'ratio':>8}")
    for side in SIDES:
        line = f"{side:14}"
        for i in (0, 1):
            ratio = statistics.median(
                t[i] / p[i] for t, p in zip(times[side], times["plain"]))
            line += f"{statistics.median(t[i] for t in times[side]):>{10 + i}.1f}"
            line += f"{ratio:8.2f}"
        print(line)
    print(f"log_undo of the updates: "
          f"{statistics.median(t[2] for t in times['undo']):.1f} us a row")
    results = []
    for _ in range(min(rounds, 3)):
        with tempfile.TemporaryDirectory() as folder:
            results.append(others(folder, rows, 10 * rows))
    for name in results[0][0]:
        print(f"{name}: {statistics.median(r[0][name] for r in results):,.0f}/s")
    print(f"a proof for {10 * rows:,} records: {results[0][1]} bytes")


if __name__ == "__main__":
    main()
