# SPDX-License-Identifier: MIT
"""What a server may do wrong: a clear error in time, and the next call works.
"""
import socket
import time

import pytest

from nats_script import ScriptedNats


def meet(db, talk, sql="SELECT nats_ping()", ms=400):
    """The error that sql gives with this server, and that it came in time."""
    with ScriptedNats(talk) as s:
        db.one("SELECT choir_config('nats.url', ?)", s.url)
        db.one("SELECT choir_config('nats.timeout_ms', ?)", str(ms))
        start = time.monotonic()
        message = db.error(sql)
        assert time.monotonic() - start < ms / 1000 * 4 + 20  # a busy machine is slow
        assert message.startswith(sql.split()[1].split("(")[0] + ": ")
        return message


def says(data, then_wait=True):
    def talk(p):
        p.send(data)
        if then_wait:
            p.wait()
    return talk


@pytest.mark.parametrize("first, message", [
    (b"", "did not answer with its INFO within 400 ms"),
    (b"INFO {", "did not answer with its INFO"),
    (b"INFO {]\r\n", "its INFO is not JSON"),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not the protocol of NATS: 'HTTP/1"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "not the protocol of NATS"),
    (b"\x16\x03\x01\x02\x00\x01\r\n", "not the protocol of NATS"),
    (b"PONG\r\n", "its first line is not INFO"),
    (b"-ERR 'Maximum Connections Exceeded'\r\n", "Maximum Connections"),
    (b"INFO " + b"x" * (1 << 20), "a line of more than 1048576 bytes"),
    (b"x" * 70000, "a line of more than 65536 bytes"),
    (b"\r\n" * 10, "not the protocol of NATS: ''"),
])
def test_an_opening_that_is_none(db, first, message):
    assert message in meet(db, says(first))


def test_a_server_that_leaves_at_once(db):
    assert "closed by the server" in meet(db, lambda p: None)
    assert "closed by the server" in meet(
        db, lambda p: (p.info(), p.half_close(), p.wait()))


def hello_then(act):
    def talk(p):
        p.hello()
        act(p)
        p.wait()
    return talk


@pytest.mark.parametrize("data, message", [
    (b"MSG a\r\n", "not the protocol of NATS: 'MSG a'"),
    (b"MSG a 1 2 3 4 5\r\n", "not the protocol"),
    (b"MSG a 1 -1\r\n", "not the protocol"),
    (b"MSG a x 1\r\nx\r\n", "not the protocol"),
    (b"MSG a 1 99999999999999999999\r\n", "not the protocol"),
    (b"MSG a 1 999999999999\r\n", "999999999999 bytes, more than the limit"),
    (b"MSG a 1 1\r\nxyz\r\n", "not the protocol"),
    (b"HMSG a 1 9 3\r\nNAT\r\n", "not the protocol"),
    (b"HMSG a 1 3\r\nNAT\r\n", "not the protocol"),
    (b"PINGPONG\r\n", "not the protocol"),
    (b"+OKAY\r\n", "not the protocol"),
    (b"-ERR 'Stale Connection'\r\n", "refused: 'Stale Connection'"),
    (b"-ERR \x1b[31m\xff\r\n", "refused: ?[31m?"),
    (b"MSG a 1 5\r\nab", "did not answer"),
    (b"\0\0\0\0\n", "not the protocol of NATS: '????'"),
])
def test_lines_that_are_none(db, data, message):
    def talk(p):
        p.hello()
        p.request()
        p.send(data)
        p.wait()
    assert message in meet(db, talk, "SELECT nats_js_publish('a', 'x')")


def test_a_slow_server_is_given_up(db):
    def drip(p):
        p.info()
        for c in b"+OK\r\n" * 1000:
            p.send(bytes([c]))
            time.sleep(0.05)
    assert "did not answer PING within 300 ms" in meet(db, drip, ms=300)


def test_a_server_that_reads_nothing_is_given_up(db):
    def deaf(p):
        p.hello(max_payload=50000000)
        time.sleep(3)
    assert "did not answer PING within 300 ms" in meet(
        db, deaf, "SELECT nats_publish('a', zeroblob(40000000))", ms=300)


def test_a_server_that_floods_is_given_up(db):
    def flood(p):
        p.hello()
        while True:
            p.send(b"PING\r\n" * 10000)
    assert meet(db, flood, "SELECT nats_request('a', 'x')", ms=300)


@pytest.mark.parametrize("reply", [
    b"", b"{", b"null", b"[]", b'"x"', b'{"seq":1}', b"\xff\xfe",
    b'{"error":1}', b'{"error":{"code":500}}', b'{"stream":null}'])
def test_an_acknowledgement_that_is_none(db, reply):
    def talk(p):
        p.hello()
        p.answer(p.request()[1], reply)
        p.wait()
    assert "is not a stream" in meet(db, talk,
                                     "SELECT nats_js_publish('a', 'x')")


