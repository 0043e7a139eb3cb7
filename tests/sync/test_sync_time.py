# SPDX-License-Identifier: MIT
"""Older versions of a folder remote, and its upkeep: every version restores as
it was, through compaction, until it is pruned."""
import os
import pathlib
import sqlite3
import time

import pytest

from remote import call, objects, put


@pytest.fixture
def url(tmp_path):
    (tmp_path / "remote").mkdir()
    return f"file://{tmp_path}/remote/"


def age(url, seconds, match="*.ltx"):
    """Everything there so far was stored that much earlier."""
    for p in pathlib.Path(url[7:]).rglob(match):
        t = p.stat().st_mtime - seconds
        os.utime(p, (t, t))


def history(db, url, n, size=5000):
    """n pushes; what artifacts held at each."""
    held = {}
    first = db.one("SELECT count(*) FROM action_log")
    for i in range(first, first + n):
        put(db, f"/{i}", os.urandom(size))
        if i % 3 == 2:
            db.rows("DELETE FROM artifacts WHERE path=?", f"/{i - 1}")
        txid = call(db, "sync_push(?)", url)["txid"]
        held[txid] = [r[0] for r in db.rows(
            "SELECT hex(content) FROM artifacts ORDER BY path")]
        time.sleep(0.002)
    return held


def restored(db, url, version, path):
    result = call(db, "sync_restore(?, ?, ?)", version, str(path), url)
    con = sqlite3.connect(path)
    rows = [r[0] for r in con.execute(
        "SELECT hex(content) FROM artifacts ORDER BY path")]
    assert con.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    con.close()
    return result, rows


def test_every_version_restores_by_number_and_by_time(tmp_path, db, url):
    held = history(db, url, 6)
    log = db.rows("SELECT txid, time, version, device, pages, bytes, level"
                  " FROM sync_log(?)", url)
    assert [r[0] for r in log] == [6, 5, 4, 3, 2, 1]
    assert {r[2] for r in log} == {r[0] for r in db.rows(
        "SELECT lower(hex(push_id)) FROM _choir_sync_history")}
    assert {r[3] for r in log} == {os.uname().nodename}
    for txid, ms, version, _, pages, size, level in log:
        assert level == 0 and pages > 0 and size > 0
        result, rows = restored(db, url, txid, tmp_path / f"n{txid}.db")
        assert rows == held[txid] and result["version"] == version
        iso = db.one("SELECT strftime('%Y-%m-%dT%H:%M:%f', ?/1000.0,"
                     " 'unixepoch')", ms + 1)
        result, rows = restored(db, url, iso, tmp_path / f"t{txid}.db")
        assert (result["txid"], rows) == (txid, held[txid])
        assert os.stat(tmp_path / f"n{txid}.db").st_mode & 0o777 == 0o600
    first = min(ms for _, ms, *_ in log) // 1000
    oldest = db.one("SELECT strftime('%Y-%m-%dT%H:%M:%SZ', ?, 'unixepoch')",
                    first)
    assert f"holds no version as old as 2001-01-01; the oldest is version 1 of" \
        f" {oldest}" in db.error(
        "SELECT sync_restore('2001-01-01', ?, ?)", str(tmp_path / "x"), url)
    assert "does not hold transaction 7" in db.error(
        "SELECT sync_restore(7, ?, ?)", str(tmp_path / "x"), url)
    (tmp_path / "nowhere").symlink_to("none")
    assert "exists; choose a name" in db.error(
        "SELECT sync_restore(1, ?, ?)", str(tmp_path / "nowhere"), url)
    assert "file must not be empty" in db.error(
        "SELECT sync_restore(1, '', ?)", url)
    assert "exists; choose a name" in db.error(
        "SELECT sync_restore(6, ?, ?)", str(tmp_path / "n6.db"), url)


def test_what_was_restored_is_a_workspace_that_knows_where_it_stands(
        tmp_path, db, open_db, url):
    history(db, url, 3)
    call(db, "sync_restore(2, ?, ?)", str(tmp_path / "old.db"), url)
    old = open_db(tmp_path / "old.db")
    assert old.one("SELECT state FROM sync_status(?)", url) in ("pull",
                                                               "conflict")
    assert call(old, "sync_pull(?)", url)["pulled"] == 1
    assert call(old, "sync_push(?)", url)["pushed"] == 0


@pytest.mark.parametrize("bad", ["", "2026-13-01", "2026-01-01T25:00",
                                 "now", "1.5", "-1", "2026-01-01T00:00:00+01",
                                 None, 0, -3, 1.5, b"x"])
def test_a_version_that_is_none_is_named(tmp_path, db, url, bad):
    history(db, url, 1)
    assert "version must be" in db.error(
        "SELECT sync_restore(?, ?, ?)", bad, str(tmp_path / "x"), url)
    assert not (tmp_path / "x").exists()


def test_compaction_keeps_versions_and_times_and_makes_restores_short(
        tmp_path, db, url):
    held = history(db, url, 12)
    stamps = dict(db.rows("SELECT txid, time FROM sync_log(?)", url))
    for level in 1, 2, 3:  # its window has ended, the next one's has not
        age(url, 7200)
        assert call(db, "sync_compact(?)", url)["compacted"] >= 1
        assert call(db, "sync_compact(?)", url)["compacted"] == 0
    levels = {n.split("/")[1] for n in objects(url)}
    assert levels == {"0", "1", "2", "3"}
    for txid in held:
        assert restored(db, url, txid, tmp_path / f"{txid}.db")[1] == held[txid]
    assert dict(db.rows("SELECT txid, time FROM sync_log(?)", url)) == stamps
    # Without the pushes the last one is what is left, with its own time.
    for n in objects(url):
        if n.startswith("ltx/0/"):
            os.unlink(url[7:] + n)
    assert db.rows("SELECT txid, time, level FROM sync_log(?)", url)[0] == (
        12, stamps[12], 1)
    assert restored(db, url, 12, tmp_path / "last.db")[1] == held[12]
    assert call(db, "sync_verify(?, 1)", url)["objects"] == 3


