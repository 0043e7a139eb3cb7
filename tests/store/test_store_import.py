# SPDX-License-Identifier: MIT
"""artifact_put_file, artifact_import and artifact_export on real files."""
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import pytest

NONE = {"hidden": 0, "link": 0, "special": 0, "database": 0, "name": 0,
        "size": 0, "unreadable": 0}


@pytest.fixture
def tree(tmp_path):
    """tree({"a/b.txt": b"…"}) -> folder with these files."""
    def make(files, name="tree"):
        for rel, data in files.items():
            path = tmp_path / name / rel
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (tmp_path / name).mkdir(exist_ok=True)
        return tmp_path / name
    return make


def import_(db, folder, *prefix):
    marks = ", ?" * len(prefix)
    return json.loads(db.one(f"SELECT artifact_import(?{marks})", str(folder), *prefix))


def export(db, folder, *prefix):
    marks = ", ?" * len(prefix)
    return json.loads(db.one(f"SELECT artifact_export(?{marks})", str(folder), *prefix))


def live(db):
    return dict(db.rows("SELECT path, content FROM artifacts WHERE deleted_at IS NULL"))


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes()
            for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()}


# --------------------------------------------------------------- put_file

def test_put_file_keeps_text_as_text_and_the_rest_as_blob(db, tree):
    root = tree({"a.md": "# Ä\r\n".encode(), "b.png": b"\x89PNG\0", "c.md": b"\xff"})
    for name in "a.md", "b.png", "c.md":
        db.one("SELECT artifact_put_file(?, ?)", "/d/", str(root / name))
    assert live(db) == {"/d/a.md": "# Ä\r\n", "/d/b.png": b"\x89PNG\0", "/d/c.md": b"\xff"}
    assert db.rows("SELECT hash FROM artifacts WHERE path='/d/b.png'") == [
        (hashlib.sha256(b"\x89PNG\0").hexdigest(),)]
    assert db.one("SELECT artifact_put_file('/d/b.png', ?, 'image/x-own')",
                  str(root / "b.png")) == db.one(
        "SELECT id FROM artifacts WHERE path='/d/b.png' AND mime_type='image/x-own'")


def test_a_large_file_is_streamed_and_its_hash_is_right(db, tmp_path):
    data = os.urandom(1 << 20) * 17 + b"end"
    (tmp_path / "big.bin").write_bytes(data)
    db.one("SELECT artifact_put_file('/big', ?)", str(tmp_path / "big.bin"))
    assert db.rows("SELECT size_bytes, hash, typeof(content) FROM artifacts") == [
        (len(data), hashlib.sha256(data).hexdigest(), "blob")]
    assert db.one("SELECT choir_sha256(content) FROM artifacts") == hashlib.sha256(data).hexdigest()
    before = db.one("SELECT total_changes()")
    db.one("SELECT artifact_put_file('/big', ?)", str(tmp_path / "big.bin"))
    assert db.one("SELECT total_changes()") == before
    (tmp_path / "big.bin").write_bytes(data[::-1])
    db.one("SELECT artifact_put_file('/big', ?)", str(tmp_path / "big.bin"))
    assert db.one("SELECT choir_sha256(content) FROM artifacts") == hashlib.sha256(
        data[::-1]).hexdigest()
    report = export(db, tmp_path / "out")
    assert (tmp_path / "out/big").read_bytes() == data[::-1] and report["written"] == 1
    assert export(db, tmp_path / "out")["unchanged"] == 1


def test_a_large_file_that_changes_while_it_is_read_is_one_file_or_none(db, tmp_path):
    path, done = tmp_path / "big.bin", threading.Event()
    path.write_bytes(bytes(17 << 20))

    def write():
        fd, i = os.open(path, os.O_WRONLY), 0
        while not done.is_set():
            i += 1
            os.pwrite(fd, i.to_bytes(8, "big"), 0)
        os.close(fd)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        db.one("SELECT artifact_put_file('/big', ?)", str(path))
    except db.failure as e:
        assert "the file changed while it was read" in str(e)
    finally:
        done.set()
        writer.join()
    assert db.rows("SELECT path FROM artifacts WHERE hash <> choir_sha256(content)") == []


