# SPDX-License-Identifier: MIT
"""vec_scan finds exactly what ORDER BY distance LIMIT k finds."""
import random
import struct

import pytest


def f32(*values):
    return struct.pack(f"<{len(values)}f", *values)


def filled(db, n=200, d=24, seed=1, table="docs"):
    rnd = random.Random(seed)
    db.run(f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, e BLOB)")
    for i in range(n):
        db.rows(f"INSERT INTO {table} VALUES(?, ?)", i * 3 + 1,
                f32(*[rnd.gauss(0, 1) for _ in range(d)]))
    return f32(*[rnd.gauss(0, 1) for _ in range(d)])


@pytest.mark.parametrize("metric", ["cosine", "l2", "l1", "dot"])
@pytest.mark.parametrize("k", [1, 7, 200, 1000])
def test_it_gives_the_same_rows_as_order_by(db, metric, k):
    q = filled(db)
    want = db.rows(f"SELECT id, vec_distance_{metric}(e, ?1) d FROM docs"
                   " ORDER BY d, id LIMIT ?2", q, k)
    got = db.rows("SELECT rowid, distance, rank FROM"
                  " vec_scan('docs', 'e', ?1, ?2, ?3)", q, k, metric)
    assert [(r, d) for r, d, _ in got] == want
    assert [n for _, _, n in got] == list(range(1, min(k, 200) + 1))


@pytest.mark.parametrize("type", ["float16", "bfloat16", "int8", "bit"])
def test_other_element_types_are_named_or_taken_from_the_query(db, type):
    short = {"float16": "f16", "bfloat16": "bf16"}.get(type, type)
    metric = "hamming" if type == "bit" else "cosine"
    make = {"int8": "vec_quantize_int8(%s, 'unit')",
            "bit": "vec_quantize_binary(%s)"}.get(type, f"vec_{short}(vec_f32(%s))")
    q = filled(db)
    db.run(f"CREATE TABLE small AS SELECT id, {make % 'e'} AS e FROM docs")
    q = db.one(f"SELECT {make % '?1'}", q)
    want = db.rows(f"SELECT rowid, vec_distance_{metric}(vec_{short}(e),"
                   f" vec_{short}(?1)) d FROM small ORDER BY d, rowid LIMIT 9", q)
    assert db.rows("SELECT rowid, distance FROM vec_scan('small', 'e', ?1, 9,"
                   f" '{metric}', ?2)", q, type) == want
    assert db.rows("SELECT rowid, distance FROM vec_scan('small', 'e',"
                   f" vec_{short}(?1), 9)", q) == want


def test_equal_distances_come_in_the_order_of_rowids(db):
    db.run("CREATE TABLE t(e)")
    for _ in range(50):
        db.rows("INSERT INTO t VALUES(vec_f32('[1, 2]'))")
    assert [r for r, in db.rows(
        "SELECT rowid FROM vec_scan('t', 'e', '[2, 1]', 20)")] == list(
        range(1, 21))


def test_null_rows_are_skipped_and_json_rows_are_read(db):
    db.run("CREATE TABLE t(e); INSERT INTO t VALUES(NULL), ('[1, 0]'),"
           " (NULL), (vec_f32('[0, 1]'))")
    assert db.rows("SELECT rowid FROM vec_scan('t', 'e', '[0, 2]', 9)") == [
        (4,), (2,)]


def test_rows_without_a_distance_come_last_with_null(db):
    db.run("CREATE TABLE t(e); INSERT INTO t VALUES('[0, 0]'), ('[1, 0]'),"
           " ('[0, 0]'), ('[0, 1]')")
    assert db.rows("SELECT rowid, distance FROM vec_scan('t','e','[0,2]',3)"
                   ) == [(4, 0.0), (2, 1.0), (1, None)]
    assert db.rows("SELECT rowid FROM vec_scan('t','e','[0,0]',2)") == [
        (1,), (2,)]


