# SPDX-License-Identifier: MIT
"""choir_sha256 is SHA-256: of every length around the block, of a large value,
of every type. (tests/unit/core_test.c compares its two implementations.)"""
import hashlib
import random


def sha(data):
    return hashlib.sha256(data).hexdigest()


def test_every_length_from_0_to_300(db):
    data = random.Random(1).randbytes(300)
    for n in range(301):
        assert db.one("SELECT choir_sha256(?)", data[:n]) == sha(data[:n]), n


def test_a_large_value(db):
    assert db.one("SELECT choir_sha256(zeroblob(5000003))") == \
        sha(bytes(5000003))


def test_text_and_numbers_are_hashed_as_their_text(db):
    assert db.one("SELECT choir_sha256('é\U0001f642')") == \
        sha("é\U0001f642".encode())
    assert db.one("SELECT choir_sha256(-17)") == sha(b"-17")
    assert db.one("SELECT choir_sha256(1.5)") == sha(b"1.5")
    assert db.one("SELECT choir_sha256(CAST(x'610062' AS TEXT))") == sha(b"a\0b")
    assert db.one("SELECT choir_sha256('')") == sha(b"")
    assert db.one("SELECT choir_sha256(NULL)") is None