@pytest.mark.parametrize("header, message", [
    (b"NATS/1.0 503\r\n\r\n", "no stream of"),
    (b"NATS/1.0 503 No Responders Available For Request\r\n\r\n", "no stream"),
    (b"NATS/1.0 99999\r\n\r\n", "is not a stream"),
    (b"NATS/9", "is not a stream"), (b"", "is not a stream"),
    (b"x" * 900000, "is not a stream"),
    (b"NATS/1.0\r\n" + b"A: " + b"y" * 900000 + b"\r\n" * 2, "is not a st"),
    (b"NATS/1.0 \r\n" * 1000, "is not a stream")])
def test_headers_of_every_kind(db, header, message):
    def talk(p):
        p.hello()
        reply = p.request()[1]
        p.send(b"HMSG %s 1 %d %d\r\n%s\r\n"
               % (reply, len(header), len(header), header))
        p.wait()
    assert message in meet(db, talk, "SELECT nats_js_publish('a', 'x')")


def consumer(p):
    """Answers CONSUMER.INFO and gives (inbox, sid) of the pull that follows.
    """
    p.hello()
    sid = b"2"
    while True:
        line = p.line()
        if line.startswith(b"SUB"):
            sid = line.split()[-1]
        elif line.startswith(b"PUB"):
            word = line.split()
            p.stream.read(int(word[-1]) + 2)
            if b"CONSUMER.INFO" in word[1]:
                p.answer(word[2], b"{}")
            else:
                return word[2], int(sid)


@pytest.mark.parametrize("reply", [
    b"", b"$JS.ACK", b"$JS.ACK.S.C.1.2.3", b"other.1.2.3.4.5.6.7.8",
    b"$JS.ACK." + b"." * 20])
def test_a_fetched_message_that_cannot_be_acknowledged(db, reply):
    def talk(p):
        _, sid = consumer(p)
        p.send(b"MSG s.a %d %s 1\r\nx\r\n" % (sid, reply))
        p.wait()
    with ScriptedNats(talk) as s:
        db.one("SELECT choir_config('nats.url', ?)", s.url)
        assert "no acknowledgement subject" in db.error(
            "SELECT * FROM nats_fetch('S', 'C', 2, 100)")


@pytest.mark.parametrize("status, message", [
    (b"409 Consumer Deleted", "no message: 409 Consumer Deleted"),
    (b"409 Message Size Exceeds MaxBytes", "409 Message Size"),
    (b"400 Bad Request", "400 Bad Request")])
def test_a_consumer_that_refuses(db, status, message):
    def talk(p):
        inbox, sid = consumer(p)
        head = b"NATS/1.0 " + status + b"\r\n\r\n"
        p.send(b"HMSG %s %d %d %d\r\n%s\r\n"
               % (inbox, sid, len(head), len(head), head))
        p.wait()
    with ScriptedNats(talk) as s:
        db.one("SELECT choir_config('nats.url', ?)", s.url)
        assert message in db.error(
            "SELECT * FROM nats_fetch('S', 'C', 2, 100)")


@pytest.mark.parametrize("end", ["half_close", "reset"])
def test_a_connection_that_ends_between_calls_is_made_anew(db, end):
    def talk(p):
        p.hello()
        while p.line() != b"PING":
            pass
        p.send(b"PONG\r\n")
        getattr(p, end)()
        if end == "half_close":
            p.wait()
    with ScriptedNats(talk) as s:
        db.one("SELECT choir_config('nats.url', ?)", s.url)
        for i in range(3):
            db.one("SELECT nats_ping()")
            time.sleep(0.05)
        assert s.connections == 3


def test_late_replies_do_not_disturb_the_next_request(db):
    def talk(p):
        p.hello()
        late = p.request()[1]
        reply = p.request()[1]
        p.answer(late, b"late")
        p.answer(reply, b"right")
        p.wait()
    with ScriptedNats(talk) as s:
        db.one("SELECT choir_config('nats.url', ?)", s.url)
        assert "no reply" in db.error("SELECT nats_request('a', '', 100)")
        assert db.one("SELECT nats_request('a', '', 2000)") == "right"
        assert s.connections == 1


def test_a_port_where_nobody_is(db):
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    db.one("SELECT choir_config('nats.url', ?)", f"nats://127.0.0.1:{port}")
    assert f"cannot reach 127.0.0.1:{port}" in db.error("SELECT nats_ping()")


@pytest.mark.parametrize("url", ["", ",", "nats://", "nats://:4222",
                                 "nats://h:99999999", "nats://[::1", "h:",
                                 "nats://user@", "nats://" + "h" * 300])
def test_a_url_that_is_none(db, url):
    db.one("SELECT choir_config('nats.url', ?)", url)
    assert "is not nats://host:port" in db.error("SELECT nats_ping()")
