# SPDX-License-Identifier: MIT
"""Which action each change of a workspace is: the matrix of docs/log.md."""
import json
import re

import pytest

from conftest import ROOT, Db

A, B = "id-a", "id-b"
ARTIFACT = ("INSERT INTO artifacts(id, path, name, content) VALUES"
            f"('{A}', '/a.md', 'a.md', 'text')")
TALK = f"INSERT INTO conversation_history(id, title) VALUES('{A}', 'talk')"
TASK = f"INSERT INTO agent_tasks(id, task_type, input) VALUES('{A}', 'sum', 1)"
STATE = "INSERT INTO state_storage(key_name, value_json) VALUES('k', '1')"
SERVER = "INSERT INTO server_state(server, key, value) VALUES('s', 'k', 1)"
SETTING = ("INSERT INTO user_settings(setting_name, setting_value)"
           " VALUES('theme', 'dark')")
PERSONA = f"INSERT INTO personas(id, name) VALUES('{A}', 'Ada')"
MEMORY = ("INSERT INTO memories(id, persona_id, content) VALUES"
          f"('{B}', '{A}', 'tea')")
MESSAGE = ("INSERT INTO messages(id, conversation_id, role, content) VALUES"
           f"('{B}', '{A}', 'user', 'hi')")
CITATION = ("INSERT INTO citations(id, source_artifact_id, citing_run_id,"
            f" weight) VALUES('{B}', '{A}', 'run', 0.5)")
PATH = {"path": "/a.md"}

