#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""choir_index and choir_search on a seeded corpus: bench_search.py [DOCS]

Makes DOCS documents (default 1,900) of about 4 KB from a Zipf-distributed
vocabulary, which is about 10,000 chunks, and prints

  - choir_index() in MB of text a second, of the whole corpus at once, and of
    one changed document;
  - medians of choir_search over seeded queries, interleaved in one run with
    the same words asked of FTS5 alone and the same vectors scanned alone;
  - the first search of a connection that has nothing indexed.

Needs ./choir.so (or CHOIR_SO) and nothing else.
"""
import os
import pathlib
import random
import sqlite3
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SO = os.path.abspath(os.environ.get("CHOIR_SO", str(ROOT / "choir.so")))
VOCABULARY, WORDS_A_DOCUMENT, ROUNDS = 20_000, 560, 9


def vocabulary(r):
    parts = ["an", "ber", "co", "dis", "el", "for", "gra", "hi", "in", "jo",
             "ka", "li", "men", "no", "or", "pre", "qua", "re", "sta", "ti",
             "un", "ver", "wor", "xy", "ya", "zen"]
    words = dict.fromkeys(["the", "of", "and", "to", "in", "a", "is", "that"])
    while len(words) < VOCABULARY:
        words["".join(r.choices(parts, k=r.choice((1, 2, 2, 3, 3, 4))))
              + r.choice(("", "", "s", "ed", "ing"))] = None
    return list(words)


def corpus(r, words, documents):
    weights = [1 / (i + 2.7) for i in range(len(words))]
    for _ in range(documents):
        text = r.choices(words, weights, k=WORDS_A_DOCUMENT)
        for i in range(11, len(text), 12):
            text[i] += "."
        i = 0
        while i < len(text):
            text[i] = "\n\n" + text[i]
            i += r.randrange(10, 60)
        yield " ".join(text)


def connect(path):
    c = sqlite3.connect(path, isolation_level=None)
    c.enable_load_extension(True)
    c.load_extension(SO)
    return c


def milliseconds(c, sql, *params):
    t = time.perf_counter()
    c.execute(sql, params).fetchall()
    return (time.perf_counter() - t) * 1e3


def queries(r, words):
    """Two to four words, from common to rare, some misspelt or unfinished."""
    out = []
    for i in range(24):
        picked = [words[int(len(words) ** r.random())]
                  for _ in range(r.choice((2, 3, 4)))]
        if i % 6 == 4 and len(picked[0]) > 5:
            picked[0] = picked[0][:3] + picked[0][4:]
        if i % 6 == 5 and len(picked[-1]) > 5:
            picked[-1] = picked[-1][:-2]
        out.append(" ".join(picked))
    return out


def main():
    documents = int(sys.argv[1]) if len(sys.argv) > 1 else 1_900
    r = random.Random(384)
    words = vocabulary(r)
    texts = list(corpus(r, words, documents))
    size = sum(map(len, texts)) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "ws.db")
        c = connect(path)
        c.execute("SELECT choir_init()")
        c.execute("BEGIN")
        for i, text in enumerate(texts):
            c.execute("SELECT artifact_put(?, ?)", (f"/d{i}.txt", text))
        c.execute("COMMIT")
        first = milliseconds(c, "SELECT * FROM choir_search('the first')")
        then = statistics.median(
            milliseconds(c, "SELECT * FROM choir_search('the first')")
            for _ in range(ROUNDS))
        c.close()

        c = connect(path)
        whole = milliseconds(c, "SELECT choir_index()")
        chunks = c.execute("SELECT count(*) FROM _choir_chunk").fetchone()[0]
        one = []
        for i in range(ROUNDS):
            c.execute("SELECT artifact_put('/d0.txt', ?)", (texts[i + 1],))
            one.append(milliseconds(c, "SELECT choir_index()"))
        print(f"SQLite {sqlite3.sqlite_version}, {documents} documents,"
              f" {size:.1f} MB, {chunks} chunks,"
              f" file {os.path.getsize(path) / 1e6:.0f} MB")
        print(f"choir_index, everything     {size / whole * 1e3:8.1f} MB/s"
              f" ({whole / 1e3:.2f} s)")
        print(f"choir_index, one of 4 KB    {statistics.median(one):8.1f} ms")
        print(f"first search, not indexed   {first:8.1f} ms,"
              f" then {then:.1f} ms")

        times = {"choir": [], "fts": [], "scan": []}
        asked = queries(r, words)
        for round_ in range(ROUNDS):
            for q in asked:
                match = " OR ".join(f'"{w}"' for w in q.split())
                runs = [
                    ("choir", "SELECT * FROM choir_search(?)", q),
                    ("fts", "SELECT rowid, rank FROM _choir_fts WHERE"
                     " _choir_fts MATCH ? ORDER BY rank LIMIT 10", match),
                    ("scan", "SELECT rowid, distance FROM vec_scan("
                     "'_choir_vector', 'embedding', vec_quantize_int8(embed(?), 'unit'), 10)", q)]
                r.shuffle(runs)
                for name, sql, param in runs:
                    ms = milliseconds(c, sql, param)
                    if round_:
                        times[name].append(ms)
        for name, label in (("choir", "choir_search, k = 10"),
                            ("fts", "FTS5 alone, any word"),
                            ("scan", "vec_scan alone")):
            t = sorted(times[name])
            print(f"{label:27} {statistics.median(t):8.1f} ms,"
                  f" 95 % under {t[len(t) * 95 // 100]:.1f} ms")
        c.close()


if __name__ == "__main__":
    main()
