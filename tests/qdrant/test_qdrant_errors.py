# SPDX-License-Identifier: MIT
"""A server that refuses, breaks or lies: a named error, in time, and no key."""
import json
import time

import pytest

from fault_server import (FaultServer, chunked, cut, drip, endless, head, raw,
                          redirect, reply, reset, stall, status)

COUNT = "SELECT qdrant_count()"
PATH = "/collections/artifacts/points/count"
SCROLL = "/collections/artifacts/points/scroll"
OK = reply(b'{"result":{"count":3},"status":"ok","time":0.1}',
           type="application/json")


def refusal(code, text, headers=()):
    return reply(json.dumps({"status": {"error": text}, "time": 0.0}).encode(),
                 code, headers, "application/json")


@pytest.fixture
def s(db):
    with FaultServer() as server:
        db.one("SELECT choir_config('qdrant.url', ?)", server.url(""))
        db.one("SELECT choir_config('user', 'ada')")
        db.one("SELECT choir_config('http.attempts', 1)")
        yield server


STATUSES = [
    (400, "Wrong input: Vector dimension error: expected dim: 384, got 3",
     "the server refuses the request (status 400 from {}): Wrong input: Vector"
     " dimension error: expected dim: 384, got 3"),
    (404, "Not found: Collection `artifacts` doesn't exist!",
     "not there (status 404 from {}): Not found: Collection `artifacts` doesn't"
     " exist!; qdrant_init() makes a collection"),
    (408, "Timeout error: Operation 'query' timed out after 5 seconds",
     "the server gave up (status 408 from {}): Timeout error"),
    (409, "Conflict", "a conflict with what is there (status 409 from {})"),
    (413, "too large", "the request is too large for the server (status 413"),
    (422, "Validation error in JSON body: [limit: value 0 invalid]",
     "the server finds the request invalid (status 422 from {}): Validation"),
    (429, "Rate limiting exceeded: Read rate limit exceeded",
     "the server limits the rate of requests (status 429 from {}): Rate"
     " limiting exceeded: Read rate limit exceeded; try again later"),
    (500, "Service internal error: 1 of 1 read operations failed",
     "the server failed (status 500 from {}): Service internal error"),
    (502, "x", "the gateway failed (status 502"),
    (503, "x", "the server is not ready (status 503"),
    (504, "x", "the gateway gave up (status 504"),
    (507, "x", "the server has no room left (status 507 from {}): x"),
    (418, "x", "an unexpected reply (status 418 from {}): x"),
    (301, "x", "redirects are not followed (status 301"),
]


def test_every_status_says_what_it_means(db, s):
    for code, said, want in STATUSES:
        s.on(PATH, refusal(code, said))
        message = db.error(COUNT)
        assert message.startswith("qdrant_count: "), code
        assert want.format(s.url("")) in message, (code, message)


def test_plain_text_of_the_gatekeeper_is_understood(db, s):
    s.on(PATH, reply(b"Must provide an API key or an Authorization bearer token",
                     401))
    message = db.error(COUNT)
    assert "the server wants a key (status 401" in message
    assert "Must provide an API key" in message
    assert "set QDRANT_API_KEY beside QDRANT_URL" in message
    s.on(PATH, reply(b"Forbidden: Global access is required\r\n\x1b[31m", 403))
    message = db.error(COUNT)
    assert "the server does not accept the key (status 403" in message
    assert "Global access is required" in message and "\x1b" not in message


def test_long_and_strange_refusals_are_cut(db, s):
    for body in (b"x" * 100_000, b"\xff\xfe" * 500, b"<html>" + b"y" * 9999,
                 b"", b"{", b'{"status":5}', b'{"status":{"error":{"a":1}}}',
                 "ü".encode() * 400):
        s.on(PATH, reply(body, 400))
        message = db.error(COUNT)
        assert "status 400" in message and len(message) < 500
        assert "<html>" not in message


