# SPDX-License-Identifier: MIT
"""Under the seeds' bucket policy: Get and Put below users/u1/, nothing else, and
403 for what is not there. Once with keys, once with presigned URLs alone, which
an endpoint mints."""
import hashlib
import json
import random

import pytest

import seeds_policy
from fault_proxy import FaultProxy
from presign_server import PresignServer, presign
from s3_server import arm

pytestmark = pytest.mark.net

BIG = bytes(range(256)) * 5000
TOKEN = "canary-token"


def meta(text):
    return json.loads(text)


class Policy:
    """A bucket behind the policy, and how to reach it."""

    def __init__(self, gateway, proxy, minter, user):
        self.gateway, self.proxy, self.minter = gateway, proxy, minter
        self.user, self.root = user, f"s3://bucket/users/{user}/"

    def settle(self, db, user=None):
        if self.minter:
            db.one("SELECT choir_secret('api', ?)", json.dumps(
                {"type": "presign", "url": self.minter.url,
                 "bearer_token": TOKEN, "scope": "s3://bucket/"}))
        else:
            arm(db, self.gateway, endpoint=self.proxy.endpoint)
        db.one("SELECT choir_config('user', ?)", user or self.user)
        db.one("SELECT choir_config('remote.artifacts', 's3://bucket/')")
        return db

    def path(self, name):
        return self.gateway.folder / "data/bucket/users" / self.user / name


@pytest.fixture(params=["keys", "presigned"])
def policy(request, gateway):
    user = f"u{random.getrandbits(40):x}"
    with FaultProxy(gateway.port) as proxy:
        proxy.plan = seeds_policy.plan(gateway, user)
        if request.param == "keys":
            yield Policy(gateway, proxy, None, user)
            return
        with PresignServer(proxy.endpoint, gateway.access, gateway.secret,
                           gateway.region, TOKEN) as minter:
            yield Policy(gateway, proxy, minter, user)


@pytest.fixture
def under(db, policy):
    return policy.settle(db), policy


# ----------------------------------------------------------------- objects

def test_put_get_and_head(under):
    db, p = under
    put = meta(db.one("SELECT s3_put(?, 'hello')", p.root + "a b/ü"))
    assert meta(db.one("SELECT s3_head(?)", p.root + "a b/ü"))["etag"] == (
        put["etag"])
    assert db.one("SELECT s3_get(?)", p.root + "a b/ü") == b"hello"
    assert db.one("SELECT s3_get(?, 1, 3)", p.root + "a b/ü") == b"ell"
    assert db.one("SELECT s3_get(?, 9, 3)", p.root + "a b/ü") == b""
    db.one("SELECT s3_put(?, '')", p.root + "empty")
    assert meta(db.one("SELECT s3_head(?)", p.root + "empty"))["size"] == 0
    assert db.one("SELECT s3_get(?)", p.root + "empty") == b""


def test_what_is_missing_is_absent_and_its_error_says_why_it_is_unsure(under):
    db, p = under
    assert db.one("SELECT s3_head(?)", p.root + "none") is None
    assert db.error("SELECT s3_get(?)", p.root + "none") == (
        f"s3_get: no object {p.root}none, or none that may be read: the store"
        " says 403 to both")


def test_conditions_hold(under):
    db, p = under
    once = "SELECT s3_put(?, ?, '{\"if_none_match\":\"*\"}')"
    etag = meta(db.one(once, p.root + "k", "first"))["etag"]
    assert "there is an object already" in db.error(once, p.root + "k", "2nd")
    swap = "SELECT s3_put(?, ?, json_object('if_match', ?))"
    newer = meta(db.one(swap, p.root + "k", "second", etag))["etag"]
    assert "not the object that" in db.error(swap, p.root + "k", "3rd", etag)
    assert db.one("SELECT s3_get(?)", p.root + "k") == b"second"
    assert newer != etag


