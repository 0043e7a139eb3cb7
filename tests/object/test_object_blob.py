# SPDX-License-Identifier: MIT
"""A store as a table: s3_list, s3_blob, and a TEMP table that can be written.
What is pushed to the store is seen in what it is asked."""
import json
import random
import urllib.parse

import pytest

KEYS = ["a", "b/1", "b/2", "b/3", "b/30", "b0", "c", "c.sqlite", "d.sqlite",
        "ä/ö", "日本", "z"]


@pytest.fixture
def table(store):
    """(db, root) with KEYS, each holding its own name, and temp.t over it."""
    db, root = store
    for key in KEYS:
        name = urllib.parse.quote(key) if root.startswith("file") else key
        if root.startswith("file") and key == "ä/ö":
            continue
        db.one("SELECT s3_put(?, ?)", root + name, key)
    db.run(f"CREATE VIRTUAL TABLE temp.t USING s3_blob('{root}')")
    return db, root


def listed(root):
    return sorted((k for k in KEYS if not (root.startswith("file") and
                                           k == "ä/ö")), key=str.encode)


CONDITIONS = [
    "key = 'b/2'", "key = 'nothing'", "key IN ('c', 'a', 'x')", "key = NULL",
    "key > 'b/2'", "key >= 'b/2'", "key < 'b/2'", "key <= 'b/2'",
    "key BETWEEN 'b/1' AND 'b/3'", "key BETWEEN 'b/3' AND 'b/1'",
    "key > 'b/' AND key < 'b0'", "key GLOB 'b/*'", "key GLOB '*.sqlite'",
    "key GLOB 'b/3*' AND key > 'b/3'", "key GLOB '[cd].*'", "key LIKE 'B/%'",
    "key >= '日' AND key < '月'", "key >= 'ä'", "key > 5", "key = 5",
    "key < 5", "key > x'00'", "key = 'C' COLLATE NOCASE", "key = CAST('c' AS BLOB)",
    "key GLOB 'b*' OR key = 'z'", "size = 1", "key > 'b' AND size > 1",
    "key = 'a' AND key > 'b'", "key GLOB 'b*' AND key GLOB 'c*'",
    "key > (SELECT 'c')", "key >= 'c' AND key >= 'b' AND key <= 'z' AND key < 'z'",
]


@pytest.mark.rights
def test_a_condition_gives_what_a_plain_table_would(table, request):
    db, root = table
    ceph = request.node.callspec.params["store"] == "rgw"  # lists slowly
    db.run("CREATE TEMP TABLE plain(key, size)")
    db.run("CREATE TEMP TABLE plain_text(key TEXT, size INTEGER)")
    for k in listed(root):
        for name in ("plain", "plain_text"):
            db.rows(f"INSERT INTO {name} VALUES(?, ?)", k, len(k.encode()))
    for where in CONDITIONS[::4] if ceph else CONDITIONS:
        for tail in ("ORDER BY key", "ORDER BY key DESC LIMIT 3",
                     "ORDER BY key LIMIT 2 OFFSET 1"):
            def rows(source, *params):
                return db.rows(f"SELECT key, size FROM {source} WHERE {where}"
                               f" {tail}", *params)
            assert rows("s3_blob(?)", root) == rows("plain"), (where, tail)
            assert rows("t") == rows("plain_text"), (where, tail)


@pytest.mark.rights
def test_content_belongs_to_its_row(table):
    db, root = table
    for sql in ("SELECT key, CAST(content AS TEXT) FROM s3_blob(?)",
                "SELECT key, CAST(content AS TEXT) FROM s3_blob(?)"
                " WHERE key IN ('a', 'b/1', 'b/2', '日本')"):
        rows = db.rows(sql, root)
        assert rows and all(k == c for k, c in rows)
    assert db.rows("SELECT key, size, length(content), content FROM t"
                   " WHERE key = 'b/30'") == [("b/30", 4, 4, b"b/30")]


def test_a_join_asks_for_each_key(table):
    db, _ = table
    db.run("CREATE TABLE want(k)")
    db.run("INSERT INTO want VALUES('a'), ('none'), ('z')")
    assert db.rows("SELECT k, size FROM want JOIN t ON key = k ORDER BY k"
                   ) == [("a", 1), ("z", 1)]
    assert db.rows("SELECT k, size FROM want LEFT JOIN t ON key = k ORDER BY k"
                   ) == [("a", 1), ("none", None), ("z", 1)]


