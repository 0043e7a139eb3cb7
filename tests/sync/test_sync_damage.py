# SPDX-License-Identifier: MIT
"""A remote that is not what was pushed: every flipped byte, every cut, every
added byte is found before anything here is touched."""
import json
import os
import random

import pytest

from conftest import REPEAT

ALL = os.environ.get("CHOIR_SYNC_ALL_BYTES") == "1"


@pytest.fixture
def remote(tmp_path, db):
    """(url, path) of a pushed workspace, and a device that is one behind."""
    (tmp_path / "remote").mkdir()
    url = f"file://{tmp_path}/remote/ws.sqlite"
    for i in range(8):
        db.rows("INSERT INTO artifacts(path, name, content) VALUES(?, ?, ?)",
                f"/{i}", f"{i}", "text " * 300)
    db.one("SELECT sync_push(?)", url)
    return url, tmp_path / "remote/ws.sqlite"


def test_every_single_flipped_byte_is_detected(tmp_path, open_db, remote):
    url, path = remote
    good = path.read_bytes()
    rng = random.Random(1)
    if ALL:
        places = range(len(good))
    else:  # the whole header, the page of the seal, and a sample
        seal = good.index(open_db(path, choir=False).one(
            "SELECT seal FROM _choir_sync_seal"))
        places = sorted({*range(0, 110), *range(seal - 8, seal + 160),
                         *rng.sample(range(len(good)), 150 if REPEAT else 900)})
    device = open_db(tmp_path / "device.db")
    with open(path, "r+b", buffering=0) as f:
        for i in places:
            f.seek(i)
            f.write(bytes([good[i] ^ (1 << rng.randrange(8))]))
            message = device.error("SELECT sync_pull(?)", url)
            assert "damaged" in message, (i, message)
            f.seek(i)
            f.write(good[i:i + 1])
    assert device.rows("SELECT * FROM sqlite_schema") == []
    assert json.loads(device.one("SELECT sync_pull(?)", url))["pulled"] == 1


@pytest.mark.parametrize("keep", [0, 1, 15, 16, 99, 100, 511, 512, 4095, 4096,
                                  4097, -4096, -1])
def test_a_truncated_remote_is_detected(tmp_path, open_db, remote, keep):
    url, path = remote
    data = path.read_bytes()
    path.write_bytes(data[:keep] if keep >= 0 else data[:len(data) + keep])
    device = open_db(tmp_path / "device.db")
    message = device.error("SELECT sync_pull(?)", url)
    assert message.startswith(f"sync_pull: the remote {url} is damaged: "), (
        message)
    assert "nothing was changed here" in message
    assert device.rows("SELECT * FROM sqlite_schema") == []


@pytest.mark.parametrize("tail", [b"x", b"\0" * 512, b"\0" * 4096])
def test_bytes_behind_the_end_are_detected(tmp_path, open_db, remote, tail):
    url, path = remote
    path.write_bytes(path.read_bytes() + tail)
    message = open_db(tmp_path / "device.db").error("SELECT sync_pull(?)", url)
    assert "and its header says" in message


@pytest.mark.parametrize("data", [
    b"", b"hello", os.urandom(8192), b"SQLite format 3\0" + b"\xff" * 8176,
    b"SQLite format 3\0" + b"\0" * 8176], ids=range(5))
def test_a_file_that_is_no_database_is_refused(tmp_path, open_db, db, remote,
                                               data):
    url, path = remote
    path.write_bytes(data)
    assert "is damaged: " in open_db(tmp_path / "device.db").error(
        "SELECT sync_pull(?)", url)
    db.run("DELETE FROM artifacts WHERE path='/1'")
    assert "is damaged: " in db.error("SELECT sync_push(?)", url)
    assert "is damaged: " in db.error("SELECT sync_verify(?)", url)
    assert path.read_bytes() == data
    state, detail = db.rows("SELECT state, detail FROM sync_status(?)", url)[0]
    assert state == "unreachable" and "is damaged" in detail


def test_a_database_that_is_no_workspace_is_refused(tmp_path, open_db, remote):
    url, path = remote
    path.unlink()
    open_db(path, choir=False).run("CREATE TABLE t(a)")
    assert "is not a workspace that was pushed there" in open_db(
        tmp_path / "device.db").error("SELECT sync_pull(?)", url)


