# SPDX-License-Identifier: MIT
"""qdrant_search and its siblings: what they find, how much they ask for."""
import json
import uuid

import pytest

from qdrant_fixtures import ada, fake, old, server, two, vec  # noqa: F401

Q = "SELECT {} FROM qdrant_search(?) "
ONE = b"\0\0\x80?\0\0\0\0"  # (1, 0)


def point(n, **payload):
    return (n, [n, 0], {"user_id": "ada", "artifact_id": f"a{n}",
                        "path": f"/{n}.md", **payload})


@pytest.fixture
def hundred(ada, two):
    two.put(*[point(n) for n in range(1, 101)])
    return ada


def test_hits_come_best_first_with_all_their_columns(ada, two):
    two.put(point(1), point(3, content_preview="three", lang="en"), point(2))
    rows = ada.rows(Q.format("*") + "LIMIT 5", ONE)
    assert [r[:6] for r in rows] == [
        (1, 3.0, 3, "a3", "/3.md", "three"), (2, 2.0, 2, "a2", "/2.md", None),
        (3, 1.0, 1, "a1", "/1.md", None)]
    assert json.loads(rows[0][6])["lang"] == "en"
    assert rows[0][7] == b"\0\0\x40\x40\0\0\0\0"


def test_a_limit_is_what_is_asked_for_and_not_more(hundred, fake, two):
    assert len(hundred.rows(Q.format("id") + "LIMIT 7", ONE)) == 7
    assert hundred.rows(Q.format("id") + "ORDER BY score DESC LIMIT 2 OFFSET 3",
                        ONE) == [(97,), (96,)]
    if two.seen is not None:
        assert [b["limit"] for b in two.sent("query")] == [7, 5]
        assert "offset" not in two.sent("query")[0]


def test_rows_are_fetched_as_they_are_read(hundred, two):
    assert len(hundred.rows(Q.format("id"), ONE)) == 100
    if two.seen is not None:
        assert [(b["limit"], b.get("offset", 0)) for b in two.sent("query")] \
            == [(16, 0), (64, 16), (256, 80)]


def test_rows_that_sqlite_throws_away_do_not_count(hundred):
    """LIMIT is a hint: here nine tenths of the hits fail a local test."""
    rows = hundred.rows(Q.format("id") + "WHERE id % 10 = 0 LIMIT 8", ONE)
    assert [r[0] for r in rows] == [100, 90, 80, 70, 60, 50, 40, 30]


def test_an_offset_is_never_left_to_the_server(hundred):
    """SQLite 3.40 hands the OFFSET of a compound to each of its arms."""
    rows = hundred.rows(
        "SELECT id FROM qdrant_search(?1) WHERE k = 3 UNION ALL"
        " SELECT id FROM qdrant_search(?1) WHERE k = 3 LIMIT 2 OFFSET 3", ONE)
    assert rows == [(100,), (99,)]


def test_k_bounds_the_hits(hundred, two):
    assert hundred.rows(Q.format("count(*), min(score)") + "WHERE k = 20",
                        ONE) == [(20, 81.0)]
    assert "k must be 1 to 1000, got 1001" in hundred.error(
        Q.format("id") + "WHERE k = 1001", ONE)
    if two.seen is not None:
        assert [b["limit"] for b in two.sent("query")] == [20]


@pytest.mark.once
def test_reading_past_a_thousand_hits_is_an_error_not_a_short_answer(ada, two):
    for start in range(1, 1201, 300):
        two.put(*[point(n) for n in range(start, start + 300)])
    assert "1000 hits were read and there may be more; say LIMIT n" in ada.error(
        Q.format("count(*)"), ONE)
    assert ada.one(Q.format("count(*)") + "WHERE k = 1000", ONE) == 1000
    assert ada.rows(Q.format("id") + "LIMIT 1000", ONE)[-1] == (201,)


def test_only_what_is_read_is_fetched(hundred, fake, two):
    hundred.rows(Q.format("id, score") + "LIMIT 1", ONE)
    hundred.rows(Q.format("path, vector") + "LIMIT 1", ONE)
    hundred.rows(Q.format("payload") + "LIMIT 1", ONE)
    if two.seen is not None:
        assert [(b["with_payload"], b["with_vector"])
                for b in two.sent("query")] == [
            (["user_id", "model"], False),
            (["user_id", "model", "path"], True), (True, False)]


