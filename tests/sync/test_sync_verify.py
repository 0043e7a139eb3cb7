# SPDX-License-Identifier: MIT
"""sync_verify() says in which tables this file differs from the remote's newest
version, and by how many rows: by value and type, whatever the order."""
import hashlib
import json
import sqlite3
import struct
import uuid

import pytest


@pytest.fixture
def url(tmp_path):
    (tmp_path / "remote").mkdir()
    return f"file://{tmp_path}/remote/"


def verify(d, url):
    out = json.loads(d.one("SELECT sync_verify(?)", url))
    assert out["ok"] == 1
    for t in out.get("tables", []):
        t.pop("digest", None)
    return {t.pop("name"): t for t in out["tables"]} if "tables" in out else (
        None)


def digest(rows):
    """As docs/formats.md describes it."""
    words = [0] * 4
    for row in rows:
        sha = hashlib.sha256()
        for v in row:
            kind = {int: 1, float: 2, str: 3, bytes: 4}.get(type(v), 5)
            raw = v.encode() if kind == 3 else v
            sha.update(bytes([kind]) + (
                struct.pack("<q", v) if kind == 1 else
                struct.pack("<d", v) if kind == 2 else
                bytes(8) if kind == 5 else struct.pack("<Q", len(raw)) + raw))
        for i, w in enumerate(struct.unpack(">4Q", sha.digest())):
            words[i] = (words[i] + w) % 2 ** 64
    return struct.pack(">4Q", *words).hex()


def differ(here, there, only_here, only_there):
    return {"here": here, "there": there, "only_here": only_here,
            "only_there": only_there}


@pytest.fixture
def pushed(db, url):
    db.run("CREATE TABLE t(a, b); CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT"
           " ROWID; CREATE TABLE g(a, b AS (a + 1) STORED, c AS (a + 2));"
           "INSERT INTO t VALUES(1, 'one'), (2, NULL), (0.1 + 0.2, x'00ff'),"
           " (1, 'one'), (9e999, 'a' || char(0) || 'b');"
           "INSERT INTO w VALUES('x', 1), ('y', 2); INSERT INTO g VALUES(7)")
    db.one("SELECT sync_push(?)", url)
    return db


def plain(db, sql):
    """What a reader without choir finds in a copy: a second SQLite of this
    process that closed the file itself would take the first one's locks."""
    copy = f"{db.path}.{uuid.uuid4().hex}"
    db.run(f"VACUUM INTO '{copy}'")
    con = sqlite3.connect(copy)
    rows = con.execute(sql).fetchall()
    con.close()
    return rows


@pytest.mark.parametrize("remote", ["", "ws.sqlite"])
def test_the_same_content_has_no_list_of_tables(db, url, remote):
    db.run("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    db.one("SELECT sync_push(?)", url + remote)
    assert verify(db, url + remote) is None
    db.run("INSERT INTO t VALUES(2)")
    assert verify(db, url + remote) == {"t": differ(2, 1, 1, 0)}


@pytest.mark.parametrize("change,table,result", [
    ("INSERT INTO t VALUES(3, 'x')", "t", (6, 5, 1, 0)),
    ("DELETE FROM t WHERE a=2", "t", (4, 5, 0, 1)),
    ("UPDATE t SET b='two' WHERE a=2", "t", (5, 5, 1, 1)),
    ("DELETE FROM t WHERE rowid=1", "t", (4, 5, 0, 1)),  # one of two alike
    ("UPDATE t SET a=1.0 WHERE rowid=1", "t", (5, 5, 1, 1)),
    ("UPDATE t SET a='1' WHERE rowid=1", "t", (5, 5, 1, 1)),
    ("UPDATE t SET b='' WHERE b IS NULL", "t", (5, 5, 1, 1)),
    ("UPDATE t SET b=CAST(b AS BLOB) WHERE rowid=1", "t", (5, 5, 1, 1)),
    ("UPDATE t SET a=0.3 WHERE rowid=3", "t", (5, 5, 1, 1)),
    ("UPDATE t SET b='a' || char(0) || 'c' WHERE rowid=5", "t", (5, 5, 1, 1)),
    ("UPDATE t SET a=-9e999 WHERE rowid=5", "t", (5, 5, 1, 1)),
    ("UPDATE w SET v=3 WHERE k='x'", "w", (2, 2, 1, 1)),
    ("INSERT INTO g VALUES(8)", "g", (2, 1, 1, 0)),
])
def test_a_table_that_differs_is_named_with_its_rows(pushed, url, change, table,
                                                     result):
    pushed.run(change)
    assert verify(pushed, url) == {table: differ(*result)}


def test_order_and_rowids_do_not_count(pushed, url):
    pushed.run("CREATE TABLE rest AS SELECT a, b FROM t ORDER BY random();"
               "DELETE FROM t;"
               "INSERT INTO t(rowid, a, b) SELECT 1000 + 7 * rowid, a, b FROM rest;"
               "DROP TABLE rest; VACUUM")
    assert verify(pushed, url) == {}  # other pages, the same rows


def test_tables_of_one_side_and_schemas_are_named(pushed, url):
    pushed.run("CREATE TABLE mine(a); INSERT INTO mine VALUES(1); DROP TABLE w;"
               "CREATE INDEX t_a ON t(a); ALTER TABLE g RENAME TO g2")
    out = verify(pushed, url)
    schema = out.pop("sqlite_schema")
    assert schema["only_here"] == 3 and schema["only_there"] == 2
    assert out == {"mine": differ(1, 0, 1, 0), "w": differ(0, 2, 0, 2),
                   "g2": differ(1, 0, 1, 0), "g": differ(0, 1, 0, 1)}


def test_a_virtual_table_is_compared_by_the_tables_it_keeps(db, url):
    db.run("CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES('a')")
    db.one("SELECT sync_push(?)", url)
    db.run("INSERT INTO f VALUES('b')")
    out = verify(db, url)
    assert out["f_content"] == differ(2, 1, 1, 0)
    assert "f" not in out and "f_data" in out


def test_an_empty_file_is_not_compared(tmp_path, open_db, pushed, url):
    assert verify(open_db(tmp_path / "empty.db"), url) is None


def test_a_workspace_row_shows_up_in_its_tables(db, url):
    db.one("SELECT sync_push(?)", url)
    db.rows("INSERT INTO artifacts(path, name) VALUES('/a', 'a')")
    out = verify(db, url)
    assert out["artifacts"] == differ(1, 0, 1, 0)
    assert out["action_log"]["only_here"] == 1
    assert "_choir_sync_seal" not in out


def test_every_table_of_the_remote_has_its_digest(pushed, url):
    for same in (True, False):
        out = json.loads(pushed.one("SELECT sync_verify(?)", url))
        there = {t["name"]: t for t in out["digests"]}
        for name, sql in {"t": "SELECT a, b FROM t", "w": "SELECT k, v FROM w",
                          "g": "SELECT a FROM g",
                          "sqlite_schema": "SELECT type, name, tbl_name, sql FROM"
                                           " sqlite_schema"}.items():
            rows = plain(pushed, sql)
            assert there[name] == {"name": name, "rows": len(rows),
                                   "digest": digest(rows)}
        assert ("tables" in out) != same
        # The same rows: another page, no other digest of the remote's.
        pushed.run("CREATE TABLE more(x); DROP TABLE more")
    pushed.run("INSERT INTO t VALUES(-0.0, 'new')")
    out = json.loads(pushed.one("SELECT sync_verify(?)", url))
    t = {t["name"]: t for t in out["tables"]}["t"]
    assert t["digest"] == digest(plain(pushed, "SELECT a, b FROM t"))
