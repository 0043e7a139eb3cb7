# SPDX-License-Identifier: MIT
"""Large artifacts live in the object store: on file:// and on a real S3."""
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

import seeds_policy
from conftest import ROOT
from fault_proxy import FaultProxy
from s3_server import arm

MIB = 1 << 20
FULL = os.environ.get("CHOIR_OBJECT_FULL")  # read before it is taken away
BIG = bytes(range(256)) * 5000  # 1,280,000 bytes
TEXT = "the quick brown fox. " * 60_000  # 1,260,000 bytes


class Place:
    """Where a user's artifacts go, seen from both sides."""

    def __init__(self, url, folder, gateway=None, **more):
        self.url, self.folder, self.gateway = url, folder, gateway
        self.more = more  # of the secret

    def settle(self, db, user="u1"):
        if self.gateway:
            arm(db, self.gateway, **self.more)
        db.one("SELECT choir_config('remote.artifacts', ?)", self.url)
        db.one("SELECT choir_config('user', ?)", user)
        return db

    def names(self, user="u1"):
        at = self.folder / "users" / user / "artifacts"
        return sorted(p.name for p in at.glob("*")
                      if not p.name.startswith(".")) if at.is_dir() else []

    def path(self, name, user="u1"):
        return self.folder / "users" / user / "artifacts" / name


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.net),
                        pytest.param("policy", marks=[pytest.mark.net,
                                                      pytest.mark.once])])
def place(request, tmp_path):
    """A folder, versitygw, and that under the seeds' policy."""
    if request.param == "file":
        (tmp_path / "store").mkdir()
        yield Place(f"file://{tmp_path}/store", tmp_path / "store")
        return
    gateway = request.getfixturevalue("gateway")
    root = f"{random.getrandbits(64):x}"
    there = f"s3://bucket/{root}/", gateway.folder / "data/bucket" / root, gateway
    if request.param == "s3":
        yield Place(*there)
        return
    with FaultProxy(gateway.port) as p:
        p.plan = seeds_policy.plan(gateway, "u1", root + "/")
        yield Place(*there, endpoint=p.endpoint)


@pytest.fixture
def ws(db, place):
    """(workspace, place)"""
    return place.settle(db), place


def flush(db):
    return json.loads(db.one("SELECT artifact_flush()"))


def sweep(db, *older):
    return json.loads(db.one("SELECT artifact_sweep(%s)"
                             % ", ".join("?" * len(older)), *older))


def row(db, path):
    return db.rows("SELECT content, s3_key, size_bytes, hash FROM artifacts"
                   " WHERE path=? AND deleted_at IS NULL", path)[0]


# ------------------------------------------------------------ flush and fetch

def test_content_over_a_mebibyte_moves_and_is_read_through(ws):
    db, place = ws
    big = db.one("SELECT artifact_put('/big.bin', ?)", BIG)
    text = db.one("SELECT artifact_put('/big.txt', ?)", TEXT)
    db.one("SELECT artifact_put('/small.txt', 'small')")
    done = flush(db)
    assert (done["moved"], done["bytes"], done["left"]) == (
        2, len(BIG) + len(TEXT), 0)
    assert place.names() == sorted([big, text])
    assert place.path(big).read_bytes() == BIG
    assert row(db, "/big.bin") == (
        None, f"users/u1/artifacts/{big}", len(BIG),
        hashlib.sha256(BIG).hexdigest())
    assert db.one("SELECT artifact_fetch('/big.bin')") == BIG
    assert db.one("SELECT artifact_fetch(?)", text) == TEXT
    assert db.one("SELECT artifact_fetch('/small.txt')") == "small"
    assert db.one("SELECT artifact_fetch('/none')") is None
    assert "run select artifact_fetch('/big.bin')" in db.error(
        "SELECT artifact_get('/big.bin')")
    assert flush(db)["moved"] == 0
    assert db.one("SELECT choir_check()") == (
        '{"ok":1,"problems":[]}')


def test_the_limit_is_exactly_a_mebibyte(ws):
    db, place = ws
    db.one("SELECT artifact_put('/at', ?)", b"x" * MIB)
    above = db.one("SELECT artifact_put('/above', ?)", b"x" * (MIB + 1))
    assert flush(db)["moved"] == 1
    assert place.names() == [above]


def test_moving_content_is_not_an_edit(ws):
    db, place = ws
    db.one("SELECT artifact_put('/big', ?)", BIG)
    before = db.rows("SELECT updated_at, created_at, mime_type, metadata"
                     " FROM artifacts")
    actions = db.one("SELECT count(*) FROM action_log")
    flush(db)
    assert db.rows("SELECT updated_at, created_at, mime_type, metadata"
                   " FROM artifacts") == before
    assert db.one("SELECT count(*) FROM action_log") == actions


