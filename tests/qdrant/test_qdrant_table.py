# SPDX-License-Identifier: MIT
"""TEMP tables over a collection: what is asked of the server, what SQLite tests.

The push-down may only ever send a superset: thousands of random WHERE clauses
over random payloads must give what the same clause gives over a local table
that holds the same values.
"""
import json
import os
import random

import pytest

from qdrant_fixtures import ada, fake, old, server, two, vec  # noqa: F401

FULL = os.environ.get("CHOIR_QDRANT_FULL") == "1"
DOCS = ("CREATE VIRTUAL TABLE temp.docs USING qdrant({}, t TEXT, n INTEGER,"
        " r REAL, b BOOL, j JSON, \"a.b\" TEXT)")
ONE = b"\0\0\x80?\0\0\0\0"  # (1, 0)


def make(db, server, *payloads):
    server.tell(db)
    server.make()
    for i in range(0, len(payloads), 500):
        server.put(*[(n + 1, [n, 0], {"user_id": "ada", **p}) for n, p in
                     list(enumerate(payloads))[i:i + 500]])
    db.run(DOCS.format(f'"{server.collection}"'))
    return db


def test_columns_read_what_fits_their_type(db, server):
    make(db, server,
         {"t": "x", "n": 1, "r": 1.5, "b": True, "j": {"k": [1]}, "a.b": "p"},
         {"t": 5, "n": "5", "r": True, "b": 1, "j": "s"},
         {"t": None, "n": 5.0, "r": 3, "b": None, "j": None},
         {"t": ["x"], "n": 2**63, "r": [1.5], "b": "true", "j": []},
         {"n": 2**53 + 1, "r": 1e300, "b": False})
    got = db.rows("SELECT t, n, r, b, j, \"a.b\" FROM docs ORDER BY id")
    assert got == [("x", 1, 1.5, 1, '{"k":[1]}', "p"),
                   (None, None, None, None, '"s"', None),
                   (None, 5, 3.0, None, None, None),
                   (None, str(2**63), None, None, "[]", None),
                   (None, 2**53 + 1, 1e300, 0, None, None)] or got[3][1] in (
                       2**63, float(2**63))
    assert db.rows("SELECT id, payload ->> '$.t' FROM docs WHERE id = 1") == [
        (1, "x")]


# What SQL is sent as, and nothing where nothing is.
PUSHED = [
    ("t = 'x'", [{"key": "t", "match": {"value": "x"}}]),
    ("t IN ('x','y')", [{"key": "t", "match": {"any": ["x", "y"]}}]),
    ("t <> 'x'", [{"must_not": [{"key": "t", "match": {"value": "x"}}]}]),
    ("t IS NOT NULL", [{"must_not": [{"is_empty": {"key": "t"}}]}]),
    ("t GLOB 'ab*c'", [{"key": "t", "match": {"prefix": "ab"}}]),
    ("\"a.b\" = 'x'", [{"key": '"a.b"', "match": {"value": "x"}}]),
    ("n = 5", [{"key": "n", "range": {"gte": 5, "lte": 5}}]),
    ("n > 5", [{"key": "n", "range": {"gt": 5}}]),
    ("n <= 5", [{"key": "n", "range": {"lte": 5}}]),
    ("n BETWEEN 2 AND 4", [{"key": "n", "range": {"gte": 2}},
                           {"key": "n", "range": {"lte": 4}}]),
    ("n IN (1, 2)", [{"should": [
        {"key": "n", "range": {"gte": 1, "lte": 1}},
        {"key": "n", "range": {"gte": 2, "lte": 2}}]}]),
    ("n > 9007199254740993", [{"key": "n", "range": {
        "gte": 9007199254740990.0}}]),
    ("r < 2.5", [{"key": "r", "range": {"lt": 2.5}}]),
    ("r <> 2.5", [{"must_not": [{"key": "r", "range": {"gte": 2.5,
                                                       "lte": 2.5}}]}]),
    ("b = 1", [{"key": "b", "match": {"value": True}}]),
    ("b <> 0", [{"must_not": [{"key": "b", "match": {"value": False}}]}]),
    ("id = 7", [{"has_id": [7]}]),
    ("id IN (7, 8)", [{"has_id": [7, 8]}]),
    # kept here
    ("t IS NULL", []), ("t LIKE 'x%'", []), ("t > 'a'", []),
    ("t = 'x' COLLATE NOCASE", []), ("t = 5", []), ("n = 'x'", []),
    ("t GLOB '*x'", []), ("t NOT IN ('x')", []), ("j = '5'", []),
    ("j IS NOT NULL", []), ("b = 5", []), ("n <> 9007199254740993", []),
    ("length(t) = 1", []), ("t IS 'x'", []), ("b IN (0, 1)", []),
]


