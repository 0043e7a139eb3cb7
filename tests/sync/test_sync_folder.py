# SPDX-License-Identifier: MIT
"""A remote that ends in '/': pushes are page deltas, their names the commits."""
import json
import os
import pathlib
import shutil
import sqlite3

import pytest

from remote import objects, paths, pull, push, put, state


@pytest.fixture
def url(tmp_path):
    (tmp_path / "remote").mkdir()
    return f"file://{tmp_path}/remote/"


def name(n, level=0, first=None):
    return f"ltx/{level}/{first or n:016x}-{n:016x}.ltx"


def cache_files():
    return list(pathlib.Path(os.environ["HOME"]).rglob("pages-*"))


def test_the_first_push_has_every_page_and_the_next_what_changed(
        tmp_path, db, open_db, url):
    put(db, "/a", os.urandom(300000))
    first = push(db, url)
    assert first["pushed"] == 1 and first["txid"] == 1
    assert first["bytes"] > 300000
    put(db, "/b")
    second = push(db, url)
    assert second["pushed"] == 1 and second["txid"] == 2
    assert second["bytes"] < 12000
    assert objects(url) == [name(1), name(2)]
    other = open_db(tmp_path / "other.db")
    assert pull(other, url)["pulled"] == 1
    assert paths(other) == ["/a", "/b"]
    assert other.one("PRAGMA integrity_check") == "ok"
    assert other.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_nothing_changed_means_nothing_sent(db, url, mode):
    db.rows(f"PRAGMA journal_mode={mode}")
    put(db, "/a")
    push(db, url)
    for _ in range(100 if mode == "WAL" else 5):
        assert push(db, url)["pushed"] == 0
    assert pull(db, url)["pulled"] == 0
    assert state(db, url) == "in sync"
    assert objects(url) == [name(1)]


def test_a_push_that_finds_its_pages_in_the_wal_sends_the_same_as_a_scan(
        tmp_path, db, open_db, url):
    """Inserts, deletes, growth, VACUUM, checkpoints: with the cache, without
    it, and with a cache that has no place in the WAL."""
    rng = __import__("random").Random(7)
    for i in range(24):
        for _ in range(rng.randrange(1, 9)):
            put(db, f"/{i}-{rng.random()}", os.urandom(rng.randrange(9000)))
        what = rng.randrange(8)
        if what == 0:
            db.rows("DELETE FROM artifacts WHERE rowid % 3 = 0")
        elif what == 1:
            db.rows("VACUUM")
        elif what == 2:
            db.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        elif what == 3:
            db.rows("PRAGMA wal_checkpoint(RESTART)")
        elif what == 4:
            for f in cache_files():
                f.unlink()
        assert push(db, url)["pushed"] == 1
        assert push(db, url)["pushed"] == 0
        assert json.loads(db.one("SELECT sync_verify(?)", url))["ok"] == 1
    other = open_db(tmp_path / "other.db")
    pull(other, url)
    for sql in ("SELECT * FROM artifacts ORDER BY rowid",
                "SELECT * FROM action_log ORDER BY seq"):
        assert other.rows(sql) == db.rows(sql)


@pytest.mark.parametrize("harm", ["lost", "torn", "stale", "noise"])
def test_a_cache_that_is_not_right_costs_bytes_and_nothing_else(
        tmp_path, db, open_db, url, harm):
    put(db, "/a", os.urandom(50000))
    push(db, url)
    [cache] = cache_files()
    old = cache.read_bytes()
    put(db, "/b")
    push(db, url)
    if harm == "lost":
        cache.unlink()
    elif harm == "torn":
        cache.write_bytes(cache.read_bytes()[:500])
    elif harm == "stale":
        cache.write_bytes(old)
    else:
        cache.write_bytes(os.urandom(len(old)))
    assert push(db, url)["pushed"] == 0
    put(db, "/c")
    cache.write_bytes(b"again" + old)  # an unchanged file had mended it
    assert push(db, url)["bytes"] > 50000
    put(db, "/d")
    assert push(db, url)["bytes"] < 12000
    other = open_db(tmp_path / "other.db")
    pull(other, url)
    assert paths(other) == ["/a", "/b", "/c", "/d"]


