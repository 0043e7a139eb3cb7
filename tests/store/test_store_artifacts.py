# SPDX-License-Identifier: MIT
"""Artifacts: put, get, delete, move, purge, ls, and what they refuse."""
import hashlib

import pytest


def row(db, path):
    return db.rows("SELECT id, name, mime_type, content, size_bytes, hash,"
                   " created_at, updated_at, metadata FROM artifacts"
                   " WHERE path=? AND deleted_at IS NULL", path)[0]


def ls(db, *args):
    marks = ", ".join("?" * len(args))
    return [r[0] for r in db.rows(f"SELECT path FROM artifact_ls({marks})", *args)]


# ------------------------------------------------------------------- put

def test_put_keeps_size_hash_name_and_kind(db):
    ident = db.one("SELECT artifact_put('/docs/notes.md', '# Nötes')")
    body = "# Nötes".encode()
    got = row(db, "/docs/notes.md")
    assert got[:6] == (ident, "notes.md", "text/markdown", "# Nötes", len(body),
                       hashlib.sha256(body).hexdigest())
    assert got[6] == got[7] and got[8] == "{}"
    assert len(ident) == 36 and ident[14] == "7"


def test_put_on_a_live_path_keeps_the_id_and_moves_updated_at(db):
    first = db.one("SELECT artifact_put('/a.txt', 'one')")
    before = row(db, "/a.txt")
    assert db.one("SELECT artifact_put('/a.txt', 'two')") == first
    after = row(db, "/a.txt")
    assert after[3] == "two" and after[6] == before[6] and after[7] > before[7]


def test_the_same_content_again_writes_nothing(db):
    db.one("SELECT artifact_put('/a.txt', 'one', 'text/plain', '{\"k\":1}')")
    before = db.one("SELECT total_changes()")
    db.one("SELECT artifact_put('/a.txt', 'one')")
    db.one("SELECT artifact_put('/a.txt', 'one', 'text/plain')")
    db.one("SELECT artifact_put('/a.txt', 'one', NULL, '{\"k\":1}')")
    assert db.one("SELECT total_changes()") == before
    db.one("SELECT artifact_put('/a.txt', 'one', 'text/html')")
    assert db.one("SELECT total_changes()") > before


def test_the_type_put_is_the_type_got(db):
    db.one("SELECT artifact_put('/t', 'abc'), artifact_put('/b', x'616263')")
    assert db.rows("SELECT typeof(artifact_get('/t')), typeof(artifact_get('/b'))"
                   ) == [("text", "blob")]
    db.one("SELECT artifact_put('/t', x'616263')")
    assert db.one("SELECT typeof(artifact_get('/t'))") == "blob"


def test_empty_content_is_content(db):
    db.one("SELECT artifact_put('/t', ''), artifact_put('/b', x'')")
    assert db.rows("SELECT path, typeof(content), size_bytes, mime_type, hash"
                   " FROM artifacts ORDER BY path") == [
        ("/b", "blob", 0, "text/plain", hashlib.sha256().hexdigest()),
        ("/t", "text", 0, "text/plain", hashlib.sha256().hexdigest())]


@pytest.mark.parametrize("name, content, mime", [
    ("a.MD", "x", "text/markdown"), ("a.json", "{}", "application/json"),
    ("a.tar.gz", "x", "application/gzip"), ("LICENSE", "x", "text/plain"),
    ("a.png", b"\x89PNG", "image/png"), ("noend", b"\x00\x01", "application/octet-stream"),
    ("noend", b"plain", "text/plain"), ("a.unheard", b"\xff\xfe", "application/octet-stream"),
    (".md", "x", "text/markdown"), ("a.", "x", "text/plain"),
    ("woff2.woff2", b"\0", "font/woff2"), ("a.7z", b"\0", "application/x-7z-compressed"),
])
def test_the_kind_is_guessed_from_the_name_then_the_content(db, name, content, mime):
    db.one("SELECT artifact_put(?, ?)", "/" + name, content)
    assert row(db, "/" + name)[2] == mime


