# SPDX-License-Identifier: MIT
"""The log of a workspace: kept whole, read by consumers, added to."""
import json
import sqlite3

import pytest



def cursors(d):
    return dict(d.rows("SELECT consumer, seq FROM _choir_cursor"))


def log_triggers(d):
    return d.rows("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"
                  " AND name GLOB '_choir_log_*' ORDER BY name")


# -------------------------------------------------------------- consumers

def test_a_consumer_that_has_not_read_deleted_rows_starts_over(db):
    for i in range(5):
        db.one("SELECT log_record('A', ?)", str(i))
    db.run("INSERT INTO _choir_cursor VALUES('slow', 2), ('quick', 5)")
    db.run("DELETE FROM action_log WHERE seq <= 2")
    assert cursors(db) == {"slow": 2, "quick": 5}
    db.run("DELETE FROM action_log WHERE seq = 4")
    assert cursors(db) == {"slow": -1, "quick": 5}
    db.run("DELETE FROM action_log")
    assert cursors(db) == {"slow": -1, "quick": 5}


@pytest.mark.parametrize("column", ["seq", "rowid", "oid", "_rowid_"])
def test_moving_a_row_of_the_log_sends_every_consumer_back(column, db):
    db.one("SELECT log_record('A', '{}')")
    db.run("INSERT INTO _choir_cursor VALUES('c', 1)")
    db.run("UPDATE action_log SET synced = 1")
    assert cursors(db) == {"c": 1}
    db.run(f"UPDATE action_log SET {column} = 9")
    assert cursors(db) == {"c": -1}


@pytest.mark.parametrize("recursive", [0, 1])
@pytest.mark.parametrize("which", ["1", "seq = 3", "seq > 1", "rowid = 3"])
def test_a_sequence_number_is_never_used_twice(which, recursive, db):
    db.run(f"PRAGMA recursive_triggers = {recursive}")
    for i in range(3):
        db.one("SELECT log_record('A', '{}')")
    db.run(f"DELETE FROM action_log WHERE {which}")
    assert db.rows("SELECT seq, action_type, payload, tbl, pk FROM action_log"
                   " ORDER BY seq DESC LIMIT 1") == [(3, "LOG_CUT", "{}", None, None)]
    db.run(f"DELETE FROM action_log WHERE {which}")
    db.one("SELECT log_record('B', '{}')")
    assert db.rows("SELECT seq, action_type FROM action_log ORDER BY seq DESC"
                   " LIMIT 2") == [(4, "B"), (3, "LOG_CUT")]


def test_no_number_is_so_great_that_none_comes_after_it(db):
    assert "CHECK constraint failed" in db.error(
        "INSERT INTO action_log(seq, action_type) VALUES(9223372036854775807, 'A')")


# ----------------------------------------------------------------- repair

def test_init_puts_missing_triggers_back_and_says_so(db):
    want = log_triggers(db)
    db.run("INSERT INTO _choir_cursor VALUES('c', 0)")
    db.run("DROP TRIGGER _choir_log_messages_insert;"
           "DROP TRIGGER _choir_log_artifacts_foresee_update")
    problems = json.loads(db.one("SELECT choir_check()"))["problems"]
    assert [p["problem"] for p in problems] == [
        "trigger _choir_log_artifacts_foresee_update is missing; run select"
        " choir_init()",
        "trigger _choir_log_messages_insert is missing; run select"
        " choir_init()"]
    assert db.rows("SELECT status, detail FROM choir_doctor"
                   " WHERE \"check\" = 'log triggers'") == [
        ("fail", "changes may go unrecorded: 2")]
    db.one("SELECT choir_init()")
    assert log_triggers(db) == want
    assert db.rows("SELECT action_type, payload FROM action_log") == [
        ("LOG_GAP", '{"triggers":2}')]
    assert cursors(db) == {"c": -1}
    assert db.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'


def test_a_changed_trigger_is_made_again(db):
    want = log_triggers(db)
    db.run("DROP TRIGGER _choir_log_messages_delete;"
           "CREATE TRIGGER _choir_log_messages_delete AFTER DELETE ON messages"
           " BEGIN SELECT 1; END")
    assert "is not as choir makes it" in db.one("SELECT choir_check()")
    db.one("SELECT choir_init()")
    assert log_triggers(db) == want


def test_a_trigger_that_is_no_longer_used_goes(db):
    want = log_triggers(db)
    db.run("CREATE TRIGGER _choir_log_old AFTER DELETE ON messages"
           " BEGIN SELECT 1; END")
    assert "_choir_log_old is no longer used" in db.one("SELECT choir_check()")
    db.one("SELECT choir_init()")
    assert log_triggers(db) == want


