#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the s3_* functions cost over libcurl and curl themselves.

  bench/bench_s3.py [ROUNDS=5]

  get 1 KB   1,000 times s3_get of 1 KB; a loop in C on bare libcurl beside it
  get file   s3_get_file of 256 MiB, made durable; `curl -o` and fsync beside it
  put file   s3_put_file of 256 MiB in one request; `curl -T` beside it
  parts      s3_put_file of 256 MiB in parts; `curl -T` to a presigned URL
  list       100,000 keys in pages of 1,000; the loop in C fetching the pages

The first three go to nginx on 127.0.0.1 (one worker, keep-alive), files over
TLS too; parts (TLS) and list to versitygw. Rounds are interleaved; the ratio of
the medians of wall time is printed, and that of processor time where both can
be told.
"""
import json
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
sys.path.insert(0, str(ROOT / "tests/servers"))
SO = os.environ.get("CHOIR_SO", str(ROOT / "choir.so"))
N, FOLDERS, BIG = 1000, 100, 256 << 20

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
/* Every line of the file argv[1] is a URL; argv[2] times the whole of it. */
int main(int argc, char **argv) {
  static char z[200][2000];
  int i, j, n = 0, nTimes = atoi(argv[2]);
  size_t total = 0;
  struct timespec a, b;
  FILE *f = fopen(argv[1], "r");
  CURL *c;
  (void)argc;
  while (n < 200 && fgets(z[n], sizeof(z[n]), f)) z[n][strcspn(z[n], "\n")] = 0, n++;
  curl_global_init(CURL_GLOBAL_DEFAULT);
  c = curl_easy_init();
  for (i = -1; i < nTimes; i++) {
    if (i == 0) clock_gettime(CLOCK_MONOTONIC, &a);
    for (j = 0; j < (i < 0 ? 1 : n); j++) {
      curl_easy_setopt(c, CURLOPT_URL, z[j]);
      curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
      curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, sink);
      curl_easy_setopt(c, CURLOPT_WRITEDATA, &total);
      if (curl_easy_perform(c)) return 1;
    }
  }
  clock_gettime(CLOCK_MONOTONIC, &b);
  printf("%.9f\n",
         (double)(b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) / 1e9);
  return 0;
}
"""

