# SPDX-License-Identifier: MIT
"""s3_sign_v4 against botocore, AWS's own signer, and AWS's own examples."""
import datetime
import json
import random
import urllib.parse

import pytest

from conftest import REPEAT

ACCESS, SECRET = "AKIAIOSFODNN7EXAMPLE", (
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
AWKWARD = (" !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\t\x7faZ09"
           "äöß€日本語😀\u0301\u200b\u00a0")


def sign(db, **fields):
    fields.setdefault("access_key", ACCESS)
    fields.setdefault("secret_key", SECRET)
    return json.loads(db.one("SELECT s3_sign_v4(?)", json.dumps(fields)))


# ------------------------------------------------------------------- botocore

class Oracle:
    """botocore's signers with a clock of our own."""

    def __init__(self, monkeypatch):
        auth = pytest.importorskip("botocore.auth")
        self.auth = auth
        self.now = None
        name = ("get_current_datetime" if hasattr(auth, "get_current_datetime")
                else None)
        assert name, "this botocore keeps its clock elsewhere"
        monkeypatch.setattr(auth, name, lambda *a, **k: self.now)

    def sign(self, case, url):
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
        self.now = datetime.datetime.strptime(case["time"], "%Y%m%dT%H%M%SZ")
        request = AWSRequest(method=case["method"], url=url,
                             data=case["body"].encode())
        for name, values in case["headers"].items():
            for value in values if isinstance(values, list) else [values]:
                request.headers[name] = value  # adds, does not replace
        keys = Credentials(ACCESS, case["secret_key"],
                           case.get("session_token"))
        s3, query = case["service"] == "s3", case["mode"] == "query"
        kind = getattr(self.auth, ("S3" if s3 else "") + "SigV4"
                       + ("Query" if query else "") + "Auth")
        extra = {"expires": case["expires"]} if query else {}
        signer = kind(keys, case["service"], case["region"], **extra)
        seen = {}
        original = signer.canonical_request
        signer.canonical_request = lambda r: seen.setdefault(
            "canonical", original(r))
        if query:
            request.data = b""
        signer.add_auth(request)
        return seen["canonical"], (
            request.url.rsplit("X-Amz-Signature=", 1)[1] if query
            else request.headers["Authorization"])


def text(rng, n):
    return "".join(rng.choice(AWKWARD) for _ in range(rng.randrange(n)))


def loosely(rng, value, safe):
    """value percent-encoded, but not in the one canonical way."""
    out = ""
    for c in value:
        if c in safe and rng.random() < 0.5:
            out += c
        elif c.isalnum() and c.isascii() and rng.random() < 0.9:
            out += c
        else:
            code = "".join("%%%02X" % b for b in c.encode())
            out += code.lower() if rng.random() < 0.3 else code
    return out


def random_case(rng):
    service = rng.choice(["s3", "s3", "s3", "sts", "execute-api"])
    query = rng.random() < 0.4
    case = {
        "method": rng.choice(["GET", "PUT", "POST", "DELETE", "HEAD"]),
        "service": service, "mode": "query" if query else "header",
        "region": rng.choice(["us-east-1", "eu-central-1", "auto"]),
        "time": "20%02d%02d%02dT%02d%02d%02dZ" % (
            rng.randrange(10, 99), rng.randrange(1, 13), rng.randrange(1, 29),
            rng.randrange(24), rng.randrange(60), rng.randrange(60)),
        "expires": rng.randrange(1, 604801),
        "secret_key": "".join(rng.choice("abcXYZ019/+=") for _ in range(
            rng.choice([1, 40, 60, 100]))),
        "body": "" if query else text(rng, 60), "headers": {}}
    if rng.random() < 0.3:
        case["session_token"] = "".join(
            rng.choice("abcXYZ019/+=") for _ in range(300))
    for _ in range(rng.randrange(4)):
        name = rng.choice(["x-amz-meta-a", "X-Amz-Meta-A-B", "Content-Type",
                           "Range", "x-amz-acl", "User-Agent", "Expect", "X"])
        values = ["  ".join(rng.choice(["a", "bc", "ü", "d\te", "f\r\n g", ""])
                            for _ in range(rng.randrange(1, 4)))
                  for _ in range(rng.choice([1, 1, 2, 3]))]
        case["headers"][name] = values[0] if len(values) == 1 else values
    host = rng.choice(["b.s3.amazonaws.com", "127.0.0.1:9000", "[::1]:8080",
                       "host.test:443", "host.test:80"])
    scheme = rng.choice(["http", "https"])
    key = "".join(rng.choice(["/", "//", "/./", "/../", "/a/", ""])
                  + text(rng, 8) for _ in range(rng.randrange(4)))
    quote = urllib.parse.quote
    if service == "s3":
        path = quote("/" + key, safe="/~")
        loose_path = "/" + loosely(rng, key, "/~!$&'()*+,:;=@")
    else:
        path = loose_path = quote("/" + key, safe=rng.choice(["/~", "/~=@:+"]))
    names = rng.sample(["prefix", "uploads", "a", "A", "x y", "ä", "a%b",
                        "marker", "list-type"], rng.randrange(5))
    pairs = [(n, text(rng, 10) if n != "uploads" else "") for n in names]
    strict = "&".join(quote(k, safe="-_.~") + "=" + quote(v, safe="-_.~")
                      for k, v in pairs)
    parts = []
    for k, v in pairs:
        part = loosely(rng, k, "-_.~!$'()*,:;@/?")
        if v or rng.random() < 0.5:
            part += "=" + loosely(rng, v, "-_.~!$'()*,:;@/?=")
        parts.append(part)
    base = f"{scheme}://{host}"
    case["url"] = base + loose_path + ("?" + "&".join(parts) if parts else "")
    return case, base + path + ("?" + strict if strict else "")


def test_ten_thousand_random_requests_sign_as_botocore_does(db, monkeypatch):
    """Once; the drivers and builds that come after sign the first thousand."""
    oracle, rng = Oracle(monkeypatch), random.Random(20150830)
    for i in range(1_000 if REPEAT else 10_000):
        case, strict = random_case(rng)
        ours = sign(db, **case)
        canonical, result = oracle.sign(case, strict)
        assert ours["canonical_request"] == canonical, (i, case)
        if case["mode"] == "query":
            assert ours["signature"] == result, (i, case)
            assert ours["url"].endswith("X-Amz-Signature=" + result)
        else:
            assert ours["authorization"] == result, (i, case)


def test_the_url_that_comes_out_signs_the_same(db):
    """What is signed is what is sent: signing it again changes nothing."""
    rng = random.Random(7)
    for _ in range(500):
        case, _ = random_case(rng)
        if case["mode"] == "header" and case["service"] == "s3":
            ours = sign(db, **case)
            assert sign(db, **dict(case, url=ours["url"])) == ours


# -------------------------------------------------- examples AWS has published

PUBLISHED = {"time": "20130524T000000Z",
             "url": "https://examplebucket.s3.amazonaws.com/"}


@pytest.mark.parametrize("fields, signature", [
    ({"url": PUBLISHED["url"] + "test.txt", "headers": {"Range": "bytes=0-9"}},
     "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
    ({"method": "PUT", "url": PUBLISHED["url"] + "test$file.text",
      "body": "Welcome to Amazon S3.",
      "headers": {"Date": "Fri, 24 May 2013 00:00:00 GMT",
                  "x-amz-storage-class": "REDUCED_REDUNDANCY"}},
     "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"),
    ({"url": PUBLISHED["url"] + "?lifecycle"},
     "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
    ({"url": PUBLISHED["url"] + "?max-keys=2&prefix=J"},
     "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ({"url": PUBLISHED["url"] + "test.txt", "mode": "query", "expires": 86400},
     "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")])
def test_the_examples_of_the_s3_reference(db, fields, signature):
    assert sign(db, **dict(PUBLISHED, **fields))["signature"] == signature


def suite(db, **fields):
    return sign(db, **dict({
        "time": "20150830T123600Z", "service": "service",
        "access_key": "AKIDEXAMPLE",
        "secret_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        "url": "https://example.amazonaws.com/"}, **fields))


def test_the_first_of_the_official_suite(db):
    assert suite(db)["signature"] == (
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31")


@pytest.mark.parametrize("path, normalized, plain", [
    ("/", "/", "/"), ("", "/", "/"), ("//", "/", "//"),
    ("/./", "/", "/./"), ("/./example", "/example", "/./example"),
    ("/example/..", "/", "/example/.."),
    ("/example1/example2/../..", "/", "/example1/example2/../.."),
    ("//example//", "/example/", "//example//"),
    ("/example%20space/", "/example%2520space/", "/example%20space/"),
    ("/example space/", "/example%20space/", "/example%20space/"),
    ("/-._~0123ABCxyz", "/-._~0123ABCxyz", "/-._~0123ABCxyz"),
    ("/ሴ", "/%E1%88%B4", "/%E1%88%B4"), ("/../../a", "/a", "/../../a")])
def test_paths_normalized_and_not(db, path, normalized, plain):
    url = "https://example.amazonaws.com" + path
    for normalize, want in ((True, normalized), (False, plain)):
        out = suite(db, url=url, normalize=normalize)
        assert out["canonical_request"].split("\n")[1] == want


def test_headers_of_the_official_suite(db):
    out = suite(db, headers={"My-Header1": ["value4", "value1", "value3"],
                             "My-Header2": '"a   b   c"',
                             "My-Header3": "value1\n  value2\r\n     value3"})
    assert out["canonical_request"].split("\n")[3:8] == [
        "host:example.amazonaws.com", "my-header1:value4,value1,value3",
        'my-header2:"a b c"', "my-header3:value1 value2 value3",
        "x-amz-date:20150830T123600Z"]
    assert "SignedHeaders=host;my-header1;my-header2;my-header3;x-amz-date" in (
        out["authorization"])


def test_the_query_is_sorted_after_encoding(db):
    out = suite(db, url="https://example.amazonaws.com/?Param1=value2&Param1="
                "Value1&p=%2f&P&a/b=c d&ሴ=bar")
    assert out["canonical_request"].split("\n")[2] == (
        "%E1%88%B4=bar&P=&Param1=Value1&Param1=value2&a%2Fb=c%20d&p=%2F")


@pytest.mark.parametrize("fields, problem", [
    ({"url": None}, "json lacks url"),
    ({"time": "2015-08-30"}, "time must look like 20150830T123600Z"),
    ({"time": None}, "json lacks time"),
    ({"secret_key": None}, "json lacks secret_key"),
    ({"secret_key": "k" * 300}, "secret_key has 300 bytes, at most 256"),
    ({"mode": "body"}, "mode must be header or query"),
    ({"mode": "query", "expires": 0}, "expires must be 1 to 604800"),
    ({"mode": "query", "expires": 604801}, "expires must be 1 to 604800"),
    ({"url": "ftp://x/"}, "the URL must start with http"),
    ({"url": "https://a:b@x/"}, "credentials in a URL are refused"),
    ({"headers": {f"h{i}": "x" for i in range(200)}}, "more than 128 headers")])
def test_bad_requests_are_named_and_no_key_is_shown(db, fields, problem):
    full = dict({"url": "https://x/", "time": "20150830T123600Z",
                 "access_key": "AKCANARY", "secret_key": "SKCANARY"}, **fields)
    message = db.error("SELECT s3_sign_v4(?)", json.dumps(full))
    assert message.startswith("s3_sign_v4: ") and problem in message
    assert "CANARY" not in message and "kkkk" not in message


def test_what_is_not_json_is_refused(db):
    assert db.one("SELECT s3_sign_v4(NULL)") is None
    for bad in ("", "[", "{secret", "nul", "[" * 5000):
        assert db.error("SELECT s3_sign_v4(?)", bad) == (
            "s3_sign_v4: not JSON")
    assert db.error("SELECT s3_sign_v4('[]')") == "s3_sign_v4: json lacks url"


def test_it_is_pure(db):
    db.run("CREATE TABLE t(a, b AS (s3_sign_v4(a)))")
    assert db.rows("SELECT b FROM t") == []