def test_a_snapshot_is_made_a_day_after_the_last(tmp_path, db, url):
    history(db, url, 3)
    call(db, "sync_compact(?)", url)
    assert not [n for n in objects(url) if n.startswith("ltx/9/")]
    age(url, 90000)
    call(db, "sync_compact(?)", url)
    assert "ltx/9/0000000000000001-0000000000000003.ltx" in objects(url)
    history(db, url, 2)
    call(db, "sync_compact(?, 'snapshot')", url)
    assert "ltx/9/0000000000000001-0000000000000005.ltx" in objects(url)
    assert "mode must be 'snapshot'" in db.error(
        "SELECT sync_compact(?, 'all')", url)


def test_the_first_push_merged_alone_is_no_young_snapshot(db, url):
    """As when the window of level 1 ends between the first two pushes."""
    history(db, url, 1)
    age(url, 90000)
    assert call(db, "sync_compact(?)", url)["compacted"] == 1
    assert objects(url)[1] == "ltx/1/0000000000000001-0000000000000001.ltx"
    history(db, url, 2)
    call(db, "sync_compact(?)", url)
    assert "ltx/9/0000000000000001-0000000000000003.ltx" in objects(url)


def snapshots(db, url, rounds):
    held = {}
    for i in range(rounds):
        for n in range(3):
            put(db, f"/{i}-{n}", os.urandom(3000))
            txid = call(db, "sync_push(?)", url)["txid"]
            held[txid] = [r[0] for r in db.rows(
                "SELECT hex(content) FROM artifacts ORDER BY path")]
        call(db, "sync_compact(?, 'snapshot')", url)
    return held


def test_pruning_keeps_two_snapshots_and_what_comes_after_them(
        tmp_path, db, open_db, url):
    held = snapshots(db, url, 4)
    before = objects(url)
    assert call(db, "sync_prune(2, ?)", url)["pruned"] == 0  # a day of grace
    assert objects(url) == before
    age(url, 90000)
    result = call(db, "sync_prune(2, ?)", url)
    assert result["pruned"] == len(before) - len(objects(url)) > 0
    left = [r[0] for r in db.rows("SELECT txid FROM sync_log(?)", url)]
    assert left == [12, 11, 10, 9]
    for txid in left:
        assert restored(db, url, txid, tmp_path / f"{txid}.db")[1] == held[txid]
    assert "does not hold transaction 8; the nearest is 9" in db.error(
        "SELECT sync_restore(8, ?, ?)", str(tmp_path / "8"), url)
    other = open_db(tmp_path / "other.db")
    assert call(other, "sync_pull(?)", url)["txid"] == 12
    put(other, "/more")
    assert call(other, "sync_push(?)", url)["txid"] == 13


def test_a_device_that_slept_through_a_pruning_learns_that_it_lost(
        tmp_path, db, open_db, url):
    """Its next name was taken and is free again."""
    call(db, "sync_push(?)", url)
    sleeper = open_db(tmp_path / "sleeper.db")
    call(sleeper, "sync_pull(?)", url)
    snapshots(db, url, 4)
    age(url, 90000)
    call(db, "sync_prune(2, ?)", url)
    name = "ltx/0/0000000000000002-0000000000000002.ltx"
    assert name not in objects(url)
    put(sleeper, "/mine")
    assert "the remote has moved" in sleeper.error("SELECT sync_push(?)", url)
    assert name not in objects(url)
    assert sleeper.one("SELECT state FROM sync_status(?)", url) == "conflict"
    call(sleeper, "sync_pull(?, 'theirs')", url)
    put(sleeper, "/mine")
    assert call(sleeper, "sync_push(?)", url)["pushed"] == 1


def test_upkeep_of_a_plain_file_is_refused(tmp_path, db):
    plain = f"file://{tmp_path}/ws.sqlite"
    for sql in ("SELECT sync_compact(?)", "SELECT sync_prune(2, ?)",
                "SELECT * FROM sync_log(?)",
                "SELECT sync_restore(1, '/tmp/x', ?)"):
        assert "is a plain file, which keeps one version" in db.error(
            sql, plain)


def test_an_empty_remote_has_no_versions_and_needs_no_upkeep(tmp_path, db,
                                                             url):
    assert db.rows("SELECT * FROM sync_log(?)", url) == []
    assert call(db, "sync_compact(?)", url)["compacted"] == 0
    assert call(db, "sync_prune(NULL, ?)", url)["pruned"] == 0
    assert "nothing at" in db.error("SELECT sync_verify(?)", url)
    assert os.listdir(url[7:]) == []


def test_verify_reads_every_object_and_finds_damage_anywhere(tmp_path, db,
                                                             url):
    snapshots(db, url, 2)
    result = call(db, "sync_verify(?, 1)", url)
    assert result["objects"] == len(objects(url)) >= 8
    assert result["same"] == 1
    put(db, "/more")
    assert call(db, "sync_verify(?)", url)["same"] == 0
    path = pathlib.Path(url[7:] + objects(url)[2])
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    assert call(db, "sync_verify(?)", url)["ok"] == 1  # not in the way
    assert "is damaged" in db.error("SELECT sync_verify(?, 1)", url)
