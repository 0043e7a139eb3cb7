# SPDX-License-Identifier: MIT
"""Folders of page deltas in buckets: versitygw and Ceph, requests counted,
lists forbidden, connections cut anywhere."""
import json
import os
import random
import urllib.request

import pytest

import crypt_reader
from fault_proxy import error, heard, sent
from remote import paths, pull, push, put
from s3_server import arm

pytestmark = pytest.mark.net
CUTS = 1200 if os.environ.get("CHOIR_SYNC_FULL") == "1" else 15


@pytest.mark.once
@pytest.mark.rights
def test_versions_travel_over_every_store(store, tmp_path, open_db):
    db, url = store
    put(db, "/a", os.urandom(300000))
    assert push(db, url)["txid"] == 1
    for i in range(3):
        put(db, f"/{i}")
        assert push(db, url)["bytes"] < 12000
        assert push(db, url)["pushed"] == 0
    json.loads(db.one("SELECT sync_compact(?, 'snapshot')", url))
    assert [r[0] for r in db.rows("SELECT txid FROM sync_log(?)", url)] == [
        4, 3, 2, 1]
    result = json.loads(db.one("SELECT sync_restore(3, ?, ?)",
                               str(tmp_path / "old.db"), url))
    assert result["txid"] == 3
    assert paths(open_db(tmp_path / "old.db")) == ["/0", "/1", "/a"]
    assert json.loads(db.one("SELECT sync_verify(?, 1)", url))["objects"] >= 5
    assert json.loads(db.one("SELECT sync_prune(2, ?)", url))["pruned"] == 0


@pytest.mark.once
@pytest.mark.rights
def test_an_encrypted_bucket_holds_versions_and_upkeep(store, tmp_path):
    db, url = store
    db.one("SELECT choir_secret('box', ?)", json.dumps(
        {"type": "sync", "scope": url, "key": "5a" * 32}))
    put(db, "/a", os.urandom(300000))
    for i in range(3):
        put(db, f"/{i}")
        assert push(db, url)["encrypted"] == 1
    key = db.one("SELECT key FROM s3_list(?) WHERE key GLOB '*.ltx'", url)
    assert db.one("SELECT s3_get(? || ?, 0, 8)", url, key) == b"choirenc"
    db.one("SELECT sync_compact(?, 'snapshot')", url)
    assert [r[0] for r in db.rows(
        "SELECT txid FROM sync_log(?) WHERE pages > 0", url)] == [3, 2, 1]
    db.one("SELECT sync_restore(2, ?, ?)", str(tmp_path / "old.db"), url)
    verified = json.loads(db.one("SELECT sync_verify(?, 1)", url))
    assert verified["objects"] >= 4 and verified["same"] == 1
    assert json.loads(db.one("SELECT sync_prune(2, ?)", url))["pruned"] == 0
    assert pull(db, url)["pulled"] == 0


@pytest.mark.parametrize("encrypted", [False, True])
def test_an_unchanged_push_is_one_request_and_a_changed_one_two(
        proxy, encrypted):
    db, url, p = proxy
    if encrypted:
        db.one("SELECT choir_secret('box', ?)", json.dumps(
            {"type": "sync", "scope": url, "key": "5a" * 32}))
    put(db, "/a")
    push(db, url)
    del p.seen[:]
    assert push(db, url)["pushed"] == 0
    assert [m for m, _ in p.seen] == ["GET"]
    put(db, "/b")
    del p.seen[:]
    assert push(db, url)["pushed"] == 1
    assert [m for m, _ in p.seen] == ["GET", "PUT"]
    del p.seen[:]
    assert pull(db, url)["pulled"] == 0
    assert [m for m, _ in p.seen] == ["GET", "GET"]


def test_a_plain_snapshot_says_that_it_is_a_database(s3):
    db, root = s3
    for bytes_ in (1 << 30, 0):  # in one request, and in parts
        db.one("SELECT choir_config('s3.conditional_bytes', ?)", bytes_)
        put(db, f"/{bytes_}")
        assert push(db, root + "ws.sqlite")["pushed"] == 1
        url = db.one("SELECT s3_presign('HEAD', ?, 60)", root + "ws.sqlite")
        with urllib.request.urlopen(urllib.request.Request(
                url, method="HEAD")) as reply:
            assert reply.headers["Content-Type"] == "application/x-sqlite3"


def names(gateway, url):
    folder = gateway.folder / "data" / url[5:]
    return sorted(folder.rglob("*.ltx"))