@pytest.mark.rights
def test_insert_update_delete(table):
    db, root = table
    db.run("INSERT INTO t(key, content) VALUES('new', 'one'), ('newer', x'00')")
    assert db.one("SELECT s3_get(?)", root + "new") == b"one"
    assert "there is an object 'new' already" in db.error(
        "INSERT INTO t(key, content) VALUES('new', 'two')")
    db.run("INSERT OR IGNORE INTO t(key, content) VALUES('new', 'three')")
    assert db.one("SELECT s3_get(?)", root + "new") == b"one"
    db.run("INSERT OR REPLACE INTO t(key, content) VALUES('new', 'four')")
    assert db.one("SELECT s3_get(?)", root + "new") == b"four"
    db.run("UPDATE t SET content = 'five' WHERE key = 'new'")
    assert db.one("SELECT s3_get(?)", root + "new") == b"five"
    db.run("UPDATE t SET key = 'moved' WHERE key = 'new'")
    assert db.one("SELECT s3_get(?)", root + "moved") == b"five"
    assert db.one("SELECT s3_head(?)", root + "new") is None
    assert "there is an object 'a' already" in db.error(
        "UPDATE t SET key = 'a' WHERE key = 'moved'")
    db.run("DELETE FROM t WHERE key GLOB 'moved*' OR key = 'newer'")
    assert [k for (k,) in db.rows("SELECT key FROM t")] == listed(root)


def test_a_row_that_changed_meanwhile_is_not_overwritten(table):
    db, root = table
    assert "'a' was changed meanwhile" in db.error(
        "UPDATE t SET content = s3_put(?1 || key, 'theirs') || 'mine'"
        " WHERE key = 'a'", root)
    assert db.one("SELECT s3_get(?)", root + "a") == b"theirs"


@pytest.mark.parametrize("store", ["file"], indirect=True)
@pytest.mark.parametrize("sql, message", [
    ("INSERT INTO t(key) VALUES('n')", "content must be blob or text"),
    ("INSERT INTO t(content) VALUES('n')", "key"),
    ("INSERT INTO t(key, content) VALUES('', 'x')", "the key is empty"),
    ("INSERT INTO t(key, content) VALUES('../x', 'x')", "'..'"),
    ("INSERT INTO t(key, content) VALUES(x'ff', 'x')", "key must be text"),
    ("INSERT INTO s3_blob VALUES('a', 1, 1, 1, 'x')", ""),
    ("UPDATE t SET size = 3 WHERE key = 'a'", "the store's to say"),
    ("UPDATE t SET key = 'n', content = 'x' WHERE key = 'a'", "at once"),
    ("UPDATE t SET content = NULL WHERE key = 'a'", "content must be"),
    ("CREATE VIRTUAL TABLE main.u USING s3_blob('file:///tmp/')", "temp."),
    ("CREATE VIRTUAL TABLE u USING s3_blob('file:///tmp/')", "temp."),
    ("CREATE VIRTUAL TABLE temp.u USING s3_blob()", "one argument"),
    ("CREATE VIRTUAL TABLE temp.u USING s3_blob('file:///tmp/x')", "end in '/'"),
    ("CREATE VIRTUAL TABLE temp.u USING s3_blob(root = 'file:///tmp/x')",
     "the root 'file:///tmp/x' must end in '/'"),
    ("CREATE VIRTUAL TABLE temp.u USING s3_blob('s3://k:canary@bucket/')",
     "credentials in a URL"),
    ("CREATE VIRTUAL TABLE temp.u USING s3_list('file:///tmp/')", ""),
    ("SELECT * FROM s3_blob", "needs at least 1 argument"),
    ("SELECT * FROM s3_blob(NULL)", "root must be text"),
    ("SELECT * FROM s3_blob('ftp://x/')", "no store has URLs of ftp:"),
])
def test_what_cannot_be_written_is_said(table, sql, message):
    db, root = table
    error = db.error(sql)
    assert message in error and "canary" not in error
    assert [k for (k,) in db.rows("SELECT key FROM t")] == listed(root)


def test_a_lock_ends_it(table):
    db, root = table
    db.one("SELECT choir_lock()")
    for sql in ("SELECT * FROM t", "SELECT * FROM s3_blob('" + root + "')",
                "INSERT INTO t(key, content) VALUES('n', 'x')"):
        assert "locked" in db.error(sql)


@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_a_file_cannot_bring_such_a_table(table, tmp_path, open_db):
    """A stored CREATE VIRTUAL TABLE connects to nothing."""
    import sqlite3
    db, root = table
    path = tmp_path / "evil.db"
    con = sqlite3.connect(path)
    con.execute("CREATE TABLE x(a)")
    con.execute("PRAGMA writable_schema = 1")
    con.execute("UPDATE sqlite_schema SET rootpage = 0, sql = ?",
                (f"CREATE VIRTUAL TABLE x USING s3_blob('{root}')",))
    con.commit()
    con.close()
    evil = open_db(path)
    for sql in ("SELECT * FROM x", "INSERT INTO x(key, content)"
                " VALUES('evil', 'x')", "DELETE FROM x", "DROP TABLE x"):
        evil.error(sql)
    assert [k for (k,) in db.rows("SELECT key FROM t")] == listed(root)


