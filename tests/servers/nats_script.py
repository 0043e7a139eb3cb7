# SPDX-License-Identifier: MIT
"""A NATS server that goes wrong as it is told.

  with ScriptedNats(talk) as s: …     s.url

Each connection runs talk(peer): peer.hello() does the opening of a good server
(INFO, CONNECT, PING), peer.line() reads a line of the client, peer.request()
the next PUB or HPUB as (subject, reply, header, body), peer.send(bytes).
"""
import json
import socket

from loopback import Loopback, resets

INFO = {"server_id": "SCRIPT", "version": "2.9.10", "max_payload": 1048576,
        "headers": True, "jetstream": True, "proto": 1}


class Peer:
    def __init__(self, sock):
        self.sock, self.stream = sock, sock.makefile("rb")

    def send(self, data):
        self.sock.sendall(data)

    def line(self):
        line = self.stream.readline()
        if not line:
            raise ConnectionError
        return line.rstrip(b"\r\n")

    def info(self, **more):
        self.send(b"INFO " + json.dumps({**INFO, **more}).encode() + b"\r\n")

    def hello(self, **more):
        self.info(**more)
        while True:
            line = self.line()
            if line.startswith(b"CONNECT"):
                self.connect = json.loads(line[8:])
            if line == b"PING":
                return self.send(b"PONG\r\n")

    def request(self):
        while True:
            word = self.line().split()
            if word[0] == b"PING":
                self.send(b"PONG\r\n")
            elif word[0] in (b"PUB", b"HPUB"):
                data = self.stream.read(int(word[-1]) + 2)[:-2]
                at = int(word[-2]) if word[0] == b"HPUB" else 0
                reply = word[2] if len(word) == (5 if at else 4) else b""
                return word[1], reply, data[:at], data[at:]

    def answer(self, reply, body, sid=1):
        self.send(b"MSG %s %d %d\r\n%s\r\n" % (reply, sid, len(body), body))

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        resets(self.sock)

    def wait(self):
        """Until the client goes."""
        while self.stream.read(1):
            pass


class ScriptedNats(Loopback):
    def __init__(self, talk):
        super().__init__()
        self.talk = talk
        self.url = f"nats://127.0.0.1:{self.port}"

    def serve(self, sock):
        peer = Peer(sock)
        try:
            self.talk(peer)
        finally:
            peer.stream.close()
