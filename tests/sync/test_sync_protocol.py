# SPDX-License-Identifier: MIT
"""Push and pull between two devices: what moves, what is refused, and that a
refusal names the way out."""
import json
import os
import shutil

import pytest

from remote import paths, pull, push, put, state


@pytest.fixture
def url(tmp_path):
    (tmp_path / "remote").mkdir()
    return f"file://{tmp_path}/remote/ws.sqlite"


def test_what_one_device_pushes_a_new_device_pulls(tmp_path, db, open_db, url):
    put(db, "/a")
    assert push(db, url)["pushed"] == 1
    other = open_db(tmp_path / "other.db")
    assert pull(other, url)["pulled"] == 1
    assert paths(other) == ["/a"]
    assert other.one("PRAGMA journal_mode") == "wal"
    assert other.one("PRAGMA integrity_check") == "ok"
    assert other.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'


def test_an_initialised_but_empty_workspace_takes_the_first_pull(
        tmp_path, db, open_db, url):
    put(db, "/a")
    push(db, url)
    other = open_db(tmp_path / "other.db", init=True)
    assert state(other, url) == "pull"
    assert pull(other, url)["pulled"] == 1
    assert paths(other) == ["/a"]


def test_nothing_changed_means_nothing_sent(tmp_path, db, open_db, url):
    put(db, "/a")
    push(db, url)
    remote = tmp_path / "remote/ws.sqlite"
    before = os.stat(remote).st_ino, os.stat(remote).st_mtime_ns
    for _ in range(3):
        assert push(db, url)["pushed"] == 0
        assert pull(db, url)["pulled"] == 0
        assert state(db, url) == "in sync"
    assert (os.stat(remote).st_ino, os.stat(remote).st_mtime_ns) == before
    other = open_db(tmp_path / "other.db")
    pull(other, url)
    assert push(other, url)["pushed"] == 0
    assert (os.stat(remote).st_ino, os.stat(remote).st_mtime_ns) == before


def test_changes_travel_back_and_forth(tmp_path, db, open_db, url):
    push(db, url)
    other = open_db(tmp_path / "other.db")
    pull(other, url)
    for i in range(4):
        put(other, f"/o{i}")
        assert state(other, url) == "push"
        assert push(other, url)["pushed"] == 1
        assert state(db, url) == "pull"
        assert pull(db, url)["pulled"] == 1
        put(db, f"/d{i}")
        assert push(db, url)["pushed"] == 1
        assert pull(other, url)["pulled"] == 1
    assert paths(db) == paths(other) == sorted(
        [f"/o{i}" for i in range(4)] + [f"/d{i}" for i in range(4)])


def test_a_remote_that_moved_is_not_overwritten(tmp_path, db, open_db, url):
    push(db, url)
    other = open_db(tmp_path / "other.db")
    pull(other, url)
    put(db, "/mine")
    put(other, "/theirs")
    push(other, url)
    before = (tmp_path / "remote/ws.sqlite").read_bytes()
    message = db.error("SELECT sync_push(?)", url)
    assert message.startswith(f"sync_push: the remote has moved: {url} is at"
                              " version 2 of 20")
    assert f"sync_pull('{url}') if nothing was changed here;" in message
    assert "'theirs'" in message and "'merge'" not in message  # a plain file
    assert (tmp_path / "remote/ws.sqlite").read_bytes() == before
    assert paths(db) == ["/mine"]
    assert state(db, url) == "conflict"


def test_unpushed_changes_are_not_overwritten_but_theirs_keeps_a_copy(
        tmp_path, db, open_db, url):
    push(db, url)
    other = open_db(tmp_path / "other.db")
    pull(other, url)
    put(db, "/mine")
    put(other, "/theirs")
    push(other, url)
    message = db.error("SELECT sync_pull(?)", url)
    assert message.startswith("sync_pull: both sides changed: ")
    assert paths(db) == ["/mine"]
    result = pull(db, url, "theirs")
    assert result["pulled"] == 1
    assert paths(db) == ["/theirs"]
    kept = open_db(result["saved"])
    assert paths(kept) == ["/mine"]
    assert kept.one("PRAGMA integrity_check") == "ok"
    assert os.stat(result["saved"]).st_mode & 0o777 == 0o600
    assert state(db, url) == "in sync"
    assert pull(db, url, "theirs")["pulled"] == 0
    put(db, "/more")
    assert push(db, url)["pushed"] == 1