def test_settings_of_the_query_reach_the_server(ada, fake, vec):
    fake.make()
    fake.tell(ada)
    ada.rows(Q.format("id") + "WHERE ef = 77 AND exact = 1 AND k = 3", ONE)
    ada.rows(Q.format("id") + "WHERE mmr = 0.25 AND k = 3", ONE)
    first, second = fake.sent("query")
    assert first["params"] == {"hnsw_ef": 77, "exact": True}
    assert first["query"] == [1, 0]
    assert second["query"] == {"nearest": [1, 0], "mmr": {"diversity": 0.25}}


def test_named_vectors_are_searched_by_name(db, fake, vec):
    fake.raw("PUT", f"/collections/{fake.collection}", {"vectors": {
        "title": {"size": 2, "distance": "Dot"},
        "body": {"size": 2, "distance": "Dot"}}})
    ada = fake.tell(db)
    fake.put((1, {"title": [1, 0], "body": [0, 5]}, {"user_id": "ada"}),
             (2, {"title": [2, 0], "body": [0, 4]}, {"user_id": "ada"}))
    for name, query, best in (("title", ONE, 2), ("body", vec(0, 1), 1)):
        assert ada.rows("SELECT id, length(vector) FROM qdrant_search(?)"
                        " WHERE vector_name = ? LIMIT 1", query, name) == [
            (best, 8)]


def test_score_bounds_are_sent_a_little_wider_and_tested_here(hundred, two):
    assert hundred.rows(Q.format("id") + "WHERE score >= 98 LIMIT 50", ONE) == [
        (100,), (99,), (98,)]
    assert hundred.one(Q.format("count(*)") + "WHERE score > 98", ONE) == 2
    assert hundred.one(Q.format("count(*)") + "WHERE score >= 90.5 AND k = 50",
                       ONE) == 10
    if two.seen is not None:
        sent = [b["score_threshold"] for b in two.sent("query")]
        assert all(97.9999 < s < 98 for s in sent[:2])


def test_distances_are_smaller_when_better(db, server):
    server.make(distance="Euclid")
    ada = server.tell(db)
    server.put(*[point(n) for n in range(1, 6)])
    assert ada.rows(Q.format("rank, id, score") + "ORDER BY rank LIMIT 3",
                    ONE) == [(1, 1, 0.0), (2, 2, 1.0), (3, 3, 2.0)]
    assert ada.rows(Q.format("id") + "WHERE score <= 1", ONE) == [(1,), (2,)]
    assert ada.rows(Q.format("id") + "WHERE score >= 3", ONE) == [(4,), (5,)]
    assert "scores of collection" in ada.error(
        Q.format("id") + "ORDER BY score DESC LIMIT 3", ONE)


def test_other_orders_are_sorted_here(hundred):
    assert hundred.rows(Q.format("id") + "WHERE k = 5 ORDER BY score LIMIT 2",
                        ONE) == [(96,), (97,)]
    assert hundred.rows(Q.format("id") + "WHERE k = 5 ORDER BY path LIMIT 1",
                        ONE) == [(100,)]


def test_ids_are_exact_and_uuids_are_text(ada, two):
    u = str(uuid.uuid4())
    ids = [2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, u]
    two.put(*[(i, [n + 1, 0], {"user_id": "ada"}) for n, i in enumerate(ids)])
    got = ada.rows("SELECT id, typeof(id) FROM qdrant_search(?) WHERE k = 9"
                   " ORDER BY score", ONE)
    assert got == [(2**53 + 1, "integer"), (2**63 - 1, "integer"),
                   (str(2**63), "text"), (str(2**64 - 1), "text"), (u, "text")]
    assert ada.rows("SELECT id FROM qdrant_scroll() WHERE id = ?", u) == [(u,)]
    assert ada.rows("SELECT id FROM qdrant_scroll() WHERE id IN (?, ?)",
                    u, 2**53 + 1) == [(2**53 + 1,), (u,)]


def test_texts_survive_as_they_are(ada, two):
    texts = ['a"b\\c/d', "Grüße 你好 🎵", "tab\tnew\nline", "", "\u2028", "{}[],:"]
    two.put(*[(n + 1, [1, 0], {"user_id": "ada", "path": t, "ключ\"": t})
              for n, t in enumerate(texts)])
    got = ada.rows("SELECT path, payload ->> '$.path' FROM qdrant_scroll()"
                   " ORDER BY id")
    assert got == [(t, t) for t in texts]


