# SPDX-License-Identifier: MIT
"""What the network and the store do wrong, on a real store behind a proxy:
replies and requests that break off anywhere, keys that expire, clocks and
regions that differ, bodies without an end.

CHOIR_OBJECT_FULL=1 cuts at 1,500 points instead of 40.
"""
import email.utils
import json
import os
import random
import re
import stat
import time
import urllib.request

import pytest

from fault_proxy import error, heard, said, sent
from fault_server import FaultServer, reply
from s3_server import arm, signed

POINTS = 300 if os.environ.get("CHOIR_OBJECT_FULL") == "1" else 8
SIZE = 200_000


def resident():
    """Bytes of memory of this process."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096


def prefix(root):
    return root.split("/", 3)[3]


# Each gives (what it does, its requests, what must hold when it worked).

def getting(db, root, data, gateway):
    db.one("SELECT s3_put(?, ?)", root + "k", data)
    return (lambda: db.one("SELECT s3_get(?)", root + "k"), 1,
            lambda got: got == data)


def putting(db, root, data, gateway):
    return (lambda: db.one("SELECT s3_put(?, ?)", root + "k", data), 1,
            lambda put: json.loads(put)["size"] == len(data))


def putting_parts(db, root, data, gateway):
    db.one("SELECT choir_config('s3.multipart_bytes', 0)")
    return putting(db, root, data, gateway)[0], 3, lambda put: json.loads(
        put)["size"] == len(data)


def copying_parts(db, root, data, gateway):
    db.one("SELECT s3_put(?, ?)", root + "from", data)
    db.one("SELECT choir_config('s3.copy_bytes', 0)")
    return (lambda: db.one("SELECT s3_copy(?, ?)", root + "from", root + "k"),
            7, lambda put: json.loads(put)["size"] == len(data))


def listing(db, root, data, gateway):
    folder = gateway.folder / "data/bucket" / prefix(root)
    folder.mkdir(parents=True, exist_ok=True)
    keys = [f"{i:05}" for i in range(1500)]
    for k in keys:
        (folder / k).touch()
    return (lambda: [k for (k,) in db.rows("SELECT key FROM s3_list(?)",
                                           root)], 2, lambda got: got == keys)


@pytest.mark.net
@pytest.mark.once
@pytest.mark.parametrize("prepare", [getting, putting, putting_parts,
                                     copying_parts, listing])
def test_a_cut_anywhere_is_mended_or_said(proxy, gateway, prepare):
    """Once: the call gives what it gives without. Each time: it says so, and
    what is there is whole."""
    db, root, p = proxy
    rng = random.Random(prepare.__name__)
    before, most, after = random.randbytes(SIZE), 0, random.randbytes(SIZE)
    call, requests, right = prepare(db, root, after, gateway)
    files = len(os.listdir("/proc/self/fd"))
    memory, orphans = resident(), []
    for point in range(POINTS):
        which, for_ever = rng.randrange(requests), rng.random() < 0.3
        cut = rng.choice([heard, sent])(
            rng.choice([rng.randrange(1, 1200), rng.randrange(1, SIZE)])
            if rng.random() < 0.9 else 0)
        if cut == ("sent", 0):
            cut = ("sent", 1)
        if prepare in (putting, putting_parts, copying_parts):
            p.plan = lambda *_: None
            db.one("SELECT s3_put(?, ?)", root + "k", before)
        p.seen.clear()
        p.heads.clear()
        met = []

        def plan(n, method, target):
            """The request that is the which-th in a run without faults."""
            if not met and n == which:
                met.append((method, target.split("continuation")[0]))
            if met and (method, target.split("continuation")[0]) == met[0] \
                    and (for_ever or n == which):
                if (method, cut[0]) == ("POST", "heard") and \
                        "uploads" in target:
                    orphans.append(n)  # whose name nobody has heard
                return cut
        p.plan = plan
        start = time.monotonic()
        try:
            got = call()
            assert right(got), (cut, which, for_ever)
            whole = (after,)
        except db.failure as e:
            assert for_ever, (str(e), cut, which)
            whole = (before, after)
        most = max(most, time.monotonic() - start)
        p.plan = lambda *_: None
        if prepare in (putting, putting_parts, copying_parts):
            assert db.one("SELECT s3_get(?)", root + "k") in whole
    assert most < 8, "seconds of one call"
    assert len(os.listdir("/proc/self/fd")) <= files + 8  # the pool
    assert resident() - memory < 24 << 20
    if prepare in (putting_parts, copying_parts):
        left = signed(db, gateway, "GET",
                      f"/bucket?uploads=&prefix={prefix(root)}").decode()
        assert left.count("<UploadId>") <= len(orphans)


@pytest.mark.net
@pytest.mark.inprocess
@pytest.mark.once  # a sanitizer keeps what was freed
@pytest.mark.parametrize("sql", [
    "SELECT s3_get('s3://bucket/endless')",
    "SELECT count(*) FROM s3_list('s3://bucket/')",
    "SELECT content FROM s3_blob('s3://bucket/') WHERE key = 'endless'",
    "SELECT s3_head('s3://bucket/refused')",
    "SELECT s3_put('s3://bucket/refused', 'x')"])
def test_a_body_without_end_takes_no_more_than_the_cap(db, sql):
    with FaultServer() as server:
        chunk = (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")

        def long(sock, request):
            sock.sendall(chunk if "refused" not in request.path
                         else chunk.replace(b"200", b"400"))
            while request.method != "HEAD":
                sock.sendall(bytes(1 << 16))
        for path in ("/bucket/endless", "/bucket/", "/bucket/refused"):
            server.on(path, long)
        db.one("SELECT choir_secret('t', ?)", json.dumps({
            "type": "s3", "provider": "none",
            "endpoint": server.url("")}))
        db.one("SELECT choir_config('http.max_bytes', ?)", 8 << 20)
        if hasattr(db.con, "setlimit"):
            db.con.setlimit(0, 8 << 20)  # SQLITE_LIMIT_LENGTH
        else:
            db.con.limit(0, 8 << 20)
        memory, start = resident(), time.monotonic()
        try:
            db.rows(sql)
            assert "head" in sql
        except db.failure as e:
            assert "more than" in str(e) or "400" in str(e), e
        assert resident() - memory <= (8 + 16) << 20
        assert time.monotonic() - start < 5


@pytest.fixture
def expiring(proxy, gateway, tmp_path, monkeypatch):
    """Credentials by a process: the first are worn out, the next are good."""
    db, root, p = proxy
    script, calls = tmp_path / "keys", tmp_path / "calls"
    script.write_text(
        f"#!/bin/sh\necho x >> {calls}\n"
        f"if [ $(wc -l < {calls}) = 1 ]; then k=WORNOUT; else"
        f" k={gateway.access}; fi\n"
        'echo "{\\"Version\\":1,\\"AccessKeyId\\":\\"$k\\",'
        f'\\"SecretAccessKey\\":\\"{gateway.secret}\\"}}"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = {script}\n"
                      f"region = {gateway.region}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    db.one("SELECT choir_secret('test', NULL)")
    db.one("SELECT choir_secret('chain', ?)", json.dumps({
        "type": "s3", "provider": "chain", "endpoint": p.endpoint}))
    p.plan = lambda n, m, t: error("ExpiredToken", 400) \
        if b"WORNOUT" in p.heads[-1] else None
    return db, root, p, lambda: len(calls.read_text().split())


@pytest.mark.net
@pytest.mark.inprocess
def test_expired_keys_are_fetched_again_once(expiring):
    db, root, p, calls = expiring
    db.one("SELECT s3_put(?, 'x')", root + "k")
    assert calls() == 2
    assert db.one("SELECT s3_get(?)", root + "k") == b"x"
    assert calls() == 2 and [m for m, _ in p.seen] == ["PUT", "PUT", "GET"]


@pytest.mark.net
@pytest.mark.inprocess
def test_parts_share_the_keys_that_one_has_fetched(expiring):
    db, root, p, calls = expiring
    db.one("SELECT choir_config('s3.multipart_bytes', 0)")
    db.one("SELECT choir_config('s3.part_bytes', 5242880)")
    worn = p.plan
    p.plan = lambda n, m, t: worn(n, m, t) or (
        error("ExpiredToken", 400) if "partNumber" in t and calls() < 3
        else None)
    data = os.urandom(16 << 20)
    db.one("SELECT s3_put(?, ?)", root + "k", data)
    assert db.one("SELECT s3_get(?)", root + "k") == data
    assert calls() == 3


@pytest.mark.net
@pytest.mark.inprocess
def test_keys_that_stay_expired_are_an_error(expiring):
    db, root, p, calls = expiring
    p.plan = lambda *_: error("ExpiredToken", 400)
    assert "400 ExpiredToken" in db.error("SELECT s3_get(?)", root + "k")
    assert calls() == 2


@pytest.mark.net
def test_a_region_is_learnt_from_the_reply(proxy, gateway):
    db, root, p = proxy
    arm(db, gateway, endpoint=p.endpoint, region="us-east-1")
    p.plan = lambda n, m, t: error(
        "AuthorizationHeaderMalformed", 400,
        more=f"<Region>{gateway.region}</Region>") \
        if b"us-east-1" in p.heads[-1] else None
    db.one("SELECT s3_put(?, 'x')", root + "k")
    assert len(p.seen) == 2
    p.plan = lambda n, m, t: error(
        "PermanentRedirect", 301,
        headers=f"x-amz-bucket-region: {gateway.region}\r\n") \
        if b"us-east-1" in p.heads[-1] else None
    assert db.one("SELECT s3_get(?)", root + "k") == b"x"


@pytest.mark.net
@pytest.mark.parametrize("sql", [
    "SELECT s3_head(?)", "SELECT s3_delete(?)",
    "SELECT size FROM s3_blob(?) WHERE key = 'k'"])
def test_a_region_is_learnt_though_head_has_no_body(s3, gateway, sql):
    db, root = s3
    db.one("SELECT s3_put(?, 'x')", root + "k")
    arm(db, gateway, region="us-west-9")
    assert db.one(sql, root + ("" if "blob" in sql else "k"))


@pytest.mark.net
def test_what_was_learnt_is_signed_into_urls_too(proxy, gateway):
    """The region, and how far the clock is off."""
    db, root, p = proxy
    db.one("SELECT s3_put(?, 'x')", root + "k")
    arm(db, gateway, endpoint=p.endpoint, region="us-west-9")
    url = "SELECT s3_presign('GET', ?, 60)"
    assert "us-west-9" in db.one(url, root + "k")
    db.one("SELECT s3_head(?)", root + "k")
    with urllib.request.urlopen(db.one(url, root + "k")) as reply:
        assert reply.read() == b"x"
    date = email.utils.formatdate(time.time() + 7200, usegmt=True)
    p.plan = lambda n, *_: error("RequestTimeTooSkewed", 403, headers=(
        f"Date: {date}\r\n")) if len(p.seen) == asked else None
    asked = len(p.seen)
    db.error("SELECT s3_get(?)", root + "k")  # whose clock is right after all
    at = re.search(r"X-Amz-Date=(\w+)", db.one(url, root + "k"))[1]
    assert time.strptime(at, "%Y%m%dT%H%M%SZ") > time.gmtime(time.time() + 7000)


@pytest.mark.net
def test_a_clock_that_differs_is_put_right(proxy):
    db, root, p = proxy
    date = email.utils.formatdate(time.time() + 7200, usegmt=True)

    def plan(n, method, target):
        if n == 0:
            return error("RequestTimeTooSkewed", 403, headers=f"Date: {date}\r\n")
        return said(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    p.plan = plan
    assert db.one("SELECT s3_get(?)", root + "k") == b"x"
    times = [re.search(rb"X-Amz-Date: (\S+)", h)[1] for h in p.heads]
    moved = [time.mktime(time.strptime(t.decode(), "%Y%m%dT%H%M%SZ"))
             for t in times]
    assert 7190 < moved[1] - moved[0] < 7210


@pytest.mark.net
@pytest.mark.parametrize("code, status", [
    ("SlowDown", 503), ("InternalError", 500), ("SlowDown", 429),
    ("RequestTimeout", 408), ("ConditionalRequestConflict", 409)])
def test_what_passes_is_tried_again(proxy, code, status):
    db, root, p = proxy
    p.plan = lambda n, *_: error(code, status) if n == 0 else None
    db.one("SELECT s3_put(?, 'x', '{\"if_none_match\":\"*\"}')", root + "k")
    assert db.one("SELECT s3_get(?)", root + "k") == b"x"


@pytest.mark.net
@pytest.mark.parametrize("body", [
    b"", b"<", b"<Contents>", b"<Contents></Contents>", b"<Key", b"not xml",
    b"<ListBucketResult><Contents><Key>a</Key></Contents>" * 3,
    b"<Contents><Key>&#xffffffff;&bad;&amp</Key></Contents>",
    b"<Contents><Key>\xff\xfe</Key><Size>-5</Size></Contents>",
    b"<IsTruncated>true</IsTruncated>", b"\0<Contents>",
    b"<IsTruncated>true</IsTruncated><NextContinuationToken>"
    b"</NextContinuationToken>"])
def test_a_listing_that_makes_no_sense_ends(db, body):
    with FaultServer() as server:
        server.on("/bucket/", reply(body, type="application/xml"))
        db.one("SELECT choir_secret('t', ?)", json.dumps({
            "type": "s3", "provider": "none", "endpoint": server.url("")}))
        try:
            assert len(db.rows("SELECT * FROM s3_list('s3://bucket/')")) <= 3
        except db.failure:
            pass
        assert len(server.seen) <= 2