def test_shrinking_brings_it_home_and_growing_takes_a_new_name(ws):
    db, place = ws
    ident = db.one("SELECT artifact_put('/a', ?)", BIG)
    flush(db)
    db.one("SELECT artifact_put('/a', 'small again')")
    assert row(db, "/a")[:2] == ("small again", None)
    assert flush(db)["moved"] == 0
    assert db.one("SELECT artifact_fetch('/a')") == "small again"
    other = BIG[::-1]
    db.one("SELECT artifact_put('/a', ?)", other)
    assert flush(db)["moved"] == 1
    name = f"{ident}-{hashlib.sha256(other).hexdigest()}"
    assert row(db, "/a")[1] == f"users/u1/artifacts/{name}"
    assert place.names() == sorted([ident, name])  # nothing was replaced
    assert db.one("SELECT artifact_fetch('/a')") == other
    db.one("SELECT artifact_put('/a', ?)", BIG)  # the first content again
    assert flush(db)["moved"] == 1
    assert row(db, "/a")[1] == f"users/u1/artifacts/{ident}"
    assert place.names() == sorted([ident, name])


def test_the_same_content_again_writes_and_sends_nothing(ws):
    db, place = ws
    ident = db.one("SELECT artifact_put('/a', ?)", BIG)
    flush(db)
    assert db.one("SELECT artifact_put('/a', ?)", BIG) == ident
    assert row(db, "/a")[0] is None
    assert flush(db)["moved"] == 0


def test_content_written_by_plain_sql_moves_too(ws):
    db, place = ws
    db.run("INSERT INTO artifacts(id, path, name, content)"
           " VALUES('plain-1', '/p', 'p', zeroblob(2000000))")
    assert flush(db)["moved"] == 1
    assert row(db, "/p") == (None, "users/u1/artifacts/plain-1", 2000000,
                             hashlib.sha256(bytes(2000000)).hexdigest())
    assert db.one("SELECT artifact_fetch('/p')") == bytes(2000000)


def test_an_id_that_is_no_key_stays(ws):
    db, place = ws
    for i, ident in enumerate(["../x", "a/b", ".hidden", "", "é", "x" * 129]):
        db.run(f"INSERT INTO artifacts(id, path, name, content)"
               f" VALUES('{ident}', '/p{i}', 'p', zeroblob(2000000))")
    done = flush(db)
    assert (done["moved"], done["left"]) == (0, 6)
    assert place.names() == []


def test_a_utf16_database_stores_utf8(place, tmp_path, open_db):
    db = place.settle(open_db(tmp_path / "16.db", init=True,
                              pragmas=["encoding='UTF-16'"]))
    ident = db.one("SELECT artifact_put('/a.txt', ?)", "ä" * MIB)
    flush(db)
    assert place.path(ident).read_bytes() == ("ä" * MIB).encode()
    assert db.one("SELECT artifact_fetch('/a.txt')") == "ä" * MIB


def test_another_device_reads_what_this_one_stored(ws, tmp_path, open_db):
    db, place = ws
    db.one("SELECT artifact_put('/big.bin', ?)", BIG)
    remote = place.url.rstrip("/") + "/users/u1/workspace.sqlite"
    if place.url.startswith("file"):
        (place.folder / "users/u1").mkdir(parents=True)
    db.one("SELECT sync_push(?)", remote)  # flushes first
    assert row(db, "/big.bin")[0] is None
    assert json.loads(db.one("SELECT sync_push(?)", remote))["pushed"] == 0
    other = place.settle(open_db(tmp_path / "two.db", init=True))
    other.one("SELECT sync_pull(?)", remote)
    assert other.one("SELECT artifact_fetch('/big.bin')") == BIG


def test_two_devices_that_change_one_artifact_lose_neither(ws, tmp_path,
                                                           open_db):
    db, place = ws
    ident = db.one("SELECT artifact_put('/a', ?)", BIG)
    flush(db)
    other = place.settle(open_db(tmp_path / "two.db", init=True))
    one, two = BIG + b"one", BIG + b"two"
    other.run(f"INSERT INTO artifacts(id, path, name, content)"
              f" VALUES('{ident}', '/a', 'a', zeroblob(0))")
    db.one("SELECT artifact_put('/a', ?)", one)
    other.one("SELECT artifact_put('/a', ?)", two)
    flush(db), flush(other)
    assert db.one("SELECT artifact_fetch('/a')") == one
    assert other.one("SELECT artifact_fetch('/a')") == two