def test_scroll_passes_every_point_once(ada, two):
    two.put(*[point(n) for n in range(1, 1301)])
    assert ada.rows("SELECT count(*), count(DISTINCT id) FROM qdrant_scroll()") \
        == [(1300, 1300)]
    assert ada.rows("SELECT id FROM qdrant_scroll() WHERE id > 100 LIMIT 2") \
        == [(101,), (102,)]
    if two.seen is not None:
        assert [b["limit"] for b in two.sent("scroll")][:3] == [64, 256, 1000]


def test_a_text_is_embedded_and_found(ada, server):
    ada.one("SELECT qdrant_init()")
    ada.rows("WITH d(id, t) AS (VALUES ('a', 'quarterly plan for the search'),"
             " ('b', 'a warranty of any kind'), ('c', 'coffee and servers'))"
             " SELECT qdrant_upsert(id, 0, t, json_object('path', '/'||id))"
             " FROM d")
    assert ada.rows("SELECT path FROM qdrant_search('plans of the quarter')"
                    " LIMIT 1") == [("/a",)]
    assert ada.rows("SELECT artifact_id, preview FROM qdrant_search("
                    "embed('warranties', 'query')) LIMIT 1") == [
        ("b", "a warranty of any kind")]
    assert ada.rows("SELECT * FROM qdrant_search('…!')") == []


def test_similar_finds_other_artifacts_one_hit_each(ada, server):
    ada.one("SELECT qdrant_init()")
    ada.rows("WITH d(id, n, t) AS (VALUES ('a', 0, 'red apples and pears'),"
             " ('a', 1, 'an orchard of apples'), ('b', 0, 'apples in a pie'),"
             " ('b', 1, 'red apples, green apples'), ('c', 0, 'tax law'))"
             " SELECT qdrant_upsert(id, n, t) FROM d")
    assert [r[0] for r in ada.rows(
        "SELECT artifact_id FROM qdrant_similar('a') LIMIT 5")] == ["b", "c"]
    assert "has no points of artifact 'zz' of user 'ada'" in ada.error(
        "SELECT * FROM qdrant_similar('zz')")


def test_groups_and_facets(ada, two):
    two.raw("PUT", f"/collections/{two.collection}/index?wait=true",
            {"field_name": "lang", "field_schema": "keyword"})
    two.put(*[point(n, lang="en" if n % 3 else "de", artifact_id=f"a{n // 4}")
              for n in range(1, 13)])
    rows = ada.rows("SELECT group_id, rank, id FROM qdrant_groups(?) WHERE"
                    " group_by = 'lang' AND group_size = 2", ONE)
    assert rows == [("de", 1, 12), ("de", 1, 9), ("en", 2, 11), ("en", 2, 10)]
    assert ada.rows("SELECT group_id FROM qdrant_groups(?) WHERE k = 1"
                    " AND group_size = 1", ONE) == [("a3",)]
    assert ada.rows("SELECT value, count FROM qdrant_facet('lang')") == [
        ("en", 8), ("de", 4)]
    assert ada.rows("SELECT value FROM qdrant_facet('lang') WHERE filter ="
                    " qdrant_filter('id_', '=', 1)") == []


def test_counts_pings_and_collections(ada, two):
    two.put(point(1, lang="en"), point(2, lang="de"), point(3))
    assert ada.one("SELECT qdrant_count()") == 3
    assert ada.one("SELECT qdrant_count(qdrant_filter('lang', 'in',"
                   " '[\"en\",\"fr\"]'))") == 1
    assert ada.one("SELECT qdrant_count(NULL, ?)", two.collection) == 3
    ping = json.loads(ada.one("SELECT qdrant_ping()"))
    assert ping["exists"] == 1 and ping["user"] == "ada"
    assert ping["collection"] == two.collection and ping["url"] == two.url
    assert (two.collection, 2, "Dot", None, None) in ada.rows(
        "SELECT * FROM qdrant_collections")


