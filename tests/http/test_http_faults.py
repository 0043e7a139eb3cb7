# SPDX-License-Identifier: MIT
"""What a server may do wrong ends in a right answer or a named error, in time."""
import email.utils
import gzip
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from conftest import SANITIZED, SO
from fault_server import (FaultServer, bomb, chunked, close, cut, drip, echo,
                          endless, gzipped, head, raw, reply, reset, stall,
                          status)

BODY = "SELECT response_body FROM http_get(?)"


@pytest.fixture
def server():
    with FaultServer() as s:
        yield s


@pytest.fixture
def once(db):
    db.one("SELECT choir_config('http.attempts', 1)")
    return db


@pytest.mark.parametrize("fault", [
    reset, close, status(503), status(429, [("Retry-After", "0")]),
    status(500), status(408), cut(reply(b"x" * 100), 5),
    cut(reply(b"x" * 100), 120), chunked(b"x" * 500, last=False),
    gzipped(b"x" * 1000, keep=0.5), gzipped(b"x" * 1000, keep=0.9)])
def test_a_fault_that_passes_is_not_seen(db, server, fault):
    assert db.one(BODY, server.on("/", fault, fault, reply(b"good"))) == "good"
    assert len(server.seen) == 3


def test_every_cut_of_a_reply_is_noticed(once, server):
    """At every byte: an error or, at the very end, the whole."""
    for whole in (reply(b"payload" * 9), chunked(b"payload" * 9, size=20),
                  gzipped(b"payload" * 9), gzipped(b"payload" * 9, length=False)):
        class Count:
            n = 0

            def sendall(self, data):
                self.n += len(data)
        count = Count()
        whole(count, type("R", (), {"method": "GET"}))
        # without its very last line feed a chunked reply is as good as whole
        for k in range(count.n - 1):
            message = once.error(BODY, server.on("/", cut(whole, k)))
            assert message.startswith("http_get: GET http://127.0.0.1:"), k
        assert once.one(BODY, server.on("/", cut(whole, count.n))) in (
            "payload" * 9, b"payload" * 9)


@pytest.mark.parametrize("keep, says", [
    (0.5, "the gzip reply is cut short after"), (0, "bytes is damaged")])
def test_a_gzip_reply_that_is_cut_or_spoilt_is_named(once, server, keep, says):
    if keep:
        server.on("/", gzipped(os.urandom(1000), keep))
    else:
        data = bytearray(gzip.compress(b"hello" * 100))
        data[-5] ^= 1  # of its checksum
        server.on("/", reply(bytes(data), headers=[
            ("Content-Encoding", "gzip")]))
    assert says in once.error(BODY, server.url("/"))


def test_a_reply_without_a_length_says_that_it_may_be_cut(once, server):
    server.on("/", raw(head(200) + b"half of it"))
    (row,) = once.rows("SELECT response_body, meta ->> 'complete'"
                       " FROM http_get(?)", server.url("/"))
    assert row == (b"half of it", 0)


def test_a_post_is_sent_once(db, server):
    for fault in (reset, close, status(503)):
        server.seen.clear()
        server.on("/", fault, reply(b"twice"))
        try:
            db.rows("SELECT * FROM http_post(?, NULL, 'x')", server.url("/"))
        except db.failure:
            pass
        assert len(server.seen) == 1


def test_a_post_that_never_left_is_tried_again(db):
    with FaultServer() as s:
        url = s.url("/")
    assert "after 3 attempts" in db.error(
        "SELECT * FROM http_post(?, NULL, 'x')", url)


def test_retry_after_is_kept_to(db, server):
    server.on("/", status(503, [("Retry-After", "1")]), reply(b"ok"))
    start = time.monotonic()
    assert db.one(BODY, server.url("/")) == "ok"
    assert 0.9 < time.monotonic() - start < 5
    when = email.utils.formatdate(time.time() + 2, usegmt=True)
    server.on("/", status(503, [("Retry-After", when)]), reply(b"ok"))
    start = time.monotonic()
    assert db.one(BODY, server.url("/")) == "ok"
    assert 0.5 < time.monotonic() - start < 5


def test_a_long_retry_after_is_not_waited_for(db, server):
    server.on("/", status(429, [("Retry-After", "3600")], b"slow down"))
    assert db.rows("SELECT response_status_code, response_body"
                   " FROM http_get(?)", server.url("/")) == [(429, "slow down")]
    assert len(server.seen) == 1


