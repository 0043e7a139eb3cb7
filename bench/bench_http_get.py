#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What http_get costs over a bare libcurl loop that reuses its handle.

  bench/bench_http_get.py [REQUESTS=1000] [ROUNDS=9]

Both fetch the same file of 1 KB, one after the other, from nginx on 127.0.0.1
(one worker, keep-alive); rounds take turns. `fresh` makes a new handle for every
request, as a naive client does. `big` is one file of 256 MiB into memory, beside a
bare loop that collects it in memory too (of the announced length, allocated at
once), and `curl -o /dev/null`, which keeps nothing. By the clock, median and best,
and processor time, median.
"""
import os
import pathlib
import resource
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SO = os.environ.get("CHOIR_SO", str(ROOT / "choir.so"))

LOOP = r"""
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
typedef struct { CURL *c; char *a; size_t n; int keep; } Body;
static size_t sink(char *a, size_t m, size_t n, void *p) {
  Body *b = p;
  n *= m;
  if (b->keep) {
    curl_off_t all = 0;
    if (!b->a) {
      curl_easy_getinfo(b->c, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &all);
      b->a = malloc((size_t)all);
    }
    memcpy(b->a + b->n, a, n);
  }
  b->n += n;
  return n;
}
static double now(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  return (double)t.tv_sec + t.tv_nsec / 1e9;
}
/* loop URL TIMES FRESH KEEP: seconds by the clock, and of the processor */
int main(int argc, char **argv) {
  int n = atoi(argv[2]), fresh = atoi(argv[3]), keep = atoi(argv[4]), i;
  double wall = 0, cpu = 0;
  CURL *c = NULL;
  curl_global_init(CURL_GLOBAL_DEFAULT);
  for (i = keep ? 0 : -1; i < n; i++) {
    if (i <= 0) wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    if (fresh && c) curl_easy_cleanup(c), c = NULL;
    if (!c) c = curl_easy_init();
    Body b = {c, NULL, 0, keep};
    curl_easy_setopt(c, CURLOPT_URL, argv[1]);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, sink);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &b);
    if (curl_easy_perform(c)) return 1;
    free(b.a);
  }
  printf("%.9f %.9f\n", now(CLOCK_MONOTONIC) - wall,
         now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
  return 0;
}
"""

CONF = """daemon off; worker_processes 1; pid {0}/pid; error_log {0}/error.log;
events {{ worker_connections 64; }}
http {{ access_log off; keepalive_requests 1000000; sendfile on;
  client_body_temp_path {0}/t; proxy_temp_path {0}/t; fastcgi_temp_path {0}/t;
  uwsgi_temp_path {0}/t; scgi_temp_path {0}/t;
  server {{ listen 127.0.0.1:{1}; root {0}/www; }} }}
"""


def nginx(folder):
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    (folder / "www").mkdir()
    (folder / "www/kb").write_bytes(os.urandom(1024))
    with open(folder / "www/big", "wb") as f:
        for _ in range(256):
            f.write(os.urandom(1 << 20))
    folder.chmod(0o755)
    (folder / "conf").write_text(CONF.format(folder, port))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    server = subprocess.Popen([program, "-p", str(folder), "-c",
                               str(folder / "conf")])
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.05)
    return server, f"http://127.0.0.1:{port}/"


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 9
    folder = pathlib.Path(tempfile.mkdtemp(prefix="choir-bench-"))
    server, base = nginx(folder)
    try:
        (folder / "loop.c").write_text(LOOP)
        subprocess.run(["gcc", "-O2", "-o", folder / "loop", folder / "loop.c",
                        "-lcurl"], check=True)
        con = sqlite3.connect(":memory:")
        con.enable_load_extension(True)
        con.load_extension(SO)
        con.execute("SELECT choir_config('http.max_bytes', 400000000)")

        def choir(name, times):
            start, cpu = time.perf_counter(), time.process_time()
            con.execute(
                "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c"
                " WHERE i < ?2) SELECT sum(length(response_body)) FROM c CROSS"
                " JOIN http_get(?1 || '?' || i)", (base + name, times)
            ).fetchall()
            return time.perf_counter() - start, time.process_time() - cpu

        def bare(name, times, fresh, keep):
            return tuple(map(float, subprocess.run(
                [folder / "loop", base + name, str(times), str(fresh),
                 str(keep)], check=True, capture_output=True,
                text=True).stdout.split()))

        def curl():
            start, r = time.perf_counter(), resource.RUSAGE_CHILDREN
            before = resource.getrusage(r)
            subprocess.run(["curl", "-s", "-o", "/dev/null", base + "big"],
                           check=True)
            after = resource.getrusage(r)
            return (time.perf_counter() - start, after.ru_utime
                    + after.ru_stime - before.ru_utime - before.ru_stime)
        choir("kb", 1)
        runs = {"http_get": lambda: choir("kb", n),
                "bare": lambda: bare("kb", n, 0, 0),
                "fresh": lambda: bare("kb", n, 1, 0),
                "big": lambda: choir("big", 1),
                "kept": lambda: bare("big", 1, 0, 1), "curl": curl}
        times = {k: [] for k in runs}
        for _ in range(rounds):
            for k, run in runs.items():
                times[k].append(run())
        for name, pick, i in (("median", statistics.median, 0),
                              ("best", min, 0),
                              ("processor", statistics.median, 1)):
            m = {k: pick([t[i] for t in v]) for k, v in times.items()}
            us = 1e6 / n
            print(f"{name}: http_get {m['http_get'] * us:.0f} us a request,"
                  f" bare libcurl loop {m['bare'] * us:.0f} us"
                  f" ({m['http_get'] / m['bare']:.2f}x),"
                  f" a new handle each time {m['fresh'] * us:.0f} us;"
                  f" 256 MiB: http_get {268.4 / m['big']:.0f} MB/s, the loop"
                  f" that keeps it {268.4 / m['kept']:.0f} MB/s,"
                  f" curl to /dev/null {268.4 / m['curl']:.0f} MB/s")
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