def test_terms_are_sent_by_the_table(db, fake):
    make(db, fake, {"t": "x", "n": 1})
    for where, want in PUSHED:
        fake.seen.clear()
        db.rows(f"SELECT id FROM docs WHERE {where}")
        bodies = fake.sent("scroll")
        assert len(bodies) == 1, where
        conditions = bodies[0]["filter"]["must"]
        assert conditions[0] == {"key": "user_id", "match": {"value": "ada"}}
        key = lambda c: json.dumps(c, sort_keys=True)  # noqa: E731
        got = sorted(conditions[1:], key=key)
        if "9007199254740993" in where and want:
            assert 9007199254740980.0 < got[0]["range"]["gte"] < 2**53 + 1
        else:
            assert got == sorted(want, key=key), where


def test_a_comparison_with_null_asks_nothing(db, fake):
    make(db, fake, {"t": "x"})
    for where in ("t = NULL", "n > NULL", "t IN (NULL)", "n <> NULL"):
        fake.seen.clear()
        assert db.rows(f"SELECT id FROM docs WHERE {where}") == []
        assert fake.sent("scroll") == [], where


def test_prefixes_wait_for_a_server_that_knows_them(db, old):
    server = old("1.18.3")
    make(db, server, {"t": "abc"})
    assert db.rows("SELECT t FROM docs WHERE t GLOB 'ab*'") == [("abc",)]
    assert len(server.sent("scroll")[0]["filter"]["must"]) == 1


def test_queries_filters_and_joins(db, server):
    make(db, server, *[{"t": f"t{n % 3}", "n": n} for n in range(30)])
    assert db.rows("SELECT n, score, rank FROM docs WHERE query = ? AND t = 't1'"
                   " ORDER BY score DESC LIMIT 2", ONE) == [
        (28, 28.0, 1), (25, 25.0, 2)]
    assert db.rows("SELECT score, rank FROM docs WHERE n = 3") == [(None, None)]
    assert db.one("SELECT count(*) FROM docs WHERE filter ="
                  " qdrant_filter('n', '<', 5)") == 5
    assert db.one("SELECT count(*) FROM docs WHERE query = ? AND k = 7",
                  ONE) == 7
    db.run("CREATE TABLE w(name, n); INSERT INTO w VALUES('a', 3), ('b', 4)")
    assert db.rows("SELECT name, t FROM w JOIN docs USING (n)") == [
        ("a", "t0"), ("b", "t1")]
    assert sorted(db.rows("SELECT n FROM docs WHERE n = 3 OR t = 't1' AND n < 5"
                          )) == [(1,), (3,), (4,)]
    assert db.rows("SELECT t, count(*) FROM docs GROUP BY t ORDER BY t") == [
        ("t0", 10), ("t1", 10), ("t2", 10)]
    assert db.rows("SELECT n FROM docs WHERE t = 't0' UNION ALL SELECT n FROM"
                   " docs WHERE t = 't1' LIMIT 2 OFFSET 10") == [(1,), (4,)]


def test_rows_of_two_arms_of_an_or_are_told_apart(db, server):
    """SQLite may ask for each arm by itself and goes by the rows' ids then."""
    make(db, server, *[{"t": "x" if n < 5 else "y", "n": n} for n in range(10)])
    for where in ("t = 'x' OR t = 'y'", "n < 5 OR n >= 5", "n = 1 OR n = 7",
                  "(t = 'x' AND n = 2) OR (t = 'y' AND n IN (5, 6))"):
        got = db.rows(f"SELECT n FROM docs WHERE {where} ORDER BY n")
        want = db.rows("SELECT n FROM (SELECT payload ->> '$.t' AS t, payload"
                       f" ->> '$.n' AS n FROM docs) WHERE {where} ORDER BY n")
        assert got == want and len(got) >= 2, where
    assert db.one("SELECT count(DISTINCT rowid) FROM docs") == 10


def test_a_query_that_is_not_known_yet_is_no_plan(db, server):
    """Never a scroll in place of a search: SQLite is told that the order of
    the join is impossible, and finds the other one."""
    make(db, server, *[{"n": n} for n in range(5)])
    db.run("CREATE TABLE q(v BLOB, n INTEGER)")
    db.rows("INSERT INTO q VALUES(?, 4)", ONE)
    assert db.rows("SELECT docs.n FROM q CROSS JOIN docs ON docs.query = q.v"
                   " LIMIT 1") == [(4,)]
    assert "'query' is read and not given; if a joined table" in db.error(
        "SELECT docs.n FROM docs CROSS JOIN q ON docs.query = q.v")
    assert db.error("SELECT d.id FROM qdrant_search(x'00') d WHERE d.k = d.id")


