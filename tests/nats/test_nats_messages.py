# SPDX-License-Identifier: MIT
"""Messages and streams, against the real server."""
import json
import os
import signal
import socket
import threading
import time

import pytest

import nats
from nats_fixtures import at, server, stream  # noqa: F401


class Listener:
    """A client of thirty lines: subscribes, and answers what it is asked."""

    def __init__(self, port, subject, answer=None):
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.file = self.sock.makefile("rb")
        self.file.readline()
        self.sock.sendall(b'CONNECT {"headers":true}\r\nSUB %s 1\r\nPING\r\n'
                          % subject.encode())
        while self.file.readline() != b"PONG\r\n":
            pass
        self.answer, self.seen = answer, []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while (line := self.file.readline()):
                word = line.split()
                if word[:1] == [b"MSG"]:
                    body = self.file.read(int(word[-1]) + 2)[:-2]
                    self.seen.append((word[1].decode(), body))
                    if self.answer is not None and len(word) == 5:
                        self.sock.sendall(b"PUB %s %d\r\n%s\r\n" % (
                            word[3], len(self.answer), self.answer))
        except OSError:
            pass

    def wait(self, n):
        for _ in range(200):
            if len(self.seen) >= n:
                return self.seen
            time.sleep(0.01)
        return self.seen

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        self.file.close()
        self.sock.close()


def test_a_published_message_reaches_who_listens(at, server):
    listener = Listener(server.port, "news.>")
    assert at.one("SELECT nats_publish('news.today', 'hello')") == 1
    assert at.one("SELECT nats_publish('news.blob', ?)", b"\0\xff") == 1
    assert at.one("SELECT nats_publish('news.empty', '')") == 1
    assert listener.wait(3) == [("news.today", b"hello"),
                                ("news.blob", b"\0\xff"), ("news.empty", b"")]
    listener.close()


def test_a_request_gets_its_reply(at, server):
    for answer, expected in ((b"at noon", "at noon"), (b"\xff\0", b"\xff\0"),
                             (b"", "")):
        listener = Listener(server.port, "time", answer)
        assert at.one("SELECT nats_request('time', 'when')") == expected
        listener.close()


def test_a_request_that_nobody_answers_says_so(at, server):
    assert "nobody listens on 'no.one'" in at.error(
        "SELECT nats_request('no.one', '')")
    listener = Listener(server.port, "mute")
    start = time.monotonic()
    assert "no reply from 'mute' within" in at.error(
        "SELECT nats_request('mute', '', 200)")
    assert 0.19 < time.monotonic() - start < 2
    listener.close()
    at.one("SELECT nats_ping()")


def test_a_stream_stores_a_message_once_by_its_id(at, stream):
    sql = "SELECT nats_js_publish(?, ?, ?)"
    assert json.loads(at.one(sql, stream + ".a", "x", "1")) == {
        "stream": stream, "seq": 1, "duplicate": False}
    assert json.loads(at.one(sql, stream + ".a", "x", "1")) == {
        "stream": stream, "seq": 1, "duplicate": True}
    assert json.loads(at.one(sql, stream + ".a", "x", None))["seq"] == 2
    assert "no stream of 127.0.0.1" in at.error(sql, "nowhere.a", "x", "1")
    assert at.rows("SELECT subjects, messages FROM nats_streams "
                   "WHERE stream = ?", stream) == [(f'["{stream}.>"]', 2)]


def test_a_consumer_gives_every_message_until_it_is_acknowledged(at, stream):
    for i in range(5):
        at.one("SELECT nats_js_publish(?, ?, ?)", stream + ".n", str(i),
               f"id-{i}")
    rows = at.rows("SELECT subject, payload, msg_id, seq, ack, deliveries,"
                   " time FROM nats_fetch(?, 'c', 3, 0)", stream)
    assert [r[:4] for r in rows] == [
        (stream + ".n", str(i), f"id-{i}", i + 1) for i in range(3)]
    assert all(r[5] == 1 and abs(r[6] / 1e3 - time.time()) < 60 for r in rows)
    assert at.one("SELECT nats_ack(?)", rows[0][4]) == 1
    assert at.one("SELECT nats_ack(?, 'nak')", rows[1][4]) == 1
    assert at.one("SELECT nats_ack(?, 'term')", rows[2][4]) == 1
    again = at.rows("SELECT payload, ack, deliveries FROM"
                    " nats_fetch(?, 'c', 10, 1000)", stream)
    assert sorted((p, d) for p, _, d in again) == [("1", 2), ("3", 1),
                                                   ("4", 1)]
    assert at.one("SELECT nats_ack(json_array(?, ?, ?))",
                  *[a for _, a, _ in again]) == 3
    assert at.rows("SELECT * FROM nats_fetch(?, 'c', 10, 0)", stream) == []


