# SPDX-License-Identifier: MIT
"""TLS inside Node, whose binary brings an OpenSSL of its own. (The build that is
linked with libcurl: `make check`.)"""
import os
import ssl
import subprocess

import pytest

from conftest import SO
from fault_server import FaultServer, reply
from npm_package import npm_package

pytestmark = [pytest.mark.once, pytest.mark.inprocess]

SCRIPT = """
const { DatabaseSync } = require('node:sqlite');
const [so, url, ca] = process.argv.slice(2);
const db = new DatabaseSync(':memory:', { allowExtension: true });
db.loadExtension(so);
db.prepare("SELECT choir_config('http.ca_file', ?)").get(ca);
const get = db.prepare('SELECT response_body AS b FROM http_get(?)');
for (let i = 0; i < 3; i++)
  console.log(Buffer.from(get.get(url).b).toString());
db.close();
"""


@pytest.fixture
def secure(tmp_path):
    """(URL, its certificate)"""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days",
         "2", "-keyout", "key", "-out", "cert", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with FaultServer(tls=context) as server:
        yield server.on("/a", reply(b"hello")), str(tmp_path / "cert")


def node():
    """Node from npm: not Debian's, which uses the system's OpenSSL."""
    arch = {"x86_64": "x64", "aarch64": "arm64"}[os.uname().machine]
    name = f"node-linux-{arch}"
    at = npm_package("node", f"{name}@24.21.0")
    if at is None:
        pytest.skip("Node: npm cannot install it")
    return str(at / "node_modules" / name / "bin/node")


def test_tls_works_inside_node(secure, tmp_path):
    url, ca = secure
    (tmp_path / "a.js").write_text(SCRIPT)
    run = [node(), "--no-warnings", str(tmp_path / "a.js"), SO, url]
    done = subprocess.run(run + [ca], capture_output=True, text=True)
    assert done.stdout.split() == ["hello"] * 3, done.stderr
    done = subprocess.run(run + ["/etc/ssl/certs/ca-certificates.crt"],
                          capture_output=True, text=True)
    assert "SSL certificate problem" in done.stderr