@pytest.mark.parametrize("file, problem", [
    ("NULL", "file must be text, got null"),
    ("''", "cannot read : No such file or directory"),
    ("'/no/such'", "cannot read /no/such: No such file or directory"),
    ("'/'", "/ is a directory, not a file"),
    ("'/dev/null'", "/dev/null is a device, not a file"),
    ("'/a' || char(0)", "file has a NUL character at byte 2"),
])
def test_put_file_refuses(db, file, problem):
    assert db.error(f"SELECT artifact_put_file('/x', {file})") == "artifact_put_file: " + problem
    assert live(db) == {}


def test_put_file_never_touches_an_open_database(db, tmp_path):
    db.one("SELECT artifact_put('/a', 'x')")
    os.link(tmp_path / "ws.db", tmp_path / "other-name")
    os.symlink(tmp_path / "ws.db-wal", tmp_path / "link")
    for name in "ws.db", "ws.db-wal", "ws.db-shm", "other-name", "link":
        assert db.error("SELECT artifact_put_file('/x', ?)", str(tmp_path / name)) == (
            f"artifact_put_file: {tmp_path}/{name} belongs to a database that is open"
            " on this connection")


# ----------------------------------------------------------------- import

def test_import_takes_a_tree_and_reports_it(db, tree):
    root = tree({"a.md": b"# A", "sub/deep/b.txt": "ü".encode(), "sub/c.png": b"\x89\0",
                 ".git/config": b"x", "sub/.hidden": b"x", "%_.txt": b"odd"})
    assert import_(db, root, "docs") == {
        "prefix": "/docs/", "files": 4, "new": 4, "changed": 0, "unchanged": 0,
        "bytes": 10, "binary": 1, "skipped": dict(NONE, hidden=2), "problems": []}
    assert live(db) == {"/docs/a.md": "# A", "/docs/sub/deep/b.txt": "ü",
                        "/docs/sub/c.png": b"\x89\0", "/docs/%_.txt": "odd"}
    assert db.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'


def test_a_second_import_writes_only_what_changed(db, tree):
    root = tree({"a.md": b"one", "b.md": b"two", "c.png": b"\0"})
    import_(db, root)
    before = db.rows("SELECT id, updated_at FROM artifacts WHERE path<>'/b.md' ORDER BY path")
    (root / "b.md").write_bytes(b"2")
    (root / "a.md").unlink()
    again = import_(db, str(root) + "/")
    assert (again["new"], again["changed"], again["unchanged"]) == (0, 1, 1)
    assert live(db) == {"/a.md": "one", "/b.md": "2", "/c.png": b"\0"}
    assert before == db.rows(
        "SELECT id, updated_at FROM artifacts WHERE path<>'/b.md' ORDER BY path")


def test_links_sockets_and_pipes_are_not_followed_or_read(db, tree, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("secret")
    root = tree({"a.md": b"x"})
    os.symlink(tmp_path / "secret", root / "dirlink")
    os.symlink(tmp_path / "secret/key", root / "filelink")
    os.symlink(root, root / "loop")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(root / "socket"))
        report = import_(db, root)
    assert report["skipped"] == dict(NONE, link=3, special=2)
    assert live(db) == {"/a.md": "x"}


def test_the_workspace_in_the_imported_folder_is_left_alone(tmp_path, open_db):
    db = open_db(tmp_path / "ws.db", init=True)
    db.run(f"ATTACH '{tmp_path}/second.db' AS second; CREATE TABLE second.t(a)")
    (tmp_path / "a.md").write_text("x")
    os.link(tmp_path / "second.db", tmp_path / "second-by-another-name")
    # One that other code of this process may have open: it has a journal.
    (tmp_path / "third.db").write_text("x")
    (tmp_path / "third.db-journal").write_text("x")
    report = import_(db, tmp_path)
    assert live(db) == {"/a.md": "x"}
    assert report["skipped"]["database"] == len(
        [p for p in os.listdir(tmp_path) if ".db" in p or "second" in p])


