# SPDX-License-Identifier: MIT
"""A workspace without choir: the stock sqlite3 shell reads, writes, dumps,
vacuums and alters it, and the rules that triggers keep hold there too."""
import json
import re
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.once  # it is the stock shell under every driver

SHELL = shutil.which("sqlite3", path="/usr/bin:/bin") or "sqlite3"

TABLES = ["artifacts", "action_log", "agent_tasks", "citations", "sync_state",
          "conversation_history", "messages", "user_settings", "server_cache",
          "server_state", "state_storage", "personas", "memories"]
VIEWS = ["files", "conversations", "chat", "tasks_open", "citation_totals",
         "active_persona", "persona_memories", "tasks_failed", "state_leaves",
         "sync_health", "timeline", "nola_conversation_history"]

# A row of each table, as somebody without choir would write it.
INSERTS = """
INSERT INTO artifacts(id, path, name, content) VALUES('a1', '/d/a.md', 'a.md', 'hello');
INSERT INTO action_log(action_type, payload) VALUES('COMMAND', '{}');
INSERT INTO agent_tasks(task_type, input) VALUES('t', '{}');
INSERT INTO citations(source_artifact_id, citing_run_id, weight) VALUES('a1', 'run', 1);
INSERT INTO sync_state VALUES('lastSyncTimestamp', '0');
INSERT INTO conversation_history(id, title) VALUES('c1', 'Plans');
INSERT INTO messages(id, conversation_id, role, content) VALUES('m1', 'c1', 'user', 'Hi');
INSERT INTO user_settings(setting_name, setting_value) VALUES('theme', 'dark');
INSERT INTO server_cache(key, value) VALUES('k', x'00');
INSERT INTO server_state(server, key, value) VALUES('s', 'k', 'v');
INSERT INTO state_storage(key_name, value_json) VALUES('Identity', '{}');
INSERT INTO personas(id, name) VALUES('p1', 'Ada');
INSERT INTO memories(persona_id, content) VALUES('p1', 'likes tea');
"""


@pytest.fixture(params=[(f, r) for f in (0, 1) for r in (0, 1)],
                ids=lambda p: f"fk{p[0]}-recursive{p[1]}")
def plain(request, tmp_path, open_db):
    """plain(sql) runs the stock shell on a fresh workspace -> list of rows."""
    foreign, recursive = request.param
    open_db(tmp_path / "ws.db", init=True).close()

    def run(sql, fail=False):
        script = (f"PRAGMA synchronous=OFF; PRAGMA foreign_keys={foreign}; PRAGMA recursive_triggers={recursive};"
                  f"PRAGMA trusted_schema=0;\n.dbconfig defensive on\n"
                  f".dbconfig dqs_ddl off\n.dbconfig dqs_dml off\n"
                  f".mode json\n{sql}")
        out = subprocess.run([SHELL, "-bail", str(tmp_path / "ws.db")], input=script,
                             capture_output=True, text=True)
        text = out.stdout[out.stdout.find("["):] if "[" in out.stdout else ""
        if fail:
            assert out.returncode or out.stderr, text
            return out.stderr
        assert not out.stderr, out.stderr
        return [tuple(r.values()) for r in json.loads(text)] if text.strip() else []

    run.recursive, run.foreign = recursive, foreign
    return run


def test_every_table_can_be_read_written_and_emptied(plain):
    plain(INSERTS)
    counts = " UNION ALL ".join(f"SELECT count(*) AS n FROM {t}" for t in TABLES)
    assert all(n > 0 for n, in plain(counts))
    columns = dict(plain("SELECT m.name, c.name AS c FROM sqlite_schema AS m,"
                         " pragma_table_info(m.name) AS c WHERE c.pk = 0 GROUP BY 1"))
    plain(";".join(f"UPDATE {t} SET {columns[t]} = {columns[t]}" for t in TABLES))
    plain(" UNION ALL ".join(f"SELECT count(*) AS n FROM {v}" for v in VIEWS))
    plain(";".join(f"DELETE FROM {t}" for t in reversed(TABLES))
          + "; DELETE FROM action_log")  # it had recorded the rest
    left = dict(zip(TABLES, (n for n, in plain(counts))))
    assert left.pop("action_log") == 1  # whose last number stays taken
    assert set(left.values()) == {0}
    assert plain("PRAGMA integrity_check") == [("ok",)]