CONF = """daemon off; worker_processes 1; pid {0}/pid; error_log {0}/error.log;
events {{ worker_connections 64; }}
http {{ access_log off; keepalive_requests 10000000; sendfile on;
  client_body_temp_path {0}/t; proxy_temp_path {0}/t; fastcgi_temp_path {0}/t;
  uwsgi_temp_path {0}/t; scgi_temp_path {0}/t; client_max_body_size 0;
  ssl_certificate {0}/cert; ssl_certificate_key {0}/key;
  server {{ listen 127.0.0.1:{1}; listen 127.0.0.1:{2} ssl; root {0}/www;
    location /put/ {{ dav_methods PUT; }} }} }}
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def certificate(folder):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days",
         "2", "-keyout", folder / "key", "-out", folder / "cert", "-subj",
         "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True)


def nginx(folder):
    port, tls = free_port(), free_port()
    for name in ("www", "www/bucket", "www/put"):
        (folder / name).mkdir()
        (folder / name).chmod(0o777)
    (folder / "www/bucket/kb").write_bytes(os.urandom(1024))
    with open(folder / "www/bucket/big", "wb") as f:
        for _ in range(BIG >> 20):
            f.write(os.urandom(1 << 20))
    folder.chmod(0o755)
    (folder / "conf").write_text(CONF.format(folder, port, tls))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    server = subprocess.Popen([program, "-p", str(folder), "-c",
                               str(folder / "conf")])
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.05)
    return server, f"http://127.0.0.1:{port}", f"https://127.0.0.1:{tls}"


def many(folder):
    """Keys that a real store lists, in folders of a page each."""
    for i in range(FOLDERS):
        (folder / f"{i:03}").mkdir()
        for k in range(1000):
            (folder / f"{i:03}/{k:03}").touch()


def clock(f):
    """(wall seconds, processor seconds of this process and its children)"""
    def used():
        return sum(sum(resource.getrusage(w)[:2]) for w in
                   (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    start, cpu = time.perf_counter(), used()
    f()
    return time.perf_counter() - start, used() - cpu


class Bench:
    def __init__(self, folder):
        import versitygw
        self.folder = folder
        certificate(folder)
        (folder / "loop.c").write_text(LOOP)
        subprocess.run(["gcc", "-O2", "-o", folder / "loop", folder / "loop.c",
                        "-lcurl"], check=True)
        self.nginx, self.web, self.tls = nginx(folder)
        self.gateways = []
        for name, tls in (("plain", None),
                          ("tls", (folder / "cert", folder / "key"))):
            (folder / name).mkdir()
            self.gateways.append(versitygw.Versitygw(folder / name, tls))
        many(folder / "plain/data/bucket")
        self.con = sqlite3.connect(":memory:")
        self.con.enable_load_extension(True)
        self.con.load_extension(SO)
        self.big, self.out = (str(folder / n) for n in ("www/bucket/big", "out"))

    def stop(self):
        for g in self.gateways:
            g.stop()
        self.nginx.terminate()
        self.nginx.wait()

    def sql(self, sql, *params):
        return self.con.execute(sql, params).fetchall()

    def at(self, endpoint, server=None, multipart=1 << 40):
        """Objects are there from now on."""
        self.sql("SELECT choir_config('s3.multipart_bytes', ?)", multipart)
        self.sql("SELECT choir_config('http.ca_file', ?)",
                 str(self.folder / "cert"))
        self.sql("SELECT choir_secret('a', ?)", json.dumps(
            {"type": "s3", "endpoint": endpoint, "provider": "none"}
            if server is None else
            {"type": "s3", "endpoint": endpoint, "access_key": server.access,
             "secret_key": server.secret, "region": server.region}))

    def loop(self, urls, n):
        (self.folder / "urls").write_text("\n".join(urls) + "\n")
        return float(subprocess.run(
            [self.folder / "loop", self.folder / "urls", str(n)], check=True,
            capture_output=True, text=True).stdout), None

    def curl(self, *args):
        subprocess.run(["curl", "-sf", "--cacert", self.folder / "cert", *args],
                       check=True, stdout=subprocess.DEVNULL)

    def get_1_kb(self):
        self.at(self.web)
        self.sql("SELECT s3_get('s3://bucket/kb')")
        return clock(lambda: [self.sql("SELECT s3_get('s3://bucket/kb')")
                              for _ in range(N)])

    def get_1_kb_bare(self):
        return self.loop([self.web + "/bucket/kb"], N)

    def get_file(self, base):
        self.at(base)
        return clock(lambda: self.sql(
            "SELECT s3_get_file('s3://bucket/big', ?)", self.out))

    def get_file_curl(self, base):
        def run():
            self.curl("-o", self.out, base + "/bucket/big")
            fd = os.open(self.out, os.O_RDWR)
            os.fsync(fd)
            os.close(fd)
        return clock(run)

    def put_file(self, base):
        self.at(base)
        return clock(lambda: self.sql("SELECT s3_put_file('s3://put/a', ?)",
                                      self.big))

    def put_file_curl(self, base):
        return clock(lambda: self.curl("-T", self.big, base + "/put/b"))

    def parts(self):
        g = self.gateways[1]
        self.at(g.endpoint, g, 16 << 20)
        return clock(lambda: self.sql("SELECT s3_put_file('s3://bucket/a', ?)",
                                      self.big))

    def parts_curl(self):
        self.at(self.gateways[1].endpoint, self.gateways[1])
        url = self.sql("SELECT s3_presign('PUT', 's3://bucket/b', 600)")[0][0]
        return clock(lambda: self.curl("-T", self.big, url))

    def list(self):
        self.at(self.gateways[0].endpoint, self.gateways[0])
        return clock(lambda: self.sql(
            "SELECT count(*), sum(size) FROM s3_list('s3://bucket/')"))

    def list_bare(self):
        g = self.gateways[0]
        urls = [json.loads(self.sql("SELECT s3_sign_v4(?)", json.dumps({
            "url": g.endpoint + "/bucket?list-type=2" + (
                f"&start-after={i - 1:03}/999" if i else ""), "mode": "query",
            "time": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            "access_key": g.access, "secret_key": g.secret,
            "region": g.region}))[0][0])["url"] for i in range(FOLDERS)]
        return self.loop(urls, 1)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    subprocess.run([ROOT / "tools/setup.sh", "only", "nginx-light", "curl",
                    "gcc", "libcurl4-openssl-dev", "openssl"], check=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="choir-bench-"))
    b = Bench(folder)
    pairs = {
        "get 1 KB": (b.get_1_kb, b.get_1_kb_bare),
        "get file": (lambda: b.get_file(b.web), lambda: b.get_file_curl(b.web)),
        "get file, TLS": (lambda: b.get_file(b.tls),
                          lambda: b.get_file_curl(b.tls)),
        "put file": (lambda: b.put_file(b.web), lambda: b.put_file_curl(b.web)),
        "put file, TLS": (lambda: b.put_file(b.tls),
                          lambda: b.put_file_curl(b.tls)),
        "parts, TLS": (b.parts, b.parts_curl),
        "list": (b.list, b.list_bare),
    }
    times = {k: ([], []) for k in pairs}
    try:
        for _ in range(rounds):
            for name, two in pairs.items():
                for i in (0, 1):
                    times[name][i].append(two[i]())
    finally:
        b.stop()
        shutil.rmtree(folder, ignore_errors=True)
    for name, (ours, theirs) in times.items():
        a, c = (statistics.median(t[0] for t in x) for x in (ours, theirs))
        best = min(t[0] for t in ours) / min(t[0] for t in theirs)
        line = (f"{name:14} choir {a * 1e3:7.0f} ms, bare {c * 1e3:7.0f} ms:"
                f" {a / c:.2f}x the time (best {best:.2f}x)")
        if theirs[0][1] is not None:
            cpu = [statistics.median(t[1] for t in x) for x in (ours, theirs)]
            line += f", processor {cpu[0] / cpu[1]:.2f}x"
        print(line)
    print("load %.1f; most memory %.0f MiB" % (
        os.getloadavg()[0],
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


if __name__ == "__main__":
    main()
