# SPDX-License-Identifier: MIT
"""nats-server on 127.0.0.1, and what it takes to log in to one.

The server is Debian's, with CHOIR_NATS_FULL=1 the newest release, installed as
a Go module into build/servers; CHOIR_TEST_NATS_SERVER names another. It is
stopped by its own process id.
"""
import base64
import fcntl
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time

from go_program import go_program

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULE = "github.com/nats-io/nats-server/v2@latest"
FULL = os.environ.get("CHOIR_NATS_FULL") == "1"
GIVEN = os.environ.get("CHOIR_TEST_NATS_SERVER")


def program():
    """The server's path, or None when it cannot be had here."""
    return (GIVEN or FULL and go_program("nats-server", MODULE)
            or shutil.which("nats-server")
            or shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin"))


class Nats:
    """A server with JetStream in folder. config: more lines of its file;
    websocket: those of that block, at the port .ws."""

    def __init__(self, folder, config="", binary=None, port=None,
                 websocket=None):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.binary = binary or program()
        with socket.create_server(("127.0.0.1", 0)) as s, \
                socket.create_server(("127.0.0.1", 0)) as t:
            port, self.ws = port or s.getsockname()[1], t.getsockname()[1]
        if websocket is not None:
            config += (f'websocket {{ listen: "127.0.0.1:{self.ws}",'
                       f" {websocket} }}\n")
        self.port = port
        self.url = f"nats://127.0.0.1:{port}"
        (self.folder / "conf").write_text(
            f'listen: "127.0.0.1:{port}"\n'
            f'jetstream {{ store_dir: "{self.folder}/js" }}\n' + config)
        self.process = None
        self.start()

    def start(self):
        self.log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(
            [self.binary, "-c", str(self.folder / "conf")], stdout=self.log,
            stderr=self.log)
        mark = (self.folder / "log").stat().st_size
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()[mark:])
                time.sleep(0.025)
        raise RuntimeError("nats-server does not answer")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)
        self.log.close()


# ---------------------------------------------------------------- nkeys, JWT

def crc16(data):
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def base32(data):
    data += crc16(data).to_bytes(2, "little")
    return base64.b32encode(data).decode().rstrip("=")


class Key:
    """An nkey: kind is O (operator), A (account) or U (user)."""

    def __init__(self, kind):
        from cryptography.hazmat.primitives.asymmetric import ed25519
        from cryptography.hazmat.primitives import serialization as s
        self.prefix = {"O": 14 << 3, "A": 0, "U": 20 << 3}[kind]
        self.private = ed25519.Ed25519PrivateKey.generate()
        raw = self.private.private_bytes(s.Encoding.Raw, s.PrivateFormat.Raw,
                                         s.NoEncryption())
        public = self.private.public_key().public_bytes(
            s.Encoding.Raw, s.PublicFormat.Raw)
        first = 18 << 3 | self.prefix >> 5
        self.seed = base32(bytes([first, (self.prefix & 31) << 3]) + raw)
        self.public = base32(bytes([self.prefix]) + public)

    def jwt(self, subject, name, kind, body):
        """A claim about subject, signed by this key."""
        import hashlib

        def part(data):
            return base64.urlsafe_b64encode(data).decode().rstrip("=")
        claim = {"jti": "", "iat": int(time.time()), "iss": self.public,
                 "name": name, "sub": subject,
                 "nats": dict(body, type=kind, version=2)}
        claim["jti"] = base64.b32encode(hashlib.sha256(
            json.dumps(claim).encode()).digest()).decode().rstrip("=")
        head = part(b'{"typ":"JWT","alg":"ed25519-nkey"}')
        text = head + "." + part(json.dumps(claim).encode())
        return text + "." + part(self.private.sign(text.encode()))


LIMITS = {"subs": -1, "data": -1, "payload": -1}


def operator():
    """(lines for the server's file, text of a .creds file)."""
    op, account, user, system = Key("O"), Key("A"), Key("U"), Key("A")
    limits = {"limits": dict(LIMITS, imports=-1, exports=-1, wildcards=True,
                             conn=-1, leaf=-1, mem_storage=-1,
                             disk_storage=-1, streams=-1, consumer=-1)}
    config = "\n".join([
        "operator: " + op.jwt(op.public, "op", "operator", {}),
        "system_account: " + system.public,
        "resolver: MEMORY", "resolver_preload: {",
        f"  {account.public}: "
        + op.jwt(account.public, "account", "account", limits),
        f"  {system.public}: "
        + op.jwt(system.public, "system", "account",
                 {"limits": dict(LIMITS, imports=-1, exports=-1,
                                 wildcards=True, conn=-1, leaf=-1)}), "}\n"])
    jwt = account.jwt(user.public, "user", "user", dict(LIMITS))
    creds = (f"-----BEGIN NATS USER JWT-----\n{jwt}\n"
             "------END NATS USER JWT------\n\n"
             "************************* IMPORTANT *************************\n\n"
             f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n"
             "------END USER NKEY SEED------\n")
    return config, creds


def oracle():
    """tests/nats/oracle.c, built against nats.c (libnats-dev)."""
    folder = ROOT / "build/servers"
    folder.mkdir(parents=True, exist_ok=True)
    source, path = ROOT / "tests/nats/oracle.c", folder / "nats-oracle"
    with open(folder / "nats.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists() or (path.stat().st_mtime
                                 < source.stat().st_mtime):
            subprocess.run(["gcc", "-O2", "-Wall", "-o", path, source,
                            "-lnats"], check=True)
    return str(path)
