# SPDX-License-Identifier: MIT
"""NATS by WebSocket: the real server's own, and one of ours before it that cuts
frames as a server may and answers as none should."""
import base64
import hashlib
import json
import random
import socket
import struct
import threading

import pytest

import nats
from authority import Authority
from loopback import Loopback

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def start(tmp_path):
    """start(lines of the websocket block, other lines) -> a server"""
    started = []

    def make(websocket, config=""):
        if nats.program() is None:
            pytest.skip("nats-server is not installed (tools/setup.sh)")
        started.append(nats.Nats(tmp_path / "nats", config,
                                 websocket=websocket))
        return started[-1]
    yield make
    for s in started:
        s.stop()


def url(db, text):
    db.one("SELECT choir_config('nats.url', ?)", text)


SIZES = [0, 1, 125, 126, 65535, 65536, 700000]


def exchange(db):
    """Streams, publishes, fetches and a request, of every length of frame."""
    db.one("SELECT nats_stream_create('T', '[\"t\"]')")
    for i, n in enumerate(SIZES):
        assert json.loads(db.one("SELECT nats_js_publish('t', zeroblob(?))", n)
                          )["seq"] == i + 1
    assert [n for n, in db.rows(
        "SELECT length(payload) FROM nats_fetch('T', 'c', 100, 0)")] == SIZES
    assert db.one("SELECT messages FROM nats_streams") == len(SIZES)
    db.one("SELECT count(nats_ack(ack)) FROM nats_fetch('T', 'c', 100, 0)")
    assert "no one" in (answer := db.error("SELECT nats_request('nobody', 'x')")
                        ) or "nobody" in answer


def test_everything_goes_over_a_websocket(db, start):
    port = start("no_tls: true", 'authorization { user: ada, password: pw }\n').ws
    url(db, f"ws://127.0.0.1:{port}")
    assert "Authorization Violation" in db.error("SELECT nats_ping()")
    url(db, f"ws://ada:pw@127.0.0.1:{port}/")
    assert json.loads(db.one("SELECT nats_ping()"))["tls"] is False
    exchange(db)


def test_a_websocket_over_tls(db, start, authority):
    cert, key = authority.certificate("server", "IP:127.0.0.1")
    port = start(f'tls {{ cert_file: "{cert}", key_file: "{key}" }}').ws
    url(db, f"wss://127.0.0.1:{port}")
    assert "certificate" in db.error("SELECT nats_ping()")
    db.one("SELECT choir_config('nats.ca_file', ?)", str(authority.ca))
    assert json.loads(db.one("SELECT nats_ping()"))["tls"] is True
    exchange(db)


class Front(Loopback):
    """A WebSocket before a server of plain NATS. Its frames are of random length,
    fragments among them, with pings between; reply replaces its answer to the
    upgrade, frame what it says first."""

    def __init__(self, port=None, reply=None, frame=None):
        super().__init__()
        self.behind, self.reply, self.frame = port, reply, frame
        self.asked, self.pongs = b"", []

    def serve(self, sock):
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += sock.recv(4096)
        self.asked = asked
        key = asked.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        sock.sendall((self.reply or b"HTTP/1.1 101 Switching Protocols\r\n"
                      b"upgrade: websocket\r\nSec-Websocket-ACCEPT:\t %s \r\n"
                      b"\r\n").replace(b"%s", accept))
        if self.frame is not None:
            sock.sendall(self.frame)
        if self.behind is None:
            sock.recv(1)
            return
        behind = socket.create_connection(("127.0.0.1", self.behind))
        threading.Thread(target=self.forward, args=(behind, sock),
                         daemon=True).start()
        file = sock.makefile("rb")
        while (head := file.read(2)):
            n = head[1] & 127
            assert head[0] & 0x70 == 0 and head[1] & 128
            n = {126: lambda: struct.unpack(">H", file.read(2))[0],
                 127: lambda: struct.unpack(">Q", file.read(8))[0]}.get(
                     n, lambda: n)()
            mask, body = file.read(4), file.read(n)
            body = bytes(a ^ mask[i & 3] for i, a in enumerate(body))
            if head[0] & 15 == 10:
                self.pongs.append(body)
            else:
                assert head[0] == 0x82
                behind.sendall(body)
        behind.close()

    def said(self, behind, n):
        try:
            return behind.recv(n)
        except OSError:  # the other thread has closed it
            return b""

    def forward(self, behind, sock):
        chance, first = random.Random(5), True
        while (data := self.said(behind, chance.choice([7, 700, 70000]))):
            while data:
                n = min(len(data), chance.choice([0, 1, 3, 125, 126, 70000]))
                final = chance.random() < 0.5
                op = 2 if first else 0
                size = (bytes([n]) if n < 126 else b"\x7e" + n.to_bytes(2)
                        if n < 65536 else b"\x7f" + n.to_bytes(8))
                sock.sendall(bytes([op | 128 * final]) + size + data[:n]
                             + (b"\x89\x04ping" if chance.random() < 0.3
                                else b"\x8a\x00"))
                data, first = data[n:], final


