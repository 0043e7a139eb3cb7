# SPDX-License-Identifier: MIT
"""Remote libSQL databases: libsql_query, libsql_batch, tables, copies. The server
is tests/servers/hrana_server.py; with CHOIR_TEST_LIBSQL_URL (and
CHOIR_TEST_LIBSQL_TOKEN) the cases marked for every server run there too."""
import json
import os
import random
import socket
import subprocess
import threading

import pytest

import libsql_client
from fault_server import FaultServer, reply
from hrana_server import HranaServer

URL = os.environ.get("CHOIR_TEST_LIBSQL_URL")  # read before it is taken away
TOKEN = "canary-token-7"
BIG = 9223372036854775807


class Remote:
    """A database at the other side; t() is a table's name of this test's."""

    def __init__(self, db, url, token, server=None):
        self.db, self.url, self.server = db, url, server
        self.mark = f"x{random.getrandbits(48):x}_"
        secret = {"type": "libsql", "url": url, "scope": url}
        if token:
            secret["token"] = token
        db.one("SELECT choir_secret('remote', ?)", json.dumps(secret))

    def t(self, name="t"):
        return self.mark + name

    def query(self, sql, *params):
        return [r[1:] for r in self.db.rows(
            "SELECT row, c0, c1, c2, c3, c4 FROM libsql_query('remote', ?, ?)",
            sql, json.dumps(params))]

    def batch(self, *statements):
        return json.loads(self.db.one("SELECT libsql_batch('remote', ?)",
                                      json.dumps(statements)))

    def sent(self):
        """The statements of the last cursor or batch."""
        path, body = self.server.asked[-1]
        ask = json.loads(body)
        steps = ask["batch"]["steps"] if "batch" in ask else \
            ask["requests"][0]["batch"]["steps"]
        return [s["stmt"]["sql"] for s in steps]


def remote_of(request, db, tmp_path):
    if request.param == "url":
        yield Remote(db, URL, os.environ.get("CHOIR_TEST_LIBSQL_TOKEN"))
        return
    with HranaServer(tmp_path / "remote.db", TOKEN, v3=request.param != "v2",
                     padded=request.param != "v2") as s:
        yield Remote(db, s.url, TOKEN, s)


@pytest.fixture(params=["v3", "v2"] + (["url"] if URL else []))
def remote(request, db, tmp_path):
    """Every kind of server."""
    yield from remote_of(request, db, tmp_path)


@pytest.fixture(params=["v3"])
def v3(request, db, tmp_path):
    yield from remote_of(request, db, tmp_path)


# ----------------------------------------------------------------------- query

def test_values_come_and_go_as_they_are(remote):
    t = remote.t()
    remote.batch(f"CREATE TABLE {t}(a)")
    for v in (None, 0, -1, BIG, -BIG - 1, 1.5, -0.1, 1e300, "", "x", "ä日本😀",
              "quote ' \" \\ \n\t", "\\u0000", "{\"a\":1}"):
        (got,), = [r[:1] for r in remote.query("SELECT ?", v)]
        assert got == v and type(got) is type(v), v
    for blob in (b"", b"\0", b"\xff\xfe", bytes(range(256))):
        import base64
        (got,), = [r[:1] for r in remote.query(
            "SELECT ?", {"base64": base64.b64encode(blob).decode()})]
        assert got == blob
    assert remote.query("SELECT 2 + 2, 'x'")[0][:2] == (4, "x")


def test_rows_are_numbered_and_data_has_every_column(remote):
    db = remote.db
    rows = db.rows("SELECT row, data, c1 FROM libsql_query('remote', 'SELECT 1"
                   " AS a, ''b'' AS \"b c\" UNION ALL SELECT 2, NULL')")
    assert [r[0] for r in rows] == [1, 2]
    assert [json.loads(r[1]) for r in rows] == [
        {"a": 1, "b c": "b"}, {"a": 2, "b c": None}]
    wide = ", ".join(f"{i} AS k{i}" for i in range(40))
    (data, last), = db.rows("SELECT data, c15 FROM libsql_query('remote', ?)",
                            "SELECT " + wide)
    assert json.loads(data)["k39"] == 39 and last == 15
    assert json.loads(db.one("SELECT data FROM libsql_query('remote',"
                             " 'SELECT x''0001'' AS b')")) == {
        "b": {"base64": "AAE=" if remote.server is None or
              remote.server.padded else "AAE"}}


def test_named_parameters(remote):
    assert remote.db.rows(
        "SELECT c0, c1 FROM libsql_query('remote', 'SELECT :a, :b', ?)",
        '{"a":1,"b":"two"}') == [(1, "two")]


def test_statements_that_write_and_return(remote):
    t = remote.t()
    remote.batch(f"CREATE TABLE {t}(id INTEGER PRIMARY KEY, a)")
    assert remote.query(f"INSERT INTO {t}(a) VALUES('x')") == []
    assert remote.query(f"INSERT INTO {t}(a) VALUES('y') RETURNING id")[0][0] \
        == 2
    assert remote.query(f"SELECT count(*) FROM {t}")[0][0] == 2


