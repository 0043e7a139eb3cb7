# SPDX-License-Identifier: MIT
"""Every way to log in, by the real server, and that nothing of it shows."""
import json
import ssl

import pytest

import nats
from authority import Authority

PASSWORD = "pa%ss:w0rd-canary"
TOKEN = "t0ken-canary"


@pytest.fixture
def start(tmp_path, db):
    started = []

    def make(config, scheme="nats", user=""):
        started.append(nats.Nats(tmp_path / f"n{len(started)}", config))
        at = f"{user}@" if user else ""
        db.one("SELECT choir_config('nats.url', ?)",
               f"{scheme}://{at}127.0.0.1:{started[-1].port}")
        return started[-1]
    yield make
    for s in started:
        s.stop()


def secret(db, server, **fields):
    db.one("SELECT choir_secret('n', ?)", json.dumps(
        {"type": "nats", "scope": f"nats://127.0.0.1:{server.port}",
         **fields}))


def refused(db, *canaries):
    message = db.error("SELECT nats_ping()")
    assert "Authorization Violation" in message
    for canary in canaries:
        assert canary not in message
    return message


def test_user_and_password(db, start):
    s = start(f'authorization {{ user: ada, password: "{PASSWORD}" }}\n')
    refused(db)
    secret(db, s, user="ada", password="wrong-canary")
    refused(db, "canary")
    secret(db, s, user="ada", password=PASSWORD)
    assert db.one("SELECT nats_publish('a', 'x')") == 1
    db.one("SELECT choir_secret('n', NULL)")
    refused(db)
    db.one("SELECT choir_config('nats.url', ?)",
           f"nats://ada:pa%25ss:w0rd-canary@127.0.0.1:{s.port}")
    assert db.one("SELECT nats_publish('a', 'x')") == 1
    assert db.one("SELECT value FROM choir_settings WHERE key='nats.url'"
                  ) == "********"
    db.one("SELECT choir_config('nats.url', ?)",
           f"nats://ada:other-canary@127.0.0.1:{s.port}")
    refused(db, "canary")


def test_a_token(db, start):
    s = start(f'authorization {{ token: "{TOKEN}" }}\n', user=TOKEN)
    assert db.one("SELECT nats_publish('a', 'x')") == 1
    db.one("SELECT choir_config('nats.url', ?)", s.url)
    refused(db)
    secret(db, s, token=TOKEN)
    assert db.one("SELECT nats_publish('a', 'x')") == 1


def test_the_environment_names_server_and_login(open_db, tmp_path,
                                                monkeypatch):
    s = nats.Nats(tmp_path / "n", f'authorization {{ token: "{TOKEN}" }}\n')
    monkeypatch.setenv("NATS_URL", f"nats://{TOKEN}@127.0.0.1:{s.port}")
    db = open_db()
    assert db.one("SELECT nats_publish('a', 'x')") == 1
    s.stop()
    assert TOKEN not in db.error("SELECT nats_ping()")


def test_an_nkey(db, start, tmp_path):
    key, other = nats.Key("U"), nats.Key("U")
    s = start(f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}\n")
    refused(db)
    secret(db, s, nkey=other.seed)
    refused(db, other.seed)
    secret(db, s, nkey=key.seed)
    assert db.one("SELECT nats_publish('a', 'x')") == 1
    db.one("SELECT choir_secret('n', NULL)")
    (tmp_path / "seed").write_text(key.seed + "\n")
    db.one("SELECT choir_config('nats.creds', ?)", str(tmp_path / "seed"))
    assert db.one("SELECT nats_publish('a', 'x')") == 1
    broken = key.seed[:20] + ("A" if key.seed[20] != "A" else "B") \
        + key.seed[21:]
    for bad in (broken, "SU", "", "x" * 58, key.public):
        secret(db, s, nkey=bad)
        message = db.error("SELECT nats_ping()")
        assert "the seed of the nkey is not one" in message
        assert not bad or len(bad) < 3 or bad not in message


def test_credentials_with_a_jwt(db, start, tmp_path):
    config, creds = nats.operator()
    s = start(config)
    refused(db)
    secret(db, s, creds=creds)
    assert db.one("SELECT nats_publish('a', 'x')") == 1
    (tmp_path / "ada.creds").write_text(creds)
    secret(db, s, creds_file=str(tmp_path / "ada.creds"))
    assert db.one("SELECT nats_publish('a', 'x')") == 1
    db.one("SELECT choir_secret('n', NULL)")
    db.one("SELECT choir_config('nats.creds', ?)", str(tmp_path / "ada.creds"))
    assert db.one("SELECT nats_publish('a', 'x')") == 1
    db.one("SELECT choir_config('nats.creds', ?)", str(tmp_path / "none"))
    assert "cannot open" in db.error("SELECT nats_ping()")
    _, other = nats.operator()
    secret(db, s, creds=other)
    seed = other.split("SEED-----\n")[1].split("\n")[0]
    refused(db, seed, other.split("JWT-----\n")[1][:40])


