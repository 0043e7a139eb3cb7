# SPDX-License-Identifier: MIT
"""What goes wrong between a client and a JSON service, by programme.

  program(rng, size, elsewhere) -> (name, fault of fault_proxy, passes)

passes: a client that tries again gets through when it happens once. elsewhere
is the URL of another server, to be redirected to.
"""
import ctypes
import gzip
import os

from fault_proxy import heard, said, sent, silent

BOMB = gzip.compress(bytes(16 << 20), 9)
KINDS = ("sent", "heard", "lost", "status", "refused", "error", "length",
         "redirect", "bomb", "huge", "stall", "plain", "gzip", "empty")
WEIGHTS = (24, 24, 8, 14, 5, 6, 3, 4, 2, 3, 1, 3, 2, 1)
COUNTS = os.environ.get("CHOIR_FAULT_COUNTS") == "1"  # prints them, with -s
LATE = ("", "Retry-After: 0\r\n",
        "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n")


def whole(status, body, headers="", type="application/json"):
    return said(f"HTTP/1.1 {status} Said\r\nContent-Type: {type}\r\n{headers}"
                f"Content-Length: {len(body)}\r\n\r\n".encode() + body)


def program(rng, size, elsewhere):
    """size: bytes of a request or reply, about."""
    kind = rng.choices(KINDS, WEIGHTS)[0]
    k = rng.randrange(1, 500) if rng.random() < 0.5 else rng.randrange(1, size)
    fault, passes = made(rng, kind, k, elsewhere)
    return kind, fault, passes


def made(rng, kind, k, elsewhere):
    if kind == "sent":
        return sent(k), True
    if kind in ("heard", "lost"):
        return heard(k if kind == "heard" else 0), True
    if kind == "status":
        return whole(rng.choice([408, 429, 500, 502, 503, 504]),
                     b'{"status":{"error":"later"},"error":"later"}',
                     rng.choice(LATE)), True
    if kind == "refused":
        return whole(rng.choice([400, 404, 409, 422, 507]),
                     b'{"status":{"error":"no"},"error":"no"}'), False
    if kind == "error":
        return whole(200, rng.choice([
            b'{"status":{"error":"no"},"result":null,"time":0}',
            b'{"error":"no"}', b"{}", b"[]", b'{"result":{}}', b"<html>",
            b'{"result":{"status":"acknowledged","operation_id":1}}',
            b'{"result":{"status":"wait_timeout"}}',
            b"null", b"\xff\xfe", b'{"result":'])), False
    if kind == "length":  # more than comes, or less
        return said(b"HTTP/1.1 200 Said\r\nContent-Length: %d\r\n\r\n"
                    b'{"result":{}}' % rng.choice([5, 5, 5, 500])), False
    if kind == "redirect":
        return whole(rng.choice([301, 302, 303, 307, 308]), b"",
                     f"Location: {elsewhere}\r\n"), False
    if kind == "bomb":
        return whole(200, BOMB, "Content-Encoding: gzip\r\n"), False
    if kind == "huge":
        return whole(200, b" " * (9 << 20)), False
    if kind == "stall":
        return silent(20), False
    if kind == "plain":
        return whole(rng.choice([401, 403]), b"Invalid API key or JWT",
                     type="text/plain"), False
    if kind == "gzip":  # cut, with the length of what is there
        return whole(200, gzip.compress(os.urandom(4000))[:k % 3000 + 1],
                     "Content-Encoding: gzip\r\n"), None
    return said(b""), None  # nothing, and the connection stays


def held():
    """Bytes that SQLite and choir hold; the servers in this process do not
    count."""
    used = ctypes.CDLL("libsqlite3.so.0").sqlite3_memory_used
    used.restype = ctypes.c_int64
    return used()


class Sweep:
    """One fault in each case: runs it, and keeps the books.

    with Sweep(db, proxy, other) as sweep:
        for case in sweep.cases(rng, n): …

    call(case, what) gives what() does, or None when it was said to have
    failed; where the fault happens once and passes, it must not fail."""

    def __init__(self, db, proxy, other, size, name):
        self.db, self.proxy, self.other, self.size = db, proxy, other, size
        self.name, self.counts, self.failed = name, {}, 0
        db.one("SELECT choir_config('http.max_bytes', ?)", 8 << 20)

    def __enter__(self):
        self.files = len(os.listdir("/proc/self/fd"))
        self.memory = held()
        return self

    def __exit__(self, kind, *_):
        self.proxy.plan = lambda *_: None
        if kind is None:
            assert self.other.seen == [], "somebody else was asked"
            assert len(os.listdir("/proc/self/fd")) <= self.files + 12
            assert held() - self.memory < 1 << 20
        if COUNTS:
            print(f"\n{self.name}: {sum(self.counts.values())} cases,"
                  f" {self.failed} said to have failed: {self.counts}")

    def spoil(self, rng, requests):
        """Arms the next fault, at one of that many requests. -> may fail"""
        kind, fault, passes = program(rng, self.size, self.other.url("/"))
        which, ever = rng.randrange(requests), rng.random() < 0.25
        if kind in ("stall", "length", "empty"):
            self.db.one("SELECT choir_config('http.timeout_ms', 1500)")
            passes = False
        self.counts[kind] = self.counts.get(kind, 0) + 1
        first = len(self.proxy.seen)
        self.proxy.plan = lambda n, *_: fault if n - first == which or (
            ever and n - first > which) else None
        self.what = (kind, which, ever, str(fault)[:80])
        return ever or not passes

    def heal(self):
        self.proxy.plan = lambda *_: None
        self.db.one("SELECT choir_config('http.timeout_ms', NULL)")

    def call(self, rng, requests, what):
        """(1, result) or (0, message); what fails must be allowed to."""
        may_fail = self.spoil(rng, requests)
        try:
            return 1, what()
        except self.db.failure as e:
            assert may_fail, (self.what, str(e))
            assert len(str(e)) < 900, str(e)
            self.failed += 1
            return 0, str(e)
        finally:
            self.heal()
