#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Exact search in a plain table: choir beside sqlite-vec and sqlite-vector.

  bench_vec_scan.py [ROWS [DIMENSIONS [ROUNDS]]]     default 100000 384 9

Every contender has its own connection to the same file, with SQLite's default
settings (MMAP=bytes sets PRAGMA mmap_size); they take turns, and medians of the
thread's CPU time are compared (the file is in the page cache, so CPU time is
what there is; a busy machine disturbs it less than the clock). Where a peer is not installed, its line says
so:  pip install sqlite-vec==0.1.9 sqliteai-vector==1.1.2
"""
import os
import pathlib
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

import numpy

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROWS, DIM, ROUNDS = ([int(a) for a in sys.argv[1:]] + [100_000, 384, 9][
    len(sys.argv) - 1:])[:3]
K = 10
MMAP = int(os.environ.get("MMAP", "0"))


def hardware():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    model = info.split("model name", 1)[1].split(":", 1)[1].split("\n")[0]
    return f"{model.strip()}, SQLite {sqlite3.sqlite_version}"


def build(path):
    rng = numpy.random.default_rng(1)
    centres = rng.normal(size=(1000, 32)).astype("f4")
    project = rng.normal(size=(32, DIM)).astype("f4")
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE docs(id INTEGER PRIMARY KEY, e BLOB)")
    for start in range(0, ROWS, 10_000):
        n = min(10_000, ROWS - start)
        x = centres[rng.integers(0, 1000, n)] + rng.normal(size=(n, 32))
        v = (x @ project + 0.5 * rng.normal(size=(n, DIM))).astype("f4")
        v /= numpy.linalg.norm(v, axis=1, keepdims=True)
        db.executemany("INSERT INTO docs(e) VALUES(?)",
                       [(row.tobytes(),) for row in v])
    db.commit()
    db.close()
    return v[:1].tobytes()


def open_with(path, extension):
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA mmap_size={MMAP}")
    db.enable_load_extension(True)
    db.load_extension(str(extension))
    return db


def bare(tmp):
    out = pathlib.Path(tmp) / "bare_scan.so"
    sources = sorted(str(p) for p in (ROOT / "ext/kern").glob("*.c"))
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(out),
                    str(ROOT / "bench/bare_scan.c"), *sources, "-lm"],
                   check=True)
    return out


def contenders(path, tmp):
    scalar = (f"SELECT id FROM docs ORDER BY vec_distance_cosine(e, ?)"
              f" LIMIT {K}")
    choir = open_with(path, ROOT / "choir.so")
    # What every one of them has to do first: SQLite reading pages and rows.
    yield "rows alone, count(e)", choir, "SELECT count(e), ? FROM docs"
    yield "bare loop over column_blob", open_with(path, bare(tmp)), (
        "SELECT bare_scan('SELECT id, e FROM docs', ?)")
    yield "choir vec_scan", choir, (
        f"SELECT rowid FROM vec_scan('docs', 'e', ?, {K})")
    yield "choir ORDER BY vec_distance_cosine", choir, scalar
    try:
        import sqlite_vec
        db = open_with(path, sqlite_vec.loadable_path())
        yield "sqlite-vec ORDER BY vec_distance_cosine", db, scalar
    except ImportError:
        print("sqlite-vec is not installed")
    try:
        import sqlite_vector
        so = next(pathlib.Path(list(sqlite_vector.__path__)[0]).rglob("vector.so"))
        db = open_with(path, so)
        db.execute("SELECT vector_init('docs', 'e',"
                   f" 'dimension={DIM},type=FLOAT32,distance=COSINE')")
        yield "sqlite-vector vector_full_scan", db, (
            f"SELECT rowid FROM vector_full_scan('docs', 'e', ?, {K})")
    except ImportError:
        print("sqlite-vector is not installed")


def main():
    print(f"{ROWS} x {DIM} float32, k={K}, mmap_size={MMAP}, {ROUNDS} rounds;"
          f" {hardware()}")
    with tempfile.TemporaryDirectory() as tmp:
        path = str(pathlib.Path(tmp) / "scan.db")
        query = build(path)
        runs = list(contenders(path, tmp))
        times = {name: [] for name, _, _ in runs}
        found = {}
        for i in range(ROUNDS + 1):
            for name, db, sql in runs:
                start = time.thread_time()
                rows = db.execute(sql, (query,)).fetchall()
                if i:  # the first round warms up
                    times[name].append(time.thread_time() - start)
                found[name] = rows
        names = [n for n in found if not n.startswith(("rows", "bare"))]
        assert all(found[n] == found[names[0]] for n in names), found
        for what, pick in (("median", statistics.median), ("best", min)):
            ms = {n: pick(t) * 1000 for n, t in times.items()}
            for name, value in ms.items():
                print(f"  {what:6s} {name:42s} {value:7.1f} ms"
                      f"  x{value / ms[runs[1][0]]:.2f} of bare")
            ratio(ms, "choir ORDER BY", "sqlite-vec", "goal: at least 1.8")
            ratio(ms, "bare loop", "sqlite-vec", "what a bare loop reaches")
            ratio(ms, "choir vec_scan", "sqlite-vector", "goal: at least 1.1")
            ratio(ms, "bare loop", "choir vec_scan", "goal: at most 1.15")


def ratio(ms, base, other, goal):
    a, b = (next((v for n, v in ms.items()
                  if f"{n} ".startswith(name + " ")), None)
            for name in (base, other))
    if a and b:
        print(f"  {other} / {base}: {b / a:.2f} ({goal})")


main()