def test_names_in_the_file_are_no_place_for_the_schema(db):
    db.run('CREATE TRIGGER "_choir_log_~.a%s" AFTER DELETE ON messages'
           ' BEGIN SELECT 1; END; CREATE TABLE "_choir_~.b"(x)')
    db.one("SELECT choir_init()")
    assert db.one("SELECT count(*) FROM sqlite_schema"
                  " WHERE name = '_choir_log_~.a%s'") == 0
    assert db.one("SELECT choir_uninstall()") > 0
    assert db.rows("SELECT name FROM sqlite_schema WHERE name"
                   " GLOB '_choir_*'") == []


def test_a_schema_may_have_any_name(tmp_path, open_db):
    d = open_db(tmp_path / "host.db")
    d.rows('ATTACH ? AS "100%s ""~.ws"', str(tmp_path / "ws.db"))
    d.one("SELECT choir_init('100%s \"~.ws')")
    d.run('CREATE TABLE "100%s ""~.ws".t(a)')
    d.one("SELECT log_track('t')")
    d.run('INSERT INTO "100%s ""~.ws".t VALUES(1)')
    d.one("SELECT log_undo()")
    assert d.one('SELECT count(*) FROM "100%s ""~.ws".t') == 0
    assert d.one("SELECT log_untrack('t')") == 1
    assert d.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'


def test_a_second_init_writes_nothing(db):
    before = db.one("SELECT count(*) FROM action_log"), log_triggers(db)
    db.one("SELECT choir_init()")
    assert (db.one("SELECT count(*) FROM action_log"),
            log_triggers(db)) == before


def test_a_rebuilt_table_is_recorded_again_after_init(tmp_path, db, open_db):
    db.one("SELECT conversation_create('talk')")
    plain = open_db(tmp_path / "ws.db", choir=False)
    sql = plain.one("SELECT sql FROM sqlite_schema WHERE name = 'messages'")
    plain.run("PRAGMA legacy_alter_table = 1; BEGIN;"
              + sql.replace("messages", "new_messages", 1)
              + ";INSERT INTO new_messages SELECT * FROM messages;"
              "DROP TABLE messages;"
              "ALTER TABLE new_messages RENAME TO messages; COMMIT")
    plain.run("INSERT INTO messages(id, conversation_id, role)"
              " SELECT 'm', id, 'user' FROM conversation_history")
    assert plain.one("SELECT count(*) FROM action_log WHERE tbl='messages'") == 0
    assert "_choir_log_messages_insert is missing" in db.one(
        "SELECT choir_check()")
    db.one("SELECT choir_init()")
    db.run("UPDATE messages SET content = 'x'")
    assert db.rows("SELECT action_type FROM action_log"
                   " ORDER BY seq DESC LIMIT 2") == [
        ("MESSAGE_UPDATE",), ("LOG_GAP",)]


def test_columns_may_come_and_change_their_names_without_choir(
        tmp_path, db, open_db):
    plain = open_db(tmp_path / "ws.db", choir=False)
    plain.run("ALTER TABLE artifacts ADD COLUMN mine TEXT DEFAULT 'x'")
    plain.run("INSERT INTO artifacts(path, name) VALUES('/a', 'a')")
    plain.run("UPDATE artifacts SET mine = 'y'")
    plain.run("ALTER TABLE artifacts RENAME COLUMN mine TO ours")
    plain.run("ALTER TABLE artifacts RENAME COLUMN mime_type TO kind")
    plain.run("UPDATE artifacts SET kind = 'text/plain'")
    plain.run("ALTER TABLE artifacts DROP COLUMN ours")
    assert [t for t, in db.rows("SELECT action_type FROM action_log")] == [
        "ARTIFACT_CREATE", "ARTIFACT_UPDATE"]
    assert "table artifacts has no column mime_type" in db.one(
        "SELECT choir_check()")
    db.one("SELECT choir_init()")  # leaves what SQLite has renamed
    plain.run("UPDATE artifacts SET kind = NULL")
    plain.run("ALTER TABLE artifacts RENAME COLUMN kind TO mime_type")
    db.one("SELECT choir_init()")
    assert db.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
    assert db.one("SELECT count(*) FROM action_log"
                  " WHERE action_type = 'ARTIFACT_UPDATE'") == 2


def test_an_expression_index_of_the_user_is_reported_not_fatal(db):
    db.run("CREATE UNIQUE INDEX mine ON memories(lower(content))")
    db.one("SELECT choir_init()")
    assert "unique index mine of table memories is on an expression" in db.one(
        "SELECT choir_check()")
    db.run("INSERT INTO memories(content) VALUES('a')")
    assert db.one("SELECT count(*) FROM action_log"
                  " WHERE action_type = 'MEMORY_ADD'") == 1