def test_a_row_of_another_length_is_named_with_both_lengths(db):
    db.run("CREATE TABLE t(e); INSERT INTO t VALUES('[1,2,3]'), ('[1,2]')")
    assert db.error("SELECT * FROM vec_scan('t','e','[1,2,3]',3)") == (
        "vec_scan: row 2 has 2 dimensions, the query has 3")
    db.run("UPDATE t SET e = x'01020304050607' WHERE rowid=2")
    assert db.error("SELECT * FROM vec_scan('t','e','[1,2,3]',3)") == (
        "vec_scan: row 2 has 7 bytes, which is no float32 vector; state the"
        " type of the column")
    db.run("UPDATE t SET e = 5 WHERE rowid=2")
    assert db.error("SELECT * FROM vec_scan('t','e','[1,2,3]',3)") == (
        "vec_scan: row 2 holds an integer, not a vector")
    db.run("UPDATE t SET e = 'words' WHERE rowid=2")
    assert db.error("SELECT * FROM vec_scan('t','e','[1,2,3]',3)") == (
        "vec_scan: row 2: text is not a JSON array: words")
    db.run("UPDATE t SET e = x'' WHERE rowid=2")
    assert "row 2" in db.error("SELECT * FROM vec_scan('t','e','[1,2,3]',3)")


@pytest.mark.parametrize("sql, message", [
    ("vec_scan('no', 'e', '[1]', 1)", "no table 'no'"),
    ("vec_scan('main.no', 'e', '[1]', 1)", "no table 'main.no'"),
    ("vec_scan('', 'e', '[1]', 1)", "no table ''"),
    ("vec_scan('t', 'no', '[1]', 1)", "table 't' has no column 'no'"),
    ("vec_scan('t', 'rowid', '[1]', 1)", "table 't' has no column 'rowid'"),
    ("vec_scan('v', 'e', '[1]', 1)", "'v' is a view; name the table under it"),
    ("vec_scan('main.v', 'e', '[1]', 1)",
     "'main.v' is a view; name the table under it"),
    ("vec_scan('w', 'e', '[1]', 1)", "table 'w' has no rowid (WITHOUT ROWID)"),
    ("vec_scan('t', 'e', '[1]', 0)", "k must be 1 to 1000000, got 0"),
    ("vec_scan('t', 'e', '[1]', 1000001)",
     "k must be 1 to 1000000, got 1000001"),
    ("vec_scan('t', 'e', '[1]', 'x')", "k must be an integer, got text"),
    ("vec_scan('t', 'e', '[1]', NULL)", "k must be an integer, got null"),
    ("vec_scan(NULL, 'e', '[1]', 1)", "table must be text, got null"),
    ("vec_scan('t', NULL, '[1]', 1)", "column must be text, got null"),
    ("vec_scan('t', 'e', NULL, 1)",
     "query must be a blob or JSON text, got null"),
    ("vec_scan('t', 'e', '[]', 1)",
     "query has no elements; a vector needs at least one"),
    ("vec_scan('t', 'e', x'0102', 1)",
     "query is not a float32 vector: its 2 bytes are no multiple of 4"),
    ("vec_scan('t', 'e', '[1]', 1, 'far')",
     "no metric 'far'; cosine, l2, dot, l1, hamming"),
    ("vec_scan('t', 'e', '[1]', 1, 'l2', 'f8')",
     "no vector type 'f8'; float32, float16, bfloat16, int8, bit"),
    ("vec_scan('t', 'e', '[1]', 1, 'hamming')",
     "no hamming distance between float32 vectors; hamming needs vec_bit(x)"),
    ("vec_scan('t', 'e', vec_bit(x'00'), 1, 'l2')",
     "no l2 distance between bit vectors; bits have hamming"),
])
def test_bad_arguments_are_named(db, sql, message):
    db.run("CREATE TABLE t(e); CREATE VIEW v AS SELECT * FROM t;"
           "CREATE TABLE w(e PRIMARY KEY) WITHOUT ROWID;"
           "INSERT INTO t VALUES('[1]')")
    assert db.error("SELECT * FROM " + sql) == "vec_scan: " + message


