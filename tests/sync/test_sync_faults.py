# SPDX-License-Identifier: MIT
"""Places and moments where a sync cannot go on: it says why, and everything
is as it was."""
import json
import os
import pathlib
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading

import pytest

from remote import put

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def url(tmp_path):
    (tmp_path / "remote").mkdir()
    return f"file://{tmp_path}/remote/ws.sqlite"


def child(script, *args, **kw):
    """Python with Db in another process."""
    return subprocess.run(
        [sys.executable, "-c", "import sys; sys.path.insert(0, %r)\n"
         "from conftest import Db\n%s" % (str(ROOT / "tests"), script),
         *map(str, args)], capture_output=True, text=True, **kw)


@pytest.mark.parametrize("call", ["sync_push(?)", "sync_pull(?)",
                                  "sync_pull(?, 'theirs')"])
def test_inside_a_transaction_or_a_from_it_says_how_to_call_it(db, url, call):
    name = call.split("(")[0]
    put(db, "/a")
    db.rows("BEGIN")
    assert db.error(f"SELECT {call}", url) == (
        f"{name}: this connection is inside a transaction; commit or roll back"
        " first")
    db.rows("COMMIT")
    for sql in (f"SELECT {call} FROM artifacts",
                f"SELECT {call} FROM json_each('[1]')"):
        assert db.error(sql, url) == (
            f"{name}: a statement of this connection is reading the database;"
            " call it alone, as SELECT f(…) with no FROM"), sql
    assert not os.listdir(url[7:].rsplit("/", 1)[0])


@pytest.mark.inprocess
def test_an_open_cursor_is_named(db, url):
    put(db, "/a"), put(db, "/b")
    cur = db.con.execute("SELECT path FROM artifacts")
    next(cur)
    assert "a statement of this connection is reading" in db.error(
        "SELECT sync_push(?)", url)
    cur.fetchall()
    cur.close()
    assert json.loads(db.one("SELECT sync_push(?)", url))["pushed"] == 1


def test_wrong_arguments_are_named(db, url):
    for sql, message in [
        ("SELECT sync_push(1)", "remote must be text, got integer"),
        ("SELECT sync_push(x'00')", "remote must be text, got blob"),
        ("SELECT sync_push('')", "no remote; name one, as in"),
        ("SELECT sync_push('file:///a%zz.db')", "which does not stand for"),
        ("SELECT sync_push('file:///a%00.db')", "which does not stand for"),
        ("SELECT sync_push('file:///a%2fb.db')", "which does not stand for"),
        ("SELECT sync_push('file:///tmp/../etc/x.db')", "has a part '..'"),
        ("SELECT sync_push('file:///tmp/%2e%2e/x.db')", "has a part '..'"),
        ("SELECT sync_push('file:///tmp/a?b.db')", "is written %3F"),
        ("SELECT sync_push('file:///tmp/a#b.db')", "is written %23"),
        ("SELECT sync_push('file:x.db')", "does not name an absolute path"),
        ("SELECT sync_push('file://host/x.db')", "not name an absolute path"),
        ("SELECT sync_push('file:///tmp/.choir-lock.db')", "for itself"),
        ("SELECT sync_push('file:///tmp/ws.txt')", "must end in .sqlite or"),
        ("SELECT sync_push('s3://user:pa55word@b/ws.txt')",
         "credentials in a URL are refused"),
        ("SELECT sync_push('https://user:pa55word@b/x/')",
         "credentials in a URL are refused"),
        ("SELECT sync_push('s3://user:pa55word@b/ws.sqlite')",
         "credentials in a URL are refused"),
        ("SELECT sync_push('ftp://host/ws.sqlite')",
         "no store has URLs of ftp:; there are file:"),
        ("SELECT sync_push(?, 'theirs')", "mode must be 'fork' or left out"),
        ("SELECT sync_pull(?, 'fork')", "mode must be 'theirs', 'merge' or left out"),
        ("SELECT sync_pull(?, 5)", "mode must be text, got integer"),
    ]:
        error = db.error(sql, *([url] if "?," in sql else []))
        assert message in error and "pa55word" not in error, (sql, error)