NONSENSE = [
    b"", b"hello", b"[]", b"{", b"null", b'{"result":', b'{"result":{}}',
    b'{"result":{"count":-}}', b'{"result":{"count":"3"}}', b"\xff\xfe{}",
    b'{"result":{"count":3.5}}', b'{"result":null}', b'{"a":1}\0', b"{a:1}",
    b'{"result":{"count":99999999999999999999}}',
    b"[" * 100_000, b'{"result":' + b"[" * 5000 + b"]" * 5000 + b"}",
]
HITS = [
    b'{"result":{"points":5}}', b'{"result":{"points":null}}',
    b'{"result":{}}', b'{"result":[]}', b'{"result":{"points":[5]}}',
    b'{"result":{"points":["x"]}}', b'{"result":{"points":[{}]}}',
    b'{"result":{"points":[{"id":1}]}}',
    b'{"result":{"points":[{"id":1,"payload":[]}]}}',
    b'{"result":{"points":[{"id":1,"payload":{"user_id":["ada"]}}]}}',
    b'{"result":{"points":[{"id":1,"payload":{"user_id":{"ada":1}}}]}}',
]


def test_what_is_not_qdrants_answer_is_an_error(db, s):
    for body in NONSENSE:
        s.on(PATH, reply(body, type="application/json"))
        message = db.error(COUNT)
        assert "did not answer with JSON" in message \
            or "has no count" in message, body[:40]
    for body in HITS:
        s.on("/collections/artifacts/points/scroll", reply(body))
        assert db.error("SELECT * FROM qdrant_scroll()"), body


def test_odd_but_proper_rows_are_read(db, s):
    hit = {"id": 1, "payload": {"user_id": "ada", "path": None},
           "vector": None, "score": None, "new": {"x": [1, "}", "\""]}}
    s.on("/collections/artifacts/points/query", reply(json.dumps(
        {"new": 1, "result": {"x": 2, "points": [hit]}}, indent=3).encode()))
    assert db.rows("SELECT rank, score, id, path, vector FROM"
                   " qdrant_search(x'00000000')") == [(1, None, 1, None, None)] \
        or db.rows("SELECT rank FROM qdrant_search(x'0000803f')") == [(1,)]
    s.on("/collections/artifacts/points/scroll", reply(
        b'{"result":{"points":[{"id":1,"payload":{"user\\u005fid":"\\u0061da",'
        b'"path":"\\ud83c\\udfb5 \\ud83c x\\u0000y"}}],'
        b'"next_page_offset":null}}'))
    assert db.rows("SELECT hex(path) FROM qdrant_scroll()") == [
        ("🎵 \ufffd x\0y".encode().hex().upper(),)]


def test_a_scroll_that_never_ends_is_the_hosts_to_end(db, s):
    s.on("/collections/artifacts/points/scroll", reply(
        b'{"result":{"points":[{"id":1,"payload":{"user_id":"ada"}}],'
        b'"next_page_offset":1}}'))
    assert len(db.rows("SELECT id FROM qdrant_scroll() LIMIT 200")) == 200


def pages(sock, request):
    """A scroll over the points 1 to 1400."""
    asked = json.loads(request.body)
    first = asked.get("offset") or 1
    last = min(first + asked["limit"] - 1, 1400)
    return reply(json.dumps({"result": {
        "points": [{"id": i, "payload": {"user_id": "ada"}}
                   for i in range(first, last + 1)],
        "next_page_offset": None if last == 1400 else last + 1}}).encode())(
            sock, request)


def test_a_page_asked_for_ahead_only_comes_sooner(db, s):
    """The third page is asked for while the second is read. Whatever becomes of
    that, every point comes once."""
    for fault in (reset, cut(pages, 300), refusal(500, "x"), raw(b""),
                  reply(b"nonsense")):
        s.seen.clear()
        s.on(SCROLL, pages, pages, fault, pages)
        assert [i for i, in db.rows("SELECT id FROM qdrant_scroll()")] == list(
            range(1, 1401))
        assert len(s.seen) in (5, 6)  # 64, 256, 1000 in vain, 1000, the rest
    s.on(SCROLL, pages, pages, refusal(500, "x"))
    assert "the server failed" in db.error("SELECT id FROM qdrant_scroll()")
    s.on(SCROLL, pages)
    s.on(PATH, OK)  # other requests between the rows
    assert db.rows("SELECT count(DISTINCT id), sum(qdrant_count()) FROM"
                   " qdrant_scroll() WHERE id % 100 = 0") == [(14, 14 * 3)]


