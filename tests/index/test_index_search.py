# SPDX-License-Identifier: MIT
"""vec_search gives what an exact scan gives, and takes the query's terms."""
import random
import struct

import pytest

SHORT = {"float16": "f16", "bfloat16": "bf16", "int8": "int8"}


def f32(values):
    return struct.pack(f"<{len(values)}f", *values)


def cluster(rnd, d, centres):
    c = rnd.choice(centres)
    return [x + rnd.gauss(0, 0.4) for x in c]


def fill(db, n=300, d=16, seed=1, table="docs", options="{}", extra=""):
    rnd = random.Random(seed)
    centres = [[rnd.gauss(0, 1) for _ in range(d)] for _ in range(12)]
    db.run(f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, e BLOB, lang TEXT,"
           " tag UNIQUE)")
    db.run("BEGIN")
    for i in range(n):
        db.rows(f"INSERT INTO {table} VALUES(?, ?, ?, NULL)", i * 3 + 1,
                f32(cluster(rnd, d, centres)), "de en fr".split()[i % 3])
    db.run("COMMIT")
    db.one("SELECT vec_index_create('near', ?, 'e', ?)", table, options)
    return [f32(cluster(rnd, d, centres)) for _ in range(5)]


def nearest(db, q, k=10, **hidden):
    more = "".join(f" AND {key}={value!r}" for key, value in hidden.items())
    return db.rows("SELECT rowid, distance, rank FROM vec_search('near', ?, ?)"
                   " WHERE 1" + more, q, k)


@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
@pytest.mark.parametrize("mode", ["flat", "lists"])
def test_it_finds_what_an_exact_scan_finds(db, metric, mode):
    n = 3000 if mode == "lists" else 600
    queries = fill(db, n, options=f'{{"metric":"{metric}","mode":"{mode}"}}')
    assert (db.one("SELECT vec_index_info('near') ->> 'mode'")) == mode
    same = 0
    for q in queries:
        want = db.rows(f"SELECT id, vec_distance_{metric}(e, ?1) d FROM docs"
                       " ORDER BY d, id LIMIT 10", q)
        got = nearest(db, q, recall=1.0)
        assert [r[1] for r in got] == sorted(r[1] for r in got)
        assert [r[2] for r in got] == list(range(1, 11))
        assert nearest(db, q, exact=1) == [
            (i, d, n) for n, (i, d) in enumerate(want, 1)]
        same += len({r[0] for r in got} & {r[0] for r in want})
    assert same >= 49


@pytest.mark.once
@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
def test_queries_that_are_no_rows_get_the_recall_they_ask_for(db, metric):
    rnd = random.Random(17)

    def vector():
        x = [rnd.gauss(0, 1.5) for _ in range(6)]
        return f32([a * b + rnd.gauss(0, .3) for a in x for b in (1, .5, x[0])])
    db.run("CREATE TABLE docs(id INTEGER PRIMARY KEY, e BLOB); BEGIN")
    for _ in range(12_000):
        db.rows("INSERT INTO docs(e) VALUES(?)", vector())
    db.run("COMMIT")
    db.one("SELECT vec_index_create('near', 'docs', 'e', ?)",
           f'{{"metric":"{metric}","mode":"lists"}}')
    queries = [vector() for _ in range(60)]
    want = [{r[0] for r in nearest(db, q, exact=1)} for q in queries]
    for recall, hidden in ((.95, {}), (.9, {"recall": .9}),
                           (.99, {"recall": .99}), (1, {"recall": 1.0})):
        same = sum(len(w & {r[0] for r in nearest(db, q, **hidden)})
                   for q, w in zip(queries, want))
        assert same >= recall * 600, (recall, same)
    same = sum(len({r[0] for r in nearest(db, q, 200, exact=1)}
                   & {r[0] for r in nearest(db, q, 200)})
               for q in queries[:20])
    assert same >= .95 * 4000, same
    assert db.one("SELECT vec_index_info('near') ->> 'nprobe'") < 23