def test_an_error_has_the_server_s_words_and_code(remote):
    message = remote.db.error("SELECT * FROM libsql_query('remote', 'SELEC 1')")
    assert message.startswith("libsql_query: ") and "syntax error" in message
    message = remote.db.error(
        "SELECT * FROM libsql_query('remote', 'SELECT * FROM no_such_t')")
    assert "no such table" in message and "(SQLITE" in message
    assert TOKEN not in message


def test_text_with_a_nul_is_refused_not_cut(v3):
    assert "the character NUL" in v3.db.error(
        "SELECT c0 FROM libsql_query('remote', 'SELECT ''a'' || char(0)')")


def test_many_rows_are_read_at_the_query_s_pace(v3):
    sql = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
           " LIMIT 20000) SELECT i, 'row ' || i FROM n")
    assert v3.db.rows("SELECT count(*), sum(c0), max(row)"
                      " FROM libsql_query('remote', ?)", sql) == [
        (20000, 200010000, 20000)]
    endless = sql.replace(" LIMIT 20000", "")
    assert v3.db.rows("SELECT c0 FROM libsql_query('remote', ?) LIMIT 3",
                      endless) == [(1,), (2,), (3,)]


def test_two_at_once_in_one_join(remote):
    assert remote.db.rows(
        "SELECT a.c0, b.c0 FROM libsql_query('remote', 'SELECT 1 UNION ALL"
        " SELECT 2') AS a, libsql_query('remote', 'SELECT ?', json_array(a.c0))"
        " AS b") == [(1, 1), (2, 2)]


# ----------------------------------------------------------------------- batch

def test_a_batch_is_all_or_nothing(remote):
    t = remote.t()
    got = remote.batch(
        f"CREATE TABLE {t}(id INTEGER PRIMARY KEY, a UNIQUE)",
        [f"INSERT INTO {t}(a) VALUES(?)", ["x"]],
        {"sql": f"INSERT INTO {t}(a) VALUES(:v) RETURNING id, a",
         "args": {"v": "y"}}, f"SELECT count(*) FROM {t}")
    assert got[1]["affected"] == 1 and got[1]["last_insert_rowid"] == 1
    assert got[2]["rows"] == [[2, "y"]] and got[3]["rows"] == [[2]]
    message = remote.db.error("SELECT libsql_batch('remote', ?)", json.dumps([
        f"DELETE FROM {t}", f"INSERT INTO {t}(a) VALUES('z')",
        f"INSERT INTO {t}(a) VALUES('z')"]))
    assert message.startswith("libsql_batch: statement 3: UNIQUE")
    assert remote.query(f"SELECT group_concat(a) FROM {t}")[0][0] == "x,y"
    assert remote.batch() == []


@pytest.mark.parametrize("statements, problem", [
    ('["BEGIN"]', "statement 1 begins or ends"),
    ('["SELECT 1", " /* x */ -- y\\n commit"]', "statement 2 begins or ends"),
    ('["END"]', "begins or ends"), ('["rollback to x"]', "begins or ends"),
    ('[7]', "number 1 is none"), ('{"a":1}', "must be a JSON array"),
    ('"SELECT 1"', "must be a JSON array"), ('[[]]', "number 1 is none"),
    ('[["SELECT ?", [[1]]]]', "parameter 1 is a JSON array"),
    ('[', "not valid JSON")])
def test_bad_batches_are_named(db, statements, problem):
    assert problem in db.error(
        "SELECT libsql_batch('http://127.0.0.1:1', ?)", statements)


def test_begin_in_a_name_is_no_transaction(v3):
    v3.batch("CREATE TABLE endings(a)", "SELECT 1 AS begin_x")


# ---------------------------------------------------------------------- tables

@pytest.fixture
def notes(remote):
    """(remote, a table here for a table of five rows there)"""
    t = remote.t()
    remote.batch(f"CREATE TABLE {t}(id INTEGER PRIMARY KEY, a TEXT, b, c"
                 f" DEFAULT 'given', d AS (a || '!'))",
                 f"INSERT INTO {t}(id, a, b) VALUES(1, 'one', 1), (2, 'two',"
                 f" NULL), (3, 'THREE', x'03'), (40, 'forty', 4.5),"
                 f" ({BIG}, 'big', {BIG})")
    remote.db.run(f"CREATE VIRTUAL TABLE temp.notes USING libsql(remote, {t})")
    return remote


