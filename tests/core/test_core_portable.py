# SPDX-License-Identifier: MIT
"""The file is yours: what choir writes, any SQLite uses without choir.

The reader here is the stock `sqlite3` program, which never loads choir; its
settings are turned to the strictest ones (HARD) where the test says so.
"""
import itertools
import json
import os
import re
import shutil
import subprocess

import pytest
from conftest import ROOT, SO
from npm_package import npm_package

SQLITE3 = shutil.which("sqlite3", path="/usr/bin:/bin:" + os.environ["PATH"])
HARD = ("defensive on", "trusted_schema off", "dqs_dml off", "dqs_ddl off",
        "enable_fkey on")

# A row for every table a workspace's user owns; another one is made from it.
ROWS = {
    "artifacts": dict(id="a1", path="/notes/fox.md", name="fox.md",
                      content="The quick brown fox", metadata="{}"),
    "agent_tasks": dict(id="t1", task_type="summarise", input="{}"),
    "citations": dict(id="c1", source_artifact_id="a1", citing_run_id="r1",
                      weight=0.5),
    "sync_state": dict(key="k1", value="v"),
    "conversation_history": dict(id="h1", title="Dinner"),
    "messages": dict(id="m1", conversation_id="h1", role="user",
                     content="What shall we cook?"),
    "user_settings": dict(setting_name="theme", setting_value="dark"),
    "server_cache": dict(key="u1", value="cached"),
    "server_state": dict(server="s1", key="k1", value="v"),
    "state_storage": dict(key_name="Identity", value_json="{}"),
    "personas": dict(id="p1", name="Ada"),
    "memories": dict(id="y1", persona_id="p1", content="likes tea"),
    "action_log": dict(id="l1", action_type="COMMAND", payload="{}"),
}
# Where not the first column alone: what the second row must have of its own.
KEY = {"artifacts": ("id", "path"), "server_state": ("key",)}


def plain(path, *lines, settings=()):
    """Runs lines in a sqlite3 without choir; the rows as lists of text."""
    if settings:
        lines = (".output /dev/null", *(f".dbconfig {s}" for s in settings),
                 ".output", *lines)
    done = subprocess.run(
        [SQLITE3, "-batch", "-bail", "-separator", "\x1f", str(path)],
        input="\n".join(lines) + "\n", text=True, capture_output=True)
    assert done.returncode == 0 and not done.stderr, done.stderr + done.stdout
    return [line.split("\x1f") for line in done.stdout.splitlines()]


def values(row):
    return ", ".join(str(v) if isinstance(v, float) else f"'{v}'"
                     for v in row.values())


def insert(table, row):
    return f"INSERT INTO {table}({', '.join(row)}) VALUES({values(row)});"


def keys(table):
    return KEY.get(table, (next(iter(ROWS[table])),))


def another(table):
    return {c: v + "-2" if c in keys(table) else v
            for c, v in ROWS[table].items()}


def tables(path):
    """(user's tables, choir's own), FTS5's shadow tables left out."""
    names = [r[0] for r in plain(
        path, "SELECT name FROM sqlite_schema WHERE type='table' AND name NOT"
        " GLOB 'sqlite_*' AND name NOT GLOB '_choir_fts*' ORDER BY rowid;")]
    return ([n for n in names if not n.startswith("_choir_")],
            [n for n in names if n.startswith("_choir_")])


@pytest.fixture
def workspace(tmp_path, open_db):
    """A closed workspace with a row in each table and everything derived."""
    path = tmp_path / "own.db"
    d = open_db(path, init=True)
    for table, row in ROWS.items():
        d.run(insert(table, row))
    if d.one("SELECT count(*) FROM pragma_function_list WHERE name ="
             " 'choir_index'"):
        d.one("SELECT choir_index()")
    d.close()
    return path


def problems(d):
    return json.loads(d.one("SELECT choir_check()"))["problems"]


def test_the_rows_above_cover_every_table_of_a_workspace(workspace):
    assert sorted(tables(workspace)[0]) == sorted(ROWS)


