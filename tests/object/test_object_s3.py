# SPDX-License-Identifier: MIT
"""s3_* functions: one suite on a folder, versitygw and Ceph."""
import json
import os
import urllib.parse
import urllib.request

import pytest

from fault_proxy import FaultProxy, error, heard
from fault_server import FaultServer, reply
from s3_server import arm, signed


def meta(text):
    return json.loads(text)


@pytest.mark.rights
def test_put_head_get_delete(store):
    db, root = store
    put = meta(db.one("SELECT s3_put(?, ?)", root + "b/b", b"\x00\xff" * 5000))
    assert put["size"] == 10000 and put["etag"]
    head = meta(db.one("SELECT s3_head(?)", root + "b/b"))
    assert head["size"] == 10000 and head["etag"] == put["etag"]
    assert abs(head["modified"] - put["modified"]) < 60_000
    assert db.one("SELECT s3_get(?)", root + "b/b") == b"\x00\xff" * 5000
    assert db.one("SELECT s3_delete(?)", root + "b/b") == 1
    assert db.one("SELECT s3_delete(?)", root + "b/b") == 0
    assert db.one("SELECT s3_head(?)", root + "b/b") is None
    assert "no object" in db.error("SELECT s3_get(?)", root + "b/b")


def test_text_and_nothing_can_be_put(store):
    db, root = store
    db.one("SELECT s3_put(?, 'ä')", root + "t")
    assert db.one("SELECT s3_get(?)", root + "t") == "ä".encode()
    db.one("SELECT s3_put(?, '')", root + "e")
    assert db.one("SELECT s3_get(?)", root + "e") == b""
    assert meta(db.one("SELECT s3_head(?)", root + "e"))["size"] == 0


def test_ranges_end_where_the_object_does(store):
    db, root = store
    db.one("SELECT s3_put(?, '0123456789')", root + "r")
    get = "SELECT s3_get(?, ?, ?)"
    for offset, length, want in (
            (0, 4, b"0123"), (8, 10, b"89"), (3, None, b"3456789"),
            (9, 1, b"9"), (10, 5, b""), (50, 5, b""), (2, 0, b"")):
        assert db.one(get, root + "r", offset, length) == want, (offset, length)


def test_create_only_when_absent(store):
    db, root = store
    once = "SELECT s3_put(?, ?, '{\"if_none_match\":\"*\"}')"
    db.one(once, root + "k", "first")
    assert "there is an object already" in db.error(once, root + "k", "second")
    assert db.one("SELECT s3_get(?)", root + "k") == b"first"


@pytest.mark.rights
def test_replace_only_what_is_known(store):
    db, root = store
    etag = meta(db.one("SELECT s3_put(?, 'one')", root + "k"))["etag"]
    swap = "SELECT s3_put(?, ?, json_object('if_match', ?))"
    newer = meta(db.one(swap, root + "k", "two", etag))["etag"]
    assert newer != etag
    assert "not the object that if_match names" in db.error(
        swap, root + "k", "three", etag)
    assert db.one("SELECT s3_get(?)", root + "k") == b"two"
    assert db.error(swap, root + "none", "x", etag)
    assert db.one("SELECT s3_head(?)", root + "none") is None
    assert "its etag is not" in db.error("SELECT s3_delete(?, ?)", root + "k",
                                         etag)
    assert db.one("SELECT s3_delete(?, ?)", root + "k", newer) == 1


@pytest.mark.rights
def test_listing_is_in_byte_order_below_a_folder_or_a_beginning(store):
    db, root = store
    for key in ("a", "b/1", "b/2", "b/2/x", "b1", "c"):
        if key == "b/2/x" and root.startswith("file"):
            continue  # a file is no folder
        if key == "b/2" and not root.startswith("file"):
            continue
        db.one("SELECT s3_put(?, ?)", root + key, key)
    keys = [r[0] for r in db.rows("SELECT key FROM s3_list(?)", root)]
    assert keys == sorted(keys) and set(keys) >= {"a", "b/1", "b1", "c"}
    assert [r[0] for r in db.rows("SELECT key FROM s3_list(?)", root + "b")
            ] == [k for k in keys if k.startswith("b")]
    assert [r[0] for r in db.rows("SELECT key FROM s3_list(?)", root + "b/")
            ] == [k[2:] for k in keys if k.startswith("b/")]
    (row,) = db.rows("SELECT key, size, etag, modified FROM s3_list(?)",
                     root + "c")
    head = meta(db.one("SELECT s3_head(?)", root + "c"))
    assert row[:2] == ("c", 1) and row[2] == head["etag"]
    assert abs(row[3] - head["modified"]) < 2000
    assert db.rows("SELECT * FROM s3_list(?)", root + "zz") == []


