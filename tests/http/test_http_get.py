# SPDX-License-Identifier: MIT
"""http_get, http_post, http_do, jsonrpc, graphql against a real server."""
import json

import pytest

from fault_server import FaultServer, chunked, echo, redirect, reply, status


@pytest.fixture
def server():
    with FaultServer() as s:
        s.on("/echo", echo)
        s.on("/hello", reply(b"hello"))
        yield s


def asked(db, sql, *params):
    """The request as the server saw it."""
    return json.loads(db.one(sql, *params))


def test_a_get_is_one_row_with_the_columns_of_sqlite_http(db, server):
    columns = ("request_url, request_method, request_headers, request_cookies,"
               " request_body, response_status, response_status_code,"
               " response_headers, response_cookies, response_body,"
               " remote_address, timings, meta")
    (row,) = db.rows(f"SELECT {columns} FROM http_get(?)", server.url("/hello"))
    assert row[0] == server.url("/hello")
    assert row[1] == "GET" and row[4] is None
    assert row[5:7] == ("200 Said", 200)
    assert "Content-Length: 5\r\n" in row[7]
    assert row[9] == "hello"
    assert row[10] == f"127.0.0.1:{server.port}"
    assert {"start", "first_byte", "body_end"} <= set(json.loads(row[11]))
    assert json.loads(row[12]) == {"http": "1.1", "attempts": 1,
                                   "redirects": 0, "received": 5,
                                   "complete": True}


def test_the_columns_are_those_of_a_bare_star(db, server):
    (row,) = db.rows("SELECT * FROM http_get(?)", server.url("/hello"))
    assert len(row) == 13


def test_a_binary_reply_is_a_blob_and_json_is_text(db, server):
    server.on("/bin", reply(b"\x00\xff", type="application/octet-stream"))
    server.on("/json", reply(b'{"a":1}', type="application/json"))
    server.on("/liar", reply(b"\xff\xfe", type="text/plain"))
    body = "SELECT response_body FROM http_get(?)"
    assert db.one(body, server.url("/bin")) == b"\x00\xff"
    assert db.one(f"SELECT ({body}) ->> 'a'", server.url("/json")) == 1
    assert db.one(body, server.url("/liar")) == b"\xff\xfe"


@pytest.mark.parametrize("n", [
    65535, 65536, 65543, pytest.param(3 << 20, marks=pytest.mark.once)])