def test_a_kind_and_metadata_once_given_stay(db):
    db.one("SELECT artifact_put('/a.md', 'x', 'text/x-mine', '{\"k\":1}')")
    db.one("SELECT artifact_put('/a.md', 'y')")
    assert row(db, "/a.md")[2] == "text/x-mine" and row(db, "/a.md")[8] == '{"k":1}'


@pytest.mark.parametrize("given, kept", [
    ("a.txt", "/a.txt"), ("//a//b.txt", "/a/b.txt"), ("/%_\\'\".txt", "/%_\\'\".txt"),
    ("/ä/ö.txt", "/ä/ö.txt"), ("/...", "/..."), ("/ a ", "/ a "),
    ("/" + "x" * 4095, "/" + "x" * 4095),
])
def test_paths_are_made_absolute_and_plain(db, given, kept):
    db.one("SELECT artifact_put(?, 'x')", given)
    assert db.rows("SELECT path FROM artifacts") == [(kept,)]
    assert db.one("SELECT artifact_get(?)", given) == "x"


PATHS = [
    ("''", "path is empty"),
    ("'/'", "path names a directory, not a file: /; leave out the last '/'"),
    ("'/a/'", "path names a directory, not a file: /a/; leave out the last '/'"),
    ("'/a/../b'", "path has a part '..': /a/../b"),
    ("'..'", "path has a part '..': .."),
    ("'./a'", "path has a part '.': ./a"),
    ("'/a' || char(10)", "path has a control character 0x0a at byte 2: /a\n"),
    ("'/a' || char(127)", "path has a control character 0x7f at byte 2: /a\x7f"),
    ("'/a' || char(0) || 'b'", "path has a NUL character at byte 2"),
    ("CAST(x'2fff' AS TEXT)", "path is not valid UTF-8 at byte 1"),
    ("printf('/%.*c', 4096, 'x')", "path has 4097 bytes, the limit is 4096: "
     + "/" + "x" * 59 + "…"),
    ("printf('%.*c', 4096, 'x')", "path has 4097 bytes, the limit is 4096: "
     + "x" * 60 + "…"),
    ("NULL", "path must be text, got null"),
    ("1", "path must be text, got integer"),
    ("x'2f61'", "path must be text, got blob"),
]


@pytest.mark.parametrize("path, problem", PATHS)
def test_put_refuses_a_path(db, path, problem):
    assert db.error(f"SELECT artifact_put({path}, 'x')").rstrip() == (
        "artifact_put: " + problem.rstrip())
    assert db.one("SELECT count(*) FROM artifacts") == 0


@pytest.mark.parametrize("call, problem", [
    ("'/a', NULL", "content must be text or a blob, got null"),
    ("'/a', 1", "content must be text or a blob, got integer"),
    ("'/a', 1e999", "content must be text or a blob, got real"),
    ("'/a', 'x', ''", "mime must look like text/plain, got ''"),
    ("'/a', 'x', 'text'", "mime must look like text/plain, got 'text'"),
    ("'/a', 'x', '/plain'", "mime must look like text/plain, got '/plain'"),
    ("'/a', 'x', 5", "mime must be text, got integer"),
    ("'/a', 'x', 'text/' || char(10)", "mime must look like text/plain, got 'text/\n'"),
    ("'/a', 'x', NULL, '{'", "metadata is not valid JSON: {"),
    ("'/a', 'x', NULL, '[1]'", "metadata must be a JSON object, got [1]"),
    ("'/a', 'x', NULL, 7", "metadata must be text, got integer"),
    ("'/a', 'x', NULL, x'7b7d'", "metadata must be text, got blob"),
])
def test_put_refuses_other_arguments(db, call, problem):
    assert db.error(f"SELECT artifact_put({call})") == "artifact_put: " + problem
    assert db.one("SELECT count(*) FROM artifacts") == 0


def test_put_refuses_json_of_great_depth(db):
    message = db.error("SELECT artifact_put('/a', 'x', NULL, ?)", '{"a":' * 10000)
    assert message.startswith("artifact_put: metadata is not valid JSON")