def test_progress_and_delay_move_the_redelivery(at, stream):
    at.one("SELECT nats_js_publish(?, 'x')", stream + ".a")
    fetch = ("SELECT ack FROM nats_fetch(?, 'slow', 1, ?,"
             " '{\"ack_wait\":1000000000}')")
    ack = at.one(fetch, stream, 0)
    for _ in range(4):
        time.sleep(0.35)
        at.one("SELECT nats_ack(?, 'progress')", ack)
    assert at.rows(fetch, stream, 0) == []  # still ours after 1.4 s
    at.one("SELECT nats_ack(?, 'nak', 400)", ack)
    start = time.monotonic()
    assert len(at.rows(fetch, stream, 5000)) == 1
    assert 0.25 < time.monotonic() - start < 3


def test_fetch_waits_for_the_first_message(at, stream, server, open_db):
    at.rows("SELECT * FROM nats_fetch(?, 'w', 1, 0)", stream)
    start = time.monotonic()
    assert at.rows("SELECT * FROM nats_fetch(?, 'w', 5, 300)", stream) == []
    assert 0.29 < time.monotonic() - start < 3
    pid = os.fork()
    if pid == 0:  # another process publishes
        s = socket.create_connection(("127.0.0.1", server.port))
        time.sleep(0.2)
        s.sendall(b"CONNECT {}\r\nPUB %s.late 1\r\nx\r\nPING\r\n"
                  % stream.encode())
        time.sleep(0.5)
        os._exit(0)
    start = time.monotonic()
    assert at.rows("SELECT payload FROM nats_fetch(?, 'w', 5, 8000)",
                   stream) == [("x",)]
    assert time.monotonic() - start < 4
    os.waitpid(pid, 0)


def test_options_make_the_consumer_and_the_stream(at, stream):
    for word in ("a", "b", "a"):
        at.one("SELECT nats_js_publish(?, ?)", f"{stream}.{word}", word)
    assert at.rows(
        "SELECT payload FROM nats_fetch(?, 'only-b', 9, 0, json_object("
        "'filter_subject', ?))", stream, stream + ".b") == [("b",)]
    create = "SELECT nats_stream_create(?, json_array(?), ?)"
    assert json.loads(at.one(create, stream, stream + ".>", None))[
        "messages"] == 3  # the same again is no error
    assert "already in use with a different configuration" in at.error(
        create, stream, stream + ".x", None)
    at.one(create, stream + "m", stream + "m.>", '{"storage":"memory"}')
    assert at.one("SELECT storage FROM nats_streams WHERE stream=?",
                  stream + "m") == "memory"


def test_a_consumer_with_too_much_unacknowledged_gives_what_it_may(at, stream):
    for i in range(6):
        at.one("SELECT nats_js_publish(?, ?)", stream + ".a", str(i))
    fetch = ("SELECT payload, ack FROM nats_fetch(?, 'tight', 10, 0,"
             " '{\"max_ack_pending\":4,\"ack_wait\":1500000000}')")
    first = at.rows(fetch, stream)
    assert [r[0] for r in first] == ["0", "1", "2", "3"]
    assert at.rows(fetch, stream) == []
    at.one("SELECT nats_ack(?)", first[0][1])
    assert [r[0] for r in at.rows(fetch, stream)] == ["4"]
    time.sleep(1.7)
    assert {r[0] for r in at.rows(fetch, stream)} <= {"1", "2", "3", "4"}


def test_many_streams_are_listed_over_several_pages(at, server):
    # the server gives 256 names a page
    n = 300
    at.rows("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c"
            f" WHERE i<{n}) SELECT nats_stream_create('page' || i,"
            " json_array('page.' || i), '{\"storage\":\"memory\"}') FROM c")
    assert at.one("SELECT count(DISTINCT stream) FROM nats_streams"
                  " WHERE stream GLOB 'page*'") == n


def test_a_payload_larger_than_the_server_takes_is_refused_here(at, stream):
    limit = json.loads(at.one("SELECT nats_ping()"))["max_payload"]
    sql = "SELECT nats_js_publish(?, zeroblob(?))"
    assert json.loads(at.one(sql, stream + ".big", limit))["seq"] == 1
    assert (f"the message is {limit + 1} bytes and 127.0.0.1" in
            at.error(sql, stream + ".big", limit + 1))
    assert at.one("SELECT length(payload) FROM nats_fetch(?, 'c', 2, 0)",
                  stream) == limit
    assert at.one("SELECT nats_publish('big', zeroblob(?))", limit) == 1