def test_the_remote_says_where_when_it_has_the_layout(db, tmp_path):
    (tmp_path / "s").mkdir()
    db.one("SELECT choir_config('user', 'u1')")
    db.one("SELECT choir_config('remote', ?)",
           f"file://{tmp_path}/s/users/u1/workspace.sqlite")
    ident = db.one("SELECT artifact_put('/big', ?)", BIG)
    flush(db)
    assert (tmp_path / f"s/users/u1/artifacts/{ident}").read_bytes() == BIG
    db.one("SELECT choir_config('user', 'u2')")  # another user's layout
    assert "no object store" in db.error("SELECT artifact_flush()")


# ------------------------------------------------------------------- put_file

def test_a_large_file_goes_straight_there(ws, tmp_path):
    db, place = ws
    (tmp_path / "big.iso").write_bytes(BIG)
    (tmp_path / "note.txt").write_text("note")
    ident = db.one("SELECT artifact_put_file('/f/', ?)",
                   str(tmp_path / "big.iso"))
    assert row(db, "/f/big.iso") == (
        None, f"users/u1/artifacts/{ident}", len(BIG),
        hashlib.sha256(BIG).hexdigest())
    assert db.one("SELECT artifact_fetch('/f/big.iso')") == BIG
    db.one("SELECT artifact_put_file('/f/', ?)", str(tmp_path / "note.txt"))
    assert row(db, "/f/note.txt")[0] == "note"
    at = place.path(ident).stat().st_mtime_ns
    assert db.one("SELECT artifact_put_file('/f/', ?)",
                  str(tmp_path / "big.iso")) == ident
    assert place.path(ident).stat().st_mtime_ns == at  # nothing was sent
    (tmp_path / "big.iso").write_bytes(BIG + b"more")
    assert db.one("SELECT artifact_put_file('/f/', ?, 'a/b')",
                  str(tmp_path / "big.iso")) == ident
    assert db.one("SELECT artifact_fetch(?)", ident) == BIG + b"more"
    assert db.one("SELECT mime_type FROM artifacts WHERE id=?", ident) == "a/b"
    assert len(place.names()) == 2


def test_an_import_and_an_export_say_what_is_remote(ws, tmp_path):
    db, place = ws
    (tmp_path / "in").mkdir()
    (tmp_path / "in/big").write_bytes(BIG)
    (tmp_path / "in/small").write_text("x")
    db.one("SELECT artifact_import(?)", str(tmp_path / "in"))
    flush(db)
    again = json.loads(db.one("SELECT artifact_import(?)",
                              str(tmp_path / "in")))
    assert (again["unchanged"], again["changed"]) == (2, 0)
    out = json.loads(db.one("SELECT artifact_export(?)", str(tmp_path / "out")))
    assert (out["written"], out["skipped"]["remote"]) == (1, 1)
    assert "artifact_fetch" in out["problems"][0]["problem"]


def test_what_was_indexed_is_found_after_it_moved(ws):
    db, place = ws
    db.one("SELECT artifact_put('/tale.txt', ?)", TEXT + "a walrus appears")
    db.one("SELECT choir_index()")
    find = "SELECT path, preview FROM choir_search('walrus')"
    flush(db)
    assert db.rows(find)[0][0] == "/tale.txt"
    db.one("SELECT artifact_move('/tale.txt', '/moved.txt')")
    db.one("SELECT choir_index()")
    (path, preview), = db.rows(find)
    assert path == "/moved.txt" and "walrus" in preview
    assert db.rows("SELECT path FROM choir_search('moved')") == [
        ("/moved.txt",)]


# ------------------------------------------------------------ what goes wrong

def test_content_that_is_not_what_the_row_says_is_refused(ws):
    db, place = ws
    ident = db.one("SELECT artifact_put('/a', ?)", BIG)
    flush(db)
    for bad in (BIG[:-1], b"", b"\1" + BIG[1:]):
        place.path(ident).write_bytes(bad)
        assert db.error("SELECT artifact_fetch('/a')").startswith(
            f"artifact_fetch: the object users/u1/artifacts/{ident} has SHA")
    place.path(ident).unlink()
    assert "no object users/u1/artifacts/" in db.error(
        "SELECT artifact_fetch('/a')")


