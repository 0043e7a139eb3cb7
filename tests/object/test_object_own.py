# SPDX-License-Identifier: MIT
"""A database that is open on the connection is no object: closing its file
would drop SQLite's locks, and another file in its place would leave SQLite with
one that has no name."""
import os
import subprocess
import sys

import pytest

OPEN = "belongs to a database that is open on this connection"

# Another process writes, if the locks let it.
WRITER = """
import sqlite3, sys
con = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    con.execute("INSERT INTO t VALUES('theirs')")
    print("written")
except sqlite3.OperationalError as e:
    print(e)
"""


def writes(path):
    return subprocess.run([sys.executable, "-c", WRITER, str(path)], check=True,
                          capture_output=True, text=True).stdout.strip()


@pytest.fixture
def live(tmp_path, open_db):
    """A database under an exclusive lock, and a link to its file."""
    db = open_db(tmp_path / "live.db")
    db.run("CREATE TABLE t(x); BEGIN EXCLUSIVE; INSERT INTO t VALUES('ours')")
    os.link(tmp_path / "live.db", tmp_path / "hard.db")
    return db


@pytest.mark.parametrize("sql", [
    "SELECT s3_get('file://{f}/live.db')",
    "SELECT s3_get('file://{f}/hard.db', 0, 16)",
    "SELECT s3_copy('file://{f}/live.db', 'file://{f}/copy')",
    "SELECT content FROM s3_blob('file://{f}/') WHERE key = 'live.db'",
    "SELECT s3_put_file('file://{f}/copy', '{f}/live.db')"])
def test_reading_it_is_refused_and_its_locks_hold(live, tmp_path, sql):
    assert OPEN in live.error(sql.format(f=tmp_path))
    assert not (tmp_path / "copy").exists()
    assert writes(tmp_path / "live.db") == "database is locked"
    live.run("COMMIT")
    assert live.rows("SELECT x FROM t") == [("ours",)]


@pytest.mark.parametrize("sql", [
    "SELECT s3_put('file://{f}/{name}', 'x')",
    "SELECT s3_put('file://{f}/{name}', 'x', '{{\"if_none_match\":\"*\"}}')",
    "SELECT s3_delete('file://{f}/{name}')",
    "SELECT s3_get_file('file://{f}/in', '{f}/{name}')"])
def test_nothing_takes_its_place_or_that_of_its_journals(live, tmp_path, sql):
    (tmp_path / "in").write_text("x")
    inode = (tmp_path / "live.db").stat().st_ino
    before = sorted(os.listdir(tmp_path))
    for end in ("", "-journal", "-wal", "-shm"):
        assert OPEN in live.error(
            sql.format(f=tmp_path, name="live.db" + end)), end
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "live.db").stat().st_ino == inode


def test_the_folder_it_is_in_can_be_listed(live, tmp_path):
    assert live.rows("SELECT key FROM s3_list(?) WHERE key GLOB '*.db'",
                     f"file://{tmp_path}/") == [("hard.db",), ("live.db",)]
    assert live.one("SELECT s3_head(?)", f"file://{tmp_path}/live.db")


@pytest.mark.parametrize("call", ["sync_push", "sync_pull", "sync_verify"])
def test_it_is_no_remote_of_its_own(tmp_path, db, call):
    inode = (tmp_path / "ws.db").stat().st_ino
    db.one("SELECT artifact_put('/a', 'x')")
    for url in (f"file://{tmp_path}/ws.db", f"file://localhost{tmp_path}/ws.db"):
        assert db.error(f"SELECT {call}(?)", url) == f"{call}: '{tmp_path}/ws.db' {OPEN}"
    assert (tmp_path / "ws.db").stat().st_ino == inode
    assert db.one("SELECT artifact_get('/a')") == "x"
    assert db.rows("SELECT state, detail FROM sync_status(?)",
                   f"file://{tmp_path}/ws.db") == [
                       ("unreachable", f"'{tmp_path}/ws.db' {OPEN}")]