def test_text_with_a_nul_or_of_no_encoding_is_kept_as_it_is(db):
    db.one("SELECT artifact_put('/n', 'a' || char(0) || 'b'),"
           " artifact_put('/u', CAST(x'61ff' AS TEXT))")
    assert db.rows("SELECT path, hex(artifact_get(path)), size_bytes, mime_type"
                   " FROM artifacts ORDER BY path") == [
        ("/n", "610062", 3, "application/octet-stream"),
        ("/u", "61FF", 2, "application/octet-stream")]


@pytest.mark.parametrize("call", [
    "artifact_put('/a', 'x')", "artifact_get('/a')", "artifact_delete('/a')",
    "artifact_move('/a', '/b')", "artifact_purge()", "artifact_put_file('/a', '/b')",
    "conversation_create('x')", "conversation_rename('x', 'y')",
    "conversation_delete('x')", "message_add('x', 'user', 'y')",
    "setting_get('x')", "setting_set('x', 'y')", "count(*) FROM artifact_ls('/')",
])
def test_every_function_says_when_there_is_no_workspace(open_db, call):
    d = open_db()
    name = "artifact_ls" if "artifact_ls" in call else call.split("(")[0]
    assert d.error("SELECT " + call) == (
        f"{name}: no workspace in schema main; run select choir_init()")


def test_a_write_in_an_insert_says_how_to_call_it(db):
    db.run("CREATE TABLE t(a)")
    assert "call it as SELECT f(…)" in db.error(
        "INSERT INTO t SELECT artifact_put('/a', 'x')")


def test_a_failed_put_leaves_nothing(db):
    db.one("SELECT artifact_put('/keep', 'x')")
    db.run("CREATE TRIGGER no BEFORE INSERT ON artifacts BEGIN"
           " SELECT RAISE(ABORT, 'not today'); END")
    assert db.error("SELECT artifact_put('/a', 'x')") == "artifact_put: not today"
    assert ls(db) == ["/keep"]
    db.run("BEGIN; COMMIT")


def test_a_read_only_file_is_reported(db, tmp_path, open_db):
    db.one("SELECT artifact_put('/a', 'x')")
    db.run("PRAGMA journal_mode=DELETE")
    d = open_db(f"file:{tmp_path}/ws.db?mode=ro", uri=True)
    assert d.one("SELECT artifact_get('/a')") == "x"
    assert "readonly" in d.error("SELECT artifact_put('/a', 'y')")


def test_the_host_s_last_insert_rowid_stays(db):
    db.run("CREATE TABLE t(a); INSERT INTO t VALUES(1); INSERT INTO t VALUES(2)")
    db.one("SELECT artifact_put('/a', 'x')")
    assert db.one("SELECT last_insert_rowid()") == 2


# ---------------------------------------------------------- get and delete

def test_get_takes_a_path_or_an_id_and_gives_null_for_neither(db):
    ident = db.one("SELECT artifact_put('/a.txt', 'x')")
    assert db.one("SELECT artifact_get(?)", ident) == "x"
    assert db.one("SELECT artifact_get('a.txt')") == "x"
    assert db.one("SELECT artifact_get('/A.txt')") is None
    assert db.one("SELECT artifact_get('no-such-id')") is None


def test_an_id_of_any_form_is_found(db):
    db.run("INSERT INTO artifacts(id, path, name, content)"
           " VALUES('a1', '/x', 'x', 'by id'), ('a2', '/a1', 'a1', 'by path')")
    assert db.one("SELECT artifact_get('a1')") == "by id"
    assert db.one("SELECT artifact_get('/a1')") == "by path"


def test_get_says_when_the_content_is_remote(db):
    ident = db.one("SELECT artifact_put('/it''s.bin', x'00')")
    db.run("UPDATE artifacts SET content=NULL, s3_key='users/u/artifacts/1'")
    assert db.error("SELECT artifact_get(?)", ident) == (
        "artifact_get: the content of /it's.bin is remote (users/u/artifacts/1);"
        " run select artifact_fetch('/it''s.bin')")
    assert db.one("SELECT hash FROM artifacts") is not None