@pytest.mark.once
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_near_rows_are_found_though_they_are_thought_to_be_known_well(
        db, metric):
    rnd = random.Random(23)
    centres = [[rnd.gauss(0, 1) for _ in range(40)] for _ in range(50)]

    def vector(spread=.15):
        return f32([x + rnd.gauss(0, spread) for x in rnd.choice(centres)])
    db.run("CREATE TABLE docs(id INTEGER PRIMARY KEY, e BLOB); BEGIN")
    rows = [vector() for _ in range(5000)]
    rows += rows[:100]
    for row in rows:
        db.rows("INSERT INTO docs(e) VALUES(?)", row)
    db.run("COMMIT")
    db.one("SELECT vec_index_create('near', 'docs', 'e', ?)",
           f'{{"metric":"{metric}","mode":"flat"}}')
    same = 0
    for spread in (.02, .15, .4):
        for q in (vector(spread) for _ in range(12)):
            same += len({r[0] for r in nearest(db, q)}
                        & {r[0] for r in nearest(db, q, exact=1)})
    assert same >= .985 * 360, same
    for i in range(0, 100, 9):  # the row itself and its double
        assert {r[0] for r in nearest(db, rows[i], 2)} == {i + 1, i + 5001}


@pytest.mark.once
@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
@pytest.mark.parametrize("clusters", [60, 0])
def test_what_a_connection_keeps_of_a_large_list_changes_no_answer(
        db, metric, clusters):
    """Clusters, where most blocks are ruled out by their heads, or none."""
    rnd, d, n = random.Random(5), 128, 9000
    low = int.from_bytes(bytes([31] * d), "big")
    centres = [int.from_bytes(bytes(rnd.choice([0, 96]) for _ in range(d)),
                              "big") for _ in range(clusters)]

    def vector():
        if not centres:
            return rnd.randbytes(d)
        x = int.from_bytes(rnd.randbytes(d), "big") & low
        return (rnd.choice(centres) + x).to_bytes(d, "big")
    db.run("CREATE TABLE docs(id INTEGER PRIMARY KEY, e BLOB); BEGIN")
    for _ in range(n):
        db.rows("INSERT INTO docs(e) VALUES(?)", vector())
    db.run("COMMIT")
    db.one("SELECT vec_index_create('near', 'docs', 'e', ?)",
           f'{{"metric":"{metric}","mode":"flat","type":"int8"}}')
    queries = [vector() for _ in range(4)]

    def agree():
        for q in queries:
            assert nearest(db, q, recall=1.0) == nearest(db, q, exact=1)
            got = db.rows("SELECT rowid, distance, rank FROM vec_search("
                          "'near', ?, 10) WHERE recall = 1.0 AND rowid IN"
                          " (SELECT id FROM docs WHERE id % 2 = 1)", q)
            want = [r for r in nearest(db, q, 60, exact=1) if r[0] % 2]
            assert [r[:2] for r in got] == [r[:2] for r in want[:10]]
    agree()
    db.rows("UPDATE docs SET e = ? WHERE id % 9 = 4", vector())
    db.run("DELETE FROM docs WHERE id BETWEEN 3000 AND 3100")
    agree()
    db.one("SELECT choir_index()")
    agree()
    db.one("SELECT choir_config('vec.cache_bytes', '600000')")
    db.one("SELECT vec_index_optimize('near')")
    agree()


@pytest.mark.once
@pytest.mark.parametrize("metric,cache", [
    ("cosine", 0), ("l2", 12_000_000), ("dot", 12_000_000),
    ("cosine", 1 << 30)])
def test_a_connection_that_goes_on_searching_stays_exact(db, metric, cache):
    """Finer codes of what was read: none, some (they begin anew), all."""
    d, n = 2048, 4500
    db.run("CREATE TABLE docs(id INTEGER PRIMARY KEY, e BLOB);"
           "WITH i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i <"
           f" {n}) INSERT INTO docs SELECT i, randomblob({d}) FROM i")
    db.one("SELECT vec_index_create('near', 'docs', 'e', ?)",
           f'{{"metric":"{metric}","mode":"flat","type":"int8"}}')
    db.one("SELECT choir_config('vec.cache_bytes', ?)", str(cache))
    queries = [db.one("SELECT randomblob(?)", d) for _ in range(2)]

    def agree(k):
        for q in queries:
            got = nearest(db, q, k, recall=1.0)
            assert got == nearest(db, q, k, exact=1)
    agree(10)
    agree(1000)
    db.run("UPDATE docs SET e = randomblob(2048) WHERE id % 3 = 1;"
           "DELETE FROM docs WHERE id % 50 = 2")
    agree(10)
    db.run("BEGIN; DELETE FROM docs WHERE id % 2 = 1")
    agree(10)
    db.run("ROLLBACK")
    agree(10)
    db.one("SELECT vec_index_optimize('near')")
    agree(10)
    agree(200)