def test_content_longer_than_a_value_names_the_way_to_a_file(ws):
    db, place = ws
    ident = db.one("SELECT artifact_put('/a', ?)", BIG)
    flush(db)
    db.rows("UPDATE artifacts SET size_bytes = 3000000000")
    message = db.error("SELECT artifact_fetch('/a')")
    assert message.startswith(
        f"artifact_fetch: users/u1/artifacts/{ident} has 3000000000 bytes, a value")
    assert "; s3_get_file() writes it to a file" in message


def test_a_key_in_a_row_is_not_trusted(ws):
    db, place = ws
    ident = db.one("SELECT artifact_put('/a', ?)", BIG)
    flush(db)
    for key in ("users/u2/artifacts/" + ident, "users/u1/artifacts/other",
                "../" + ident, f"users/u1/artifacts/{ident}/../x", "",
                f"users/u1/artifacts/{ident}-" + "g" * 64,
                f"users/u1/artifacts/{ident}x"):
        db.rows("UPDATE artifacts SET s3_key=?", key)
        assert "it is not followed" in db.error("SELECT artifact_fetch('/a')")
    db.rows("UPDATE artifacts SET s3_key=?", f"users/u1/artifacts/{ident}")
    db.one("SELECT choir_config('user', 'u2')")
    assert "it is not followed" in db.error("SELECT artifact_fetch('/a')")


@pytest.mark.inprocess  # the environment is this process's
@pytest.mark.parametrize("user", ["a/b", "..", ".a", "a b", "ü", "x" * 129,
                                  "a*", "a>", "a\n"])
def test_a_user_id_that_does_not_fit_is_refused(db, tmp_path, monkeypatch,
                                                user):
    monkeypatch.setenv("CHOIR_USER", user)
    db.one("SELECT choir_config('remote.artifacts', ?)", f"file://{tmp_path}/")
    db.one("SELECT artifact_put('/big', ?)", BIG)
    for call in ("artifact_flush()", "artifact_sweep()"):
        assert "user must be" in db.error("SELECT " + call)
    assert row(db, "/big")[0] == BIG


def test_without_a_user_nothing_moves(db, tmp_path):
    db.one("SELECT choir_config('remote.artifacts', ?)", f"file://{tmp_path}/")
    db.one("SELECT artifact_put('/big', ?)", BIG)
    assert "no user; set it by" in db.error("SELECT artifact_flush()")
    assert row(db, "/big")[0] == BIG


def test_without_a_store_everything_stays_here(db, tmp_path):
    (tmp_path / "big").write_bytes(BIG)
    db.one("SELECT artifact_put_file('/big', ?)", str(tmp_path / "big"))
    assert row(db, "/big")[0] == BIG
    for call in ("artifact_flush()", "artifact_sweep()", "artifact_sweep(0)"):
        assert "no object store" in db.error("SELECT " + call)
    (tmp_path / "r").mkdir()
    db.one("SELECT sync_push(?)", f"file://{tmp_path}/r/ws.sqlite")
    assert row(db, "/big")[0] == BIG


@pytest.mark.parametrize("url", ["ftp://x/", "nonsense", "s3://user:pw@b/",
                                 "file:///no/such/folder/"])
def test_a_bad_place_is_named_and_nothing_moves(db, tmp_path, url):
    db.one("SELECT choir_config('user', 'u1')")
    db.one("SELECT choir_config('remote.artifacts', ?)", url)
    db.one("SELECT artifact_put('/big', ?)", BIG)
    message = db.error("SELECT artifact_flush()")
    assert message.startswith("artifact_flush: ") and "pw" not in message
    (tmp_path / "r").mkdir()
    assert db.error("SELECT sync_push(?)", f"file://{tmp_path}/r/ws.sqlite")
    assert row(db, "/big")[0] == BIG


@pytest.mark.parametrize("sql", [
    "artifact_fetch(NULL)", "artifact_fetch(1)", "artifact_fetch('')",
    "artifact_fetch('/a/')", "artifact_sweep('x')", "artifact_sweep(-1)",
    "artifact_sweep(1.5)"])
def test_bad_arguments_are_named(db, tmp_path, sql):
    db.one("SELECT choir_config('remote.artifacts', ?)", f"file://{tmp_path}/")
    db.one("SELECT choir_config('user', 'u1')")
    assert db.error("SELECT " + sql).startswith(sql.split("(")[0] + ": ")


def test_a_file_that_cannot_be_written_moves_nothing(ws, tmp_path, open_db):
    db, place = ws
    db.one("SELECT artifact_put('/big', ?)", BIG)
    other = place.settle(open_db(tmp_path / "ws.db", pragmas=["query_only=1"]))
    assert other.error("SELECT artifact_flush()").startswith("artifact_flush: ")
    assert row(db, "/big")[0] == BIG
    assert flush(db)["moved"] == 1  # takes the orphan for its own
    assert len(place.names()) == 1
    assert other.one("SELECT artifact_fetch('/big')") == BIG