def test_putting_what_is_remote_already_writes_nothing(db):
    db.one("SELECT artifact_put('/a', 'x')")
    db.run("UPDATE artifacts SET content=NULL, s3_key='k'")
    db.one("SELECT artifact_put('/a', 'x')")
    assert db.rows("SELECT content, s3_key FROM artifacts") == [(None, "k")]
    db.one("SELECT artifact_put('/a', 'y')")
    assert db.rows("SELECT content, s3_key FROM artifacts") == [("y", None)]


@pytest.mark.parametrize("call", ["artifact_get", "artifact_delete"])
@pytest.mark.parametrize("arg, problem", [
    ("NULL", "path_or_id must be text, got null"),
    ("1", "path_or_id must be text, got integer"),
    ("''", "path is empty"), ("'/a/'", "path names a directory, not a file: /a/;"
                              " leave out the last '/'"),
    ("'/a/../b'", "path has a part '..': /a/../b"),
])
def test_get_and_delete_refuse(db, call, arg, problem):
    assert db.error(f"SELECT {call}({arg})") == f"{call}: {problem}"


def test_delete_leaves_a_tombstone_and_frees_the_path(db):
    first = db.one("SELECT artifact_put('/a', 'x')")
    assert db.one("SELECT artifact_delete('/a')") == 1
    assert db.one("SELECT artifact_delete('/a')") == 0
    assert db.one("SELECT artifact_delete(?)", first) == 0
    assert db.one("SELECT artifact_get(?)", first) is None
    assert db.rows("SELECT content, size_bytes, deleted_at >= created_at, hash"
                   " IS NOT NULL FROM artifacts") == [(None, 1, 1, 1)]
    second = db.one("SELECT artifact_put('/a', 'x')")
    assert second != first
    assert db.one("SELECT count(*) FROM artifacts") == 2


def test_a_directory_is_deleted_as_the_message_says(db):
    for path in ("/a/b.md", "/a/c/d.md", "/ab.md"):
        db.one("SELECT artifact_put(?, 'x')", path)
    said = db.error("SELECT artifact_delete('/a')")
    assert said == ("artifact_delete: /a is a directory; run select"
                    " artifact_delete(path) from artifact_ls('/a', 1)")
    assert db.rows(said.split("; run ")[1]) == [(1,), (1,)]
    assert db.one("SELECT artifact_delete('a')") == 0
    assert db.rows("SELECT path FROM files") == [("/ab.md",)]


def test_purge_removes_what_nothing_cites(db):
    cited = db.one("SELECT artifact_put('/a', 'x')")
    db.one("SELECT artifact_put('/b', 'x')")
    db.one("SELECT artifact_put('/c', 'x')")
    db.run(f"INSERT INTO citations(source_artifact_id, citing_run_id, weight)"
           f" VALUES('{cited}', 'run', 0.5)")
    db.one("SELECT artifact_delete('/a'), artifact_delete('/b')")
    assert db.one("SELECT artifact_purge()") == 1
    db.run("INSERT INTO artifacts(path, name, s3_key, deleted_at)"
           " VALUES('/far', 'far', 'key', 1)")  # artifact_sweep() needs it
    assert db.one("SELECT artifact_purge()") == 0
    assert db.rows("SELECT path, deleted, weight FROM citation_totals") == [("/a", 1, 0.5)]
    assert ls(db) == ["/c"]


# ------------------------------------------------------------------- move

def test_move_renames_and_keeps_id_and_content(db):
    ident = db.one("SELECT artifact_put('/a.txt', 'x')")
    assert db.one("SELECT artifact_move('/a.txt', '/docs/b.txt')") == 1
    assert row(db, "/docs/b.txt")[:2] == (ident, "b.txt")
    assert db.one("SELECT artifact_move('/docs/b.txt', '/more/')") == 1
    assert row(db, "/more/b.txt")[0] == ident
    assert db.one("SELECT artifact_move('/none', '/x')") == 0
    assert db.one("SELECT artifact_move('/more/b.txt', 'more/b.txt')") == 0


