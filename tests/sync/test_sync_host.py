# SPDX-License-Identifier: MIT
"""Schemas that need what a program has registered: whatever reads a remote or a
copy has none of it, and needs none of it."""
import pytest

from remote import call, pull, push, put

pytestmark = pytest.mark.inprocess

SCHEMAS = {
    "index": "CREATE TABLE t(x); CREATE INDEX i ON t(x COLLATE german)",
    "column": "CREATE TABLE t(x TEXT COLLATE german UNIQUE)",
    "key": "CREATE TABLE t(x TEXT COLLATE german PRIMARY KEY) WITHOUT ROWID",
    "check": "CREATE TABLE t(x CHECK(twice(x) IS NOT NULL))",
    "expression": "CREATE TABLE t(x); CREATE INDEX i ON t(twice(x))",
    "partial": "CREATE TABLE t(x); CREATE INDEX i ON t(x) WHERE twice(x) > 'b'",
}


def program(d):
    """Registers what the schemas need."""
    d.con.create_collation("german", lambda a, b: (
        a.lower() > b.lower()) - (a.lower() < b.lower()))
    twice = lambda x: x + x  # noqa: E731
    if hasattr(d.con, "create_scalar_function"):  # apsw
        d.con.create_scalar_function("twice", twice, 1, deterministic=True)
    else:
        d.con.create_function("twice", 1, twice, deterministic=True)
    return d


@pytest.fixture
def url(tmp_path):
    (tmp_path / "remote").mkdir()
    return f"file://{tmp_path}/remote/"


@pytest.fixture
def two(tmp_path, open_db, url):
    """two(schema) -> two devices at one version of it."""
    def make(schema):
        a = program(open_db(tmp_path / "a.db", init=True))
        a.run(SCHEMAS[schema] + "; INSERT INTO t VALUES('b'), ('A'), ('C')")
        push(a, url)
        b = program(open_db(tmp_path / "b.db"))
        assert pull(b, url)["pulled"] == 1
        return a, b
    return make


def sound(d, *more):
    assert d.rows("SELECT x FROM t ORDER BY x COLLATE NOCASE") == [
        (x,) for x in ("A", "b", "C", *more)]
    assert d.one("PRAGMA integrity_check") == "ok"


@pytest.mark.parametrize("schema", ["index", "key", "check", "expression"])
def test_it_travels_and_comes_back(tmp_path, open_db, url, two, schema):
    a, b = two(schema)
    put(a, "/a")
    push(a, url)
    assert pull(b, url)["pulled"] == 1
    sound(b)
    told = call(a, "sync_verify(?, 1)", url)
    assert told["ok"] == 1 and told["indexes"] == (schema == "check")
    for sql in ("choir_backup(?)", "sync_restore(2, ?, ?)",
                "sync_push(?)", "sync_pull(?)"):
        copy = tmp_path / (sql.split("(")[0] + ".db")
        if sql == "sync_pull(?)":
            copy = open_db(copy)
            pull(copy, f"file://{tmp_path}/plain.sqlite")
            sound(program(copy))
        elif sql == "sync_push(?)":
            call(a, sql, f"file://{tmp_path}/plain.sqlite")
        else:
            call(a, sql, str(copy), *([url] if "2" in sql else []))
            sound(program(open_db(copy)))


@pytest.mark.parametrize("schema", ["index", "check", "partial"])
def test_a_merge_leaves_alone_what_this_side_did_not_change(url, two, schema):
    a, b = two(schema)
    a.rows("INSERT INTO t(x) VALUES('d')")
    push(a, url)
    put(b, "/b")
    assert pull(b, url, "merge")["merged"] == 1
    sound(b, "d")
    push(b, url)
    assert pull(a, url)["pulled"] == 1
    sound(a, "d")


@pytest.mark.parametrize("schema, lacks", [
    ("key", ""), ("column", "german"), ("check", "twice")])
def test_a_merge_that_would_need_it_says_so_and_changes_nothing(url, two,
                                                                schema, lacks):
    a, b = two(schema)
    put(a, "/a")
    push(a, url)
    b.rows("INSERT INTO t(x) VALUES('mine')")
    message = b.error("SELECT sync_pull(?, 'merge')", url)
    assert ("cannot merge: a table needs what this program adds to SQLite, and"
            " a merge runs without it (") in message and lacks in message
    assert b.one("SELECT count(*) FROM t WHERE x = 'mine'") == 1


def test_an_index_that_does_not_fit_its_table_is_found_by_a_verify(
        tmp_path, open_db, url):
    """A pull takes it as it is: comparing every index takes long."""
    a = open_db(tmp_path / "a.db", init=True)
    a.run("CREATE TABLE t(x, y); CREATE INDEX i ON t(x);"
          "INSERT INTO t VALUES(1, 2), (3, 4)")
    push(a, url)
    assert call(a, "sync_verify(?, 1)", url)["indexes"] == 1
    a.run("PRAGMA writable_schema=ON;"
          "UPDATE sqlite_schema SET sql='CREATE INDEX i ON t(y)'"
          " WHERE name='i'; PRAGMA writable_schema=RESET")
    push(a, url)
    b = open_db(tmp_path / "b.db")
    assert pull(b, url)["pulled"] == 1
    assert "missing from index i" in b.one("PRAGMA integrity_check")
    for d in a, b:
        assert call(d, "sync_verify(?)", url)["ok"] == 1
        message = d.error("SELECT sync_verify(?, 1)", url)
        assert "an index in it does not fit its table: row 1 missing" in message
        assert message.endswith("; run REINDEX in the file that was pushed, and"
                                " push again")
    a.rows("REINDEX")
    push(a, url)
    assert call(a, "sync_verify(?, 1)", url)["indexes"] == 1
    pull(b, url)
    assert b.one("PRAGMA integrity_check") == "ok"