def test_it_can_be_dumped_and_read_back(plain, tmp_path, open_db):
    plain(INSERTS)
    dump = subprocess.run([SHELL, str(tmp_path / "ws.db"), ".dump"],
                          capture_output=True, text=True, check=True).stdout
    subprocess.run([SHELL, "-bail", str(tmp_path / "copy.db")], input=dump, text=True,
                   check=True, capture_output=True)
    d = open_db(tmp_path / "copy.db")
    assert json.loads(d.one("SELECT choir_check()"))["problems"] == []
    assert d.one("SELECT artifact_get('/d/a.md')") == "hello"
    assert d.rows("SELECT content, position FROM chat") == [("Hi", 1)]


def test_it_can_be_vacuumed_and_altered(plain):
    plain(INSERTS)
    plain("VACUUM; PRAGMA foreign_key_check")
    plain(";".join(f"ALTER TABLE {t} ADD COLUMN extra TEXT DEFAULT 'x';"
                   f"ALTER TABLE {t} RENAME COLUMN extra TO more;"
                   f"ALTER TABLE {t} DROP COLUMN more" for t in TABLES))
    assert plain("PRAGMA integrity_check") == [("ok",)]


def test_ids_and_times_come_by_themselves(plain):
    plain("INSERT INTO artifacts(path, name) VALUES('/a', 'a')")
    assert plain("SELECT id GLOB '????????-????-7???-[89ab]???-????????????' AS v,"
                 " lower(id) = id AS l, abs(created_at / 1000 -"
                 " strftime('%s', 'now')) < 5 AS t, substr(replace(id, '-', ''), 1, 12)"
                 " = printf('%012x', created_at) AS same FROM artifacts") == [(1, 1, 1, 1)]


def test_an_artifact_written_by_hand_never_has_a_stale_hash_size_or_name(plain):
    plain("INSERT INTO artifacts(id, path, name, content, hash, updated_at)"
          " VALUES('a', '/x/a.md', 'a.md', 'hällo', 'h', 5)")
    assert plain("SELECT size_bytes, hash, updated_at FROM artifacts") == [(6, "h", 5)]
    plain("UPDATE artifacts SET content = 'two' WHERE id = 'a'")
    assert plain("SELECT size_bytes, hash, updated_at > 5 AS t FROM artifacts") == [(3, None, 1)]
    plain("UPDATE artifacts SET path = '/y/z/b.md', updated_at = 7")
    assert plain("SELECT name, updated_at FROM artifacts") == [("b.md", 7)]
    plain("UPDATE artifacts SET path = '/c.md', name = 'own'")
    assert plain("SELECT name FROM artifacts") == [("own",)]
    plain("UPDATE artifacts SET hash = 'h2', content = 'three', size_bytes = 5")
    assert plain("SELECT hash FROM artifacts") == [("h2",)]
    plain("UPDATE artifacts SET content = NULL, s3_key = 'k', updated_at = 9")
    plain("UPDATE artifacts SET content = 'three', s3_key = NULL")
    assert plain("SELECT hash, size_bytes, updated_at FROM artifacts") == [("h2", 5, 9)]


