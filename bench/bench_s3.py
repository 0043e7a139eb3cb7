#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the s3_* functions cost over libcurl and curl themselves.

  bench/bench_s3.py [ROUNDS=5]

  get 1 KB   1,000 times s3_get of 1 KB, a loop in C on bare libcurl beside it
  get file   s3_get_file of 256 MiB, `curl -o` beside it, fsync after both
  put file   s3_put_file of 256 MiB in one request, `curl -T` beside it
  list       100,000 keys in pages of 1,000, the loop in C fetching the pages
  put parts  s3_put_file of 256 MiB in parts to versitygw, `curl -T` to a
             presigned URL of it beside it

The first four go to nginx on 127.0.0.1 (one worker, keep-alive), so what is
measured is the client. Rounds are interleaved; the ratio of the medians of wall
time is printed, and that of processor time where both are one process.
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
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests/servers")]
SO = os.environ.get("CHOIR_SO", str(ROOT / "choir.so"))
N, KEYS, BIG = 1000, 100_000, 256 << 20

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
int main(int argc, char **argv) { /* URL N: URL as often, its %d counted */
  int n = atoi(argv[2]), i;
  size_t total = 0;
  char z[1000];
  struct timespec a, b;
  CURL *c;
  curl_global_init(CURL_GLOBAL_DEFAULT);
  c = curl_easy_init();
  for (i = -1; i < n; i++) {
    if (i == 0) clock_gettime(CLOCK_MONOTONIC, &a);
    snprintf(z, sizeof(z), argv[1], i < 0 ? 0 : i);
    curl_easy_setopt(c, CURLOPT_URL, z);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, sink);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &total);
    if (curl_easy_perform(c)) return 1;
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
  uwsgi_temp_path {0}/t; scgi_temp_path {0}/t;
  client_max_body_size 0;
  map $args $page {{ default ""; "~list-type=2.*continuation-token=(?<n>[0-9]+)" $n;
    "~list-type=2" 0; }}
  server {{ listen 127.0.0.1:{1}; root {0}/www;
    location = /bucket/ {{ rewrite ^ /pages/$page break; }}
    location /put/ {{ dav_methods PUT; }} }} }}
