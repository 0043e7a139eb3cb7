# SPDX-License-Identifier: MIT
"""Two users in one collection, and what keeps them apart.

The server cannot: whoever has the key reads everything. What is tested here is
that nothing that can be said in SQL leads choir there.
"""
import json

import pytest

from fault_server import FaultServer, reply
from qdrant_fixtures import ada, fake, old, server, two, vec  # noqa: F401

ONE = b"\0\0\x80?\0\0\0\0"  # (1, 0)
TENANT = {"key": "user_id", "match": {"value": "ada"}}

# Filters that would let everything through if they were not nested.
HOSTILE = [
    {"should": [{"key": "user_id", "match": {"value": "eve"}}]},
    {"should": [{"key": "user_id", "match": {"value": "eve"}},
                {"key": "user_id", "match": {"value": "ada"}}]},
    {"must_not": [{"key": "user_id", "match": {"value": "ada"}}]},
    {"must_not": [{"must": [{"key": "user_id", "match": {"value": "ada"}}]}]},
    {"min_should": {"conditions": [
        {"key": "user_id", "match": {"value": "eve"}},
        {"is_empty": {"key": "nothing"}}], "min_count": 1}},
    {"must": [{"has_id": [1, 2, 3, 4]}]},
    {"should": [{"is_empty": {"key": "nothing"}}]},
    {"key": "user_id", "match": {"value": "eve"}},
    {"has_id": [2, 4]},
    {"must": []}, {"should": None}, {},
]


@pytest.fixture
def both(ada, two):
    two.put(*[(n, [n, 0], {"user_id": "eve" if n % 2 == 0 else "ada",
                           "artifact_id": f"a{n}", "path": f"/{n}", "n": n})
              for n in range(1, 9)])
    two.index("n", "integer")
    ada.run(f'CREATE VIRTUAL TABLE temp.docs USING qdrant("{two.collection}",'
            " user_id TEXT, path TEXT, artifact_id TEXT)")
    return ada


READS = {  # every function that shows points, with a place for the filter
    "search": "SELECT id FROM qdrant_search(x'0000803f00000000') WHERE k = 9"
              " AND filter = :f",
    "mmr": "SELECT id FROM qdrant_search(x'0000803f00000000') WHERE k = 9"
           " AND mmr = 0.9 AND filter = :f",
    "scroll": "SELECT id FROM qdrant_scroll(NULL, :f)",
    "similar": "SELECT id FROM qdrant_similar('a1') WHERE k = 9"
               " AND filter = :f",
    "groups": "SELECT id FROM qdrant_groups(x'0000803f00000000') WHERE k = 9"
              " AND filter = :f",
    "by payload": "SELECT id FROM qdrant_groups(x'0000803f00000000') WHERE"
                  " group_by = 'user_id' AND k = 9 AND group_size = 9"
                  " AND filter = :f",
    "table": "SELECT id FROM docs WHERE filter = :f",
    "query": "SELECT id FROM docs WHERE query = x'0000803f00000000' AND k = 9"
             " AND filter = :f",
    "by id": "SELECT id FROM docs WHERE id IN (1, 2, 3, 4) AND filter = :f",
    "by user": "SELECT id FROM docs WHERE user_id = 'eve' AND filter = :f",
    "by path": "SELECT id FROM docs WHERE path IN ('/1', '/2')"
               " AND filter = :f",
    "not": "SELECT id FROM docs WHERE user_id <> 'ada' AND filter = :f",
    "fused": "SELECT id FROM qdrant_search(x'0000803f00000000') WHERE k = 9"
             " AND vectors = '{\"\":[0,1]}' AND filter = :f",
    "fused groups": "SELECT id FROM qdrant_groups(x'0000803f00000000') WHERE"
                    " k = 9 AND vectors = '{\"\":[0,1]}' AND filter = :f",
    "each": "SELECT id FROM qdrant_search_each('[[1,0],[0,1]]') WHERE k = 9"
            " AND filter = :f",
    "ordered": "SELECT id FROM qdrant_scroll(NULL, :f, 'n desc')",
    "ordered table": "SELECT id FROM docs WHERE order_by = 'n'"
                     " AND filter = :f",
}


