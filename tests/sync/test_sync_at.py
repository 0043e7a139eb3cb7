# SPDX-License-Identifier: MIT
"""choir_at: an old version attached read-only beside the live file."""
import os
import pathlib
import shutil
import threading

import pytest

from conftest import Db
from fault_proxy import error
from remote import call, objects, push, put


@pytest.fixture
def url(tmp_path):
    (tmp_path / "remote").mkdir()
    return f"file://{tmp_path}/remote/"


@pytest.fixture
def live(open_db, tmp_path):
    """A workspace on a connection whose host has switched URI names on."""
    return open_db(tmp_path / "live.db", init=True, uri=True)


@pytest.fixture
def db(live):
    """For the fixtures of stores."""
    return live


def files(url):
    return [pathlib.Path(url[7:]) / name for name in objects(url)]


def held(d, schema="main"):
    return d.rows(f"SELECT path, hex(content) FROM {schema}.artifacts"
                  " ORDER BY path")


def history(d, url, n=4, size=9000):
    """What each version holds."""
    versions = {}
    for i in range(n):
        put(d, f"/{i}", os.urandom(size))
        if i == 2:
            d.rows("DELETE FROM artifacts WHERE path='/0'")
        versions[push(d, url)["txid"]] = held(d)
    return versions


def attach(d, url, version="", name="old"):
    d.rows(f"ATTACH 'file:ws?vfs=choir_at&version={version}&remote={url}'"
           f" AS {name}" if version else
           f"ATTACH 'file:ws?vfs=choir_at&remote={url}' AS {name}")


def problem(d):
    return d.one("SELECT problem FROM sync_attached WHERE problem NOT NULL")


def test_every_version_can_be_attached_beside_the_live_file(live, url):
    versions = history(live, url)
    put(live, "/only here", "x")
    for txid, rows in versions.items():
        attach(live, url, txid)
        assert held(live, "old") == rows
        assert live.one("PRAGMA old.integrity_check") == "ok"
        assert live.rows("SELECT txid, problem FROM sync_attached") == [
            (txid, None)]
        live.rows("DETACH old")
    assert live.rows("SELECT * FROM sync_attached") == []


def test_two_versions_are_compared_in_one_statement(live, url):
    history(live, url)
    attach(live, url, 2, "was")
    attach(live, url, 3, "became")
    assert live.rows("SELECT path FROM was.artifacts EXCEPT"
                     " SELECT path FROM became.artifacts") == [("/0",)]
    assert live.one("SELECT count(*) FROM main.artifacts JOIN was.artifacts"
                    " USING(path)") == 1
    assert live.one("SELECT count(*) FROM sync_attached") == 2


def test_a_time_means_the_newest_version_not_made_after_it(live, url):
    versions = history(live, url, 3)
    for txid, ms in live.rows("SELECT txid, time FROM sync_log(?)", url):
        iso = live.one("SELECT strftime('%Y-%m-%dT%H:%M:%f', ?/1000.0,"
                       " 'unixepoch')", ms + 1)
        attach(live, url, iso)
        newest = live.one("SELECT txid FROM sync_attached")
        assert newest >= txid and held(live, "old") == versions[newest]
        live.rows("DETACH old")


def test_without_a_version_it_is_the_newest_and_the_configured_remote(live,
                                                                      url):
    versions = history(live, url, 2)
    live.one("SELECT choir_config('remote', ?)", url)
    live.rows("ATTACH 'file:ws?vfs=choir_at' AS old")
    assert held(live, "old") == versions[2]
    assert live.rows("SELECT name, remote, txid FROM sync_attached") == [
        ("ws", url, 2)]


