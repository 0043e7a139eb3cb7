# SPDX-License-Identifier: MIT
"""Several vectors of a point, several lists of a query, several queries of a
request; scrolls by a member; payloads that change."""
import json
import random

import pytest

from qdrant_fixtures import ada, fake, old, server, two, vec  # noqa: F401

SPARSE = {"indices": [3, 7], "values": [1.0, 2.0]}


@pytest.fixture
def named(ada, server):
    """Points with a vector `title` of 384, one `words` that is sparse."""
    ada.one("SELECT choir_config('qdrant.vector', 'title')")
    made = json.loads(ada.one("SELECT qdrant_init(NULL, 'words')"))
    assert made["created"] == 1 and made["dimensions"] == 384
    return ada


def test_a_named_vector_is_written_searched_and_read(named, server, vec):
    assert named.rows("SELECT vector, dimensions, distance FROM"
                      " qdrant_collections WHERE name = ?",
                      server.collection) == [("title", 384, "Cosine"),
                                             ("words", None, None)]
    sql = "SELECT qdrant_upsert(?, 0, ?, NULL, ?)"
    named.one(sql, "a1", "quarterly plan", json.dumps({"words": SPARSE}))
    named.one(sql, "a2", "a recipe for soup", None)
    named.one(sql, "a3", named.one("SELECT embed('annual plan')"), None)
    assert named.rows("SELECT artifact_id FROM qdrant_search('quarterly plan')"
                      " LIMIT 1") == [("a1",)]
    assert named.rows("SELECT group_id FROM qdrant_groups('soup', NULL, NULL,"
                      " 1)") == [("a2",)]
    assert named.rows("SELECT artifact_id FROM qdrant_similar('a1', NULL, 1)") \
        == [("a3",)]
    assert named.rows("SELECT ord, artifact_id FROM qdrant_search_each("
                      "'[\"soup\",\"annual\"]', NULL, 1)") == [
                          (0, "a2"), (1, "a3")]
    assert named.one("SELECT vector FROM qdrant_scroll() WHERE artifact_id ="
                     " 'a3'") == pytest.approx(
                         named.one("SELECT embed('annual plan')"))
    assert json.loads(named.one(
        "SELECT vector FROM qdrant_scroll() WHERE vector_name = 'words' AND"
        " artifact_id = 'a1'")) == SPARSE
    assert "vectors has \"title\", which is the third argument's" in \
        named.error(sql, "a4", "x", '{"title":[1]}')
    named.one("SELECT choir_config('qdrant.vector', 'nothing')")
    assert "has no vector 'nothing'" in named.error(sql, "a4", "x", None)
    named.one("SELECT choir_config('qdrant.vector', NULL)")
    assert "choir_config('qdrant.vector', …)" in named.error(
        sql, "a4", "x", None)


def test_the_flush_writes_the_named_vector(named):
    named.one("SELECT artifact_put('/a.txt', 'quarterly plan')")
    assert json.loads(named.one("SELECT qdrant_flush()"))["points"] == 1
    assert named.rows("SELECT path FROM qdrant_search('plan') LIMIT 1") == [
        ("/a.txt",)]
    assert named.one("SELECT count(*) FROM choir_metrics WHERE name ="
                     " 'qdrant.lag' AND value = 0") == 1


def test_two_lists_become_one_by_reciprocal_ranks(ada, two, vec):
    """In the order of the dense list 1 2 3 4; `words` finds 4 and 3."""
    ada.one("SELECT choir_config('qdrant.collection', ?)",
            two.collection + "-s")
    two.raw("PUT", f"/collections/{two.collection}-s", {
        "vectors": {"size": 2, "distance": "Dot"},
        "sparse_vectors": {"words": {}}})
    for n in range(1, 5):
        ada.one("SELECT qdrant_upsert(?, 0, ?, NULL, ?)", f"a{n}",
                vec(5 - n, 0), json.dumps(
                    {"words": {"indices": [7], "values": [n]}}
                    if n > 2 else {}))
    got = ada.rows("SELECT artifact_id, round(score, 5) FROM qdrant_search(?)"
                   " WHERE vectors = ?", vec(1, 0), json.dumps(
                       {"words": {"indices": [7], "values": [1.0]}}))
    want = {"a1": 1 / 61, "a2": 1 / 62, "a3": 1 / 63 + 1 / 62,
            "a4": 1 / 64 + 1 / 61}
    assert dict(got) == {k: round(v, 5) for k, v in want.items()}
    assert [a for a, _ in got[:2]] == ["a4", "a3"]
    assert len(ada.rows(
        "SELECT 1 FROM qdrant_search(?) WHERE fusion = 'dbsf' AND vectors = ?"
        " AND score > 0 AND k = 3", vec(1, 0),
        '{"words":{"indices":[7],"values":[1]}}')) <= 3
    two.raw("DELETE", f"/collections/{two.collection}-s")