# ------------------------------------------------- what the store is asked

def asked(p, f):
    p.seen.clear()
    f()
    return [(m, urllib.parse.unquote(t.split("?")[0].rsplit("/", 1)[-1])
             if "list-type" not in t else
             {k: v for k, v in urllib.parse.parse_qsl(t.split("?")[1])
              if k in ("prefix", "start-after", "max-keys")})
            for m, t in p.seen]


@pytest.mark.net
def test_no_more_is_asked_than_is_wanted(proxy):
    db, root, p = proxy
    base = root.split("/", 3)[3]
    for key in ("a", "b/1", "b/2", "c"):
        db.one("SELECT s3_put(?, 'x')", root + key)

    def ask(sql):
        return asked(p, lambda: db.rows(
            f"SELECT {sql.replace('FROM T', 'FROM s3_blob(?)')}", root))
    assert ask("size FROM T WHERE key = 'a'") == [("HEAD", "a")]
    assert ask("content, size FROM T WHERE key = 'a'") == [("GET", "a")]
    assert ask("key FROM T WHERE key GLOB 'b/*'") == [
        ("GET", {"prefix": base + "b/"})]
    assert ask("key FROM T WHERE key > 'a' AND key < 'b/2'") == [
        ("GET", {"prefix": base, "start-after": base + "a"})]
    assert ask("key FROM T WHERE key >= 'b/1' AND key < 'b/2'") == [
        ("GET", {"prefix": base + "b/", "start-after": base + "b/0\U0010ffff"})]
    assert ask("key FROM T LIMIT 2") == [
        ("GET", {"prefix": base, "max-keys": "2"})]
    assert ask("key FROM T ORDER BY key LIMIT 1 OFFSET 1") == [
        ("GET", {"prefix": base, "max-keys": "2"})]
    assert ask("key FROM T WHERE size > 5 LIMIT 2") == [
        ("GET", {"prefix": base})]  # whose rows LIMIT does not count
    assert ask("key FROM T WHERE key GLOB 'a*' AND key > 'b'")[1:] == []
    assert ask("key FROM T WHERE key IN ('a', 'c')") == [
        ("HEAD", "a"), ("HEAD", "c")]
    assert ask("length(content), content, content FROM T WHERE size = 1"
               " ORDER BY key LIMIT 1")[1:] == [("GET", "a")]


@pytest.mark.net
def test_an_update_does_not_fetch_what_it_replaces(proxy):
    db, root, p = proxy
    db.one("SELECT s3_put(?, 'x')", root + "a")
    db.run(f"CREATE VIRTUAL TABLE temp.t USING s3_blob('{root}')")
    assert asked(p, lambda: db.run(
        "UPDATE t SET content = 'y' WHERE key = 'a'")) == [
        ("HEAD", "a"), ("PUT", "a")]
    assert [m for m, _ in asked(p, lambda: db.run(
        "DELETE FROM t WHERE key = 'a'"))] == ["HEAD", "HEAD", "DELETE"]


@pytest.mark.net
def test_pages_are_read_as_rows_are(s3, gateway):
    db, root = s3
    folder = gateway.folder / "data/bucket" / root.split("/")[3]
    folder.mkdir()
    for i in range(3500):
        (folder / f"{i:05}").write_bytes(b"")
    want = [f"{i:05}" for i in range(3500)]
    assert [k for (k,) in db.rows("SELECT key FROM s3_blob(?)", root)] == want
    for _ in range(20):
        lo, hi = sorted(random.sample(range(3500), 2))
        assert [k for (k,) in db.rows(
            "SELECT key FROM s3_list(?) WHERE key >= ? AND key < ?", root,
            want[lo], want[hi])] == want[lo:hi]
    n = random.randrange(3500)
    assert [k for (k,) in db.rows(
        "SELECT key FROM s3_list(?) LIMIT 5 OFFSET ?", root, n)] == want[n:n+5]


@pytest.mark.net
def test_an_object_that_goes_while_it_is_listed_has_no_content(proxy):
    db, root, p = proxy
    for key in "ab":
        db.one("SELECT s3_put(?, 'x')", root + key)
    p.plan = lambda n, m, t: None
    rows = db.rows("SELECT key, s3_delete(?1 || key), content FROM s3_blob(?1)"
                   " ORDER BY key", root)
    assert rows == [("a", 1, None), ("b", 1, None)]