def test_no_filter_and_no_function_shows_another_users_points(both, two):
    for name, sql in READS.items():
        for f in HOSTILE:
            text = json.dumps(f).replace("'", "''")
            try:
                rows = both.rows(sql.replace(":f", f"'{text}'"))
            except both.failure as e:
                assert "status 4" in str(e), (name, f)
                continue
            assert all(r[0] % 2 == 1 for r in rows), (name, f, rows)
    assert both.one("SELECT count(*) FROM docs") == 4
    for f in HOSTILE:
        got = both.rows("SELECT qdrant_count(?)", json.dumps(f)) \
            if f.get("must") != [] else [(0,)]
        assert got[0][0] <= 4, f
    assert both.one("SELECT qdrant_count()") == 4


def test_a_vector_is_numbers_and_no_other_point(both, two):
    """In such a place Qdrant takes an id, or a recommendation of ids."""
    if two.seen is not None:
        two.seen.clear()
    for v in ('2', '"a1"', '{"recommend":{"positive":[2]}}', '[2,"x"]', '[]',
              '{"nearest":2}', '{"indices":[1]}', '{"id":2}', 'null', '[[1,0]]',
              '{"indices":[1],"values":["2"]}', 'true',
              '{"document":{"text":"x","model":"y"}}'):
        assert "vector \"\" must be an array of numbers or an object of" \
            " indices and values, got " + v[:20] in both.error(
                "SELECT id FROM qdrant_search(?) WHERE vectors = ?", ONE,
                f'{{"":{v}}}')
        assert ("must be a text or an array" if v != '"a1"' else
                "takes vectors of 2 dimensions") in both.error(
                    "SELECT * FROM qdrant_search_each(?)", f'[{v}]')
        assert "must be an array of numbers" in both.error(
            "SELECT qdrant_upsert('x', 0, ?, NULL, ?)", ONE, f'{{"v":{v}}}')
    if two.seen is not None:
        assert not [1 for m, p, b in two.seen if b is not None]


def test_facets_are_of_ones_own_points(both, two):
    for field in ("user_id", "path"):
        two.index(field, "keyword")
    assert both.rows("SELECT * FROM qdrant_facet('user_id')") == [("ada", 4)]
    assert both.rows("SELECT value FROM qdrant_facet('path') WHERE filter ="
                     " '{\"should\":[{\"key\":\"user_id\",\"match\":"
                     "{\"value\":\"eve\"}}]}'") == []


def test_similar_does_not_start_from_another_users_artifact(both):
    assert "has no points of artifact 'a2' of user 'ada'" in both.error(
        "SELECT * FROM qdrant_similar('a2')")


def test_every_request_about_points_carries_the_tenant(db, fake):
    fake.make()
    fake.index("user_id", "keyword")
    fake.index("n", "integer")
    ada = fake.tell(db)
    ada.run(f'CREATE VIRTUAL TABLE temp.docs USING qdrant("{fake.collection}",'
            " user_id TEXT, path TEXT, artifact_id TEXT)")
    ada.one("SELECT qdrant_upsert('a1', 0, x'0000803f00000000')")
    fake.seen.clear()
    for sql in READS.values():
        ada.rows(sql.replace(":f", "qdrant_filter('path', '=', '/1')"))
    ada.rows("SELECT * FROM qdrant_facet('user_id')")
    ada.one("SELECT qdrant_count()")
    ada.one("SELECT qdrant_delete('a1')")
    ada.one("SELECT qdrant_upsert('a1', 0, x'0000803f00000000')")
    asked = [(p.split("?")[0].rsplit("/", 1)[1], b) for m, p, b in fake.seen
             if b is not None]
    asked += [("query", one) for _, body in asked
              for one in body.get("searches", ())]
    asked = [a for a in asked if "searches" not in a[1]]
    assert len(asked) >= 22
    for tail, body in asked:
        key = "update_filter" if tail == "points" else "filter"
        assert body[key]["must"][0] == TENANT, (tail, body)
        assert set(body[key]) == {"must"}
        assert "lookup_from" not in body and "with_lookup" not in body
        lists = body.get("prefetch", [])
        assert all(p["filter"]["must"][0] == TENANT for p in lists)
        for query in [p["query"] for p in lists] if lists else [
                body.get("query")]:
            assert query is None or isinstance(
                query["nearest"] if isinstance(query, dict) else query, list)
        assert "points" not in body or tail == "points"  # never a list of ids