def test_where_listing_is_forbidden_encrypted_objects_are_probed(
        proxy, gateway, tmp_path, open_db):
    db, url, p = proxy
    data = gateway.folder / "data"

    def plan(n, method, target):
        path, _, query = target.partition("?")
        if "list-type" in query or method == "GET" and not (
                data / path.lstrip("/")).exists():
            return error("AccessDenied", 403, "no")

    p.plan = plan
    other, plain = open_db(tmp_path / "o.db"), open_db(tmp_path / "p.db")
    for d in db, other, plain:
        arm(d, gateway, endpoint=p.endpoint)
        if d is not plain:
            d.one("SELECT choir_secret('box', ?)", json.dumps(
                {"type": "sync", "scope": url, "key": "5a" * 32}))
    for i in range(3):
        put(db, f"/{i}")
        assert push(db, url)["txid"] == i + 1
    assert pull(other, url)["txid"] == 3
    put(other, "/more")
    assert push(other, url)["txid"] == 4
    assert pull(db, url)["pulled"] == 1
    for sql in "SELECT sync_pull(?)", "SELECT sync_push(?)":
        plain.one("SELECT choir_init()")
        assert "is encrypted; give its key" in plain.error(sql, url)


def test_where_listing_is_forbidden_names_are_probed(
        proxy, gateway, tmp_path, open_db):
    """A missing key answers 403 there, as on AWS without ListBucket."""
    db, url, p = proxy
    data = gateway.folder / "data"

    def plan(n, method, target):
        path, _, query = target.partition("?")
        if "list-type" in query or method == "GET" and not (
                data / path.lstrip("/")).exists():
            return error("AccessDenied", 403, "no")

    p.plan = plan
    nobody = open_db(tmp_path / "nobody.db")
    arm(nobody, gateway, endpoint=p.endpoint)
    assert "listing it is forbidden; check the credentials" in nobody.error(
        "SELECT sync_pull(?)", url)
    for i in range(6):
        put(db, f"/{i}")
        assert push(db, url)["txid"] == i + 1
    other = open_db(tmp_path / "other.db")
    arm(other, gateway, endpoint=p.endpoint)
    assert pull(other, url)["txid"] == 6
    assert paths(other) == paths(db)
    put(other, "/more")
    assert push(other, url)["txid"] == 7
    assert pull(db, url)["pulled"] == 1
    assert db.one("SELECT count(*) FROM sync_log(?)", url) == 7
    # Behind a pruning the horizon tells where to begin.
    p.plan = lambda n, m, t: None
    db.one("SELECT sync_compact(?, 'snapshot')", url)
    put(db, "/last")
    push(db, url)
    db.one("SELECT s3_put(?, ?)", url + "choir-horizon", f"{7:016x}\n")
    for f in names(gateway, url):
        if f.parent.name == "0000" and int(f.name[:16], 16) < 8:
            f.unlink()
    p.plan = plan
    third = open_db(tmp_path / "third.db")
    arm(third, gateway, endpoint=p.endpoint)
    assert pull(third, url)["txid"] == 8
    assert paths(third) == paths(db)
    for f in "sync_compact(?)", "sync_prune(2, ?)":
        assert "is forbidden" in db.error(f"SELECT {f}", url)


def ids(gateway, url, key=None):
    """The version ids of the pushes there."""
    found = [f.read_bytes() for f in names(gateway, url)
             if f.parent.name == "0000"]
    if key:
        found = [crypt_reader.decrypt(data, key)[1] for data in found]
    return [data[72:88] for data in found]