# what was there, what is done, actions: (type, pk, part of the payload)
MATRIX = [
    ([], ARTIFACT, [("ARTIFACT_CREATE", A, PATH)]),
    ([ARTIFACT], "UPDATE artifacts SET content = 'more'",
     [("ARTIFACT_UPDATE", A, PATH)]),
    ([ARTIFACT], "UPDATE artifacts SET content = CAST('text' AS BLOB)",
     [("ARTIFACT_UPDATE", A, PATH)]),
    ([ARTIFACT], "UPDATE artifacts SET mime_type = 'text/plain'",
     [("ARTIFACT_UPDATE", A, PATH)]),
    ([ARTIFACT], "UPDATE artifacts SET metadata = NULL",
     [("ARTIFACT_UPDATE", A, PATH)]),
    ([ARTIFACT], "UPDATE artifacts SET path = '/b.md'",
     [("ARTIFACT_MOVE", A, {"path": "/b.md", "from": "/a.md"})]),
    ([ARTIFACT], "UPDATE artifacts SET deleted_at = 1, content = NULL",
     [("ARTIFACT_DELETE", A, PATH)]),
    ([ARTIFACT, "UPDATE artifacts SET deleted_at = 1"],
     "UPDATE artifacts SET deleted_at = NULL", [("ARTIFACT_CREATE", A, PATH)]),
    ([ARTIFACT, "UPDATE artifacts SET deleted_at = 1"],
     "UPDATE artifacts SET path = '/c'", []),
    ([ARTIFACT, "UPDATE artifacts SET deleted_at = 1"], "DELETE FROM artifacts",
     [("ARTIFACT_PURGE", A, PATH)]),
    ([ARTIFACT], "DELETE FROM artifacts", [("ARTIFACT_DELETE", A, PATH)]),
    ([ARTIFACT], "UPDATE artifacts SET id = 'id-b'",
     [("ARTIFACT_DELETE", A, {}), ("ARTIFACT_CREATE", B, PATH)]),
    ([ARTIFACT], "INSERT OR REPLACE INTO artifacts(id, path, name)"
     f" VALUES('{B}', '/a.md', 'a.md')",
     [("ARTIFACT_DELETE", A, {}), ("ARTIFACT_CREATE", B, PATH)]),
    ([ARTIFACT], "INSERT OR IGNORE INTO artifacts(id, path, name)"
     f" VALUES('{B}', '/a.md', 'a.md')", []),
    ([ARTIFACT], f"INSERT INTO artifacts(id, path, name) VALUES('{B}', '/a.md',"
     " 'a.md') ON CONFLICT(path) WHERE deleted_at IS NULL DO UPDATE SET"
     " mime_type = 'x'", [("ARTIFACT_UPDATE", A, PATH)]),
    ([ARTIFACT], "UPDATE artifacts SET updated_at = 7, created_at = 7", []),
    ([ARTIFACT], "UPDATE artifacts SET s3_key = 'k', content = NULL", []),
    ([], TALK, [("CONVERSATION_CREATE", A, {"title": "talk"})]),
    ([TALK], "UPDATE conversation_history SET title = 'chat'",
     [("CONVERSATION_UPDATE", A, {"title": "chat"})]),
    ([TALK], "UPDATE conversation_history SET updated_at = 7", []),
    ([TALK, MESSAGE], "DELETE FROM conversation_history",
     [("MESSAGE_DELETE", B, {"conversation": A}),
      ("CONVERSATION_DELETE", A, {"title": "talk"})]),
    ([TALK], MESSAGE, [("MESSAGE_ADD", B, {"conversation": A})]),
    ([TALK, MESSAGE], "UPDATE messages SET content = NULL",
     [("MESSAGE_UPDATE", B, {"conversation": A})]),
    ([TALK, MESSAGE], "DELETE FROM messages",
     [("MESSAGE_DELETE", B, {"conversation": A})]),
    ([], SETTING, [("SETTING_SET", "theme", {})]),
    ([SETTING], "UPDATE user_settings SET setting_value = 'light'",
     [("SETTING_SET", "theme", {})]),
    ([SETTING], "UPDATE user_settings SET setting_value = 'dark'", []),
    ([SETTING], "DELETE FROM user_settings",
     [("SETTING_DELETE", "theme", {})]),
    ([], TASK, [("TASK_ADD", A, {"type": "sum"})]),
    ([TASK], "UPDATE agent_tasks SET status = 'RUNNING', started_at = 1",
     [("TASK_START", A, {"type": "sum"})]),
    ([TASK], "UPDATE agent_tasks SET status = 'COMPLETED', output = 2",
     [("TASK_DONE", A, {"type": "sum"})]),
    ([TASK], "UPDATE agent_tasks SET status = 'FAILED', error = 'x'",
     [("TASK_FAIL", A, {"type": "sum"})]),
    ([TASK, "UPDATE agent_tasks SET status = 'FAILED'"],
     "UPDATE agent_tasks SET status = 'PENDING'",
     [("TASK_RETRY", A, {"type": "sum"})]),
    ([TASK], "UPDATE agent_tasks SET input = 2",
     [("TASK_UPDATE", A, {"type": "sum"})]),
    ([TASK], "UPDATE agent_tasks SET lease_until = 5, completed_at = 6", []),
    ([TASK], "DELETE FROM agent_tasks", [("TASK_DELETE", A, {"type": "sum"})]),
    ([ARTIFACT], CITATION, [("CITATION_ADD", B, {
        "artifact": A, "weight": 0.5})]),
    ([ARTIFACT, CITATION], "UPDATE citations SET weight = 1",
     [("CITATION_UPDATE", B, {"weight": 1.0})]),
    ([ARTIFACT, CITATION], "DELETE FROM citations",
     [("CITATION_DELETE", B, {"artifact": A})]),
    ([], STATE, [("STATE_SET", "k", {})]),
    ([STATE], "UPDATE state_storage SET value_json = '2'",
     [("STATE_SET", "k", {})]),
    ([STATE], "UPDATE state_storage SET level = 1",
     [("STATE_SET", "k", {})]),
    ([STATE], "DELETE FROM state_storage", [("STATE_DELETE", "k", {})]),
    ([], SERVER, [("SERVER_STATE_SET", '["s","k"]', {})]),
    ([SERVER], "UPDATE server_state SET value = x'00'",
     [("SERVER_STATE_SET", '["s","k"]', {})]),
    ([SERVER], "DELETE FROM server_state",
     [("SERVER_STATE_DELETE", '["s","k"]', {})]),
    ([], PERSONA, [("PERSONA_CREATE", A, {"name": "Ada"})]),
    ([PERSONA], "UPDATE personas SET name = 'Bea'",
     [("PERSONA_UPDATE", A, {"name": "Bea"})]),
    ([PERSONA], "UPDATE personas SET is_active = 1",
     [("PERSONA_ACTIVATE", A, {"name": "Ada"})]),
    ([PERSONA, "UPDATE personas SET is_active = 1"],
     "UPDATE personas SET is_active = 0",
     [("PERSONA_DEACTIVATE", A, {"name": "Ada"})]),
    ([PERSONA, MEMORY], "DELETE FROM personas",
     [("MEMORY_DELETE", B, {"persona": A}),
      ("PERSONA_DELETE", A, {"name": "Ada"})]),
    ([PERSONA], MEMORY, [("MEMORY_ADD", B, {"persona": A})]),
    ([PERSONA, MEMORY], "UPDATE memories SET importance = 1",
     [("MEMORY_UPDATE", B, {"persona": A})]),
    ([PERSONA, MEMORY], "DELETE FROM memories",
     [("MEMORY_DELETE", B, {"persona": A})]),
    ([], "INSERT INTO server_cache(key, value) VALUES('k', 1)", []),
    ([], "INSERT INTO sync_state(key, value) VALUES('k', 1)", []),
]
PRAGMAS = [(r, f, t) for r in (0, 1) for f in (0, 1) for t in (0, 1)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A workspace as bytes, to be used without choir."""
    path = tmp_path_factory.mktemp("matrix") / "ws.db"
    d = Db(path, init=True)
    d.rows("PRAGMA journal_mode=delete")
    d.close()
    return path.read_bytes()


def parts(payload, expected):
    payload = json.loads(payload)
    return {k: payload.get(k) for k in expected}


@pytest.mark.parametrize("before, change, expected", MATRIX)
def test_each_change_is_its_action_without_choir(
        before, change, expected, plain, tmp_path, open_db):
    path = tmp_path / "ws.db"
    for recursive, keys, trusted in PRAGMAS:
        path.write_bytes(plain)
        d = open_db(path, choir=False, pragmas=(
            f"recursive_triggers={recursive}", f"foreign_keys={keys}",
            f"trusted_schema={trusted}", "synchronous=off"))
        for sql in before:
            d.rows(sql)
        seq = d.one("SELECT coalesce(max(seq), 0) FROM action_log")
        d.rows(change)
        got = d.rows("SELECT action_type, pk, payload FROM action_log"
                     " WHERE seq > ? ORDER BY seq", seq)
        assert [g[:2] for g in got] == [e[:2] for e in expected]
        for (_, _, payload), (_, _, part) in zip(got, expected):
            assert parts(payload, part) == part
        d.close()


@pytest.mark.parametrize("recursive, expected", [
    (0, ["SETTING_SET"]), (1, ["SETTING_DELETE", "SETTING_SET"])])
def test_a_key_written_again_by_replace_is_an_insert(recursive, expected, db):
    """With recursive_triggers SQLite fires the delete trigger, too."""
    db.run(SETTING)
    db.run(f"PRAGMA recursive_triggers = {recursive}")
    db.run(SETTING.replace("INSERT", "INSERT OR REPLACE"))
    assert [t for t, in db.rows("SELECT action_type FROM action_log WHERE"
                                " seq > 1 ORDER BY seq")] == expected


def test_the_matrix_has_every_action_of_the_page_and_no_other():
    page = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`",
                          (ROOT / "docs/log.md").read_text()))
    tested = {e[0] for _, _, expected in MATRIX for e in expected}
    rooms = {a for a in page if a.startswith(("LOG_", "SYNC_"))}  # not by a row
    assert page - rooms == tested


HARD = ["x'00ff'", "CAST(x'61ff62' AS TEXT)", "CAST(x'c3' AS TEXT)",
        "CAST(x'6100ff' AS TEXT)", "'quote \" back \\ slash'", "'tab\tline\n'",
        "char(1) || char(127)", "'日本語 é 😀'", "''", "9e999", "-9e999", "1.5",
        "9223372036854775807", "replace(hex(zeroblob(5000)), '00', 'é')",
        "replace(hex(zeroblob(5000)), '00', 'ab')"]


@pytest.mark.parametrize("value", HARD)
def test_a_payload_is_small_valid_json_whatever_is_stored(value, db):
    db.run(f"""
        INSERT INTO artifacts(path, name, hash, mime_type)
          VALUES({value}, {value}, {value}, {value});
        INSERT INTO conversation_history(id, title) VALUES({value}, {value});
        INSERT INTO state_storage(key_name, value_json)
          VALUES({value}, {value});
        INSERT INTO server_state(server, key, value)
          VALUES({value}, {value}, {value});
        INSERT INTO agent_tasks(id, task_type, input)
          VALUES({value}, {value}, {value});
        UPDATE artifacts SET path = 'other';
        UPDATE artifacts SET path = {value};
        UPDATE server_state SET key = 'other';
        DELETE FROM state_storage""")
    rows = db.rows("SELECT CAST(payload AS BLOB), json_valid(payload), tbl,"
                   " CAST(pk AS BLOB) FROM action_log")
    assert len(rows) == 10
    for payload, valid, table, pk in rows:
        text = payload.decode(errors="replace")
        assert valid and isinstance(json.loads(text), dict)
        assert len(text) < 1000
        if table == "server_state":
            assert len(json.loads(pk.decode())) == 2
    assert len(db.rows("SELECT CAST(label AS BLOB) FROM timeline")) == 10


def test_the_payload_shows_text_as_it_is_up_to_200_characters(db):
    for text, shown in (("日本 \"é\\😀", "日本 \"é\\😀"), ("é" * 300, "é" * 200),
                        ("x" * 300, "x" * 200), ("a\tb", None), ("", ""),
                        ("a\0b", "a")):
        db.rows("INSERT INTO conversation_history(title) VALUES(?)", text)
        payload = db.one("SELECT payload FROM action_log"
                         " ORDER BY seq DESC LIMIT 1")
        assert json.loads(payload) == {"title": shown}


def test_functions_of_the_store_are_recorded_once(db):
    artifact = db.one("SELECT artifact_put('/n.md', 'one')")
    db.one("SELECT artifact_put('/n.md', 'two')")
    db.one("SELECT artifact_put('/n.md', 'two')")
    db.one("SELECT artifact_move('/n.md', '/m.md')")
    db.one("SELECT artifact_delete('/m.md')")
    assert db.rows("SELECT type, id, label FROM timeline ORDER BY seq") == [
        ("ARTIFACT_CREATE", artifact, "/n.md"),
        ("ARTIFACT_UPDATE", artifact, "/n.md"),
        ("ARTIFACT_MOVE", artifact, "/m.md"),
        ("ARTIFACT_DELETE", artifact, "/m.md")]