def test_a_rolled_back_flush_keeps_the_content(ws):
    db, place = ws
    db.one("SELECT artifact_put('/big', ?)", BIG)
    db.run("BEGIN")
    flush(db)
    db.run("ROLLBACK")
    assert row(db, "/big")[0] == BIG
    assert flush(db)["moved"] == 1 and len(place.names()) == 1


def test_a_lock_ends_it(ws):
    db, place = ws
    db.one("SELECT choir_lock()")
    for call in ("artifact_flush()", "artifact_fetch('/a')",
                 "artifact_sweep(0)", "artifact_put_file('/a', '/etc/hosts')"):
        assert "locked" in db.error("SELECT " + call)


# -------------------------------------------------------------------- deletion

@pytest.mark.rights
def test_a_deleted_artifact_leaves_its_object_until_the_sweep(ws):
    db, place = ws
    ident = db.one("SELECT artifact_put('/a', ?)", BIG)
    keep = db.one("SELECT artifact_put('/keep', ?)", BIG)
    flush(db)
    db.one("SELECT artifact_delete('/a')")
    assert db.one("SELECT artifact_purge()") == 0  # it knows of an object
    found = sweep(db)
    assert (found["objects"], found["orphans"], found["bytes"],
            found["deleted"], found["listed"]) == (2, 1, len(BIG), 0, 1)
    assert sweep(db, 3_600_000)["deleted"] == 0  # too young
    assert sweep(db, 0)["deleted"] == 1
    assert place.names() == [keep]
    assert db.one("SELECT artifact_purge()") == 1
    assert db.one("SELECT artifact_fetch('/keep')") == BIG
    assert sweep(db, 0)["orphans"] == 0


@pytest.mark.rights
def test_the_sweep_finds_replaced_content_and_what_a_crash_left(ws):
    db, place = ws
    ident = db.one("SELECT artifact_put('/a', ?)", BIG)
    flush(db)
    db.one("SELECT artifact_put('/a', ?)", BIG + b"2")
    flush(db)
    place.path("left-by-a-crash").write_bytes(b"orphan")
    found = sweep(db)
    assert (found["objects"], found["orphans"]) == (3, 2)
    assert sweep(db, 0)["deleted"] == 2
    assert db.one("SELECT artifact_fetch('/a')") == BIG + b"2"
    assert len(place.names()) == 1


KILL = r"""
import sys
sys.path.insert(0, {tests!r})
from conftest import Db
db = Db({db!r})
db.one("SELECT choir_config('remote.artifacts', ?)", {url!r})
db.one("SELECT choir_config('user', 'u1')")
print("ready", flush=True)
sys.stdin.readline()
while True:
    db.one("SELECT artifact_flush()")
    db.run("UPDATE artifacts SET content=zeroblob(size_bytes + 1), s3_key=NULL,"
           " hash=NULL, size_bytes=size_bytes + 1")
"""


@pytest.mark.once
@pytest.mark.inprocess
def test_a_flush_that_is_killed_loses_nothing(tmp_path, open_db):
    """kill -9 at random moments: content is here or there, always whole."""
    rounds = 200 if FULL else 6
    (tmp_path / "store").mkdir()
    place = Place(f"file://{tmp_path}/store", tmp_path / "store")
    db = place.settle(open_db(tmp_path / "ws.db", init=True))
    for i in range(4):
        db.run(f"INSERT INTO artifacts(path, name, content)"
               f" VALUES('/{i}', '{i}', zeroblob({1_100_000 + i}))")
    script = KILL.format(tests=str(ROOT / "tests"), db=str(tmp_path / "ws.db"),
                         url=place.url)
    dice = random.Random(7)
    for _ in range(rounds):
        child = subprocess.Popen([sys.executable, "-c", script],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"ready\n"
        child.stdin.write(b"\n")
        child.stdin.flush()
        time.sleep(dice.random() * 0.1)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        for path, size in db.rows("SELECT path, size_bytes FROM artifacts"):
            assert db.one("SELECT artifact_fetch(?)", path) == bytes(size)
    assert db.one("PRAGMA integrity_check") == "ok"
    assert sweep(db, 0)["orphans"] >= 0
    for path, size in db.rows("SELECT path, size_bytes FROM artifacts"):
        assert db.one("SELECT artifact_fetch(?)", path) == bytes(size)
    flush(db)
    sweep(db, 0)
    assert len(place.names()) == 4