@pytest.mark.parametrize("settings", [(), HARD], ids=["stock", "hardened"])
def test_every_table_is_read_and_written_without_choir(workspace, settings):
    for table in ROWS:
        row, key, last = another(table), keys(table)[0], list(ROWS[table])[-1]
        where = f"{table} WHERE {key} = '{row[key]}'"
        got = plain(
            workspace, insert(table, row),
            f"UPDATE {table} SET {last} = {last} WHERE {key} = '{row[key]}';",
            f"SELECT count(*) FROM {where};", f"DELETE FROM {where};",
            f"SELECT count(*) FROM {where};", settings=settings)
        assert got == [["1"], ["0"]], table
    assert plain(workspace, "PRAGMA integrity_check;") == [["ok"]]


def test_the_internal_tables_are_ordinary_tables(workspace):
    for table in tables(workspace)[1]:
        plain(workspace, "BEGIN;", f"SELECT count(*) FROM {table};",
              f"DELETE FROM {table};", "ROLLBACK;")


def test_a_dump_restores_to_the_same_workspace(workspace, tmp_path, open_db):
    dump = subprocess.run([SQLITE3, str(workspace), ".dump"], text=True,
                          capture_output=True, check=True).stdout
    copy = tmp_path / "copy.db"
    plain(copy, dump)
    assert plain(copy, "PRAGMA integrity_check;") == [["ok"]]
    for table in ROWS:
        sql = f"SELECT * FROM {table} ORDER BY 1, 2;"
        assert plain(copy, sql) == plain(workspace, sql), table
    d = open_db(copy)
    d.one("SELECT choir_init()")
    assert problems(d) == []


def test_vacuum_keeps_everything_in_order(workspace, tmp_path, open_db):
    into = tmp_path / "into.db"
    plain(workspace, "VACUUM;", f"VACUUM INTO '{into}';")
    for path in (workspace, into):
        assert plain(path, "PRAGMA integrity_check;") == [["ok"]]
        assert problems(open_db(path)) == []


def test_columns_are_added_renamed_and_dropped_without_choir(workspace):
    """Any RENAME makes SQLite parse every view and trigger of the file."""
    for table in tables(workspace)[0]:
        plain(workspace, f"ALTER TABLE {table} ADD COLUMN mine TEXT;",
              f"ALTER TABLE {table} RENAME COLUMN mine TO ours;",
              f"UPDATE {table} SET ours = 'x';",
              f"ALTER TABLE {table} DROP COLUMN ours;")


@pytest.mark.once
def test_every_column_is_renamed_without_choir(workspace):
    for table in itertools.chain(*tables(workspace)):
        columns = [c for c, in plain(
            workspace, f"SELECT name FROM pragma_table_info('{table}');")]
        plain(workspace, "BEGIN;", *(
            f'ALTER TABLE {table} RENAME COLUMN "{c}" TO other{i};'
            f"SELECT count(other{i}) FROM {table};"
            for i, c in enumerate(columns)), "ROLLBACK;")
    assert plain(workspace, "PRAGMA integrity_check;") == [["ok"]]


def test_tables_of_choir_that_were_dropped_are_made_again(workspace, open_db):
    for table in tables(workspace)[1]:
        plain(workspace, f"DROP TABLE {table};")
        d = open_db(workspace)
        d.one("SELECT choir_init()")
        d.one("SELECT artifact_put('/notes/' || ?, 'a lazy badger')", table)
        assert d.one("SELECT path FROM choir_search('badger', 1)"), table
        d.one("SELECT choir_index('rebuild')")
        assert problems(d) == [], table
        d.close()