@pytest.mark.inprocess
def test_who_reads_slowly_still_gets_every_page(db, s):
    s.on(SCROLL, pages)
    rows = iter(db.con.execute("SELECT id FROM qdrant_scroll()"))
    got = [next(rows)[0] for _ in range(10)]
    db.one("SELECT choir_config('http.timeout_ms', 1500)")
    got += [next(rows)[0] for _ in range(90)]
    db.one("SELECT choir_config('http.timeout_ms', 0)")
    time.sleep(1.6)  # the third page is there, and past its time
    assert got + [r[0] for r in rows] == list(range(1, 1401))


def test_a_limit_asks_for_nothing_ahead_that_it_does_not_need(db, s):
    s.on(SCROLL, pages)
    for limit, asked in ((150, [150]), (1000, [1000]), (1300, [1000, 300])):
        s.seen.clear()
        assert len(db.rows(f"SELECT id FROM qdrant_scroll() LIMIT {limit}")) \
            == limit
        assert [json.loads(r.body)["limit"] for r in s.seen] == asked


def test_answers_that_are_missing_are_errors(db, s):
    points = "/collections/artifacts/points"
    hit = {"id": 1, "score": 1, "payload": {"user_id": "ada"}}
    one = {"points": [hit]}

    def ask(path, result, sql):
        s.on(points + path, reply(json.dumps({"result": result}).encode()))
        return db.error(sql)
    for result in ([one], [], {}, 5, None, [one, 5], [one, {}], [one, None]):
        message = ask("/query/batch", result,
                      "SELECT * FROM qdrant_search_each('[[1],[2]]')")
        assert "has fewer answers than 2" in message, result
    assert "not of user 'ada'" in ask(
        "/query/batch", [one, {"points": [{"id": 2, "payload": {}}]}],
        "SELECT * FROM qdrant_search_each('[[1],[2]]')")
    by = "SELECT id FROM qdrant_scroll() WHERE order_by = 't'"
    assert "has no order_value" in ask("/scroll", one, by)
    tied = {"points": [dict(hit, order_value=7)] * 1000}
    assert "more than 10000 points have the same 't'; scroll without" in ask(
        "/scroll", tied, by)
    assert "does not confirm it (no status)" in ask(
        "/payload", {}, "SELECT qdrant_set_payload('{}', '{\"a\":1}')")


def test_what_a_server_leaves_out_is_named(db, s):
    made = "/collections/artifacts"
    s.on(made + "/exists", reply(b'{"result":{}}'))
    s.on("/", reply(b'{"version":5}'))
    assert "does not say which Qdrant it is" in db.error("SELECT qdrant_ping()")
    s.on("/", reply(b'{"version":"1.19.0"}'))
    assert "does not answer as Qdrant does" in db.error("SELECT qdrant_init()")
    s.on(made, reply(b'{"result":{"config":5}}'))
    assert "does not describe collection 'artifacts'" in db.error(
        "SELECT qdrant_upsert('a', 0, x'0000803f')")
    s.on(made, reply(b'{"result":{"config":{"params":{"vectors":{}}}}}'))
    s.on(SCROLL, reply(json.dumps({"result": {"points": [
        {"id": 1, "payload": {"user_id": "ada"}, "vector": [1, "x"]}]}}
    ).encode()))
    assert "a vector whose element 1 is no number" in db.error(
        "SELECT vector FROM qdrant_scroll()")
    s.on(PATH, raw(head(200) + b'{"result":{"count":3}}'))
    assert "has no length, so it cannot be told from a cut one" in db.error(
        COUNT)


def test_cut_slow_and_huge_replies_end_in_time(db, s):
    db.one("SELECT choir_config('http.timeout_ms', 1000)")
    db.one("SELECT choir_config('http.max_bytes', ?)", 1 << 20)
    for fault in (reset, cut(OK, 100), cut(OK, 3), stall(20), drip(b"x" * 200, .1),
                  raw(head(200) + b'{"result":{"count":3}}'),
                  stall(20, head(200, [("Content-Length", "5")]) + b"{"),
                  endless, reply(b" " * (2 << 20)), chunked(b"{", last=False)):
        s.on(PATH, fault)
        start = time.monotonic()
        assert db.error(COUNT).startswith("qdrant_count: ")
        assert time.monotonic() - start < 3
    s.on(PATH, OK)
    assert db.one(COUNT) == 3