def test_another_users_points_are_not_overwritten_or_deleted(both, two):
    """Even when the id is the same: eve made a point of ada's next id."""
    import uuid
    space = uuid.UUID("9a6e3a5e-51c4-5d0c-9a14-5a1dbd4f3c21")
    taken = str(uuid.uuid5(space, "ada\x1fnew\x1f0"))
    two.put((taken, [5, 5], {"user_id": "eve", "artifact_id": "new"}))
    both.one("SELECT qdrant_upsert('new', 0, ?)", ONE)
    both.one("SELECT qdrant_delete(id) FROM (SELECT 'a2' AS id UNION SELECT"
             " 'new' UNION SELECT 'a1')")
    left = two.raw("POST", f"/collections/{two.collection}/points/scroll",
                   {"limit": 50, "with_vector": True})["result"]["points"]
    eves = {p["id"]: p for p in left if p["payload"]["user_id"] == "eve"}
    assert set(eves) == {2, 4, 6, 8, taken}
    assert eves[taken]["vector"] == [5, 5]
    assert len(left) - len(eves) == 3  # ada's, without a1


def test_the_tenant_cannot_be_written(both):
    for payload in ('{"user_id":"eve"}', '{"user\\u005fid":"eve"}',
                    '{"a":1,"user_id":"eve"}', '{"artifact_id":"x"}',
                    '{"chunk":3}', '{"model":"m"}'):
        assert "which choir writes itself" in both.error(
            "SELECT qdrant_upsert('a', 0, ?, ?)", ONE, payload), payload
    assert both.one("SELECT qdrant_count()") == 4


def test_the_user_is_fixed_by_the_first_request(both, two):
    both.one("SELECT qdrant_ping()")
    both.one("SELECT choir_config('user', 'eve')")
    for sql in ("SELECT qdrant_count()", "SELECT * FROM qdrant_scroll()",
                "SELECT * FROM docs", "SELECT qdrant_ping()",
                "SELECT qdrant_delete('a2')",
                "SELECT qdrant_upsert('a', 0, x'0000803f00000000')"):
        assert ("acts for user 'ada' since its first request and the setting"
                " is 'eve' now") in both.error(sql), sql
    both.one("SELECT choir_config('user', 'ada')")
    assert both.one("SELECT qdrant_count()") == 4


@pytest.mark.inprocess
def test_a_user_of_the_environment_cannot_be_changed(open_db, two,
                                                     monkeypatch):
    monkeypatch.setenv("CHOIR_USER", "ada")
    db = open_db(":memory:")
    two.tell(db, user="eve")
    message = db.error("SELECT qdrant_count()")
    assert "the environment fixes user 'ada' and the session says 'eve'" in \
        message
    db.one("SELECT choir_config('user', NULL)")
    assert db.one("SELECT qdrant_count()") == 0


def test_without_a_user_nothing_is_asked(db, fake):
    db.one("SELECT choir_config('qdrant.url', ?)", fake.url)
    for sql in ("SELECT qdrant_count()", "SELECT qdrant_ping()",
                "SELECT * FROM qdrant_scroll()",
                "SELECT * FROM qdrant_collections"):
        assert "no user is set and every point belongs to one" in db.error(sql)
    assert fake.seen == []


def point(user, n=1):
    payload = {} if user is None else {"user_id": user}
    return {"id": n, "version": 1, "score": 0.5,
            "payload": {**payload, "path": "/secret"}, "vector": [1, 0]}


