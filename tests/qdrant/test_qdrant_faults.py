# SPDX-License-Identifier: MIT
"""What the network does wrong to every qdrant_ function, by programme: cuts at
any byte, lost replies, statuses, errors with status 200, wrong lengths,
redirects, bombs, bodies without an end, stalls.

A call gives what it gives without, or says that it failed; what failed can be
done again and is then right. CHOIR_QDRANT_FULL=1: 600 cases instead of 24.
"""
import json
import os
import random
import urllib.parse

import pytest

from fault_program import Sweep, whole
from fault_proxy import FaultProxy
from fault_server import FaultServer, reply
from qdrant_fixtures import ada, fake, old, server, two, vec  # noqa: F401

pytestmark = [pytest.mark.once, pytest.mark.inprocess]
CASES = 200 if os.environ.get("CHOIR_QDRANT_FULL") == "1" else 8
TEXTS = [f"document {n} about {w}" for n, w in enumerate(
    ["tax", "travel", "music", "soup", "trains", "plans"] * 25)]


@pytest.fixture
def proxied(db, fake):
    """ada, who reaches the server through a proxy; the sweep of that."""
    fake.tell(db)
    db.one("SELECT choir_config('http.attempts', 3)")
    port = urllib.parse.urlsplit(fake.url).port
    with FaultProxy(port) as proxy, FaultServer() as other:
        other.on("/", reply(b"{}"))
        db.one("SELECT choir_config('qdrant.url', ?)", proxy.endpoint)
        db.one("SELECT qdrant_init()")
        yield db, fake, proxy, other


def there(server):
    """artifact, chunk -> content_preview, of every point there is."""
    found = server.raw(
        "POST", f"/collections/{server.collection}/points/scroll",
        {"limit": 10000, "with_payload": True})["result"]["points"]
    out = {(p["payload"]["artifact_id"], p["payload"]["chunk"]):
           p["payload"].get("content_preview") for p in found}
    assert len(out) == len(found), "a point is there twice"
    assert all(p["payload"]["user_id"] == "ada" for p in found)
    return out


@pytest.mark.parametrize("body", [b"{}", b'{"result":{}}', b'{"result":null}'])
def test_a_description_that_tells_nothing_is_not_remembered(proxied, body):
    db, server, proxy, other = proxied
    proxy.plan = lambda n, method, target: whole(200, body) \
        if method == "GET" and "exists" not in target else None
    db.error("SELECT qdrant_init()")
    assert "does not" in db.error("SELECT qdrant_upsert('a', 0, 'x')")
    proxy.plan = lambda *_: None
    assert db.one("SELECT qdrant_upsert('a', 0, 'x')") == 1


def test_what_is_read_is_right_or_refused(proxied):
    db, server, proxy, other = proxied
    rng = random.Random("reads")
    db.rows("SELECT qdrant_upsert('a'||key, 0, value) FROM json_each(?)",
            json.dumps(TEXTS))
    server.index("chunk", "integer")
    reads = [(sql, db.rows(sql)) for sql in (
        "SELECT artifact_id, rank, score FROM qdrant_search('travel music')"
        " LIMIT 40",
        "SELECT id, preview FROM qdrant_scroll()",
        "SELECT id FROM qdrant_scroll() WHERE order_by = 'chunk'",
        "SELECT artifact_id, score FROM qdrant_similar('a3') LIMIT 20",
        "SELECT ord, artifact_id, score FROM qdrant_search_each("
        "'[\"tax\",\"soup\",\"plans\"]')",
        "SELECT artifact_id FROM qdrant_search('tax plans') WHERE"
        " fusion = 'rrf' AND k = 20",
        "SELECT group_id, id FROM qdrant_groups('soup')",
        "SELECT qdrant_count()", "SELECT * FROM qdrant_facet('artifact_id')",
        "SELECT * FROM qdrant_collections")]
    lengths = []
    for sql, _ in reads:
        first = len(proxy.seen)
        db.rows(sql)
        lengths.append(len(proxy.seen) - first)
    with Sweep(db, proxy, other, 8000, "qdrant reads") as sweep:
        for _ in range(CASES):
            i = rng.randrange(len(reads))
            if rng.random() < 0.2:  # what is known of the server is forgotten
                db.one("SELECT qdrant_init()")
            ok, got = sweep.call(rng, lengths[i], lambda: db.rows(reads[i][0]))
            assert not ok or got == reads[i][1], (reads[i][0], sweep.what)
            assert db.rows(reads[i][0]) == reads[i][1], sweep.what