def test_words_lift_what_has_them(ada, server):
    ada.one("SELECT qdrant_init()")
    texts = ["plan", "the quarterly plan of plans", "quarterly",
             "plans planned quarter quarters", "soup"]
    ada.rows("SELECT qdrant_upsert('a'||key, 0, value) FROM json_each(?)",
             json.dumps(texts))
    plain = ada.rows("SELECT artifact_id FROM qdrant_search('quarterly plan')"
                     " LIMIT 5")
    for fusion in ("rrf", "dbsf"):
        got = ada.rows("SELECT artifact_id FROM qdrant_search('quarterly plan')"
                       " WHERE fusion = ? LIMIT 5", fusion)
        assert got[0] == ("a1",) and sorted(got) == sorted(plain)
    ada.run("CREATE VIRTUAL TABLE temp.d USING qdrant("
            f'"{server.collection}", artifact_id TEXT)')
    assert ada.rows("SELECT artifact_id FROM d WHERE query = 'quarterly plan'"
                    " AND fusion = 'rrf' LIMIT 1") == [("a1",)]
    assert ada.rows("SELECT group_id FROM qdrant_groups('quarterly plan')"
                    " WHERE fusion = 'rrf' AND k = 1") == [("a1",)]


@pytest.mark.parametrize("terms, message", [
    ("fusion = 'sum'", "fusion must be rrf or dbsf, got 'sum'"),
    ("fusion = 'rrf' AND mmr = 0.5", "fusion and mmr exclude each other"),
    ("fusion = 'rrf'", "fusion needs a second list: a query that is text"),
    ("fusion = 'rrf' AND vectors = '{}'", "fusion needs a second list"),
    ("vectors = '[1]'", "vectors must be a JSON object, got array; it is name"),
    ("vectors = '{'", "vectors is not valid JSON"),
])
def test_what_cannot_be_fused_is_said(ada, two, vec, terms, message):
    assert message in ada.error(
        f"SELECT * FROM qdrant_search(?) WHERE {terms}", vec(1, 0))


