# SPDX-License-Identifier: MIT
"""Models behind a service: openai, ollama and tei, each spoken to on loopback.

The services are tests/servers/embed_server.py, which the official openai and
ollama clients find right (at the end); one of them has the real
all-MiniLM-L6-v2 behind it.
"""
import json
import pathlib
import sqlite3
import struct
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "servers"))
from conftest import Db  # noqa: E402
from embed_server import EmbedServer  # noqa: E402
from fault_server import FaultServer  # noqa: E402

pytestmark = pytest.mark.net
PROVIDERS = ("openai", "ollama", "tei")


def hash_model(texts):
    """hash-384, times three: a service need not normalise."""
    d = Db()
    rows = [d.one("SELECT embed(?)", t) for t in texts]
    d.close()
    return [[3 * x for x in struct.unpack("<384f", v)] for v in rows]


@pytest.fixture
def server():
    with EmbedServer(hash_model) as s:
        yield s


def use(d, s, provider, model="test-model"):
    d.one("SELECT choir_config('embed.url', ?)", getattr(s, provider))
    d.one("SELECT choir_config('embed.model', ?)", model)
    d.one("SELECT choir_config('embed.provider', ?)", provider)


def floats(blob):
    return struct.unpack(f"<{len(blob) // 4}f", blob)


def local(open_db, text):
    return floats(open_db().one("SELECT embed(?)", text))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_text_becomes_the_services_vector_of_length_one(
        db, open_db, server, provider):
    use(db, server, provider)
    v = floats(db.one("SELECT embed('patent licence')"))
    assert v == pytest.approx(local(open_db, "patent licence"), abs=1e-6)
    assert db.one("SELECT embed_model()") == f"{provider}/test-model"
    assert abs(sum(x * x for x in v) - 1) < 1e-5