def test_versions_of_an_encrypted_remote_are_attached_with_its_key(
        live, open_db, tmp_path, url):
    key = '{"type":"sync","scope":"file:///","key":"%s"}' % ("5a" * 32)
    live.one("SELECT choir_secret('box', ?)", key)
    versions = history(live, url, size=200000)
    call(live, "sync_compact(?, 'snapshot')", url)
    for txid, rows in versions.items():
        attach(live, url, txid)
        assert held(live, "old") == rows
        live.rows("DETACH old")
    for secret in None, key.replace("5a", "5b"):
        d = open_db(tmp_path / "d.db", uri=True)
        d.one("SELECT choir_secret('box', ?)", secret)
        d.error(f"ATTACH 'file:ws?vfs=choir_at&version=2&remote={url}' AS old")
        assert problem(d).startswith(f"the remote {url}")
        assert "is encrypted" in problem(d)
        d.close()


def test_sync_at_gives_the_name_to_attach(live, url):
    versions = history(live, url, 3)
    name = live.one("SELECT sync_at(2, ?)", url)
    assert name == f"file:ws?vfs=choir_at&version=2&remote={url}"
    live.one("SELECT choir_config('remote', ?)", url)
    assert live.one("SELECT sync_at('2')") == name
    assert live.one("SELECT sync_at()") == name.replace("n=2", "n=3")
    live.rows("ATTACH sync_at(2) AS old")
    assert held(live, "old") == versions[2]
    assert "does not hold transaction 9; the nearest is 3" in live.error(
        "SELECT sync_at(9)")
    assert "version must be" in live.error("SELECT sync_at('yesterday')")


def test_a_remote_with_odd_letters_in_its_name(live, tmp_path):
    folder = tmp_path / "a b+c&d=ä"
    folder.mkdir()
    odd = "file://" + str(folder).replace(" ", "%20") + "/"
    versions = history(live, odd, 2)
    live.rows("ATTACH sync_at(1, ?) AS old", odd)
    assert held(live, "old") == versions[1]


def test_it_cannot_be_written(live, url):
    versions = history(live, url, 2)
    before = [(p, p.read_bytes()) for p in files(url)]
    attach(live, url, 2)
    for sql in ("DELETE FROM old.artifacts", "CREATE TABLE old.t(a)",
                "DROP TABLE old.artifacts", "PRAGMA old.user_version=7"):
        assert "readonly" in live.error(sql)
    assert "readonly" in live.error(
        "INSERT INTO old.artifacts(path, name, content) VALUES('/x','x','x')")
    assert held(live, "old") == versions[2]
    assert [(p, p.read_bytes()) for p in files(url)] == before


@pytest.mark.parametrize("version, what", [
    ("9", "does not hold transaction 9; the nearest is 4"),
    ("0", "version must be 1 or more, got 0"),
    ("yesterday", "version must be a transaction as in sync_log, or a time"),
    ("2001-01-01", "holds no version as old as 2001-01-01; the oldest")])
def test_a_version_that_is_not_there_is_named(live, url, version, what):
    history(live, url)
    assert live.error(f"ATTACH 'file:ws?vfs=choir_at&version={version}"
                      f"&remote={url}' AS old")
    assert what in problem(live)
    attach(live, url, 1)  # and the next one works
    assert live.one("SELECT count(*) FROM old.artifacts") == 1


@pytest.mark.parametrize("remote, what", [
    ("file:///tmp/x.sqlite", "is a plain file, which keeps one version"),
    ("nonsense/", "is not a URL"), ("", "no remote; name one"),
    ("file:///nowhere/at/all/", "")])
def test_a_remote_that_is_none_is_named(live, remote, what):
    assert live.error("ATTACH 'file:ws?vfs=choir_at&version=1"
                      f"&remote={remote}' AS old")
    assert what in problem(live)


def test_pruned_between_two_versions_the_nearest_are_both_named(live, url):
    history(live, url, 6)
    for p in files(url):
        if "0003-" in p.name or "0004-" in p.name:
            p.unlink()
    call(live, "sync_compact(?)", url)
    name = f"{1:016x}-{5:016x}.ltx"
    (pathlib.Path(url[7:]) / "ltx" / "9").mkdir(parents=True)
    assert "does not hold transaction 4; the nearest is 2" in live.error(
        "SELECT sync_at(4, ?)", url)
    shutil.copy(files(url)[0],
                pathlib.Path(url[7:]) / "ltx" / "9" / name)
    assert "does not hold transaction 4; the nearest are 2 and 5" in (
        live.error("SELECT sync_at(4, ?)", url))