def test_the_last_reply_is_returned_when_all_attempts_fail(db, server):
    server.on("/", status(503, body=b"down"))
    assert db.rows("SELECT response_status_code, response_body,"
                   " meta ->> 'attempts' FROM http_get(?)",
                   server.url("/")) == [(503, "down", 3)]


@pytest.mark.parametrize("fault", [
    stall(20), stall(20, head(200, [("Content-Length", "5")]) + b"x"),
    stall(20, b"HTTP/1.1 200 O"), drip(b"x" * 200, 0.1)])
def test_a_deadline_holds(db, server, fault):
    db.one("SELECT choir_config('http.timeout_ms', 400)")
    start = time.monotonic()
    message = db.error(BODY, server.on("/", fault))
    assert "not done within 400 ms (http.timeout_ms)" in message
    assert time.monotonic() - start < 1.4


def test_a_stalled_transfer_ends(once, server):
    once.one("SELECT choir_config('http.stall_ms', 300)")
    for fault in (stall(20), drip(b"x" * 500, 0.05)):
        start = time.monotonic()
        message = once.error(BODY, server.on("/", fault))
        assert "less than 1 KiB/s for 300 ms (http.stall_ms)" in message
        assert time.monotonic() - start < 2


def test_connecting_has_a_limit(once):
    once.one("SELECT choir_config('http.connect_timeout_ms', 300)")
    import socket
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    fill = [socket.socket() for _ in range(4)]
    for s in fill:  # the queue of connections is full: SYNs go unanswered
        s.setblocking(False)
        s.connect_ex(full.getsockname())
    start = time.monotonic()
    once.error(BODY, "http://127.0.0.1:%d/" % full.getsockname()[1])
    assert time.monotonic() - start < 2
    for s in fill + [full]:
        s.close()