def test_an_import_does_not_drop_the_locks_of_a_database(tmp_path, open_db):
    """Closing a descriptor of the file would: another writer could get in."""
    db = open_db(tmp_path / "ws.db", init=True)
    db.run("PRAGMA journal_mode=DELETE")
    db.rows("BEGIN IMMEDIATE")
    import_(db, tmp_path)
    script = (f"import sqlite3; c = sqlite3.connect({str(tmp_path / 'ws.db')!r}, timeout=0)\n"
              "try: c.execute('BEGIN IMMEDIATE'); print('got in')\n"
              "except sqlite3.OperationalError as e: print(e)")
    out = subprocess.run(["/usr/bin/python3", "-c", script], capture_output=True, text=True)
    assert out.stdout == "database is locked\n"
    db.rows("COMMIT")


def test_names_that_cannot_be_paths_are_reported(db, tree):
    root = tree({"good.md": b"x"})
    raw = os.fsencode(root)
    with open(raw + b"/bad\xff.md", "wb"):
        pass
    os.mkdir(raw + b"/dir\xfe")
    with open(raw + b"/line\nbreak", "wb"):
        pass
    report = import_(db, root)
    assert report["skipped"] == dict(NONE, name=3) and report["files"] == 1
    assert report["problems"] == [
        {"file": f"{root}/bad\ufffd.md", "problem": "the name is not valid UTF-8"},
        {"file": f"{root}/dir\ufffd", "problem": "the name is not valid UTF-8"},
        {"file": f"{root}/line\nbreak",
         "problem": "the name has a control character 0x0a at byte 5: /line\nbreak"}]


@pytest.mark.inprocess
def test_what_may_not_be_read_is_reported(db, request):
    root = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
    request.addfinalizer(lambda: shutil.rmtree(root))
    root.chmod(0o755)
    (root / "b.md").write_text("y")
    (root / "no").mkdir(0)
    (root / "a.md").write_text("x")
    (root / "a.md").chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything
    try:
        report = import_(db, root)
    finally:
        os.seteuid(user)
    assert report["skipped"] == dict(NONE, unreadable=2) and report["files"] == 1
    assert report["problems"] == [
        {"file": f"{root}/a.md", "problem": f"cannot read {root}/a.md: Permission denied"},
        {"file": f"{root}/no", "problem": "Permission denied"}]


def test_a_file_larger_than_a_row_is_reported(db, tree):
    root = tree({"a.md": b"x"})
    with open(root / "huge", "wb") as f:
        f.truncate(1_000_000_000)
    report = import_(db, root)
    assert report["skipped"] == dict(NONE, size=1) and live(db) == {"/a.md": "x"}
    assert report["problems"][0]["file"] == f"{root}/huge"


def test_folders_too_deep_are_reported(db, tree):
    root = tree({"/".join("d" * 128) + "/in.txt": b"x",
                 "/".join("e" * 129) + "/out.txt": b"x"})
    report = import_(db, root)
    assert report["skipped"] == dict(NONE, unreadable=1) and report["files"] == 1


def test_an_import_is_one_transaction(db, tree):
    root = tree({"a.md": b"x", "b.md": b"y", "c.md": b"z"})
    db.run("CREATE TRIGGER no BEFORE INSERT ON artifacts WHEN NEW.name='c.md' BEGIN"
           " SELECT RAISE(ABORT, 'not this one'); END")
    assert db.error("SELECT artifact_import(?)", str(root)) == (
        f"artifact_import: {root}/c.md: not this one")
    assert live(db) == {}
    db.rows("BEGIN")
    db.one("SELECT artifact_put('/keep', 'x')")
    db.error("SELECT artifact_import(?)", str(root))
    db.rows("COMMIT")
    assert live(db) == {"/keep": "x"}


@pytest.mark.inprocess
def test_an_import_can_be_interrupted(db, tmp_path):
    with open(tmp_path / "big", "wb") as f:
        f.truncate(900_000_000)
    (tmp_path / "big").rename(tmp_path / "home/big")
    timer = threading.Timer(0.1, db.con.interrupt)
    timer.start()
    start = time.monotonic()
    try:
        message = db.error("SELECT artifact_import(?)", str(tmp_path / "home"))
    finally:
        timer.cancel()
    assert "interrupt" in message.lower() and time.monotonic() - start < 5
    assert live(db) == {}