def test_a_remote_table_reads_as_a_table(notes):
    db = notes.db
    assert db.rows("SELECT id, a, b, c, d FROM notes WHERE id < 40") == [
        (1, "one", 1, "given", "one!"), (2, "two", None, "given", "two!"),
        (3, "THREE", b"\3", "given", "THREE!")]
    assert db.one("SELECT b FROM notes WHERE rowid = ?", BIG) == BIG
    db.run("CREATE TABLE local(x); INSERT INTO local VALUES('two'), ('none')")
    assert db.rows("SELECT x, id FROM local LEFT JOIN notes ON a = x") == [
        ("two", 2), ("none", None)]


WHERE = [
    "id = 2", "id = 2.0", "id = '2'", "id = 'x'", "id = NULL", "id IS NULL",
    "b IS NULL", "b IS NOT NULL", "a = 'one'", "a = 'ONE'", "a > 'o'",
    "a < 'o'", "a >= 'one' AND a <= 'two'", "id IN (1, 3, 99)", "a IN ('two')",
    "a IN (SELECT 'one')", "id IN (1, NULL)", "id NOT IN (1, 2)", "id <> 1",
    "b = 1", "b = x'03'", "b IS 1", "b IS NOT 1", "a LIKE 't%'", "a GLOB 't*'",
    "length(a) = 3", "id > 1 AND length(a) = 3", "id = 1 OR id = 3", "rowid > 2",
    "a COLLATE NOCASE = 'three'", "id BETWEEN 2 AND 40", "b > 1", "c = 'given'",
    "(id, a) = (1, 'one')", "id = 1 AND id = 2", "d = 'two!'"]


@pytest.mark.parametrize("tail", [
    "", " LIMIT 2", " ORDER BY id DESC", " ORDER BY id LIMIT 2 OFFSET 1",
    " ORDER BY a LIMIT 2", " ORDER BY a COLLATE NOCASE DESC"])
def test_what_is_pushed_down_changes_no_result(push, tail):
    db, columns = push[0], "SELECT id, a, b, c, d FROM "
    for where in WHERE:
        want = db.rows(f"{columns} main.same WHERE {where}{tail}")
        got = db.rows(f"{columns} temp.notes WHERE {where}{tail}")
        if tail == " LIMIT 2":  # any two
            every = db.rows(f"{columns} main.same WHERE {where}")
            assert len(got) == len(want) and set(got) <= set(every), where
        elif tail == "":
            assert sorted(got, key=repr) == sorted(want, key=repr), where
        else:
            assert got == want, where


@pytest.fixture
def push(v3, db):
    """(db, name): the same five rows here (main.same) and there."""
    make = ("(id INTEGER PRIMARY KEY, a TEXT, b, c DEFAULT 'given', d TEXT"
            " COLLATE NOCASE)")
    rows = (f" VALUES(1, 'one', 1, 'given', 'One!'), (2, 'two', NULL, NULL,"
            f" 'two!'), (3, 'THREE', x'03', 3, NULL), (40, 'forty', 4.5,"
            f" 'given', 'TWO!'), ({BIG}, 'big', {BIG}, 'x', '')")
    v3.batch("CREATE TABLE same" + make.replace(" COLLATE NOCASE", ""),
             "INSERT INTO same" + rows)
    db.run("CREATE TABLE main.same" + make.replace(" COLLATE NOCASE", "")
           + "; INSERT INTO main.same" + rows)
    db.run("CREATE VIRTUAL TABLE temp.notes USING libsql(remote, same)")
    return db, "notes"


def test_the_work_is_done_there(v3, push):
    db, _ = push
    db.rows("SELECT a FROM notes WHERE id IN (1, 2) AND a > 'a'"
            " ORDER BY id DESC LIMIT 1")
    cursors = [b for p, b in v3.server.asked if p.endswith("cursor")]
    assert json.loads(cursors[-1])["batch"]["steps"][0]["stmt"]["sql"] == (
        'SELECT rowid, "id", "a", NULL, NULL, NULL FROM "same" WHERE "id"'
        ' COLLATE BINARY IN (?,?) AND "a" COLLATE BINARY > ? ORDER BY "id" DESC'
        ' LIMIT ?')


def test_a_collation_of_the_other_side_changes_no_range(v3, db):
    v3.batch("CREATE TABLE n(k TEXT COLLATE NOCASE PRIMARY KEY, v)",
             "INSERT INTO n VALUES('a', 1), ('B', 2), ('c', 3)")
    db.run("CREATE VIRTUAL TABLE temp.n USING libsql(remote, n)")
    assert db.rows("SELECT k FROM n WHERE k > 'B' ORDER BY k") == [
        ("a",), ("c",)]
    assert db.rows("SELECT k FROM n WHERE k = 'b'") == []


