# SPDX-License-Identifier: MIT
"""choir_init and choir_uninstall on databases that are somebody else's."""
import json
import os
import re

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def made():
    """(type, name) of all that sql/*.sql creates."""
    out = []
    for name in sorted(os.listdir(os.path.join(ROOT, "sql"))):
        if name.endswith(".sql"):
            with open(os.path.join(ROOT, "sql", name)) as f:
                out += re.findall(r"^CREATE (?:UNIQUE )?(TABLE|VIEW|INDEX) ~\.(\w+)", f.read(), re.M)
    return out


@pytest.mark.parametrize("kind, name", made(), ids=lambda x: x)
@pytest.mark.parametrize("host", ["table", "view", "index"])
def test_a_name_of_the_host_is_refused_and_nothing_is_left(open_db, kind, name, host):
    d = open_db()
    d.run("CREATE TABLE own(a)")
    d.run({"table": f"CREATE TABLE {name.upper()}(mine)",
           "view": f"CREATE VIEW {name} AS SELECT 1 AS mine",
           "index": f"CREATE INDEX {name} ON own(a)"}[host])
    before = d.rows("SELECT name, sql FROM sqlite_schema")
    assert d.error("SELECT choir_init()") == (
        f"choir_init: schema main already has {name}; rename it or attach another file"
        " and choose it by select choir_config('schema', …)")
    assert d.rows("SELECT name, sql FROM sqlite_schema") == before
    assert d.one("PRAGMA user_version") == 0


def test_all_names_of_the_host_are_listed(open_db):
    d = open_db()
    d.run("CREATE TABLE artifacts(a); CREATE TABLE messages(b); CREATE VIEW chat AS SELECT 1")
    assert "already has artifacts, messages, chat; rename them" in d.error("SELECT choir_init()")


def test_an_attached_file_becomes_the_workspace(tmp_path, open_db):
    d = open_db(tmp_path / "host.db")
    d.run(f"CREATE TABLE artifacts(mine); ATTACH '{tmp_path}/ws.db' AS \"my ws\"")
    d.one("SELECT choir_init('my ws')")
    d.one("SELECT artifact_put('/a.md', 'x')")
    conv = d.one("SELECT conversation_create('c')")
    d.one("SELECT message_add(?, 'user', 'hi')", conv)
    d.one("SELECT setting_set('k', 'v')")
    assert d.rows("SELECT path FROM artifact_ls('/')") == [("/a.md",)]
    assert d.rows("SELECT content FROM \"my ws\".chat") == [("hi",)]
    assert d.rows("SELECT name FROM main.sqlite_schema") == [("artifacts",)]
    assert json.loads(d.one("SELECT choir_check()"))["ok"] == 1
    d.one("SELECT conversation_delete(?)", conv)
    assert d.one("SELECT count(*) FROM \"my ws\".messages") == 0


def test_a_newer_workspace_is_refused(db):
    db.run("INSERT INTO _choir_migration VALUES(99, 'future', 'x', 0)")
    assert "has format 99 and this choir knows up to" in db.error("SELECT choir_init()")


def test_uninstall_leaves_the_user_s_data(db):
    db.one("SELECT artifact_put('/a', 'x')")
    conv = db.one("SELECT conversation_create('c')")
    db.one("SELECT message_add(?, 'user', 'hi')", conv)
    assert db.one("SELECT choir_uninstall()") > 0
    assert db.rows("SELECT name FROM sqlite_schema WHERE type = 'trigger'"
                   " OR name GLOB '_choir*'") == []
    assert db.rows("SELECT path, content FROM artifacts") == [("/a", "x")]
    assert db.rows("SELECT content FROM chat") == [("hi",)]
    assert "no workspace" in db.error("SELECT artifact_put('/b', 'x')")


def test_after_uninstall_init_takes_its_own_tables_back(db):
    db.one("SELECT artifact_put('/a', 'x')")
    db.one("SELECT choir_uninstall()")
    db.one("SELECT choir_init()")
    assert db.one("SELECT artifact_get('/a')") == "x"
    assert json.loads(db.one("SELECT choir_check()"))["problems"] == []


def test_a_trigger_that_is_gone_or_changed_is_found_and_mended(db):
    db.run("DROP TRIGGER _choir_artifacts_touch; DROP TRIGGER _choir_personas_delete;"
           "CREATE TRIGGER _choir_personas_delete AFTER DELETE ON personas BEGIN SELECT 1; END")
    problems = [p["problem"] for p in json.loads(db.one("SELECT choir_check()"))["problems"]]
    assert "trigger _choir_artifacts_touch is missing; run select choir_init()" in problems
    assert "trigger _choir_personas_delete differs; run select choir_init()" in problems
    assert db.rows("SELECT status, remedy FROM choir_doctor WHERE \"check\"='store triggers'"
                   ) == [("fail", "select choir_init()")]
    db.one("SELECT choir_init()")
    assert db.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
    version = db.one("PRAGMA schema_version")
    db.one("SELECT choir_init()")
    assert db.one("PRAGMA schema_version") == version  # nothing to mend, nothing written


@pytest.mark.parametrize("sql, problem", [
    ("UPDATE artifacts SET hash = 'x'", "artifact /a has a hash that is not its content's"),
    ("UPDATE artifacts SET size_bytes = 9", "artifact /a has a size_bytes that is not its content's"),
    ("UPDATE artifacts SET name = 'x'", "artifact /a has the name of another path"),
    ("UPDATE artifacts SET path = 'a'", "artifact a is not a path that artifact_put would write"),
    ("INSERT INTO messages(id, conversation_id, role) VALUES('m', 'none', 'user')",
     "message m points at a row that is gone"),
    ("INSERT INTO memories(id, persona_id, content) VALUES('m', 'none', 'x')",
     "memory m points at a row that is gone"),
    ("INSERT INTO citations(id, source_artifact_id, citing_run_id, weight)"
     " VALUES('c', 'none', 'r', 1)", "citation c points at a row that is gone"),
])
def test_check_finds_what_does_not_fit(db, sql, problem):
    db.one("SELECT artifact_put('/a', 'x')")
    db.run(sql)
    problems = json.loads(db.one("SELECT choir_check()"))["problems"]
    assert {"part": "store", "problem": problem} in problems


def test_metrics_count_the_workspace(db):
    db.one("SELECT artifact_put('/a', 'xyz'), artifact_put('/b', 'x')")
    db.one("SELECT artifact_delete('/b')")
    db.one("SELECT conversation_create('c'), setting_set('k', 'v')")
    got = dict(db.rows("SELECT name, value FROM choir_metrics"))
    assert (got["artifacts"], got["artifacts.size"], got["artifacts.deleted"],
            got["conversations"], got["settings"]) == (1, 3, 1, 1, 1)


def test_an_empty_workspace_is_small(db, tmp_path):
    db.run("PRAGMA wal_checkpoint(TRUNCATE)")
    assert os.path.getsize(tmp_path / "ws.db") <= 200_000


def test_the_readonly_entry_point_has_no_function_that_writes(tmp_path, open_db, db):
    db.one("SELECT artifact_put('/a', 'x')")
    d = open_db(tmp_path / "ws.db", entry="sqlite3_choir_readonly_init")
    assert d.one("SELECT artifact_get('/a')") == "x"
    assert d.rows("SELECT path FROM artifact_ls('/')") == [("/a",)]
    for call in ("artifact_put('/a', 'y')", "artifact_import('/tmp')", "setting_set('a', 'b')",
                 "artifact_export('/tmp')", "artifact_put_file('/a', '/etc/hostname')"):
        assert "no such function" in d.error("SELECT " + call)
