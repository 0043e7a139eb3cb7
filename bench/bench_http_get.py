#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What http_get costs over a bare libcurl loop that reuses its handle.

  bench/bench_http_get.py [REQUESTS=1000] [ROUNDS=9]

Both fetch the same file of 1 KB, one after the other, from nginx on 127.0.0.1
(one worker, keep-alive); rounds are interleaved; the median and the best are printed.
`fresh` makes a new handle for every request, as a naive client does. `big` is
one file of 256 MiB into memory, against `curl -o /dev/null`.
"""
import os
import pathlib
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
#include <time.h>
static size_t sink(char *a, size_t m, size_t n, void *p) {
  (void)a;
  *(size_t *)p += m * n;
  return m * n;
}
int main(int argc, char **argv) {
  int n = atoi(argv[2]), fresh = atoi(argv[3]), i;
  size_t total = 0;
  struct timespec a, b;
  CURL *c = NULL;
  curl_global_init(CURL_GLOBAL_DEFAULT);
  for (i = -1; i < n; i++) {
    if (i == 0) clock_gettime(CLOCK_MONOTONIC, &a);
    if (fresh && c) curl_easy_cleanup(c), c = NULL;
    if (!c) c = curl_easy_init();
    curl_easy_setopt(c, CURLOPT_URL, argv[1]);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, sink);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &total);
    if (curl_easy_perform(c)) return 1;
  }
  clock_gettime(CLOCK_MONOTONIC, &b);
  printf("%.9f\n", (double)(b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) / 1e9);
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

        def choir():
            sql = "SELECT length(response_body) FROM http_get(?)"
            con.execute(sql, (base + "kb",)).fetchall()
            start = time.perf_counter()
            for _ in range(n):
                con.execute(sql, (base + "kb",)).fetchall()
            return time.perf_counter() - start

        def bare(fresh):
            return float(subprocess.run(
                [folder / "loop", base + "kb", str(n), str(fresh)], check=True,
                capture_output=True, text=True).stdout)

        def big():
            start = time.perf_counter()
            con.execute("SELECT length(response_body) FROM http_get(?)",
                        (base + "big",)).fetchall()
            return time.perf_counter() - start

        def curl():
            start = time.perf_counter()
            subprocess.run(["curl", "-s", "-o", "/dev/null", base + "big"],
                           check=True)
            return time.perf_counter() - start
        runs = {"http_get": choir, "bare": lambda: bare(0),
                "fresh": lambda: bare(1), "big": big, "curl": curl}
        times = {k: [] for k in runs}
        for _ in range(rounds):
            for k, run in runs.items():
                times[k].append(run())
        for name, pick in (("median", statistics.median), ("best", min)):
            m = {k: pick(v) for k, v in times.items()}
            us = 1e6 / n
            print(f"{name}: http_get {m['http_get'] * us:.0f} us a request,"
                  f" bare libcurl loop {m['bare'] * us:.0f} us"
                  f" ({m['http_get'] / m['bare']:.2f}x),"
                  f" a new handle each time {m['fresh'] * us:.0f} us;"
                  f" 256 MiB: http_get {268.4 / m['big']:.0f} MB/s,"
                  f" curl {268.4 / m['curl']:.0f} MB/s")
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