MEASURE = """
import resource, sqlite3, sys
con = sqlite3.connect(":memory:")
con.enable_load_extension(True)
con.load_extension(sys.argv[1])
con.execute("SELECT choir_config('http.attempts', 1),"
            " choir_config('http.max_bytes', ?)", (16 << 20,)).fetchall()
get = "SELECT length(response_body) FROM http_get(?)"
con.execute(get, (sys.argv[2] + "warm",)).fetchall()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(con.execute(get, (sys.argv[2],)).fetchone()[0])
except sqlite3.Error as e:
    print(e)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.inprocess
@pytest.mark.parametrize("fault, says", [
    (bomb(300), "more than the limit of 16777216"),
    (endless, "more than the limit of 16777216"),
    (reply(b"x" * (17 << 20)), "more than the limit of 16777216"),
    (reply(b"x" * (16 << 20)), "16777216"),
    (chunked(b"x" * (17 << 20), size=1 << 20), "more than the limit of 1677"),
    (chunked(b"x" * (16 << 20), size=1 << 20), "16777216"),
    (gzipped(bytes(16 << 20)), "16777216"),
    (reply(b"x", headers=[("X-Big", "x" * (8 << 20))]), "is too long"),
    (reply(b"x", headers=[("X-%d" % i, "x" * 4000) for i in range(100)]),
     "the reply's headers are more than 262144 bytes")])
def test_no_reply_takes_more_memory_than_the_cap(server, fault, says):
    """In a process of its own: what it grows by is at most the cap and 16 MiB."""
    server.on("/", fault)
    server.on("/warm", reply(b"x"))
    start = time.monotonic()
    said, grown = subprocess.run(
        [sys.executable, "-c", MEASURE, SO, server.url("/")], check=True,
        capture_output=True, text=True, timeout=60).stdout.splitlines()
    assert says in said
    assert time.monotonic() - start < 20
    if not SANITIZED:  # it keeps what was freed
        assert int(grown) <= (16 + 16) << 10


@pytest.mark.parametrize("data", [
    b"", b"\r\n", b"SSH-2.0-x\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"\x00" * 100,
    b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999999\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\njunk"])
def test_nonsense_is_an_error(once, server, data):
    once.error(BODY, server.on("/", raw(data)))


def test_100_continue_and_odd_statuses_are_understood(once, server):
    server.on("/", raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 299 Odd\r\n"
                       b"Content-Length: 1\r\n\r\nx", keep=True))
    assert once.rows("SELECT response_status, response_status_code"
                     " FROM http_get(?)", server.url("/")) == [("299 Odd", 299)]
    server.on("/", raw(head(204) , keep=True))
    assert once.one("SELECT response_status_code FROM http_get(?)",
                    server.url("/")) == 204


def test_refused_names_the_url(once):
    with FaultServer() as s:
        url = s.url("/x")
    assert once.error(BODY, url + "?canary=1").startswith(
        f"http_get: GET {url}: ")


@pytest.mark.inprocess
def test_an_interrupt_ends_a_transfer_and_the_next_one_works(tmp_path, open_db,
                                                              server):
    import sqlite3
    db = open_db(tmp_path / "i.db")
    for fault in (stall(20), drip(b"x" * 100_000, 0.01),
                  status(503, [("Retry-After", "30")])):
        server.on("/", fault)
        timer = threading.Timer(0.3, db.con.interrupt)
        timer.start()
        start = time.monotonic()
        with pytest.raises(db.failure) as e:
            db.rows("SELECT length(response_body) FROM http_get(?)",
                    server.url("/"))
        assert time.monotonic() - start < 3
        assert "nterrupt" in str(e.value) + type(e.value).__name__
        timer.join()
        assert db.one(BODY, server.on("/ok", reply(b"ok"))) == "ok"


@pytest.mark.inprocess
def test_a_child_of_fork_begins_anew(tmp_path, open_db, server):
    db = open_db(":memory:")
    server.on("/", reply(b"ok"))
    assert db.one(BODY, server.url("/")) == "ok"
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if db.one(BODY, server.url("/")) == "ok" else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert db.one(BODY, server.url("/")) == "ok"
    assert server.connections == 2  # the parent's was left alone


@pytest.mark.inprocess
def test_connections_of_threads_do_not_meet(open_db, server):
    server.on("/", reply(b"ok"))
    failures = []

    def work():
        try:
            import conftest
            d = conftest.Db(":memory:")
            for _ in range(50):
                assert d.one(BODY, server.url("/")) == "ok"
            d.close()
        except BaseException as e:
            failures.append(e)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failures == []
    assert server.connections == 4


@pytest.mark.inprocess
def test_sigpipe_is_not_raised(open_db, server):
    db = open_db(":memory:")
    old = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        server.on("/", reset)
        db.error("SELECT * FROM http_do('PUT', ?, NULL, zeroblob(3000000))",
                 server.url("/"))
    finally:
        signal.signal(signal.SIGPIPE, old)


def test_the_environment_proxy_is_not_used_unless_asked_for(
        tmp_path, open_db, monkeypatch, server):
    with FaultServer() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url())
        monkeypatch.setenv("ALL_PROXY", proxy.url())
        db = open_db(tmp_path / "p.db")
        assert db.one(BODY, server.on("/", reply(b"direct"))) == "direct"
        assert proxy.seen == []
        proxy.on("/x", echo)
        proxy.rules = {"http://elsewhere.test/x": [reply(b"proxied")]}
        db.one("SELECT choir_config('http.proxy', 'env')")
        assert db.one(BODY, "http://elsewhere.test/x") == "proxied"
        db.one("SELECT choir_config('http.proxy', ?)", proxy.url())
        assert db.one(BODY, "http://elsewhere.test/x") == "proxied"
        assert db.one("SELECT value FROM choir_settings"
                      " WHERE key = 'http.proxy'") == "********"


@pytest.mark.inprocess
def test_a_long_transfer_is_shown_on_a_terminal_and_wiped(server):
    """Above a second, by one line of stderr that says no query."""
    server.on("/slow", drip(b"x" * 30, 0.1))
    server.on("/quick", reply(b"x"))
    code = ("import sqlite3, sys; con = sqlite3.connect(':memory:');"
            "con.enable_load_extension(True); con.load_extension(sys.argv[1]);"
            "[con.execute('SELECT response_body FROM http_get(?)', (u,)"
            ").fetchall() for u in sys.argv[2:]]")
    shown = {}
    for name in ("/quick", "/slow?key=canary"):
        mine, its = pty.openpty()
        child = subprocess.Popen([sys.executable, "-c", code, SO,
                                  server.url(name)], stderr=its)
        os.close(its)
        assert child.wait(30) == 0
        os.set_blocking(mine, False)
        try:
            shown[name] = os.read(mine, 1 << 16).decode()
        except OSError:  # nothing was written
            shown[name] = ""
        os.close(mine)
    assert shown.pop("/quick") == ""
    (text,) = shown.values()
    lines = text.split("\r")
    assert re.match(r"GET http://127\.0\.0\.1:\d+/slow  0\.0 of 0\.0 MB"
                    r"  0\.0 MB/s", lines[1]) and "canary" not in text
    assert lines[-2].strip() == "" and lines[-1] == ""  # wiped
