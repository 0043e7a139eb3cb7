# SPDX-License-Identifier: MIT
"""sync_pull(…, 'merge'): two devices changed one workspace, nothing is lost."""
import json
import shutil
import threading
import time

import pytest

from remote import call, paths, pull, push, put, state


@pytest.fixture
def url(tmp_path):
    (tmp_path / "remote").mkdir()
    return f"file://{tmp_path}/remote/"


@pytest.fixture
def pair(tmp_path, open_db, db, url):
    """Two devices, in step whenever `part` has been called."""
    other = open_db(tmp_path / "other.db")

    class Pair:
        here, there = db, other

        def part(self, script=""):
            db.run(script)
            push(db, url)
            pull(other, url)

        def merge(self, mine, yours):
            """`yours` is pushed by the other device, `mine` merged into it."""
            other.run(yours)
            push(other, url)
            db.run(mine)
            out = pull(db, url, "merge")
            assert db.one("PRAGMA integrity_check") == "ok"
            assert db.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
            push(db, url)
            pull(other, url)
            return out

        def both(self, sql):
            rows = db.rows(sql)
            assert other.rows(sql) == rows
            return rows
    return Pair()


def test_rows_and_columns_of_both_sides_are_kept(pair):
    pair.part("CREATE TABLE t(id TEXT PRIMARY KEY, a, b, c);"
              "INSERT INTO t VALUES('x', 1, 1.0, 'c'), ('y', 2, x'00', NULL),"
              " ('z', 3, 4, 5), ('w', 7, 8, 9)")
    out = pair.merge("UPDATE t SET a=10 WHERE id='x'; DELETE FROM t WHERE id='z';"
                     "INSERT INTO t VALUES('new', 'mine', 0.1 + 0.2, -0.0)",
                     "UPDATE t SET b=20 WHERE id='x'; DELETE FROM t WHERE id='w';"
                     "INSERT INTO t VALUES('new2', 'yours', 9e999, 1)")
    assert pair.both("SELECT * FROM t ORDER BY id") == [
        ("new", "mine", 0.1 + 0.2, 0.0), ("new2", "yours", float("inf"), 1),
        ("x", 10, 20, "c"), ("y", 2, b"\0", None)]
    assert out["pulled"] == 1 and out["conflicts"] == [] and "saved" not in out


def test_what_both_set_stays_as_at_the_remote_and_is_written_down(pair, open_db):
    pair.part("CREATE TABLE t(id TEXT PRIMARY KEY, a, b);"
              "INSERT INTO t VALUES('x', 1, 1)")
    out = pair.merge("UPDATE t SET a='mine', b='b'", "UPDATE t SET a='yours'")
    assert pair.both("SELECT * FROM t") == [("x", "yours", "b")]
    assert out["conflicts"] == [{"table": "t", "kind": "changed", "rows": 1}]
    tbl, pk, payload = pair.both("SELECT tbl, pk, payload FROM action_log WHERE"
                                 " action_type='SYNC_CONFLICT'")[0]
    assert (tbl, pk) == ("t", "x") and json.loads(payload) == {
        "kind": "changed", "columns": {"a": {"here": "mine", "there": "yours"}}}
    kept = open_db(out["saved"], choir=False)
    assert kept.rows("SELECT a FROM t") == [("mine",)]


def test_a_deleted_row_that_the_other_side_changed_stays(pair):
    pair.part("CREATE TABLE t(id TEXT PRIMARY KEY, a);"
              "INSERT INTO t VALUES('x', 1), ('y', 2), ('z', 3)")
    out = pair.merge("DELETE FROM t WHERE id='x'; UPDATE t SET a='m' WHERE id='y';"
                     "DELETE FROM t WHERE id='z'",
                     "UPDATE t SET a='n' WHERE id='x'; DELETE FROM t WHERE id='y';"
                     "DELETE FROM t WHERE id='z'")
    assert pair.both("SELECT * FROM t ORDER BY id") == [("x", "n"), ("y", "m")]
    assert {c["kind"] for c in out["conflicts"]} == {"deleted here",
                                                     "deleted there"}


def test_rows_that_both_inserted_under_one_number_are_both_kept(pair):
    pair.part("CREATE TABLE p(id INTEGER PRIMARY KEY, name);"
              "CREATE TABLE c(p REFERENCES p(id), v);"
              "INSERT INTO p VALUES(1, 'one')")
    out = pair.merge("INSERT INTO p VALUES(2, 'mine'), (3, 'same');"
                     "INSERT INTO c VALUES(2, 'of mine'), (1, 'of one')",
                     "INSERT INTO p VALUES(2, 'yours'), (3, 'same');"
                     "INSERT INTO c VALUES(2, 'of yours')")
    assert pair.both("SELECT name FROM p ORDER BY id") == [
        ("one",), ("yours",), ("same",), ("mine",)]
    assert pair.both("SELECT name, v FROM c JOIN p ON p.id=c.p ORDER BY v") == [
        ("mine", "of mine"), ("one", "of one"), ("yours", "of yours")]
    assert out["conflicts"] == [{"table": "p", "kind": "moved", "rows": 1}]


def test_a_table_without_a_key_is_a_bag_of_rows(pair):
    pair.part("CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 'x'), (1, 'x'),"
              " (1.0, 'x'), (2, 'y'), (3, 'z'), (NULL, NULL)")
    pair.merge("DELETE FROM t WHERE rowid=1; UPDATE t SET b='mine' WHERE a=2;"
               "INSERT INTO t VALUES(4, 'both')",
               "UPDATE t SET b='yours' WHERE a=3; INSERT INTO t VALUES(4,"
               " 'both'); VACUUM")
    assert pair.both("SELECT a, b, typeof(a) FROM t ORDER BY 1, 2, 3") == [
        (None, None, "null"), (1, "x", "integer"), (1.0, "x", "real"),
        (2, "mine", "integer"), (3, "yours", "integer"), (4, "both", "integer"),
        (4, "both", "integer")]


