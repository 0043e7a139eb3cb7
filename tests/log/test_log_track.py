# SPDX-License-Identifier: MIT
"""log_track and log_undo: any table of the host, whatever happens to it."""
import json
import sqlite3
import time

import pytest


def undo(db, *arguments):
    return json.loads(db.one(
        f"SELECT log_undo({','.join('?' * len(arguments))})", *arguments))


def tail(db):
    return db.one("SELECT coalesce(max(seq), 0) FROM action_log")


def types(db, since=0):
    return [t for t, in db.rows("SELECT action_type FROM action_log"
                                " WHERE seq > ? ORDER BY seq", since)]


def later():
    """Statements of one millisecond count as one action."""
    time.sleep(0.003)


@pytest.fixture
def tea(db):
    db.run("CREATE TABLE tea(id INTEGER PRIMARY KEY, name TEXT, grams REAL)")
    db.one("SELECT log_track('tea', '{\"labels\":[\"name\"]}')")
    return db


# ------------------------------------------------------------- log_track

def test_changes_of_a_tracked_table_are_records(tea):
    tea.run("INSERT INTO tea VALUES(1, 'oolong', 5); UPDATE tea SET grams = 6;"
            "UPDATE tea SET grams = 6; DELETE FROM tea")
    assert tea.rows("SELECT action_type, payload, tbl, pk FROM action_log") == [
        ("ROW_INSERT", '{"name":"oolong"}', "tea", 1),
        ("ROW_UPDATE", '{"name":"oolong"}', "tea", 1),
        ("ROW_DELETE", '{"name":"oolong"}', "tea", 1)]


@pytest.mark.parametrize("table", [
    "t(id INTEGER PRIMARY KEY, a)", "t(id INTEGER PRIMARY KEY, a BLOB)",
    "t(id INTEGER PRIMARY KEY, a ANY) STRICT"])
def test_a_value_that_changes_only_its_type_changes(table, db):
    db.run(f"CREATE TABLE {table}; INSERT INTO t VALUES(1, 1)")
    db.one("SELECT log_track('t')")
    db.run("UPDATE t SET a = 1.0; UPDATE t SET a = 1.0")
    assert db.one("SELECT count(*) FROM action_log WHERE tbl = 't'") == 1
    assert undo(db)["rows"] == 1
    assert db.one("SELECT typeof(a) FROM t") == "integer"


def test_a_row_that_enters_a_partial_index_takes_the_place_of_another(db):
    db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, path, gone);"
           "CREATE UNIQUE INDEX live ON t(path) WHERE gone IS NULL;"
           "INSERT INTO t VALUES(1, 'a', NULL), (2, 'a', 5)")
    db.one("SELECT log_track('t')")
    db.run("UPDATE OR REPLACE t SET gone = NULL WHERE id = 2")
    assert sorted(db.rows("SELECT action_type, pk FROM action_log"
                          " WHERE tbl = 't'")) == [
        ("ROW_DELETE", 1), ("ROW_UPDATE", 2)]
    undo(db)
    assert db.rows("SELECT * FROM t") == [(1, "a", None), (2, "a", 5)]


def test_what_replaces_nothing_is_forgotten(db):
    db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE)")
    db.one("SELECT log_track('t')")
    db.run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100)"
           " INSERT INTO t SELECT i, i FROM n;"
           "INSERT OR IGNORE INTO t SELECT id + 100, u FROM t")
    assert db.one("SELECT count(*) FROM t") == 100
    assert db.one("SELECT count(*) FROM _choir_log_candidate") == 32


def test_only_columns_that_count_are_recorded_and_undone(db):
    db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)")
    db.one("SELECT log_track('t', '{\"columns\":[\"a\"]}')")
    db.run("INSERT INTO t VALUES(1, 1, 1)")
    point = tail(db)
    db.run("UPDATE t SET b = 2; UPDATE t SET a = 2")
    assert types(db, point) == ["ROW_UPDATE"]
    undo(db, point, "since")
    assert db.rows("SELECT a FROM t") == [(1,)]