@pytest.mark.parametrize("type", ["float16", "bfloat16", "int8"])
def test_other_types_of_columns(db, type):
    fill(db, 1)
    db.one("SELECT vec_index_drop('near')")
    rnd = random.Random(3)
    make = {"int8": "vec_quantize_int8(?, 'unit')"}.get(
        type, f"vec_{SHORT[type]}(vec_f32(?))")
    db.run("DELETE FROM docs")
    for i in range(200):
        db.rows(f"INSERT INTO docs(id, e) VALUES({i}, {make})",
                f32([rnd.uniform(-.9, .9) for _ in range(20)]))
    db.one("SELECT vec_index_create('near', 'docs', 'e', ?)",
           f'{{"type":"{type}"}}')
    q = db.one("SELECT e FROM docs WHERE id=7")
    got = nearest(db, q, 5)
    assert got == nearest(db, q, 5, exact=1) and got[0][0] == 7
    if type != "int8":  # float32 is taken too
        f = db.one(f"SELECT vec_f32(vec_{SHORT[type]}(?))", q)
        assert nearest(db, f, 5) == got


@pytest.mark.parametrize("d", [2, 3, 63, 64, 65, 1029, 8192])
def test_every_number_of_dimensions(db, d):
    q = fill(db, 40 if d > 1000 else 200, d)[0]
    got = nearest(db, q, 5)
    assert got == nearest(db, q, 5, exact=1)
    assert len(got) == 5


@pytest.mark.parametrize("kernel", ["scalar", "sse2", "v2", "v3", "v4", "vnni"])
def test_every_tier_of_kernels_finds_the_same(db, kernel):
    queries = fill(db, 400, 100)
    want = [nearest(db, q) for q in queries]
    try:
        db.one("SELECT choir_config('vec.kernel', ?)", kernel)
    except db.failure as e:
        assert "is not on this machine" in str(e)
        return
    near = [[(r, round(d, 3)) for r, d, _ in nearest(db, q)] for q in queries]
    assert near == [[(r, round(d, 3)) for r, d, _ in w] for w in want]
    assert db.one("SELECT choir_check() ->> 'ok'") == 1


def test_rows_in_a_list_are_searched_before_k_counts(db):
    queries = fill(db, 3000, options='{"mode":"lists"}')
    for q in queries:
        got = db.rows("SELECT rowid FROM vec_search('near', ?1, 10) WHERE"
                      " rowid IN (SELECT id FROM docs WHERE lang='de')", q)
        want = db.rows("SELECT id FROM docs WHERE lang='de'"
                       " ORDER BY vec_distance_cosine(e, ?1), id LIMIT 10", q)
        assert got == want
    few = db.rows("SELECT rowid FROM vec_search('near', ?, 10)"
                  " WHERE rowid IN (1, 4, 7, 8, 'x', NULL, 10.0)", queries[0])
    assert sorted(few) == [(1,), (4,), (7,), (10,)]
    many = db.rows("SELECT rowid FROM vec_search('near', ?, 2900)"
                   " WHERE rowid IN (SELECT id FROM docs WHERE id > 300)",
                   queries[0])
    assert len(many) == len(set(many)) == 2900


def test_a_plain_rowid_is_not_a_filter_before_k(db):
    q = fill(db)[0]
    far = nearest(db, q, 300)[-1][0]
    assert db.rows("SELECT * FROM vec_search('near', ?, 5) WHERE rowid=?",
                   q, far) == []
    assert len(db.rows("SELECT v.rowid FROM docs d JOIN"
                       " vec_search('near', ?, 7) v ON v.rowid=d.id", q)) == 7