def refused(pair, url, mine, yours):
    """The merge is refused and leaves this file as it was."""
    pair.there.run(yours)
    push(pair.there, url)
    pair.here.run(mine)
    before = pair.here.rows("SELECT * FROM action_log")
    text = pair.here.error("SELECT sync_pull(?, 'merge')", url)
    assert pair.here.rows("SELECT * FROM action_log") == before
    assert state(pair.here, url) == "conflict"
    return text


def test_a_unique_value_of_both_sides_is_refused_with_its_row(pair, url):
    pair.part("CREATE TABLE t(id TEXT PRIMARY KEY, u UNIQUE); INSERT INTO t"
              " VALUES('a', 1), ('b', 2)")
    text = refused(pair, url, "INSERT INTO t VALUES('mine', 9)",
                   "INSERT INTO t VALUES('yours', 9)")
    assert "cannot merge: 1 row of both sides cannot stand side by side: t" in text
    assert '"mine"' in text and "UNIQUE constraint failed: t.u" in text
    assert "'theirs'" in text
    pair.here.run("UPDATE t SET u=10 WHERE id='mine'")
    pull(pair.here, url, "merge")
    assert pair.here.rows("SELECT * FROM t ORDER BY id") == [
        ("a", 1), ("b", 2), ("mine", 10), ("yours", 9)]


def test_unique_values_may_change_places(pair):
    pair.part("CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE) ; INSERT INTO t"
              " VALUES(1, 'a'), (2, 'b'), (3, 'c')")
    pair.merge("UPDATE t SET u='x' WHERE id=1; UPDATE t SET u='a' WHERE id=2;"
               "UPDATE t SET u='b' WHERE id=1", "UPDATE t SET u='d' WHERE id=3")
    assert pair.both("SELECT * FROM t") == [(1, "b"), (2, "a"), (3, "d")]


@pytest.mark.once
@pytest.mark.parametrize("table", [
    "CREATE TABLE t(k TEXT, n INTEGER, v, PRIMARY KEY(k, n)) WITHOUT ROWID",
    "CREATE TABLE t(k TEXT, n INTEGER, v, PRIMARY KEY(k, n))",
    "CREATE TABLE t(k TEXT NOT NULL, n INTEGER NOT NULL, v, UNIQUE(k, n))",
    "CREATE TABLE t(k TEXT COLLATE NOCASE, n INTEGER, v, g AS (v || '!'), h AS"
    " (n + 1) STORED, PRIMARY KEY(k, n)) WITHOUT ROWID"])
def test_every_kind_of_key(pair, table):
    pair.part(table + "; INSERT INTO t(k, n, v) VALUES('a', 1, 'x'),"
              " ('a', 2, 'y'), ('b', 1, 'z'), ('c', 3, 'c')")
    out = pair.merge(
        "UPDATE t SET v='mine' WHERE k='a' AND n=1; DELETE FROM t WHERE k='b';"
        "INSERT INTO t(k, n, v) VALUES('d', 1, 'new'); UPDATE t SET v='m' WHERE"
        " k='c'; UPDATE t SET n=20 WHERE k='a' AND n=2",
        "UPDATE t SET v='n' WHERE k='c'; INSERT INTO t(k, n, v) VALUES('e', 1,"
        " 'new')")
    assert pair.both("SELECT k, n, v FROM t ORDER BY k, n") == [
        ("a", 1, "mine"), ("a", 20, "y"), ("c", 3, "n"), ("d", 1, "new"),
        ("e", 1, "new")]
    assert [c["rows"] for c in out["conflicts"]] == [1]
    assert pair.both("SELECT pk FROM action_log WHERE action_type="
                     "'SYNC_CONFLICT'") == [('["c",3]',)]


@pytest.mark.parametrize("table", [
    "CREATE TABLE t(k, v); CREATE UNIQUE INDEX u ON t(lower(k))",
    "CREATE TABLE t(k, v, a DEFAULT 1, b DEFAULT 1, c DEFAULT 1, d DEFAULT 1,"
    " e DEFAULT 1, f DEFAULT 1, g DEFAULT 1, UNIQUE(k, v, a, b, c, d, e, f, g))",
    "CREATE TABLE t(k UNIQUE, v); INSERT INTO t VALUES(NULL, 0)"],
    ids=["an expression", "nine columns", "a NULL"])
def test_what_is_unique_and_no_key_makes_a_bag(pair, table):
    pair.part(table + "; INSERT INTO t(k, v) VALUES('x', 1), ('y', 2)")
    pair.merge("UPDATE t SET v=10 WHERE k='x'; INSERT INTO t(k, v) VALUES('m', 3)",
               "UPDATE t SET v=20 WHERE k='y'; INSERT INTO t(k, v) VALUES('t', 4)")
    assert pair.both("SELECT k, v FROM t WHERE k IS NOT NULL ORDER BY k") == [
        ("m", 3), ("t", 4), ("x", 10), ("y", 20)]


def test_long_keys_and_keys_that_are_not_utf8_are_told_apart(pair):
    pair.part("CREATE TABLE t(a TEXT, b INTEGER, v, PRIMARY KEY(a, b));"
              "INSERT INTO t VALUES(CAST(x'61ff' AS TEXT), 1, 0),"
              " (CAST(x'61fe' AS TEXT), 1, 0),"
              " (hex(zeroblob(40000)) || 'x', 1, 0),"
              " (hex(zeroblob(40000)) || 'y', 1, 0)")
    out = pair.merge("UPDATE t SET v='mine'", "UPDATE t SET v='yours'")
    assert out["conflicts"] == [{"table": "t", "kind": "changed", "rows": 4}]
    assert pair.both("SELECT count(DISTINCT pk), min(length(pk)) FROM action_log"
                     " WHERE action_type='SYNC_CONFLICT'") == [(4, 19)]