def test_files_and_copies(under, tmp_path):
    db, p = under
    (tmp_path / "in").write_bytes(BIG)
    db.one("SELECT s3_put_file(?, ?)", p.root + "f", str(tmp_path / "in"))
    db.one("SELECT s3_copy(?, ?)", p.root + "f", p.root + "g")
    db.one("SELECT s3_get_file(?, ?)", p.root + "g", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == BIG


def test_what_the_policy_forbids_is_said(under):
    db, p = under
    db.one("SELECT s3_put(?, 'x')", p.root + "k")
    for sql in ("SELECT s3_delete(?)", "SELECT * FROM s3_list(?)"):
        message = db.error(sql, p.root + "k")
        assert "AccessDenied" in message or "presigned URLs cannot" in message
    other = "s3://bucket/users/somebody-else/k"
    assert "403 AccessDenied" in db.error("SELECT s3_put(?, 'x')", other)
    assert db.one("SELECT s3_head(?)", other) is None
    assert db.one("SELECT s3_get(?)", p.root + "k") == b"x"


# --------------------------------------------------------------- artifacts

def test_large_artifacts_come_and_go(under, tmp_path):
    db, p = under
    ident = db.one("SELECT artifact_put('/big', ?)", BIG)
    (tmp_path / "file").write_bytes(BIG + b"file")
    file = db.one("SELECT artifact_put_file('/f', ?)", str(tmp_path / "file"))
    assert meta(db.one("SELECT artifact_flush()"))["moved"] == 1
    assert p.path(f"artifacts/{ident}").read_bytes() == BIG
    assert db.one("SELECT artifact_fetch('/big')") == BIG
    assert db.one("SELECT artifact_fetch(?)", file) == BIG + b"file"
    db.one("SELECT artifact_put('/big', ?)", BIG + b"2")
    db.one("SELECT artifact_flush()")
    assert db.one("SELECT artifact_fetch('/big')") == BIG + b"2"
    name = f"{ident}-{hashlib.sha256(BIG + b'2').hexdigest()}"
    assert p.path(f"artifacts/{name}").exists()
    db.one("SELECT artifact_put('/big', 'small')")
    assert db.one("SELECT artifact_fetch('/big')") == "small"


def test_a_tombstone_stays_where_nothing_may_be_deleted(under):
    db, p = under
    ident = db.one("SELECT artifact_put('/big', ?)", BIG)
    db.one("SELECT artifact_flush()")
    db.one("SELECT artifact_delete('/big')")
    swept = meta(db.one("SELECT artifact_sweep(0)"))
    assert (swept["listed"], swept["orphans"], swept["deleted"],
            swept["forbidden"]) == (0, 1, 0, 1)
    assert db.one("SELECT artifact_purge()") == 0
    assert db.rows("SELECT id, content, s3_key FROM artifacts") == [
        (ident, None, f"users/{p.user}/artifacts/{ident}")]
    assert p.path(f"artifacts/{ident}").exists()


# -------------------------------------------------------------------- sync

def test_two_devices_sync(under, tmp_path, open_db):
    db, p = under
    remote = p.root + "workspace.sqlite"
    db.one("SELECT artifact_put('/a.txt', 'one')")
    db.one("SELECT artifact_put('/big', ?)", BIG)
    assert meta(db.one("SELECT sync_push(?)", remote))["pushed"] == 1
    assert meta(db.one("SELECT sync_push(?)", remote))["pushed"] == 0
    other = p.settle(open_db(tmp_path / "two.db", init=True))
    other.one("SELECT sync_pull(?)", remote)
    assert other.one("SELECT artifact_get('/a.txt')") == "one"
    assert other.one("SELECT artifact_fetch('/big')") == BIG
    other.one("SELECT artifact_put('/a.txt', 'two')")
    other.one("SELECT sync_push(?)", remote)
    db.one("SELECT artifact_put('/b.txt', 'mine')")
    assert "the remote has moved" in db.error("SELECT sync_push(?)", remote)
    db.one("SELECT artifact_delete('/b.txt')")
    db.one("SELECT sync_pull(?, 'theirs')", remote)
    assert db.one("SELECT artifact_get('/a.txt')") == "two"
    assert db.one("SELECT artifact_fetch('/big')") == BIG


# ------------------------------------------------------------- presigned URLs

def mint(db, minter, **more):
    db.one("SELECT choir_secret('api', ?)", json.dumps(dict(
        {"type": "presign", "url": minter.url, "scope": "s3://bucket/users/u1/",
         "bearer_token": TOKEN}, **more)))


@pytest.fixture
def minter(gateway):
    with PresignServer(gateway.endpoint, gateway.access, gateway.secret,
                       gateway.region, TOKEN, shape="plain") as s:
        yield s


def test_the_endpoint_is_asked_once_for_each_request(db, minter):
    mint(db, minter)
    db.one("SELECT choir_config('user', 'u1')")
    db.one("SELECT s3_put('s3://bucket/users/u1/k', 'x')")
    db.one("SELECT s3_get('s3://bucket/users/u1/k')")
    assert minter.asked == [
        {"method": "PUT", "bucket": "bucket", "key": "users/u1/k",
         "user": "u1"},
        {"method": "GET", "bucket": "bucket", "key": "users/u1/k",
         "user": "u1"}]


def test_a_scope_that_does_not_cover_is_not_asked(db, minter, gateway):
    mint(db, minter)
    arm(db, gateway)
    db.one("SELECT s3_put('s3://bucket/other', 'x')")  # by keys
    assert minter.asked == []


@pytest.mark.parametrize("reply, problem", [
    ((200, b"{}"), "its reply has no url"),
    ((200, b"not json"), "its reply has no url"),
    ((200, b""), "its reply has no url"),
    ((200, b'{"url":"ftp://x/"}'), "its reply has no url"),
    ((200, b'{"url":7}'), "its reply has no url"),
    ((200, b"[" * 70000), ""),
    ((403, b'{"url":"http://127.0.0.1/"}'), "status 403"),
    ((500, b"oops"), "status 500")])
def test_an_endpoint_that_gives_nothing_is_named(db, minter, reply, problem):
    mint(db, minter)
    db.one("SELECT choir_config('http.attempts', 1)")
    minter.reply = reply
    message = db.error("SELECT s3_get('s3://bucket/users/u1/k')")
    assert message.startswith("s3_get: ") and problem in message
    assert TOKEN not in message


def test_no_token_and_no_signature_shows_in_errors(db, minter, gateway):
    mint(db, minter, bearer_token="wrong-canary")
    message = db.error("SELECT s3_get('s3://bucket/users/u1/k')")
    assert "status 401" in message and "canary" not in message
    mint(db, minter)
    minter.reply = (200, json.dumps({"url": presign(
        gateway.endpoint, gateway.access, "wrong", gateway.region, "GET",
        "/bucket/users/u1/k")}).encode())
    message = db.error("SELECT s3_get('s3://bucket/users/u1/k')")
    assert "403 SignatureDoesNotMatch" in message
    assert "X-Amz-Signature" not in message
    assert "Signature=" not in str(db.rows("SELECT * FROM choir_transfers"))
    assert TOKEN not in str(db.rows("SELECT * FROM choir_secrets"))


def test_a_presigned_url_is_a_remote(db, gateway, tmp_path, open_db):
    path = f"/bucket/users/u1/{random.getrandbits(60):x}.sqlite"

    def url(method):
        return presign(gateway.endpoint, gateway.access, gateway.secret,
                       gateway.region, method, path)
    db.one("SELECT artifact_put('/a.txt', 'hello')")
    assert meta(db.one("SELECT sync_push(?)", url("PUT")))["pushed"] == 1
    other = open_db(tmp_path / "two.db", init=True)
    other.one("SELECT sync_pull(?)", url("GET"))
    assert other.one("SELECT artifact_get('/a.txt')") == "hello"
    assert other.one("SELECT s3_get(?)", url("GET"))[:15] == b"SQLite format 3"
    db.one("SELECT artifact_put('/a.txt', 'again')")
    for u in (url("PUT"), url("GET")):  # blind, or not allowed to write
        message = db.error("SELECT sync_push(?)", u)
        assert message.startswith("sync_push: ") and "Amz" not in message
    other.one("SELECT sync_pull(?)", url("GET"))
    assert other.one("SELECT artifact_get('/a.txt')") == "hello"
    assert "Amz" not in db.error("SELECT sync_pull(?)", url("PUT"))


def test_a_url_with_a_password_is_refused(db):
    message = db.error("SELECT s3_get('https://me:canary@host/x')")
    assert "credentials in a URL" in message and "canary" not in message
