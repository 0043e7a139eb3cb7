# SPDX-License-Identifier: MIT
"""No secret is found anywhere that it was not sent to."""
import base64
import json
import pathlib
import urllib.parse

import pytest

from fault_server import FaultServer, close, echo, redirect, reply, status

TOKEN = "canary-7f3a91-token"
SECRET = "canary-7f3a91-secret-key"
ACCESS = "AKIACANARY7F3A91"


def forms(secret):
    """How it may be written down."""
    raw = secret.encode()
    return {secret, base64.b64encode(raw).decode().rstrip("="),
            urllib.parse.quote(secret, safe=""), raw.hex()}


NEEDLES = forms(TOKEN) | forms(SECRET) | {ACCESS}


def clean(text, where):
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    for needle in NEEDLES:
        assert needle not in text, (where, text)


@pytest.fixture
def armed(db):
    """A workspace whose connection knows secrets."""
    with FaultServer() as s, FaultServer() as other:
        db.one("SELECT choir_secret('api', ?)", json.dumps(
            {"type": "http", "scope": s.url("/"), "bearer_token": TOKEN,
             "headers": {"api-key": SECRET}}))
        db.one("SELECT choir_secret('store', ?)", json.dumps(
            {"type": "s3", "scope": "s3://b/", "access_key": ACCESS,
             "secret_key": SECRET, "session_token": TOKEN,
             "region": "eu-west-1"}))
        db.one("SELECT choir_config('http.proxy', NULL)")
        yield db, s, other


def test_errors_and_columns_do_not_show_it(armed):
    db, s, other = armed
    s.on("/echo", echo)
    s.on("/gone", close)
    s.on("/busy", status(503))
    s.on("/away", redirect(other.url("/echo"), 307))
    other.on("/echo", echo)
    db.one("SELECT choir_config('http.redirects', 3)")
    get = "SELECT %s FROM http_get(?, http_headers('Cookie', ?), ?)"
    columns = ("request_url, request_method, request_headers, request_cookies,"
               " response_headers, remote_address, timings, meta")
    (row,) = db.rows(get % columns, s.url("/echo"), TOKEN, None)
    clean(repr(row), "columns")
    sent = json.loads(db.one("SELECT response_body FROM http_get(?)",
                             s.url("/echo")))
    assert dict(sent["headers"])["Authorization"] == "Bearer " + TOKEN
    clean(db.error(get % "*", s.url("/gone?sig=" + SECRET), TOKEN, None), "cut")
    db.one("SELECT choir_config('http.max_bytes', 10)")
    clean(db.error(get % "*", s.url("/echo?sig=" + SECRET), TOKEN, None), "cap")
    db.one("SELECT choir_config('http.max_bytes', NULL)")
    clean(db.error(get % "*", s.url("/echo"), "a\n" + SECRET, None), "header")
    clean(db.error(get % "*", "http://u:" + SECRET + "@h/", "x", None), "url")
    clean(db.error(get % "*", "ftp://u:" + SECRET + "@h/", "x", None), "url")
    clean(db.error("SELECT * FROM http_get(?, ?)", s.url("/"), SECRET), "lines")
    clean(db.error("SELECT * FROM http_get(?, NULL, ?)", s.url("/"), SECRET),
          "cookies")
    db.rows("SELECT * FROM http_get(?)", s.url("/away"))
    clean(repr([r.headers for r in other.seen]), "another host")
    assert len(other.seen) == 1


def test_no_table_shows_it(armed):
    db, s, _ = armed
    s.on("/", reply(b"x"))
    db.rows("SELECT * FROM http_get(?)", s.url("/?X-Amz-Signature=" + SECRET))
    db.one("SELECT choir_config('http.proxy', ?)", "http://u:" + SECRET + "@h/")
    tables = ["choir_secrets", "choir_settings", "choir_transfers",
              "choir_doctor", "choir_metrics", "choir_help", "sqlite_schema",
              "action_log", "user_settings", "server_cache",
              "s3_credentials('s3://b/k')"]
    have = {r[0] for r in db.rows("SELECT name FROM pragma_module_list")}
    tables += ["sqlite_stmt"] if "sqlite_stmt" in have else []
    for table in tables:
        rows = db.rows(f"SELECT * FROM {table}")
        clean(repr(rows), table)
    assert db.one("SELECT choir_config('http.proxy')") == "********"
    clean(str(db.one("SELECT choir_debug()")), "choir_debug")


def test_explain_and_the_file_do_not_hold_it(armed):
    db, s, _ = armed
    s.on("/", reply(b"x"))
    for explain in ("EXPLAIN", "EXPLAIN QUERY PLAN"):
        clean(repr(db.rows(f"{explain} SELECT * FROM http_get(?)",
                           s.url("/"))), explain)
    db.rows("SELECT * FROM http_get(?)", s.url("/"))
    db.run("PRAGMA wal_checkpoint; VACUUM")
    for path in pathlib.Path(db.path).parent.rglob("*"):
        if path.is_file():
            clean(path.read_bytes(), path.name)


@pytest.mark.parametrize("json_text", [
    '["%s"]', '{"type":"http","bearer_token":"%s"}', '{"bearer_token":"%s"}',
    '{"type":"s3","provider":"chain","provider":"%s', '%s',
    '{"type":"http","scope":"x","provider":"chain","a":"%s"}'])
def test_a_refused_secret_is_not_quoted(db, json_text):
    message = db.error("SELECT choir_secret('x', ?)", json_text % SECRET)
    assert message.startswith("choir_secret: ")
    clean(message, "choir_secret")


@pytest.mark.once  # Python's own hook
def test_the_trace_hook_of_the_host_does_not_see_it(tmp_path, open_db):
    db = open_db(tmp_path / "t.db")
    with FaultServer() as s:
        s.on("/", echo)
        db.one("SELECT choir_secret('api', ?)", json.dumps(
            {"type": "http", "scope": s.url("/"), "bearer_token": TOKEN}))
        seen = []
        db.con.set_trace_callback(seen.append)
        db.rows("SELECT response_status_code FROM http_get(?)", s.url("/"))
        db.rows("SELECT * FROM choir_secrets")
        db.one("SELECT s3_sign_v4(?)", json.dumps(
            {"url": "https://x/", "time": "20150830T123600Z",
             "access_key": "a", "secret_key": "k"}))
        db.con.set_trace_callback(None)
        assert seen
        for text in seen:
            clean(text, "trace")


def test_signing_shows_no_key(db):
    out = db.one("SELECT s3_sign_v4(?)", json.dumps(
        {"url": "https://x/", "time": "20150830T123600Z", "access_key": "a",
         "secret_key": SECRET}))
    clean(out, "s3_sign_v4")