def test_schema_changes_of_one_side_are_kept(pair):
    pair.part("CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE u(x);"
              "CREATE TABLE old(y); CREATE INDEX t_a ON t(a); CREATE TABLE"
              " log(what); INSERT INTO t VALUES(1, 'one'), (2, 'two'),"
              " (3, 'three'); INSERT INTO u VALUES('u'); INSERT INTO old VALUES(1)")
    pair.merge(
        "ALTER TABLE t ADD COLUMN b DEFAULT 'dflt'; UPDATE t SET b='mine' WHERE"
        " id=1; DROP TABLE old; CREATE TABLE fresh(k PRIMARY KEY, v); INSERT INTO"
        " fresh VALUES('f', 1); CREATE VIEW see AS SELECT * FROM t; CREATE TRIGGER"
        " tr AFTER INSERT ON t BEGIN INSERT INTO log VALUES(NEW.a); END; CREATE"
        " INDEX fresh_v ON fresh(v); DROP INDEX t_a; CREATE INDEX t_a ON t(a, b);"
        "INSERT INTO t(id, a) VALUES(10, 'ten')",
        "INSERT INTO t VALUES(4, 'four'); UPDATE t SET a='zwei' WHERE id=2;"
        "CREATE INDEX t_theirs ON t(id, a); ALTER TABLE u ADD COLUMN z DEFAULT 5;"
        "CREATE TABLE theirs(q); INSERT INTO theirs VALUES(9)")
    assert pair.both("SELECT * FROM t") == [
        (1, "one", "mine"), (2, "zwei", "dflt"), (3, "three", "dflt"),
        (4, "four", "dflt"), (10, "ten", "dflt")]
    assert pair.both("SELECT * FROM see WHERE id=1") == [(1, "one", "mine")]
    assert pair.both("SELECT * FROM u") == [("u", 5)]
    assert pair.both("SELECT * FROM fresh") == [("f", 1)]
    assert pair.both("SELECT * FROM theirs") == [(9,)]
    # The trigger ran once, on the device that inserted the row.
    assert pair.both("SELECT * FROM log") == [("ten",)]
    names = {r[0] for r in pair.both("SELECT name FROM sqlite_schema")}
    assert {"t_a", "t_theirs", "fresh_v", "tr"} <= names and "old" not in names
    pair.here.run("INSERT INTO t(a) VALUES('again')")
    assert pair.here.one("SELECT count(*) FROM log") == 2


@pytest.mark.once
@pytest.mark.parametrize("mine,yours,why", [
    ("ALTER TABLE t ADD COLUMN m", "ALTER TABLE t ADD COLUMN y",
     "both sides changed the definition of table t"),
    ("CREATE TABLE n(a)", "CREATE TABLE n(b)",
     "both sides changed the definition of table n"),
    ("DROP TABLE t", "UPDATE t SET a=2",
     "this side dropped table t and the remote changed rows in it"),
    ("ALTER TABLE t DROP COLUMN a", "UPDATE t SET a=2",
     "the remote changed rows of table t and this side removed its column"),
    ("UPDATE t SET a=2", "ALTER TABLE t DROP COLUMN a",
     "this side changed rows of table t and the remote removed its column"),
    ("ALTER TABLE t ADD COLUMN m", "DROP TABLE t",
     "the remote dropped table t, whose definition this side changed"),
    ("CREATE VIEW v AS SELECT 1", "CREATE VIEW v AS SELECT 2",
     "both sides changed the definition of view v"),
    ("INSERT INTO f VALUES('mine')", "INSERT INTO f VALUES('yours')",
     "both sides changed table f_"),
    ("SELECT state_checkpoint('mine')", "SELECT state_checkpoint('yours')",
     "state_checkpoint_drop"),
    ("UPDATE t SET a=2", "DROP TABLE t",
     "the remote dropped table t and this side changed rows in it"),
    ("SELECT log_track('t')", "SELECT log_track('s')", "log_untrack()"),
    ("DROP TABLE t", "ALTER TABLE t ADD COLUMN y",
     "this side dropped table t and the remote changed its definition"),
    ("DROP TABLE f; CREATE VIRTUAL TABLE f USING fts5(x, y)",
     "UPDATE t SET a=2", "this side made virtual table f anew"),
    ("INSERT INTO s VALUES(9223372036854775807); INSERT INTO t VALUES("
     "9223372036854775807, 'mine')",
     "INSERT INTO t VALUES(9223372036854775807, 'yours')",
     "no number is free above 9223372036854775807"),
    ("INSERT INTO b VALUES(1, 2, 3)", "INSERT INTO b VALUES(4, 5, 6)",
     "nothing tells the rows of b apart; give it a PRIMARY KEY"),
])
def test_what_cannot_be_put_together_is_refused_by_name(pair, url, mine, yours,
                                                        why):
    pair.part("CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES"
              "(1, 1); CREATE TABLE s(id INTEGER PRIMARY KEY); CREATE TABLE"
              " b(rowid, _rowid_, oid); CREATE VIRTUAL"
              " TABLE f USING fts5(x); SELECT state_set('k', '$', '1');"
              "SELECT state_checkpoint('first'); SELECT state_set('k', '$', '2')")
    assert why in refused(pair, url, mine, yours)
    pull(pair.here, url, "theirs")


def test_a_definition_that_is_two_statements_is_not_run(pair, url):
    pair.part("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES(1)")
    pair.there.run("INSERT INTO t VALUES(2)")
    push(pair.there, url)
    pair.here.run("CREATE TABLE n(a); PRAGMA writable_schema=ON;"
                  " UPDATE sqlite_schema SET sql=sql || '; DELETE FROM t' WHERE"
                  " name='n'; PRAGMA writable_schema=OFF")
    text = pair.here.error("SELECT sync_pull(?, 'merge')", url)
    assert ("a definition in the schema is more than one statement" in text
            or "malformed database schema (n)" in text)  # newer SQLites look
    pair.here.run("PRAGMA writable_schema=ON")
    assert pair.here.rows("SELECT id FROM t") == [(1,)]