def test_without_undo_nothing_is_kept(db):
    db.run("CREATE TABLE t(a)")
    assert db.one("SELECT log_track('t', '{\"undo\":false}')") == (
        '{"table":"t","undo":0}')
    db.run("INSERT INTO t VALUES(1)")
    assert types(db) == ["ROW_INSERT"]
    assert db.error("SELECT log_undo()") == (
        "log_undo: no table keeps its rows; run select log_track('…')")
    db.one("SELECT log_track('t')")  # the options may change
    db.run("UPDATE t SET a = 2")
    undo(db, 1, "since")
    assert db.rows("SELECT a FROM t") == [(1,)]
    db.one("SELECT log_track('t', '{\"undo\":false}')")
    assert db.rows("SELECT name FROM sqlite_schema WHERE name GLOB"
                   " '_choir_undo_*'") == []


@pytest.mark.parametrize("arguments, message", [
    (("no",), "table no does not exist"),
    ((None,), "table must be text, got null"),
    (("v",), "v is a view, not a table"),
    (("action_log",), "action_log is bookkeeping and cannot be tracked"),
    (("_choir_meta",), "_choir_meta is bookkeeping and cannot be tracked"),
    (("sqlite_schema",), "sqlite_schema is bookkeeping and cannot be tracked"),
    (("t", "[]"), "options must be a JSON object"),
    (("t", "{"), "options is not valid JSON"),
    (("t", '{"column":["a"]}'),
     "no option 'column'; there are columns, labels and undo"),
    (("t", '{"columns":"a"}'),
     "columns must be an array of 1 to 64 names of columns"),
    (("t", '{"labels":[1]}'),
     "labels must be an array of 1 to 6 names of columns"),
    (("t", '{"columns":["no"]}'), "table t has no column no"),
    (("t", '{"undo":"yes"}'), "undo must be true or false"),
    (("messages", '{"labels":["role"]}'),
     "what is recorded of messages is fixed; its only option is undo"),
])
def test_what_cannot_be_tracked_says_why(arguments, message, db):
    db.run("CREATE TABLE t(a); CREATE VIEW v AS SELECT 1")
    before = db.rows("SELECT name FROM sqlite_schema ORDER BY 1")
    assert db.error(f"SELECT log_track({','.join('?' * len(arguments))})",
                    *arguments).startswith("log_track: " + message)
    assert db.rows("SELECT name FROM sqlite_schema ORDER BY 1") == before


def test_untrack_leaves_the_records_and_nothing_else(tea):
    tea.run("INSERT INTO tea(name) VALUES('x')")
    assert tea.one("SELECT log_untrack('TEA')") == 1
    assert tea.one("SELECT log_untrack('tea')") == 0
    tea.run("DELETE FROM tea; ALTER TABLE tea DROP COLUMN grams")
    assert types(tea) == ["ROW_INSERT"]
    assert tea.rows("SELECT name FROM sqlite_schema WHERE name GLOB"
                    " '_choir_undo_*' OR name GLOB '_choir_log_@*'") == []


def test_plain_sqlite_is_recorded_and_undone_the_same(tmp_path, tea):
    plain = sqlite3.connect(tmp_path / "ws.db")
    plain.execute("INSERT INTO tea VALUES(1, 'a', 0.1 + 0.2), (2, 'b', 9e999)")
    plain.execute("UPDATE tea SET name = x'00ff' WHERE id = 1")
    plain.commit()
    point = tail(tea)
    content = tea.rows("SELECT * FROM tea")
    plain.execute("DELETE FROM tea")
    plain.execute("INSERT OR REPLACE INTO tea VALUES(1, 'c', NULL)")
    plain.commit()
    assert types(tea, point) == ["ROW_DELETE", "ROW_DELETE", "ROW_INSERT"]
    undo(tea, point, "since")
    assert tea.rows("SELECT * FROM tea") == content == [
        (1, b"\0\xff", 0.1 + 0.2), (2, "b", float("inf"))]
    plain.close()