def test_files_that_are_compacted_away_under_a_reader_are_found_again(live,
                                                                      url):
    versions = history(live, url, 4, size=200000)
    call(live, "sync_compact(?, 'snapshot')", url)
    attach(live, url, 4)
    for p in files(url):
        if "/ltx/0/" in str(p):
            p.unlink()
    assert held(live, "old") == versions[4]
    assert live.one("SELECT problem FROM sync_attached") is None


def test_a_remote_that_goes_away_is_an_error_and_comes_back(live, url):
    versions = history(live, url, 2, size=400000)
    attach(live, url, 2)
    root = pathlib.Path(url[7:]) / "ltx"
    root.rename(root.parent / "gone")
    assert live.error("SELECT sum(length(content)) FROM old.artifacts"
                      " WHERE content NOT LIKE '%x%'")
    assert problem(live)
    (root.parent / "gone").rename(root)
    assert held(live, "old") == versions[2]


def test_a_damaged_file_is_named(live, url):
    history(live, url, 2, size=400000)
    [first, second] = files(url)
    data = bytearray(first.read_bytes())
    data[-30] ^= 0xff  # of the index
    first.write_bytes(data)
    assert live.error(f"ATTACH 'file:ws?vfs=choir_at&version=1&remote={url}'"
                      " AS old")
    assert "is damaged: ltx/0/0000000000000001" in problem(live)


def test_a_file_under_another_name_is_found_out(live, url):
    history(live, url, 3)
    a, b, _ = files(url)
    data = a.read_bytes()
    a.write_bytes(b.read_bytes())
    assert live.error(f"ATTACH 'file:ws?vfs=choir_at&version=3&remote={url}'"
                      " AS old")
    assert "which is not its name" in problem(live)
    a.write_bytes(data)
    attach(live, url, 3)


def test_locked_connections_reach_nothing_but_what_they_had(live, url):
    versions = history(live, url, 2)
    attach(live, url, 1)
    live.one("SELECT choir_lock()")
    assert live.error(f"ATTACH 'file:ws?vfs=choir_at&version=2&remote={url}'"
                      " AS other")
    assert problem(live) == "refused after choir_lock()"
    assert held(live, "old") == versions[1]
    assert "choir_lock" in live.error("SELECT sync_at(1)")


@pytest.mark.inprocess
def test_a_connection_without_choir_reaches_nothing(live, url):
    history(live, url, 1)
    con = Db(f"file:ws?vfs=choir_at&version=1&remote={url}", choir=False,
             uri=True)
    assert "unable to open" in con.error("SELECT * FROM sqlite_schema")
    con.close()


@pytest.mark.inprocess
def test_each_connection_uses_its_own_settings(live, open_db, tmp_path, url):
    history(live, url, 1)
    live.one("SELECT choir_config('remote', ?)", url)
    live.rows("ATTACH 'file:ws?vfs=choir_at' AS old")
    other = open_db(tmp_path / "other.db", uri=True)
    assert other.error("ATTACH 'file:ws?vfs=choir_at' AS old")
    assert "no remote; name one" in problem(other)
    assert problem(live) is None


@pytest.mark.inprocess
def test_many_threads_read_versions_of_their_own(tmp_path, live, url):
    versions = history(live, url, 3)
    wrong = []

    def read(txid):
        d = Db(tmp_path / f"thread{txid}.db", uri=True)
        for _ in range(5):
            attach(d, url, txid)
            if held(d, "old") != versions[txid]:
                wrong.append(txid)
            d.rows("DETACH old")
        d.close()

    threads = [threading.Thread(target=read, args=(t,)) for t in versions]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