def test_changes_travel_back_and_forth(tmp_path, db, open_db, url):
    push(db, url)
    other = open_db(tmp_path / "other.db")
    pull(other, url)
    for i in range(4):
        put(other, f"/o{i}")
        assert state(other, url) == "push"
        assert push(other, url)["pushed"] == 1
        assert state(db, url) == "pull"
        assert pull(db, url)["bytes"] < 20000
        put(db, f"/d{i}")
        assert push(db, url)["pushed"] == 1
        assert pull(other, url)["pulled"] == 1
    assert paths(db) == paths(other) == sorted(
        [f"/o{i}" for i in range(4)] + [f"/d{i}" for i in range(4)])


def test_the_loser_of_a_race_learns_that_it_lost_and_has_two_ways_out(
        tmp_path, db, open_db, url):
    push(db, url)
    other = open_db(tmp_path / "other.db")
    pull(other, url)
    put(db, "/mine")
    put(other, "/theirs")
    push(other, url)
    before = objects(url)
    message = db.error("SELECT sync_push(?)", url)
    assert message.startswith(f"sync_push: the remote has moved: {url} is at"
                              " version 2 of 20")
    assert "'theirs'" in message and "'fork'" in message
    assert objects(url) == before and paths(db) == ["/mine"]
    assert state(db, url) == "conflict"
    message = db.error("SELECT sync_pull(?)", url)
    assert message.startswith("sync_pull: both sides changed: ")
    assert "'theirs'" in message and "'fork'" in message
    # One way: a workspace of its own.
    shutil.copy(tmp_path / "ws.db", tmp_path / "fork.db")
    shutil.copy(tmp_path / "ws.db-wal", tmp_path / "fork.db-wal")
    fork = open_db(tmp_path / "fork.db")
    (tmp_path / "second").mkdir()
    second = f"file://{tmp_path}/second/"
    assert push(fork, second, "fork")["txid"] == 1
    put(fork, "/more")
    assert push(fork, second)["bytes"] < 12000
    assert "belongs to another workspace" in fork.error(
        "SELECT sync_push(?)", url)
    assert "'fork' makes a new remote" in fork.error(
        "SELECT sync_push(?, 'fork')", url)
    # The other: the remote's version, and a copy of this one.
    result = pull(db, url, "theirs")
    assert paths(db) == ["/theirs"]
    assert paths(open_db(result["saved"])) == ["/mine"]
    put(db, "/after")
    assert push(db, url)["txid"] == 3


def test_an_own_push_whose_reply_was_lost_is_recognised(tmp_path, db, url):
    """What is known of the push is undone, as after a kill behind the put."""
    put(db, "/a", os.urandom(40000))
    push(db, url)
    put(db, "/b")
    before = db.one("SELECT seal FROM _choir_sync_seal")
    [cache] = cache_files()
    kept = cache.read_bytes()
    push(db, url)
    # The digest is known before the put, the fact is not.
    seal = db.one("SELECT seal FROM _choir_sync_seal")
    db.rows("UPDATE _choir_sync_seal SET seal=?", seal[:32] + before[32:])
    cache.write_bytes(kept)
    assert push(db, url)["txid"] == 2
    assert objects(url) == [name(1), name(2)]
    # Killed even before the digest was known: a new version on top.
    db.rows("UPDATE _choir_sync_seal SET seal=?", bytes(32) + before[32:])
    cache.write_bytes(kept)
    result = push(db, url)
    assert result["pushed"] == 1 and result["txid"] == 3
    assert push(db, url)["pushed"] == 0
    assert json.loads(db.one("SELECT sync_verify(?)", url))["ok"] == 1


def test_a_remote_that_was_emptied_or_rolled_back_is_healed(tmp_path, db, url):
    put(db, "/a", os.urandom(30000))
    push(db, url)
    put(db, "/b")
    push(db, url)
    os.unlink(url[7:] + name(2))
    assert push(db, url)["txid"] == 2  # the version that was there, again
    for n in objects(url):
        os.unlink(url[7:] + n)
    assert state(db, url) == "empty"
    result = push(db, url)
    assert result["txid"] == 1 and result["bytes"] > 30000
    assert json.loads(db.one("SELECT sync_verify(?)", url))["ok"] == 1


