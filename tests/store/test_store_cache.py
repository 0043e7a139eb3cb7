# SPDX-License-Identifier: MIT
"""The cache: types, age, size, hits."""

import pytest


@pytest.mark.parametrize("value", [1, 2**62, 1.5, "text", "", b"\0\1", b"", '{"a":1}'])
def test_a_value_keeps_its_type(db, value):
    assert db.one("SELECT cache_set('k', ?)", value) == 1
    got = db.one("SELECT cache_get('k')")
    assert got == value and type(got) is type(value)


def test_values_expire_after_their_time(db):
    db.one("SELECT cache_set('short', 1, 30000), cache_set('long', 2), cache_set('ever', 3, NULL)")
    assert db.rows("SELECT cache_get('short'), cache_get('long'), cache_get('ever')") == [(1, 2, 3)]
    assert db.rows("SELECT key, expires_at - timestamp FROM server_cache ORDER BY key") == [
        ("ever", None), ("long", 300000), ("short", 30000)]
    db.run("UPDATE server_cache SET timestamp = timestamp - 60000,"
           " expires_at = expires_at - 60000 WHERE key = 'short'")
    assert db.rows("SELECT cache_get('short'), cache_get('long'), cache_get('ever')") == [(None, 2, 3)]
    assert db.one("SELECT cache_purge()") == 1
    assert db.rows("SELECT key FROM server_cache ORDER BY key") == [("ever",), ("long",)]


def test_the_reader_may_ask_for_a_younger_value(db):
    db.one("SELECT cache_set('k', 1)")
    db.run("UPDATE server_cache SET timestamp = timestamp - 5000")
    assert db.rows("SELECT cache_get('k', 4000), cache_get('k', 60000), cache_get('k', NULL)") == [
        (None, 1, 1)]


def test_null_removes_and_a_pattern_purges(db):
    for key in ("a/1", "a/2", "b[1]"):
        db.one("SELECT cache_set(?, 1)", key)
    assert db.one("SELECT cache_set('a/1', NULL)") == 1
    assert db.one("SELECT cache_set('a/1', NULL)") == 0
    assert db.one("SELECT cache_purge('a/*')") == 1
    assert db.one("SELECT cache_purge('*')") == 1


def size(db):
    return db.one("SELECT coalesce(sum(length(CAST(key AS BLOB)) + length(CAST(value AS BLOB))), 0)"
                  " FROM server_cache")


def test_the_cache_never_grows_over_its_limit_and_keeps_what_is_used(db):
    db.one("SELECT choir_config('cache.max_bytes', '20000')")
    for i in range(200):
        db.one("SELECT cache_set(?, printf('%.*c', ?, 'x'), NULL)", f"k{i}", 100 + i % 7 * 50)
        assert db.one("SELECT cache_get('k0')") is not None
        assert size(db) <= 20000
    assert size(db) > 15000
    assert db.one("SELECT cache_get('k1')") is None
    assert db.one("SELECT hits FROM server_cache WHERE key = 'k0'") >= 150


def test_what_is_larger_than_the_cache_is_refused(db):
    db.one("SELECT choir_config('cache.max_bytes', '100')")
    assert db.error("SELECT cache_set('k', zeroblob(100))") == (
        "cache_set: key and value have 101 bytes, cache.max_bytes is 100")
    assert db.one("SELECT cache_set('k', zeroblob(99))") == 1
    db.one("SELECT choir_config('cache.max_bytes', '0')")
    assert db.one("SELECT cache_set('big', zeroblob(1000))") == 1


def test_hits_and_misses_are_counted(db):
    db.one("SELECT cache_set('k', 1)")
    for _ in range(3):
        db.one("SELECT cache_get('k')")
    db.one("SELECT cache_get('none')")
    got = dict(db.rows("SELECT name, value FROM choir_metrics WHERE name GLOB 'cache.*'"))
    assert got == {"cache.hits": 3, "cache.misses": 1}
    assert db.one("SELECT hits FROM server_cache") == 0  # reading writes nothing
    db.one("SELECT cache_purge()")
    assert db.rows("SELECT hits, used_at >= timestamp FROM server_cache") == [(3, 1)]


@pytest.mark.parametrize("call, problem", [
    ("cache_get('')", "key must have 1 to 1000 bytes, got 0"),
    ("cache_get(NULL)", "key must be text, got null"),
    ("cache_get('k', -1)", "max_age_ms must be 0 to 3162240000000, got -1"),
    ("cache_get('k', 'x')", "max_age_ms must be an integer, got text"),
    ("cache_set('k', 1, 0)", "ttl_ms must be 1 to 3162240000000, got 0"),
    ("cache_set(x'00', 1)", "key must be text, got blob"),
    ("cache_purge(5)", "glob must be text, got integer"),
])
def test_what_is_refused(db, call, problem):
    assert db.error("SELECT " + call) == f"{call.split('(')[0]}: {problem}"
    assert db.one("SELECT count(*) FROM server_cache") == 0