@pytest.mark.parametrize("call, problem", [
    ("artifact_import(NULL)", "dir must be text, got null"),
    ("artifact_import(5)", "dir must be text, got integer"),
    ("artifact_import('')", "cannot open : No such file or directory"),
    ("artifact_import('/no/such')", "cannot open /no/such: No such file or directory"),
    ("artifact_import('/dev/null')", "cannot open /dev/null: Not a directory"),
    ("artifact_import('/tmp', '/a/../b')", "prefix has a part '..': /a/../b"),
    ("artifact_import('/tmp', 5)", "prefix must be text, got integer"),
    ("artifact_import('/tmp', '')", "prefix is empty"),
    ("artifact_export(NULL)", "dir must be text, got null"),
    ("artifact_export('')", "cannot open : No such file or directory"),
    ("artifact_export('/dev/null')", "cannot open /dev/null: Not a directory"),
    ("artifact_export('/tmp/x', '..')", "prefix has a part '..': .."),
])
def test_what_import_and_export_refuse(db, call, problem):
    assert db.error("SELECT " + call) == call.split("(")[0] + ": " + problem


@pytest.mark.parametrize("name", ["artifact_import", "artifact_export"])
def test_import_and_export_need_a_workspace_and_no_lock(open_db, tmp_path, name):
    d = open_db()
    assert d.error(f"SELECT {name}(?)", str(tmp_path)) == (
        f"{name}: no workspace in schema main; run select choir_init()")
    d.one("SELECT choir_init()")
    d.one("SELECT choir_lock()")
    assert "locked" in d.error(f"SELECT {name}(?)", str(tmp_path))
    assert "locked" in d.error("SELECT artifact_put_file('/a', '/etc/hostname')")


# ----------------------------------------------------------------- export

def test_export_writes_what_import_read(db, tree, tmp_path):
    data = {"a.md": b"# A", "sub/deep/b.txt": "ü\r\n".encode(), "sub/c.png": b"\x89\0",
            "empty": b"", "%_.txt": b"odd"}
    import_(db, tree(data), "/docs")
    report = export(db, tmp_path / "out", "/docs")
    assert report == {"prefix": "/docs/", "files": 5, "written": 5, "unchanged": 0,
                      "bytes": sum(map(len, data.values())),
                      "skipped": {"remote": 0, "empty": 0, "refused": 0}, "problems": []}
    assert files(tmp_path / "out") == data
    stamp = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert export(db, tmp_path / "out", "/docs")["unchanged"] == 5
    assert stamp == {p: p.stat().st_mtime_ns for p in stamp}


def test_export_replaces_what_differs_and_leaves_the_rest(db, tmp_path):
    db.one("SELECT artifact_put('/a', 'new'), artifact_put('/b', 'same')")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("old")
    (out / "a").chmod(0o757)
    (out / "b").write_text("same")
    (out / "mine").write_text("mine")
    report = export(db, out)
    assert (report["written"], report["unchanged"]) == (1, 1)
    assert files(out) == {"a": b"new", "b": b"same", "mine": b"mine"}
    assert (out / "a").stat().st_mode & 0o777 == 0o755


@pytest.mark.inprocess
def test_exported_files_obey_the_umask_and_nobody_else_may_write(db, tmp_path):
    db.one("SELECT artifact_put('/d/a', 'x')")
    for mask, mode in ((0o077, 0o600), (0o022, 0o644), (0, 0o664)):
        old = os.umask(mask)
        try:
            export(db, tmp_path / f"out{mask}")
        finally:
            os.umask(old)
        assert (tmp_path / f"out{mask}/d/a").stat().st_mode & 0o777 == mode
        assert (tmp_path / f"out{mask}/d").stat().st_mode & 0o002 == 0


HOSTILE = ["../escape", "/../escape", "/a/../../escape", "relative", "/a//b", "/./x",
           "", "/", "/dir/", "/new\nline", "/" + "n" * 300]


def test_stored_paths_cannot_lead_out_of_the_folder(db, tmp_path):
    for path in HOSTILE:
        db.rows("INSERT INTO artifacts(path, name, content) VALUES(?, 'x', 'evil')", path)
    db.rows("INSERT INTO artifacts(path, name, content)"
            " VALUES('/nul' || char(0) || '/../../escape', 'x', 'evil')")
    db.one("SELECT artifact_put('/ok', 'x')")
    out = tmp_path / "deep/down/out"
    out.parent.mkdir(parents=True)
    report = export(db, out)
    below = [p for p in HOSTILE if p.startswith("/")]
    assert report["written"] == 1
    assert report["skipped"]["refused"] == len(below) + 1
    assert [str(p.relative_to(tmp_path / "deep")) for p in sorted((tmp_path / "deep").rglob("*"))
            ] == ["down", "down/out", "down/out/ok"]


