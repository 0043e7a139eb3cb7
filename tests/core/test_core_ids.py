# SPDX-License-Identifier: MIT
"""UUIDs are well formed, never repeat, and version 7 sorts by its time."""
import re
import time

N = 100_000
SERIES = (f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
          f" WHERE i < {N}) SELECT count(DISTINCT %s) FROM n")


def test_uuid4_has_its_version_and_variant(db):
    for _ in range(100):
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-"
                            r"[89ab][0-9a-f]{3}-[0-9a-f]{12}",
                            db.one("SELECT choir_uuid4()"))


def test_uuid7_has_its_version_and_variant_and_the_time(db):
    before = time.time_ns() // 1_000_000
    z = db.one("SELECT choir_uuid7()")
    after = time.time_ns() // 1_000_000
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-"
                        r"[89ab][0-9a-f]{3}-[0-9a-f]{12}", z)
    assert before <= int(z.replace("-", "")[:12], 16) <= after


def test_a_hundred_thousand_of_each_are_all_different(db):
    for name in ("choir_uuid4", "choir_uuid7"):
        assert db.one(SERIES % f"{name}()") == N


def test_uuid7_made_a_few_milliseconds_apart_sort_by_time(db):
    made = []
    for _ in range(20):
        made.append(db.one("SELECT choir_uuid7()"))
        time.sleep(0.002)
    assert made == sorted(made)


def test_uuids_are_made_anew_for_every_row(db):
    assert db.one("SELECT count(DISTINCT choir_uuid7()) FROM"
                  " (VALUES(1), (2), (3))") == 3
