#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that a record was sealed, without choir and without SQLite's file.

    check_proof.py RECORD.json PROOF.json [SEALS.json [HEAD]]

RECORD  [seq, id, timestamp, action_type, payload, tbl, pk] of action_log, a
        blob as {"blob": hex}, an integral real as {"real": text}
PROOF   what log_prove(seq) gave
SEALS   rows of _choir_seal up to the proof's batch or later, as
        [[batch, first, last, records, time, root hex, head hex], ...], to check
        the chain as well; HEAD the one that somebody kept

The rules are RFC 6962's and those of docs/formats.md, "Seals".
"""
import base64
import hashlib
import json
import struct
import sys


def value(v):
    if v is None:
        return b"\0"
    if isinstance(v, dict):
        kind, text = next(iter(v.items()))
        v = bytes.fromhex(text) if kind == "blob" else float(text)
    if isinstance(v, bool) or isinstance(v, int):
        return b"\1" + struct.pack(">q", v)
    if isinstance(v, float):
        return b"\2" + struct.pack(">d", v)
    data = v.encode() if isinstance(v, str) else v
    return (b"\3" if isinstance(v, str) else b"\4") + struct.pack(
        ">Q", len(data)) + data


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def root(record, proof):
    """RFC 6962, 2.1.1: the root that leaf and audit path lead to."""
    h = sha(b"\0", *map(value, record))
    path = base64.b64decode(proof["path"])
    path = [path[i:i + 32] for i in range(0, len(path), 32)]
    index, last = proof["index"], proof["size"] - 1
    if not 0 <= index <= last:
        raise ValueError("index is outside the batch")
    for other in path:
        if last == 0:
            raise ValueError("the path is too long")
        if index & 1 or index == last:
            h = sha(b"\1", other, h)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            h = sha(b"\1", h, other)
        index, last = index >> 1, last >> 1
    if last:
        raise ValueError("the path is too short")
    return h


def head(previous, seal):
    batch, first, last, records, time, root_hex, _ = seal
    return sha(b"choir seal 1", previous,
               struct.pack(">qqqqq", batch, first, last, records, time),
               bytes.fromhex(root_hex))


def check(record, proof, seals=None, want=None):
    if root(record, proof) != base64.b64decode(proof["root"]):
        raise ValueError("the record is not the one that was sealed")
    if seals is None:
        return
    heads, roots, previous = [], {}, bytes(32)
    for seal in seals:
        previous = head(previous, seal)
        if previous.hex() != seal[6].lower():
            raise ValueError(f"the chain does not hold at batch {seal[0]}")
        heads.append(previous.hex())
        roots[seal[0]] = bytes.fromhex(seal[5])
    if roots.get(proof["batch"]) != base64.b64decode(proof["root"]):
        raise ValueError("the proof's root is not that of its batch")
    if want and want.lower() not in heads:
        raise ValueError("no seal has the head that was kept")


def main():
    if len(sys.argv) < 3:
        print(__doc__.strip())
        return 2
    read = [json.load(open(name)) for name in sys.argv[1:4]]
    try:
        check(*read, *([sys.argv[4]] if len(sys.argv) > 4 else []))
    except ValueError as e:
        print(f"not proven: {e}")
        return 1
    print("proven")
    return 0


if __name__ == "__main__":
    sys.exit(main())
