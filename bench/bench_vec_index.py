#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The vector index beside its peers: bench_vec_index.py DATA [ROWS [ROUNDS]]

  DATA  C, B or A: clusters in a latent space mapped to 384 dimensions, tuned to
        a local intrinsic dimension of about 17, 24 and 30 at 1,000,000 rows
        (which is printed, the MLE estimate over 100 neighbours); U: 768
        dimensions, uniform; or a .npy file of float32 rows, e.g. those of
        bench_vec_real.py
  ROWS  default 100000

One database, one thread, one process; contenders take turns in blocks of queries;
medians of the clock (of the thread's CPU time: CPU=1) are printed with the
recall@10 against the exact answer. Queries are held out of the rows; before them
each contender that keeps something in memory answers WARM others. Then builds,
inserts, filters, k and bytes.

Environment: KERNEL=v3 forces a tier; PEERS=0 leaves the peers out; WARM=100
other queries first; PARTS=0 leaves out filters and inserts. Peers:
pip install sqlite-vec==0.1.9 sqliteai-vector==1.1.2 (PYTHONPATH to find them).
"""
import ctypes
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
SO = os.path.abspath(os.environ.get("CHOIR_SO", str(ROOT / "choir.so")))
DATA = sys.argv[1] if len(sys.argv) > 1 else "C"
ROWS = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 100
WARM = int(os.environ.get("WARM", 100))
K = 10
CLOCK = time.thread_time if os.environ.get("CPU") else time.perf_counter
# clusters, spectrum's power, spread in a cluster, noise; at 1,000,000 rows of a
# local intrinsic dimension of ...
SHAPE = {"C": (30_000, 0.6, 0.5, 0.3), "B": (4000, 0.45, 0.6, 0.4),
         "A": (1000, 0.35, 0.80, 0.55)}


def library(name="vec_data", *flags):
    """A source of this folder, compiled for this machine."""
    so = ROOT / "build" / f"{name}.so"
    source = ROOT / "bench" / f"{name}.c"
    if not so.exists() or so.stat().st_mtime < source.stat().st_mtime:
        so.parent.mkdir(exist_ok=True)
        subprocess.run(["cc", "-Ofast", "-march=native", "-fPIC", "-shared",
                        str(source), "-o", str(so), "-lm", *flags], check=True)
    return ctypes.CDLL(str(so))


C_LIB = library()
I64, U64, REAL = ctypes.c_int64, ctypes.c_uint64, ctypes.c_double


def at(a):
    return a.ctypes.data_as(ctypes.c_void_p)


def rows():
    """(rows, 200 held-out queries, WARM others)."""
    if DATA.endswith(".npy"):
        v = numpy.load(DATA, mmap_mode="r")
        order = numpy.random.default_rng(5).permutation(len(v))
        n = min(ROWS, len(v) - 200 - WARM)
        return (numpy.ascontiguousarray(v[numpy.sort(order[:n])]),
                numpy.ascontiguousarray(v[order[n:n + 200]]),
                numpy.ascontiguousarray(v[order[n + 200:n + 200 + WARM]]))
    v = numpy.empty((ROWS + 200 + WARM, 768 if DATA == "U" else 384), "f4")
    if DATA == "U":
        C_LIB.vec_uniform(at(v), I64(v.size), U64(1))
    else:
        clusters, *shape = SHAPE[DATA]
        C_LIB.vec_clusters(at(v), I64(len(v)), v.shape[1], clusters,
                           *map(REAL, shape), U64(1))
    return v[200 + WARM:], v[:200].copy(), v[200:200 + WARM].copy()


def truth(v, queries, k):
    """Rowids (from 1) of the k nearest by cosine, and their distances."""
    v, k = numpy.ascontiguousarray(v), min(k, len(v))
    ids = numpy.empty((len(queries), k), "i8")
    cosine = numpy.empty((len(queries), k), "f4")
    C_LIB.vec_truth(at(v), I64(len(v)), v.shape[1], at(queries), len(queries),
                    k, at(ids), at(cosine))
    return ids + 1, 1 - cosine.astype("f8")


def describe(v, queries):
    ids, d = truth(v, queries, 100)
    r = numpy.sqrt(numpy.maximum(2 * d, 1e-12))
    lid = -1 / numpy.log(r[:, :-1] / r[:, -1:]).mean(1)
    print(f"data {DATA}: {len(v)} x {v.shape[1]}, local intrinsic dimension"
          f" {lid.mean():.1f}, cosine of neighbour 1, 10, 100:"
          f" {1 - d[:, 0].mean():.2f} {1 - d[:, 9].mean():.2f}"
          f" {1 - d[:, 99].mean():.2f}")


def connect(path, extension=SO, mmap=0):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA mmap_size={mmap}")
    db.enable_load_extension(True)
    db.load_extension(str(extension))
    if extension == SO and os.environ.get("KERNEL"):
        db.execute("SELECT choir_config('vec.kernel', ?)",
                   (os.environ["KERNEL"],))
    return db


def insert(db, table, v, first=1, batch=None):
    batch = batch or len(v)
    for start in range(0, len(v), batch):
        db.execute("BEGIN")
        db.executemany(f"INSERT INTO {table}(id, e) VALUES(?, ?)", (
            (first + i, v[i].tobytes())
            for i in range(start, min(start + batch, len(v)))))
        db.execute("COMMIT")


def warm(contenders, queries):
    """Other queries first, where memory makes later ones faster."""
    for name, db, sql, params in contenders:
        for q in queries if "cached" in name else []:
            db.execute(sql, (q.tobytes(), *params)).fetchall()


def measure(contenders, queries, want, k=K, rounds=ROUNDS):
    """Prints a line for each of [(name, db, sql, params)]. They take turns in
    blocks of ten queries, each block with other queries than its neighbours'
    (what one has pulled into the processor's cache must not help the next)."""
    times = {c[0]: [] for c in contenders}
    hits = {c[0]: 0 for c in contenders}
    for block in range(0, rounds, 10):
        for c, (name, db, sql, params) in enumerate(contenders):
            for i in range(12):  # the first two are not counted
                at = (block + i + c * 31) % len(queries)
                blob = queries[at].tobytes()
                t = CLOCK()
                got = db.execute(sql, (blob, *params)).fetchall()
                t = CLOCK() - t
                if i >= 2:
                    times[name].append(t)
                    hits[name] += len({r[0] for r in got}
                                      & set(want[at][:k].tolist()))
    for name, t in times.items():
        t.sort()
        print(f"  {name:46} {statistics.median(t) * 1e3:8.3f} ms"
              f"   p95 {t[int(len(t) * .95)] * 1e3:8.3f}"
              f"   recall@{k} {hits[name] / len(t) / k:.4f}", flush=True)


def first(path, queries, which):
    """The first search of a connection, which has nothing in memory."""
    times = []
    for q in queries[:20]:
        db = connect(path)
        t = CLOCK()
        db.execute(search(), (q.tobytes(),)).fetchall()
        times.append(CLOCK() - t)
        db.close()
    print(f"  {f'choir {which}, first search of a connection':46}"
          f" {statistics.median(times) * 1e3:8.3f} ms", flush=True)


def search(hidden=""):
    return f"SELECT rowid FROM vec_search('near', ?, {K}){hidden}"


def peers(path, v, queries, want):
    """sqlite-vec and sqlite-vector over the same rows."""
    out = []
    try:
        import sqlite_vec
        db = connect(path + ".vec0", sqlite_vec.loadable_path())
        t = time.process_time()
        db.execute("CREATE VIRTUAL TABLE docs USING vec0(id INTEGER PRIMARY"
                   f" KEY, e float[{v.shape[1]}] distance_metric=cosine)")
        insert(db, "docs", v)
        print(f"  sqlite-vec filled in {time.process_time() - t:.1f} s CPU")
        out.append(("sqlite-vec 0.1.9 vec0 f32", db, "SELECT id FROM docs"
                    f" WHERE e MATCH ? AND k={K}", ()))
    except Exception as e:  # noqa: BLE001
        print("  sqlite-vec:", e)
    try:
        import sqlite_vector
        lib = next(pathlib.Path(sqlite_vector.__file__).parent.rglob(
            "vector.so"))
        db = connect(path, lib)
        db.execute("SELECT vector_init('docs', 'e', 'type=FLOAT32,dimension="
                   f"{v.shape[1]},distance=COSINE')")
        t = time.process_time()
        db.execute("SELECT vector_quantize('docs', 'e')")
        db.execute("SELECT vector_quantize_preload('docs', 'e')")
        print(f"  sqlite-vector quantised in {time.process_time() - t:.1f} s"
              " CPU")
        out.append(("sqlite-vector 1.1.2 INT8 preloaded", db, "SELECT rowid"
                    f" FROM vector_quantize_scan('docs', 'e', ?, {K})", ()))
    except Exception as e:  # noqa: BLE001
        print("  sqlite-vector:", e)
    return out


def modes(path, queries, want, which, recalls):
    """Cached, from the file by mmap, by pread: one connection each."""
    out = []
    for how, mmap, cache in (("cached", 0, 1 << 30), ("file, mmap", 1 << 33, 0),
                             ("file, pread", 0, 0)):
        db = connect(path, SO, mmap)
        db.execute("SELECT choir_config('vec.cache_bytes', ?)", (str(cache),))
        for recall in recalls:
            hidden = f" WHERE recall={recall}" if recall else ""
            label = f", recall={recall}" if recall else ""
            out.append((f"choir {which}, {how}{label}", db, search(hidden), ()))
    return out


def filters(path, n, queries, v):
    print("filters (rowid IN; cached)")
    db = connect(path)
    db.execute("CREATE TEMP TABLE pick(id INTEGER PRIMARY KEY)")
    for part in (10, 100, 1000):
        ids = numpy.random.default_rng(part).permutation(n)[:n // part] + 1
        ids.sort()
        db.execute("DELETE FROM pick")
        db.executemany("INSERT INTO pick VALUES(?)", ((int(i),) for i in ids))
        local, _ = truth(v[ids - 1], queries[:60], K)
        want = ids[local - 1]
        given = []
        for _ in range(9):  # SQLite makes a list of the rowids at each search
            t = CLOCK()
            db.execute("SELECT 7 WHERE 7 IN (SELECT id + 0 FROM pick)"
                       ).fetchall()
            given.append(CLOCK() - t)
        measure([(f"1/{part} (of it IN alone"
                  f" {statistics.median(given) * 1e3:.2f} ms)", db, search(
                      " WHERE rowid IN (SELECT id FROM pick)"), ())],
                queries[:60], want, rounds=60)


def inserts(path, v, queries):
    print("inserts of 20,000 further rows (rows a second of CPU time)")
    more = numpy.resize(v, (20_000, v.shape[1]))[:, ::-1]
    more = numpy.ascontiguousarray(more)

    def rate(label, db, work, n=len(more)):
        t = time.process_time()
        work()
        print(f"  {label:60} {n / (time.process_time() - t):9.0f}")

    plain = connect(path + ".plain")
    plain.execute("PRAGMA journal_mode=WAL")
    plain.execute("PRAGMA synchronous=NORMAL")
    plain.execute("CREATE TABLE docs(id INTEGER PRIMARY KEY, e BLOB)")
    db = connect(path)
    db.execute("PRAGMA synchronous=NORMAL")
    first = len(v) + 1
    for i in range(3):
        part = more[i * 6000:(i + 1) * 6000]
        rate("plain SQL, one transaction, no index", plain,
             lambda: insert(plain, "docs", part, i * 6000 + 1), 6000)
        rate("plain SQL, one transaction, indexed", db,
             lambda: insert(db, "docs", part, first + i * 6000), 6000)
    first += 18_000
    db.execute("SELECT vec_index_optimize('near')")

    def batches():
        for start in range(0, 20_000, 1000):
            insert(db, "docs", more[start:start + 1000], first + start)
            db.execute("SELECT choir_index()")
    db.execute("SELECT choir_init()")
    db.execute("SELECT choir_index()")
    rate("batches of 1,000, each followed by choir_index()", db, batches)
    first += 20_000
    rate("single-row transactions", db,
         lambda: insert(db, "docs", more[:3000], first, 1), 3000)
    t = time.process_time()
    db.execute("SELECT choir_index()")
    print(f"  choir_index() of those 3,000: {time.process_time() - t:.3f} s")


def main():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    model = info.split("model name", 1)[1].split(":", 1)[1].split("\n")[0]
    v, queries, others = rows()
    describe(v, queries)
    want, _ = truth(v, queries, 1000)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as tmp:
        path = tmp + "/bench.db"
        db = connect(path)
        print(f"{model.strip()}, tier {db.execute('SELECT vec_kernel()').fetchone()[0]},"
              f" SQLite {sqlite3.sqlite_version}, load"
              f" {os.getloadavg()[0]:.1f}")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE docs(id INTEGER PRIMARY KEY, e BLOB)")
        insert(db, "docs", v)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for mode in ("flat", "lists"):
            t = time.process_time()
            db.execute("SELECT vec_index_create('near', 'docs', 'e', ?)",
                       (f'{{"mode":"{mode}"}}',))
            cpu = time.process_time() - t
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            size = db.execute("SELECT vec_index_info('near')->>'bytes'"
                              ).fetchone()[0]
            print(f"{mode}: built in {cpu:.1f} s CPU, {size / v.nbytes:.1%} of"
                  f" the vectors; " + db.execute(
                      "SELECT vec_index_info('near')").fetchone()[0])
            contenders = modes(path, queries, want, mode,
                               [0, .95, .99] if mode == "lists" else [0])
            if mode == "lists" and os.environ.get("PEERS") != "0":
                contenders += peers(path, v, queries, want)
            warm(contenders, others)
            measure(contenders, queries, want)
            first(path, queries, mode)
            many = [(f"{c[0]}, k=1000", c[1],
                     "SELECT rowid FROM vec_search('near', ?, 1000)", ())
                    for c in contenders if c[0] in (
                        f"choir {mode}, cached", f"choir {mode}, file, mmap")]
            warm(many, others)
            measure(many, queries, want, 1000, 30)
            del contenders, many
            if mode == "lists" and os.environ.get("PARTS") != "0":
                filters(path, len(v), queries, v)
                inserts(path, v, queries)
            elif mode == "flat":
                db.execute("SELECT vec_index_drop('near')")


if __name__ == "__main__":
    main()
