# SPDX-License-Identifier: MIT
"""Conversations, messages and settings."""
import pytest


def test_messages_keep_their_order_and_move_the_conversation(db):
    conv = db.one("SELECT conversation_create('Plans')")
    db.run(f"UPDATE conversation_history SET updated_at = 5 WHERE id = '{conv}'")
    for i in range(20):
        db.one("SELECT message_add(?, ?, ?)", conv, ["user", "assistant"][i % 2], f"m{i}")
    assert db.rows("SELECT position, role, content, conversation FROM chat"
                   " WHERE conversation_id = ? ORDER BY position", conv) == [
        (i + 1, ["user", "assistant"][i % 2], f"m{i}", "Plans") for i in range(20)]
    assert db.one("SELECT updated_at = (SELECT max(timestamp) FROM messages)"
                  " FROM conversation_history") == 1
    assert db.rows("SELECT title, messages FROM conversations") == [("Plans", 20)]


def test_a_message_is_never_older_than_the_one_before(db):
    conv = db.one("SELECT conversation_create('x')")
    db.run(f"INSERT INTO messages(conversation_id, role, content, timestamp)"
           f" VALUES('{conv}', 'user', 'from the future', 9000000000000)")
    db.one("SELECT message_add(?, 'user', 'now')", conv)
    assert [r[0] for r in db.rows("SELECT content FROM chat ORDER BY position")] == [
        "from the future", "now"]


def test_times_are_shown_as_iso_text(db):
    conv = db.one("SELECT conversation_create('x')")
    db.run(f"INSERT INTO messages(conversation_id, role, content, timestamp)"
           f" VALUES('{conv}', 'user', 'x', 1700000000123)")
    assert db.one("SELECT time FROM chat") == "2023-11-14T22:13:20.123Z"


def test_rename_and_delete(db):
    a = db.one("SELECT conversation_create('a')")
    b = db.one("SELECT conversation_create(NULL)")
    db.one("SELECT message_add(?, 'user', 'x')", a)
    db.one("SELECT message_add(?, 'user', 'y')", b)
    assert db.one("SELECT conversation_rename(?, 'A')", a) == 1
    assert db.one("SELECT conversation_rename('none', 'A')") == 0
    assert db.one("SELECT title FROM conversation_history WHERE id=?", a) == "A"
    assert db.one("SELECT conversation_delete(?)", a) == 1
    assert db.one("SELECT conversation_delete(?)", a) == 0
    assert db.rows("SELECT content FROM messages") == [("y",)]


def test_a_tool_call_may_have_no_content(db):
    conv = db.one("SELECT conversation_create('x')")
    db.one("SELECT message_add(?, 'assistant', NULL, '{\"tool\":\"ls\"}')", conv)
    assert db.rows("SELECT content, metadata FROM messages") == [(None, '{"tool":"ls"}')]


@pytest.mark.parametrize("call, problem", [
    ("conversation_create(5)", "title must be text, got integer"),
    ("conversation_create(CAST(x'ff' AS TEXT))", "title is not valid UTF-8 at byte 0"),
    ("conversation_rename(NULL, 'x')", "conversation_id must be text, got null"),
    ("conversation_rename('x', x'00')", "title must be text, got blob"),
    ("conversation_delete(NULL)", "conversation_id must be text, got null"),
    ("message_add('x', 'user', 'y')", "no conversation 'x'; see conversation_create"),
    ("message_add(NULL, 'user', 'y')", "conversation_id must be text, got null"),
    ("message_add(c, 'usr', 'y')", "role must be user, assistant, system or tool,"
     " got 'usr'; did you mean 'user'?"),
    ("message_add(c, 'USER', 'y')", "role must be user, assistant, system or tool,"
     " got 'USER'"),
    ("message_add(c, '', 'y')", "role must be user, assistant, system or tool, got ''"),
    ("message_add(c, NULL, 'y')", "role must be text, got null"),
    ("message_add(c, 'user', NULL)", "content must be text, got null"),
    ("message_add(c, 'user', 5)", "content must be text, got integer"),
    ("message_add(c, 'user', 'a' || char(0))", "content has a NUL character at byte 1"),
    ("message_add(c, 'user', 'y', '{')", "metadata is not valid JSON: {"),
    ("setting_get(NULL)", "name must be text, got null"),
    ("setting_get('')", "name must have 1 to 1000 bytes, got 0"),
    ("setting_set('', 'x')", "name must have 1 to 1000 bytes, got 0"),
    ("setting_set(printf('%.*c', 1001, 'x'), 'x')", "name must have 1 to 1000 bytes, got 1001"),
    ("setting_set('x', x'00')", "value must be text, got blob"),
    ("setting_set('x', 'a' || char(0))", "value has a NUL character at byte 1"),
    ("setting_set(5, 'x')", "name must be text, got integer"),
])
def test_what_is_refused(db, call, problem):
    db.one("SELECT conversation_create('c')")
    name = call.split("(")[0]
    error = db.error(f"WITH c AS (SELECT id AS c FROM conversation_history) SELECT {call} FROM c")
    assert error.rstrip("'?") == f"{name}: {problem}".rstrip("'?")
    assert db.rows("SELECT title FROM conversation_history") == [("c",)]
    assert db.one("SELECT count(*) FROM messages") == 0
    assert db.one("SELECT count(*) FROM user_settings") == 0


def test_a_setting_is_set_changed_and_removed(db):
    assert db.one("SELECT setting_get('theme')") is None
    assert db.one("SELECT setting_set('theme', '{\"dark\":1}')") == 1
    assert db.one("SELECT setting_set('theme', '{\"dark\":1}')") == 0
    assert db.one("SELECT setting_get('theme')") == '{"dark":1}'
    before = db.one("SELECT updated_at FROM user_settings")
    assert db.one("SELECT setting_set('theme', 'light')") == 1
    assert db.one("SELECT updated_at FROM user_settings") > before
    assert db.one("SELECT setting_set('size', 12), setting_set('size', 12)") == 1
    assert db.one("SELECT setting_get('size')") == "12"
    assert db.one("SELECT setting_set('size', 12)") == 0
    assert db.one("SELECT setting_set('theme', NULL)") == 1
    assert db.one("SELECT setting_set('theme', NULL)") == 0
    assert db.rows("SELECT setting_name FROM user_settings") == [("size",)]
