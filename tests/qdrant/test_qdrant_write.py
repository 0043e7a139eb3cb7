# SPDX-License-Identifier: MIT
"""qdrant_upsert and qdrant_delete: batches, ids, what is refused, what stays."""
import json
import struct
import uuid

import pytest

from fault_server import FaultServer, close, reply, status
from qdrant_fixtures import ada, fake, old, server, two, vec  # noqa: F401

ONE = b"\0\0\x80?\0\0\0\0"  # (1, 0)
SPACE = uuid.UUID("9a6e3a5e-51c4-5d0c-9a14-5a1dbd4f3c21")
MANY = ("WITH c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n < ?1 - 1)"
        " SELECT {} FROM c")


def test_ids_are_uuids_of_user_artifact_and_chunk(ada, two):
    for artifact, chunk in (("a1", 0), ("a1", 1), ("ключ", 2**40), ("x" * 999, 7),
                            ("x" * 60, 0), ("x" * 3, 0), ("x" * 4, 0)):
        ada.one("SELECT qdrant_upsert(?, ?, ?)", artifact, chunk, ONE)
        want = str(uuid.uuid5(SPACE, f"ada\x1f{artifact}\x1f{chunk}"))
        assert ada.one("SELECT count(*) FROM qdrant_scroll() WHERE id = ?",
                       want) == 1, artifact


def test_points_go_in_batches_of_64(db, fake):
    fake.make()
    ada = fake.tell(db)
    assert ada.one(MANY.format("qdrant_upsert('a', n, x'0000803f00000000')"),
                   150) == 150
    assert [len(b["points"]) for m, p, b in fake.seen if p.endswith(
        "points?wait=true")] == [64, 64, 22]
    assert ada.one("SELECT qdrant_count()") == 150


def test_a_batch_has_at_most_eight_mebibytes(db, fake):
    fake.make()
    ada = fake.tell(db)
    ada.one(MANY.format("qdrant_upsert('a', n, x'0000803f00000000',"
                        " json_object('t', printf('%.3000000c', 'x')))"), 7)
    assert [len(b["points"]) for m, p, b in fake.seen if p.endswith(
        "points?wait=true")] == [3, 3, 1]


def test_the_same_rows_again_change_nothing(ada, two):
    for lang in ("en", "de"):
        ada.one("SELECT qdrant_upsert('a', 0, ?, json_object('lang', ?))", ONE,
                lang)
    assert ada.rows("SELECT payload ->> '$.lang' FROM qdrant_scroll()") == [
        ("de",)]


def test_the_payload_is_the_users_and_choirs(ada, server):
    ada.one("SELECT qdrant_init()")
    ada.one("SELECT qdrant_upsert('a', 3, ?, ?)", "über " * 100,
            '{ "lang" : "en", "n": 12345678901234567890, "x": {"y": [1, null]},'
            ' "k\\"ey": "\\u00e9" }')
    got = json.loads(ada.one("SELECT payload FROM qdrant_scroll()"))
    preview = got.pop("content_preview")
    assert got == {"user_id": "ada", "artifact_id": "a", "chunk": 3,
                   "model": "hash-384", "lang": "en",
                   "n": 12345678901234567890, "x": {"y": [1, None]},
                   'k"ey': "é"}
    assert preview == ("über " * 100).encode()[:300].decode(errors="ignore")
    ada.one("SELECT qdrant_upsert('b', 0, 'text', '{\"content_preview\":null}')")
    assert ada.rows("SELECT typeof(preview) FROM qdrant_scroll() WHERE"
                    " artifact_id = 'b'") == [("null",)]


def test_floats_arrive_exactly(db, fake):
    import random
    rng = random.Random(3)
    values = [0.1, 1 / 3, 1e-3, 1e-10, 1e-38, 3.4e38, 123.456, 0.0, 7e-45,
              99.99999, 16777217.0] + [
        struct.unpack("<f", struct.pack("<I", rng.getrandbits(32)))[0]
        for _ in range(400)] + [rng.gauss(0, 0.05) for _ in range(600)]
    values = [v for v in values if v == v and abs(v) < 3.5e38]
    fake.make(size=len(values))
    ada = fake.tell(db)
    blob = struct.pack(f"<{len(values)}f", *values)
    ada.one("SELECT qdrant_upsert('a', 0, ?)", blob)
    sent = [b for m, p, b in fake.seen if p.endswith("points?wait=true")]
    assert struct.pack(f"<{len(values)}f", *sent[0]["points"][0]["vector"]) \
        == blob
    assert ada.one("SELECT vector FROM qdrant_scroll()") == blob


def test_rows_without_anything_are_passed_over(ada, two):
    assert ada.one("SELECT qdrant_upsert('a', 0, NULL)") == 0
    assert ada.one("SELECT qdrant_upsert('a', 0, x'00') WHERE 0") == 0
    assert ada.one("SELECT qdrant_delete(NULL)") == 0
    assert ada.one("SELECT qdrant_delete('nothing')") == 1
    if two.seen is not None:
        assert two.sent("points") == []