def test_a_table_is_temporary_or_it_is_not(db, server):
    make(db, server)
    for schema in ("main.", ""):
        assert "CREATE VIRTUAL TABLE temp.x USING qdrant(...)" in db.error(
            f"CREATE VIRTUAL TABLE {schema}x USING qdrant(c, t TEXT)")
    assert db.rows("SELECT name FROM sqlite_schema WHERE sql LIKE '%qdrant%'") \
        == []
    for name in ("qdrant_search", "qdrant_scroll", "qdrant_similar"):
        db.error(f"CREATE VIRTUAL TABLE temp.x USING {name}(a)")
        db.error(f"CREATE VIRTUAL TABLE main.x USING {name}")
    assert db.error("SELECT * FROM qdrant")
    for args, problem in [
            ("", "needs a collection"), ("c, t", "a column is `name TYPE`"),
            ("c, t BLOB", "a column is `name TYPE`"),
            ("c, id TEXT", "column 'id' is there already"),
            ("c, Score REAL", "column 'score' is there already"),
            ("c, t TEXT, t TEXT", "duplicate column name"),
            ("c" + ", x TEXT" * 60, "takes at most 49 columns, got 60")]:
        assert problem in db.error(
            f"CREATE VIRTUAL TABLE temp.x USING qdrant({args})"), args
    for sql in ("INSERT INTO docs(t) VALUES('x')", "DELETE FROM docs",
                "UPDATE docs SET t = 'x'"):
        assert "may not be modified" in db.error(sql)


# ----------------------------------------------------------------- property

TEXTS = ["", "a", "ab", "abc", "b", "B", "é", "x'y", "50%", "a*"]
NUMBERS = [0, 1, -1, 2, 5, 7, 100, 2**53 - 1, 2**53, 2**53 + 1, 2**62]
REALS = [0.0, 0.5, -1.5, 2.0, 1e10, 1 / 3]


def random_payload(rng):
    p = {}
    odd = [None, [], {}, "s", 3, 2.5, True, ["a", "b"], [1, 2]]
    for key, pool in (("t", TEXTS), ("n", NUMBERS), ("r", REALS),
                      ("b", [True, False])):
        kind = rng.random()
        if kind < 0.7:
            p[key] = rng.choice(pool)
        elif kind < 0.9:
            p[key] = rng.choice(odd)
    return p


def typed(p):
    """What a table with these columns holds of a payload."""
    def number(v, real):
        if isinstance(v, bool) or not isinstance(v, (int, float)):
            return None
        return float(v) if real else int(v) if v == int(v) else v
    t, b = p.get("t"), p.get("b")
    return (t if isinstance(t, str) else None, number(p.get("n"), False),
            number(p.get("r"), True), int(b) if isinstance(b, bool) else None)


def random_term(rng):
    op = rng.choice(["=", "<>", "<", "<=", ">", ">=", "IN", "NOT IN", "NULL",
                     "NOT NULL", "BETWEEN", "GLOB", "LIKE", "IS"])
    col = rng.choice("tnrb")
    pool = {"t": TEXTS, "n": NUMBERS, "r": REALS, "b": [0, 1]}[col]

    def literal():
        v = rng.choice(pool if rng.random() < 0.9 else TEXTS + NUMBERS + REALS)
        return "'" + v.replace("'", "''") + "'" if isinstance(v, str) \
            else repr(v)
    if op in ("IN", "NOT IN"):
        return f"{col} {op} ({', '.join(literal() for _ in range(3))})"
    if op in ("NULL", "NOT NULL"):
        return f"{col} IS {op}"
    if op == "BETWEEN":
        return f"{col} BETWEEN {literal()} AND {literal()}"
    if op in ("GLOB", "LIKE"):
        return f"t {op} '{rng.choice(['a*', 'a%', 'ab?', '*', 'B%', '[ab]*'])}'"
    return f"{col} {op} {literal()}"


def random_where(rng, depth=0):
    if depth > 2 or rng.random() < 0.4:
        return random_term(rng)
    if rng.random() < 0.15:
        return f"NOT ({random_where(rng, depth + 1)})"
    joint = rng.choice([" AND ", " AND ", " OR "])
    return "(" + joint.join(random_where(rng, depth + 1)
                            for _ in range(rng.randint(2, 3))) + ")"