@pytest.mark.parametrize("provider", PROVIDERS)
def test_texts_go_in_batches_and_never_twice(db, open_db, server, provider):
    use(db, server, provider)
    texts = [f"text number {i % 590} é🚀 \"quoted\"" for i in range(600)]
    rows = db.rows("SELECT ord, embedding FROM embed_each(?)",
                   json.dumps(texts))
    sent = [t for r in server.requests for t in r.texts]
    batch = 32 if provider == "tei" else 256
    assert len(sent) == 590  # no more, to learn the vectors' length
    assert len(server.requests) == -(-600 // batch)
    assert [r[0] for r in rows] == list(range(600))
    assert floats(rows[7][1]) == pytest.approx(local(open_db, texts[7]),
                                               abs=1e-6)
    assert rows[7][1] == rows[597][1]
    n = len(server.requests)
    assert db.rows("SELECT ord, embedding FROM embed_each(?)",
                   json.dumps(texts)) == rows
    again = open_db(db.path)
    use(again, server, provider)
    assert again.one("SELECT embed(?)", texts[3]) == rows[3][1]
    assert len(server.requests) == n


def test_embed_all_fills_the_cache_for_embed(db, server):
    use(db, server, "openai")
    db.run("CREATE TABLE doc(id INTEGER PRIMARY KEY, t, e);"
           "WITH RECURSIVE c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c"
           " WHERE i<1000) INSERT INTO doc(t) SELECT 'document '||i FROM c;"
           "INSERT INTO doc(t) VALUES(NULL)")
    assert db.one("SELECT embed_all(t) FROM doc") == 1000
    assert len(server.requests) == 4
    db.run("UPDATE doc SET e=embed(t)")
    assert db.one("SELECT count(*) FROM doc WHERE length(e)=1536") == 1000
    assert len(server.requests) == 4


def test_without_a_cache_every_text_is_sent(db, server):
    use(db, server, "tei")
    db.one("SELECT choir_config('embed.cache', 'off')")
    for _ in range(2):
        db.one("SELECT embed('again')")
    assert [r.texts for r in server.requests] == [["again"], ["again"]]
    assert db.one("SELECT count(DISTINCT embedding) FROM embed_each('[\"again\","
                  "\"b\",\"again\"]')") == 2
    assert server.requests[-1].texts == ["again", "b"]


def test_the_cache_is_the_users_alone_and_may_be_lost(db, server, tmp_path):
    file = tmp_path / "sub/cache.db"
    db.one("SELECT choir_config('embed.cache', ?)", str(file))
    use(db, server, "tei")
    v = db.one("SELECT embed('kept')")
    assert file.stat().st_mode & 0o777 == 0o600
    db.one("SELECT choir_config('embed.cache', 'off')")
    for f in file.parent.iterdir():
        f.unlink()
    file.write_bytes(b"not a database at all, but long enough to be looked at"
                     * 100)
    db.one("SELECT choir_config('embed.cache', ?)", str(file))
    assert db.one("SELECT embed('kept')") == v
    assert db.one("SELECT count(*) FROM sqlite_schema"
                  " WHERE name LIKE '%vector%'") == 0


def test_the_cache_forgets_the_oldest_when_it_is_full(db, server, tmp_path):
    file = tmp_path / "small.db"
    db.one("SELECT choir_config('embed.cache', ?)", str(file))
    db.one("SELECT choir_config('embed.cache_bytes', '200000')")
    use(db, server, "tei")
    for i in range(40):
        db.one("SELECT count(*) FROM embed_each(?)",
               json.dumps([f"text {i} {j}" for j in range(20)]))
    con = sqlite3.connect(file)
    used = con.execute("SELECT (page_count - freelist_count) * page_size FROM"
                       " pragma_page_count, pragma_freelist_count,"
                       " pragma_page_size").fetchone()[0]
    assert used < 300000
    assert con.execute("SELECT count(*) FROM vector").fetchone()[0] > 20


def test_a_batch_that_is_too_large_is_halved(db, open_db, server):
    use(db, server, "openai")
    server.max_texts = 20  # the length is learnt from a half of a half
    texts = [f"t {i}" for i in range(100)]
    rows = db.rows("SELECT embedding FROM embed_each(?)", json.dumps(texts))
    assert sum(len(r.texts) for r in server.requests if len(r.texts) <= 20) \
        == 100
    for i in (0, 50, 99):
        assert floats(rows[i][0]) == pytest.approx(local(open_db, texts[i]),
                                                   abs=1e-6)


def test_one_text_that_is_too_large_is_an_error_unless_it_may_be_cut(
        db, server):
    use(db, server, "tei")
    server.max_text = 50
    text = "word " * 20
    assert db.error("SELECT embed(?)", text) == (
        f"embed: tei/test-model at {server.tei}/embed answered 413: the input"
        " length exceeds the context length for texts of 100 bytes; a text may"
        " be too long for the model: cut it with embed_chunks(), or set"
        " embed.truncate to 1")
    db.one("SELECT choir_config('embed.truncate', '1')")
    assert len(db.one("SELECT embed(?)", text)) == 1536


def test_a_busy_service_is_waited_for(db, server):
    use(db, server, "ollama")
    db.one("SELECT embed('first')")
    server.fail(429, {"Retry-After": "1"})
    server.fail(503)
    assert len(db.one("SELECT embed('second')")) == 1536
    assert len(server.requests) == 1 + 3


def test_dimensions_and_prefixes_are_sent(db, server):
    db.one("SELECT choir_config('embed.dimensions', '64')")
    db.one("SELECT choir_config('embed.query_prefix', 'query: ')")
    use(db, server, "openai")
    assert len(db.one("SELECT embed('tea', 'query')")) == 256
    assert len(db.one("SELECT embed('tea')")) == 256
    assert db.one("SELECT embed_model()") == "openai/test-model:64"
    assert [r.texts for r in server.requests] == [["query: tea"], ["tea"]]
    assert server.requests[0].body["dimensions"] == 64


def test_white_space_is_the_zero_vector_and_is_not_sent(db, server):
    use(db, server, "openai")
    db.one("SELECT embed('x')")
    n = len(server.requests)
    rows = db.rows("SELECT embedding FROM embed_each('[\"\", \" \\n\"]')")
    assert [r[0] for r in rows] == [bytes(1536)] * 2
    assert len(server.requests) == n


def test_the_key_goes_to_its_service_and_into_no_error(
        db, server, monkeypatch):
    server.key = "sk-canary-12345678"
    use(db, server, "openai")
    db.one("SELECT choir_secret('k', ?)", json.dumps(
        {"type": "http", "scope": server.openai,
         "bearer_token": "sk-wrong-87654321"}))
    message = db.error("SELECT embed('x')")
    assert message == (
        f"embed: openai/test-model at {server.openai}/embeddings answered 401"
        " for texts of 1 bytes; set OPENAI_API_KEY, or a choir_secret of type"
        " http")
    db.one("SELECT choir_secret('k', ?)", json.dumps(
        {"type": "http", "scope": server.openai, "bearer_token": server.key}))
    assert len(db.one("SELECT embed('x')")) == 1536


@pytest.mark.inprocess
def test_keys_and_places_of_the_services_own_clients_are_used(
        db, server, monkeypatch):
    server.key = "sk-env"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai + "/")
    db.one("SELECT choir_config('embed.model', 'test-model')")
    db.one("SELECT choir_config('embed.provider', 'openai')")
    assert len(db.one("SELECT embed('x')")) == 1536
    server.key = None
    monkeypatch.setenv("OLLAMA_HOST", server.ollama.removeprefix("http://"))
    db.one("SELECT choir_config('embed.provider', 'ollama')")
    assert len(db.one("SELECT embed('x')")) == 1536
    assert "Authorization" not in server.requests[-1].headers
    # Another place does not get the key of the environment.
    use(db, server, "openai", "test-model")
    db.one("SELECT embed('y')")
    assert "Authorization" not in server.requests[-1].headers
    db.one("SELECT choir_config('embed.url', NULL)")
    for host in ("api.test", "127.0.0.1.evil.test"):
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://{host}/v1")
        assert db.error("SELECT embed('z')") == (
            f"embed: OPENAI_API_KEY is not sent to {host} without TLS;"
            " use https")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("change, message", [
    (lambda r: r[:-1], "tei/test-model gave 1 vectors for 2 texts"),
    (lambda r: r + r, "gave no vector where number 3 of 2 was expected"),
    (lambda r: [r[0], r[1][:-1]], "gave a vector of 383 numbers, 384 were"),
    (lambda r: [r[0], ["a"] * 384], "with a value that is not a number"),
    (lambda r: [r[0], None], "gave no vector where number 2 of 2"),
    (lambda r: {"a": 1}, "gave no vector where number 1 of 2"),
    (lambda r: json.dumps([r[0], [1e39] * 384]).encode(),
     "gave a vector with NaN or an infinity"),
    (lambda r: b"<html>", "gave a reply that is not JSON"),
    (lambda r: b"[\"\xff\"]", "gave a reply that is not UTF-8"),
    (lambda r: b"", "gave 0 vectors for 2 texts"),
])
def test_a_reply_that_is_wrong_is_named(db, server, change, message, known):
    use(db, server, "tei")
    if known:  # how long the model's vectors are
        db.one("SELECT embed('x')")
    server.rewrite = change
    assert message in db.error(
        "SELECT count(embedding) FROM embed_each('[\"a\",\"b\"]')")
    server.rewrite = None
    assert len(db.one("SELECT embed('a')")) == 1536  # nothing wrong was kept


