# SPDX-License-Identifier: MIT
"""TLS with a certificate authority of our own, and HTTP/2 by ALPN."""
import socket
import subprocess
import threading

import pytest

from authority import Authority
from fault_server import FaultServer, reply

BODY = "SELECT response_body FROM http_get(?)"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


def trust(db, authority):
    db.one("SELECT choir_config('http.ca_file', ?)", str(authority.ca))


def test_a_known_authority_is_trusted_and_an_unknown_one_is_not(db, authority):
    with FaultServer(authority.context("good", "IP:127.0.0.1")) as s:
        s.on("/", reply(b"secret place"))
        message = db.error(BODY, s.url("/"))
        assert "certificate" in message.lower()
        assert "attempts" not in message  # it does not get better by waiting
        assert s.seen == []
        trust(db, authority)
        assert db.one(BODY, s.url("/")) == "secret place"
        assert db.one(BODY, s.url("/")) == "secret place"
        assert s.connections == 2  # the refused one and one that was kept


@pytest.mark.parametrize("names, days", [
    ("DNS:other.test", "2"), ("IP:127.0.0.2", "2"), ("IP:127.0.0.1", "-1")])
def test_a_wrong_name_or_an_old_certificate_is_refused(db, authority, names,
                                                       days):
    trust(db, authority)
    try:
        context = authority.context("bad", names, days)
    except subprocess.CalledProcessError:
        pytest.skip("this openssl makes no certificates of yesterday")
    with FaultServer(context) as s:
        assert db.error(BODY, s.url("/"))
        assert s.seen == []


def test_plain_text_where_tls_is_expected_is_an_error(db):
    with FaultServer() as s:
        db.error(BODY, s.url("/").replace("http:", "https:"))


def test_a_redirect_from_https_to_http_is_refused(db, authority):
    from fault_server import redirect
    trust(db, authority)
    db.one("SELECT choir_config('http.redirects', 3)")
    with FaultServer() as plain, FaultServer(
            authority.context("r", "IP:127.0.0.1")) as s:
        s.on("/", redirect(plain.url("/")))
        assert "a redirect from https to http" in db.error(BODY, s.url("/"))
        assert plain.seen == []


def test_a_missing_ca_file_is_an_error(db, authority):
    db.one("SELECT choir_config('http.ca_file', '/no/such.pem')")
    with FaultServer(authority.context("good", "IP:127.0.0.1")) as s:
        assert db.error(BODY, s.url("/"))


def h2_server(listener, context, streams):
    """Answers every request of one connection with its path."""
    h2 = pytest.importorskip("h2")
    import h2.config
    import h2.connection
    import h2.events
    sock = context.wrap_socket(listener.accept()[0], server_side=True)
    assert sock.selected_alpn_protocol() == "h2"
    conn = h2.connection.H2Connection(h2.config.H2Configuration(
        client_side=False))
    conn.initiate_connection()
    sock.sendall(conn.data_to_send())
    while (data := sock.recv(65536)):
        for event in conn.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                headers = dict(event.headers)
                path = headers[b":path"]
                streams.append(event.stream_id)
                if path == b"/reset":
                    conn.reset_stream(event.stream_id, 2)
                    continue
                conn.send_headers(event.stream_id, [
                    (":status", "200"), ("content-type", "text/plain")])
                conn.send_data(event.stream_id, b"you want " + path,
                               end_stream=True)
        sock.sendall(conn.data_to_send())


def test_http_2_is_spoken_where_the_server_offers_it(db, authority):
    pytest.importorskip("h2")
    trust(db, authority)
    db.one("SELECT choir_config('http.attempts', 1)")
    listener = socket.create_server(("127.0.0.1", 0))
    context = authority.context("two", "IP:127.0.0.1", alpn=["h2"])
    streams = []
    thread = threading.Thread(target=h2_server, daemon=True,
                              args=(listener, context, streams))
    thread.start()
    base = "https://127.0.0.1:%d" % listener.getsockname()[1]
    for path in ("/a", "/b", "/c"):
        (row,) = db.rows("SELECT response_body, meta ->> 'http', meta ->>"
                         " 'complete', response_status FROM http_get(?)",
                         base + path)
        assert row == ("you want " + path, "2", 1, "200")
    assert streams == [1, 3, 5]  # one connection
    assert db.error(BODY, base + "/reset").startswith("http_get: GET https://")
    listener.close()