def test_the_same_migration_on_both_sides_is_one(pair):
    pair.part("CREATE TABLE t(id TEXT PRIMARY KEY, a); INSERT INTO t VALUES"
              "('x', 1), ('y', 2)")
    pair.merge("ALTER TABLE t ADD COLUMN b DEFAULT 7; UPDATE t SET b=1 WHERE"
               " id='x'; CREATE TABLE n(k PRIMARY KEY); INSERT INTO n VALUES(1)",
               "ALTER TABLE t ADD COLUMN b DEFAULT 7; UPDATE t SET b=2 WHERE"
               " id='y'; CREATE TABLE n(k PRIMARY KEY); INSERT INTO n VALUES(2)")
    assert pair.both("SELECT * FROM t") == [("x", 1, 1), ("y", 2, 2)]
    assert pair.both("SELECT * FROM n ORDER BY k") == [(1,), (2,)]


def test_a_virtual_table_of_one_side_comes_along(pair):
    pair.part("CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES('tea')")
    pair.merge("INSERT INTO f VALUES('mine'); CREATE VIRTUAL TABLE g USING"
               " fts5(x); INSERT INTO g VALUES('green tea')",
               "CREATE TABLE t(a)")
    assert pair.both("SELECT count(*) FROM f('mine OR tea')") == [(2,)]
    assert pair.both("SELECT x FROM g('green')") == [("green tea",)]


def test_a_plain_file_keeps_no_version_to_merge_from(tmp_path, open_db, db):
    url = f"file://{tmp_path}/ws.sqlite"
    push(db, url)
    other = open_db(tmp_path / "other.db")
    pull(other, url)
    put(other, "/theirs")
    push(other, url)
    put(db, "/mine")
    text = db.error("SELECT sync_pull(?, 'merge')", url)
    assert "is a plain file and keeps no earlier version to merge from" in text


def test_a_pruned_base_is_refused_with_the_ways_out(pair, url, tmp_path):
    pair.part()
    put(pair.here, "/mine")
    for i in range(3):
        put(pair.there, f"/theirs{i}")
        push(pair.there, url)
    call(pair.there, "sync_compact(?, 'snapshot')", url)
    for p in (tmp_path / "remote").rglob("*.ltx"):
        if "/9/" not in str(p) or p.name.endswith("-0000000000000001.ltx"):
            p.unlink()
    text = pair.here.error("SELECT sync_pull(?, 'merge')", url)
    assert "is no longer there; a merge needs it" in text and "'theirs'" in text


def test_a_common_version_that_another_remote_gave_is_found(
        pair, url, tmp_path):
    """A copy of the bucket: this file never saw that version at the first."""
    pair.part()
    put(pair.there, "/second")
    push(pair.there, url)
    shutil.copytree(tmp_path / "remote", tmp_path / "copy")
    pull(pair.here, f"file://{tmp_path}/copy/")
    out = pair.merge("SELECT artifact_put('/mine', 'm')",
                     "SELECT artifact_put('/theirs', 't')")
    assert out["merged"] > 0
    assert paths(pair.here) == paths(pair.there) == [
        "/mine", "/second", "/theirs"]


def test_merge_without_a_conflict_is_an_ordinary_pull(pair, url):
    pair.part()
    assert pull(pair.here, url, "merge")["pulled"] == 0
    put(pair.there, "/theirs")
    push(pair.there, url)
    out = pull(pair.here, url, "merge")
    assert out["pulled"] == 1 and "merged" not in out
    put(pair.here, "/mine")
    assert pull(pair.here, url, "merge")["pulled"] == 0
    assert push(pair.here, url)["pushed"] == 1


# ------------------------------------------------------------ choir's own

@pytest.mark.once
def test_the_store_of_two_devices(pair):
    pair.part("SELECT artifact_put('/a.txt', 'base'); SELECT artifact_put('/b.txt',"
              " 'base'); SELECT artifact_put('/c.txt', 'base'); SELECT"
              " setting_set('theme', 'dark'); INSERT INTO conversation_history(id,"
              " title) VALUES('c1', 'first'); SELECT message_add('c1', 'user',"
              " 'hello'); INSERT INTO personas(id, name, is_active) VALUES('p1',"
              " 'one', 1), ('p2', 'two', 0), ('p3', 'three', 0)")
    pair.merge(
        "SELECT artifact_put('/a.txt', 'mine'); SELECT artifact_put('/m.txt', 'm');"
        "SELECT artifact_delete('/b.txt'); SELECT artifact_move('/c.txt',"
        " '/moved.txt'); SELECT setting_set('lang', 'de'); SELECT message_add('c1',"
        " 'user', 'from me'); SELECT persona_activate('p2')",
        "SELECT artifact_put('/y.txt', 'y'); SELECT artifact_put('/b.txt',"
        " 'yours'); SELECT artifact_put('/c.txt', 'yours'); SELECT"
        " setting_set('theme', 'light'); SELECT message_add('c1', 'user', 'from"
        " you'); SELECT persona_activate('p3')")
    for path, content in [("/a.txt", "mine"), ("/m.txt", "m"), ("/b.txt", "yours"),
                          ("/moved.txt", "yours"), ("/y.txt", "y")]:
        for d in (pair.here, pair.there):
            assert d.one("SELECT CAST(artifact_get(?) AS TEXT)", path) == content
    assert pair.both("SELECT count(*) FROM artifacts WHERE hash IS NOT NULL AND"
                     " hash<>choir_sha256(content)") == [(0,)]
    assert pair.both("SELECT setting_name, setting_value FROM user_settings ORDER"
                     " BY 1") == [("lang", "de"), ("theme", "light")]
    assert pair.both("SELECT content FROM messages ORDER BY rowid") == [
        ("hello",), ("from you",), ("from me",)]
    assert pair.both("SELECT id FROM personas WHERE is_active") == [("p3",)]


def test_a_deleted_parent_comes_back_when_the_other_side_refers_to_it(pair):
    pair.part("INSERT INTO conversation_history(id, title) VALUES('a', 'A'),"
              " ('b', 'B'); SELECT message_add('a', 'user', 'old'); SELECT"
              " message_add('b', 'user', 'old')")
    out = pair.merge("SELECT conversation_delete('a'); SELECT message_add('b',"
                     " 'user', 'mine')",
                     "SELECT conversation_delete('b'); SELECT message_add('a',"
                     " 'user', 'yours')")
    assert pair.both("SELECT c.title, m.content FROM messages m JOIN"
                     " conversation_history c ON c.id=m.conversation_id ORDER BY"
                     " 1") == [("A", "yours"), ("B", "mine")]
    assert pair.both("SELECT count(*) FROM messages") == [(2,)]
    assert {c["kind"] for c in out["conflicts"] if c["table"] ==
            "conversation_history"} <= {"restored", "deleted here",
                                        "deleted there"}