def test_theirs_with_nothing_to_replace_does_nothing(db, url):
    push(db, url)
    result = pull(db, url, "theirs")
    assert result["pulled"] == 0 and "saved" not in result


def test_theirs_also_discards_changes_on_the_same_version(db, open_db, url):
    push(db, url)
    put(db, "/oops")
    result = pull(db, url, "theirs")
    assert result["pulled"] == 1 and paths(db) == []
    assert paths(open_db(result["saved"])) == ["/oops"]


def test_a_copy_kept_by_theirs_still_knows_its_unpushed_changes(
        tmp_path, db, open_db, url):
    push(db, url)
    put(db, "/mine")
    kept = open_db(pull(db, url, "theirs")["saved"])
    assert state(kept, url) == "push"
    assert push(kept, url)["pushed"] == 1
    assert pull(db, url)["pulled"] == 1
    assert paths(db) == ["/mine"]


def test_an_older_remote_leaves_this_file_alone_and_a_push_heals_it(
        tmp_path, db, url):
    remote = tmp_path / "remote/ws.sqlite"
    push(db, url)
    shutil.copy(remote, tmp_path / "old")
    put(db, "/new")
    push(db, url)
    os.replace(tmp_path / "old", remote)
    assert state(db, url) == "push"
    assert pull(db, url)["pulled"] == 0
    assert paths(db) == ["/new"]
    assert push(db, url)["pushed"] == 1


def test_the_remote_of_another_workspace_is_refused_both_ways(
        tmp_path, db, open_db, url):
    put(db, "/a")
    push(db, url)
    other = open_db(tmp_path / "other.db", init=True)
    put(other, "/b")
    for f in "sync_push", "sync_pull":
        message = other.error(f"SELECT {f}(?)", url)
        assert message.startswith(
            f"{f}: the remote {url} belongs to another workspace; ")
    assert state(other, url) == "another workspace"
    result = pull(other, url, "theirs")
    assert paths(other) == ["/a"] and paths(open_db(result["saved"])) == ["/b"]


def test_a_fork_is_a_workspace_of_its_own(tmp_path, db, open_db, url):
    put(db, "/a")
    push(db, url)
    assert db.error("SELECT sync_push(?, 'fork')", url).startswith(
        "sync_push: 'fork' makes a new remote and file://")
    fork = url.replace("ws.sqlite", "fork.sqlite")
    assert push(db, fork, "fork")["pushed"] == 1
    assert "belongs to another workspace" in db.error("SELECT sync_push(?)",
                                                      url)
    assert push(db, fork)["pushed"] == 0


def test_one_version_goes_to_a_second_remote_under_its_own_name(db, url):
    first = push(db, url)
    second = push(db, url.replace("ws", "copy"))
    assert second["pushed"] == 1 and second["version"] == first["version"]
    assert push(db, url)["pushed"] == 0


def test_a_copied_workspace_file_is_a_device_of_its_own(
        tmp_path, open_db, url):
    a = open_db(tmp_path / "a.db", init=True, pragmas=["journal_mode=DELETE"])
    push(a, url)
    put(a, "/unpushed")
    a.close()
    shutil.copy(tmp_path / "a.db", tmp_path / "b.db")
    a, b = open_db(tmp_path / "a.db"), open_db(tmp_path / "b.db")
    assert state(a, url) == state(b, url) == "push"
    put(b, "/b")
    push(a, url)
    assert "the remote has moved" in b.error("SELECT sync_push(?)", url)
    assert "both sides changed" in b.error("SELECT sync_pull(?)", url)


