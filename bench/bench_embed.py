#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How many requests a service gets for many short texts, and what they cost.

  bench/bench_embed.py [TEXTS=10000]

For each provider, with a model that choir does not know yet: requests of a first
run by embed_all() over a table, of a second run and of embed() over all rows; processor time of a text on choir's side (the
server, a thread of this process, is not counted).
"""
import math
import os
import pathlib
import sqlite3
import struct
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SO = os.environ.get("CHOIR_SO", str(ROOT / "choir.so"))
sys.path[:0] = [str(ROOT / "tests/servers")]
from embed_server import EmbedServer  # noqa: E402

BATCH = {"openai": 256, "ollama": 256, "tei": 32}
VECTOR = [((i * 37) % 101 - 50) / 64 for i in range(384)]


def run(provider, n, folder):
    con = sqlite3.connect(":memory:", isolation_level=None)
    con.enable_load_extension(True)
    con.load_extension(SO)
    one = lambda sql, *a: con.execute(sql, a).fetchone()[0]  # noqa: E731
    con.execute("CREATE TABLE t(x)")
    con.executemany("INSERT INTO t VALUES(?)",
                    ((f"short text number {i}",) for i in range(n)))
    one("SELECT choir_config('embed.cache', ?)", f"{folder}/{provider}.db")
    one("SELECT choir_config('embed.model', 'test-model')")
    one("SELECT choir_config('embed.provider', ?)", provider)
    with EmbedServer(lambda texts: [VECTOR] * len(texts)) as s:
        one("SELECT choir_config('embed.url', ?)", getattr(s, provider))
        start = time.thread_time()
        assert one("SELECT embed_all(x) FROM t") == n
        cpu, first = time.thread_time() - start, len(s.requests)
        assert one("SELECT embed_all(x) FROM t") == n
        second = len(s.requests) - first
        start = time.thread_time()
        length = struct.calcsize("<384f")
        assert one("SELECT count(*) FROM t WHERE length(embed(x)) = ?",
                   length) == n
        again = time.thread_time() - start
    most = math.ceil(n / BATCH[provider])
    assert first <= most and len(s.requests) == first and second == 0
    print(f"{provider}: {n} texts, {first} requests (batches of"
          f" {BATCH[provider]}), second run {second};"
          f" {cpu / n * 1e6:.0f} us a text, {again / n * 1e6:.0f} us from the"
          " cache")


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
    with tempfile.TemporaryDirectory(prefix="choir-bench-") as folder:
        for provider in BATCH:
            run(provider, n, folder)


if __name__ == "__main__":
    main()