def test_rows_are_written_in_one_transaction(notes):
    db = notes.db
    db.run("INSERT INTO notes(id, a) VALUES(5, 'five'), (6, 'six')")
    assert db.rows("SELECT id, a, c FROM notes WHERE id IN (5, 6)") == [
        (5, "five", "given"), (6, "six", "given")]
    db.run("UPDATE notes SET a = upper(a), b = id WHERE id IN (5, 6)")
    db.run("DELETE FROM notes WHERE id = 6 OR id = 1")
    assert db.rows("SELECT id, a, b FROM notes WHERE id < 7 ORDER BY id") == [
        (2, "two", None), (3, "THREE", b"\3"), (5, "FIVE", 5)]
    db.run("INSERT OR REPLACE INTO notes(id, a) VALUES(5, 'new')")
    db.run("INSERT OR IGNORE INTO notes(id, a) VALUES(5, 'newer')")
    assert db.one("SELECT a FROM notes WHERE id = 5") == "new"
    db.run("UPDATE notes SET id = 50 WHERE id = 5")
    assert db.one("SELECT a FROM notes WHERE id = 50") == "new"
    message = db.error("INSERT INTO notes(id, a) VALUES(7, 'seven'), (50, 'x')")
    assert "statement 2: UNIQUE constraint failed" in message
    assert db.one("SELECT count(*) FROM notes WHERE id = 7") == 0


def test_rollback_and_savepoints_hold(notes):
    db = notes.db
    db.run("BEGIN; INSERT INTO notes(id, a) VALUES(5, 'five'); ROLLBACK")
    assert db.one("SELECT count(*) FROM notes WHERE id = 5") == 0
    db.run("BEGIN; INSERT INTO notes(id, a) VALUES(5, 'five');"
           "SAVEPOINT s; INSERT INTO notes(id, a) VALUES(6, 'six');"
           "ROLLBACK TO s; INSERT INTO notes(id, a) VALUES(7, 'seven'); COMMIT")
    assert db.rows("SELECT id FROM notes WHERE id BETWEEN 5 AND 8") == [
        (5,), (7,)]
    db.run("BEGIN; INSERT INTO notes(id, a) VALUES(8, 'eight')")
    db.error("INSERT INTO notes(id, a) SELECT 9, 'nine' UNION ALL"
             " SELECT 10, abs(-9223372036854775808)")  # fails at its 2nd row
    db.run("COMMIT")
    assert db.rows("SELECT id FROM notes WHERE id BETWEEN 8 AND 10") == [(8,)]
    db.run("BEGIN; INSERT INTO notes(id, a) VALUES(11, 'seen')")
    assert db.one("SELECT a FROM notes WHERE id = 11") == "seen"
    db.run("COMMIT")


def test_tables_without_a_rowid_and_views_take_no_update(remote):
    db, t, v = remote.db, remote.t("w"), remote.t("v")
    remote.batch(f"CREATE TABLE {t}(k TEXT PRIMARY KEY, v) WITHOUT ROWID",
                 f"CREATE VIEW {v} AS SELECT k, v FROM {t}")
    db.run(f"CREATE VIRTUAL TABLE temp.w USING libsql(remote, {t})")
    db.run(f"CREATE VIRTUAL TABLE temp.v USING libsql(remote, {v})")
    db.run("INSERT INTO w VALUES('a', 1), ('b', 2)")
    assert db.rows("SELECT k FROM v WHERE v = 2") == [("b",)]
    assert "has no rowid" in db.error("UPDATE w SET v = 3")
    assert "has no rowid" in db.error("DELETE FROM v")


def test_awkward_names_are_quoted(v3, db):
    v3.batch('CREATE TABLE "sel\'ect ""x"" ?"("or""der" INTEGER, "rowid" TEXT,'
             ' "?1" TEXT)')
    db.run("CREATE VIRTUAL TABLE temp.odd USING"
           " libsql(remote, 'sel''ect \"x\" ?')")
    db.run("INSERT INTO odd VALUES(1, 'a', 'b')")
    assert db.rows('SELECT "or""der", "rowid", "?1" FROM odd WHERE "?1" = \'b\''
                   ' AND "or""der" > 0') == [(1, "a", "b")]


@pytest.mark.parametrize("sql, problem", [
    ("CREATE VIRTUAL TABLE main.x USING libsql(remote, t)",
     "cannot be a table of schema main"),
    ("CREATE VIRTUAL TABLE temp.x USING libsql(remote, none)",
     "the database has no table 'none'"),
    ("CREATE VIRTUAL TABLE temp.x USING libsql", "takes (url, table)"),
    ("CREATE VIRTUAL TABLE temp.x USING libsql(a, b, c)", "takes (url, table)"),
    ("CREATE VIRTUAL TABLE temp.x USING libsql(nowhere, t)", "is no database"),
    ("CREATE VIRTUAL TABLE temp.x USING"
     " libsql('http://me:canary@h/', t)", "credentials"),
    ("SELECT * FROM libsql", "no such table")])
def test_bad_tables_are_named(v3, db, sql, problem):
    message = db.error(sql)
    assert problem in message and "canary" not in message


# ---------------------------------------------------------------------- copies