def test_names_are_quoted_and_found_in_every_schema(db):
    name, column = 'we"ird.[table]; DROP', "a 'b\" c"
    db.run("ATTACH ':memory:' AS other")
    quoted = name.replace('"', '""')
    db.run(f'CREATE TABLE other."{quoted}"("{column.replace(chr(34), chr(34)*2)}")')
    db.run(f'INSERT INTO other."{quoted}" VALUES(\'[1, 2]\')')
    for spelt in (name, "other." + name):
        assert db.rows("SELECT rowid FROM vec_scan(?, ?, '[1, 2]', 5)",
                       spelt, column) == [(1,)]


def test_the_workspace_schema_comes_first(db):
    db.run("ATTACH ':memory:' AS other; CREATE TABLE t(e);"
           "CREATE TABLE other.t(e); INSERT INTO t VALUES('[1]');"
           "INSERT INTO other.t VALUES('[1]'), ('[2]')")
    count = "SELECT count(*) FROM vec_scan(?, 'e', '[1]', 9)"
    assert db.one(count, "t") == 1
    assert db.one(count, "other.t") == 2
    db.one("SELECT choir_config('schema', 'other')")
    assert db.one(count, "t") == 2
    assert db.one(count, "main.t") == 1


def test_a_user_column_called_rowid_does_not_confuse_it(db):
    db.run("CREATE TABLE t(rowid, e); INSERT INTO t VALUES('mine', '[1, 1]')")
    assert db.rows("SELECT rowid FROM vec_scan('t','e','[1,1]',1)") == [(1,)]
    db.run("CREATE TABLE u(rowid, _rowid_, oid, e)")
    assert db.error("SELECT * FROM vec_scan('u','e','[1,1]',1)") == (
        "vec_scan: table 'u' has no rowid that can be named")


def test_it_joins_and_sees_the_transaction_it_runs_in(db):
    db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name, e);"
           "INSERT INTO t VALUES(5, 'a', '[1, 0]'), (9, 'b', '[0, 1]')")
    db.rows("BEGIN")
    db.rows("INSERT INTO t VALUES(7, 'c', '[1, 1]')")
    sql = ("SELECT t.name FROM vec_scan('t', 'e', '[0, 1]', 2) s"
           " JOIN t ON t.id = s.rowid ORDER BY s.rank")
    assert db.rows(sql) == [("b",), ("c",)]
    db.rows("ROLLBACK")
    assert db.rows(sql) == [("b",), ("a",)]


def test_it_runs_once_per_outer_row(db):
    db.run("CREATE TABLE t(e); INSERT INTO t VALUES('[1, 0]'), ('[0, 1]');"
           "CREATE TABLE q(v); INSERT INTO q VALUES('[0, 2]'), ('[2, 0]')")
    assert db.rows("SELECT q.rowid, s.rowid FROM q,"
                   " vec_scan('t', 'e', q.v, 1) s ORDER BY 1") == [
        (1, 2), (2, 1)]


def test_every_kernel_tier_finds_the_same_rows(db):
    q = filled(db, 150, 40)
    found = []
    for tier in ("scalar", "auto"):
        db.one("SELECT choir_config('vec.kernel', ?)", tier)
        found.append(db.rows("SELECT rowid FROM vec_scan('docs','e',?,25)", q))
    assert found[0] == found[1]


def test_a_large_k_is_sorted(db):
    db.run("CREATE TABLE t(e); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL"
           " SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO t"
           " SELECT vec_f32(json_array(i * 7919 % 20011)) FROM n")
    rows = db.rows("SELECT distance FROM vec_scan('t','e','[0]',15000,'l2')")
    assert len(rows) == 15000 and rows == sorted(rows)


def test_it_is_refused_inside_a_view_or_trigger(db):
    db.run("CREATE TABLE t(e)")
    db.run("CREATE VIEW s AS SELECT * FROM vec_scan('t', 'e', '[1]', 1)")
    assert "unsafe use" in db.error("SELECT * FROM s")