def test_move_takes_whole_directories(db):
    for path in ("/a/1", "/a/b/2", "/a%/3", "/ab/4", "/A/5"):
        db.one("SELECT artifact_put(?, ?)", path, path)
    assert db.one("SELECT artifact_move('/a/', '/z/y/')") == 2
    assert ls(db, "/", 1) == ["/A/5", "/a%/3", "/ab/4", "/z/y/1", "/z/y/b/2"]
    assert db.one("SELECT artifact_get('/z/y/b/2')") == "/a/b/2"
    assert db.one("SELECT artifact_move('/none/', '/x/')") == 0


@pytest.mark.parametrize("call, problem", [
    ("'/a/1', '/b/1'", "/b/1 exists already; delete or move it first"),
    ("'/a/1', '/b/'", "/b/1 exists already; delete or move it first"),
    ("'/a/', '/b/'", "/b/1 exists already; delete or move it first"),
    ("'/a', '/c'", "/a is a directory; end both paths with '/'"),
    ("'/a/', '/c'", "/a/ is a directory and /c is not; end both with '/'"),
    ("'/a/', '/a/b/'", "cannot move /a/ into itself (/a/b/)"),
    ("'/', '/b/'", "cannot move / into itself (/b/)"),
    ("NULL, '/b'", "from must be text, got null"),
    ("'/a/1', 5", "to must be text, got integer"),
    ("'/a/1', '/b/../c'", "to has a part '..': /b/../c"),
    ("'', '/c'", "from is empty"),
])
def test_move_refuses_and_moves_nothing(db, call, problem):
    for path in ("/a/0", "/a/1", "/b/1"):
        db.one("SELECT artifact_put(?, 'x')", path)
    assert db.error(f"SELECT artifact_move({call})") == "artifact_move: " + problem
    assert ls(db, "/", 1) == ["/a/0", "/a/1", "/b/1"]


def test_move_refuses_paths_that_would_grow_too_long(db):
    db.one("SELECT artifact_put(?, 'x')", "/a/" + "x" * 4000)
    message = db.error("SELECT artifact_move('/a/', ?)", "/" + "b" * 100 + "/")
    assert message.endswith("would be longer than 4096 bytes")


# --------------------------------------------------------------------- ls

def test_ls_shows_files_and_implied_directories(db):
    for path in ("/a.md", "/docs/x.md", "/docs/sub/y.md", "/docs-old/z.md", "/Docs/q.md"):
        db.one("SELECT artifact_put(?, 'x')", path)
    assert db.rows("SELECT path, name, kind, size_bytes, mime_type FROM artifact_ls('/')") == [
        ("/Docs/", "Docs", "dir", None, None), ("/a.md", "a.md", "file", 1, "text/markdown"),
        ("/docs-old/", "docs-old", "dir", None, None), ("/docs/", "docs", "dir", None, None)]
    assert ls(db, "docs") == ls(db, "/docs/") == ["/docs/sub/", "/docs/x.md"]
    assert ls(db, "/docs", 1) == ["/docs/sub/y.md", "/docs/x.md"]
    assert ls(db, "/none") == [] and ls(db, "/a.md") == []
    assert ls(db, None, None) == ls(db) == ls(db, "/")
    assert db.one("SELECT id FROM artifact_ls('/') WHERE name='a.md'") == db.one(
        "SELECT id FROM artifacts WHERE path='/a.md'")


def test_ls_takes_percent_and_underscore_as_they_are(db):
    for path in ("/a%b/1", "/a_b/2", "/axb/3", "/a%b/%", "/A%B/4"):
        db.one("SELECT artifact_put(?, 'x')", path)
    assert ls(db, "/a%b") == ["/a%b/%", "/a%b/1"]
    assert ls(db, "/a_b/") == ["/a_b/2"]


def test_a_path_may_be_a_file_and_a_directory(db):
    db.one("SELECT artifact_put('/a', 'x'), artifact_put('/a/b', 'x')")
    assert db.rows("SELECT path, kind FROM artifact_ls('/')") == [
        ("/a", "file"), ("/a/", "dir")]


def test_ls_does_not_show_deleted_files(db):
    db.one("SELECT artifact_put('/d/a', 'x'), artifact_put('/b', 'x')")
    db.one("SELECT artifact_delete('/d/a')")
    assert ls(db) == ["/b"]