def test_a_table_is_pulled_and_pushed_by_its_key(remote):
    db, t, u = remote.db, remote.t(), remote.t("u")
    remote.batch(f"CREATE TABLE {t}(id INTEGER PRIMARY KEY, a TEXT, b)",
                 f"INSERT INTO {t} VALUES(1, 'one', 1.5), (2, 'two', x'00'),"
                 f" ({BIG}, NULL, {BIG})")
    db.run("CREATE TABLE pragma_table_xinfo(x)")  # takes no place of SQLite's
    pull = "SELECT libsql_pull('remote', ?, 'copy')"
    assert json.loads(db.one(pull, t)) == {"rows": 3, "changed": 3}
    assert json.loads(db.one(pull, t)) == {"rows": 3, "changed": 0}
    assert db.rows("SELECT * FROM copy") == [
        (1, "one", 1.5), (2, "two", b"\0"), (BIG, None, BIG)]
    remote.batch(f"UPDATE {t} SET a = 'TWO' WHERE id = 2",
                 f"DELETE FROM {t} WHERE id = 1")
    db.run("INSERT INTO copy VALUES(7, 'mine', NULL)")
    assert json.loads(db.one(pull, t)) == {"rows": 2, "changed": 1}
    assert db.rows("SELECT id, a FROM copy") == [
        (1, "one"), (2, "TWO"), (7, "mine"), (BIG, None)]
    push = "SELECT libsql_push('remote', 'copy', ?)"
    assert json.loads(db.one(push, u)) == {"rows": 4, "changed": 4}
    assert json.loads(db.one(push, u))["rows"] == 4
    assert remote.query(f"SELECT id, a FROM {u} WHERE id = 7")[0][:2] == (
        7, "mine")
    assert remote.query(f"SELECT count(*) FROM {u}")[0][0] == 4


def test_many_rows_and_compound_keys_are_pushed(v3, db):
    db.run("CREATE TABLE m(a TEXT, b INTEGER, c, PRIMARY KEY(b, a));"
           "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
           " LIMIT 1200) INSERT INTO m SELECT 'k' || (i % 7), i, i * 2 FROM n")
    assert json.loads(db.one("SELECT libsql_push('remote', 'm', 'm')")) == {
        "rows": 1200, "changed": 1200}
    db.run("DELETE FROM m WHERE b > 10")
    assert json.loads(db.one("SELECT libsql_pull('remote', 'm', 'm')")) == {
        "rows": 1200, "changed": 1190}
    assert db.rows("SELECT count(*), sum(c) FROM m") == [(1200, 1441200)]


def test_a_failed_pull_changes_nothing(v3, db):
    v3.batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a)",
             "INSERT INTO t VALUES(1, 'ok'), (2, NULL)", "CREATE TABLE k(a)")
    db.run("CREATE TABLE here(id INTEGER PRIMARY KEY, a NOT NULL)")
    assert "NOT NULL constraint failed" in db.error(
        "SELECT libsql_pull('remote', 't', 'here')")
    assert db.rows("SELECT * FROM here") == []
    for sql, problem in (
            ("libsql_pull('remote', 'none', 'x')", "there is no table 'none'"),
            ("libsql_pull('remote', 'k', 'x')", "has no primary key"),
            ("libsql_push('remote', 'none', 'x')", "there is no table 'none'"),
            ("libsql_pull('remote', NULL, 'x')", "remote_table must be text"),
            ("libsql_push('remote', 1, 'x')", "local_table must be text")):
        assert problem in db.error("SELECT " + sql)


# ------------------------------------------------------- where and who, streams

@pytest.mark.inprocess
@pytest.mark.parametrize("url_name, token_name", [
    ("LIBSQL_URL", "LIBSQL_AUTH_TOKEN"),
    ("TURSO_CONNECTION_URL", "TURSO_AUTH_TOKEN")])
def test_the_seeds_environment_names_the_database(v3, db, monkeypatch,
                                                  url_name, token_name):
    db.one("SELECT choir_secret('remote', NULL)")
    monkeypatch.setenv(url_name, v3.url)
    monkeypatch.setenv(token_name, TOKEN)
    assert db.one("SELECT c0 FROM libsql_query(NULL, 'SELECT 7')") == 7
    assert json.loads(db.one("SELECT libsql_batch(NULL, '[\"SELECT 7\"]')"))[
        0]["rows"] == [[7]]
    with HranaServer(v3.server.path) as other:  # not the token's database
        db.one("SELECT c0 FROM libsql_query(?, 'SELECT 7')", other.url)
    assert TOKEN not in str(db.rows("SELECT * FROM choir_settings"))


def test_a_wrong_token_is_said_without_it(v3, db):
    db.one("SELECT choir_secret('remote', ?)", json.dumps(
        {"type": "libsql", "url": v3.url, "scope": v3.url,
         "token": "wrong-canary"}))
    for sql in ("SELECT * FROM libsql_query('remote', 'SELECT 1')",
                "SELECT libsql_batch('remote', '[\"SELECT 1\"]')"):
        message = db.error(sql)
        assert "status 401: the token is wrong" in message
        assert "canary" not in message