@pytest.mark.once
def test_random_where_clauses_agree_with_sqlite(db, server):
    rng = random.Random(7)
    payloads = [random_payload(rng) for _ in range(300)]
    make(db, server, *payloads)
    db.run("CREATE TABLE local(id INTEGER PRIMARY KEY, t TEXT, n INTEGER,"
           " r REAL, b INTEGER)")
    for n, p in enumerate(payloads):
        db.rows("INSERT INTO local VALUES(?, ?, ?, ?, ?)", n + 1, *typed(p))
    assert db.rows("SELECT id, t, n, r, b FROM docs ORDER BY id") == db.rows(
        "SELECT * FROM local")
    for i in range(1000 if FULL else 60):
        where = random_where(rng)
        sql = "SELECT id FROM {} WHERE " + where + " ORDER BY id"
        assert db.rows(sql.format("docs")) == db.rows(sql.format("local")), where


# A filter in Qdrant's JSON, and the same in SQL over the payload p.
def random_condition(rng, depth=0):
    kind = rng.choice(["match", "match", "any", "range", "empty", "null",
                       "not", "should", "must"])
    col = rng.choice("tnrb")
    at = f"p -> '$.{col}'"
    texts = [x for x in TEXTS if x]
    # an array in the payload matches by any of its elements
    each = (f"EXISTS (SELECT 1 FROM json_each(CASE json_type(p, '$.{col}')"
            f" WHEN 'array' THEN {at} ELSE json_array(json({at})) END) e"
            " WHERE {})")
    if kind == "match":
        pool = {"t": texts, "n": NUMBERS[:7], "r": texts, "b": [True, False]}
        v = rng.choice(pool[col])
        if isinstance(v, bool):
            test = f"e.type = '{str(v).lower()}'"
        elif isinstance(v, int):
            test = f"e.type = 'integer' AND e.value = {v}"
        else:
            test = "e.type = 'text' AND e.value = '" + v.replace(
                "'", "''") + "'"
        return {"key": col, "match": {"value": v}}, each.format(test)
    if kind == "any":
        v = rng.sample(texts, 3)
        return {"key": "t", "match": {"any": v}}, each.replace(
            f"$.{col}", "$.t").format(
            "e.type = 'text' AND e.value IN (" + ", ".join(
                "'" + x.replace("'", "''") + "'" for x in v) + ")")
    if kind == "range":
        op, sql = rng.choice([("gt", ">"), ("gte", ">="), ("lt", "<"),
                              ("lte", "<=")])
        v = rng.choice(NUMBERS[:7] + REALS)
        return {"key": col, "range": {op: v}}, each.format(
            f"e.type IN ('integer', 'real') AND e.value {sql} {v!r}")
    if kind == "empty":
        return {"is_empty": {"key": col}}, (
            f"coalesce(json_type(p, '$.{col}') = 'null', 1)"
            f" OR {at} = '[]'")
    if kind == "null":
        return {"is_null": {"key": col}}, (
            f"coalesce(json_type(p, '$.{col}') = 'null', 0)")
    if depth > 2:
        return random_condition(rng, depth)
    inner = [random_condition(rng, depth + 1) for _ in range(rng.randint(1, 3))]
    what = {"not": "must_not", "should": "should", "must": "must"}[kind]
    joint = " AND " if kind == "must" else " OR "
    sql = "(" + joint.join(f"({s})" for _, s in inner) + ")"
    return ({what: [c for c, _ in inner]},
            f"NOT coalesce({sql}, 0)" if kind == "not" else sql)


@pytest.mark.once
def test_random_filters_agree_with_sqlite_over_the_payloads(db, server):
    rng = random.Random(11)
    payloads = [random_payload(rng) for _ in range(300)]
    make(db, server, *payloads)
    db.run("CREATE TABLE local(id INTEGER PRIMARY KEY, p TEXT)")
    for n, p in enumerate(payloads):
        db.rows("INSERT INTO local VALUES(?, ?)", n + 1, json.dumps(p))
    for i in range(2000 if FULL else 100):
        condition, sql = random_condition(rng)
        filter = json.dumps({"must": [condition]})
        got = db.rows("SELECT id FROM qdrant_scroll(NULL, ?) ORDER BY id",
                      filter)
        assert got == db.rows(f"SELECT id FROM local WHERE {sql} ORDER BY id"), \
            (filter, sql)