def test_a_parent_that_comes_back_is_found_by_its_vector(pair):
    pair.part(VECTORS + "; SELECT vec_index_create('x', 'v', 'e'); CREATE TABLE"
              " c(id INTEGER PRIMARY KEY, v REFERENCES v(id))")
    out = pair.merge("DELETE FROM v WHERE id=8", "INSERT INTO c VALUES(1, 8)")
    assert {"table": "v", "kind": "restored", "rows": 1} in out["conflicts"]
    for d in (pair.here, pair.there):
        assert d.one("SELECT rowid FROM vec_search('x', vec_f32('[8,1,2,3]'), 1)"
                     ) == 8


def test_a_deleted_document_that_the_other_side_changed_stays(pair):
    pair.part("SELECT artifact_put('/a', '1'), artifact_put('/b', '1')")
    pair.merge("SELECT artifact_put('/a', 'mine'); SELECT artifact_delete('/b')",
               "SELECT artifact_delete('/a'); SELECT artifact_put('/b', 'yours')")
    assert pair.both("SELECT path, CAST(content AS TEXT) FROM artifacts WHERE"
                     " deleted_at IS NULL ORDER BY path") == [
        ("/a", "mine"), ("/b", "yours")]


def test_what_cannot_come_back_is_refused(pair, url):
    pair.part("CREATE TABLE p(id TEXT PRIMARY KEY, u UNIQUE); CREATE TABLE c(id TEXT"
              " PRIMARY KEY, p REFERENCES p(id)); INSERT INTO p VALUES('a', 1),"
              " ('b', 2)")
    text = refused(pair, url, "INSERT INTO c VALUES('c', 'a')",
                   "DELETE FROM p WHERE id='a'; INSERT INTO p VALUES('new', 1)")
    assert "rows of c would refer to 1 of p that are not there" in text


def test_what_led_nowhere_before_does_not_stand_in_the_way(pair):
    pair.part("CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(id INTEGER"
              " PRIMARY KEY, p REFERENCES p)")
    out = pair.merge("INSERT INTO c VALUES(1, 10)", "INSERT INTO c VALUES(2, 20)")
    assert pair.both("SELECT * FROM c") == [(1, 10), (2, 20)]
    assert out["conflicts"] == []


def test_parents_of_parents_come_back(pair):
    pair.part("CREATE TABLE g(a, b, PRIMARY KEY(a, b)); CREATE TABLE p(id INTEGER"
              " PRIMARY KEY, a, b, FOREIGN KEY(a, b) REFERENCES g); CREATE TABLE"
              " c(id TEXT PRIMARY KEY, p REFERENCES p); INSERT INTO g VALUES(1, 2),"
              " (3, 4); INSERT INTO p VALUES(1, 1, 2), (2, 3, 4); INSERT INTO c"
              " VALUES('torn', 77)")
    out = pair.merge("INSERT INTO c VALUES('c', 1)", "DELETE FROM p; DELETE FROM g")
    assert pair.both("SELECT a, b FROM p JOIN g USING(a, b)") == [(1, 2)]
    assert pair.both("SELECT count(*) FROM g") == [(1,)]
    assert [(c["table"], c["kind"]) for c in out["conflicts"]] == [
        ("g", "restored"), ("p", "restored")]


def test_the_log_of_both_is_in_order_and_seals_of_the_remote_hold(pair):
    pair.part("SELECT log_record('A', '{}'); SELECT log_seal()")
    out = pair.merge("SELECT log_record('MINE', '{}'); SELECT log_seal(); SELECT"
                     " log_record('MINE2', '{}')",
                     "SELECT log_record('YOURS', '{}'); SELECT log_record('YOURS2',"
                     " '{}'); SELECT log_seal()")
    assert out["seals"] == 1
    for d in (pair.here, pair.there):
        assert json.loads(d.one("SELECT log_verify()"))["ok"] == 1
    types = [r[0] for r in pair.both(
        "SELECT action_type FROM action_log WHERE action_type NOT LIKE 'SYNC%'"
        " ORDER BY seq")]
    assert types == ["A", "YOURS", "YOURS2", "MINE", "MINE2"]
    assert pair.both("SELECT count(*), count(DISTINCT id), max(seq) FROM"
                     " action_log") == [(pair.here.one(
                         "SELECT max(seq) FROM action_log"),) * 3]
    pair.here.one("SELECT log_seal()")
    assert json.loads(pair.here.one("SELECT log_verify()"))["ok"] == 1


@pytest.mark.once
def test_records_deleted_here_stay_under_the_seals_of_the_remote(pair):
    pair.part("SELECT log_record('A', '{}'); SELECT log_record('B', '{}'); SELECT"
              " setting_set('theme', 'dark')")
    pair.merge("SELECT setting_set('lang', 'de'); DELETE FROM action_log; UPDATE"
               " action_log SET payload='{\"forged\":1}'; SELECT log_record('M',"
               " '{}')", "SELECT log_seal()")
    types = [r[0] for r in pair.both("SELECT action_type FROM action_log WHERE"
                                     " length(action_type)=1 ORDER BY seq")]
    assert types == ["A", "B", "M"]
    for d in (pair.here, pair.there):
        assert json.loads(d.one("SELECT log_verify()"))["ok"] == 1


