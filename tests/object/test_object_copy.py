# SPDX-License-Identifier: MIT
"""Copies that the store makes by itself in parts: of one version, whole or not
at all, with what the object is besides its bytes."""
import json
import os
import re

import botocore.config
import botocore.session
import pytest

from fault_proxy import FaultProxy, error, heard, said
from s3_server import arm, signed
from test_object_parts import MIB, interrupting, prefix, uploads

pytestmark = pytest.mark.net
SIZE = 10 * MIB + 17  # three parts


def in_parts(db):
    """Copies of everything, in parts of 5 MiB, one after the other."""
    db.one("SELECT choir_config('s3.copy_bytes', 0)")
    db.one("SELECT choir_config('s3.part_bytes', 5242880)")
    db.one("SELECT choir_config('s3.multipart_bytes', 100000000)")
    db.one("SELECT choir_config('s3.parallel', 1)")


def moved(p):
    """What the requests did: the number of a part that is copied, or a word."""
    out = []
    for (method, target), head in zip(p.seen, p.heads):
        part = re.search(r"partNumber=(\d+)", target)
        source = re.search(rb"x-amz-copy-source-range: bytes=(\d+)-(\d+)", head,
                           re.I)
        if part and source:
            out.append((int(part[1]), int(source[1]), int(source[2])))
        elif method != "HEAD":
            out.append(method)
    return out


def client(server):
    """Somebody else's."""
    return botocore.session.get_session().create_client(
        "s3", region_name=server.region, endpoint_url=server.endpoint,
        aws_access_key_id=server.access, aws_secret_access_key=server.secret,
        config=botocore.config.Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required"))


@pytest.fixture
def copy(proxy):
    """(db, root, proxy, data): root + from is there."""
    db, root, p = proxy
    data = os.urandom(SIZE)
    in_parts(db)
    db.one("SELECT s3_put(?, ?)", root + "from", data)
    p.seen.clear(), p.heads.clear()
    yield db, root, p, data


def is_copied(db, root, data):
    assert json.loads(db.one("SELECT s3_copy(?, ?)", root + "from",
                             root + "to"))["size"] == len(data)
    assert db.one("SELECT s3_get(?)", root + "to") == data


@pytest.mark.once
@pytest.mark.parametrize("store_name", [
    "gateway", pytest.param("rgw", marks=pytest.mark.once)])
def test_a_large_copy_is_made_by_the_store_in_parts(db, request, store_name):
    server = request.getfixturevalue(store_name)
    root, data = f"s3://bucket/{os.urandom(8).hex()}/", os.urandom(SIZE)
    arm(db, server)
    in_parts(db)
    if store_name == "rgw":
        signed(db, server, "PUT", "/bucket")
    # Ceph 16 ends itself over a part copied from a key with most of these
    key = root + ("a b/ü+%&'*=?" if store_name == "gateway" else "a/b")
    other = client(server)
    other.put_object(Bucket="bucket", Key=prefix(root) + "typed", Body=data,
                     ContentType="text/plain", CacheControl="no-cache",
                     Metadata={"colour": "blue"})
    with FaultProxy(server.port) as p:
        arm(db, server, endpoint=p.endpoint)
        for source, to in (("typed", key), (key, root + "third")):
            source = source if source == key else root + source
            p.seen.clear(), p.heads.clear()
            put = json.loads(db.one("SELECT s3_copy(?, ?)", source, to))
            assert moved(p) == ["POST", (1, 0, 5 * MIB - 1),
                                (2, 5 * MIB, 10 * MIB - 1),
                                (3, 10 * MIB, SIZE - 1), "POST"]
            head = json.loads(db.one("SELECT s3_head(?)", to))
            assert put["size"] == head["size"] == SIZE
            assert put["etag"] == head["etag"] and put["etag"][-3:] == '-3"'
        assert db.one("SELECT s3_get(?)", root + "third") == data
        p.heads.clear()
    said = other.head_object(Bucket="bucket", Key=prefix(root) + "third")
    assert (said["ContentType"], said["CacheControl"]) == ("text/plain",
                                                           "no-cache")
    assert said["Metadata"]["colour"] == "blue"


def test_a_part_that_the_store_could_not_copy_is_asked_for_again(copy):
    db, root, p, data = copy
    once = set()

    def plan(n, method, target):
        part = re.search(r"partNumber=(\d+)", target)
        if part and part[1] not in once:
            once.add(part[1])
            return (error("InternalError", 200), error("SlowDown"),
                    heard(0))[int(part[1]) - 1]
    p.plan = plan
    is_copied(db, root, data)
    assert [x[0] for x in moved(p) if x not in ("POST", "GET")] == [
        1, 1, 2, 2, 3, 3]


@pytest.mark.once
@pytest.mark.parametrize("reply", [
    error("NotImplemented", 501), error("AccessDenied", 403),
    error("PreconditionFailed", 412), error("InternalError", 200),
    error("InvalidRequest", 200)])
def test_parts_that_the_store_refuses_go_by_this_process(copy, gateway, reply):
    db, root, p, data = copy
    p.plan = lambda n, m, t: reply if "partNumber=2" in t else None
    is_copied(db, root, data)
    assert "GET" in moved(p)
    assert uploads(db, gateway, prefix(root)) == []


@pytest.mark.once
@pytest.mark.parametrize("honoured", [True, False])
def test_an_object_that_changes_meanwhile_is_not_mixed(copy, gateway, honoured):
    """Also by a store that does not look at the condition of a part."""
    db, root, p, data = copy
    path = gateway.folder / "data/bucket" / prefix(root) / "from"
    theirs = os.urandom(SIZE)

    def plan(n, method, target):
        if "partNumber=2" in target and path.read_bytes() == data:
            path.unlink()
            path.write_bytes(theirs)
            if not honoured:
                return said_part
    xml = b"<CopyPartResult><ETag>&quot;0&quot;</ETag></CopyPartResult>"
    said_part = said(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (
        len(xml), xml))
    p.plan = plan
    is_copied(db, root, theirs)
    assert uploads(db, gateway, prefix(root)) == []


@pytest.mark.inprocess
def test_an_interrupt_ends_the_copy_at_the_store_too(copy, gateway):
    db, root, p, data = copy
    p.plan = interrupting(db, part=2)
    assert "interrupt" in db.error("SELECT s3_copy(?, ?)", root + "from",
                                   root + "to")
    assert uploads(db, gateway, prefix(root)) == []
    assert db.one("SELECT s3_head(?)", root + "to") is None


def test_an_object_of_no_bytes_and_one_that_is_not_there(copy):
    db, root, p, data = copy
    db.one("SELECT s3_put(?, '')", root + "none")
    db.one("SELECT s3_copy(?, ?)", root + "none", root + "to")
    assert db.one("SELECT s3_get(?)", root + "to") == b""
    assert "no object" in db.error("SELECT s3_copy(?, ?)", root + "absent",
                                   root + "to")