@pytest.mark.parametrize("key", [
    "with space", "plus+and&amp;", "per%20cent", "ünï/日本", "q?x=1#f", "a=b;c",
    "'quote\"", "<tag>", "tab\tx", "(par)*!~", "a" * 200])
@pytest.mark.rights
def test_awkward_names(store, key):
    db, root = store
    if root.startswith("file"):
        url = root + urllib.parse.quote(key)
    else:
        url = root + key
    db.one("SELECT s3_put(?, 'x')", url)
    assert db.one("SELECT s3_get(?)", url) == b"x"
    assert [r[0] for r in db.rows("SELECT key FROM s3_list(?)", root)] == [key]
    assert db.one("SELECT s3_delete(?)", url) == 1


def test_files_come_and_go_a_piece_at_a_time(store, tmp_path):
    db, root = store
    data = os.urandom(5_000_000)
    (tmp_path / "in").write_bytes(data)
    put = meta(db.one("SELECT s3_put_file(?, ?)", root + "big",
                      str(tmp_path / "in")))
    assert put["size"] == len(data)
    got = meta(db.one("SELECT s3_get_file(?, ?)", root + "big",
                      str(tmp_path / "out")))
    assert got["etag"] == put["etag"]
    assert (tmp_path / "out").read_bytes() == data
    assert "no object" in db.error("SELECT s3_get_file(?, ?)", root + "none",
                                   str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == data  # left as it was
    assert not [n for n in os.listdir(tmp_path) if n.startswith(".choir-")]


def test_a_copy(store):
    db, root = store
    db.one("SELECT s3_put(?, 'content')", root + "from")
    assert meta(db.one("SELECT s3_copy(?, ?)", root + "from", root + "to")
                )["size"] == 7
    assert db.one("SELECT s3_get(?)", root + "to") == b"content"


@pytest.mark.net
@pytest.mark.parametrize("store_name", [
    "gateway", pytest.param("rgw", marks=pytest.mark.once)])
@pytest.mark.parametrize("key", ["from", "a b/ü+%&'*=?"])
def test_a_copy_within_one_endpoint_is_made_by_the_store(
        db, request, store_name, key):
    server = request.getfixturevalue(store_name)
    root = f"s3://bucket/{os.urandom(8).hex()}/"
    arm(db, server)
    if store_name == "rgw":
        signed(db, server, "PUT", "/bucket")
    put = meta(db.one("SELECT s3_put(?, ?)", root + key, b"x" * 100_000))
    with FaultProxy(server.port) as p:
        arm(db, server, endpoint=p.endpoint)
        copy = meta(db.one("SELECT s3_copy(?, ?)", root + key,
                           root + "to/" + key))
        assert [m for m, _ in p.seen] == ["HEAD", "PUT"]
        assert b"x-amz-copy-source:" in p.heads[1].lower()
    arm(db, server)
    assert copy["size"] == 100_000 and copy["etag"] == put["etag"]
    assert db.one("SELECT s3_get(?)", root + "to/" + key) == b"x" * 100_000


@pytest.mark.net
def test_a_copy_that_the_store_refuses_goes_by_this_process(proxy):
    """Also one that it refuses after it has said 200, one of an object that is
    replaced after the first look, and one onto itself."""
    db, root, p = proxy
    db.one("SELECT s3_put(?, 'old')", root + "from")
    for reply in (error("NotImplemented", 501), error("SlowDown", 200),
                  error("AccessDenied", 403), error("PreconditionFailed", 412)):
        p.plan = lambda n, m, t: reply \
            if b"x-amz-copy-source:" in p.heads[-1].lower() else None
        db.one("SELECT s3_put(?, 'before')", root + "to")
        assert meta(db.one("SELECT s3_copy(?, ?)", root + "from", root + "to")
                    )["size"] == 3
        assert db.one("SELECT s3_get(?)", root + "to") == b"old"
    p.plan = lambda *_: None
    db.one("SELECT s3_copy(?, ?)", root + "from", root + "from")
    assert db.one("SELECT s3_get(?)", root + "from") == b"old"
    assert "no object" in db.error("SELECT s3_copy(?, ?)", root + "none",
                                   root + "to")
    assert db.one("SELECT s3_get(?)", root + "to") == b"old"


@pytest.mark.net
def test_a_copy_to_another_endpoint_passes_through_this_process(proxy, gateway):
    db, root, p = proxy
    db.one("SELECT s3_put(?, 'x')", root + "from")
    there = root.replace("s3://bucket", "s3://other.bucket")
    db.one("SELECT choir_secret('there', ?)", json.dumps({
        "type": "s3", "scope": "s3://other.bucket/", "region": gateway.region,
        "access_key": gateway.access, "secret_key": gateway.secret,
        "endpoint": gateway.endpoint}))
    p.seen.clear()
    db.one("SELECT s3_copy(?, ?)", root + "from", there + "to")
    assert [m for m, _ in p.seen] == ["GET"]
    assert db.one("SELECT s3_get(?)", there + "to") == b"x"


@pytest.mark.inprocess
def test_what_cannot_be_written_here_says_why(store, tmp_path):
    """And the file that was there stays."""
    resource = pytest.importorskip("resource")
    db, root = store
    db.one("SELECT s3_put(?, zeroblob(3000000))", root + "k")
    (tmp_path / "out").write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        message = db.error("SELECT s3_get_file(?, ?)", root + "k",
                           str(tmp_path / "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert message == (f"s3_get_file: cannot write '{tmp_path}/out': File too"
                       " large")
    assert (tmp_path / "out").read_bytes() == b"old"
    assert not [n for n in os.listdir(tmp_path) if n.startswith(".choir-")]


BAD = [
    "s3_get(NULL)", "s3_put('file:///tmp/x', NULL)", "s3_get('s3://x/y', -1)",
    "s3_head('s3://B/k')", "s3_head('s3://')", "s3_get('s3://bucket/a//b')",
    "s3_get('s3://bucket/../b')", "s3_put('s3://bucket/k', 'x', '{')",
    "s3_put('file:///tmp/x', 'x', '{\"if_none_match\":\"y\"}')",
    "s3_put('file:///tmp/x', 'x', '{\"if_none_mtch\":\"*\"}')",
    "s3_put('file:///tmp/x', 'x', '[\"*\"]')", "s3_put('file:///tmp/x', 'x', '7')",
    "s3_put('file:///tmp/x', 'x', '{\"if_none_match\":\"*\",\"if_match\":\"y\"}')",
    "s3_presign('POST', 's3://bucket/k', 5)",
    "s3_presign('GET', 's3://bucket/k', 0)"]


@pytest.mark.parametrize("sql", [
    pytest.param(sql, marks=pytest.mark.net if "s3://" in sql else ())
    for sql in BAD])
def test_bad_arguments_are_named(db, sql):
    if "s3://" in sql:
        db.one("SELECT choir_secret('t', '{\"type\":\"s3\",\"access_key\":\"a\","
               "\"secret_key\":\"s\",\"endpoint\":\"http://127.0.0.1:1\"}')")
        db.one("SELECT choir_config('http.attempts', 1)")
    assert db.error("SELECT " + sql).startswith(sql.split("(")[0] + ": ")


def test_a_lock_ends_it(store):
    db, root = store
    db.one("SELECT choir_lock()")
    for call in ("s3_get(?)", "s3_put(?, 'x')", "s3_head(?)", "s3_delete(?)"):
        assert "locked" in db.error("SELECT " + call, root + "k")


# ------------------------------------------------------------------- s3 alone

@pytest.mark.net
def test_a_wrong_key_is_said_with_code_host_and_region(s3, gateway):
    db, root = s3
    arm(db, gateway, secret_key="wrong-canary")
    message = db.error("SELECT s3_get(?)", root + "k")
    for part in ("403 SignatureDoesNotMatch", "127.0.0.1", "eu-test-1", root):
        assert part in message
    assert "canary" not in message


@pytest.mark.net
@pytest.mark.parametrize("store_name", [
    "gateway", pytest.param("rgw", marks=pytest.mark.once)])
def test_a_bucket_that_is_not_there_is_not_an_absent_object(db, request,
                                                            store_name):
    arm(db, request.getfixturevalue(store_name))
    url = "s3://no-such-bucket/k"
    for sql in ("SELECT s3_get(?)", "SELECT s3_put(?, 'x')",
                "SELECT count(*) FROM s3_list(?)"):
        assert "404 NoSuchBucket" in db.error(sql, url)
    assert db.one("SELECT s3_head(?)", url) is None  # HEAD says no more


@pytest.mark.net
def test_a_presigned_url_works_without_credentials(s3):
    db, root = s3
    put = db.one("SELECT s3_presign('PUT', ?, 60)", root + "p q")
    urllib.request.urlopen(urllib.request.Request(
        put, b"by url", method="PUT")).close()
    assert db.one("SELECT s3_get(?)", root + "p q") == b"by url"
    get = db.one("SELECT s3_presign('GET', ?, 60)", root + "p q")
    with urllib.request.urlopen(get) as f:
        assert f.read() == b"by url"


@pytest.mark.net
def test_a_bucket_is_the_hosts_name_or_the_paths_beginning(db):
    """url_style of the secret; where nothing is said, an endpoint gets paths."""
    with FaultServer() as s:
        for path in ("/bucket/a/k", "/a/k"):
            s.on(path, reply(path.encode()))
        for style, path in ((None, "/bucket/a/k"), ("path", "/bucket/a/k"),
                            ("vhost", "/a/k")):
            db.one("SELECT choir_secret('t', ?)", json.dumps({
                "type": "s3", "access_key": "a", "secret_key": "s",
                "endpoint": f"http://localhost:{s.port}",
                **({"url_style": style} if style else {})}))
            assert db.one("SELECT s3_get('s3://bucket/a/k')") == path.encode()
            assert s.seen[-1].get("Host") == ("bucket." if style == "vhost"
                                              else "") + f"localhost:{s.port}"
            assert f"//{s.seen[-1].get('Host')}{path}?" in db.one(
                "SELECT s3_presign('GET', 's3://bucket/a/k', 60)")


@pytest.mark.net
def test_without_keys_nothing_is_signed(db):
    db.one("""SELECT choir_secret('t', '{"type":"s3","provider":"none"}')""")
    assert db.error("SELECT s3_presign('GET', 's3://bucket/k', 60)") == (
        "s3_presign: no credentials to sign with")


@pytest.mark.net
def test_a_file_that_is_too_large_or_grows_short_is_named(proxy, tmp_path):
    db, root, p = proxy
    file = tmp_path / "f"
    file.touch()
    os.truncate(file, (5 << 30) + 1)
    assert "a presigned URL takes at most 5368709120" in db.error(
        "SELECT s3_put_file('http://127.0.0.1:1/x', ?)", str(file))
    try:
        os.truncate(file, (5 << 40) + 1)
    except OSError:
        pass  # not on this file system
    else:
        assert "an object takes at most 5497558138880" in db.error(
            "SELECT s3_put_file(?, ?)", root + "k", str(file))
    os.truncate(file, 3 << 20)
    assert p.seen == []
    p.plan = lambda *_: os.truncate(file, 1 << 20)
    assert "a file became shorter while it was read" in db.error(
        "SELECT s3_put_file(?, ?)", root + "k", str(file))
    p.plan = lambda *_: None
    assert db.one("SELECT s3_head(?)", root + "k") is None


@pytest.mark.net
def test_more_than_a_page_is_listed(s3, gateway):
    db, root = s3
    folder = gateway.folder / "data/bucket" / root.split("/")[3]
    folder.mkdir()
    for i in range(2345):
        (folder / f"{i:05}").write_bytes(b"")
    assert [r[0] for r in db.rows("SELECT key FROM s3_list(?)", root)] == [
        f"{i:05}" for i in range(2345)]


@pytest.mark.net
def test_a_bucket_with_a_dot_is_addressed_by_path(s3):
    db, _ = s3
    db.one("SELECT s3_put('s3://other.bucket/k', 'x')")
    assert db.one("SELECT s3_get('s3://other.bucket/k')") == b"x"


@pytest.mark.net
def test_two_devices_sync_through_s3(s3, tmp_path, open_db, gateway):
    db, root = s3
    db.one("SELECT artifact_put('a.txt', 'hello')")
    db.one("SELECT sync_push(?)", root + "ws.sqlite")
    other = open_db(tmp_path / "two.db", init=True)
    arm(other, gateway)
    other.one("SELECT sync_pull(?)", root + "ws.sqlite")
    assert other.one("SELECT CAST(artifact_get('a.txt') AS TEXT)") == "hello"


@pytest.mark.net
def test_a_lost_reply_is_recognised(proxy):
    """The reply of the first PUT is dropped after the store has made it."""
    db, root, p = proxy
    p.plan = lambda n, *_: heard(0) if n == 0 else None
    once = "SELECT s3_put(?, 'mine', '{\"if_none_match\":\"*\"}')"
    assert meta(db.one(once, root + "k"))["size"] == 4
    assert [m for m, _ in p.seen] == ["PUT", "PUT", "HEAD"]
    assert "there is an object already" in db.error(once, root + "k")
