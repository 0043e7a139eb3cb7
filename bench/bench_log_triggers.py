#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the log's triggers cost: the same statements with and without them.

    /usr/bin/python3 bench/bench_log_triggers.py [rounds [rows]]

Both sides are workspaces in WAL mode on the same disk, `plain` without the
triggers _choir_log_*; rounds are interleaved. A third, `least`, has the least that
a record can be instead, written by hand for user_settings: a number that is
never used twice, an id, the time, the kind and the key; no payload, no question
whether the row is there. Printed: median CPU time in microseconds per row and the
median of the rounds' ratios.
"""
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
TALK = "01980000-0000-7000-8000-000000000000"
CASES = [  # name, statement, row number -> values
    ("artifacts, 2 KB: insert",
     "INSERT INTO artifacts(path, name, mime_type, content, size_bytes, hash)"
     " VALUES(?, ?, 'text/markdown', ?, 2000, ?)",
     lambda i: (f"/docs/folder/file-{i}.md", f"file-{i}.md", "x" * 2000,
                f"{i:064x}")),
    ("artifacts, 2 KB: update",
     "UPDATE artifacts SET content = ?, hash = ?, updated_at = updated_at + 1"
     " WHERE path = ? AND deleted_at IS NULL",
     lambda i: ("y" * 2000, f"{i + 1:064x}", f"/docs/folder/file-{i}.md")),
    ("artifacts, 2 KB: touch",
     "UPDATE artifacts SET updated_at = updated_at + 1"
     " WHERE path = ? AND deleted_at IS NULL",
     lambda i: (f"/docs/folder/file-{i}.md",)),
    ("artifacts, 2 KB: delete",
     "DELETE FROM artifacts WHERE path = ? AND deleted_at IS NULL",
     lambda i: (f"/docs/folder/file-{i}.md",)),
    ("messages, 350 B: insert",
     "INSERT INTO messages(conversation_id, role, content)"
     f" VALUES('{TALK}', 'user', ?)", lambda i: (f"{i} " + "hello " * 55,)),
    ("user_settings, 20 B: insert",
     "INSERT INTO user_settings(setting_name, setting_value) VALUES(?, 'x')",
     lambda i: (f"setting {i:06}",)),
    ("user_settings, 20 B: update",
     "UPDATE user_settings SET setting_value = 'y', updated_at = updated_at + 1"
     " WHERE setting_name = ?", lambda i: (f"setting {i:06}",)),
    ("user_settings, 20 B: delete",
     "DELETE FROM user_settings WHERE setting_name = ?",
     lambda i: (f"setting {i:06}",)),
]


LEAST = ["CREATE TABLE least(seq INTEGER PRIMARY KEY, id TEXT NOT"
         " NULL DEFAULT (lower(hex(randomblob(16)))), timestamp INTEGER NOT NULL"
         " DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),"
         " action_type TEXT NOT NULL, pk)"] + [
    f"CREATE TRIGGER least_{e} AFTER {e} ON user_settings BEGIN INSERT INTO"
    f" least(action_type, pk) VALUES('{e}', {row}.setting_name); END"
    for e, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD"))]


def workspace(folder, name, log):
    c = sqlite3.connect(os.path.join(folder, name), isolation_level=None)
    c.enable_load_extension(True)
    c.load_extension(SO)
    c.execute("SELECT choir_init()").fetchall()
    c.execute("PRAGMA synchronous=NORMAL")
    c.execute("INSERT INTO conversation_history(id, title) VALUES(?, 't')",
              (TALK,))
    if log != "log":
        for (t,) in c.execute("SELECT name FROM sqlite_schema WHERE"
                              " name GLOB '_choir_log_*_*' AND type='trigger'"
                              ).fetchall():
            c.execute(f'DROP TRIGGER "{t}"')
    for sql in LEAST if log == "least" else []:
        c.execute(sql)
    return c


def run(folder, log, rows, autocommit):
    c = workspace(folder, f"{log}.db", log)
    times = []
    for _, sql, values in CASES:
        data = [values(i) for i in range(rows)]
        if not autocommit:
            c.execute("BEGIN")
        start = time.process_time()
        c.executemany(sql, data)
        if not autocommit:
            c.execute("COMMIT")
        times.append((time.process_time() - start) / rows * 1e6)
    c.close()
    return times


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo")
                if line.startswith("model name")), platform.machine())
    print(f"{cpu}, SQLite {sqlite3.sqlite_version}, {rounds} rounds of"
          f" {rows} rows")
    for autocommit in (False, True):
        print("\none statement a transaction" if autocommit
              else "one transaction")
        print(f"{'':30}{'plain us':>10}{'log us':>10}{'ratio':>8}"
              f"{'least':>8}")
        sides = {"plain": [], "log": [], "least": []}
        for _ in range(rounds):
            for log in sides:
                with tempfile.TemporaryDirectory() as folder:
                    sides[log].append(run(folder, log, rows, autocommit))
        for i, (name, _, _) in enumerate(CASES):
            times = {side: [t[i] for t in sides[side]] for side in sides}
            ratio = {side: statistics.median(
                b / a for a, b in zip(times["plain"], times[side]))
                for side in sides}
            print(f"{name:30}{statistics.median(times['plain']):10.1f}"
                  f"{statistics.median(times['log']):10.1f}{ratio['log']:8.2f}"
                  + (f"{ratio['least']:8.2f}" if "user_settings" in name
                     else ""))


if __name__ == "__main__":
    main()