def test_init_makes_the_collection_once_and_checks_it_ever_after(ada, server):
    want = {"collection": server.collection, "dimensions": 384,
            "model": "hash-384"}
    assert json.loads(ada.one("SELECT qdrant_init()")) == {**want, "created": 1}
    assert json.loads(ada.one("SELECT qdrant_init()")) == {**want, "created": 0}
    info = server.raw("GET", f"/collections/{server.collection}")["result"]
    assert info["config"]["params"]["vectors"] == {"size": 384,
                                                   "distance": "Cosine"}
    assert {k: v["data_type"] for k, v in info["payload_schema"].items()} == {
        "user_id": "keyword", "artifact_id": "keyword", "path": "keyword",
        "updated_at": "integer", "content_preview": "text"}
    assert info["payload_schema"]["user_id"]["params"]["is_tenant"] is True
    other = server.collection + "-2"
    server.make(size=3, collection=other)
    message = ada.error("SELECT qdrant_init(?)", other)
    server.raw("DELETE", f"/collections/{other}")
    assert "takes vectors of 3 dimensions and hash-384 makes 384" in message


def test_vectors_of_two_models_are_not_mixed(ada, server):
    ada.one("SELECT qdrant_init()")
    ada.one("SELECT qdrant_upsert('a', 0, 'text')")
    server.put((7, [1.0] + [0.0] * 383, {"user_id": "ada", "model": "other-7b"}))
    assert 'of model "other-7b" and embed.provider is hash-384' in ada.error(
        "SELECT id FROM qdrant_search('text') WHERE k = 5")


WRONG = [
    ("SELECT * FROM qdrant_search(NULL)", "query must be text or a blob"),
    ("SELECT * FROM qdrant_search(5)", "query must be text or a blob"),
    ("SELECT * FROM qdrant_search(x'')", "0 bytes, which is no vector"),
    ("SELECT * FROM qdrant_search(x'010203')", "3 bytes, which is no vector"),
    ("SELECT * FROM qdrant_search(x'0000c07f00000000')", "NaN or an infinity"),
    ("SELECT * FROM qdrant_search(x'0000803f')", "status 400"),
    ("SELECT * FROM qdrant_search()", "needs at least 1 argument"),
    ("SELECT * FROM qdrant_search(x'0000803f00000000', 'a/b')",
     "a collection's name has 1 to 255 bytes"),
    ("SELECT * FROM qdrant_search(x'0000803f00000000', '..')",
     "a collection's name has 1 to 255 bytes"),
    ("SELECT * FROM qdrant_search(x'0000803f00000000', '')",
     "a collection's name has 1 to 255 bytes"),
    ("SELECT * FROM qdrant_search(x'0000803f00000000', 'none')", "status 404"),
    ("SELECT * FROM qdrant_search(x'0000803f00000000') WHERE k = 0",
     "k must be 1 to 1000"),
    ("SELECT * FROM qdrant_search(x'0000803f00000000') WHERE k = 'x'",
     "k must be an integer"),
    ("SELECT * FROM qdrant_search(x'0000803f00000000') WHERE mmr = 2",
     "mmr must be 0 to 1"),
    ("SELECT * FROM qdrant_search(x'0000803f00000000') WHERE filter = '['",
     "filter is not valid JSON"),
    ("SELECT * FROM qdrant_search(x'0000803f00000000') WHERE filter = '[]'",
     "filter must be a JSON object, got array"),
    ("SELECT * FROM qdrant_search(x'0000803f00000000') WHERE filter = '{a:1}'",
     "filter is not valid JSON"),
    ("SELECT * FROM qdrant_search(x'0000803f00000000') WHERE filter ="
     " '{\"nonsense\":1}'", "status 400"),
    ("SELECT * FROM qdrant_facet(NULL)", "key must be text"),
    ("SELECT * FROM qdrant_groups('x') WHERE k = 5000", "k must be 1 to 1000"),
    ("SELECT qdrant_count('x')", "filter is not valid JSON"),
]


def test_what_is_wrong_is_named(ada, two):
    for sql, problem in WRONG:
        assert problem in ada.error(sql), sql


WRONG_FILTERS = [
    ("'a'", "arguments come in threes: key, operator, value; got 1"),
    ("'a', '~', 1", "no operator '~'"),
    ("'a', '=', NULL", "text or a finite number, got null"),
    ("NULL, '=', 1", "key must be text, got null"),
    ("'a', 'in', '{}'", "must be a JSON array of texts or of integers"),
    ("'a', 'in', '[]'", "must be a JSON array of texts or of integers"),
    ("'a', 'in', '[1,\"a\"]'", "must be a JSON array of texts or of integers"),
    ("'a', 'prefix', 5", "value of 'prefix' must be text, got integer"),
    ("'a', '<', x'00'", "text or a finite number, got blob"),
    ("'a', '<', 9e999", "text or a finite number, got real"),
    ("'a', 'empty', 2", "value must be 0 to 1"),
]