def test_two_copies_of_a_workspace_never_synced_conflict(
        tmp_path, open_db, url):
    a = open_db(tmp_path / "a.db", init=True, pragmas=["journal_mode=DELETE"])
    put(a, "/both")
    a.close()
    shutil.copy(tmp_path / "a.db", tmp_path / "b.db")
    a, b = open_db(tmp_path / "a.db"), open_db(tmp_path / "b.db")
    put(a, "/a")
    put(b, "/b")
    push(a, url)
    assert "both sides changed" in b.error("SELECT sync_pull(?)", url)
    assert "the remote has moved" in b.error("SELECT sync_push(?)", url)
    assert paths(b) == ["/b", "/both"]


def test_the_state_folder_may_be_lost(tmp_path, db, open_db, url, monkeypatch):
    push(db, url)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    assert push(db, url)["pushed"] == 0
    put(db, "/a")
    assert push(db, url)["pushed"] == 1


def test_vacuum_between_pushes_loses_nothing(tmp_path, db, open_db, url):
    for i in range(50):
        put(db, f"/{i:02}", "y" * 3000)
    push(db, url)
    db.run("DELETE FROM artifacts WHERE path > '/10'; VACUUM")
    assert push(db, url)["pushed"] == 1
    other = open_db(tmp_path / "other.db")
    pull(other, url)
    assert paths(other) == paths(db)
    put(other, "/new")
    other.run("VACUUM")
    assert push(other, url)["pushed"] == 1
    assert pull(db, url)["pulled"] == 1
    assert db.one("PRAGMA integrity_check") == "ok"


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
@pytest.mark.parametrize("size", [512, 4096, 65536])
def test_every_page_size_and_journal_mode(tmp_path, open_db, url, size, mode):
    a = open_db(tmp_path / "a.db", pragmas=[f"page_size={size}"], init=True)
    a.rows(f"PRAGMA journal_mode={mode}")
    put(a, "/a", "z" * 3000000)  # more than the copy's page cache
    push(a, url)
    b = open_db(tmp_path / "b.db")
    pull(b, url)
    assert b.one("PRAGMA page_size") == size
    put(b, "/b")
    push(b, url)
    assert pull(a, url)["pulled"] == 1
    assert paths(a) == ["/a", "/b"]
    assert a.one("PRAGMA integrity_check") == "ok"
    assert a.one("PRAGMA journal_mode") == mode.lower()


def test_another_page_size_is_named_with_the_remedy(tmp_path, open_db, url):
    a = open_db(tmp_path / "a.db", pragmas=["page_size=8192"], init=True)
    push(a, url)
    b = open_db(tmp_path / "b.db", init=True)
    assert b.error("SELECT sync_pull(?)", url) == (
        "sync_pull: the remote has pages of 8192 bytes and this file of 4096;"
        " pull into an empty file, or run PRAGMA journal_mode=DELETE, PRAGMA"
        " page_size=8192 and VACUUM here first")
    b.run("PRAGMA journal_mode=DELETE; PRAGMA page_size=8192; VACUUM")
    assert pull(b, url)["pulled"] == 1


def test_a_memory_workspace_syncs(open_db, db, url):
    a = open_db(":memory:", init=True)
    put(a, "/a")
    assert push(a, url)["pushed"] == 1 and push(a, url)["pushed"] == 0
    b = open_db(":memory:")
    assert pull(b, url)["pulled"] == 1
    put(b, "/b")
    push(b, url)
    assert pull(a, url)["pulled"] == 1 and paths(a) == ["/a", "/b"]


def test_an_attached_workspace_syncs(tmp_path, open_db, url):
    a = open_db(tmp_path / "host.db")
    a.run(f"ATTACH '{tmp_path}/a ws.db' AS \"my ws\"")
    a.one("SELECT choir_init('my ws')")
    a.run('INSERT INTO "my ws".artifacts(path, name) VALUES(\'/a\', \'a\')')
    assert push(a, url)["pushed"] == 1 and push(a, url)["pushed"] == 0
    b = open_db(tmp_path / "b.db")
    pull(b, url)
    put(b, "/b")
    push(b, url)
    assert pull(a, url)["pulled"] == 1
    assert [r[0] for r in a.rows('SELECT path FROM "my ws".artifacts')] == [
        "/a", "/b"]
    assert a.rows("SELECT * FROM main.sqlite_schema") == []