# -------------------------------------------------------------- log_undo

def test_undo_goes_back_step_by_step_and_redo_forward(tea):
    states, undone = [], []
    for sql in ("INSERT INTO tea VALUES(1, 'a', 1)",
                "INSERT INTO tea VALUES(2, 'b', 2), (3, 'c', 3)",
                "UPDATE tea SET grams = grams * 2", "DELETE FROM tea"):
        states.append(tea.rows("SELECT * FROM tea"))
        tea.run(sql)
        later()
    for state in reversed(states):
        undone.append(undo(tea)["seq"])
        assert tea.rows("SELECT * FROM tea") == state
    assert undo(tea) == {"seq": None, "from": 1, "to": 0, "rows": 0,
                         "not_restored": []}
    for seq, state in zip(reversed(undone), states[1:]):
        undo(tea, seq)
        assert tea.rows("SELECT * FROM tea") == state


def test_an_action_that_something_built_on_is_refused(tea):
    tea.run("INSERT INTO tea VALUES(1, 'a', 1), (2, 'b', 2)")
    later()
    tea.run("UPDATE tea SET grams = 5 WHERE id = 1")
    change = tail(tea)
    later()
    tea.run("UPDATE tea SET name = 'z' WHERE id = 2")
    later()
    undo(tea, change)  # another row: independent
    assert tea.rows("SELECT * FROM tea") == [(1, "a", 1.0), (2, "z", 2.0)]
    tea.run("UPDATE tea SET grams = 7 WHERE id = 1")
    assert tea.error("SELECT log_undo(?)", change).startswith(
        'log_undo: {"table":"tea","key":1} has changed again since record 3')
    assert tea.rows("SELECT * FROM tea") == [(1, "a", 7.0), (2, "z", 2.0)]


def test_cascades_are_one_action(db):
    for pragma in (0, 1):
        db.run(f"PRAGMA foreign_keys = {pragma}")
        if not pragma:
            db.one("SELECT log_track('messages')")
            db.one("SELECT log_track('conversation_history')")
        c = db.one("SELECT conversation_create('talk')")
        for text in "abc":
            db.one("SELECT message_add(?, 'user', ?)", c, text)
        later()
        before = db.rows("SELECT rowid, * FROM messages")
        db.one("SELECT conversation_delete(?)", c)
        assert db.one("SELECT count(*) FROM messages") == len(before) - 3
        undo(db)
        assert db.rows("SELECT rowid, * FROM messages") == before
        assert db.one("SELECT title FROM conversation_history"
                      " WHERE id = ?", c) == "talk"


def test_a_workspace_table_is_tracked_for_undo(db):
    db.one("SELECT artifact_put('/a', 'one')")
    later()
    assert db.one("SELECT log_track('artifacts')") == (
        '{"table":"artifacts","undo":1}')
    db.one("SELECT artifact_put('/a', 'two')")
    later()
    before = db.rows("SELECT * FROM artifacts")
    db.one("SELECT artifact_delete('/a')")
    later()
    undo(db)
    assert db.rows("SELECT * FROM artifacts") == before
    undo(db)
    assert db.one("SELECT artifact_get('/a')") == "one"
    assert db.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
    assert db.one("SELECT log_untrack('artifacts')") == 1
    assert db.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
    db.one("SELECT artifact_put('/b', 'x')")
    assert types(db)[-1] == "ARTIFACT_CREATE"