@pytest.mark.parametrize("sql, message", [
    ("nats_publish(NULL, 'x')", "subject must be text, got null"),
    ("nats_publish('', 'x')", "'' is not a subject: 1 to 1024 bytes"),
    ("nats_publish('a\tb', 'x')", "it has a blank"),
    ("nats_publish('a.>', 'x')", "wildcard"),
    ("nats_publish('a'||char(10)||'PUB b 0', 'x')", "it has a blank"),
    ("nats_publish('a', NULL)", "payload must be text or blob, got null"),
    ("nats_publish('a', 1.5)", "payload must be text or blob, got real"),
    ("nats_publish(replace(hex(zeroblob(600)),'00','ab'), 'x')", "1 to 1024"),
    ("nats_js_publish('a', 'x', 'i'||char(13)||'d')", "msg_id must be"),
    ("nats_js_publish('a', 'x', '')", "msg_id must be"),
    ("nats_request('a', 'x', 0)", "timeout_ms must be 1 to 3600000, got 0"),
    ("nats_ack(NULL)", "token must be text"),
    ("nats_ack('[1]')", "'1' is not a token"),
    ("nats_ack('[')", "token is not valid JSON"),
    ("nats_ack('$JS.ACK.a')", "is not a token"),
    ("nats_ack('$JS.ACK.S.C.1.1.1.1.1', 'maybe')", "got 'maybe'"),
    ("nats_stream_create('a b', '[]')", "is not the name of a stream"),
    ("nats_stream_create('a', 'b')", "subjects is not valid JSON"),
    ("nats_stream_create('a', '[\"b\"]', 'x')", "options is not valid JSON"),
    ("(SELECT count(*) FROM nats_fetch('a.b', 'c', 1, 0))",
     "is not the name of a stream"),
    ("(SELECT count(*) FROM nats_fetch('a', '*', 1, 0))",
     "is not the name of a consumer"),
    ("(SELECT count(*) FROM nats_fetch('none', 'c', 1, 0))",
     "has no stream 'none'"),
])
def test_bad_input_is_a_clear_error(at, sql, message):
    assert message in at.error("SELECT " + sql)


def test_a_restarted_server_is_found_again(db, tmp_path):
    s = nats.Nats(tmp_path / "nats")
    db.one("SELECT choir_config('nats.url', ?)", s.url)
    db.one("SELECT nats_ping()")
    s.kill()
    assert "cannot reach 127.0.0.1" in db.error("SELECT nats_ping()")
    s.start()
    db.one("SELECT nats_ping()")  # the next call connects anew
    s.stop()


def test_the_next_server_of_the_list_takes_over(db, tmp_path):
    a, b = nats.Nats(tmp_path / "a"), nats.Nats(tmp_path / "b")
    db.one("SELECT choir_config('nats.url', ?)", f"{a.url}, {b.url}")
    ping = "SELECT json_extract(nats_ping(), '$.server')"
    assert db.one(ping) == f"127.0.0.1:{a.port}"
    a.kill()
    assert db.one(ping) == f"127.0.0.1:{b.port}"
    a.start()
    assert db.one(ping) == f"127.0.0.1:{b.port}"  # it stays where it is
    b.kill()
    assert db.one(ping) == f"127.0.0.1:{a.port}"
    a.kill()
    assert "none of 2 servers can be used" in db.error(ping)


@pytest.mark.inprocess
def test_an_interrupt_ends_a_wait(at, stream):
    at.rows("SELECT * FROM nats_fetch(?, 'w', 1, 0)", stream)
    timer = threading.Timer(0.3, at.con.interrupt)
    timer.start()
    start = time.monotonic()
    message = at.error("SELECT * FROM nats_fetch(?, 'w', 1, 30000)", stream)
    assert "interrupt" in message.lower()
    assert time.monotonic() - start < 2
    timer.join()
    at.one("SELECT nats_ping()")


@pytest.mark.inprocess
def test_a_fork_leaves_the_parents_connection_alone(at, server):
    first = at.one("SELECT nats_ping()")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            at.one("SELECT nats_ping()")
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert json.loads(at.one("SELECT nats_ping()"))["server"] == json.loads(
        first)["server"]


@pytest.mark.inprocess
def test_nothing_is_left_to_kill_the_host(at, tmp_path):
    """A write to a dead connection raises no SIGPIPE."""
    old = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    s = nats.Nats(tmp_path / "nats")
    try:
        at.one("SELECT choir_config('nats.url', ?)", s.url)
        at.one("SELECT nats_ping()")
        s.kill()
        for _ in range(3):
            at.error("SELECT nats_publish('a', zeroblob(100000))")
    finally:
        signal.signal(signal.SIGPIPE, old)


def test_a_locked_connection_sends_nothing(at):
    at.one("SELECT choir_lock()")
    assert "choir_lock" in at.error("SELECT nats_publish('a', 'x')")
    assert "choir_lock" in at.error("SELECT * FROM nats_fetch('S','c',1,0)")
