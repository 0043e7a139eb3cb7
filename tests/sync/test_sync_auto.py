# SPDX-License-Identifier: MIT
"""Pushes by the clock: a schedule for cron, a thread for hosts that stay."""
import json
import os
import sqlite3
import time

import pytest

from conftest import SO, Db


@pytest.fixture
def remote(tmp_path):
    (tmp_path / "remote").mkdir()
    return f"file://{tmp_path}/remote/"


def until(what, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.02)
    return False


def status(d):
    return json.loads(d.one("SELECT sync_auto()"))


def versions(d, remote):
    return d.one("SELECT count(*) FROM sync_log(?)", remote)


# ---------------------------------------------------------------- schedule


def test_a_push_is_due_by_the_clock_and_survives_the_process(
        db, open_db, remote):
    assert db.one("SELECT sync_due()") is None
    assert db.one("SELECT sync_schedule(1000)") == 1000
    assert db.one("SELECT sync_due()") == 1
    assert db.rows("SELECT json_extract(sync_push(?), '$.pushed')"
                   " WHERE sync_due()", remote) == [(1,)]
    assert db.one("SELECT sync_due()") == 0
    again = open_db(db.path)
    assert again.one("SELECT sync_schedule()") == 1000
    assert again.one("SELECT sync_due()") == 0
    assert until(lambda: again.one("SELECT sync_due()") == 1, 5)
    # A push with nothing to send begins the next period too.
    assert again.rows("SELECT json_extract(sync_push(?), '$.pushed')"
                      " WHERE sync_due()", remote) == [(0,)]
    assert again.one("SELECT sync_due()") == 0
    assert again.one("SELECT sync_schedule(0)") is None
    assert db.one("SELECT sync_due()") is None


def test_a_push_that_failed_stays_due(db, tmp_path):
    db.one("SELECT sync_schedule(86400000)")
    db.error("SELECT sync_push(?)", f"file://{tmp_path}/nowhere/")
    assert db.one("SELECT sync_due()") == 1


def test_a_schedule_changes_nothing_in_the_workspace(db, remote):
    db.one("SELECT sync_push(?)", remote)
    db.one("SELECT sync_schedule(5000)")
    assert db.one("SELECT json_extract(sync_push(?), '$.pushed')",
                  remote) == 0


@pytest.mark.parametrize("call, message", [
    ("sync_schedule(999)", "every_ms must be 0 or at least 1000, got 999"),
    ("sync_schedule(-1)", "every_ms must be 0 to 31622400000, got -1"),
    ("sync_schedule('x')", "every_ms must be an integer, got text"),
    ("sync_auto(99)", "quiet_ms must be 0 or at least 100, got 99"),
    ("sync_auto('soon')", "quiet_ms must be an integer, got text"),
    ("sync_auto(5000)", "no remote; give one, or run select"
     " choir_config('remote', 'file:///…/')"),
])
def test_bad_input_is_named(db, call, message):
    assert db.error(f"SELECT {call}") == f"{call.split('(')[0]}: {message}"


def test_a_database_without_a_file_is_refused(open_db):
    d = open_db(init=True)
    for call in ("sync_schedule(5000)", "sync_due()",
                 "sync_auto(5000, 'file:///tmp/x/')"):
        assert "has no file" in d.error(f"SELECT {call}")


# ------------------------------------------------------------------ thread


@pytest.mark.inprocess
def test_what_is_written_is_pushed_by_itself(db, remote):
    db.one("SELECT artifact_put('/a.md', 'one')")
    assert json.loads(db.one("SELECT sync_auto(100, ?)",
                             remote))["running"] == 1
    assert until(lambda: status(db)["sent"] == 1)
    db.one("SELECT artifact_put('/a.md', 'two')")
    assert until(lambda: status(db)["sent"] == 2)
    # Another connection's commits count as well.
    other = Db(db.path)
    other.one("SELECT artifact_put('/b.md', 'three')")
    assert until(lambda: status(db)["sent"] == 3)
    other.close()
    assert versions(db, remote) == 3
    assert db.one("SELECT sync_auto(0)") == '{"running":0}'


@pytest.mark.inprocess
def test_an_idle_workspace_sends_nothing(db, remote, tmp_path):
    db.one("SELECT sync_auto(100, ?)", remote)
    assert until(lambda: status(db)["sent"] == 1)
    files = sorted(os.listdir(tmp_path / "remote/ltx/0"))
    db.one("SELECT sync_push(?)", remote)  # bookkeeping is no change
    pushes = status(db)["pushes"]
    time.sleep(1.0)
    s = status(db)
    assert s["sent"] == 1 and s["error"] is None
    assert s["pushes"] <= pushes + 1
    assert sorted(os.listdir(tmp_path / "remote/ltx/0")) == files


