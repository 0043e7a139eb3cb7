# SPDX-License-Identifier: MIT
"""An upload in parts whose process was killed goes on in the next one."""
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

import seeds_policy
from conftest import SO
from fault_proxy import FaultProxy, silent
from s3_server import arm, signed
from test_object_parts import prefix, small_parts, uploads

pytestmark = [pytest.mark.net, pytest.mark.inprocess]
MIB = 1 << 20
PUT = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.enable_load_extension(True)
db.load_extension(sys.argv[2])
for sql in sys.argv[5:]:
    db.execute(sql).fetchall()
db.execute(sys.argv[3], sys.argv[4].split("|")).fetchall()
"""


class Upload:
    """A file of three parts, and a proxy that shows what is sent of it."""

    def __init__(self, db, gateway, proxy, root, folder):
        self.db, self.gateway, self.proxy = db, gateway, proxy
        self.url, self.file = root + "big", folder / "big"
        self.allowed = proxy.plan
        self.data = os.urandom(10 * MIB + 17)
        self.file.write_bytes(self.data)
        arm(db, gateway, endpoint=proxy.endpoint)
        small_parts(db)
        db.one("SELECT choir_config('s3.parallel', 1)")

    def kept(self):
        home = pathlib.Path(os.environ["HOME"])
        return list(home.glob(".local/state/choir/uploads/*"))

    def sent(self):
        """What was asked of the store: begin, end, or the number of a part."""
        names = []
        for method, target in self.proxy.seen:
            part = re.search(r"partNumber=(\d+)", target)
            if part:
                names.append(int(part[1]))
            elif method == "POST":
                names.append("end" if "uploadId" in target else "begin")
        return names

    def killed_in_part(self, number, copy_to=None):
        """Another process puts the file, or copies the object, and is killed
        in this part."""
        def plan(n, method, target):
            if f"partNumber={number}&" in target:
                return silent(60)
            return self.allowed(n, method, target)
        self.proxy.plan = plan
        self.proxy.seen.clear()
        secret = ("SELECT choir_secret('test', json_object('type', 's3',"
                  f" 'access_key', '{self.gateway.access}', 'secret_key',"
                  f" '{self.gateway.secret}', 'region', '{self.gateway.region}',"
                  f" 'endpoint', '{self.proxy.endpoint}'))")
        config = [f"SELECT choir_config('s3.{k}', {v})" for k, v in (
            ("multipart_bytes", 0), ("conditional_bytes", 0),
            ("part_bytes", 5242880), ("parallel", 1), ("copy_bytes", 0))]
        sql, given = ("SELECT s3_copy(?, ?)", [self.url, copy_to]) if copy_to \
            else ("SELECT s3_put_file(?, ?)", [self.url, str(self.file)])
        child = subprocess.Popen([sys.executable, "-c", PUT, ":memory:", SO,
                                  sql, "|".join(given), secret, *config])
        deadline = time.monotonic() + 120
        while number not in self.sent():
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        self.proxy.plan = self.allowed
        self.proxy.seen.clear()

    def put(self, *options):
        self.db.one("SELECT s3_put_file(?, ?%s)" % ", ?" * len(options)
                    if options else "SELECT s3_put_file(?, ?)",
                    self.url, str(self.file), *options)
        assert self.db.one("SELECT s3_get(?)", self.url) == (
            self.file.read_bytes())
        assert self.kept() == []


@pytest.fixture(params=["get and put",
                        pytest.param("anything", marks=pytest.mark.once)])
def upload(request, db, gateway, tmp_path):
    """On a store where all is allowed, and under the seeds' policy."""
    user = f"u{os.urandom(5).hex()}"
    with FaultProxy(gateway.port) as proxy:
        if request.param == "get and put":
            proxy.plan = seeds_policy.plan(gateway, user)
        yield Upload(db, gateway, proxy, f"s3://bucket/users/{user}/", tmp_path)


def test_parts_that_arrived_before_the_kill_are_not_sent_again(upload):
    upload.killed_in_part(2)
    assert len(upload.kept()) == 1
    upload.put()
    assert upload.sent() == [2, 3, "end"]
    assert uploads(upload.db, upload.gateway, prefix(upload.url)) == []


def test_a_part_of_the_file_that_changed_meanwhile_is_sent_again(upload):
    upload.killed_in_part(2)
    with open(upload.file, "r+b") as file:
        file.seek(3 * MIB)
        file.write(b"changed")
    upload.put()
    assert upload.sent() == [1, 2, 3, "end"]


def test_an_upload_that_the_store_has_forgotten_begins_anew(upload):
    upload.killed_in_part(2)
    key = prefix(upload.url)
    ident, = uploads(upload.db, upload.gateway, key)
    signed(upload.db, upload.gateway, "DELETE",
           f"/bucket/{key}?uploadId={ident}")
    upload.put()
    assert upload.sent()[-5:] == ["begin", 1, 2, 3, "end"]


@pytest.mark.once
def test_a_record_that_says_something_wrong_makes_no_wrong_object(upload):
    upload.killed_in_part(2)
    record, = upload.kept()
    lines = record.read_text().splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["1"]
    record.write_text("\n".join(
        [*lines[:2], lines[2].replace('"', '"0', 1), "3 0 x", "9 0 x"]) + "\n")
    upload.put()
    record.parent.mkdir(exist_ok=True)
    for text in ("", "choir-upload 1\n", "choir-upload 2\na b\n",
                 "choir-upload 1\nno-mark\n", "\n\n\n", "x" * 5000000):
        record.write_text(text)
        upload.put()


@pytest.mark.once
def test_a_condition_is_looked_at_when_an_upload_goes_on(upload):
    upload.killed_in_part(2)
    upload.db.one("SELECT choir_config('s3.multipart_bytes', 100000000)")
    upload.db.one("SELECT s3_put(?, 'theirs')", upload.url)
    upload.db.one("SELECT choir_config('s3.multipart_bytes', 0)")
    assert "there is an object already" in upload.db.error(
        "SELECT s3_put_file(?, ?, '{\"if_none_match\":\"*\"}')", upload.url,
        str(upload.file))
    assert upload.db.one("SELECT s3_get(?)", upload.url) == b"theirs"
    assert upload.kept() == []


@pytest.mark.once
def test_the_record_of_an_upload_is_for_its_owner_alone(upload):
    upload.killed_in_part(2)
    record, = upload.kept()
    assert record.stat().st_mode & 0o777 == 0o600
    assert upload.gateway.secret not in record.read_text()


@pytest.mark.once
def test_a_copy_in_parts_goes_on_while_the_object_is_the_same(upload):
    db, to = upload.db, upload.url + "-copy"
    db.one("SELECT choir_config('s3.copy_bytes', 0)")
    upload.put()
    upload.killed_in_part(2, copy_to=to)
    db.one("SELECT s3_copy(?, ?)", upload.url, to)
    assert upload.sent() == [2, 3, "end"] and upload.kept() == []
    assert db.one("SELECT s3_get(?)", to) == upload.data
    upload.killed_in_part(2, copy_to=to)
    upload.file.write_bytes(upload.data[::-1])
    db.one("SELECT s3_put_file(?, ?)", upload.url, str(upload.file))
    upload.proxy.seen.clear()
    db.one("SELECT s3_copy(?, ?)", upload.url, to)
    assert upload.sent() == [1, 2, 3, "end"] and upload.kept() == []
    assert db.one("SELECT s3_get(?)", to) == upload.data[::-1]