def test_writes_without_choir_are_logged_and_searched(workspace, open_db):
    plain(workspace,
          "UPDATE artifacts SET path = '/den/fox.md' WHERE id = 'a1';",
          "UPDATE artifacts SET content = 'A lazy badger' WHERE id = 'a1';",
          "INSERT INTO artifacts(path, name, content)"
          " VALUES('/notes/owl.md', 'owl.md', 'An owl at night');",
          "REPLACE INTO user_settings(setting_name, setting_value)"
          " VALUES('theme', 'light');",
          "DELETE FROM messages WHERE id = 'm1';")
    got = [r[0] for r in plain(
        workspace, "SELECT action_type FROM action_log ORDER BY seq;")]
    assert got[-5:] == ["ARTIFACT_MOVE", "ARTIFACT_UPDATE", "ARTIFACT_CREATE",
                        "SETTING_SET", "MESSAGE_DELETE"]
    d = open_db(workspace)
    assert problems(d) == []
    top = "SELECT path FROM choir_search(?, 1)"
    assert d.one(top, "badger") == "/den/fox.md"
    assert d.one(top, "owl") == "/notes/owl.md"
    assert not [p for (p,) in d.rows("SELECT preview FROM choir_search('fox',"
                                     " 10)") if "quick brown" in p]


def test_the_schema_holds_no_choir_function_and_one_virtual_table(
        workspace, open_db):
    names = {n for (n,) in open_db(workspace).rows(
        "SELECT DISTINCT name FROM choir_help()")}
    for name, sql in plain(workspace, "SELECT name, replace(sql, char(10),"
                           " ' ') FROM sqlite_schema WHERE sql <> '';"):
        used = set(re.findall(r"\b([a-z][a-z0-9_]*)\s*\(", sql)) & names
        used -= {t for t in used if re.search(
            rf"(TABLE|INTO|REFERENCES)\s+\"?{t}\"?\s*\(", sql)}
        assert not used, f"{name} calls {used}: {sql}"
        if sql.startswith("CREATE VIRTUAL TABLE"):
            assert name == "_choir_fts"


@pytest.mark.parametrize("setting", list(itertools.product(
    ["defensive off", "defensive on"],
    ["dqs_ddl off", "dqs_ddl on"], ["dqs_dml off", "dqs_dml on"],
    ["trusted_schema off", "trusted_schema on"],
    ["enable_fkey off", "enable_fkey on"])), ids=", ".join)
def test_choir_works_under_every_setting_of_the_host(tmp_path, setting):
    got = plain(
        tmp_path / "set.db", f".load {SO}", "SELECT choir_init() > 0;",
        "SELECT length(artifact_put('/a.md', 'green tea'));",
        "SELECT length(message_add(conversation_create('c'), 'user', 'hi'));",
        "SELECT choir_index() IS NOT NULL;",
        "SELECT path FROM choir_search('tea', 1);",
        "SELECT artifact_delete('/a.md') IS NOT NULL;",
        "SELECT choir_check();", settings=setting)
    assert got == [["1"], ["36"], ["36"], ["1"], ["/a.md"], ["1"],
                   ['{"ok":1,"problems":[]}']]


@pytest.mark.once
def test_drizzle_reads_every_table_and_view_from_the_file(db, tmp_path):
    at = npm_package("drizzle", "drizzle-kit@0.31.11", "drizzle-orm@0.45.2",
                     "@libsql/client@0.18.0", "--ignore-scripts")
    if at is None:
        pytest.skip("drizzle-kit: no npm to install it with")
    db.run("CREATE TABLE mine(id INTEGER PRIMARY KEY, b REAL)")
    out = tmp_path / "drizzle"
    subprocess.run(
        ["node", at / "node_modules/drizzle-kit/bin.cjs", "pull", "--dialect",
         "sqlite", "--url", f"file:{db.path}", "--out", out], cwd=at,
        check=True, capture_output=True, timeout=120)
    snapshot = json.loads((out / "meta/0000_snapshot.json").read_text())
    tables, views = (
        {name for name, in db.rows(
            "SELECT name FROM sqlite_schema WHERE type = ? AND"
            " name NOT GLOB 'sqlite_*'", kind)}
        for kind in ("table", "view"))
    assert tables >= {"mine", "artifacts", "messages", "action_log"}
    assert set(snapshot["tables"]) >= tables
    assert set(snapshot["views"]) == views >= {"files", "timeline", "chat"}
    for name in tables:
        columns = {c for c, in db.rows(
            "SELECT name FROM pragma_table_info(?)", name)}
        assert set(snapshot["tables"][name]["columns"]) == columns