def test_export_never_writes_through_a_link(db, tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (outside / "target").write_text("precious")
    os.symlink(outside, out / "dir")
    os.symlink(outside / "target", out / "file")
    os.symlink(outside / "new", out / "dangling")
    os.mkfifo(out / "pipe")
    (out / "folder").mkdir()
    for path in "/dir/target", "/dir/x", "/file", "/dangling", "/pipe", "/folder", "/ok":
        db.one("SELECT artifact_put(?, 'evil')", path)
    report = export(db, out)
    assert report["written"] == 1 and report["skipped"]["refused"] == 6
    assert files(outside) == {"target": b"precious"}
    assert {p["file"]: p["problem"] for p in report["problems"]} == {
        "/dir/target": "cannot enter or make its folder: Not a directory",
        "/dir/x": "cannot enter or make its folder: Not a directory",
        "/file": "a symbolic link is in its place",
        "/dangling": "a symbolic link is in its place",
        "/pipe": "a device, pipe or socket is in its place",
        "/folder": "a folder is in its place"}


def test_export_never_replaces_an_open_database(db, tmp_path):
    db.run("PRAGMA journal_mode=DELETE")
    for name in "ws.db", "ws.db-wal", "ws.db-shm", "ws.db-journal":
        db.one("SELECT artifact_put(?, 'evil')", "/" + name)
    report = export(db, tmp_path)
    assert report["written"] == 0 and report["skipped"]["refused"] == 4
    assert not (tmp_path / "ws.db-journal").exists() and not (tmp_path / "ws.db-wal").exists()
    assert db.one("PRAGMA integrity_check") == "ok"


def test_a_path_that_is_file_and_directory_is_reported(db, tmp_path):
    db.one("SELECT artifact_put('/a', 'x'), artifact_put('/a/b', 'y')")
    report = export(db, tmp_path / "out")
    assert files(tmp_path / "out") == {"a": b"x"} and report["skipped"]["refused"] == 1


def test_remote_and_missing_content_is_reported(db, tmp_path):
    db.one("SELECT artifact_put('/a', 'x')")
    db.run("UPDATE artifacts SET content=NULL, s3_key='k';"
           "INSERT INTO artifacts(path, name) VALUES('/b', 'b')")
    report = export(db, tmp_path / "out")
    assert report["skipped"] == {"remote": 1, "empty": 1, "refused": 0}
    assert [p["file"] for p in report["problems"]] == ["/a", "/b"]


def test_no_temporary_file_is_left(db, tmp_path):
    db.one("SELECT artifact_put('/a', 'x'), artifact_put('/d/b', 'x')")
    export(db, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["a", "d"]
    assert os.listdir(tmp_path / "out/d") == ["b"]


def test_what_a_killed_export_left_is_removed_and_nothing_else(db, tmp_path):
    db.one("SELECT artifact_put('/a', 'x')")
    out = tmp_path / "out"
    out.mkdir()
    written = out / ".choir-0123456789abcdef01234567.tmp"  # by another process
    for path in (written, out / ".choir-fedcba9876543210fedcba98.tmp", out / ".choir-mine.tmp"):
        path.write_bytes(b"half")
    with open(written) as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        export(db, out)
    assert sorted(os.listdir(out)) == [written.name, ".choir-mine.tmp", "a"]


def test_a_utf16_database_exports_the_bytes_that_were_put(tmp_path, open_db):
    d = open_db(tmp_path / "ws16.db", pragmas=["encoding='UTF-16le'"])
    d.one("SELECT choir_init()")
    d.one("SELECT artifact_put('/ä.txt', 'grün')")
    export(d, tmp_path / "out")
    assert files(tmp_path / "out") == {"ä.txt": "grün".encode()}
    assert d.one("SELECT hash FROM artifacts") == hashlib.sha256("grün".encode()).hexdigest()
    d.run("INSERT INTO artifacts(path, name, content) VALUES('/plain', 'plain', 'grün')")
    assert d.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