@pytest.mark.inprocess
def test_a_busy_workspace_is_pushed_all_the_same(db, remote):
    db.one("SELECT sync_auto(200, ?)", remote)
    assert until(lambda: status(db)["sent"] == 1)
    end = time.monotonic() + 15
    i = 0
    while time.monotonic() < end and status(db)["sent"] < 2:
        try:
            db.one("SELECT setting_set('n', ?)", str(i))
            i += 1
        except db.failure as e:  # the thread committed at that moment
            assert "locked" in str(e)
        time.sleep(0.02)
    assert status(db)["sent"] >= 2


@pytest.mark.inprocess
def test_an_error_is_reported_and_tried_again(db, tmp_path, remote):
    (tmp_path / "remote").rmdir()
    db.one("SELECT sync_auto(100, ?)", remote)
    assert until(lambda: status(db)["error"])
    s = status(db)
    assert s["error"].startswith("sync_push: ") and s["retry"] > 0
    assert "sync_auto: " in db.one("SELECT detail FROM sync_status")
    (tmp_path / "remote").mkdir()
    assert until(lambda: status(db)["sent"] == 1)
    assert status(db)["error"] is None


@pytest.mark.inprocess
def test_a_conflict_stays_until_it_is_settled(db, open_db, remote, tmp_path):
    db.one("SELECT sync_push(?)", remote)
    phone = open_db(tmp_path / "phone.db", init=True)
    phone.one("SELECT sync_pull(?)", remote)
    phone.one("SELECT artifact_put('/p.md', 'phone')")
    phone.one("SELECT sync_push(?)", remote)
    db.one("SELECT artifact_put('/l.md', 'laptop')")
    db.one("SELECT sync_auto(100, ?)", remote)
    assert until(lambda: status(db)["error"])
    assert "the remote has moved" in status(db)["error"]
    assert versions(db, remote) == 2


@pytest.mark.inprocess
def test_it_ends_with_its_connection_and_leaves_nothing(tmp_path, remote):
    import threading
    n = threading.active_count()
    tasks = len(os.listdir("/proc/self/task"))
    for _ in range(3):
        d = Db(tmp_path / "w.db", init=True)
        d.one("SELECT sync_auto(100, ?)", remote)
        d.one("SELECT sync_auto(100, ?)", remote)
        d.one("SELECT artifact_put('/a', hex(randomblob(9)))")
        start = time.monotonic()
        d.close()
        assert time.monotonic() - start < 5
    assert threading.active_count() == n
    assert len(os.listdir("/proc/self/task")) == tasks
    assert not (tmp_path / "w.db-wal").exists()


@pytest.mark.inprocess
def test_a_locked_connection_pushes_nothing_more(db, remote):
    db.one("SELECT sync_auto(100, ?)", remote)
    assert until(lambda: status(db)["sent"] == 1)
    db.one("SELECT choir_lock()")
    other = Db(db.path)
    other.one("SELECT artifact_put('/a.md', 'locked')")
    time.sleep(0.6)
    assert versions(other, remote) == 1
    other.close()


@pytest.mark.inprocess
def test_settings_and_secrets_go_with_it(db, tmp_path):
    (tmp_path / "configured").mkdir()
    remote = f"file://{tmp_path}/configured/"
    db.one("SELECT choir_config('remote', ?)", remote)
    db.one("SELECT choir_secret('s', '{\"type\":\"http\",\"scope\":"
           "\"https://example.test/\",\"bearer_token\":\"t\"}')")
    db.one("SELECT sync_auto(100)")
    assert until(lambda: status(db)["sent"] == 1)
    assert (tmp_path / "configured/ltx").is_dir()


@pytest.mark.inprocess
def test_the_thread_never_checkpoints_the_hosts_wal(db, remote):
    db.run("PRAGMA wal_autocheckpoint=0")
    db.one("SELECT artifact_put('/a.md', 'x')")
    before = os.stat(db.path).st_mtime_ns
    db.one("SELECT sync_auto(100, ?)", remote)
    assert until(lambda: status(db)["sent"] == 1)
    db.one("SELECT sync_auto(0)")
    assert os.stat(db.path).st_mtime_ns == before
    assert sqlite3.connect(db.path).execute(
        "PRAGMA integrity_check").fetchone() == ("ok",)