@pytest.mark.parametrize("user", ["eve", None, 5, "Ada", "ada ", "ad\u0061\0"])
def test_a_foreign_row_in_a_reply_shows_nothing(db, user):
    """A server that ignores the filter, or lies."""
    def answer(result):
        return reply(json.dumps({"result": result, "status": "ok"}).encode(),
                     type="application/json")
    with FaultServer() as s:
        path = "/collections/artifacts"
        rows = {"points": [point(user)], "next_page_offset": None}
        s.on(path, answer({"config": {"params": {"vectors": {"size": 2}}}}))
        s.on(path + "/points/query", answer(rows))
        s.on(path + "/points/scroll", answer(rows))
        s.on(path + "/points/query/groups", answer(
            {"groups": [{"id": "g", "hits": [point(user)]}]}))
        db.one("SELECT choir_config('qdrant.url', ?)", s.url(""))
        db.one("SELECT choir_config('user', 'ada')")
        db.run("CREATE VIRTUAL TABLE temp.docs USING qdrant(artifacts, p TEXT)")
        for sql in ("SELECT path FROM qdrant_search(x'0000803f00000000')",
                    "SELECT path FROM qdrant_scroll()",
                    "SELECT id FROM qdrant_similar('a')",
                    "SELECT path FROM qdrant_groups(x'0000803f00000000')",
                    "SELECT count(*) FROM docs"):
            message = db.error(sql)
            assert ("the server sent point 1, which is not of user 'ada';"
                    " nothing of it is shown") in message, sql
            assert "secret" not in message


def test_two_connections_two_users_two_worlds(tmp_path, open_db, server):
    dbs = {u: server.tell(open_db(tmp_path / f"{u}.db", init=True), u)
           for u in ("ada", "eve")}
    dbs["ada"].one("SELECT qdrant_init()")
    for user, db in dbs.items():
        db.one("SELECT artifact_put('/plan.md', ?)", f"the plan of {user}")
        db.one("SELECT qdrant_upsert('same', 0, ?)", f"a note of {user}")
        assert json.loads(db.one("SELECT qdrant_flush()"))["points"] == 1
    for user, db in dbs.items():
        assert sorted(db.rows("SELECT preview FROM qdrant_search('plan note')"
                              " LIMIT 9")) == [(f"a note of {user}",),
                                               (f"the plan of {user}",)]
    dbs["eve"].one("SELECT qdrant_delete('same')")
    dbs["eve"].one("SELECT artifact_delete('/plan.md')")
    dbs["eve"].one("SELECT qdrant_flush()")
    assert dbs["eve"].one("SELECT qdrant_count()") == 0
    assert dbs["ada"].one("SELECT qdrant_count()") == 2


def test_nothing_of_it_runs_from_a_schema(tmp_path, open_db, fake):
    """A view, a trigger, a CHECK or a generated column of a foreign file."""
    path = tmp_path / "hostile.db"
    plain = open_db(path, choir=False)
    plain.run("CREATE TABLE t(x);"
              "CREATE VIEW v1 AS SELECT qdrant_count() AS n;"
              "CREATE VIEW v2 AS SELECT path FROM qdrant_scroll;"
              "CREATE VIEW v3 AS SELECT qdrant_delete(x) FROM t;"
              "CREATE TRIGGER tr AFTER INSERT ON t BEGIN"
              " SELECT qdrant_flush(); END;")
    db = fake.tell(open_db(path))
    for sql in ("SELECT * FROM v1", "SELECT * FROM v2", "SELECT * FROM v3",
                "INSERT INTO t VALUES(1)"):
        assert "unsafe use of" in db.error(sql), sql
    assert fake.seen == []


def test_the_lock_and_the_readonly_entry_leave_nothing(tmp_path, open_db, fake):
    db = fake.tell(open_db(tmp_path / "l.db", init=True))
    db.run("CREATE VIRTUAL TABLE temp.docs USING qdrant(artifacts, p TEXT)")
    db.one("SELECT choir_lock()")
    for sql in ("SELECT qdrant_count()", "SELECT * FROM qdrant_scroll()",
                "SELECT * FROM docs", "SELECT qdrant_flush()",
                "SELECT qdrant_delete('a')"):
        assert "turned off by choir_lock()" in db.error(sql), sql
    ro = open_db(":memory:", entry="sqlite3_choir_readonly_init")
    for name in ("qdrant_count()", "qdrant_flush()", "qdrant_ping()"):
        assert "no such function" in ro.error(f"SELECT {name}")
    assert "no such table" in ro.error("SELECT * FROM qdrant_scroll()")
    assert fake.seen == []