def test_what_is_written_is_there_or_refused_and_never_twice(proxied):
    db, server, proxy, other = proxied
    rng = random.Random("writes")
    want = {("a%d" % i, 0): t for i, t in enumerate(TEXTS)}
    whole = json.dumps([{"a": f"a{i}", "t": t} for i, t in enumerate(TEXTS)])
    upsert = ("SELECT qdrant_upsert(value->>'a', 0, value->>'t')"
              " FROM json_each(?)")
    with Sweep(db, proxy, other, 60000, "qdrant writes") as sweep:
        for n in range(CASES):
            kind = n % 4
            if kind == 0:
                db.rows("SELECT qdrant_delete(value->>'a') FROM json_each(?)",
                        whole)
                ok, got = sweep.call(rng, 3, lambda: db.one(upsert, whole))
                assert not ok or got == len(want), sweep.what
                now = there(server)
                assert now == want if ok else now.items() <= want.items() \
                    and len(now) in (0, 64, 128, 150), sweep.what
                db.one(upsert, whole)
            elif kind == 1:
                gone = {f"a{rng.randrange(150)}" for _ in range(20)}
                ok, got = sweep.call(rng, 1, lambda: db.one(
                    "SELECT qdrant_delete(value) FROM json_each(?)",
                    json.dumps(sorted(gone))))
                left = {k: v for k, v in want.items() if k[0] not in gone}
                assert there(server) == left if ok else \
                    there(server) in (left, want), sweep.what
                db.one(upsert, whole)
            elif kind == 2:
                mark = f"m{n}"
                ok, got = sweep.call(rng, 2, lambda: db.one(
                    "SELECT qdrant_set_payload(qdrant_filter('artifact_id',"
                    " 'in', '[\"a1\",\"a2\"]'), json_object('mark', ?))", mark))
                found = db.rows("SELECT payload->>'artifact_id' FROM"
                                " qdrant_scroll() WHERE payload->>'mark' = ?"
                                " ORDER BY 1", mark)
                assert found == [("a1",), ("a2",)] if ok else \
                    found in ([], [("a1",), ("a2",)]), sweep.what
            else:
                server.raw("DELETE", f"/collections/{server.collection}")
                sweep.spoil(rng, 8)
                try:  # making a collection is not sent twice: it may fail
                    made = json.loads(db.one("SELECT qdrant_init()"))
                    assert made["dimensions"] == 384
                except db.failure:
                    sweep.failed += 1
                sweep.heal()
                db.one("SELECT qdrant_init()")
                info = server.raw("GET", f"/collections/{server.collection}")
                assert len(info["result"]["payload_schema"]) == 5, sweep.what
                db.one(upsert, whole)
            assert there(server) == want, sweep.what
            server.seen.clear()


def test_a_flush_notes_nothing_as_done_that_is_not(proxied):
    db, server, proxy, other = proxied
    rng = random.Random("flush")
    for n in range(12):
        db.one("SELECT artifact_put(?, ?)", f"/{n}.txt", TEXTS[n])
    db.one("SELECT qdrant_flush()")
    with Sweep(db, proxy, other, 20000, "qdrant flush") as sweep:
        for n in range(CASES):
            if n % 10 == 9:
                db.one("SELECT choir_config('qdrant.collection', ?)",
                       server.collection)
                db.run("UPDATE _choir_meta SET value = '0 ' WHERE key ="
                       " 'qdrant.full'")  # as if all were to do again
            for _ in range(3):
                path = f"/{rng.randrange(12)}.txt"
                if rng.random() < 0.3:
                    db.run(f"DELETE FROM artifacts WHERE path = '{path}'")
                else:
                    db.one("SELECT artifact_put(?, ?)", path,
                           rng.choice(TEXTS) * rng.randrange(1, 60))
            ok, got = sweep.call(rng, 3, lambda: json.loads(
                db.one("SELECT qdrant_flush()")))
            if ok:
                assert got["pending"] == 0, sweep.what
            assert json.loads(db.one("SELECT qdrant_flush()"))["pending"] == 0
            chunks = db.rows("SELECT a.id, c.ord, c.text FROM artifacts a,"
                             " embed_chunks(a.content) c WHERE a.deleted_at IS"
                             " NULL")
            now = there(server)
            assert sorted(now) == sorted((a, i) for a, i, _ in chunks), \
                sweep.what
            assert all(t.startswith(now[a, i]) for a, i, t in chunks)