def test_two_remotes_of_one_file_each_get_their_deltas(tmp_path, db, open_db,
                                                       url):
    (tmp_path / "second").mkdir()
    second = f"file://{tmp_path}/second/"
    plain = f"file://{tmp_path}/plain.sqlite"
    put(db, "/a", os.urandom(30000))
    for i in range(3):
        put(db, f"/{i}")
        for u in (url, second, plain):
            assert push(db, u)["pushed"] == 1
            assert push(db, u)["pushed"] == 0
        assert push(db, url)["pushed"] == 0
    assert objects(url) == objects(second) == [name(1), name(2), name(3)]
    for i, u in enumerate((url, second, plain)):
        other = open_db(tmp_path / f"o{i}.db")
        pull(other, u)
        assert paths(other) == paths(db)


@pytest.mark.parametrize("size", [512, 1024, 4096, 8192, 65536])
def test_every_page_size_travels(tmp_path, open_db, url, size):
    d = open_db(tmp_path / "sized.db", pragmas=(f"page_size={size}",),
                init=True)
    put(d, "/a", os.urandom(200000))
    push(d, url)
    put(d, "/b")
    assert push(d, url)["bytes"] < 100000
    other = open_db(tmp_path / "other.db")
    pull(other, url)
    assert paths(other) == ["/a", "/b"]
    assert other.one("PRAGMA page_size") == size
    if size != 4096:
        third = open_db(tmp_path / "third.db", init=True)
        assert f"the remote has pages of {size} bytes and this file of 4096" \
            in third.error("SELECT sync_pull(?)", url)


def test_a_database_in_memory_pushes_too(open_db, url):
    d = open_db(":memory:", init=True)
    put(d, "/a")
    assert push(d, url)["pushed"] == 1
    assert push(d, url)["pushed"] == 0
    put(d, "/b")
    assert push(d, url)["txid"] == 2
    assert pull(d, url)["pulled"] == 0


def test_what_differs_from_its_name_or_belongs_elsewhere_is_found(
        tmp_path, db, open_db, url):
    """Objects swapped, cut, or taken from another workspace."""
    for i in range(4):
        put(db, f"/{i}", os.urandom(6000))
        push(db, url)
    good = {n: pathlib.Path(url[7:] + n).read_bytes() for n in objects(url)}
    (tmp_path / "second").mkdir()
    second = f"file://{tmp_path}/second/"
    stranger = open_db(tmp_path / "stranger.db", init=True)
    for i in range(4):
        put(stranger, f"/{i}", os.urandom(6000))
        push(stranger, second)
    foreign = pathlib.Path(second[7:] + name(3)).read_bytes()
    a, b, c = good[name(2)], good[name(3)], good[name(4)]
    cases = {"swapped": {2: b, 3: a}, "repeated": {3: a}, "foreign": {3: foreign},
             "short": {3: b[:-1]}, "headless": {3: b[100:]}, "empty": {3: b""},
             "longer": {3: b + b"\0"}, "joined": {3: b + c}, "gone": {3: None}}
    for case, what in cases.items():
        for n, data in good.items():
            pathlib.Path(url[7:] + n).write_bytes(data)
        for n, data in what.items():
            if data is None:
                os.unlink(url[7:] + name(n))
            else:
                pathlib.Path(url[7:] + name(n)).write_bytes(data)
        device = open_db(tmp_path / f"{case}.db")
        message = device.error("SELECT sync_pull(?)", url)
        assert "is damaged" in message or "is not as it was pushed" in message, (
            case, message)
        assert device.rows("SELECT * FROM sqlite_schema") == [], case


def flips(tmp_path, db, url, places):
    """Each place: (file, offset). Every flip must be refused."""
    from conftest import Db
    for n, i in places:
        path = pathlib.Path(url[7:] + n)
        good = path.read_bytes()
        with open(path, "r+b", buffering=0) as f:
            f.seek(i)
            f.write(bytes([good[i] ^ 1 << i % 8]))
            d = Db(":memory:")
            message = d.error("SELECT sync_pull(?)", url)
            assert "damaged" in message or "not as it was pushed" in message, (
                n, i, message)
            assert d.rows("SELECT * FROM sqlite_schema") == []
            d.close()
            f.seek(i)
            f.write(good[i:i + 1])


