# SPDX-License-Identifier: MIT
"""choir_init: makes a workspace, twice is once, refuses politely."""


def test_init_is_idempotent(db):
    version = db.one("SELECT choir_init()")
    assert version >= 1
    assert db.one("SELECT choir_init()") == version


def test_a_new_file_is_in_wal_mode_with_a_user_version(db):
    assert db.one("PRAGMA journal_mode") == "wal"
    assert db.one("PRAGMA user_version") == db.one("SELECT choir_init()")


def test_an_existing_database_keeps_its_mode_and_user_version(tmp_path, open_db):
    d = open_db(tmp_path / "host.db")
    d.run("PRAGMA user_version=77; CREATE TABLE mine(a); INSERT INTO mine VALUES(1)")
    d.one("SELECT choir_init()")
    assert d.one("PRAGMA user_version") == 77
    assert d.one("PRAGMA journal_mode") == "delete"
    assert d.rows("SELECT * FROM mine") == [(1,)]


def test_a_table_of_the_host_is_refused_and_nothing_is_left(tmp_path, open_db):
    d = open_db(tmp_path / "host.db")
    d.run("CREATE TABLE user_settings(mine)")
    message = d.error("SELECT choir_init()")
    assert message.startswith("choir_init: schema main already has user_settings")
    assert d.rows("SELECT name FROM sqlite_schema") == [("user_settings",)]


def test_functions_say_when_there_is_no_workspace(tmp_path, open_db):
    d = open_db(tmp_path / "host.db")
    assert d.error("SELECT choir_check()") == (
        "choir_check: no workspace in schema main; run select choir_init()")


def test_a_schema_that_is_not_attached_is_refused_and_nothing_changes(db):
    for call in ("choir_init('nope')", "choir_config('schema', 'nope')"):
        name = call.split("(")[0]
        assert db.error(f"SELECT {call}") == (
            f"{name}: no attached database 'nope'")
        assert db.one("SELECT choir_config('schema')") == "main"
    assert db.error("SELECT choir_config('schema', '')") == (
        "choir_config: no attached database ''")
    assert db.error("SELECT choir_config('schema', x'6d')") == (
        "choir_config: value must be text, got blob")
