# SPDX-License-Identifier: MIT
"""A proxy on 127.0.0.1 in front of a real HTTP server, which spoils what it is
told to.

  with FaultProxy(port) as p:
      p.plan = lambda n, method, target: ...     n: 0 for the first request

What a plan gives for a request:

  None              it passes
  sent(k)           the connection breaks after k bytes of the request, which
                    the server never sees whole
  heard(k)          the server answers, k bytes of the answer arrive (0: the
                    reply is lost after the deed)
  said(data)        data instead of the server, which hears nothing
  silent(seconds)   nothing happens for that long, then the end

p.seen holds (method, target) of every request, p.heads its header; when the
plan is asked, the header of this request is there already.
"""
import socket
import time

from loopback import Loopback, resets


def sent(k):
    return "sent", k


def heard(k):
    return "heard", k


def said(data):
    return "said", data


def silent(seconds):
    return "silent", seconds


def error(code, status=503, message="spoilt", more="", headers=""):
    """An S3 error as a whole reply."""
    body = (f"<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>"
            f"{message}</Message>{more}</Error>").encode()
    return said(f"HTTP/1.1 {status} Said\r\nContent-Type: application/xml\r\n"
                f"{headers}Content-Length: {len(body)}\r\n\r\n".encode()
                + body)


class Broken(Exception):
    pass


class FaultProxy(Loopback):
    def __init__(self, port):
        super().__init__()
        self.to, self.plan = port, lambda n, m, t: None
        self.seen, self.heads = [], []
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def serve(self, client):
        server = socket.create_connection(("127.0.0.1", self.to))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        up, down = client.makefile("rb"), server.makefile("rb")
        with self.lock:
            self.open.add(server)
        try:
            while self.one(client, server, up, down):
                pass
        except Broken:
            pass
        finally:
            with self.lock:
                self.open.discard(server)
            for s in (client, server):
                try:
                    resets(s)
                except OSError:
                    pass
            for s in (up, down, server):
                s.close()

    def one(self, client, server, up, down):
        head, first, length, expect, _ = read_head(up)
        if not head:
            return False
        method, target = first.split(" ")[:2]
        with self.lock:
            self.heads.append(head)
            fault = self.plan(len(self.seen), method, target)
            self.seen.append((method, target))
        kind, what = fault or (None, None)
        if kind == "silent":
            time.sleep(what)
            return False
        if expect:
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if kind == "said":
            discard(up, length)
            client.sendall(what)
            return True
        left = [what if kind == "sent" else None]
        pass_on(server, head, left)
        copy(up, server, length, left, refusable=True)
        left = [what if kind == "heard" else None]
        if left[0] == 0:
            down.peek(1)  # the deed is done
            return False
        head, first, length, _, chunked = read_head(down)
        if not head:
            return False
        pass_on(client, head, left)
        status = int(first.split(" ")[1])
        if method == "HEAD" or status in (204, 304) or status < 200:
            return left[0] is None
        if chunked:
            while True:
                line = down.readline()
                pass_on(client, line, left)
                size = int(line.split(b";")[0], 16)
                copy(down, client, size + 2, left)
                if size == 0:
                    break
        else:
            copy(down, client, length, left)
        return left[0] is None


def read_head(stream):
    """(bytes, first line, length of the body, expects 100, is chunked)"""
    first = stream.readline()
    out, length, expect, chunked = [first], 0, False, False
    if not first:
        return b"", "", 0, False, False
    while True:
        line = stream.readline()
        if not line:
            raise Broken
        key, _, value = line.partition(b":")
        key = key.lower()
        if key == b"expect":
            expect = True
            continue  # answered here; S3 does not sign it
        if key == b"content-length":
            length = int(value)
        if key == b"transfer-encoding":
            chunked = b"chunked" in value
        out.append(line)
        if line in (b"\r\n", b"\n"):
            break
    return b"".join(out), first.decode("latin-1"), length, expect, chunked


def pass_on(to, data, left):
    if left[0] is None:
        to.sendall(data)
        return
    to.sendall(data[:left[0]])
    left[0] -= min(len(data), left[0])
    if left[0] == 0:
        raise Broken


def copy(stream, to, n, left, refusable=False):
    """Passes on n bytes; one who may refuse a body has answered already when
    it stops listening, and gets no more."""
    while n > 0:
        data = stream.read1(min(n, 1 << 18))
        if not data:
            raise Broken
        n -= len(data)
        try:
            pass_on(to, data, left)
        except OSError:
            if not refusable:
                raise
            return discard(stream, n)


def discard(stream, n):
    while n > 0:
        data = stream.read1(min(n, 1 << 18))
        if not data:
            raise Broken
        n -= len(data)