def test_a_service_that_is_not_there_is_named(db):
    with FaultServer() as s:
        url = s.url("/")
    db.one("SELECT choir_config('embed.url', ?)", url)
    db.one("SELECT choir_config('http.attempts', '1')")
    db.one("SELECT choir_config('embed.provider', 'ollama')")
    assert url.rstrip("/") in db.error("SELECT embed('x')")
    db.one("SELECT choir_config('embed.provider', 'tei')")
    assert db.error("SELECT embed('x')") == (
        "embed: embed.model is not set and tei does not say which one it"
        " serves; run select choir_config('embed.model', '...')")
    db.one("SELECT choir_config('embed.dimensions', '0')")
    db.one("SELECT choir_config('embed.provider', 'openai')")
    assert db.error("SELECT embed('x')") == (
        "embed: embed.dimensions must be 1 to 65536, got 0")


def test_a_model_that_is_not_there_is_named(db, server):
    use(db, server, "ollama", "no-such")
    assert db.error("SELECT embed('x')") == (
        f"embed: ollama/no-such at {server.ollama}/api/embed answered 404:"
        " model 'no-such' not found for texts of 1 bytes; check embed.url and"
        " embed.model")


def test_locked_and_readonly_connections_send_nothing(
        db, open_db, server, tmp_path):
    use(db, server, "tei")
    db.one("SELECT choir_lock()")
    assert "locked" in db.error("SELECT embed('x')")
    assert "locked" in db.error("SELECT embed_all('x')")
    r = open_db(tmp_path / "r.db", entry="sqlite3_choir_readonly_init")
    r.one("SELECT choir_config('embed.url', ?)", server.tei) \
        if r.one("SELECT count(*) FROM pragma_function_list"
                 " WHERE name='choir_config'") else None
    assert server.requests == []


