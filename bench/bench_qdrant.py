#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the qdrant_ functions cost over the bare request.

  bench/bench_qdrant.py [POINTS=20000, at least 11000] [ROUNDS=5]

The server is the test server over Qdrant's own engine (or CHOIR_TEST_QDRANT_URL).
Rounds are interleaved; median and best are printed, and the processor time of
the caller (its requests, without the server), which other work on the machine
does not change: what choir adds to a bare request is the difference.

  search  k = 10 for a vector of 384, 200 times, against a libcurl loop that
          sends the same body over one connection and parses nothing
  scroll  10,320 rows, their largest id, artifact_id and path,
          against a libcurl loop that sends the same page requests and parses
          nothing
  upsert  POINTS x 384 from a table, against qdrant-client's upload_points with
          its defaults (batches of 64, one process) of the same points
"""
import json
import os
import pathlib
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
SO = os.environ.get("CHOIR_SO", str(ROOT / "choir.so"))
sys.path[:0] = [str(ROOT / "tests/servers")]

LOOP = r"""
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
static size_t sink(char *a, size_t m, size_t n, void *p) {
  (void)a;
  *(size_t *)p += m * n;
  return m * n;
}
/* loop URL TIMES BODY…: each body in turn, TIMES times */
int main(int argc, char **argv) {
  int times = atoi(argv[2]), i, j;
  size_t total = 0;
  struct timespec a, b;
  struct curl_slist *h =
      curl_slist_append(NULL, "Content-Type: application/json");
  CURL *c;
  curl_global_init(CURL_GLOBAL_DEFAULT);
  c = curl_easy_init();
  for (i = -1; i < times; i++) {
    if (i == 0) clock_gettime(CLOCK_MONOTONIC, &a);
    for (j = 3; j < argc; j++) {
      FILE *f = fopen(argv[j], "rb");
      static char body[1 << 20];
      size_t n = fread(body, 1, sizeof(body), f);
      fclose(f);
      curl_easy_setopt(c, CURLOPT_URL, argv[1]);
      curl_easy_setopt(c, CURLOPT_HTTPHEADER, h);
      curl_easy_setopt(c, CURLOPT_POSTFIELDS, body);
      curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE, (long)n);
      curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, sink);
      curl_easy_setopt(c, CURLOPT_WRITEDATA, &total);
      if (curl_easy_perform(c)) return 1;
      if (i < 0) break;
    }
  }
  clock_gettime(CLOCK_MONOTONIC, &b);
  printf("%.9f\n", (double)(b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) / 1e9);
  return 0;
}
"""


def raw(url, method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    return json.load(urllib.request.urlopen(urllib.request.Request(
        url + path, data, {"Content-Type": "application/json"},
        method=method)))


def vectors(n):
    import numpy
    rng = numpy.random.default_rng(5)
    v = rng.standard_normal((n, 384)).astype("<f4")
    return v / numpy.linalg.norm(v, axis=1)[:, None]


def processor():
    """Seconds that this process and those it has waited for computed."""
    r = [resource.getrusage(w) for w in (resource.RUSAGE_SELF,
                                         resource.RUSAGE_CHILDREN)]
    return sum(x.ru_utime + x.ru_stime for x in r)


def median(runs, rounds):
    """Of each: median, best, and median of the processor time."""
    times, cpu = {k: [] for k in runs}, {k: [] for k in runs}
    for _ in range(rounds):
        for k, run in runs.items():
            start = processor()
            times[k].append(run())
            cpu[k].append(processor() - start)
    return ({k: statistics.median(v) for k, v in times.items()},
            {k: min(v) for k, v in times.items()},
            {k: statistics.median(v) for k, v in cpu.items()})


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    folder = pathlib.Path(tempfile.mkdtemp(prefix="choir-bench-"))
    url, server = os.environ.get("CHOIR_TEST_QDRANT_URL"), None
    if not url:
        server = subprocess.Popen(
            [sys.executable, ROOT / "tests/servers/qdrant_server.py",
             folder / "qdrant", "--raw"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)
        url = server.stdout.readline().strip()
    try:
        run(url.rstrip("/"), folder, n, rounds)
    finally:
        if server:
            server.stdin.close()
            server.wait()


def run(url, folder, n, rounds):
    (folder / "loop.c").write_text(LOOP)
    subprocess.run(["gcc", "-O2", "-o", folder / "loop", folder / "loop.c",
                    "-lcurl"], check=True)
    con = sqlite3.connect(":memory:", isolation_level=None)
    con.enable_load_extension(True)
    con.load_extension(SO)
    one = lambda sql, *a: con.execute(sql, a).fetchone()[0]  # noqa: E731
    one("SELECT choir_config('qdrant.url', ?)", url)
    one("SELECT choir_config('qdrant.collection', 'choir-bench')")
    one("SELECT choir_config('user', 'bench')")
    v = vectors(n)
    con.execute("CREATE TABLE p(id TEXT, e BLOB, payload TEXT)")
    con.executemany("INSERT INTO p VALUES(?, ?, ?)", (
        (f"a{i}", v[i].tobytes(), json.dumps({"path": f"/docs/{i}.md"}))
        for i in range(n)))
    upserts(url, con, one, v, n, max(1, rounds // 2))
    reads(url, folder, con, v, rounds)


def fresh(url, one):
    try:
        raw(url, "DELETE", "/collections/choir-bench")
    except OSError:
        pass
    one("SELECT qdrant_init()")


def upserts(url, con, one, v, n, rounds):
    from qdrant_client import QdrantClient, models
    client = QdrantClient(url=url, timeout=60)

    def choir():
        fresh(url, one)
        start = time.perf_counter()
        assert one("SELECT qdrant_upsert(id, 0, e, payload) FROM p") == n
        return time.perf_counter() - start

    def official():
        fresh(url, one)
        start = time.perf_counter()
        client.upload_points("choir-bench", [models.PointStruct(
            id=i, vector=v[i].tolist(), payload={
                "path": f"/docs/{i}.md", "user_id": "bench",
                "artifact_id": f"a{i}", "chunk": 0}) for i in range(n)],
            wait=True)
        return time.perf_counter() - start
    m, _, cpu = median({"client": official, "choir": choir}, rounds)
    print(f"upsert of {n} x 384: choir {n / m['choir']:.0f} points/s,"
          f" qdrant-client {n / m['client']:.0f} points/s"
          f" ({m['client'] / m['choir']:.2f}x); processor time of a point:"
          f" {cpu['choir'] / n * 1e6:.0f} us, {cpu['client'] / n * 1e6:.0f} us")


def reads(url, folder, con, v, rounds):
    tenant = {"must": [{"key": "user_id", "match": {"value": "bench"}}]}
    base = f"{url}/collections/choir-bench/points/"
    q = v[7].tobytes()
    (folder / "q").write_text(json.dumps({
        "filter": tenant, "limit": 10, "with_vector": False, "with_payload": [
            "user_id", "model", "artifact_id", "path"],
        "query": [round(float(x), 7) for x in v[7]]}))
    pages, after, rows = [], None, 0
    for limit in [1000] * 10 + [320]:
        body = {"filter": tenant, "limit": limit, "with_vector": False,
                "with_payload": ["user_id", "model", "artifact_id", "path"]}
        if after:
            body["offset"] = after
        pages.append(folder / f"page{len(pages)}")
        pages[-1].write_text(json.dumps(body))
        r = raw(url, "POST", "/collections/choir-bench/points/scroll", body)
        after, rows = r["result"]["next_page_offset"], rows + limit
    assert rows == 10320

    def bare(path, times, *bodies):
        return float(subprocess.run(
            [folder / "loop", base + path, str(times), *bodies], check=True,
            capture_output=True, text=True).stdout)

    def search():
        sql = "SELECT score, artifact_id, path FROM qdrant_search(?) LIMIT 10"
        start = time.perf_counter()
        for _ in range(200):
            con.execute(sql, (q,)).fetchall()
        return time.perf_counter() - start

    def scroll():
        start = time.perf_counter()
        (got,) = con.execute(
            "SELECT count(*), max(id), max(artifact_id), max(path) FROM (SELECT"
            " id, artifact_id, path FROM qdrant_scroll() LIMIT 10320)"
        ).fetchall()
        assert got[0] == 10320
        return time.perf_counter() - start
    search()
    runs = {"search": search, "bare": lambda: bare("query", 200, folder / "q"),
            "scroll": scroll, "pages": lambda: bare("scroll", 1, *pages)}
    *walls, cpu = median(runs, rounds)
    for name, m in zip(("median", "best"), walls):
        print(f"{name}: qdrant_search k=10: {m['search'] * 5:.2f} ms, bare"
              f" {m['bare'] * 5:.2f} ms ({m['search'] / m['bare']:.2f}x);"
              f" qdrant_scroll of 10,320 rows: {m['scroll'] * 1e3:.0f} ms,"
              f" bare {m['pages'] * 1e3:.0f} ms"
              f" ({m['scroll'] / m['pages']:.2f}x)")
    print(f"processor time of the caller: qdrant_search {cpu['search'] * 5:.3f}"
          f" ms, bare {cpu['bare'] * 5:.3f} ms; qdrant_scroll"
          f" {cpu['scroll'] * 1e3:.0f} ms, bare {cpu['pages'] * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
