#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What no index in a SQLite file can go below: bench_vec_floor.py [ROWS [ROUNDS]]

Searches of the flat index over clusters (data C of bench_vec_index.py, 1000000 x
384 by default) in turn with bare loops in C, which fetch through SQLite what such
a search cannot do without and do nothing with it. Medians of CPU time:

  codes   every segment of the index, as they are (a page each) and of 64 KB
  rows    those that a search with k = 1,000 returns, in the order of rowids
  filter  the list that SQLite makes of rowid IN (SELECT ...), one row in ten

By pread and by mmap.
"""
import ctypes
import statistics
import sys
import tempfile
import time

import bench_vec_index as bench
import numpy

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 15
MANY = 1000


def bare():
    lib = bench.library("vec_bare", "-lsqlite3")
    lib.bare_open.restype = ctypes.c_void_p
    lib.bare_step.restype = lib.bare_rows.restype = ctypes.c_double
    return lib


def fill(path):
    """The table, its index, and in a file of their own (SQLite maps no more than 2
    GB) the segments once more in rows of 64 KB."""
    v, queries, _ = bench.rows()
    db = bench.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE docs(id INTEGER PRIMARY KEY, e BLOB)")
    bench.insert(db, "docs", v)
    db.execute("SELECT vec_index_create('near', 'docs', 'e',"
               " '{\"mode\":\"flat\"}')")
    db.execute("ATTACH ? AS other", (path + ".large",))
    db.execute("CREATE TABLE other.large(block BLOB)")
    parts = [r[0] for r in db.execute("SELECT block FROM _choir_vec_near_seg")]
    db.execute("BEGIN")
    db.executemany("INSERT INTO other.large VALUES(?)", (
        (b"".join(parts[i:i + 16]),) for i in range(0, len(parts), 16)))
    db.execute("COMMIT")
    db.execute("CREATE TABLE pick(id INTEGER PRIMARY KEY)")
    ids = numpy.random.default_rng(10).permutation(ROWS)[:ROWS // 10] + 1
    db.executemany("INSERT INTO pick VALUES(?)", ((int(i),) for i in ids))
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return [q.tobytes() for q in queries]


def timed(db, sql, *values):
    t = time.thread_time()
    rows = db.execute(sql, values).fetchall()
    return (time.thread_time() - t) * 1e3, rows


def main():
    bench.DATA, bench.ROWS = "C", ROWS
    lib = bare()
    with tempfile.TemporaryDirectory() as tmp:
        path = tmp + "/floor.db"
        queries = fill(path)
        for how, mmap in ("pread", 0), ("mmap", 1 << 33):
            look(lib, path, queries, how, mmap)


def look(lib, path, queries, how, mmap):
    raw, large = (ctypes.c_void_p(lib.bare_open(p.encode(), ctypes.c_int64(
        mmap))) for p in (path, path + ".large"))
    file, kept = bench.connect(path, mmap=mmap), bench.connect(path, mmap=mmap)
    for db, cache in (file, 0), (kept, 1 << 30):
        db.execute("SELECT choir_config('vec.cache_bytes', ?)", (str(cache),))
    near = "SELECT rowid FROM vec_search('near', ?, ?)"
    for q in queries[ROUNDS:]:
        kept.execute(near, (q, MANY)).fetchall()
    ms = {}

    def add(name, t):
        ms.setdefault(name, []).append(t)

    for i in range(-2, ROUNDS):  # the first two are not counted
        q = queries[i]
        add("codes: search, k = 10, nothing in memory",
            timed(file, near, q, 10)[0])
        for name, of, table in (("a page", raw, "_choir_vec_near_seg"),
                                ("64 KB", large, "large")):
            add(f"codes: bare loop, segments of {name}", lib.bare_step(
                of, f"SELECT block FROM {table}".encode()))
        add("rows: search, k = 10, codes in memory", timed(kept, near, q, 10)[0])
        t, rows = timed(kept, near, q, MANY)
        add(f"rows: search, k = {MANY}, codes in memory", t)
        ids = numpy.array(sorted(r[0] for r in rows), "i8")
        add(f"rows: bare loop over those {MANY}", lib.bare_rows(
            raw, bench.at(ids), len(ids)))
        add("filter: search among 1 row in 10", timed(
            kept, near + " WHERE rowid IN (SELECT id FROM pick)", q, 10)[0])
        add("filter: SQLite's list of these rowids", timed(
            kept, "SELECT 7 WHERE 7 IN (SELECT id + 0 FROM pick)")[0])
    print(f"{how}, {ROWS} rows, medians of {ROUNDS}")
    for name, t in ms.items():
        print(f"  {name:44} {statistics.median(t[2:]):8.2f} ms", flush=True)


main()
