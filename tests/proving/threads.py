# SPDX-License-Identifier: MIT
"""T: processes with threads of one workspace, all at once.

    threads.py DIR [--seconds S] [--processes 8] [--threads 4] [--seed S]

Each thread has a connection of its own and does, in an order of its own: counts
up (read, add one, write, under BEGIN IMMEDIATE), keeps artifacts, states,
messages, tasks and an indexed vector, undoes its own, searches, indexes, backs
up, opens and closes. At the end: every counted step is in the file, every task
was done once, integrity_check, foreign_key_check and choir_check find nothing,
and the text and vector searches answer. An error other than BUSY is a
violation, and so is a wait beyond the busy timeout.
"""
import argparse
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import sqlite3
import struct
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]
from conftest import Db  # noqa: E402

BUSY = ("locked", "busy")
WAIT = 20  # seconds a connection waits for a lock


class Worker:
    def __init__(self, path, who, seconds, seed, out):
        self.path, self.who, self.out = path, who, out
        self.rnd = random.Random(f"{seed};{who}")
        self.end = time.monotonic() + seconds
        self.db = None
        self.counted = self.calls = self.busy = 0
        self.done, self.errors, self.longest = [], [], 0.0

    def open(self):
        if self.db:
            self.db.close()
        self.db = Db(self.path)
        self.db.rows(f"PRAGMA busy_timeout = {WAIT * 1000}")

    def count(self):
        d = self.db
        d.rows("BEGIN IMMEDIATE")
        try:
            n = d.one("SELECT n FROM counter")
            d.rows("UPDATE counter SET n = ?", n + 1)
            if self.rnd.random() < 0.1:
                d.rows("ROLLBACK")
                return
            d.rows("COMMIT")
            self.counted += 1
        except sqlite3.Error:
            if d.con.in_transaction:
                d.rows("ROLLBACK")
            raise

    def task(self):
        got = self.db.one("SELECT task_claim('work', 600000)")
        if got:
            i = json.loads(got)["id"]
            self.db.one("SELECT task_done(?, 1)", i)
            self.done.append(i)

    def one(self):
        d, r = self.db, self.rnd
        name = f"{self.who}-{r.randrange(6)}"
        what = r.randrange(16)
        if what < 4:
            self.count()
        elif what == 4:
            d.one("SELECT artifact_put(?, ?)", f"/{name}.md",
                  f"tea and licence {r.random()}")
        elif what == 5:
            d.one("SELECT state_set(?, '$.a', ?)", name, r.random())
        elif what == 6:
            d.rows("INSERT INTO vecs(e) VALUES(?)",
                   struct.pack("<4f", *(r.random() for _ in range(4))))
        elif what == 7:
            d.rows("SELECT * FROM vec_search('near', '[1, 2, 3, 4]', 3)")
        elif what == 8:
            d.rows("SELECT * FROM choir_search('tea', 3)")
        elif what == 9:
            self.task()
        elif what == 10:
            d.one("SELECT task_add('work', '{}')")
        elif what == 11:
            d.rows("UPDATE tracked SET b = ? WHERE id = ?", name,
                   r.randrange(50))
        elif what == 12:
            d.one("SELECT message_add('talk', 'user', ?)", name)
        elif what == 13 and r.random() < 0.2:
            d.one("SELECT choir_index()")
        elif what == 14 and r.random() < 0.1:
            file = f"{self.path.parent}/copy-{self.who}-{self.calls}.db"
            d.one("SELECT choir_backup(?)", file)
            os.unlink(file)
        elif what == 15 and r.random() < 0.2:
            self.open()

    def run(self):
        try:
            self.open()
            while time.monotonic() < self.end:
                start = time.monotonic()
                try:
                    self.one()
                except sqlite3.Error as e:
                    if any(b in str(e) for b in BUSY):
                        self.busy += 1
                    else:
                        self.errors.append(str(e)[:300])
                self.longest = max(self.longest, time.monotonic() - start)
                self.calls += 1
            self.db.close()
        except BaseException as e:
            self.errors.append(repr(e)[:300])
        self.out.append({"counted": self.counted, "calls": self.calls,
                         "done": self.done, "errors": self.errors,
                         "busy": self.busy, "longest": self.longest})


def process(path, p, args, queue):
    out = []
    threads = [threading.Thread(target=Worker(
        path, f"{p}.{t}", args.seconds, args.seed, out).run)
        for t in range(args.threads)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    queue.put(out)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    folder = args.dir.resolve() / "t"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["HOME"] = str(folder)
    path = folder / "ws.db"
    d = Db(path, init=True)
    d.run("CREATE TABLE counter(n); INSERT INTO counter VALUES(0);"
          "CREATE TABLE vecs(id INTEGER PRIMARY KEY, e BLOB);"
          "CREATE TABLE tracked(id INTEGER PRIMARY KEY, b);"
          "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)"
          " INSERT INTO tracked SELECT i, i FROM n;"
          "INSERT INTO conversation_history(id, title) VALUES('talk', 't')")
    d.one("SELECT log_track('tracked')")
    d.one("SELECT vec_index_create('near', 'vecs', 'e', '{\"dimensions\":4}')")
    d.close()
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    running = [context.Process(target=process, args=(path, p, args, queue))
               for p in range(args.processes)]
    for p in running:
        p.start()
    results = [r for _ in running for r in queue.get(
        timeout=args.seconds + 300)]
    violations = []
    for p in running:
        p.join()
        if p.exitcode:
            violations.append(f"a process ended with {p.exitcode}")
    d = Db(path)
    counted, n = sum(r["counted"] for r in results), d.one(
        "SELECT n FROM counter")
    if counted != n:
        violations.append(f"{counted} increments were committed, {n} are there")
    done = [i for r in results for i in r["done"]]
    if len(done) != len(set(done)):
        violations.append("a task was done twice")
    if d.one("SELECT count(*) FROM agent_tasks WHERE status = 'COMPLETED'") \
            != len(done):
        violations.append("a finished task is missing")
    violations += [e for r in results for e in r["errors"]]
    d.one("SELECT choir_index()")
    for sql, want in (("PRAGMA integrity_check", "ok"),
                      ("PRAGMA foreign_key_check", None),
                      ("SELECT choir_check() ->> 'ok'", 1)):
        if d.one(sql) != want:
            violations.append(f"{sql}: {d.rows(sql)[:5]}")
    near = "SELECT rowid FROM vec_search('near', '[1, 2, 3, 4]', 5)"
    if d.rows(near) != d.rows(near + " WHERE exact = 1"):
        violations.append("the index answers otherwise than an exact scan")
    d.close()
    longest = max(r["longest"] for r in results)
    print(json.dumps({
        "count": sum(r["calls"] for r in results), "increments": n,
        "busy": sum(r["busy"] for r in results),
        "longest call, s": round(longest, 2),
        "violations": [{"replay": "", "what": v} for v in violations]}))


if __name__ == "__main__":
    main()