@pytest.mark.inprocess
def test_a_closed_connection_leaves_nothing_behind(open_db, tmp_path, live,
                                                   url):
    versions = history(live, url, 2)
    d = open_db(tmp_path / "short.db", uri=True)
    attach(d, url, 1)
    d.close()
    attach(live, url, 2)
    assert held(live, "old") == versions[2]


def test_a_restored_file_and_an_attached_version_are_the_same(live, tmp_path,
                                                              url):
    history(live, url, 3)
    attach(live, url, 2)
    file = str(tmp_path / "restored.db")
    call(live, "sync_restore(2, ?, ?)", file, url)
    live.rows(f"ATTACH '{file}' AS restored")
    tables = live.rows("SELECT name FROM old.sqlite_schema WHERE type='table'"
                       " AND rootpage > 0 AND name NOT LIKE '\\_choir\\_%'"
                       " ESCAPE '\\'")
    for [name] in tables:
        assert live.rows(f"SELECT * FROM old.\"{name}\"") == live.rows(
            f"SELECT * FROM restored.\"{name}\""), name


@pytest.mark.once
def test_versions_are_attached_from_every_store(store, live):
    _, url = store
    versions = history(live, url, 3)
    for txid, rows in versions.items():
        live.rows("ATTACH sync_at(?, ?) AS old", txid, url)
        assert held(live, "old") == rows
        live.rows("DETACH old")


@pytest.mark.net
@pytest.mark.once
def test_one_row_of_a_large_old_version_costs_few_requests(proxy, live):
    """A snapshot of 40 MB and two pushes."""
    _, url, p = proxy
    live.rows("CREATE TABLE big(id INTEGER PRIMARY KEY, a BLOB)")
    live.rows("WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n"
              " WHERE i < 60000) INSERT INTO big SELECT i, randomblob(600)"
              " FROM n")
    push(live, url)
    for i in 1, 2:
        live.rows("UPDATE big SET a=x'00' WHERE id=?", i * 20000)
        push(live, url)
    del p.seen[:]
    attach(live, url, 3)
    assert live.one("SELECT length(a) FROM old.big WHERE id=31234") == 600
    assert live.rows("SELECT a FROM old.big WHERE id IN (20000, 40000)") == [
        (b"\0",), (b"\0",)]
    assert {m for m, _ in p.seen} == {"GET"} and len(p.seen) <= 10, p.seen
    assert live.one("SELECT requests FROM sync_attached") == len(p.seen) - 1
    del p.seen[:]  # what is kept is not fetched again
    live.rows("SELECT a FROM old.big WHERE id IN (20000, 31234)")
    assert p.seen == []


@pytest.mark.net
@pytest.mark.once
def test_a_connection_that_breaks_is_tried_again_and_then_told(proxy, live):
    _, url, p = proxy
    versions = history(live, url, 2, size=300000)
    attach(live, url, 2)
    p.plan = lambda n, method, target: error("NoSuchBucket", 404)
    assert live.error("SELECT sum(length(hex(content))) FROM old.artifacts")
    assert problem(live)
    p.plan = lambda n, method, target: None
    assert held(live, "old") == versions[2]


@pytest.mark.inprocess
@pytest.mark.once
def test_an_old_version_may_be_the_main_file_of_a_connection(live, url):
    """Its VFS serves temporary files and libraries too."""
    versions = history(live, url, 3, size=60000)
    con = Db(f"file:ws?vfs=choir_at&version=2&remote={url}", uri=True)
    assert held(con) == versions[2]
    for sql in ("PRAGMA temp_store=FILE", "PRAGMA cache_size=10",
                "CREATE TEMP TABLE t AS SELECT hex(content) AS h"
                " FROM artifacts"):
        con.rows(sql)
    for _ in range(4):
        con.rows("INSERT INTO t SELECT h FROM t")
    assert len(con.rows("SELECT h || h FROM t ORDER BY 1 DESC")) == (
        16 * len(versions[2]))
    assert "readonly" in con.error("DELETE FROM artifacts")
    con.close()