def test_distance_and_limit_are_used(db):
    q = fill(db)[0]
    every = nearest(db, q, 50)
    x = every[20][1]
    for op in ("<=", "<"):
        assert db.rows("SELECT rowid, distance, rank FROM"
                       f" vec_search('near', ?, 50) WHERE distance {op} ?",
                       q, x) == [r for r in every
                                 if r[1] < x or (op == "<=" and r[1] == x)]
    assert db.rows("SELECT rowid FROM vec_search('near', ?) ORDER BY distance"
                   " LIMIT 7", q) == [r[:1] for r in every[:7]]
    assert db.rows("SELECT rowid FROM vec_search('near', ?) ORDER BY rank"
                   " LIMIT 7 OFFSET 5", q) == [r[:1] for r in every[5:12]]
    assert db.rows("SELECT rowid FROM vec_search('near', ?, 9)"
                   " ORDER BY rowid DESC LIMIT 3", q) == sorted(
                       (r[:1] for r in every[:9]), reverse=True)[:3]
    assert db.rows("SELECT rowid FROM vec_search('near', ?, 9)"
                   " WHERE rowid % 2 LIMIT 3", q) == [
                       r[:1] for r in every[:9] if r[0] % 2][:3]
    assert len(db.rows("SELECT rowid FROM vec_search('near', ?)", q)) == 10
    for x, n in ((None, 0), (-1, 0), ("text", 50)):
        assert len(db.rows("SELECT 1 FROM vec_search('near', ?, 50)"
                           " WHERE distance <= ?", q, x)) == n


def test_ctes_joins_and_plans(db):
    q = fill(db)[0]
    want = [r[:2] for r in nearest(db, q, 4)]
    assert db.rows("WITH n AS (SELECT rowid AS id, distance FROM"
                   " vec_search('near', ?, 4)) SELECT docs.id, n.distance"
                   " FROM n JOIN docs USING(id) ORDER BY 2", q) == want
    assert db.rows("SELECT n, v.rowid FROM (SELECT 1 AS n UNION SELECT 2)"
                   " JOIN vec_search('near', ?, n) v ORDER BY n, rank", q) == [
                       (1, want[0][0]), (2, want[0][0]), (2, want[1][0])]
    plan = str(db.rows("EXPLAIN QUERY PLAN SELECT rowid FROM vec_search('near',"
                       " ?, 4) WHERE rowid IN (1, 2) AND distance < 1"
                       " ORDER BY rank", q))
    assert "nearest of rowid IN within a distance" in plan
    assert "TEMP B-TREE" not in plan


def test_partitions(db):
    queries = fill(db, 3000, options='{"partition":"lang","mode":"lists"}')
    for q in queries:
        want = db.rows("SELECT id FROM docs WHERE lang='fr'"
                       " ORDER BY vec_distance_cosine(e, ?1), id LIMIT 10", q)
        got = [r[:1] for r in nearest(db, q, partition="fr", recall=1.0)]
        assert len(set(got) & set(want)) >= 9
    db.run("UPDATE docs SET lang='it' WHERE id < 100")
    for step in ("pending", "absorbed"):
        assert len(nearest(db, queries[0], 100, partition="it")) == 33
        assert not {r[0] for r in nearest(db, queries[0], 2000,
                                          partition="de")} & set(range(100))
        db.one("SELECT vec_index_optimize('near')")
    assert nearest(db, queries[0], partition="none") == []
    assert db.one("SELECT choir_check() ->> 'ok'") == 1
    db.one("SELECT vec_index_drop('near')")
    db.one("SELECT vec_index_create('near', 'docs', 'e')")
    assert "has no partition column" in db.error(
        "SELECT * FROM vec_search('near', ?, 1) WHERE partition='x'",
        queries[0])


