# SPDX-License-Identifier: MIT
"""What the servers of these tests have in common: a listener on 127.0.0.1 and
a thread for each connection."""
import socket
import struct
import threading


def resets(sock):
    """close() will send RST: nobody waits for the rest."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                    struct.pack("ii", 1, 0))


class Loopback:
    """serve(sock) of a subclass has a connection until it returns or fails.
    Leaving `with` ends all of them: who waits for a next request wakes."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.lock, self.open, self.connections = threading.Lock(), set(), 0

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self.listener.close()
        with self.lock:
            for sock in self.open:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.handle, args=(sock,),
                             daemon=True).start()

    def handle(self, sock):
        with self.lock:
            self.open.add(sock)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.serve(sock)
        except (OSError, ValueError):
            pass
        finally:
            with self.lock:
                self.open.discard(sock)
            sock.close()
