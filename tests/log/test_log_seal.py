# SPDX-License-Identifier: MIT
"""Seals: what was changed is found, what was not can be proven elsewhere."""
import base64
import json
import subprocess
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import check_proof  # noqa: E402

COLUMNS = "seq, id, timestamp, action_type, payload, tbl, pk"
SEALS = "SELECT batch, first, last, records, time, hex(root), hex(head)" \
    " FROM _choir_seal ORDER BY batch"


def verify(db, *head):
    return json.loads(db.one(f"SELECT log_verify({','.join('?' * len(head))})",
                             *head))


def seal(db):
    return json.loads(db.one("SELECT log_seal()"))


@pytest.fixture
def sealed(db):
    """Two batches with every type of key, three records unsealed."""
    db.run("CREATE TABLE t(k PRIMARY KEY NOT NULL, v) WITHOUT ROWID")
    db.one("SELECT log_track('t')")
    for k in ("1, 'i'", "2.5, 'r'", "'x', 't'", "x'00ff', 'b'", "9e999, 'inf'"):
        db.run(f"INSERT INTO t VALUES({k})")
    seal(db)
    db.run("INSERT INTO t SELECT 'k' || value, NULL"
           " FROM json_each('[1,2,3,4,5,6,7,8,9,10,11]')")
    db.one("SELECT log_record('RUN', '{\"label\":\"nightly\"}')")
    seal(db)
    db.run("UPDATE t SET v = 1 WHERE typeof(k) = 'real'; DELETE FROM t"
           " WHERE k = 'x'")
    return db


def test_a_sealed_log_verifies(sealed):
    said = verify(sealed)
    assert said["ok"] == 1 and said["problems"] == []
    assert (said["batches"], said["records"], said["unsealed"]) == (2, 17, 3)
    assert said["head"] == sealed.one(
        "SELECT lower(hex(head)) FROM _choir_seal WHERE batch = 2")


def test_publishing_does_not_break_a_seal(sealed):
    sealed.run("UPDATE action_log SET synced = 1")
    assert verify(sealed)["ok"] == 1


@pytest.mark.parametrize("change", [
    "UPDATE action_log SET payload = '{}' WHERE action_type = 'RUN'",
    "UPDATE action_log SET payload = payload || ' ' WHERE seq = 3",
    "UPDATE action_log SET payload = CAST(payload AS BLOB) WHERE seq = 3",
    "UPDATE action_log SET timestamp = timestamp + 1 WHERE seq = 3",
    "UPDATE action_log SET id = upper(id) WHERE seq = 3",
    "UPDATE action_log SET action_type = 'ROW_DELETE' WHERE seq = 3",
    "UPDATE action_log SET tbl = 'T' WHERE seq = 3",
    "UPDATE action_log SET tbl = NULL WHERE seq = 3",
    "UPDATE action_log SET pk = 1.0 WHERE seq = 1",
    "UPDATE action_log SET pk = '1' WHERE seq = 1",
    "UPDATE action_log SET pk = x'00fe' WHERE typeof(pk) = 'blob'",
    "UPDATE action_log SET seq = 1000 WHERE seq = 17",
    "UPDATE action_log SET seq = -3 WHERE seq = 3",
    "DELETE FROM action_log WHERE seq = 1",
    "DELETE FROM action_log WHERE seq = 17",
    "DELETE FROM action_log WHERE seq < 6",
    "INSERT INTO action_log(action_type, seq) VALUES('A', -1)",
    "UPDATE _choir_seal SET time = time + 1 WHERE batch = 1",
    "UPDATE _choir_seal SET root = randomblob(32) WHERE batch = 2",
    "UPDATE _choir_seal SET head = randomblob(32) WHERE batch = 1",
    "UPDATE _choir_seal SET head = randomblob(32) WHERE batch = 2",
    "UPDATE _choir_seal SET head = x'' WHERE batch = 2",
    "UPDATE _choir_seal SET records = 4 WHERE batch = 1",
    "DELETE FROM _choir_seal WHERE batch = 1",
    "UPDATE _choir_seal SET batch = 3 WHERE batch = 2",
])
def test_whatever_is_changed_is_found(change, sealed):
    sealed.run(change)
    said = verify(sealed)
    assert said["ok"] == 0 and said["problems"], change


@pytest.mark.parametrize("column", ["batch", "first", "last", "records"])
@pytest.mark.parametrize("value", [2 ** 63 - 1, -2 ** 63])
def test_numbers_that_would_overflow_are_damage(column, value, sealed):
    sealed.run(f"UPDATE _choir_seal SET {column} = {value} WHERE batch = 2")
    assert "the seal is damaged" in [p["problem"] for p in
                                     verify(sealed)["problems"]]
    if column != "batch" or value > 0:  # or it is not the last one any more
        assert "is damaged; select log_verify()" in sealed.error(
            "SELECT log_seal()")


