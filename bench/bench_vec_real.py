#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Real embeddings for the other benchmarks: bench_vec_real.py [ROWS [OUT]]

Paragraphs of /usr/share/doc, embedded by all-MiniLM-L6-v2 itself (numpy alone,
as tests/servers/minilm.py has it), into OUT, by default build/minilm.npy: ROWS
x 384 float32, 20000 unless said otherwise. A minute or so for 3,000 rows where
numpy has a good BLAS (that of `pip install numpy`); what is there already when
it is interrupted is kept. Needs: pip install tokenizers.
"""
import gzip
import pathlib
import random
import re
import sys

import numpy

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/servers"))
from minilm import embed  # noqa: E402

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
OUT = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else
                   ROOT / "build/minilm.npy")


def paragraphs():
    found = set()
    for path in sorted(pathlib.Path("/usr/share/doc").rglob("*")):
        if path.is_file() and path.suffix not in (".png", ".pdf", ".svg"):
            raw = path.read_bytes()[:400_000]
            if path.suffix == ".gz":
                try:
                    raw = gzip.decompress(path.read_bytes())[:400_000]
                except (OSError, EOFError):
                    continue
            text = re.sub(r"<[^>]*>", " ", raw.decode("utf-8", "ignore"))
            for p in re.split(r"\n\s*\n", text):
                p = " ".join(p.split())
                letters = sum(c.isalpha() or c == " " for c in p)
                if 60 <= len(p) <= 400 and letters > 0.85 * len(p):
                    found.add(p[:200])
    found = sorted(found)
    random.Random(1).shuffle(found)
    return found


def main():
    texts = paragraphs()[:ROWS]
    print(f"{len(texts)} paragraphs", flush=True)
    out = []
    try:
        for start in range(0, len(texts), 64):
            out.append(embed(texts[start:start + 64]))
            if start % 1024 == 960:
                numpy.save(OUT, numpy.concatenate(out))
    finally:
        numpy.save(OUT, numpy.concatenate(out))
        print(f"{sum(map(len, out))} rows in {OUT}")


main()