def test_before_choir_init_push_says_so(tmp_path, open_db, url):
    d = open_db(tmp_path / "empty.db")
    assert d.error("SELECT sync_push(?)", url) == (
        "sync_push: no workspace in schema main; run select choir_init()")


def test_after_choir_lock_nothing_syncs(db, url):
    db.one("SELECT choir_lock()")
    for sql in ("SELECT sync_push(?)", "SELECT sync_pull(?)",
                "SELECT * FROM sync_status(?)", "SELECT sync_verify(?)",
                "SELECT choir_backup(?)"):
        assert "effects were turned off" in db.error(sql, url)


def test_a_remote_folder_that_does_not_exist_is_not_made(db, tmp_path):
    message = db.error("SELECT sync_push(?)",
                       f"file://{tmp_path}/usb-disk/ws.sqlite")
    assert message == (f"sync_push: the folder {tmp_path}/usb-disk does not"
                       " exist; create it first (or mount its disk)")
    assert not (tmp_path / "usb-disk").exists()


def test_a_symbolic_link_at_the_remote_is_not_followed(db, tmp_path, url):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    os.symlink(victim, tmp_path / "remote/ws.sqlite")
    for f in "sync_push", "sync_pull", "sync_verify":
        assert "a symbolic link is not followed here" in db.error(
            f"SELECT {f}(?)", url)
    assert victim.read_text() == "precious"


def test_what_is_in_the_way_at_the_remote_is_named(db, tmp_path, url):
    remote = tmp_path / "remote"
    (remote / "ws.sqlite").mkdir()
    assert db.error("SELECT sync_push(?)", url) == (
        f"sync_push: '{remote}/ws.sqlite' is not a file")
    folder = f"file://{remote}/"
    (remote / "ltx").write_text("")
    assert db.error("SELECT sync_push(?)", folder) == (
        f"sync_push: cannot enter '{remote}/ltx': Not a directory")
    (remote / "ltx").unlink()
    (tmp_path / "disk").mkdir()
    (remote / "ltx").symlink_to(tmp_path / "disk")
    assert db.error("SELECT sync_push(?)", folder) == (
        f"sync_push: cannot enter '{remote}/ltx': a symbolic link is not"
        " followed here")
    assert db.error("SELECT sync_push('file:///100%/')") == (
        "sync_push: 'file:///100%/' has '%/', which does not stand for a"
        " character of a name; a '%' is written %25")


AS_NOBODY = """
import os
d = Db(sys.argv[1])
if os.getuid() == 0:  # root may write anywhere
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(d.error(sys.argv[2], sys.argv[3]))
"""