def test_a_trigger_that_stamps_every_update_is_overruled(db):
    db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a, at INTEGER);"
           "CREATE TRIGGER stamp AFTER UPDATE ON t BEGIN"
           " UPDATE t SET at = random() WHERE id = NEW.id; END")
    db.one("SELECT log_track('t')")
    db.run("INSERT INTO t VALUES(1, 1, 7), (2, 2, 7)")
    point = tail(db)
    db.run("UPDATE t SET a = 9")
    assert undo(db, point, "since")["not_restored"] == []
    assert db.rows("SELECT * FROM t") == [(1, 1, 7), (2, 2, 7)]
    db.run("UPDATE t SET a = 9")  # triggers are on again
    assert db.one("SELECT at FROM t") != 7


def test_rows_that_refer_to_each_other_come_back(db):
    db.run("PRAGMA foreign_keys = 1;"
           "CREATE TABLE a(id INTEGER PRIMARY KEY, b REFERENCES b"
           " DEFERRABLE INITIALLY DEFERRED);"
           "CREATE TABLE b(id INTEGER PRIMARY KEY, a REFERENCES a)")
    db.one("SELECT log_track('a')")
    db.one("SELECT log_track('b')")
    db.run("BEGIN; INSERT INTO a VALUES(1, 1); INSERT INTO b VALUES(1, 1);"
           "COMMIT")
    point = tail(db)
    db.run("BEGIN; DELETE FROM b; DELETE FROM a; COMMIT")
    assert undo(db, point, "since")["not_restored"] == []
    assert db.rows("SELECT * FROM a, b") == [(1, 1, 1, 1)]


@pytest.mark.parametrize("begin", ["", "BEGIN"])
def test_an_undo_that_leaves_rows_without_their_parent_is_refused(begin, db):
    db.run("PRAGMA foreign_keys=1; CREATE TABLE p(id INTEGER PRIMARY KEY);"
           "CREATE TABLE c(p REFERENCES p)")
    db.one("SELECT log_track('p')")
    db.run(f"INSERT INTO p VALUES(1); INSERT INTO c VALUES(1); {begin}")
    assert db.error("SELECT log_undo()") == (
        "log_undo: undone, rows would refer to others that are not there")
    if begin:
        db.run("COMMIT")
    assert db.rows("SELECT * FROM p JOIN c") == [(1, 1)]


@pytest.mark.parametrize("does, why", [
    ("RAISE(ABORT, 'row 2 stays')", "row 2 stays"),
    ("RAISE(IGNORE)", "a trigger ignores it")])
def test_what_a_trigger_refuses_is_named(does, why, db):
    db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    db.one("SELECT log_track('t')")
    db.run("INSERT INTO t VALUES(1, 'x'), (2, 'y');"
           "CREATE TRIGGER keep BEFORE DELETE ON t WHEN OLD.id = 2 BEGIN"
           f" SELECT {does}; END")
    said = undo(db, 0, "since")
    assert (said["rows"], said["not_restored"]) == (
        1, [{"table": "t", "key": 2, "why": why}])
    assert db.rows("SELECT id FROM t") == [(2,)]


def test_undo_is_one_transaction(tea):
    tea.run("INSERT INTO tea VALUES(1, 'a', 1)")
    before = tea.rows("SELECT * FROM tea")
    tea.run("BEGIN")
    undo(tea, 0, "since")
    assert tea.rows("SELECT * FROM tea") == []
    tea.run("ROLLBACK")
    assert tea.rows("SELECT * FROM tea") == before


@pytest.mark.parametrize("arguments, message", [
    ((99,), "there is no record 99 in the log"),
    (("x",), "seq must be"),
    ((-1,), "seq must be"),
    ((1, "all"), "what must be only or since, got 'all'"),
    ((None, "since"), "'since' needs the seq of a record, got null; 0 is the "
     "beginning"),
    ((2,), "record 2 (RUN) is about no row, so there is nothing to undo"),
])
def test_what_cannot_be_undone_says_why(arguments, message, tea):
    tea.run("INSERT INTO tea(name) VALUES('a')")
    tea.one("SELECT log_record('RUN', '{}')")
    assert tea.error(f"SELECT log_undo({','.join('?' * len(arguments))})",
                     *arguments).startswith("log_undo: " + message)