def test_consumers_see_what_was_merged(pair):
    pair.part("INSERT INTO _choir_cursor VALUES('both', 0), ('behind', 0); SELECT"
              " log_record('A', '{}'); SELECT log_record('B', '{}'); UPDATE"
              " _choir_cursor SET seq=2 WHERE consumer='both'")
    seq = pair.here.one("SELECT max(seq) FROM action_log")
    pair.merge("SELECT log_record('M', '{}'); UPDATE _choir_cursor SET seq=(SELECT"
               " max(seq) FROM action_log) WHERE consumer='both'; INSERT INTO"
               " _choir_cursor VALUES('new', 4)",
               "SELECT log_record('Y', '{}'); UPDATE _choir_cursor SET seq=(SELECT"
               " max(seq) FROM action_log)")
    places = dict(pair.both("SELECT consumer, seq FROM _choir_cursor"))
    assert places["both"] < pair.here.one(
        "SELECT seq FROM action_log WHERE action_type='M'")
    assert places["behind"] == 0 and places["new"] <= seq


def test_keys_of_the_host_in_tables_of_choir_come_along(pair):
    pair.part()
    pair.merge("INSERT INTO sync_state VALUES('mine', '1'); INSERT INTO _choir_meta"
               " VALUES('app.mine', '1'); SELECT cache_set('c', 'm')",
               "INSERT INTO sync_state VALUES('yours', '2'); INSERT INTO _choir_meta"
               " VALUES('app.yours', '2')")
    assert pair.both("SELECT key, value FROM sync_state WHERE key NOT LIKE 'last%'"
                     " ORDER BY 1") == [("mine", "1"), ("yours", "2")]
    assert pair.both("SELECT key FROM _choir_meta WHERE key LIKE 'app.%' ORDER BY"
                     " 1") == [("app.mine",), ("app.yours",)]
    assert pair.both("SELECT cache_get('c')") == [("m",)]


def test_the_search_index_finds_rows_of_both(pair):
    pair.part("SELECT artifact_put('/base.txt', 'a kettle'); SELECT choir_index()")
    pair.merge("SELECT artifact_put('/mine.txt', 'a samovar'); SELECT choir_index()",
               "SELECT artifact_put('/yours.txt', 'a teapot'); SELECT choir_index()")
    for d in (pair.here, pair.there):
        for word, path in [("samovar", "/mine.txt"), ("teapot", "/yours.txt"),
                           ("kettle", "/base.txt")]:
            assert d.one("SELECT path FROM choir_search(?)", word) == path
    pair.here.one("SELECT choir_index()")
    assert pair.here.one("SELECT path FROM choir_search('samovar')") == "/mine.txt"
    assert pair.here.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'


def test_an_index_that_only_one_side_made_first(pair):
    pair.part("SELECT artifact_put('/base.txt', 'a kettle')")
    pair.merge("SELECT artifact_put('/mine.txt', 'a samovar'); SELECT choir_index()",
               "SELECT artifact_put('/yours.txt', 'a teapot')")
    pair.there.one("SELECT choir_index()")
    for word in ("samovar", "teapot", "kettle"):
        assert pair.there.one("SELECT count(*) FROM choir_search(?)", word) >= 1


VECTORS = ("CREATE TABLE v(id INTEGER PRIMARY KEY, e BLOB); INSERT INTO v SELECT"
           " value, vec_f32('[' || value || ',1,2,3]') FROM json_each("
           "'[1,2,3,4,5,6,7,8]')")


@pytest.mark.once
@pytest.mark.parametrize("when", ["before", "here", "there"])
def test_a_vector_index_finds_rows_of_both(pair, when):
    make = "; SELECT vec_index_create('x', 'v', 'e')"
    pair.part(VECTORS + (make if when == "before" else ""))
    pair.merge("INSERT INTO v VALUES(100, vec_f32('[100,1,2,3]')); UPDATE v SET"
               " e=vec_f32('[50,1,2,3]') WHERE id=1; INSERT INTO v VALUES(9,"
               " vec_f32('[900,1,2,3]')); DELETE FROM v WHERE id=8"
               + (make if when == "here" else ""),
               "INSERT INTO v VALUES(200, vec_f32('[200,1,2,3]')); UPDATE v SET"
               " e=vec_f32('[60,1,2,3]') WHERE id=2; INSERT INTO v VALUES(9,"
               " vec_f32('[800,1,2,3]'))" + (make if when == "there" else ""))
    for d in (pair.here, pair.there):
        for x, want in [(100, 100), (50, 1), (60, 2), (200, 200), (800, 9),
                        (900, 201)]:
            assert d.one("SELECT rowid FROM vec_search('x', vec_f32(?), 1)",
                         f"[{x},1,2,3]") == want
        assert d.rows("SELECT 1 FROM vec_search('x', vec_f32('[8,1,2,3]'), 20)"
                      " WHERE rowid=8") == []
    pair.here.one("SELECT vec_index_optimize('x')")
    assert pair.here.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'


def test_undo_is_right_or_refused(pair):
    pair.part("CREATE TABLE t(id TEXT PRIMARY KEY, a, b); INSERT INTO t VALUES"
              "('x', 1, 1), ('y', 2, 2); CREATE TABLE s(id INTEGER PRIMARY KEY, a);"
              "INSERT INTO s VALUES(1, 's'); SELECT log_track('t'); SELECT"
              " log_track('s')")
    for sql in ("UPDATE t SET a='mine' WHERE id='x'", "UPDATE s SET a='mine'"):
        pair.here.run(sql)
        time.sleep(0.003)  # records of one millisecond are one action
    pair.there.run("UPDATE t SET b='yours' WHERE id='x'")
    time.sleep(0.003)
    pair.merge("INSERT INTO s(a) VALUES('new')", "DELETE FROM t WHERE id='y'")
    seq = {tuple(r[:2]): r[2] for r in pair.both(
        "SELECT tbl, action_type, max(seq) FROM action_log WHERE tbl IN ('s', 't')"
        " GROUP BY 1, 2")}
    # Only this side changed s: undone as if there had been no merge.
    pair.here.one("SELECT log_undo(?)", seq["s", "ROW_INSERT"])
    pair.here.one("SELECT log_undo(?)", seq["s", "ROW_UPDATE"])
    assert pair.here.rows("SELECT * FROM s") == [(1, "s")]
    # Both changed t: what this side's records did there is not undone, and said;
    # the remote's are where their row did not change again.
    mine, yours = pair.here.rows("SELECT seq FROM action_log WHERE tbl='t' AND"
                                 " action_type='ROW_UPDATE' ORDER BY seq DESC")
    told = call(pair.here, "log_undo(?)", *mine)
    assert told["rows"] == 0 and "another device" in told["not_restored"][0]["why"]
    assert "has changed again since" in pair.here.error("SELECT log_undo(?)",
                                                        *yours)
    assert pair.here.one("SELECT a FROM t WHERE id='x'") == "mine"
    pair.here.one("SELECT log_undo(?)", seq["t", "ROW_DELETE"])
    assert pair.here.rows("SELECT * FROM t ORDER BY id") == [
        ("x", "mine", "yours"), ("y", 2, 2)]


