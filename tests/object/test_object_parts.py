# SPDX-License-Identifier: MIT
"""Uploads in parts: whole or not at all, and nothing left behind."""
import json
import os
import re
import time
from urllib.parse import quote

import pytest

from fault_proxy import error, heard, said, sent, silent
from s3_server import signed

MIB = 1 << 20
ONCE = '{"if_none_match":"*"}'


def small_parts(db):
    """Everything goes in parts of 5 MiB, the least that stores accept."""
    db.one("SELECT choir_config('s3.multipart_bytes', 0)")
    db.one("SELECT choir_config('s3.conditional_bytes', 0)")
    db.one("SELECT choir_config('s3.part_bytes', 5242880)")


def uploads(db, server, prefix):
    """Ids of the uploads that the store still holds."""
    text = signed(db, server, "GET",
                  f"/bucket?uploads=&prefix={prefix}").decode()
    return re.findall("<UploadId>(.*?)</UploadId>", text)


def interrupting(db, part):
    """A plan: this part, instead of an answer, has db interrupted."""
    def plan(n, method, target):
        if f"partNumber={part}" in target:
            db.con.interrupt()
            return silent(20)
    return plan


def prefix(root):
    return root.split("/", 3)[3]


def test_parts_come_back_as_one(store, tmp_path):
    db, root = store
    small_parts(db)
    data = os.urandom(11 * MIB + 17)
    (tmp_path / "in").write_bytes(data)
    put = json.loads(db.one("SELECT s3_put_file(?, ?)", root + "big",
                            str(tmp_path / "in")))
    head = json.loads(db.one("SELECT s3_head(?)", root + "big"))
    assert (put["size"], put["etag"]) == (len(data), head["etag"])
    db.one("SELECT s3_get_file(?, ?)", root + "big", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == data
    if root.startswith("s3"):
        assert put["etag"].endswith('-3"')  # three parts


def test_one_part_and_no_byte_at_all(store):
    db, root = store
    small_parts(db)
    db.one("SELECT s3_put(?, 'x')", root + "one")
    db.one("SELECT s3_put(?, '')", root + "none")
    assert db.one("SELECT s3_get(?)", root + "one") == b"x"
    assert db.one("SELECT s3_get(?)", root + "none") == b""


def test_conditions_hold_for_parts_too(store):
    db, root = store
    small_parts(db)
    etag = json.loads(db.one("SELECT s3_put(?, 'a', ?)", root + "k", ONCE)
                      )["etag"]
    assert "there is an object already" in db.error(
        "SELECT s3_put(?, 'b', ?)", root + "k", ONCE)
    swap = "SELECT s3_put(?, ?, json_object('if_match', ?))"
    db.one(swap, root + "k", "c", etag)
    assert "not the object that if_match names" in db.error(
        swap, root + "k", "d", etag)
    assert db.one("SELECT s3_get(?)", root + "k") == b"c"


@pytest.mark.net
def test_a_condition_that_ends_while_parts_are_sent_is_seen(proxy, gateway):
    """Somebody else makes the object after the first look."""
    db, root, p = proxy
    small_parts(db)

    done = []

    def theirs(n, method, target):
        if method == "PUT" and not done:
            done.append(1)
            folder = gateway.folder / "data/bucket" / prefix(root)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "k").write_bytes(b"theirs")
    p.plan = theirs
    assert "there is an object already" in db.error(
        "SELECT s3_put(?, 'mine', ?)", root + "k", ONCE)
    assert db.one("SELECT s3_get(?)", root + "k") == b"theirs"
    assert uploads(db, gateway, prefix(root)) == []


@pytest.mark.net
def test_a_part_is_sent_again_by_itself(proxy):
    db, root, p = proxy
    small_parts(db)
    once = set()

    def plan(n, method, target):
        part = re.search(r"partNumber=(\d+)", target)
        if part and part[1] not in once:
            once.add(part[1])
            return (sent(3 * MIB), error("SlowDown"),
                    heard(0))[int(part[1]) - 1]
    p.plan = plan
    data = os.urandom(12 * MIB)
    db.one("SELECT s3_put(?, ?)", root + "k", data)
    p.plan = lambda *_: None
    assert db.one("SELECT s3_get(?)", root + "k") == data
    assert len([1 for m, t in p.seen if "partNumber" in t]) == 6


@pytest.mark.net
def test_what_fails_leaves_nothing_behind(proxy, gateway):
    db, root, p = proxy
    small_parts(db)
    p.plan = lambda n, m, t: error("AccessDenied", 403) \
        if "partNumber=2" in t else None
    message = db.error("SELECT s3_put(?, zeroblob(12000000))", root + "k")
    assert "403 AccessDenied: spoilt (PUT" in message
    assert p.seen[-1][0] == "DELETE"
    assert uploads(db, gateway, prefix(root)) == []
    assert db.one("SELECT s3_head(?)", root + "k") is None