@pytest.mark.once
@pytest.mark.inprocess
def test_every_flipped_byte_in_every_object_is_detected(tmp_path, db, url):
    put(db, "/a", "text " * 400)
    push(db, url)
    put(db, "/b", b"\0" * 3000)
    push(db, url)
    places = [(n, i) for n in objects(url)
              for i in range(os.path.getsize(url[7:] + n))]
    if os.environ.get("CHOIR_SYNC_FULL") != "1":
        rng = __import__("random").Random(3)
        ends = [p for p in places if p[1] < 112
                or p[1] > os.path.getsize(url[7:] + p[0]) - 40]
        places = rng.sample(places, 300) + ends
    flips(tmp_path, db, url, places)


def digest(path):
    """Every row of every table, with its types."""
    con = sqlite3.connect(path)
    tables = [r[0] for r in con.execute(
        "SELECT name FROM sqlite_schema WHERE type='table' ORDER BY 1")]
    out = {}
    for t in tables:
        columns = [r[1] for r in con.execute(f'PRAGMA table_info("{t}")')]
        if t == "_choir_sync_seal":
            continue
        select = ", ".join(f'typeof("{c}"), quote("{c}")' for c in columns)
        out[t] = sorted(con.execute(f'SELECT {select} FROM "{t}"').fetchall())
    con.close()
    return out


@pytest.fixture
def litestream():
    import sys
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "servers"))
    import litestream
    if not litestream.program():
        pytest.skip("litestream needs Go or CHOIR_TEST_LITESTREAM")
    return litestream


@pytest.mark.once
def test_litestream_restores_what_we_push(tmp_path, db, url, litestream):
    db.run("CREATE TABLE t(a, b REAL, c TEXT); INSERT INTO t VALUES"
           "(NULL, 0.1, 'é'), (x'00ff', -1e300, ''), (1<<62, 9e999, 'a')")
    push(db, url)
    for i in range(3):
        put(db, f"/{i}", os.urandom(20000))
        push(db, url)
    db.rows("VACUUM")
    push(db, url)
    litestream.restore(url, tmp_path / "restored.db")
    db.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    assert digest(tmp_path / "restored.db") == digest(tmp_path / "ws.db")


@pytest.mark.once
def test_what_litestream_restored_knows_where_it_stands(tmp_path, db, open_db,
                                                        url, litestream):
    put(db, "/a", os.urandom(30000))
    push(db, url)
    litestream.restore(url, tmp_path / "restored.db")
    d = open_db(tmp_path / "restored.db")
    assert state(d, url) == "in sync"
    assert push(d, url)["pushed"] == 0
    put(d, "/b")
    assert push(d, url)["bytes"] < 12000
    assert pull(db, url)["pulled"] == 1 and paths(db) == ["/a", "/b"]


@pytest.mark.once
def test_we_pull_what_litestream_replicates(tmp_path, open_db, url,
                                            litestream):
    source = open_db(tmp_path / "source.db", choir=False)
    source.rows("PRAGMA journal_mode=WAL")
    source.run("CREATE TABLE t(a, b); INSERT INTO t VALUES(1, x'00')")

    def write():
        for i in range(40):
            source.rows("INSERT INTO t VALUES(?, randomblob(3000))", i / 3)

    litestream.replicate(tmp_path / "source.db", url[:-1], write)
    d = open_db(tmp_path / "pulled.db")
    assert pull(d, url)["pulled"] == 1
    for x in source, d:
        x.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    theirs = {t: rows for t, rows in digest(tmp_path / "source.db").items()
              if not t.startswith("_litestream")}
    ours = {t: rows for t, rows in digest(tmp_path / "pulled.db").items()
            if not t.startswith("_litestream")}
    assert ours == theirs and len(ours["t"]) == 41
    ws = open_db(tmp_path / "ws.db", init=True)
    put(ws, "/mine")
    for f in "sync_push", "sync_pull":
        assert "is written by another tool" in ws.error(f"SELECT {f}(?)", url)
    assert "saved" in pull(ws, url, "theirs")


@pytest.mark.parametrize("url", ["ftp://host/", "http://u:x@127.0.0.1:1/"])
def test_the_status_of_a_remote_that_is_none_is_a_row(tmp_path, db, url):
    (tmp_path / "remote").mkdir()
    db.one("SELECT sync_push(?)", f"file://{tmp_path}/remote/")
    assert db.rows("SELECT remote, state FROM sync_status(?)", url) == [
        (None, "unreachable")]