"""


def pages(folder):
    folder.mkdir()
    last = KEYS // 1000 - 1
    for i in range(last + 1):
        rows = "".join(
            f"<Contents><Key>folder/name-{i:03}{k:03}.bin</Key><LastModified>"
            "2026-01-31T12:00:00.000Z</LastModified><ETag>&quot;d41d8cd98f00b"
            f"204e9800998ecf8427e&quot;</ETag><Size>{k}</Size><StorageClass>"
            "STANDARD</StorageClass></Contents>" for k in range(1000))
        more = (f"<IsTruncated>true</IsTruncated><NextContinuationToken>{i + 1}"
                "</NextContinuationToken>" if i < last
                else "<IsTruncated>false</IsTruncated>")
        (folder / str(i)).write_text(
            '<?xml version="1.0"?><ListBucketResult><Name>bucket</Name>'
            f"<EncodingType>url</EncodingType>{more}{rows}"
            "</ListBucketResult>")


def nginx(folder):
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    for name in ("www", "www/bucket", "www/put"):
        (folder / name).mkdir()
        (folder / name).chmod(0o777)
    (folder / "www/bucket/kb").write_bytes(os.urandom(1024))
    with open(folder / "www/bucket/big", "wb") as f:
        for _ in range(BIG >> 20):
            f.write(os.urandom(1 << 20))
    pages(folder / "www/pages")
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
    return server, f"http://127.0.0.1:{port}"


def clock(f):
    """(wall seconds, processor seconds of this process and its children)"""
    def used():
        return sum(sum(resource.getrusage(w)[:2]) for w in
                   (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    start, cpu = time.perf_counter(), used()
    f()
    return time.perf_counter() - start, used() - cpu


def sync(path):
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    os.close(fd)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    subprocess.run([ROOT / "tools/setup.sh", "only", "nginx-light", "curl",
                    "gcc", "libcurl4-openssl-dev"], check=True)
    import versitygw
    folder = pathlib.Path(tempfile.mkdtemp(prefix="choir-bench-"))
    (folder / "gw").mkdir()
    server, base = nginx(folder)
    gateway = versitygw.Versitygw(folder / "gw")
    try:
        (folder / "loop.c").write_text(LOOP)
        subprocess.run(["gcc", "-O2", "-o", folder / "loop", folder / "loop.c",
                        "-lcurl"], check=True)
        con = sqlite3.connect(":memory:")
        con.enable_load_extension(True)
        con.load_extension(SO)

        def one(sql, *params):
            return con.execute(sql, params).fetchall()
        one("SELECT choir_secret('web', json_object('type', 's3', 'provider',"
            " 'none', 'scope', 's3://bucket/', 'endpoint', ?))", base)
        one("SELECT choir_secret('put', json_object('type', 's3', 'provider',"
            " 'none', 'scope', 's3://put/', 'endpoint', ?))", base)
        one("SELECT choir_secret('gw', json_object('type', 's3', 'access_key',"
            " ?, 'secret_key', ?, 'region', ?, 'scope', 's3://other.bucket/',"
            " 'endpoint', ?))", gateway.access, gateway.secret,
            gateway.region, gateway.endpoint)
        big, out = str(folder / "www/bucket/big"), str(folder / "out")

        def loop(url, n):
            return float(subprocess.run([folder / "loop", url, str(n)],
                                        check=True, capture_output=True,
                                        text=True).stdout), None

        def gets():
            for _ in range(N):
                one("SELECT s3_get('s3://bucket/kb')")

        def curl(*args):
            subprocess.run(["curl", "-sf", *args], check=True,
                           stdout=subprocess.DEVNULL)

        def get_curl():
            curl("-o", out, base + "/bucket/big")
            sync(out)

        def put(url, multipart):
            one("SELECT choir_config('s3.multipart_bytes', ?)", multipart)
            one("SELECT s3_put_file(?, ?)", url, big)
        presigned = one("SELECT s3_presign('PUT', 's3://other.bucket/curl',"
                        " 3600)")[0][0]
        pairs = {
            "get 1 KB": (lambda: clock(gets),
                         lambda: loop(base + "/bucket/kb", N)),
            "get file": (lambda: clock(lambda: one(
                "SELECT s3_get_file('s3://bucket/big', ?)", out)),
                lambda: clock(get_curl)),
            "put file": (lambda: clock(lambda: put("s3://put/a", 1 << 40)),
                         lambda: clock(lambda: curl("-T", big,
                                                    base + "/put/b"))),
            "list": (lambda: clock(lambda: one(
                "SELECT count(*), sum(size) FROM s3_list('s3://bucket/')")),
                lambda: loop(base + "/pages/%d", KEYS // 1000)),
            "put parts": (lambda: clock(lambda: put("s3://other.bucket/choir",
                                                    16 << 20)),
                          lambda: clock(lambda: curl("-T", big, presigned))),
        }
        one("SELECT s3_get('s3://bucket/kb')")
        times = {k: ([], []) for k in pairs}
        for _ in range(rounds):
            for name, two in pairs.items():
                for i in (0, 1):
                    times[name][i].append(two[i]())
        for name, (ours, theirs) in times.items():
            a, b = (statistics.median(t[0] for t in x) for x in (ours, theirs))
            best = min(t[0] for t in ours) / min(t[0] for t in theirs)
            line = (f"{name:10} choir {a * 1e3:8.1f} ms, bare {b * 1e3:8.1f} ms:"
                    f" {a / b:.2f}x the time (best {best:.2f}x)")
            if theirs[0][1] is not None:
                c = statistics.median(t[1] for t in ours)
                d = statistics.median(t[1] for t in theirs)
                line += f", processor {c / d:.2f}x"
            print(line)
        print("load %.1f; most memory %.0f MiB" % (
            os.getloadavg()[0],
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
    finally:
        gateway.stop()
        server.terminate()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