def test_a_unique_index_of_the_user_is_followed_after_init(db):
    db.run("CREATE UNIQUE INDEX mine ON memories(content COLLATE NOCASE)")
    db.one("SELECT choir_init()")
    db.run("INSERT INTO memories(id, content) VALUES('a', 'x');"
           "INSERT OR REPLACE INTO memories(id, content) VALUES('b', 'X')")
    assert db.rows("SELECT action_type, pk FROM action_log"
                   " WHERE tbl = 'memories' ORDER BY seq") == [
        ("MEMORY_ADD", "a"), ("MEMORY_DELETE", "a"), ("MEMORY_ADD", "b")]


def test_uninstall_leaves_the_log_and_no_trigger(db):
    db.one("SELECT log_record('A', '{}')")
    db.one("SELECT choir_uninstall()")
    assert log_triggers(db) == []
    assert db.one("SELECT count(*) FROM action_log") == 1
    db.run("INSERT INTO artifacts(path, name) VALUES('/a', 'a')")


def test_a_dump_restores_the_log_and_its_triggers(tmp_path, db):
    db.one("SELECT artifact_put('/a', 'x')")
    db.run("INSERT INTO _choir_cursor VALUES('c', 1)")
    source = sqlite3.connect(tmp_path / "ws.db")
    copy = sqlite3.connect(":memory:")
    copy.executescript("\n".join(source.iterdump()))
    copy.execute("UPDATE artifacts SET content = 'y'")
    assert copy.execute("SELECT action_type FROM action_log"
                        " ORDER BY seq").fetchall() == [
        ("ARTIFACT_CREATE",), ("ARTIFACT_UPDATE",)]
    assert copy.execute("SELECT seq FROM _choir_cursor").fetchall() == [(1,)]
    source.close()
    copy.close()


def test_triggers_name_no_function_that_sqlite_calls_unsafe(db):
    for name, sql in log_triggers(db):
        assert "json" not in sql.lower().replace("value_json", ""), name
    assert "json_" not in db.one(
        "SELECT sql FROM sqlite_schema WHERE name = 'timeline'")


# ------------------------------------------------------------- log_record

def test_log_record_adds_a_row_and_returns_its_id(db):
    i = db.one("SELECT log_record('RUN.START_2', '{\"label\":\"nightly\"}')")
    assert db.rows("SELECT id, action_type, payload, synced, tbl, pk"
                   " FROM action_log") == [
        (i, "RUN.START_2", '{"label":"nightly"}', 0, None, None)]
    assert db.rows("SELECT type, label FROM timeline") == [
        ("RUN.START_2", "nightly")]
    db.one("SELECT log_record('ID', ?)", "9" * 40)
    assert db.one("SELECT payload FROM action_log WHERE action_type = 'ID'") \
        == "9" * 40


@pytest.mark.parametrize("arguments, message", [
    (("a", "{}"), "type must be 1 to 64 of A-Z, 0-9, _ and ., got 'a'"),
    (("", "{}"), "type must be 1 to 64 of A-Z, 0-9, _ and ., got ''"),
    (("A" * 65, "{}"), "type must be 1 to 64"),
    ((None, "{}"), "type must be text, got null"),
    ((1, "{}"), "type must be text, got integer"),
    (("A", None), "payload must be text, got null"),
    (("A", b"{}"), "payload must be text, got blob"),
    (("A", "{"), "payload is not valid JSON: {"),
    (("A", ""), "payload is not valid JSON: "),
    (("A", "[" * 10000 + "]" * 10000), "payload is not valid JSON"),
])
def test_log_record_refuses_what_is_no_action(arguments, message, db):
    assert db.error("SELECT log_record(?, ?)", *arguments).startswith(
        "log_record: " + message)
    assert db.one("SELECT count(*) FROM action_log") == 0


def test_log_record_needs_a_workspace(open_db):
    assert open_db().error("SELECT log_record('A', '{}')") == (
        "log_record: no workspace in schema main; run select choir_init()")


def test_metrics_count_the_log(db):
    db.one("SELECT log_record('A', '{}')")
    db.one("SELECT log_record('A', '{}')")
    db.run("UPDATE action_log SET synced = 1 WHERE seq = 1")
    assert db.rows("SELECT name, value FROM choir_metrics"
                   " WHERE name GLOB 'log.*'") == [
        ("log.rows", 2), ("log.unpublished", 1)]


def test_the_log_works_in_an_attached_workspace(tmp_path, open_db):
    d = open_db(tmp_path / "host.db")
    d.run("CREATE TABLE action_log(mine)")
    d.rows("ATTACH ? AS ws", str(tmp_path / "ws.db"))
    d.one("SELECT choir_init('ws')")
    d.one("SELECT artifact_put('/a', 'x')")
    d.one("SELECT log_record('A', '{}')")
    assert d.rows("SELECT type FROM ws.timeline ORDER BY seq") == [
        ("ARTIFACT_CREATE",), ("A",)]
    assert d.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
