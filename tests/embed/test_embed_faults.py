# SPDX-License-Identifier: MIT
"""What the network does wrong to the embedding services, by programme (see
tests/servers/fault_program.py): a vector is right or there is none.

CHOIR_EMBED_FULL=1: 600 cases instead of 24.
"""
import json
import os
import random
import struct
import urllib.parse

import pytest

from embed_server import EmbedServer
from fault_program import Sweep
from fault_proxy import FaultProxy
from fault_server import FaultServer, reply

pytestmark = [pytest.mark.net, pytest.mark.once, pytest.mark.inprocess]
CASES = 200 if os.environ.get("CHOIR_EMBED_FULL") == "1" else 8


def vector(text):
    """Sixteen numbers of a text, exact in 32 bits."""
    rng = random.Random(text)
    return [rng.randrange(-64, 65) / 64 for _ in range(15)] + [2.0]


def unit(text):
    v = vector(text)
    r = sum(x * x for x in v) ** 0.5
    return [x / r for x in v]


@pytest.mark.parametrize("provider", ["openai", "ollama", "tei"])
def test_a_vector_is_right_or_there_is_none(db, provider):
    rng = random.Random(provider)
    with EmbedServer(lambda texts: [vector(t) for t in texts]) as server, \
            FaultServer() as other:
        port = urllib.parse.urlsplit(server.tei).port
        other.on("/", reply(b"[[1,2]]"))
        with FaultProxy(port) as proxy:
            db.one("SELECT choir_config('embed.url', ?)", proxy.endpoint
                   + ("/v1" if provider == "openai" else ""))
            db.one("SELECT choir_config('embed.model', 'test-model')")
            db.one("SELECT choir_config('embed.provider', ?)", provider)
            db.one("SELECT choir_config('http.attempts', 3)")
            db.one("SELECT embed('first')")
            sweep = Sweep(db, proxy, other, 9000, f"embed {provider}")
            with sweep:
                for n in range(CASES):
                    one_case(db, rng, sweep, server, n)
                # its pages are no leak: closed before memory is looked at
                db.one("SELECT choir_config('embed.cache', 'off')")
                db.one("SELECT embed('last')")


def one_case(db, rng, sweep, server, n):
    size = rng.choice([1, 30, 70])
    texts = [f"case {n} text {i} " + "x" * rng.randrange(40)
             for i in range(size)]
    if n % 3 == 2:  # in groups, and what they left
        ok, got = sweep.call(rng, 1, lambda: db.one(
            "SELECT embed_all(value) FROM json_each(?)", json.dumps(texts)))
        assert not ok or got == size, sweep.what
    elif n % 3 == 1:
        ok, got = sweep.call(rng, 1, lambda: db.one("SELECT embed(?)",
                                                    texts[0]))
        assert not ok or close(got, texts[0]), sweep.what
    else:
        ok, got = sweep.call(rng, 1, lambda: db.rows(
            "SELECT embedding FROM embed_each(?)", json.dumps(texts)))
        assert not ok or all(close(v, t) for (v,), t in zip(got, texts)), \
            sweep.what
        ok = ok and len(got) == size
    # What was kept on the way is right, and is all that there was.
    before = len(server.requests)
    after = db.rows("SELECT embedding FROM embed_each(?)", json.dumps(texts))
    assert len(after) == size
    assert all(close(v, t) for (v,), t in zip(after, texts)), sweep.what
    assert not ok or n % 3 == 1 or len(server.requests) == before


def close(blob, text):
    got = struct.unpack("<16f", blob)
    return all(abs(a - b) < 1e-5 for a, b in zip(got, unit(text)))