@pytest.mark.parametrize("url, problem", [
    ("ftp://host/", "is no database"), ("", "no database; name its URL"),
    ("libsql://me:canary@host/", "credential"), ("http://", ""),
    ("libsql://host/?authToken=canary", "a query in the URL is refused"),
    ("no-such-name", "is no database"), ("http://127.0.0.1:1", "")])
def test_bad_urls_are_named(db, url, problem):
    db.one("SELECT choir_config('http.attempts', 1)")
    message = db.error("SELECT * FROM libsql_query(?, 'SELECT 1')", url)
    assert message.startswith("libsql_query: ") and problem in message
    assert "canary" not in message


def test_streams_are_closed_and_follow_base_url(v3, tmp_path):
    server = v3.server
    with HranaServer(server.path, TOKEN, streams=server.streams) as second:
        server.base_url = second.url
        v3.query("SELECT 1")
        assert [p for p, _ in second.asked] == ["/v3/pipeline"]
        assert json.loads(second.asked[0][1])["requests"] == [
            {"type": "close"}]
    server.base_url = None
    v3.db.rows("SELECT c0 FROM libsql_query('remote', 'SELECT 1') LIMIT 1")
    v3.db.error("SELECT c0 FROM libsql_query('remote', 'SELEC')")
    v3.batch("SELECT 1")
    assert server.streams == {}


def test_a_lock_and_the_read_only_entry_end_it(v3, open_db, tmp_path):
    db = v3.db
    db.run("CREATE VIRTUAL TABLE temp.s USING libsql(remote, sqlite_schema)")
    db.one("SELECT choir_lock()")
    for sql in ("SELECT * FROM libsql_query('remote', 'SELECT 1')",
                "SELECT libsql_batch('remote', '[]')", "SELECT * FROM s",
                "SELECT libsql_pull('remote', 'a', 'b')",
                "CREATE VIRTUAL TABLE temp.z USING libsql(remote, t)"):
        assert "locked" in db.error(sql), sql
    ro = open_db(tmp_path / "ro.db", entry="sqlite3_choir_readonly_init")
    assert "no such" in ro.error("SELECT libsql_batch('x', '[]')")
    assert "no such" in ro.error("SELECT * FROM libsql_query('x', 'y')")


def test_a_view_of_the_file_cannot_call_it(db):
    db.run("CREATE VIEW v AS SELECT c0 FROM libsql_query('http://127.0.0.1:1',"
           " 'SELECT 1')")
    assert "unsafe use" in db.error("SELECT * FROM v")
    db.run("CREATE VIEW w AS SELECT libsql_batch('http://127.0.0.1:1', '[]')")
    assert "unsafe use" in db.error("SELECT * FROM w")


# ----------------------------------------------------------- replies gone wrong

ROW = '{"type":"row","row":[{"type":"integer","value":"1"}]}'
GOOD = ['{"baton":null,"base_url":null}',
        '{"type":"step_begin","step":0,"cols":[{"name":"a","decltype":null}]}',
        ROW, '{"type":"step_end","affected_row_count":0,'
        '"last_insert_rowid":null}']


def answer(text):
    return reply(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize("text, problem", [
    ("", "empty reply"), ("\n\n\n", ""), ("not json", "JSON"),
    ("[" * 100_000, ""), ("null", ""), ("{}\n{}\n", "no type"),
    (GOOD[0] + "\n" + '{"type":"error","error":{"message":"m","code":"C"}}',
     "m (C)"), (GOOD[0] + '\n{"type":"step_error"}', "no reason"),
    (GOOD[0] + '\n{"type":"row","row":7}', "no array of values"),
    (GOOD[0] + '\n{"type":"row"}', "without values"),
    (GOOD[0] + '\n{"type":"row","row":[7]}', "no array of values"),
    (GOOD[0] + '\n{"type":"row","row":[{}]}', "no Hrana value"),
    (GOOD[0] + '\n{"type":"row","row":[{"type":"integer"}]}', ""),
    (GOOD[0] + '\n{"type":"row","row":[{"type":"integer","value":"x"}]}',
     "no Hrana value"),
    (GOOD[0] + '\n{"type":"row","row":[{"type":"text"}]}', "no Hrana value"),
    (GOOD[0] + '\n{"type":"row","row":[{"type":"blob","base64":"*"}]}',
     "no base64"),
    (GOOD[0] + '\n{"type":"row","row":[{"type":"date","value":"1"}]}',
     "no Hrana value"), (b"\xff\xfe\x00" * 100, ""),
    ('{"baton":null,"base_url":"ftp://x"}\n', "no database")])
def test_replies_that_are_no_hrana_are_errors(db, text, problem):
    with FaultServer() as s:
        s.on("/v3/cursor", answer(text))
        s.on("/v3/pipeline", answer(text))
        try:
            rows = db.rows("SELECT c0 FROM libsql_query(?, 'SELECT 1')",
                           s.url(""))
            assert rows in ([], [(None,)], [(0,)]) and not problem, rows
        except db.failure as e:
            assert "libsql_query: " in str(e) and problem in str(e)
        try:
            db.one("SELECT libsql_batch(?, '[\"SELECT 1\"]')", s.url(""))
            raise AssertionError("no error")
        except db.failure as e:
            assert "libsql_batch: " in str(e)


def test_a_reply_that_is_cut_short_is_an_error(db):
    whole = "\n".join(GOOD).encode()

    def cut(sock, request):
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
                     % (len(whole) + 50) + whole)
        sock.shutdown(socket.SHUT_RDWR)
    with FaultServer() as s:
        s.on("/v3/cursor", cut)
        assert db.error("SELECT c0 FROM libsql_query(?, 'SELECT 1')",
                        s.url("")).startswith("libsql_query: ")
        assert len(s.seen) == 1  # never sent twice