def test_vectors_without_a_direction_come_last(db):
    q = fill(db, 20)[0]
    db.rows("INSERT INTO docs(id, e) VALUES(900, ?), (901, ?), (902, NULL)",
            f32([0] * 16), f32([float("nan")] * 16))
    for step in ("pending", "absorbed"):
        got = nearest(db, q, 30)
        assert len(got) == 22
        assert [(r, d) for r, d, _ in got[20:]] == [(900, None), (901, None)]
        db.one("SELECT vec_index_optimize('near')")
    assert len(nearest(db, f32([0] * 16), 3)) == 3
    assert len(nearest(db, f32([float("inf")] * 16), 3)) == 3


def test_vectors_of_any_length(db):
    db.run("CREATE TABLE docs(id INTEGER PRIMARY KEY, e BLOB)")
    rnd = random.Random(5)
    for i in range(300):
        scale = 10.0 ** rnd.uniform(-18, 17)
        db.rows("INSERT INTO docs VALUES(?, ?)", i,
                f32([rnd.gauss(0, scale) for _ in range(8)]))
    q = f32([1.0] * 8)
    for metric in ("l2", "dot", "cosine"):
        db.one("SELECT vec_index_create('near', 'docs', 'e', ?)",
               f'{{"metric":"{metric}"}}')
        assert [r[0] for r in nearest(db, q, 5)][:3] == [
            r[0] for r in nearest(db, q, 5, exact=1)][:3]
        db.one("SELECT vec_index_drop('near')")


def test_many_equal_vectors_and_more_rows_than_there_are(db):
    db.run("CREATE TABLE docs(id INTEGER PRIMARY KEY, e BLOB)")
    db.run("WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 5000)"
           " INSERT INTO docs SELECT i, vec_f32('[1, 2, 3]') FROM n")
    db.one("""SELECT vec_index_create('near', 'docs', 'e', '{"mode":"lists"}')""")
    q = f32([1, 2, 2])
    assert len(nearest(db, q, 6000)) == 5000
    assert len(nearest(db, q, 10)) == 10
    db.one("SELECT vec_index_optimize('near')")
    assert db.one("SELECT vec_index_info('near') ->> 'rows'") == 5000


@pytest.mark.parametrize("sql,message", [
    ("SELECT * FROM vec_search('none', ?, 1)",
     "vec_search: no vector index 'none' in schema main; make it by"
     " vec_index_create"),
    ("SELECT * FROM vec_search('aux.near', ?, 1)",
     "vec_search: no vector index 'aux.near'; make it by vec_index_create"),
    ("SELECT * FROM vec_search('near', '[1]', 1)",
     "vec_search: query has 1 dimensions, index 'near' has 16"),
    ("SELECT * FROM vec_search('near', x'0102', 1)", "query"),
    ("SELECT * FROM vec_search('near', 7, 1)", "query"),
    ("SELECT * FROM vec_search('near', NULL, 1)", "query"),
    ("SELECT * FROM vec_search(NULL, ?, 1)", "name"),
    ("SELECT * FROM vec_search('near', ?, 0)", "k must be"),
    ("SELECT * FROM vec_search('near', ?, 1000001)", "k must be"),
    ("SELECT * FROM vec_search('near', ?, 1) WHERE nprobe=0", "nprobe"),
    ("SELECT * FROM vec_search('near', ?, 1) WHERE recall=1.5", "recall"),
])
def test_what_it_cannot_do_it_says(db, sql, message):
    q = fill(db, 10)[0]
    args = [q] * sql.count("?")
    error = db.error(sql, *args)
    assert error == message or (message in error and ": " in error)


@pytest.mark.parametrize("value,message", [
    (f32([1.0] * 15), "row 999 of 'docs' has 60 bytes, the index 64"
     " (16 dimensions); mend the row"),
    ("[1, 2]", "row 999 of 'docs' holds text, not a vector"),
    (5, "row 999 of 'docs' holds integer, not a vector"),
])
def test_a_row_that_is_no_vector_is_named(db, value, message):
    q = fill(db, 10)[0]
    db.rows("INSERT INTO docs(id, e) VALUES(999, ?)", value)
    assert message in db.error("SELECT * FROM vec_search('near', ?, 1)", q)
    db.run("DELETE FROM docs WHERE id=999")
    assert len(nearest(db, q, 3)) == 3
