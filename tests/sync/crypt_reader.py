# SPDX-License-Identifier: MIT
"""Encrypted objects of a folder remote read by docs/formats.md alone, with
nothing of choir: python3-cryptography's HMAC, scrypt and AES-GCM."""
import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

HEAD, FIRST, CHUNK, TAG = 192, 100, 16384, 16


def mac(key, *parts):
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


class Head:
    def __init__(self, data):
        assert data[:8] == b"choirenc" and data[8] == 1
        self.raw = data[:HEAD]
        self.stretch, self.level = data[9], data[10]
        self.first, self.last = struct.unpack(">QQ", data[16:32])
        self.key_id, self.key_salt = data[32:40], data[40:56]
        self.lineage, self.user = data[56:72], data[72:88]
        self.salt, self.before, self.after = (data[88:120], data[120:152],
                                              data[152:184])


def master(data, key=None, passphrase=None):
    if passphrase is not None:
        assert data[9] == 17
        key = Scrypt(salt=data[40:56], length=32, n=2 ** 17, r=8, p=1).derive(
            passphrase.encode())
    return key


def link(data):
    """Of a push: its head and the tag of its chunk 0."""
    h = Head(data)
    if h.level:
        return h.after
    end = min(len(data), HEAD + FIRST + TAG)
    return hashlib.sha256(data[:HEAD] + data[end - TAG:end]).digest()


def decrypt(data, key, user=""):
    """(Head, content); raises when anything does not authenticate."""
    h = Head(data)
    assert mac(key, b"choir sync key")[:8] == h.key_id
    assert mac(key, b"choir sync user ", user.encode())[:16] == h.user
    aead = AESGCM(mac(mac(h.salt, key), b"choir sync object\1"))
    out, at, n = b"", HEAD, 0
    while True:
        end = min(len(data), at + (CHUNK if n else FIRST) + TAG)
        last = end == len(data)
        nonce = bytes(3) + struct.pack(">QB", n, last)
        out += aead.decrypt(nonce, data[at:end], h.raw)
        at, n = end, n + 1
        if last:
            return h, out