def test_tables_that_are_called_as_sqlite_s_own_take_no_place_of_them(pair):
    pair.part("".join(f"CREATE TABLE {z}(name, value);" for z in (
        "json_each", "pragma_table_info", "pragma_table_xinfo", "pragma_table_list",
        "pragma_foreign_key_list")) +
        "CREATE TABLE p(id INTEGER PRIMARY KEY, v); INSERT INTO p VALUES(1, 'p');"
        "CREATE TABLE c(id TEXT PRIMARY KEY, p REFERENCES p, v);"
        "SELECT log_track('p'); SELECT log_track('c')")
    pair.merge("INSERT INTO c VALUES('mine', 1, 1); UPDATE p SET v='mine'",
               "INSERT INTO c VALUES('yours', 1, 2); INSERT INTO p VALUES(2, 'q')")
    assert pair.both("SELECT * FROM c ORDER BY id") == [("mine", 1, 1), ("yours", 1, 2)]
    assert pair.both("SELECT * FROM p ORDER BY id") == [(1, "mine"), (2, "q")]
    assert pair.here.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'


def test_events_of_both_are_kept_and_replayed_in_order(pair):
    pair.part("CREATE TABLE n(id TEXT PRIMARY KEY, v); SELECT event_define('v1.Set',"
              " '{\"id\":\"text\",\"v\":\"any\"}', 'INSERT INTO n VALUES("
              "NEW.payload->>''$.id'', NEW.payload->>''$.v'') ON CONFLICT(id) DO"
              " UPDATE SET v=excluded.v'); SELECT event_emit('v1.Set',"
              " '{\"id\":\"a\",\"v\":1}')")
    pair.merge("SELECT event_emit('v1.Set', '{\"id\":\"m\",\"v\":2}')",
               "SELECT event_emit('v1.Set', '{\"id\":\"y\",\"v\":3}'); SELECT"
               " event_emit('v1.Set', '{\"id\":\"y\",\"v\":4}')")
    before = pair.both("SELECT * FROM n ORDER BY id")
    assert before == [("a", 1), ("m", 2), ("y", 4)]
    assert pair.both("SELECT e.seq FROM event_log e JOIN action_log l ON l.tbl="
                     "'event_log' AND l.pk=e.seq AND l.id=e.id ORDER BY 1") == [
        (1,), (2,), (3,), (4,)]
    pair.here.one("SELECT event_replay()")
    assert pair.here.rows("SELECT * FROM n ORDER BY id") == before


@pytest.mark.once
@pytest.mark.parametrize("pragma", [
    "encoding='UTF-16le'", "page_size=512", "page_size=65536", "auto_vacuum=FULL"])
def test_every_kind_of_file(tmp_path, open_db, url, pragma):
    here = open_db(tmp_path / "here.db", pragmas=[pragma], init=True)
    there = open_db(tmp_path / "there.db", pragmas=[pragma])
    here.run("CREATE TABLE t(id TEXT PRIMARY KEY, a); INSERT INTO t VALUES('ü', 1),"
             " ('y', 2); CREATE TABLE b(x); INSERT INTO b VALUES('ö')")
    push(here, url)
    pull(there, url)
    there.run("UPDATE t SET a='ß' WHERE id='ü'; INSERT INTO b VALUES('é')")
    push(there, url)
    here.run("UPDATE t SET a='ñ'; INSERT INTO b VALUES('å'); DELETE FROM b WHERE"
             " x='ö'")
    pull(here, url, "merge")
    assert here.rows("SELECT * FROM t ORDER BY a") == [("ü", "ß"), ("y", "ñ")]
    assert here.rows("SELECT * FROM b ORDER BY x") == [("å",), ("é",)]
    assert '"here":"ñ","there":"ß"' in here.one(
        "SELECT payload FROM action_log WHERE action_type='SYNC_CONFLICT'")
    assert here.one("PRAGMA integrity_check") == "ok"


def test_foreign_keys_that_name_no_key_do_not_stand_in_the_way(pair):
    pair.part("CREATE TABLE p(a); CREATE TABLE c(id INTEGER PRIMARY KEY, x"
              " REFERENCES p(a), y REFERENCES nowhere(z)); INSERT INTO c VALUES"
              "(1, 1, 1)")
    pair.merge("INSERT INTO c VALUES(2, 2, 2)", "INSERT INTO c VALUES(3, 3, 3)")
    assert pair.both("SELECT id FROM c") == [(1,), (2,), (3,)]


def test_content_moved_to_the_object_store_is_no_change(pair):
    pair.part("SELECT artifact_put('/a', 'one'); SELECT artifact_put('/b', 'two')")
    moved = ("UPDATE artifacts SET content=NULL, s3_key='users/u/artifacts/' || id"
             " WHERE path='%s'")
    out = pair.merge("SELECT artifact_put('/a', 'ONE');" + moved % "/b",
                     moved % "/a" + "; SELECT artifact_put('/b', 'TWO')")
    assert out["conflicts"] == []
    assert pair.both("SELECT path, CAST(content AS TEXT), s3_key IS NULL FROM"
                     " artifacts ORDER BY 1") == [("/a", "ONE", 1),
                                                  ("/b", "TWO", 1)]