@pytest.mark.once
def test_mutated_replies_crash_nothing(db):
    """Bytes of good replies flipped, dropped, doubled; seeded."""
    good = "\n".join(GOOD).encode()
    dice = random.Random(8)
    current = {"reply": b""}

    def spoilt(sock, request):
        return answer(current["reply"])(sock, request)
    with FaultServer() as s:
        for path in ("/v3/cursor", "/v3/pipeline"):
            s.on(path, spoilt)
        for _ in range(5000):
            a = bytearray(good)
            for _ in range(dice.randint(1, 4)):
                i = dice.randrange(len(a))
                what = dice.random()
                if what < 0.5:
                    a[i] = dice.randrange(256)
                elif what < 0.75:
                    del a[i:i + dice.randint(1, 20)]
                else:
                    a[i:i] = a[i:i + dice.randint(1, 20)]
            current["reply"] = bytes(a)
            try:
                rows = db.rows("SELECT row, c0, data FROM libsql_query(?, 'x')",
                               s.url(""))
                assert len(rows) <= 3
            except db.failure as e:
                assert "libsql_query: " in str(e)


def test_a_server_that_says_nothing_ends_in_time(db):
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: listener.accept(), daemon=True).start()
    db.one("SELECT choir_config('http.timeout_ms', 300)")
    message = db.error("SELECT * FROM libsql_query(?, 'SELECT 1')",
                       "http://127.0.0.1:%d" % listener.getsockname()[1])
    assert message.startswith("libsql_query: ")
    listener.close()


# ------------------------------------------------------------ the server itself

CLIENT = r"""
import { createClient } from "@libsql/client/web";
const c = createClient({ url: process.argv[2], authToken: process.argv[3],
                         intMode: "bigint" });
const out = {};
await c.execute("CREATE TABLE js(id INTEGER PRIMARY KEY, a UNIQUE, b BLOB)");
await c.execute({ sql: "INSERT INTO js(a, b) VALUES(?, ?)",
                  args: [9223372036854775807n, new Uint8Array([0, 255])] });
await c.execute({ sql: "INSERT INTO js(a) VALUES(:a)", args: { a: "ä" } });
const r = await c.execute("SELECT id, a, b, 1.5, NULL FROM js ORDER BY id");
out.rows = r.rows.map((x) => [...Array(5).keys()].map((i) =>
  typeof x[i] === "bigint" ? String(x[i]) : x[i] instanceof ArrayBuffer ?
    [...new Uint8Array(x[i])] : x[i]));
out.columns = r.columns;
try {
  await c.batch(["DELETE FROM js", "INSERT INTO js(a) VALUES(1)",
                 "INSERT INTO js(a) VALUES(1)"], "write");
} catch (e) { out.code = e.code; }
out.count = String((await c.execute("SELECT count(*) FROM js")).rows[0][0]);
const tx = await c.transaction("write");
await tx.execute("DELETE FROM js");
await tx.rollback();
const tx2 = await c.transaction("write");
await tx2.execute("INSERT INTO js(a) VALUES('kept')");
await tx2.commit();
out.kept = String((await c.execute("SELECT count(*) FROM js")).rows[0][0]);
await c.executeMultiple("CREATE TABLE m(a); INSERT INTO m VALUES(1);");
try { await c.execute("SELEC"); } catch (e) { out.syntax = e.message; }
console.log(JSON.stringify(out));
"""