def test_rows_of_tables_that_are_not_kept_are_named(tea):
    tea.run("INSERT INTO user_settings(setting_name) VALUES('theme')")
    said = undo(tea, 0, "since")
    assert [(r["table"], r["key"]) for r in said["not_restored"]] == [
        ("user_settings", "theme")]


def test_rows_that_changed_before_they_were_kept_are_named(db):
    db.run("INSERT INTO user_settings(setting_name) VALUES('old')")
    db.one("SELECT log_track('user_settings')")
    db.run("INSERT INTO user_settings(setting_name) VALUES('new')")
    why = [{"table": "user_settings", "key": "old",
            "why": "changed before log_track() kept its rows"}]
    assert undo(db, 1, "since")["not_restored"] == []
    assert undo(db, 1)["not_restored"] == why
    assert undo(db, 0, "since")["not_restored"] == why
    assert db.rows("SELECT setting_name FROM user_settings") == [("old",)]
    db.one("SELECT log_track('user_settings', '{\"undo\":false}')")
    db.one("SELECT log_track('user_settings')")
    assert undo(db, 1, "since")["not_restored"] == [
        {**why[0], "key": "new"}]


def test_a_null_key_tells_no_row_apart(db):
    db.run("CREATE TABLE t(k TEXT PRIMARY KEY, v)")
    db.one("SELECT log_track('t')")
    db.run("INSERT INTO t VALUES(NULL, 1), ('a', 2)")
    said = undo(db, 0, "since")
    assert [r["key"] for r in said["not_restored"]] == [None]
    assert db.rows("SELECT * FROM t") == [(None, 1)]


# -------------------------------------- tables that plain SQL alters

def test_a_renamed_table_is_followed(tmp_path, tea):
    tea.run("INSERT INTO tea VALUES(1, 'a', 1)")
    point = tail(tea)
    plain = sqlite3.connect(tmp_path / "ws.db")
    plain.execute("ALTER TABLE tea RENAME TO \"my tea\"")
    plain.execute("ALTER TABLE \"my tea\" RENAME COLUMN name TO \"the name\"")
    plain.execute("UPDATE \"my tea\" SET \"the name\" = 'b'")
    plain.commit()
    plain.close()
    assert undo(tea, point, "since")["not_restored"] == []
    assert tea.rows('SELECT * FROM "my tea"') == [(1, "a", 1.0)]
    tea.run('UPDATE "my tea" SET grams = 2')
    assert tea.rows("SELECT tbl, payload FROM action_log ORDER BY seq DESC"
                    " LIMIT 1") == [("my tea", '{"the name":"a"}')]
    assert "LOG_GAP" not in types(tea)
    assert tea.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'


def test_an_added_column_is_kept_from_the_next_call_on(tmp_path, tea):
    tea.run("INSERT INTO tea VALUES(1, 'a', 1), (2, 'b', 2)")
    point = tail(tea)
    plain = sqlite3.connect(tmp_path / "ws.db")
    plain.execute("ALTER TABLE tea ADD COLUMN more TEXT DEFAULT 'd'")
    plain.execute("UPDATE tea SET grams = 9, more = 'm' WHERE id = 1")
    plain.execute("DELETE FROM tea WHERE id = 2")
    plain.commit()
    plain.close()
    assert undo(tea, point, "since")["not_restored"] == [
        {"table": "tea", "key": 2,
         "why": "without columns that were added later"}]
    assert tea.rows("SELECT * FROM tea") == [
        (1, "a", 1.0, "m"), (2, "b", 2.0, "d")]
    point = tail(tea)
    tea.run("UPDATE tea SET more = NULL; DELETE FROM tea")
    assert undo(tea, point, "since")["not_restored"] == []
    assert tea.rows("SELECT more FROM tea") == [("m",), ("d",)]