def test_the_workspace_is_searched_by_the_services_vectors(db, server):
    use(db, server, "openai")
    for name, text in (("/tea.md", "green tea from Kyoto"),
                       ("/tax.md", "income tax of the year")):
        db.one("SELECT artifact_put(?, ?)", name, text)
    db.one("SELECT choir_index()")
    assert db.rows("SELECT path FROM choir_search('kyoto tea') LIMIT 1") == [
        ("/tea.md",)]
    n = len(server.requests)
    db.one("SELECT choir_index()")
    assert len(server.requests) == n
    db.one("SELECT choir_config('embed.provider', 'hash-384')")
    assert "openai/test-model" in db.error("SELECT * FROM choir_search('tea')")


@pytest.mark.inprocess
@pytest.mark.parametrize("what", ["new text", "another model"])
def test_nobody_waits_for_the_service_to_write(tmp_path, server, what):
    """choir_index() asks the service before it takes the write lock."""
    import threading
    asked, go = threading.Event(), threading.Event()
    path, failure = tmp_path / "w.db", []
    d = Db(path, init=True)
    d.one("SELECT artifact_put('/a.md', 'some text')")
    if what == "another model":
        d.one("SELECT choir_index()")
    d.close()

    def slow(texts):
        if texts != ["choir"]:
            asked.set()
            assert go.wait(10)
        return hash_model(texts)

    def index():
        try:
            mine = Db(path)
            use(mine, server, "openai")
            mine.one("SELECT choir_index()")
            mine.close()
        except Exception as e:
            failure.append(e)

    server.model = slow
    t = threading.Thread(target=index)
    t.start()
    assert asked.wait(10)
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    other.execute("CREATE TABLE free(x)")
    other.close()
    go.set()
    t.join()
    assert failure == []
    d = Db(path)
    use(d, server, "openai")
    n = len(server.requests)
    assert d.one("SELECT path FROM choir_search('text')") == "/a.md"
    assert [r.texts for r in server.requests[n:]] == [["text"]]
    d.close()


@pytest.mark.once
def test_a_real_model_finds_meaning(db):
    import minilm
    with EmbedServer(minilm.embed, "all-minilm") as s:
        use(db, s, "ollama", "all-minilm")
        for name, text in (
                ("/a.md", "The cat sleeps on the warm sofa."),
                ("/b.md", "Quarterly revenue grew by four percent."),
                ("/c.md", "Knead the dough and let it rise for an hour.")):
            db.one("SELECT artifact_put(?, ?)", name, text)
        db.one("SELECT choir_index()")
        for query, path in (("a kitten taking a nap", "/a.md"),
                            ("company earnings", "/b.md"),
                            ("how do I bake bread", "/c.md")):
            assert db.rows("SELECT path FROM choir_search(?) LIMIT 1",
                           query) == [(path,)]


@pytest.mark.once
@pytest.mark.inprocess
def test_the_official_clients_find_the_server_right(server):
    import ollama
    import openai
    want = hash_model(["apple", "pear"])
    c = openai.OpenAI(base_url=server.openai, api_key="none", max_retries=0)
    got = c.embeddings.create(model="test-model", input=["apple", "pear"])
    for i in (0, 1):
        item = next(d for d in got.data if d.index == i)
        assert item.embedding == pytest.approx(want[i], abs=1e-5)
    with pytest.raises(openai.NotFoundError):
        c.embeddings.create(model="other", input=["apple"])
    o = ollama.Client(host=server.ollama)
    got = o.embed(model="test-model", input=["apple", "pear"])
    assert got.embeddings[1] == pytest.approx(want[1], abs=1e-5)
    with pytest.raises(ollama.ResponseError):
        o.embed(model="other", input="apple")