@pytest.mark.parametrize("table, change", [
    ("artifacts", "metadata = '{\"k\":1}'"), ("conversation_history", "title = 'x'"),
    ("user_settings", "setting_value = 'x'"), ("server_state", "value = 'x'"),
    ("state_storage", "level = 1"), ("personas", "name = 'x'"), ("memories", "importance = 1"),
])
def test_updated_at_moves_with_every_change(plain, table, change):
    plain(INSERTS)
    plain(f"UPDATE {table} SET updated_at = 9000000000000")
    assert plain(f"SELECT updated_at FROM {table}") == [(9000000000000,)]
    plain(f"UPDATE {table} SET {change}")
    assert plain(f"SELECT updated_at FROM {table}") == [(9000000000001,)]
    plain(f"UPDATE {table} SET updated_at = 5")
    plain(f"UPDATE {table} SET {change}")
    assert plain(f"SELECT updated_at > 1700000000000 AS now FROM {table}") == [(1,)]


def test_a_message_moves_its_conversation(plain):
    plain(INSERTS)
    plain("UPDATE conversation_history SET updated_at = 5")
    plain("INSERT INTO messages(conversation_id, role, content, timestamp)"
          " VALUES('c1', 'assistant', 'Hello', 77)")
    assert plain("SELECT updated_at FROM conversation_history") == [(77,)]
    plain("UPDATE messages SET content = 'Hello!' WHERE timestamp = 77")
    assert plain("SELECT updated_at > 77 AS moved FROM conversation_history") == [(1,)]


def test_deleting_takes_what_belongs_to_it(plain):
    plain(INSERTS)
    plain("INSERT INTO messages(conversation_id, role, content) VALUES('c1', 'user', 'x');"
          "INSERT INTO conversation_history(id) VALUES('c2');"
          "INSERT INTO messages(id, conversation_id, role) VALUES('m2', 'c2', 'user');"
          "DELETE FROM conversation_history WHERE id = 'c1'; DELETE FROM personas")
    assert plain("SELECT id FROM messages") == [("m2",)]
    assert plain("SELECT id FROM memories") == []


def test_replace_keeps_messages_unless_the_host_asked_for_recursive_triggers(plain):
    """PRAGMA recursive_triggers makes REPLACE fire delete triggers: SQLite's rule."""
    plain(INSERTS)
    plain("REPLACE INTO conversation_history(id, title) VALUES('c1', 'Other')")
    assert plain("SELECT title FROM conversation_history") == [("Other",)]
    assert plain("SELECT count(*) FROM messages") == [(0 if plain.recursive else 1,)]


def test_an_upsert_never_deletes(plain):
    plain(INSERTS)
    plain("INSERT INTO conversation_history(id, title) VALUES('c1', 'Other')"
          " ON CONFLICT(id) DO UPDATE SET title = excluded.title;"
          "INSERT OR IGNORE INTO conversation_history(id, title) VALUES('c1', 'Third')")
    assert plain("SELECT title, (SELECT count(*) FROM messages) AS n"
                 " FROM conversation_history") == [("Other", 1)]


def test_one_persona_is_active_at_a_time(plain):
    plain("INSERT INTO personas(id, name, is_active) VALUES('p1', 'A', 1), ('p2', 'B', 1)")
    assert plain("SELECT id FROM active_persona") == [("p2",)]
    plain("UPDATE personas SET is_active = 1 WHERE id = 'p1'")
    assert plain("SELECT id, name FROM active_persona") == [("p1", "A")]
    plain("UPDATE personas SET is_active = 0")
    assert plain("SELECT id FROM active_persona") == []


@pytest.mark.parametrize("sql", [
    "INSERT INTO artifacts(path, name) VALUES('/d/a.md', 'again')",
    "INSERT INTO artifacts(path) VALUES('/x')",
    "INSERT INTO artifacts(path, name, size_bytes) VALUES('/x', 'x', -1)",
    "INSERT INTO agent_tasks(task_type, input, status) VALUES('t', '{}', 'DONE')",
    "INSERT INTO citations(source_artifact_id, citing_run_id, weight) VALUES('a1', 'r', 1.5)",
    "INSERT INTO citations(source_artifact_id, citing_run_id, weight) VALUES('a1', 'r', 'x')",
    "INSERT INTO citations(source_artifact_id, citing_run_id, weight) VALUES('a1', 'r', -0.1)",
    "INSERT INTO messages(conversation_id, role) VALUES('c1', 'robot')",
    "INSERT INTO state_storage(key_name, level) VALUES('x', 4)",
    "INSERT INTO personas(name, is_active) VALUES('x', 2)",
    "INSERT INTO memories(content, importance) VALUES('x', 2)",
    "INSERT INTO memories(importance) VALUES(1)",
])
def test_the_tables_check_what_they_are_given(plain, sql):
    plain(INSERTS)
    assert "constraint failed" in plain(sql, fail=True)