def test_a_rebuilt_table_is_followed_again_and_its_gap_named(tmp_path, tea):
    tea.run("INSERT INTO tea VALUES(1, 'a', 1), (2, 'b', 2)")
    plain = sqlite3.connect(tmp_path / "ws.db")
    plain.executescript(
        "CREATE TABLE new(grams REAL, name TEXT, id INTEGER PRIMARY KEY, x);"
        "INSERT INTO new SELECT grams, name, id, 'x' FROM tea;"
        "DROP TABLE tea; ALTER TABLE new RENAME TO tea;"
        "UPDATE tea SET grams = 7 WHERE id = 1")
    plain.close()
    assert "_choir_log_@1_insert is missing" in tea.one("SELECT choir_check()")
    tea.one("SELECT choir_init()")
    assert types(tea)[-1] == "LOG_GAP"
    point = tail(tea)
    tea.run("UPDATE tea SET grams = 8, x = NULL WHERE id = 2")
    assert undo(tea, point, "since")["not_restored"] == []
    assert tea.rows("SELECT id, name, grams, x FROM tea") == [
        (1, "a", 7.0, "x"), (2, "b", 2.0, "x")]
    said = undo(tea, 0, "since")  # the rows that were there came unseen
    assert said["not_restored"][0]["key"] is None
    assert "its triggers were missing" in said["not_restored"][0]["why"]


def test_vacuum_renumbers_rows_without_a_key(db):
    db.run("CREATE TABLE t(a); INSERT INTO t VALUES(1), (2), (3);"
           "DELETE FROM t WHERE a = 1")
    db.one("SELECT log_track('t')")
    db.run("UPDATE t SET a = a * 10; VACUUM; UPDATE t SET a = a + 1")
    said = undo(db, 0, "since")
    assert "VACUUM renumbered" in said["not_restored"][0]["why"]


@pytest.mark.parametrize("alter", [
    "DROP COLUMN a", "DROP COLUMN d",
    "DROP COLUMN a; ALTER TABLE t ADD COLUMN e",
    "RENAME COLUMN a TO e; ALTER TABLE t RENAME COLUMN b TO b"])
def test_the_watch_stays_on_its_column_when_another_one_goes(alter, db):
    db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c, d)")
    db.one("SELECT log_track('t', '{\"columns\":[\"b\"],\"labels\":[\"b\"],"
           "\"undo\":false}')")
    db.run(f"INSERT INTO t(id, b) VALUES(1, 'x'); ALTER TABLE t {alter}")
    db.one("SELECT choir_init()")
    assert db.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
    point = tail(db)
    db.run("UPDATE t SET c = 1; UPDATE t SET b = 'y'")
    assert db.rows("SELECT action_type, payload FROM action_log WHERE seq > ?",
                   point) == [("ROW_UPDATE", '{"b":"y"}')]
    assert "LOG_GAP" not in types(db)


def test_a_dropped_table_stops_nothing(tea):
    tea.run("INSERT INTO tea VALUES(1, 'a', 1); DROP TABLE tea")
    assert ("table tea does not exist; its changes may go unrecorded;"
            " log_untrack() stops following it") in tea.one("SELECT choir_check()")
    said = undo(tea, 0, "since")
    assert said["not_restored"][0]["why"] == "table tea does not exist"
    assert tea.one("SELECT log_untrack('tea')") == 1
    assert tea.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'


def test_names_of_all_kinds(db):
    db.run('CREATE TABLE "a ""~.b\'"("x y" INTEGER PRIMARY KEY, "se\'l""ect",'
           ' "~.c")')
    db.one("SELECT log_track(?, ?)", "a \"~.b'",
           json.dumps({"labels": ["se'l\"ect", "~.c"]}))
    db.run('INSERT INTO "a ""~.b\'" VALUES(1, \'v\', 2)')
    assert json.loads(db.one("SELECT payload FROM action_log")) == {
        "se'l\"ect": "v", "~.c": None}
    undo(db, 0, "since")
    assert db.one('SELECT count(*) FROM "a ""~.b\'"') == 0