def test_wrong_filters_are_named(db):
    for args, problem in WRONG_FILTERS:
        assert problem in db.error(f"SELECT qdrant_filter({args})"), args


def test_filters_of_every_operator_are_understood_by_the_server(ada, two):
    two.put(point(1, lang="en", size=1, note="alpha beta", r=2.5),
            point(2, lang="de", size=2, note="beta", tags=["x", "y"]),
            point(3, size=3))
    for args, want in [
            ("'lang', '=', 'en'", [1]), ("'lang', '!=', 'en'", [2, 3]),
            ("'size', '=', 2", [2]), ("'r', '=', 2.5", [1]),
            ("'lang', 'in', '[\"en\",\"de\"]'", [1, 2]),
            ("'size', 'not in', '[1,2]'", [3]), ("'size', '<', 2", [1]),
            ("'size', '>=', 2", [2, 3]), ("'note', 'text', 'alpha'", [1]),
            ("'path', 'prefix', '/1'", [1]), ("'lang', 'empty', 1", [3]),
            ("'lang', 'empty', 0", [1, 2]), ("'tags', '=', 'y'", [2]),
            ("'lang', '=', 'en', 'size', '>', 1", []), ("", [1, 2, 3])]:
        got = [r[0] for r in ada.rows(
            f"SELECT id FROM qdrant_scroll(NULL, qdrant_filter({args}))")]
        assert got == want, args


def test_what_the_room_was_drawn_up_with_runs_as_written(ada, server):
    """The statements that the surface was designed by, over a workspace."""
    ada.one("SELECT qdrant_init()")
    for n, t in enumerate(["quarterly plan", "tax return", "roadmap of risk",
                           "soup"]):
        ada.one("SELECT artifact_put(?, ?)", f"/docs/{n}.md", t)
    ada.one("SELECT qdrant_flush(500)")
    one = ada.one("SELECT id FROM artifacts ORDER BY path LIMIT 1")
    ada.run("CREATE VIRTUAL TABLE temp.docs USING qdrant("
            f'"{server.collection}", path TEXT, mime_type TEXT,'
            " updated_at INTEGER);"
            "CREATE VIRTUAL TABLE temp.notes_fts USING fts5(id, t);"
            "INSERT INTO notes_fts SELECT id, content FROM artifacts")
    for sql, args, want in (
        ("SELECT path, score FROM qdrant_search('quarterly plan') LIMIT 5", (),
         "/docs/0.md"),
        ("SELECT path FROM qdrant_search(embed('tax','query'))"
         " WHERE path GLOB '/docs/*' AND k=20", (), "/docs/1.md"),
        ("SELECT path FROM qdrant_search('tax') WHERE"
         " filter=qdrant_filter('mime_type','in',json('[\"text/markdown\"]'))"
         " AND score>=0.2 LIMIT 9", (), "/docs/1.md"),
        ("SELECT path FROM docs WHERE query='roadmap' AND"
         " mime_type='text/markdown' AND updated_at>=?"
         " ORDER BY score DESC LIMIT 10", (5,), "/docs/2.md"),
        ("WITH h AS MATERIALIZED (SELECT artifact_id,score FROM"
         " qdrant_search('risk') LIMIT 20) SELECT a.path,h.score FROM h"
         " JOIN artifacts a ON a.id=h.artifact_id ORDER BY h.score DESC", (),
         "/docs/2.md"),
        ("SELECT qdrant_count(qdrant_filter('path','prefix','/docs/'))", (), 4),
        ("SELECT count(*) FROM (SELECT artifact_id,score FROM"
         " qdrant_similar(?) LIMIT 5)", (one,), 3),
        ("SELECT qdrant_upsert(id,0,name,json_object('path',path))"
         " FROM artifacts WHERE updated_at>?", (0,), 4),
        ("WITH f AS (SELECT id, row_number() OVER (ORDER BY rank) r FROM"
         " notes_fts WHERE notes_fts MATCH ?1 ORDER BY rank LIMIT 50),"
         " v AS (SELECT artifact_id id, rank r FROM qdrant_search(?1)"
         " LIMIT 50) SELECT id, sum(rrf(r)) s FROM (SELECT * FROM f UNION ALL"
         " SELECT * FROM v) GROUP BY id ORDER BY s DESC LIMIT 10",
         ("quarterly",), one),
    ):
        assert ada.rows(sql, *args)[0][0] == want, sql