def test_what_is_not_permitted_is_said_and_the_connection_stays(db, start):
    s = start('authorization { users: [ { user: ada, password: pw,'
              ' permissions: { publish: ["ok.>", "_INBOX.>"],'
              ' subscribe: ["_INBOX.>"] } } ] }\n', user="ada:pw")
    assert "Permissions Violation" in db.error("SELECT nats_publish('no','x')")
    assert db.one("SELECT nats_publish('ok.a', 'x')") == 1
    assert s.process.poll() is None


# -------------------------------------------------------------------- TLS

@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


def tls(authority, names="IP:127.0.0.1,DNS:localhost", more=""):
    cert, key = authority.certificate("server", names)
    return (f'tls {{ cert_file: "{cert}", key_file: "{key}", timeout: 5,'
            f" {more} }}\n")


def test_a_server_that_wants_tls_gets_it(db, start, authority):
    s = start(tls(authority))
    message = db.error("SELECT nats_ping()")
    assert "TLS: the handshake failed" in message
    assert "certificate" in message
    db.one("SELECT choir_config('nats.ca_file', ?)", str(authority.ca))
    for url in (f"nats://127.0.0.1:{s.port}", f"tls://127.0.0.1:{s.port}",
                f"tls://localhost:{s.port}"):
        db.one("SELECT choir_config('nats.url', ?)", url)
        assert json.loads(db.one("SELECT nats_ping()"))["tls"] is True
    big = "SELECT nats_publish('a', zeroblob(1000000))"
    assert [db.one(big) for _ in range(5)] == [1] * 5
    db.one("SELECT nats_stream_create('T', '[\"t\"]')")
    for i in range(20):
        db.one("SELECT nats_js_publish('t', zeroblob(100000 + ?))", i)
    assert db.one("SELECT sum(length(payload)) FROM"
                  " nats_fetch('T', 'c', 100, 0)") == 2000190


def test_the_wrong_name_is_refused(db, start, authority):
    start(tls(authority, "DNS:elsewhere.test"), "tls")
    db.one("SELECT choir_config('nats.ca_file', ?)", str(authority.ca))
    assert "mismatch" in db.error("SELECT nats_ping()").lower()


def test_tls_that_the_url_asks_for_is_never_left_out(db, start):
    start("", "tls")
    assert "offers no TLS" in db.error("SELECT nats_ping()")


def test_the_client_shows_its_certificate(db, start, authority):
    s = start(tls(authority, more=f'verify: true, ca_file: "{authority.ca}"'))
    db.one("SELECT choir_config('nats.ca_file', ?)", str(authority.ca))
    assert db.error("SELECT nats_ping()")
    cert, key = authority.certificate("client", "DNS:client")
    db.one("SELECT choir_config('nats.cert_file', ?)", str(cert))
    db.one("SELECT choir_config('nats.key_file', ?)", str(key))
    assert json.loads(db.one("SELECT nats_ping()"))["tls"] is True
    assert s.process.poll() is None


def test_handshake_first(db, authority, tmp_path):
    """By a TLS proxy before the server, for Debian's knows no handshake_first; by
    the server itself when it is the newest."""
    if nats.FULL:
        s = nats.Nats(tmp_path / "f", tls(authority,
                                          more="handshake_first: true"))
        db.one("SELECT choir_config('nats.url', ?)", s.url)
        db.one("SELECT choir_config('nats.ca_file', ?)", str(authority.ca))
        db.one("SELECT choir_config('nats.tls', 'first')")
        assert json.loads(db.one("SELECT nats_ping()"))["tls"] is True
        assert db.one("SELECT nats_publish('a', 'x')") == 1
        s.stop()
    import socket
    import threading
    cert, key = authority.certificate("first", "IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    listener = socket.create_server(("127.0.0.1", 0))
    s = nats.Nats(tmp_path / "n")

    def pump(a, b):
        try:
            while (data := a.recv(65536)):
                b.sendall(data)
        except OSError:
            pass

    def serve():
        inside = context.wrap_socket(listener.accept()[0], server_side=True)
        outside = socket.create_connection(("127.0.0.1", s.port))
        t = threading.Thread(target=pump, args=(outside, inside), daemon=True)
        t.start()
        pump(inside, outside)
        outside.close()
        t.join(5)
        inside.close()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    db.one("SELECT choir_config('nats.url', ?)",
           f"nats://127.0.0.1:{listener.getsockname()[1]}")
    db.one("SELECT choir_config('nats.ca_file', ?)", str(authority.ca))
    db.one("SELECT choir_config('nats.tls', 'first')")
    assert json.loads(db.one("SELECT nats_ping()"))["tls"] is True
    assert db.one("SELECT nats_publish('a', 'x')") == 1
    db.one("SELECT choir_config('nats.url', ?)", s.url)
    db.one("SELECT choir_config('nats.timeout_ms', '500')")
    assert db.error("SELECT nats_ping()")  # a server that speaks first
    listener.close()
    s.stop()