def test_waiting_is_for_what_passes(db, s):
    """429 with Retry-After and 503 are waited for; a refusal is not."""
    db.one("SELECT choir_config('http.attempts', 3)")
    s.on(PATH, refusal(429, "slow", [("Retry-After", "1")]), OK)
    start = time.monotonic()
    assert db.one(COUNT) == 3
    assert 0.9 < time.monotonic() - start < 5
    s.on(PATH, refusal(503, "x"), status(500), OK)
    assert db.one(COUNT) == 3
    for code in (400, 401, 403, 404, 409, 422, 507):
        s.seen.clear()
        s.on(PATH, refusal(code, "no"))
        db.error(COUNT)
        assert len(s.seen) == 1, code


# --------------------------------------------------------------------- keys

def asked(s):
    return s.seen[-1].get("api-key")


@pytest.mark.inprocess
def test_the_environments_key_goes_to_the_environments_url(
        open_db, monkeypatch, s):
    monkeypatch.setenv("QDRANT_URL", s.url("/"))
    monkeypatch.setenv("QDRANT_API_KEY", "s3cr3t-canary")
    s.on(PATH, OK)
    db = open_db(":memory:")
    db.one("SELECT choir_config('user', 'ada')")
    assert db.one(COUNT) == 3 and asked(s) == "s3cr3t-canary"
    with FaultServer() as other:
        other.on(PATH, OK)
        db.one("SELECT choir_config('qdrant.url', ?)", other.url(""))
        assert db.one(COUNT) == 3
        assert asked(other) is None
    db.one("SELECT choir_config('qdrant.url', NULL)")
    assert db.one(COUNT) == 3 and asked(s) == "s3cr3t-canary"
    assert "environment or the config file only" in db.error(
        "SELECT choir_config('qdrant.api_key', 'x')")
    assert "canary" not in str(db.rows("SELECT * FROM choir_settings"))
    assert db.one("SELECT choir_config('qdrant.api_key')") == "********"
    s.on(PATH, reply(b"Invalid API key or JWT: s3cr3t-canary", 403))
    assert "canary" not in db.error(COUNT)
    s.on(PATH, refusal(400, "bad s3cr3t-canary"))
    assert "canary" not in db.error(COUNT)
    s.on(PATH, redirect("http://127.0.0.1:9/"))
    assert "redirects are not followed" in db.error(COUNT)


def test_a_secrets_key_goes_where_its_scope_says(db, s):
    s.on(PATH, OK)
    db.one("SELECT choir_secret('q', ?)", json.dumps(
        {"type": "qdrant", "api_key": "canary-7", "scope": s.url("/")}))
    assert db.one(COUNT) == 3 and asked(s) == "canary-7"
    with FaultServer() as other:
        other.on(PATH, OK)
        db.one("SELECT choir_config('qdrant.url', ?)", other.url(""))
        assert db.one(COUNT) == 3 and asked(other) is None


def test_a_key_does_not_leave_the_machine_without_tls(db):
    db.one("SELECT choir_config('user', 'ada')")
    db.one("SELECT choir_secret('q', '{\"type\":\"qdrant\",\"api_key\":\"canary\","
           "\"scope\":\"http://\"}')")
    for host in ("qdrant.test", "10.0.0.1", "localhost.evil.test",
                 "127.evil.test", "127.1", "127.0.0.256"):
        db.one("SELECT choir_config('qdrant.url', ?)", f"http://{host}:6333")
        message = db.error(COUNT)
        assert f"a key is not sent to http://{host}:6333 without TLS" in message
        assert "canary" not in message


def test_wrong_urls_are_named(db):
    db.one("SELECT choir_config('user', 'ada')")
    for url in ("ftp://h/", "http://", "http://u:p@h/", "qdrant"):
        db.one("SELECT choir_config('qdrant.url', ?)", url)
        assert "qdrant_count: " in db.error(COUNT)
    db.one("SELECT choir_config('qdrant.url', 'http://h/?a=b')")
    assert "must not have a query" in db.error(COUNT)