def test_the_uploaded_copy_describes_itself(tmp_path, db, open_db, url):
    put(db, "/a")
    result = push(db, url)
    remote = open_db(tmp_path / "remote/ws.sqlite", choir=False)
    assert remote.one("SELECT lower(hex(push_id)) FROM _choir_sync_history") == \
        result["version"]
    assert [k for k, v in remote.rows("SELECT * FROM sync_state")] == [
        "lastLocalVersion", "lastRemoteVersion", "lastSyncTimestamp"]
    assert remote.one("SELECT json_extract(payload, '$.version') FROM"
                      " action_log WHERE action_type='SYNC_COMPLETE'") == \
        result["version"]
    assert remote.one("PRAGMA journal_mode") == "delete"
    assert db.rows("SELECT * FROM sync_state") == remote.rows(
        "SELECT * FROM sync_state")


def test_a_plain_sqlite_without_choir_reads_and_writes_a_synced_file(
        tmp_path, db, open_db, url):
    push(db, url)
    plain = open_db(tmp_path / "ws.db", choir=False)
    put(plain, "/plain")
    assert push(db, url)["pushed"] == 1


def test_the_configured_remote_is_the_default(db, url):
    db.one("SELECT choir_config('remote', ?)", url)
    assert json.loads(db.one("SELECT sync_push()"))["pushed"] == 1
    assert json.loads(db.one("SELECT sync_pull()"))["pulled"] == 0
    assert json.loads(db.one("SELECT sync_verify()"))["ok"] == 1
    assert db.one("SELECT state FROM sync_status") == "in sync"


def test_a_first_pull_into_a_host_database_is_refused(tmp_path, db, open_db,
                                                      url):
    push(db, url)
    host = open_db(tmp_path / "host.db")
    host.run("CREATE TABLE mine(a)")
    assert host.error("SELECT sync_pull(?)", url) == (
        "sync_pull: schema main has tables but no workspace; pull into an"
        " empty file")


def test_a_table_of_the_user_makes_a_new_workspace_not_empty(
        tmp_path, db, open_db, url):
    push(db, url)
    other = open_db(tmp_path / "other.db", init=True)
    other.run("CREATE TABLE mine(a)")
    assert "belongs to another workspace" in other.error(
        "SELECT sync_pull(?)", url)
    assert other.rows("SELECT name FROM sqlite_schema WHERE name='mine'")


def test_a_newer_workspace_is_refused(tmp_path, db, open_db, url):
    db.run("INSERT INTO _choir_migration VALUES(99, 'later', '', 0)")
    push(db, url)
    other = open_db(tmp_path / "other.db")
    message = other.error("SELECT sync_pull(?)", url)
    assert f"sync_pull: the workspace at {url} has format 99 and this choir" \
        " knows up to " in message
    assert message.endswith("; load a newer choir")
    assert other.rows("SELECT * FROM sqlite_schema") == []


def test_the_seal_row_is_repaired_by_choir_init(db, url):
    db.run("DELETE FROM _choir_sync_seal")
    assert "run select choir_init()" in db.error("SELECT sync_push(?)", url)
    assert '"ok":0' in db.one("SELECT choir_check()")
    db.one("SELECT choir_init()")
    assert push(db, url)["pushed"] == 1


@pytest.mark.parametrize("word", ["nowhere/", "nowhere.db", "h:1/../", "/"])
def test_a_remote_that_is_no_url_is_an_unreachable_one(db, word):
    rows = db.rows("SELECT remote, state, detail FROM sync_status(?)", word)
    assert [r[:2] for r in rows] == [(None, "unreachable")]
    assert "URL" in rows[0][2]