@pytest.mark.once
@pytest.mark.inprocess
@pytest.mark.parametrize("key", [None, b"Z" * 32], ids=["plain", "encrypted"])
def test_wherever_the_connection_breaks_no_push_is_lost_or_made_twice(
        proxy, gateway, tmp_path, key):
    from conftest import Db
    db, url, p = proxy
    secret = json.dumps({"type": "sync", "scope": url, "key": (
        key or b"").hex()}) if key else None
    db.one("SELECT choir_secret('box', ?)", secret)
    rng = random.Random(11)
    acknowledged = set()
    for i in range(CUTS // 3 if key else CUTS):
        root = f"{url}{i % 7}/"
        at = rng.randrange(3)
        fault = rng.choice([sent, heard])
        k = rng.choice([0, rng.randrange(400), rng.randrange(4000)])
        count = [0]

        def plan(n, method, target):
            count[0] += 1
            return fault(k) if count[0] == at + 1 else None

        put(db, f"/{i}", os.urandom(rng.randrange(3000)))
        p.plan = plan
        try:
            push(db, root)
            acknowledged |= set(paths(db))
        except db.failure as e:
            assert "moved" not in str(e) and "another" not in str(e), e
        if rng.random() < 0.3:
            put(db, f"/{i}-more")
        p.plan = lambda n, m, t: None
        push(db, root)  # unaided
        assert push(db, root)["pushed"] == 0
        have = ids(gateway, root, key)
        assert len(have) == len(set(have)), i
        if i % 10 == 9:
            d = Db(":memory:")
            arm(d, gateway)
            d.one("SELECT choir_secret('box', ?)", secret)
            pull(d, root)
            assert paths(d) == paths(db), i
            d.close()
    assert acknowledged <= set(paths(db))


@pytest.mark.once
@pytest.mark.inprocess
def test_a_pull_that_breaks_off_changes_nothing_and_the_next_one_works(
        proxy, gateway, tmp_path):
    from conftest import Db
    db, url, p = proxy
    rng = random.Random(5)
    for i in range(4):
        put(db, f"/{i}", os.urandom(5000))
        push(db, url)
    for i in range(CUTS):
        at, k = rng.randrange(7), rng.choice([0, rng.randrange(6000)])
        count = [0]

        def plan(n, method, target):
            count[0] += 1
            return heard(k) if count[0] == at + 1 else None

        d = Db(":memory:")
        arm(d, gateway, endpoint=p.endpoint)
        p.plan = plan
        try:
            pull(d, url)
        except d.failure:
            assert d.rows("SELECT * FROM sqlite_schema") == [], i
        p.plan = lambda n, m, t: None
        pull(d, url)
        assert paths(d) == ["/0", "/1", "/2", "/3"], i
        d.close()


@pytest.mark.once
def test_litestream_restores_from_the_bucket(s3, gateway, tmp_path):
    import sqlite3
    import litestream
    from versitygw import ACCESS, REGION, SECRET
    if not litestream.program():
        pytest.skip("litestream needs Go or CHOIR_TEST_LITESTREAM")
    db, url = s3
    for i in range(3):
        put(db, f"/{i}", os.urandom(9000))
        push(db, url)
    config = tmp_path / "litestream.yml"
    bucket, _, path = url[5:].partition("/")
    config.write_text(
        f"dbs:\n  - path: {tmp_path}/r.db\n    replica:\n      type: s3\n"
        f"      bucket: {bucket}\n      path: {path.strip('/')}\n"
        f"      endpoint: {gateway.endpoint}\n      region: {REGION}\n"
        f"      access-key-id: {ACCESS}\n      secret-access-key: {SECRET}\n"
        "      force-path-style: true\n")
    litestream.restore(str(tmp_path / "r.db"), tmp_path / "out.db",
                       "-config", str(config))
    con = sqlite3.connect(tmp_path / "out.db")
    assert con.execute("SELECT path, hex(content) FROM artifacts ORDER BY 1"
                       ).fetchall() == db.rows(
        "SELECT path, hex(content) FROM artifacts ORDER BY 1")
    con.close()


@pytest.mark.parametrize("wrong, problem", [
    ({"secret_key": "wrong"}, "403 SignatureDoesNotMatch: "),
    ({"access_key": "nobody"}, "403 InvalidAccessKeyId: "),
    (None, "host 127.0.0.1 port "), ({}, "no AWS credentials in ")])
def test_who_is_not_known_is_not_told_that_nothing_is_there(
        s3, gateway, monkeypatch, wrong, problem):
    db, root = s3
    url = root + "ws/"
    push(db, url)
    put(db, "/a")
    if wrong is None:
        db.one("SELECT choir_config('http.allow', 'else.test')")
    elif wrong:
        arm(db, gateway, **wrong)
    else:
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        db.one("SELECT choir_secret('test', NULL)")
    versions = db.one("SELECT count(*) FROM _choir_sync_history")
    for call in ("sync_push", "sync_pull", "sync_verify", "sync_compact"):
        assert problem in db.error(f"SELECT {call}(?)", url), call
    [(state, detail)] = db.rows("SELECT state, detail FROM sync_status(?)", url)
    assert state == "unreachable" and problem in detail
    assert db.one("SELECT count(*) FROM _choir_sync_history") == versions
    db.one("SELECT choir_config('remote.artifacts', ?)", root)
    db.one("SELECT choir_config('user', 'u')")
    assert problem in db.error("SELECT artifact_sweep()")
