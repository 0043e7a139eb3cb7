# SPDX-License-Identifier: MIT
"""choir_backup: a faithful, verified copy, never over a file."""
import hashlib
import json
import os

import pytest


def backup(d, path):
    return json.loads(d.one("SELECT choir_backup(?)", str(path)))


def dump(d):
    return [d.rows(f'SELECT * FROM "{t}" ORDER BY 1') for (t,) in d.rows(
        "SELECT name FROM sqlite_schema WHERE type='table' ORDER BY 1")]


def test_the_copy_equals_the_original_and_has_its_checksum(tmp_path, db,
                                                           open_db):
    for i in range(30):
        db.rows("INSERT INTO artifacts(path, name, content) VALUES(?, ?, ?)",
                f"/{i}", f"{i}", bytes([i]) * 90000)
    out = backup(db, tmp_path / "copy.db")
    data = (tmp_path / "copy.db").read_bytes()
    assert out["bytes"] == len(data) == 4096 * out["pages"]
    assert out["sha256"] == hashlib.sha256(data).hexdigest()
    copy = open_db(tmp_path / "copy.db")
    assert copy.one("PRAGMA integrity_check") == "ok"
    assert copy.one("PRAGMA journal_mode") == "delete"
    assert dump(copy) == dump(db)
    assert sorted(os.listdir(tmp_path)) == sorted(
        {"copy.db", "home", *(p for p in os.listdir(tmp_path)
                              if p.startswith("ws.db"))})


def test_an_existing_file_is_never_replaced(tmp_path, db):
    (tmp_path / "there").write_text("mine")
    os.symlink("nowhere", tmp_path / "link")
    for name in "there", "link", "ws.db", "home":
        assert db.error("SELECT choir_backup(?)", str(tmp_path / name)) == (
            f"choir_backup: '{tmp_path / name}' exists; choose a name that is"
            " not taken")
    assert (tmp_path / "there").read_text() == "mine"
    assert db.error("SELECT choir_backup(?)", f"{tmp_path}/ws.db-journal") == (
        f"choir_backup: '{tmp_path}/ws.db-journal' belongs to a database that"
        " is open on this connection")  # SQLite would take it for its own


def test_bad_paths_are_named(tmp_path, db):
    assert "file must not be empty" in db.error("SELECT choir_backup('')")
    assert "is a folder; name a file in it" in db.error(
        "SELECT choir_backup(?)", f"{tmp_path}/")
    assert "No such file or directory" in db.error(
        "SELECT choir_backup(?)", f"{tmp_path}/none/copy.db")
    assert "file must be text, got blob" in db.error(
        "SELECT choir_backup(x'01')")


def test_memory_and_hosts_without_a_workspace_are_copied_too(tmp_path,
                                                             open_db):
    d = open_db(":memory:")
    d.run("CREATE TABLE t(a); INSERT INTO t VALUES(1), (2)")
    backup(d, tmp_path / "m.db")
    assert open_db(tmp_path / "m.db", choir=False).rows(
        "SELECT a FROM t") == [(1,), (2,)]
    d = open_db(":memory:", init=True)
    backup(d, tmp_path / "w.db")
    assert open_db(tmp_path / "w.db").one("SELECT choir_check()") == \
        '{"ok":1,"problems":[]}'


@pytest.mark.inprocess
def test_it_works_beside_an_open_cursor_and_inside_a_read_transaction(
        tmp_path, db, open_db):
    for i in range(9):
        db.rows("INSERT INTO artifacts(path, name) VALUES(?, ?)", f"/{i}",
                f"{i}")
    db.rows("BEGIN")
    cur = db.con.execute("SELECT path FROM artifacts")
    next(cur)
    backup(db, tmp_path / "copy.db")
    assert len(list(cur)) == 8
    db.rows("COMMIT")
    assert open_db(tmp_path / "copy.db").one(
        "SELECT count(*) FROM artifacts") == 9


def test_uncommitted_changes_are_named(tmp_path, db):
    db.rows("BEGIN")
    db.rows("DELETE FROM artifacts")
    assert db.error("SELECT choir_backup(?)", str(tmp_path / "copy.db")) == (
        "choir_backup: this connection has uncommitted changes; commit first")
    db.rows("ROLLBACK")


def test_a_damaged_database_gives_no_copy(tmp_path, open_db):
    d = open_db(tmp_path / "bad.db", init=True)
    d.rows("PRAGMA journal_mode=DELETE")
    d.run("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    page = d.one("SELECT rootpage FROM sqlite_schema WHERE name='t'")
    d.close()
    with open(tmp_path / "bad.db", "r+b") as f:
        f.seek(4096 * (page - 1))
        f.write(b"\xff" * 100)
    d = open_db(tmp_path / "bad.db")
    assert "the database is damaged: " in d.error(
        "SELECT choir_backup(?)", str(tmp_path / "copy.db"))
    assert not (tmp_path / "copy.db").exists()


def test_a_copy_has_the_same_position_as_the_original(tmp_path, db, open_db):
    (tmp_path / "remote").mkdir()
    url = f"file://{tmp_path}/remote/ws.sqlite"
    db.one("SELECT sync_push(?)", url)
    backup(db, tmp_path / "same.db")
    db.run("INSERT INTO artifacts(path, name) VALUES('/new', 'new')")
    backup(db, tmp_path / "changed.db")
    state = "SELECT state FROM sync_status(?)"
    assert open_db(tmp_path / "same.db").one(state, url) == "in sync"
    assert open_db(tmp_path / "changed.db").one(state, url) == "push"