def test_many_queries_are_few_requests(ada, fake, vec):
    fake.tell(ada)
    fake.make()
    fake.put(*[(n, [n, 10 - n], {"user_id": "ada", "path": f"/{n}"})
               for n in range(10)])
    fake.seen.clear()
    rows = ada.rows(
        "SELECT ord, rank, path, score FROM qdrant_search_each(?, NULL, 2)",
        json.dumps([[1, 0], [0, 1]] * 50))
    assert len(fake.sent("batch")) == 4 and len(fake.seen) == 4
    assert rows[:4] == [(0, 1, "/9", 9), (0, 2, "/8", 8), (1, 1, "/0", 10),
                        (1, 2, "/1", 9)]
    assert [r[0] for r in rows] == [i // 2 for i in range(200)]
    assert ada.rows("SELECT * FROM qdrant_search_each('[]')") == []


@pytest.mark.parametrize("queries, message", [
    ("{}", "queries must be a JSON array of at most 1000, got object"),
    (json.dumps([[1, 0]] * 1001), "at most 1000, got array of 1001"),
    ('["x", null]', "query 1 must be a text or an array of numbers, got null"),
    ('[[1, "a"]]', 'query 0 must be a text or an array of numbers, got [1,"a"]'),
    ("[[]]", "got []"), ("[7]", "got 7"),
    ("nonsense", "JSON"), (None, "queries"),
])
def test_queries_are_texts_or_vectors(ada, two, queries, message):
    assert message in ada.error("SELECT * FROM qdrant_search_each(?)", queries)


def test_a_text_without_words_finds_nothing(ada, server):
    ada.one("SELECT qdrant_init()")
    ada.one("SELECT qdrant_upsert('a', 0, 'soup')")
    assert ada.rows("SELECT ord FROM qdrant_search_each('[\"\",\"soup\",\" \"]')"
                    ) == [(1,)]


@pytest.mark.parametrize("distinct", [1, 7, 3000])
def test_a_scroll_by_a_member_passes_every_point_once(ada, two, distinct):
    rng = random.Random(distinct)
    points = [(n, rng.randrange(distinct) - distinct // 2)
              for n in range(1, 701)]
    two.put(*[(n, [n, 0], {"user_id": "ada", "t": t}) for n, t in points],
            (9000, [1, 1], {"user_id": "ada"}),
            (9001, [1, 1], {"user_id": "eve", "t": 1}))
    two.index("t", "integer")
    ada.run(f'CREATE VIRTUAL TABLE temp.d USING qdrant("{two.collection}",'
            " t INTEGER)")
    for order, reverse in (("t", False), ("t desc", True), ("t ASC", False)):
        rows = ada.rows("SELECT id, t FROM d WHERE order_by = ?", order)
        assert sorted(r[0] for r in rows) == [n for n, _ in points]
        assert [r[1] for r in rows] == sorted(
            (t for _, t in points), reverse=reverse)
    assert len(ada.rows("SELECT id FROM qdrant_scroll() WHERE order_by = 't'"
                        " LIMIT 5")) == 5
    assert "order_by is for a scroll" in ada.error(
        "SELECT id FROM d WHERE order_by = 't' AND query = x'0000803f00000000'")
    assert "fusion needs a query" in ada.error(
        "SELECT id FROM d WHERE vectors = '{\"w\":[1]}'")
    assert "order_by must be a member" in ada.error(
        "SELECT id FROM d WHERE order_by = ' desc'")


def test_an_index_makes_a_facet(ada, two):
    two.put(*[(n, [1, n], {"user_id": "ada", "lang": "de" if n > 2 else "en"})
              for n in range(1, 6)])
    assert "index" in ada.error("SELECT * FROM qdrant_facet('lang')")
    for _ in range(2):
        assert ada.one("SELECT qdrant_index('lang', 'keyword')") == 1
    assert ada.rows("SELECT * FROM qdrant_facet('lang')") == [
        ("de", 3), ("en", 2)]
    assert "type must be keyword, integer" in ada.error(
        "SELECT qdrant_index('lang', 'word')")
    assert "key" in ada.error("SELECT qdrant_index(NULL, 'keyword')")


def test_similar_takes_a_path_too(ada, server):
    ada.one("SELECT qdrant_init()")
    ada.rows("SELECT qdrant_upsert('a'||key, 0, value, json_object('path',"
             " '/'||key)) FROM json_each('[\"tax plan\",\"plan\",\"soup\"]')")
    assert ada.rows("SELECT path FROM qdrant_similar('/1') LIMIT 1") == [
        ("/0",)]
    assert ada.rows("SELECT path FROM qdrant_similar('/1')") == ada.rows(
        "SELECT path FROM qdrant_similar('a1')")
    assert "no points of artifact '/9'" in ada.error(
        "SELECT path FROM qdrant_similar('/9')")


def test_a_payload_changes_for_ones_own_points_only(ada, two):
    two.put(*[(n, [n, 0], {"user_id": "ada" if n < 4 else "eve",
                           "path": f"/{n % 2}", "kept": n})
              for n in range(1, 7)])
    assert ada.one("SELECT qdrant_set_payload(qdrant_filter('path', '=', '/1'),"
                   " '{\"lang\":\"en\",\"n\":{\"a\":[1]}}')") == 2
    assert ada.one("SELECT qdrant_set_payload('{}', '{\"all\":true}')") == 3
    ada.one("SELECT choir_config('qdrant.collection', ?)", two.collection)
    rows = [json.loads(p) for (p,) in ada.rows(
        "SELECT payload FROM qdrant_scroll()")]
    assert [p.get("lang") for p in rows] == ["en", None, "en"]
    assert all(p["all"] is True and p["kept"] == n + 1
               for n, p in enumerate(rows))
    found = two.raw("POST", f"/collections/{two.collection}/points/scroll",
                    {"limit": 9, "with_payload": True})["result"]["points"]
    assert [sorted(p["payload"]) for p in found
            if p["payload"]["user_id"] == "eve"] == [
                ["kept", "path", "user_id"]] * 3
    for f, p, message in (
            (None, "{}", "filter"), ("{}", None, "payload"),
            ("{}", '{"user_id":"eve"}', "payload has 'user_id'"),
            ("{}", '{"user\\u005fid":"eve"}', "payload has 'user_id'"),
            ("[]", "{}", "filter must be a JSON object, got array"),
            ("{}", "[]", "payload must be a JSON object")):
        assert message in ada.error("SELECT qdrant_set_payload(?, ?)", f, p)