@pytest.mark.parametrize("sent", [reply, lambda body: chunked(body, 1 << 16)])
def test_a_large_body_is_read_as_often_as_one_likes(db, server, n, sent):
    """It is not copied, and outlives its row."""
    body = bytes(range(256)) * (n // 256) + b"x" * (n % 256)
    url = server.on("/large", sent(body))
    assert db.rows("SELECT response_body, response_body FROM http_get(?)",
                   url) == [(body, body)]
    assert db.rows(
        "WITH two(b) AS (SELECT response_body FROM (SELECT 1 UNION ALL SELECT"
        " 2) CROSS JOIN http_get(?1)) SELECT count(*), count(DISTINCT b),"
        " max(b) = ?2, min(length(CAST(b || b AS BLOB))) FROM"
        " two", url, body) == [
            (2, 1, 1, 2 * n)]
    db.run("CREATE TABLE kept(a, b)")
    db.one("INSERT INTO kept SELECT response_body, response_body FROM"
           " http_get(?)", url)
    assert db.rows("SELECT a = ?1, b = ?1 FROM kept", body) == [(1, 1)]
    assert db.rows("SELECT response_body FROM (SELECT 1 x UNION SELECT 2) CROSS"
                   " JOIN http_get(?) ORDER BY x DESC", url) == [(body,)] * 2
    server.on("/text", reply(b"y" * n))
    assert db.rows("SELECT response_body, upper(response_body) FROM http_get(?)",
                   server.url("/text")) == [("y" * n, "Y" * n)]


@pytest.mark.parametrize("headers", [
    "X-One: 1\r\nX-Two: two words\r\nX-Empty:\r\n",
    "X-One: 1\nX-Two:   two words\nX-Empty: ",
    '{"X-One": 1, "X-Two": "two words", "X-Empty": ""}'])
def test_headers_are_wire_lines_or_a_json_object(db, server, headers):
    got = dict(asked(db, "SELECT response_body FROM http_get(?, ?)",
                     server.url("/echo"), headers)["headers"])
    assert got["X-One"] == "1" and got["X-Two"] == "two words"
    assert got["X-Empty"] == ""


def test_a_header_may_repeat(db, server):
    got = asked(db, "SELECT response_body FROM http_get(?, http_headers("
                "'X-A', '1', 'X-A', '2', 'X-B', NULL))", server.url("/echo"))
    assert [v for k, v in got["headers"] if k == "X-A"] == ["1", "2"]
    assert "X-B" not in dict(got["headers"])


def test_libcurl_adds_no_content_type_of_its_own(db, server):
    got = asked(db, "SELECT response_body FROM http_post(?, NULL, ?)",
                server.url("/echo"), "a=b" * 500_000)
    names = {k.lower() for k, _ in got["headers"]}
    assert not names & {"content-type", "expect"}
    assert len(got["body"]) == 1_500_000


def test_cookies_are_one_header_and_are_not_shown_again(db, server):
    (row,) = db.rows("SELECT response_body, request_cookies, request_headers"
                     " FROM http_get(?, NULL, ?)", server.url("/echo"),
                     '{"sid": "s3cr3t", "n": 7}')
    assert dict(json.loads(row[0])["headers"])["Cookie"] == "sid=s3cr3t; n=7"
    assert "s3cr3t" not in row[1] + row[2]


def test_reply_cookies_are_a_json_array(db, server):
    server.on("/c", reply(b"", headers=[("Set-Cookie", "a=1; Path=/"),
                                        ("Set-Cookie", "b=2")]))
    cookies = db.one("SELECT response_cookies FROM http_get(?)",
                     server.url("/c"))
    assert json.loads(cookies) == ["a=1; Path=/", "b=2"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
def test_http_do_sends_any_method_with_a_body(db, server, method):
    got = asked(db, "SELECT response_body FROM http_do(?, ?, NULL, ?)", method,
                server.url("/echo"), b"\x00\x01")
    assert got["method"] == method and got["body"] == "\x00\x01"


def test_head_has_no_body_and_no_limit_for_one(db, server):
    db.one("SELECT choir_config('http.max_bytes', 4)")
    (row,) = db.rows("SELECT response_status_code, response_body,"
                     " response_headers FROM http_do('HEAD', ?)",
                     server.url("/hello"))
    assert row[0] == 200 and row[1] in ("", b"")
    assert "Content-Length: 5" in row[2]


def test_a_status_of_404_is_a_row(db, server):
    (row,) = db.rows("SELECT response_status_code, response_body"
                     " FROM http_get(?)", server.url("/none"))
    assert row == (404, "no")


def test_a_url_is_sent_as_it_is(db, server):
    path = "/echo/../echo?a=%2F&b=c+d&e"
    server.on("/echo/../echo", echo)
    got = asked(db, "SELECT response_body FROM http_get(?)", server.url(path))
    assert got["target"] == path


def test_a_join_makes_one_request_a_row(db, server):
    for i in range(5):
        server.on(f"/{i}", reply(str(i).encode()))
    rows = db.rows("SELECT value, response_body FROM json_each('[0,1,2,3,4]')"
                   " AS n, http_get(? || n.value)", server.url("/"))
    assert rows == [(i, str(i)) for i in range(5)]
    assert server.connections == 1


def test_redirects_are_rows_unless_they_are_asked_for(db, server):
    server.on("/r", redirect("/hello"))
    sql = "SELECT response_status_code, request_url FROM http_get(?)"
    assert db.rows(sql, server.url("/r")) == [(302, server.url("/r"))]
    db.one("SELECT choir_config('http.redirects', 2)")
    assert db.rows(sql, server.url("/r")) == [(200, server.url("/hello"))]
    server.on("/loop", redirect("/loop"))
    assert db.rows(sql, server.url("/loop"))[0][0] == 302


def test_a_redirect_takes_no_credential_to_another_host(db, server):
    with FaultServer() as other:
        other.on("/echo", echo)
        server.on("/r", redirect(other.url("/echo"), 307))
        db.one("SELECT choir_config('http.redirects', 5)")
        db.one("SELECT choir_secret('s', ?)", json.dumps(
            {"type": "http", "scope": server.url("/"),
             "bearer_token": "canary-b", "headers": {"api-key": "canary-k"}}))
        got = asked(db, "SELECT response_body FROM http_get(?, http_headers("
                    "'X-Amz-Security-Token', 'canary-t', 'Accept', 'a/b'),"
                    " '{\"c\":\"canary-c\"}')", server.url("/r"))
        assert "canary" not in json.dumps(got)
        assert dict(got["headers"])["Accept"] == "a/b"
        first = dict(server.seen[-1].headers)
        assert first["Authorization"] == "Bearer canary-b"
        assert first["api-key"] == "canary-k"


def test_a_post_is_not_redirected(db, server):
    server.on("/r", redirect("/hello"))
    db.one("SELECT choir_config('http.redirects', 5)")
    assert db.one("SELECT response_status_code FROM http_post(?, NULL, 'x')",
                  server.url("/r")) == 302


def test_a_secret_is_attached_by_scope_only(db, server):
    db.one("SELECT choir_secret('s', ?)", json.dumps(
        {"type": "http", "scope": server.url("/echo/in"),
         "bearer_token": "tok"}))
    for path, sent in (("/echo/in", True), ("/echo/in/x", True),
                       ("/echo/inside", False), ("/echo", False)):
        server.on(path, echo)
        got = asked(db, "SELECT response_body FROM http_get(?)",
                    server.url(path))
        assert ("Authorization" in dict(got["headers"])) == sent, path


@pytest.mark.parametrize("url, problem", [
    ("file:///etc/passwd", "the URL must start with http:// or https://"),
    ("gopher://127.0.0.1/", "the URL must start with http:// or https://"),
    ("http://u:p@127.0.0.1/", "credentials in a URL are refused"),
    ("http://", "the URL has no host"),
    ("http://127.0.0.1:99999/", "the URL's port is not 1 to 65535"),
    ("http://127.0.0.1/a b", "the URL has a space"),
    ("http://127.0.0.1/a\nb", "the URL has a space"),
    ("http://127.0.0.1\\@evil/", "the URL has a space, control character or"),
    ("http://169.254.169.254/latest/", "link-local address"),
    ("http://[::ffff:169.254.169.254]/", "link-local address"),
    ("http://[fe80::1]/", "link-local address")])
def test_a_bad_url_is_named(db, url, problem):
    db.one("SELECT choir_config('http.attempts', 1)")
    message = db.error("SELECT * FROM http_get(?)", url)
    assert message.startswith("http_get: GET ") and problem in message
    assert "u:p" not in message


@pytest.mark.parametrize("sql, message", [
    ("SELECT * FROM http_get(NULL)", "http_get: url must be text, got null"),
    ("SELECT * FROM http_get(x'00')", "http_get: url must be text, got blob"),
    ("SELECT * FROM http_get('http://a/', 7)",
     "http_get: headers must be text, got integer"),
    ("SELECT * FROM http_get('http://a/', 'nonsense')",
     "headers has a line without a colon"),
    ("SELECT * FROM http_get('http://a/', '{\"a\":[1]}')",
     "headers is neither `Name: value` lines nor a JSON object"),
    ("SELECT * FROM http_get('http://a/', '{broken')",
     "headers is neither `Name: value` lines nor a JSON object"),
    ("SELECT * FROM http_get('http://a/', 'Bad Name: x')",
     "'Bad Name' is not a header's name"),
    ("SELECT http_headers('A', 'x' || char(10) || 'Evil: 1')",
     "http_headers: the value of header A has a control character at byte 1"),
    ("SELECT http_headers('A')", "http_headers: takes pairs"),
    ("SELECT * FROM http_get('http://a/', NULL, '[1]')",
     "cookies must be a JSON object"),
    ("SELECT * FROM http_do('get', 'http://a/')",
     "http_do: method 'get' is not 1 to 15 capital letters"),
    ("SELECT jsonrpc(NULL, 'm')", "jsonrpc: url must be text"),
    ("SELECT graphql('http://a/', '{a}', '[')",
     "graphql: variables is not valid JSON")])
def test_bad_arguments_are_named(db, sql, message):
    assert message in db.error(sql)


def test_only_allowed_hosts_are_reached(db, server):
    sql = "SELECT response_status_code FROM http_get(?)"
    for allow, reached in (("example.com", False), ("127.0.0.1", True),
                           ("a.test, 127.0.0.1:1", False),
                           (f"*.test,127.0.0.1:{server.port}", True),
                           ("*.0.0.1", True), ("*.127.0.0.1", False)):
        db.one("SELECT choir_config('http.allow', ?)", allow)
        if reached:
            assert db.one(sql, server.url("/hello")) == 200, allow
        else:
            assert "is not in the list of http.allow" in db.error(
                sql, server.url("/hello")), allow


def test_a_list_of_the_environment_is_not_widened_by_sql(open_db, server,
                                                         monkeypatch):
    sql = "SELECT response_status_code FROM http_get(?)"
    monkeypatch.setenv("CHOIR_HTTP_ALLOW", "*.test, localhost")
    db = open_db()
    for allow in (None, "127.0.0.1", ""):
        db.one("SELECT choir_config('http.allow', ?)", allow)
        assert db.error(sql, server.url("/hello")).endswith(
            f"host 127.0.0.1 port {server.port} is not in the list of"
            " http.allow of the environment or the config file, which"
            " choir_config() can only narrow")
    assert server.seen == []
    monkeypatch.setenv("CHOIR_HTTP_ALLOW", "localhost, 127.0.0.1")
    db = open_db()
    assert db.one(sql, server.url("/hello")) == 200
    db.one("SELECT choir_config('http.allow', 'localhost')")
    assert "is not in the list of http.allow" in db.error(
        sql, server.url("/hello"))


def test_a_lock_ends_it(db, server):
    db.one("SELECT choir_lock()")
    assert "locked" in db.error("SELECT * FROM http_get(?)",
                                server.url("/hello"))
    assert "locked" in db.error("SELECT jsonrpc(?, 'm')", server.url("/hello"))
    assert server.seen == []


def test_jsonrpc_returns_the_result_as_json(db, server):
    server.on("/rpc", reply(b'{"jsonrpc":"2.0","id":1,"result":'
                            b'{"n":18446744073709551615}}'))
    assert db.one("SELECT jsonrpc(?, 'add', '[1,2]')", server.url("/rpc")) == (
        '{"n":18446744073709551615}')
    sent = json.loads(server.seen[-1].body)
    assert sent == {"jsonrpc": "2.0", "id": 1, "method": "add",
                    "params": [1, 2]}
    assert server.seen[-1].get("Content-Type") == "application/json"
    server.on("/rpc", reply(b'{"id":1,"result":null}'))
    assert db.one("SELECT jsonrpc(?, 'x')", server.url("/rpc")) == "null"


def test_jsonrpc_errors_are_errors(db, server):
    server.on("/rpc", status(200, body=b'{"error":{"code":-32601,"message":'
                             b'"Method not found"}}'))
    assert db.error("SELECT jsonrpc(?, 'x')", server.url("/rpc")).endswith(
        "the server says: Method not found")
    server.on("/rpc", status(500, body=b"<html>"))
    assert "status 500 with a reply that has no result" in db.error(
        "SELECT jsonrpc(?, 'x')", server.url("/rpc"))
    assert len(server.seen) == 2  # not sent twice


def test_graphql_returns_data_or_the_first_error(db, server):
    server.on("/g", reply(b'{"data":{"a":1}}'),
              reply(b'{"data":{"a":null},"errors":[{"message":"no a"}]}'))
    assert db.one("SELECT json_object('x', graphql(?, 'query($v:Int){a}',"
                  " '{\"v\":2}'))", server.url("/g")) == '{"x":{"a":1}}'
    assert json.loads(server.seen[-1].body) == {
        "query": "query($v:Int){a}", "variables": {"v": 2}}
    assert db.error("SELECT graphql(?, '{a}')", server.url("/g")).endswith(
        "the server says: no a")


def test_transfers_are_listed_without_their_query(db, server):
    db.rows("SELECT * FROM http_get(?)", server.url("/hello?token=canary"))
    (row,) = db.rows("SELECT method, url, state, status, attempts, received,"
                     " total FROM choir_transfers")
    assert row == ("GET", server.url("/hello"), "done", 200, 1, 5, 5)
    for _ in range(40):
        db.rows("SELECT 1 FROM http_get(?)", server.url("/hello"))
    assert db.one("SELECT count(*) || ',' || max(id) FROM choir_transfers") == (
        "32,41")