@pytest.fixture
def open_folder():
    """A folder of everybody's: pytest closes its own to others at each start."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield pathlib.Path(name)


@pytest.mark.inprocess
def test_a_remote_that_may_not_be_written(db, open_db, open_folder):
    put(db, "/a")
    db.rows("PRAGMA journal_mode=DELETE")
    remote, own = open_folder / "remote", open_folder / "ws.db"
    remote.mkdir(0o555)
    url = f"file://{remote}/ws.sqlite"
    shutil.copy(db.path, own)
    os.chmod(own, 0o666)
    for what, problem in (
            (url, f"cannot write '{remote}/ws.sqlite'"),
            (f"file://{remote}/", f"cannot make the folder '{remote}/ltx'")):
        out = child(AS_NOBODY, own, "SELECT sync_push(?)", what,
                    env={**os.environ, "HOME": str(open_folder)})
        assert out.stdout.strip() == (
            f"sync_push: {problem}: Permission denied"), out
    assert os.listdir(remote) == []
    d = open_db(own)
    os.chmod(remote, 0o755)
    assert json.loads(d.one("SELECT sync_push(?)", url))["pushed"] == 1


def test_a_read_only_database_says_so(tmp_path, db, open_db, url):
    db.rows("PRAGMA journal_mode=DELETE")
    db.one("SELECT sync_push(?)", url)
    ro = open_db(f"file:{tmp_path}/ws.db?mode=ro", uri=True)
    for f in "sync_push", "sync_pull":
        assert ro.error(f"SELECT {f}(?)", url) == (
            f"{f}: the database is read-only and a sync writes its position"
            " into it")
    assert ro.one("SELECT state FROM sync_status(?)", url) == "in sync"


FULL = """
import resource, os
d = Db(sys.argv[1])
put = "INSERT INTO artifacts(path, name, content) VALUES('/big','big',?)"
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), -1))
print(d.error(sys.argv[2], sys.argv[3]))
"""


@pytest.mark.inprocess
def test_a_full_disk_leaves_the_old_remote_and_a_usable_file(
        tmp_path, open_db, url):
    d = open_db(tmp_path / "ws.db", init=True)
    d.one("SELECT sync_push(?)", url)
    before = (tmp_path / "remote/ws.sqlite").read_bytes()
    d.rows("PRAGMA journal_mode=DELETE")
    put(d, "/big", "z" * 3000000)
    d.close()
    for call in "sync_push(?)", "choir_backup(?)":
        out = child(FULL, tmp_path / "ws.db", f"SELECT {call}",
                    url if "push" in call else tmp_path / "full.db", 1 << 20)
        where = ("a temporary file" if "push" in call
                 else f"'{tmp_path}/full.db'")
        assert f"cannot write {where}: File too large" in out.stdout, out
    assert (tmp_path / "remote/ws.sqlite").read_bytes() == before
    assert sorted(os.listdir(tmp_path / "remote")) in (
        ["ws.sqlite"], [".choir-lock", "ws.sqlite"])
    assert not (tmp_path / "full.db").exists()
    d = open_db(tmp_path / "ws.db")
    assert json.loads(d.one("SELECT sync_push(?)", url))["pushed"] == 1
    assert d.one("PRAGMA integrity_check") == "ok"
    old = open_db(tmp_path / "old.db", init=True)
    old.rows("PRAGMA journal_mode=DELETE")
    old.close()
    out = child(FULL, tmp_path / "old.db", "SELECT sync_pull(?)", url, 1 << 20)
    assert "File too large" in out.stdout, out
    assert open_db(tmp_path / "old.db").one(
        "SELECT count(*) FROM artifacts") == 0


@pytest.mark.inprocess
def test_without_a_place_for_copies_theirs_replaces_nothing(
        tmp_path, db, open_db, url, monkeypatch):
    put(db, "/a")
    db.one("SELECT sync_push(?)", url)
    put(db, "/mine")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file/below"))
    (tmp_path / "file").write_text("not a folder")
    assert "cannot create the folder" in db.error(
        "SELECT sync_pull(?, 'theirs')", url)
    assert db.one("SELECT count(*) FROM artifacts") == 2


def test_a_pull_while_others_read(tmp_path, db, open_db, url):
    put(db, "/a")
    db.one("SELECT sync_push(?)", url)
    other = open_db(tmp_path / "other.db")
    other.one("SELECT sync_pull(?)", url)
    put(db, "/b")
    db.one("SELECT sync_push(?)", url)
    reader = open_db(tmp_path / "other.db", choir=False)
    count = "SELECT count(*) FROM artifacts"
    reader.rows("BEGIN")
    assert reader.one(count) == 1
    assert json.loads(other.one("SELECT sync_pull(?)", url))["pulled"] == 1
    assert reader.one(count) == 1 and other.one(count) == 2
    reader.rows("COMMIT")
    assert reader.one(count) == 2


def test_a_pull_in_rollback_mode_waits_for_no_reader(tmp_path, db, open_db,
                                                     url):
    put(db, "/a")
    db.one("SELECT sync_push(?)", url)
    other = open_db(tmp_path / "other.db")
    other.one("SELECT sync_pull(?)", url)
    other.rows("PRAGMA journal_mode=DELETE")
    other.rows("PRAGMA busy_timeout=50")
    put(db, "/b")
    db.one("SELECT sync_push(?)", url)
    reader = open_db(tmp_path / "other.db", choir=False)
    reader.rows("BEGIN")
    assert reader.one("SELECT count(*) FROM artifacts") == 1
    assert "another connection is using this file; try again" in other.error(
        "SELECT sync_pull(?)", url)
    reader.rows("COMMIT")
    assert json.loads(other.one("SELECT sync_pull(?)", url))["pulled"] == 1


def test_a_push_beside_a_writer_takes_the_committed_state(tmp_path, db,
                                                          open_db, url):
    put(db, "/a")
    db.one("SELECT sync_push(?)", url)
    writer = open_db(tmp_path / "ws.db", choir=False)
    db.rows("PRAGMA busy_timeout=50")
    writer.rows("BEGIN IMMEDIATE")
    put(writer, "/uncommitted")
    assert db.one("SELECT changed FROM sync_status(?)", url) == 0
    assert json.loads(db.one("SELECT sync_push(?)", url))["pushed"] == 0
    writer.rows("COMMIT")
    assert json.loads(db.one("SELECT sync_push(?)", url))["pushed"] == 1


def test_a_host_that_locks_the_file_for_itself_can_push(tmp_path, db, url):
    db.rows("PRAGMA journal_mode=DELETE")
    db.rows("PRAGMA locking_mode=EXCLUSIVE")
    put(db, "/a")
    assert json.loads(db.one("SELECT sync_push(?)", url))["pushed"] == 1
    assert json.loads(db.one("SELECT sync_push(?)", url))["pushed"] == 0


@pytest.mark.inprocess
def test_two_pushers_at_once_one_wins_the_other_learns(tmp_path, url):
    from conftest import Db
    names = ["a.db", "b.db", "c.db"]
    first = Db(tmp_path / names[0], init=True)
    first.one("SELECT sync_push(?)", url)
    for name in names[1:]:
        Db(tmp_path / name).one("SELECT sync_pull(?)", url)
    for round in range(6):
        results = {}

        def work(name):
            d = Db(tmp_path / name)
            put(d, f"/{name}-{round}")
            try:
                results[name] = json.loads(d.one("SELECT sync_push(?)", url)
                                           )["pushed"]
            except d.failure as e:
                results[name] = str(e)
            d.close()

        threads = [threading.Thread(target=work, args=(n,)) for n in names]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        won = [n for n in names if results[n] == 1]
        assert len(won) == 1, results
        assert all("the remote has moved" in str(results[n])
                   for n in names if n not in won), results
        for n in names:
            if n not in won:
                Db(tmp_path / n).one("SELECT sync_pull(?, 'theirs')", url)
    first.close()


@pytest.mark.inprocess
def test_two_connections_of_one_file_pushing_at_once_send_it_once_each(
        tmp_path, url):
    """Whatever the order: acknowledged rows are at the remote."""
    from conftest import Db
    Db(tmp_path / "ws.db", init=True).close()
    acknowledged = []

    def work(k):
        d = Db(tmp_path / "ws.db")
        for i in range(8):
            put(d, f"/{k}-{i}")
            try:
                d.one("SELECT sync_push(?)", url)
                acknowledged.append(f"/{k}-{i}")
            except d.failure as e:
                assert any(w in str(e) for w in (
                    "try again", "locked", "the remote has moved")), e
        d.close()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    d = Db(tmp_path / "ws.db")
    d.one("SELECT sync_push(?)", url)
    remote = sqlite3.connect(tmp_path / "remote/ws.sqlite")
    rows = {r[0] for r in remote.execute("SELECT path FROM artifacts")}
    assert rows == {f"/{k}-{i}" for k in range(3) for i in range(8)}
    assert set(acknowledged) <= rows
    assert json.loads(d.one("SELECT sync_push(?)", url))["pushed"] == 0
    remote.close()
    d.close()


def test_files_that_sync_makes_are_private(tmp_path, db, url):
    old = os.umask(0)
    try:
        db.one("SELECT sync_push(?)", url)
        db.one("SELECT choir_backup(?)", str(tmp_path / "copy.db"))
    finally:
        os.umask(old)
    for p in *(tmp_path / "remote").iterdir(), tmp_path / "copy.db":
        assert stat.S_IMODE(p.stat().st_mode) == 0o600, p


def test_what_a_crash_left_at_the_remote_is_swept(tmp_path, db, url):
    (tmp_path / "remote/.choir-tmp-0123456789abcdef").write_text("half")
    (tmp_path / "remote/.choir-lock").write_text("")
    db.one("SELECT sync_push(?)", url)
    put(db, "/a")
    db.one("SELECT sync_push(?)", url)
    assert sorted(os.listdir(tmp_path / "remote")) == [".choir-lock",
                                                       "ws.sqlite"]