def test_a_database_in_memory_and_one_in_a_schema_of_its_own(tmp_path, open_db,
                                                             db, url):
    push(db, url)
    other = open_db(":memory:")
    other.run("ATTACH ':memory:' AS ws; SELECT choir_config('schema', 'ws')")
    pull(other, url)
    put(db, "/theirs")
    push(db, url)
    other.run("INSERT INTO ws.artifacts(path, name) VALUES('/mine', 'mine')")
    pull(other, url, "merge")
    assert paths(other) == ["/mine", "/theirs"]
    push(other, url)
    pull(db, url)
    assert paths(db) == ["/mine", "/theirs"]


@pytest.mark.once
def test_an_encrypted_remote_and_one_that_was_compacted(pair, url):
    key = ("SELECT choir_secret('k', '{\"type\":\"sync\",\"scope\":\"file:///\","
           f"\"key\":\"{'5a' * 32}\"}}')")
    for d in (pair.here, pair.there):
        d.rows(key)
    pair.part()
    put(pair.there, "/theirs")
    push(pair.there, url)
    call(pair.there, "sync_compact(?, 'snapshot')", url)
    put(pair.here, "/mine")
    assert pull(pair.here, url, "merge")["encrypted"] == 1
    assert paths(pair.here) == ["/mine", "/theirs"]


@pytest.mark.once
def test_a_push_that_lost_is_merged_from_the_version_before_it(pair, url):
    """The loser of a race has a head that is nowhere else."""
    pair.part()
    put(pair.there, "/theirs")
    push(pair.there, url)
    for i in range(2):
        put(pair.here, f"/mine{i}")
        assert "'merge'" in pair.here.error("SELECT sync_push(?)", url)
    pair.here.rows("INSERT INTO _choir_sync_history VALUES(99, randomblob(16), 1,"
                   " 'lost')")
    pull(pair.here, url, "merge")
    assert paths(pair.here) == ["/mine0", "/mine1", "/theirs"]
    assert state(pair.here, url) == "push"
    put(pair.there, "/more")
    push(pair.there, url)
    put(pair.here, "/again")  # merged, not pushed, and merged again
    pull(pair.here, url, "merge")
    assert push(pair.here, url)["pushed"] == 1
    pull(pair.there, url)
    assert paths(pair.there) == ["/again", "/mine0", "/mine1", "/more", "/theirs"]


def test_status_names_the_ways_out(pair, url):
    pair.part()
    put(pair.there, "/theirs")
    push(pair.there, url)
    put(pair.here, "/mine")
    detail = pair.here.one("SELECT detail FROM sync_status(?)", url)
    assert "'merge'" in detail and "'theirs'" in detail and "'fork'" in detail


@pytest.mark.inprocess
def test_a_file_that_another_connection_writes_is_left_alone(pair, url):
    pair.part()
    put(pair.there, "/theirs")
    push(pair.there, url)
    put(pair.here, "/mine")
    pair.here.run("PRAGMA busy_timeout=50")
    third = type(pair.here)(pair.here.path)
    third.rows("BEGIN IMMEDIATE")
    text = pair.here.error("SELECT sync_pull(?, 'merge')", url)
    third.rows("ROLLBACK")
    third.close()
    assert "another connection is using this file" in text
    assert paths(pair.here) == ["/mine"]
    pull(pair.here, url, "merge")
    assert paths(pair.here) == ["/mine", "/theirs"]


@pytest.mark.once
@pytest.mark.inprocess
def test_what_is_committed_while_a_merge_works_is_not_lost(pair, url):
    """Another connection writes all the time: a merge gives up or has it all."""
    pair.part("PRAGMA journal_mode=WAL")
    done, written = threading.Event(), []

    def write():
        third = type(pair.here)(pair.here.path)
        while not done.is_set():
            put(third, f"/third{len(written)}")
            written.append(f"/third{len(written)}")
            time.sleep(0.02)
        third.close()

    thread = threading.Thread(target=write)
    put(pair.here, "/mine")
    thread.start()
    for i in range(6):
        put(pair.there, f"/theirs{i}")
        push(pair.there, url)
        try:
            pull(pair.here, url, "merge")
            push(pair.here, url)
            pull(pair.there, url)
        except pair.here.failure as e:
            assert "changed this file" in str(e) or "using this file" in str(e) or (
                "being written" in str(e)), str(e)
    done.set()
    thread.join()
    pull(pair.here, url, "merge")
    assert {*written, "/mine", "/theirs0"} <= set(paths(pair.here))
    assert len(written) > 1


@pytest.mark.once
@pytest.mark.inprocess
def test_an_interrupt_in_a_merge_changes_nothing(pair, url, open_db, tmp_path):
    pair.part("CREATE TABLE t(id INTEGER PRIMARY KEY, a); WITH RECURSIVE n(i) AS"
              " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) INSERT"
              " INTO t SELECT i, hex(i) FROM n")
    pair.there.run("UPDATE t SET a=-1 WHERE id % 3 = 0")
    push(pair.there, url)
    pair.here.run("UPDATE t SET a=1 WHERE id % 3 = 1")
    mine = pair.here.rows("SELECT count(*), sum(a = 1) FROM t")
    pair.here.one("SELECT choir_backup(?)", str(tmp_path / "copy.db"))
    copy, start = open_db(tmp_path / "copy.db"), time.monotonic()
    pull(copy, url, "merge")
    taken, stopped = time.monotonic() - start, 0
    for part in (0.1, 0.25, 0.4, 0.55, 0.7, 0.85, None):
        timer = threading.Timer((part or 0) * taken, pair.here.con.interrupt)
        if part:
            timer.start()
        try:
            pull(pair.here, url, "merge")
            break
        except pair.here.failure as e:
            assert "interrupted" in str(e).lower(), str(e)
            stopped += 1
            assert pair.here.rows("SELECT count(*), sum(a = 1) FROM t") == mine
        finally:
            timer.cancel()
    assert stopped > 0
    assert pair.here.rows("SELECT sum(a = 1), sum(a = -1) FROM t") == [
        (20000, 20000)]