# ------------------------------------------------- log_changes, log_prune

def test_changes_since_a_place(tea):
    tea.run("INSERT INTO tea(name) VALUES('a'), ('b')")
    tea.one("SELECT log_record('RUN', '{}')")
    columns = "seq, action_type, tbl, pk"
    assert tea.rows(f"SELECT {columns} FROM log_changes(1)") == [
        (2, "ROW_INSERT", "tea", 2), (3, "RUN", None, None)]
    assert tea.rows(f"SELECT {columns} FROM log_changes(0, 'TEA')") == [
        (1, "ROW_INSERT", "tea", 1), (2, "ROW_INSERT", "tea", 2)]
    assert len(tea.rows("SELECT * FROM log_changes")) == 3
    assert tea.rows("SELECT * FROM log_changes(3)") == []
    assert tea.error("SELECT * FROM log_changes(-1)").startswith(
        "log_changes: since must be")


def test_pruning_keeps_what_somebody_needs(tea):
    tea.run("INSERT INTO tea(name) VALUES('a'), ('b'), ('c'), ('d')")
    far = 99999999999999

    def prune(*arguments):
        said = json.loads(tea.one(
            f"SELECT log_prune({','.join('?' * len(arguments))})", *arguments))
        return said["removed"], said["held_by"]

    assert prune(far) == (0, "synced=0")
    tea.run("UPDATE action_log SET synced = 1 WHERE seq < 4;"
            "INSERT INTO _choir_cursor VALUES('text', 1)")
    assert prune(1000) == (0, None)
    assert prune(far) == (1, "consumer text")
    tea.run("UPDATE _choir_cursor SET seq = 3")
    assert prune(far) == (2, "synced=0")
    assert tea.one("SELECT seq FROM _choir_cursor") == 3
    assert prune(far, "all") == (0, "consumer text")
    assert tea.error("SELECT * FROM log_changes(2)") == (
        "log_changes: records up to 3 were pruned, so that what came after 2 is"
        " not all there")
    assert tea.error("SELECT log_undo(2, 'since')").startswith(
        "log_undo: records up to 3 were pruned")
    undo(tea, 3, "since")
    assert tea.rows("SELECT name FROM tea") == [("a",), ("b",), ("c",)]


@pytest.mark.parametrize("sql, message", [
    ("log_prune(NULL)", "before must be"), ("log_prune('x')", "before must be"),
    ("log_prune(1, 'some')", "what must be synced or all, got 'some'")])
def test_prune_refuses_what_it_does_not_know(sql, message, db):
    assert db.error(f"SELECT {sql}").startswith("log_prune: " + message)


@pytest.mark.parametrize("call", [
    "log_track('t')", "log_untrack('t')", "log_undo()", "log_prune(1)",
    "log_seal()", "log_verify()", "log_prove(1)"])
def test_everything_needs_a_workspace(call, open_db):
    name = call.split("(")[0]
    assert open_db().error(f"SELECT {call}") == (
        f"{name}: no workspace in schema main; run select choir_init()")


def test_tracking_works_in_an_attached_workspace(tmp_path, open_db):
    d = open_db(tmp_path / "host.db")
    d.run("CREATE TABLE t(a)")
    d.rows("ATTACH ? AS ws", str(tmp_path / "ws.db"))
    d.one("SELECT choir_init('ws')")
    d.run("CREATE TABLE ws.t(a)")
    d.one("SELECT log_track('t')")
    d.run("INSERT INTO ws.t VALUES(1); INSERT INTO main.t VALUES(2)")
    undo(d, 0, "since")
    assert d.rows("SELECT * FROM ws.t") == []
    assert d.rows("SELECT * FROM main.t") == [(2,)]