@pytest.mark.once
def test_the_official_client_agrees_with_the_server(tmp_path):
    at = libsql_client.folder()
    if at is None:
        pytest.skip("@libsql/client: no npm to install it with")
    script = at / "conformance.mjs"
    script.write_text(CLIENT)
    with HranaServer(tmp_path / "js.db", TOKEN) as s:
        run = subprocess.run(["node", str(script), s.url, TOKEN],
                             capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run.stderr
        out = json.loads(run.stdout)
        assert out["rows"] == [["1", str(BIG), [0, 255], 1.5, None],
                               ["2", "ä", None, 1.5, None]]
        assert out["code"].startswith("SQLITE_CONSTRAINT")
        assert (out["count"], out["kept"]) == ("2", "3")
        assert "syntax error" in out["syntax"]
        assert s.streams == {}


# -------------------------------------------------------------------- recipes

ROUTES = {  # the five routes of omni-ai, one statement each
    "create": "INSERT INTO conversation_history(id, title, created_at,"
              " updated_at) VALUES(?, ?, ?, ?)",
    "add": "INSERT INTO messages(id, conversation_id, role, content, timestamp)"
           " VALUES(?, ?, ?, ?, ?)",
    "load": "SELECT h.id, h.title, m.role, m.content FROM conversation_history"
            " AS h LEFT JOIN messages AS m ON m.conversation_id = h.id"
            " ORDER BY h.updated_at, h.id, m.timestamp",
    "rename": "UPDATE conversation_history SET title = ? WHERE id = ?",
    "delete": "DELETE FROM conversation_history WHERE id = ?"}


def five_routes(db):
    """What an application does with them; what it sees each time."""
    seen = [db.rows(ROUTES["load"])]
    for i, title in (("c1", "first"), ("c2", "second")):
        db.rows(ROUTES["create"], i, title, 1000, 1000 + int(i[1]))
    db.rows(ROUTES["add"], "m1", "c1", "user", "hello", 1)
    db.rows(ROUTES["add"], "m2", "c1", "assistant", "ä 'quoted'", 2)
    db.rows(ROUTES["add"], "m3", "c2", "user", "there", 3)
    seen.append(sorted(db.rows(ROUTES["load"])))
    db.rows(ROUTES["rename"], "renamed", "c2")
    seen.append(sorted(r[:2] for r in db.rows(ROUTES["load"])))
    db.rows(ROUTES["delete"], "c1")
    seen.append([r[0] for r in db.rows(ROUTES["load"])])
    seen.append(db.rows("SELECT count(*) FROM messages"))
    return seen


def test_the_five_routes_run_on_a_file_and_on_a_remote_database(remote,
                                                                tmp_path,
                                                                open_db):
    db, h, m = remote.db, remote.t("h"), remote.t("m")
    remote.batch(
        f"CREATE TABLE {h}(id TEXT PRIMARY KEY, title TEXT, created_at INTEGER,"
        " updated_at INTEGER)",
        f"CREATE TABLE {m}(id TEXT PRIMARY KEY, conversation_id TEXT,"
        " role TEXT, content TEXT, timestamp INTEGER)",
        f"CREATE TRIGGER {h}d AFTER DELETE ON {h} BEGIN DELETE FROM {m} WHERE"
        " conversation_id = OLD.id; END")
    local = open_db(tmp_path / "local.db", init=True)
    db.run(f"CREATE VIRTUAL TABLE temp.conversation_history USING"
           f" libsql(remote, {h})")
    db.run(f"CREATE VIRTUAL TABLE temp.messages USING libsql(remote, {m})")
    assert five_routes(db) == five_routes(local)
    assert db.one("SELECT count(*) FROM main.messages") == 0


SUI = {  # a reply in the shape that Sui's GraphQL service gives
    "data": {"object": {"address": "0x5", "version": 7, "digest": "Bx3",
                        "asMoveObject": {"contents": {
                            "type": {"repr": "0x2::clock::Clock"},
                            "json": {"timestamp_ms": "1763700000000"}}}},
             "address": {"balance": {"coinType": {"repr": "0x2::sui::SUI"},
                                     "totalBalance": "18446744073709551615"}}}}


def test_a_sui_object_and_balance_by_graphql(db):
    with FaultServer() as s:
        s.on("/graphql", answer(json.dumps(SUI)))
        row = db.rows("""
            WITH r(j) AS MATERIALIZED (SELECT graphql(?,
              'query($o: SuiAddress!, $a: SuiAddress!) {
                 object(address: $o) { address version digest asMoveObject {
                   contents { type { repr } json } } }
                 address(address: $a) { balance(coinType: "0x2::sui::SUI") {
                   coinType { repr } totalBalance } } }',
              json_object('o', '0x5', 'a', '0xabc')))
            SELECT j ->> '$.object.version', j ->>
              '$.object.asMoveObject.contents.type.repr',
              j ->> '$.address.balance.totalBalance' FROM r""",
                      s.url("/graphql"))
        assert row == [(7, "0x2::clock::Clock", "18446744073709551615")]
        sent = json.loads(s.seen[0].body)
        assert sent["variables"] == {"o": "0x5", "a": "0xabc"}