def test_the_views_show_people_what_they_want_to_know(plain):
    plain(INSERTS)
    plain("UPDATE conversation_history SET created_at = 0, updated_at = 1500;"
          "UPDATE agent_tasks SET created_at = 1000;"
          "UPDATE artifacts SET size_bytes = 1234567, updated_at = 2000;"
          "UPDATE citations SET created_at = 3000; UPDATE personas SET is_active = 1")
    assert plain("SELECT path, depth, size, stored, updated FROM files") == [
        ("/d/a.md", 2, "1.2 MB", "here", "1970-01-01T00:00:02.000Z")]
    assert plain("SELECT id, title, messages, created, updated FROM conversations") == [
        ("c1", "Plans", 1, "1970-01-01T00:00:00.000Z", "1970-01-01T00:00:01.500Z")]
    assert plain("SELECT task_type, created, started FROM tasks_open") == [
        ("t", "1970-01-01T00:00:01.000Z", None)]
    assert plain("SELECT path, deleted, citations, runs, weight, last_cited"
                 " FROM citation_totals") == [
        ("/d/a.md", 0, 1, 1, 1.0, "1970-01-01T00:00:03.000Z")]
    plain("UPDATE agent_tasks SET status = 'FAILED', error = 'x', completed_at = 4000;"
          "UPDATE state_storage SET value_json = '{\"a\":{\"b\":[1,null]},\"e\":{}}', updated_at = 0;"
          "UPDATE messages SET timestamp = 5000, metadata = '{\"speaker\":\"Nola\"}'")
    assert plain("SELECT error, failed FROM tasks_failed") == [("x", "1970-01-01T00:00:04.000Z")]
    assert plain("SELECT key, path, value, type, level, updated FROM state_leaves") == [
        ("Identity", "$.a.b[0]", 1, "integer", 3, "1970-01-01T00:00:00.000Z"),
        ("Identity", "$.a.b[1]", None, "null", 3, "1970-01-01T00:00:00.000Z")]
    assert plain("SELECT status, last_sync FROM sync_health") == [("changed", "1970-01-01T00:00:00.000Z")]
    assert plain("SELECT id, user_id, message, speaker, timestamp FROM nola_conversation_history") == [
        (1, "c1", "Hi", "Nola", "1970-01-01 00:00:05")]
    assert plain("SELECT name, memories FROM active_persona") == [("Ada", 1)]
    assert plain("SELECT persona, content FROM persona_memories") == [("Ada", "likes tea")]


@pytest.mark.parametrize("n, text", [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"),
                                     (999949, "999.9 kB"), (999950, "1.0 MB"),
                                     (999949999, "999.9 MB"), (999950000, "1.0 GB"),
                                     (None, None)])
def test_sizes_are_written_as_people_do(db, n, text):
    db.rows("INSERT INTO artifacts(path, name, size_bytes) VALUES('/a', 'a', ?)", n)
    assert db.one("SELECT size FROM files") == text


def test_no_function_of_choir_and_no_virtual_table_is_in_the_schema(db):
    functions = [r[0] for r in db.rows("SELECT name FROM choir_help")]
    schema = "\n".join(r[0] for r in db.rows("SELECT sql FROM sqlite_schema WHERE sql NOT NULL"))
    called = set(re.findall(r"\b([a-z_0-9]+)\(", schema))
    assert not called & set(functions)
    assert "VIRTUAL" not in schema
