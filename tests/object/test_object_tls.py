# SPDX-License-Identifier: MIT
"""A store behind TLS with an authority of our own. Over TLS a large body goes
without its hash, so this is another way to sign than everywhere else."""
import json
import os
import ssl
import urllib.request

import pytest

import versitygw
from authority import Authority
from fault_server import FaultServer
from s3_server import arm

pytestmark = [pytest.mark.net, pytest.mark.once]
MIB = 1 << 20


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """(server, authority)"""
    if versitygw.program() is None:
        pytest.skip("versitygw: no Go to install it with")
    authority = Authority(tmp_path_factory.mktemp("ca"))
    server = versitygw.Versitygw(tmp_path_factory.mktemp("s3"),
                                 authority.certificate("store", "IP:127.0.0.1"))
    yield server, authority
    server.stop()


@pytest.fixture
def tls(db, secure):
    server, authority = secure
    arm(db, server)
    db.one("SELECT choir_config('http.ca_file', ?)", str(authority.ca))
    return db


@pytest.mark.parametrize("size", [0, 5, MIB, MIB + 1, 3 * MIB])
def test_an_object_comes_back_as_it_went(tls, size, tmp_path):
    data, url = os.urandom(size), f"s3://bucket/{size}"
    put = json.loads(tls.one("SELECT s3_put(?, ?)", url, data))
    head = json.loads(tls.one("SELECT s3_head(?)", url))
    assert (put["size"], put["etag"]) == (size, head["etag"])
    assert tls.one("SELECT s3_get(?)", url) == data
    tls.one("SELECT s3_get_file(?, ?)", url, str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == data


def test_parts_conditions_and_a_listing(tls):
    data = os.urandom(11 * MIB)
    tls.one("SELECT choir_config('s3.multipart_bytes', 5242880)")
    tls.one("SELECT choir_config('s3.part_bytes', 5242880)")
    etag = json.loads(tls.one("SELECT s3_put('s3://bucket/p/big', ?)", data)
                      )["etag"]
    assert etag.endswith('-3"')
    once = "SELECT s3_put('s3://bucket/p/big', 'x', '{\"if_none_match\":\"*\"}')"
    assert "there is an object already" in tls.error(once)
    assert tls.rows("SELECT key, size, etag FROM s3_list('s3://bucket/p/')") == [
        ("big", len(data), etag)]
    assert tls.one("SELECT s3_get('s3://bucket/p/big')") == data


def test_a_presigned_url_is_https(tls, secure):
    tls.one("SELECT s3_put('s3://bucket/q', 'by url')")
    url = tls.one("SELECT s3_presign('GET', 's3://bucket/q', 60)")
    context = ssl.create_default_context(cafile=str(secure[1].ca))
    with urllib.request.urlopen(url, context=context) as reply:
        assert url.startswith("https://") and reply.read() == b"by url"


def test_a_store_that_nobody_vouches_for_gets_nothing(db, secure):
    with FaultServer(secure[1].context("other", "IP:127.0.0.1")) as other:
        arm(db, secure[0], endpoint=other.url(""))
        message = db.error("SELECT s3_put('s3://bucket/k', 'canary')")
        assert "certificate" in message.lower() and other.seen == []