WRONG = [
    ("qdrant_upsert(NULL, 0, x'0000803f00000000')", "artifact_id must be text"),
    ("qdrant_upsert('', 0, x'0000803f00000000')", "must have 1 to 1000 bytes"),
    ("qdrant_upsert('a', -1, x'0000803f00000000')", "chunk must be 0 to"),
    ("qdrant_upsert('a', 'b', x'0000803f00000000')", "chunk must be an integer"),
    ("qdrant_upsert('a', 0, 5)", "text_or_vector must be text, got integer"),
    ("qdrant_upsert('a', 0, x'0000803f')", "has 4 bytes and collection"),
    ("qdrant_upsert('a', 0, x'0000c07f00000000')", "NaN or an infinity"),
    ("qdrant_upsert('a', 0, x'0000807f00000000')", "NaN or an infinity"),
    ("qdrant_upsert('a', 0, 'text')", "takes vectors of 2 dimensions and"
     " hash-384 makes 384"),
    ("qdrant_upsert('a', 0, x'0000803f00000000', '[]')",
     "payload must be a JSON object"),
    ("qdrant_upsert('a', 0, x'0000803f00000000', '{')",
     "payload is not valid JSON"),
    ("qdrant_upsert('a', 0, x'0000803f00000000', x'7b7d')",
     "payload must be text"),
    ("qdrant_delete(5)", "artifact_id must be text, got integer"),
]


def test_what_is_wrong_is_named_and_nothing_is_sent(ada, two):
    for call, problem in WRONG:
        assert problem in ada.error(f"SELECT {call}"), call
    if two.seen is not None:
        assert not [1 for m, p, b in two.seen if m == "PUT"
                    and p.endswith("points?wait=true")]


def test_a_failing_row_keeps_the_earlier_batches(ada, two):
    assert "chunk must be 0 to" in ada.error(
        MANY.format("qdrant_upsert('a', iif(n = 100, -1, n),"
                    " x'0000803f00000000')"), 150)
    assert ada.one("SELECT qdrant_count()") == 64


def test_delete_takes_all_chunks_of_the_named_artifacts(ada, two):
    ada.one(MANY.format("qdrant_upsert('a'||(n % 400), n,"
                        " x'0000803f00000000')"), 800)
    assert ada.one(MANY.format("qdrant_delete('a'||n)"), 300) == 300
    assert ada.one("SELECT qdrant_count()") == 200


def test_an_old_server_is_not_written_to(db, old):
    server = old("1.15.4")
    server.make()
    db = server.tell(db)
    assert ("runs Qdrant 1.15, which would overwrite another user's point of"
            " the same id; 1.16 or newer does not") in db.error(
        "SELECT qdrant_upsert('a', 0, ?)", ONE)
    assert "runs Qdrant 1.15 and choir needs 1.16" in db.error(
        "SELECT qdrant_init()")
    assert db.rows("SELECT * FROM qdrant_scroll()") == []


def answers(s, **more):
    ok = {"status": "completed", "operation_id": 1, **more}
    s.on("/", reply(b'{"title":"qdrant","version":"1.19.0"}'))
    s.on("/collections/artifacts", reply(json.dumps({"result": {"config": {
        "params": {"vectors": {"size": 2, "distance": "Dot"}}}}}).encode()))
    return reply(json.dumps({"result": ok, "status": "ok"}).encode())


def tell(db, s):
    db.one("SELECT choir_config('qdrant.url', ?)", s.url(""))
    db.one("SELECT choir_config('user', 'ada')")
    return db


def test_a_lost_reply_is_asked_for_again(db):
    """Sending a point twice is sending it once."""
    with FaultServer() as s:
        done = answers(s)
        s.on("/collections/artifacts/points", close, status(503), done)
        tell(db, s)
        assert db.one("SELECT qdrant_upsert('a', 0, ?)", ONE) == 1
        bodies = [r.body for r in s.seen if r.method == "PUT"]
        assert len(bodies) == 3 and len(set(bodies)) == 1
        s.on("/collections/artifacts/points/delete", close, done)
        assert db.one("SELECT qdrant_delete('a')") == 1


def test_a_refusal_is_not_asked_again(db):
    with FaultServer() as s:
        answers(s)
        for code in (400, 403, 409, 422, 507):
            s.seen.clear()
            s.on("/collections/artifacts/points", status(code))
            assert f"status {code}" in tell(db, s).error(
                "SELECT qdrant_upsert('a', 0, ?)", ONE)
            assert len([r for r in s.seen if r.method == "PUT"]) == 1, code


@pytest.mark.parametrize("said", ["acknowledged", "wait_timeout"])
def test_what_is_not_confirmed_is_not_done(db, said):
    with FaultServer() as s:
        s.on("/collections/artifacts/points", answers(s, status=said))
        assert f'does not confirm it ("{said}"); run it again' in tell(
            db, s).error("SELECT qdrant_upsert('a', 0, ?)", ONE)