def test_a_remote_edited_by_another_tool_is_named_and_theirs_accepts_it(
        tmp_path, db, open_db, remote):
    url, path = remote
    other = open_db(path, choir=False)
    other.run("INSERT INTO artifacts(path, name) VALUES('/edited', 'edited')")
    other.close()
    for f in "sync_pull", "sync_push":
        assert "is not as it was pushed: it was damaged or changed by" \
            " another tool" in db.error(f"SELECT {f}(?)", url)
    result = json.loads(db.one("SELECT sync_pull(?, 'theirs')", url))
    assert result["pulled"] == 1 and "saved" in result
    assert db.one("SELECT count(*) FROM artifacts WHERE path='/edited'") == 1
    assert db.one("SELECT changed FROM sync_status") == 1
    # The content is not its version's, so the next push makes a new one: but
    # the remote still bears a broken seal, and only a new name gets past it.
    assert json.loads(db.one("SELECT sync_push(?)", url.replace(
        "ws.sqlite", "new.sqlite")))["pushed"] == 1


def test_a_remote_left_in_wal_mode_by_another_tool_is_named(
        tmp_path, db, open_db, remote):
    url, path = remote
    other = open_db(path, choir=False)
    other.rows("PRAGMA journal_mode=WAL")
    other.close()
    assert "is not as it was pushed" in db.error("SELECT sync_pull(?)", url)
    assert json.loads(db.one("SELECT sync_pull(?, 'theirs')", url)
                      )["pulled"] == 1
    assert db.one("SELECT count(*) FROM artifacts") == 8
    assert db.one("PRAGMA journal_mode") == "wal"


def test_a_remote_with_a_wrong_index_is_refused_although_its_seal_holds(
        tmp_path, open_db, db):
    """Corruption that was here before the push travels no further."""
    (tmp_path / "remote").mkdir()
    url = f"file://{tmp_path}/remote/ws.sqlite"
    db.run("CREATE TABLE t(a, b); CREATE INDEX t_a ON t(a);"
           "INSERT INTO t VALUES(1, 2), (3, 4)")
    db.run("PRAGMA writable_schema=ON; UPDATE sqlite_schema SET rootpage="
           "(SELECT rootpage FROM sqlite_schema WHERE name='artifacts')"
           " WHERE name='t_a'")
    db.close()
    d = open_db(tmp_path / "ws.db")
    d.one("SELECT sync_push(?)", url)
    message = open_db(tmp_path / "device.db").error("SELECT sync_pull(?)", url)
    assert "is damaged: " in message


def test_a_hostile_remote_runs_nothing_of_its_own(tmp_path, open_db, db,
                                                  remote):
    """A CHECK that calls choir, met by quick_check and by the host."""
    url, path = remote
    victim = tmp_path / "victim"
    evil = open_db(path, choir=False)
    evil.run("CREATE TABLE evil(a); INSERT INTO evil VALUES(1)")
    evil.run("PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql="
             "'CREATE TABLE evil(a CHECK(choir_backup(''%s'') IS NOT NULL))'"
             " WHERE name='evil'" % victim)
    evil.close()
    for d in db, open_db(tmp_path / "device.db"):
        for sql in ("SELECT sync_pull(?, 'theirs')",
                    "SELECT count(*) FROM evil WHERE ? IS NOT NULL",
                    "INSERT INTO evil SELECT 2 WHERE ? IS NOT NULL",
                    "PRAGMA quick_check"):
            try:
                d.rows(sql, *([url] if "?" in sql else []))
            except d.failure:
                pass
    assert not victim.exists()


@pytest.mark.parametrize("txid", [0, -1, (1 << 63) - 1])
def test_a_history_that_cannot_go_on_is_named(db, remote, txid):
    url, path = remote
    before = path.read_bytes()
    db.rows("UPDATE _choir_sync_history SET txid = ?", txid)
    for f in "sync_push", "sync_pull":
        assert db.error(f"SELECT {f}(?)", url) == (
            f"{f}: the last row of _choir_sync_history is not what choir wrote;"
            " run select choir_init()")
    assert path.read_bytes() == before
    assert db.rows("SELECT txid FROM _choir_sync_history") == [(txid,)]