def test_frames_are_cut_as_the_server_likes(db, start):
    with Front(start("no_tls: true").port) as front:
        url(db, f"ws://127.0.0.1:{front.port}/nats/here?a=b")
        exchange(db)
        assert front.asked.startswith(b"GET /nats/here?a=b HTTP/1.1\r\nHost: "
                                      b"127.0.0.1:%d\r\n" % front.port)
        db.one("SELECT nats_ping()")
        assert front.pongs and set(front.pongs) == {b"ping"}


OK = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: %s\r\n\r\n"


@pytest.mark.parametrize("reply,frame,message", [
    (b"HTTP/1.1 404 Not Found\r\n\r\n", None,
     "is no WebSocket: it answers 'HTTP/1.1 404 Not Found'"),
    (b"INFO {}\r\n\r\n", None, "is no WebSocket: it answers 'INFO {}'"),
    (b"HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: abc\r\n\r\n", None,
     "does not acknowledge the key"),
    (b"HTTP/1.1 101 OK\r\nX: " + b"x" * 20000, None,
     "has more than 16384 bytes"),
    (b"HTTP/1.1 101 OK\r\n", None, "the request for a WebSocket within 300 ms"),
    (OK, b"", "with its INFO within 300 ms"),
    (OK, b"\x82\x85abcde", "a WebSocket frame begins with 82 85"),
    (OK, b"\xc2\x05abcde", "a WebSocket frame begins with c2 05"),
    (OK, b"\x83\x05abcde", "a WebSocket frame begins with 83 05"),
    (OK, b"\x89\x7e\x00\x7e", "a WebSocket frame begins with 89 7e"),
    (OK, b"\x09\x00", "a WebSocket frame begins with 09 00"),
    (OK, b"\x82\x7f" + b"\xff" * 8, "18446744073709551615 bytes"),
    (OK, b"\x88\x02\x03\xe8", "closed by the server"),
    (OK, b"\x82\x05hello\x82\x02\r\n", "hello"),
])
def test_a_server_that_answers_wrongly_is_told(db, reply, frame, message):
    with Front(reply=reply, frame=frame) as front:
        url(db, f"ws://127.0.0.1:{front.port}")
        db.one("SELECT choir_config('nats.timeout_ms', '300')")
        assert message in db.error("SELECT nats_ping()")


@pytest.mark.parametrize("text,message", [
    ("ws://h/a b", "the path of a server of nats.url is not up to 255"),
    ("ws://h/a\r\nX: y", "the path of a server of nats.url is not up to 255"),
    ("wss://h/" + "x" * 256, "the path of a server of nats.url is not up to"),
    ("ws:///a", "is not nats://host:port"), ("wss://", "is not nats://host"),
    ("w://h", "the scheme 'w'"), ("wsss://h", "the scheme 'wsss'")])
def test_a_url_that_is_none(db, text, message):
    url(db, text)
    assert message in db.error("SELECT nats_ping()")