def test_ls_can_be_joined_with_itself(db):
    for path in ("/a/1", "/a/2", "/b/3"):
        db.one("SELECT artifact_put(?, 'x')", path)
    assert db.rows("SELECT f.path FROM artifact_ls('/') AS d, artifact_ls(d.path) AS f") == [
        ("/a/1",), ("/a/2",), ("/b/3",)]


@pytest.mark.parametrize("call, problem", [
    ("5", "dir must be text, got integer"), ("'/a/../b'", "dir has a part '..': /a/../b"),
    ("''", "dir is empty"), ("'/', 2", "recursive must be 0 to 1, got 2"),
    ("'/', 'x'", "recursive must be an integer, got text"),
])
def test_ls_refuses(db, call, problem):
    assert db.error(f"SELECT * FROM artifact_ls({call})") == "artifact_ls: " + problem


def test_ls_reads_the_index_only(db):
    plan = db.rows("EXPLAIN QUERY PLAN SELECT path, size_bytes, mime_type, updated_at, id"
                   " FROM artifacts WHERE path >= '/a/b' AND path < '/a0' AND"
                   " substr(path, 1, length('/a/')) = '/a/' AND deleted_at IS NULL ORDER BY path")
    assert "COVERING INDEX artifacts_list" in plan[0][3] and len(plan) == 1


def test_a_directory_may_be_named_by_is(db):
    db.one("SELECT artifact_put('/a/b', 'x'), artifact_put('/c', 'x')")
    assert db.rows("SELECT path FROM artifact_ls WHERE dir IS '/a'") == [("/a/b",)]
    assert db.rows("SELECT path FROM artifact_ls WHERE dir IS NULL") == [("/a/",), ("/c",)]


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_a_directory_is_what_begins_with_it_in_every_encoding(tmp_path, open_db, encoding):
    db = open_db(tmp_path / "enc.db", init=True, pragmas=[f"encoding='{encoding}'"])
    # In UTF-16le the bytes of these letters lie between those of / and 0.
    paths = ["/a/x", "/a/þ", "/a/\U0001f600", "/a\u012f/y", "/a\u302fz", "/b/\U0010ffff", "/b0"]
    for path in paths:
        db.one("SELECT artifact_put(?, 'x')", path)
    order = {"UTF-8": "utf-8", "UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}[encoding]
    assert ls(db) == sorted(["/a/", "/a\u012f/", "/a\u302fz", "/b/", "/b0"],
                            key=lambda p: p.encode(order))
    assert set(ls(db, "/a/")) == set(ls(db, "/a/", 1)) == set(paths[:3])
    assert set(ls(db, "/", 1)) == set(paths)
    assert ls(db, "/b") == ["/b/\U0010ffff"]
    assert db.one("SELECT artifact_move('/a/', '/q/')") == 3
    assert set(ls(db, "/", 1)) == {"/q/x", "/q/þ", "/q/\U0001f600", *paths[3:]}
    assert "no artifact" in db.error("SELECT citation_add('/a', 'r', 1)")
    assert db.one("SELECT artifact_move('/a', '/b')") == 0


def test_many_puts_and_moves_agree_with_a_dictionary(db):
    import random
    rnd = random.Random(7)
    names = [f"/{a}/{b}" for a in "abc" for b in "xyz"] + list("/p /q /r".split())
    model = {}
    for _ in range(400):
        op, a, b = rnd.randrange(4), rnd.choice(names), rnd.choice(names)
        if op < 2:
            model[a] = rnd.choice(["1", "22", "333"])
            db.one("SELECT artifact_put(?, ?)", a, model[a])
        elif op == 2:
            assert db.one("SELECT artifact_delete(?)", a) == (model.pop(a, None) is not None)
        elif b in model and a in model and a != b:
            assert "exists already" in db.error("SELECT artifact_move(?, ?)", a, b)
        else:
            assert db.one("SELECT artifact_move(?, ?)", a, b) == (a in model and a != b)
            if a in model:
                model[b] = model.pop(a)
        assert dict(db.rows("SELECT path, content FROM artifacts"
                            " WHERE deleted_at IS NULL")) == model
    assert db.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