def test_every_single_byte_counts(db):
    for i in range(5):
        db.one("SELECT log_record('A', '{\"n\":%d}')" % i)
    seal(db)
    for column in ("id", "action_type", "payload"):
        before = db.one(f"SELECT {column} FROM action_log WHERE seq = 3")
        for i in range(len(before)):
            other = before[:i] + chr(ord(before[i]) ^ 1) + before[i + 1:]
            db.rows(f"UPDATE action_log SET {column} = ? WHERE seq = 3", other)
            assert verify(db)["problems"] == [
                {"batch": 1, "problem": "a record was changed"}], (column, i)
        db.rows(f"UPDATE action_log SET {column} = ? WHERE seq = 3", before)
    assert verify(db)["ok"] == 1


def test_a_log_made_anew_is_found_by_a_head_kept_elsewhere(sealed):
    kept = verify(sealed)["head"]
    assert verify(sealed, kept)["ok"] == 1
    sealed.run("UPDATE action_log SET payload = '{}'; DELETE FROM _choir_seal")
    seal(sealed)
    assert verify(sealed)["ok"] == 1
    assert verify(sealed, kept)["problems"][0]["problem"] == (
        "no seal has the head asked for")
    assert sealed.error("SELECT log_verify('abc')") == (
        "log_verify: head must be 64 hexadecimal digits, got 'abc'")


def test_proofs_are_checked_without_choir(sealed, tmp_path):
    seals = [list(r) for r in sealed.rows(SEALS)]
    for seq in range(1, 18):
        record = list(sealed.rows(
            f"SELECT {COLUMNS} FROM action_log WHERE seq = ?", seq)[0])
        proof = json.loads(sealed.one("SELECT log_prove(?)", seq))
        check_proof.check(record, proof, seals, seals[-1][6])
        with pytest.raises(ValueError):
            check_proof.check(record[:6] + ["no"], proof)
        if proof["path"]:
            path = bytearray(base64.b64decode(proof["path"]))
            path[0] ^= 1
            with pytest.raises(ValueError):
                check_proof.check(record, dict(
                    proof, path=base64.b64encode(path).decode()))
        if seq == 7:  # and as a program
            for name, what in (("r", record), ("p", proof), ("s", seals)):
                (tmp_path / name).write_text(json.dumps(what))
            tool = [sys.executable, ROOT / "tools/check_proof.py"]
            files = [tmp_path / name for name in "rps"]
            assert subprocess.run(tool + files, capture_output=True,
                                  text=True).stdout == "proven\n"
            files[0].write_text(json.dumps(record[:4] + ["{ }"] + record[5:]))
            assert subprocess.run(tool + files, capture_output=True
                                  ).returncode == 1


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 9, 31, 33, 64, 100])
def test_a_tree_of_any_size_gives_proofs(size, db):
    db.run("WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE"
           f" i < {size}) INSERT INTO action_log(action_type) SELECT 'A' FROM n")
    seal(db)
    for seq in range(1, size + 1):
        record = db.rows(f"SELECT {COLUMNS} FROM action_log WHERE seq = ?",
                         seq)[0]
        proof = json.loads(db.one("SELECT log_prove(?)", seq))
        assert (proof["index"], proof["size"]) == (seq - 1, size)
        check_proof.check(list(record), proof)


def test_what_cannot_be_proven_says_so(sealed):
    assert sealed.error("SELECT log_prove(18)") == (
        "log_prove: record 18 is not sealed")
    assert sealed.error("SELECT log_prove(NULL)").startswith(
        "log_prove: seq must be")
    sealed.run("UPDATE action_log SET payload = '{}' WHERE seq = 16;"
               "DELETE FROM action_log WHERE seq = 7")
    assert sealed.error("SELECT log_prove(16)") == (
        "log_prove: batch 2 no longer matches its seal; select log_verify()")
    assert sealed.error("SELECT log_prove(7)") == (
        "log_prove: there is no record 7 in the log")


def test_an_empty_log_has_nothing_to_seal(db):
    assert seal(db) == {"batch": 0, "records": 0, "head": None}
    assert verify(db) == {"ok": 1, "head": None, "batches": 0, "records": 0,
                          "pruned": 0, "unsealed": 0, "problems": []}


def test_pruning_takes_whole_batches_and_leaves_the_chain(sealed):
    said = json.loads(sealed.one("SELECT log_prove(6)"))
    pruned = json.loads(sealed.one("SELECT log_prune(99999999999999, 'all')"))
    assert (pruned["removed"], pruned["up_to"]) == (17, 17)
    assert pruned["held_by"] == "seals: a batch goes as a whole"
    assert said["batch"] == 2
    after = verify(sealed)
    assert (after["ok"], after["pruned"], after["unsealed"]) == (1, 17, 3)
