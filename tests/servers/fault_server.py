# SPDX-License-Identifier: MIT
"""An HTTP/1.1 server on 127.0.0.1 that goes wrong as it is told.

  with FaultServer() as s:
      s.on("/a", reply(b"hello"))                 every request of /a
      s.on("/b", status(503), reply(b"now"))      the first, then the others
      s.url("/a")                                 http://127.0.0.1:PORT/a
      s.seen                                      what was asked, in order

An action is a function (socket, Request) -> True to keep the connection. They
are made by the functions below; a list of them is a programme, its last one
stays. FaultServer(tls=context) speaks TLS.
"""
import gzip
import time

from loopback import Loopback, resets


class Request:
    def __init__(self, method, target, headers, body):
        self.method, self.target, self.body = method, target, body
        self.path = target.split("?", 1)[0]
        self.headers = headers

    def get(self, name, default=None):
        for key, value in self.headers:
            if key.lower() == name.lower():
                return value
        return default


def head(code=200, headers=(), reason="Said"):
    lines = [f"HTTP/1.1 {code} {reason}"] + [f"{k}: {v}" for k, v in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def reply(body=b"", code=200, headers=(), type="text/plain"):
    """A proper reply."""
    def act(sock, request):
        extra = [("Content-Type", type), ("Content-Length", str(len(body)))]
        sock.sendall(head(code, extra + list(headers))
                     + (b"" if request.method == "HEAD" else body))
        return True
    return act


def status(code, headers=(), body=b"no"):
    return reply(body, code, headers)


def echo(sock, request):
    """What came, as JSON."""
    import json
    body = json.dumps({
        "method": request.method, "target": request.target,
        "headers": request.headers, "body": request.body.decode("latin-1"),
    }).encode()
    return reply(body, type="application/json")(sock, request)


def raw(data, keep=False):
    """These very bytes, then the end of the connection."""
    def act(sock, request):
        sock.sendall(data)
        return keep
    return act


def cut(action, k):
    """action, but the connection ends after k bytes of the reply."""
    class Short:
        left = k

        def __init__(self, sock):
            self.sock = sock

        def sendall(self, data):
            self.sock.sendall(data[:self.left])
            self.left -= min(len(data), self.left)

    def act(sock, request):
        action(Short(sock), request)
        return False
    return act


def reset(sock, request):
    """RST instead of a reply."""
    resets(sock)
    return False


def close(sock, request):
    return False


def stall(seconds, data=b""):
    """data, then nothing for a while."""
    def act(sock, request):
        sock.sendall(data)
        time.sleep(seconds)
        return False
    return act


def drip(body, pause):
    """One byte at a time."""
    def act(sock, request):
        sock.sendall(head(200, [("Content-Length", str(len(body)))]))
        for i in range(len(body)):
            sock.sendall(body[i:i + 1])
            time.sleep(pause)
        return True
    return act


def redirect(to, code=302):
    return reply(b"", code, [("Location", to)])


def chunked(body, size=100, last=True):
    def act(sock, request):
        out = head(200, [("Transfer-Encoding", "chunked")])
        for i in range(0, len(body), size):
            part = body[i:i + size]
            out += b"%x\r\n%s\r\n" % (len(part), part)
        sock.sendall(out + (b"0\r\n\r\n" if last else b""))
        return last
    return act


def gzipped(body, keep=1.0, length=True):
    """body compressed; only a part of the compressed bytes when keep < 1, with
    the length of that part, or none."""
    def act(sock, request):
        data = gzip.compress(body)
        data = data[:int(len(data) * keep)]
        headers = [("Content-Encoding", "gzip"), ("Content-Type", "text/plain")]
        if length:
            headers.append(("Content-Length", str(len(data))))
        sock.sendall(head(200, headers) + data)
        return length
    return act


def bomb(megabytes):
    """Zeroes that unpack to this much, a thousandth on the wire."""
    data = gzip.compress(bytes(megabytes << 20), 9)

    def act(sock, request):
        sock.sendall(head(200, [("Content-Encoding", "gzip"),
                                ("Content-Length", str(len(data)))]) + data)
        return True
    return act


def endless(sock, request):
    sock.sendall(head(200, [("Content-Type", "application/octet-stream")]))
    block = bytes(1 << 16)
    while True:
        sock.sendall(block)


class FaultServer(Loopback):
    def __init__(self, tls=None):
        super().__init__()
        self.rules, self.seen, self.tls = {}, [], tls

    def on(self, path, *actions):
        self.rules[path] = list(actions)
        return self.url(path)

    def url(self, path="/"):
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}{path}"

    def serve(self, sock):
        if self.tls:
            sock = self.tls.wrap_socket(sock, server_side=True)
        stream = sock.makefile("rb")
        try:
            while self.one(sock, stream):
                pass
        finally:
            # makefile holds the socket open: end it by hand, unless a reset
            # was asked for, which close() sends
            try:
                stream.close()
            except OSError:
                pass
            sock.close()

    def one(self, sock, stream):
        line = stream.readline()
        if not line:
            return False
        method, target, _ = line.decode("latin-1").split(" ", 2)
        headers, length = [], 0
        while (line := stream.readline().rstrip(b"\r\n")):
            key, _, value = line.decode("latin-1").partition(":")
            headers.append((key, value.strip()))
            if key.lower() == "content-length":
                length = int(value)
            if key.lower() == "expect":
                sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        request = Request(method, target, headers, stream.read(length))
        with self.lock:
            self.seen.append(request)
            rules = self.rules.get(request.path, [status(404)])
            action = rules.pop(0) if len(rules) > 1 else rules[0]
        return action(sock, request)