@pytest.mark.net
def test_a_store_that_names_no_upload_or_no_part_is_told(proxy, gateway):
    db, root, p = proxy
    small_parts(db)
    empty = said(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<a/>")
    p.plan = lambda n, m, t: empty if m == "POST" else None
    assert "the store gave the upload no name" in db.error(
        "SELECT s3_put(?, 'x')", root + "k")
    p.plan = lambda n, m, t: empty if "partNumber" in t else None
    assert "the store gave part 1 no etag" in db.error(
        "SELECT s3_put(?, 'x')", root + "k")
    assert uploads(db, gateway, prefix(root)) == []


@pytest.mark.net
def test_a_completion_that_says_200_and_then_no(proxy, gateway):
    db, root, p = proxy
    small_parts(db)
    told = []

    def plan(n, method, target):
        if method == "POST" and "uploadId" in target and len(told) < 2:
            told.append(1)
            return error("InternalError", 200)
    p.plan = plan
    db.one("SELECT s3_put(?, 'x')", root + "k")
    assert db.one("SELECT s3_get(?)", root + "k") == b"x" and len(told) == 2
    p.plan = lambda n, m, t: error("EntityTooSmall", 200) \
        if m == "POST" and "uploadId" in t else None
    assert "200 EntityTooSmall" in db.error("SELECT s3_put(?, 'y')", root + "k")
    assert db.one("SELECT s3_get(?)", root + "k") == b"x"
    assert uploads(db, gateway, prefix(root)) == []


@pytest.mark.net
@pytest.mark.parametrize("options", ["{}", ONCE])
def test_a_completion_whose_reply_is_lost(proxy, gateway, options):
    db, root, p = proxy
    small_parts(db)
    told = []

    def plan(n, method, target):
        if method == "POST" and "uploadId" in target and not told:
            told.append(1)
            return heard(0)
    p.plan = plan
    put = json.loads(db.one("SELECT s3_put(?, 'x', ?)", root + "k", options))
    head = json.loads(db.one("SELECT s3_head(?)", root + "k"))
    assert put["size"] == 1 and put["etag"] == head["etag"]
    assert uploads(db, gateway, prefix(root)) == []


@pytest.mark.net
@pytest.mark.inprocess
def test_an_interrupt_ends_the_upload_at_the_store_too(proxy, gateway):
    db, root, p = proxy
    small_parts(db)
    p.plan = interrupting(db, part=2)
    start = time.monotonic()
    assert "interrupt" in db.error("SELECT s3_put(?, zeroblob(12000000))",
                                   root + "k")
    assert time.monotonic() - start < 10  # not the 20 of the silence
    assert uploads(db, gateway, prefix(root)) == []
    assert db.one("SELECT s3_head(?)", root + "k") is None


@pytest.mark.net
def test_a_sweep_gives_up_what_a_crash_left(s3, gateway):
    db, root = s3
    mine = prefix(root) + "users/u1/artifacts/"
    for key in (mine + "x", mine + "y z", prefix(root) + "users/u2/x"):
        signed(db, gateway, "POST", f"/bucket/{quote(key)}?uploads=")
    db.one("SELECT choir_config('user', 'u1')")
    db.one("SELECT choir_config('remote.artifacts', ?)", root)
    for older, swept, left in (("NULL", 0, 3), (3_600_000, 0, 3), (0, 2, 1)):
        said = json.loads(db.one(f"SELECT artifact_sweep({older})"))
        assert said["uploads"] == swept
        assert len(uploads(db, gateway, prefix(root))) == left


def test_a_sweep_removes_what_a_killed_put_left(db, tmp_path):
    for folder in ("users/u1/artifacts", "users/u2"):
        (tmp_path / "store" / folder).mkdir(parents=True)
        (tmp_path / "store" / folder / ".choir-tmp-0123456789abcdef").touch()
    db.one("SELECT choir_config('user', 'u1')")
    db.one("SELECT choir_config('remote.artifacts', ?)",
           f"file://{tmp_path}/store/")
    assert json.loads(db.one("SELECT artifact_sweep(0)"))["uploads"] == 1
    assert os.listdir(tmp_path / "store/users/u1/artifacts") == []
    assert len(os.listdir(tmp_path / "store/users/u2")) == 1


@pytest.mark.net
def test_a_get_that_breaks_off_goes_on_where_it_did(proxy, tmp_path):
    db, root, p = proxy
    data = os.urandom(3 * MIB)
    db.one("SELECT s3_put(?, ?)", root + "k", data)
    p.plan = lambda n, m, t: heard(MIB) if n < 2 else None
    p.seen.clear(), p.heads.clear()
    db.one("SELECT s3_get_file(?, ?)", root + "k", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == data
    starts = [int(re.search(rb"Range: bytes=(\d+)-\r", h)[1])
              for h in p.heads[1:]]
    assert len(starts) == 2 and 0 < starts[0] < starts[1] < len(data)


@pytest.mark.net
def test_an_object_replaced_between_two_halves_is_not_mixed(proxy, gateway):
    db, root, p = proxy
    db.one("SELECT s3_put(?, zeroblob(2000000))", root + "k")

    def plan(n, method, target):
        if n == 0:
            return heard(MIB)
        if n == 1:
            path = gateway.folder / "data/bucket" / prefix(root) / "k"
            path.unlink()
            path.write_bytes(b"x" * 2_000_000)
    p.plan = plan
    p.seen.clear()
    assert "was replaced while it was read" in db.error(
        "SELECT s3_get(?)", root + "k")


@pytest.mark.net
def test_a_range_the_store_did_not_mean_is_refused(proxy):
    db, root, p = proxy
    p.plan = lambda *_: said(b"HTTP/1.1 206 Partial\r\nContent-Length: 2\r\n"
                             b"Content-Range: bytes 5-6/9\r\n\r\nab")
    assert "sent the range 'bytes 5-6/9'" in db.error(
        "SELECT s3_get(?, 3, 2)", root + "k")
    p.plan = lambda *_: said(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab")
    assert "ignores ranges" in db.error("SELECT s3_get(?, 3, 2)", root + "k")
    p.plan = lambda *_: said(b"HTTP/1.1 206 Partial\r\nContent-Length: 4\r\n"
                             b"Content-Range: bytes 3-6/9\r\n\r\nabcd")
    assert "more than the 2 bytes" in db.error("SELECT s3_get(?, 3, 2)",
                                               root + "k")
