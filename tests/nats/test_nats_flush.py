# SPDX-License-Identifier: MIT
"""nats_flush(): every action reaches the stream, once by its id, in order."""
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

import nats
from conftest import SO
from nats_fixtures import at, server  # noqa: F401
from nats_script import ScriptedNats


@pytest.fixture
def out(at):
    """A workspace whose log goes to a stream of its own; its name."""
    name = "F" + os.urandom(4).hex()
    at.one("SELECT choir_config('user', ?)", name)
    at.one("SELECT choir_config('nats.stream', ?)", name)
    at.one("SELECT nats_stream_create(?, json_array(?))", name,
           f"choiros.user.{name}.>")
    return name


def flush(db, *args):
    mark = ", ".join("?" * len(args))
    result = json.loads(db.one(f"SELECT nats_flush({mark})", *args))
    return result["published"], result["duplicates"]


def stored(db, name):
    """(subject, payload, id) of the stream, in order."""
    consumer, rows, more = "c" + os.urandom(4).hex(), [], True
    while more:
        more = db.rows("SELECT subject, payload, msg_id FROM nats_fetch(?, ?,"
                       " 50000, 0, '{\"max_ack_pending\":-1}')", name,
                       consumer)
        rows += more
    return rows


def ids(db):
    return [r[0] for r in db.rows("SELECT id FROM action_log ORDER BY seq")]


def fill(db, n, kind="RUN_STEP"):
    db.rows("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c"
            " WHERE i<?) INSERT INTO action_log(action_type, payload) SELECT"
            " ?, json_object('i', i) FROM c", n, kind)


def test_actions_go_to_the_subjects_of_their_kind(at, out):
    at.one("SELECT artifact_put('/a.txt', 'one')")
    at.one("SELECT artifact_put('/a.txt', 'two')")
    at.one("SELECT artifact_move('/a.txt', '/b.txt')")
    at.one("SELECT artifact_delete('/b.txt')")
    at.one("SELECT log_record('RUN.START', '{\"label\":\"x\"}')")
    at.run("INSERT INTO action_log(action_type, payload, tbl, pk) VALUES"
           "('ODD', 'not json', 't', x'00ff'), ('ODD', x'01', 't', 1.5),"
           "('ODD', '\"text\"', NULL, NULL), ('SYNC_COMPLETE', '{}', 0, 7)")
    n = at.one("SELECT count(*) FROM action_log")
    assert flush(at) == (n, 0)
    assert at.one("SELECT count(*) FROM action_log WHERE synced=0") == 0
    rows = stored(at, out)
    assert [r[0].split(".", 3)[3] for r in rows] == [
        "file.UPDATED", "file.UPDATED", "file.MOVED", "file.DELETED",
        "action.RUN.START", "action.ODD", "action.ODD", "action.ODD",
        "sync.complete"]
    assert [r[2] for r in rows] == ids(at)
    bodies = [json.loads(r[1]) for r in rows]
    assert [b["id"] for b in bodies] == ids(at)
    assert bodies[0]["payload"]["path"] == "/a.txt"
    assert bodies[0]["table"] == "artifacts" and bodies[0]["user"] == out
    assert bodies[4]["payload"] == {"label": "x"}
    assert [(b["payload"], b["key"]) for b in bodies[5:8]] == [
        ("not json", {"blob": "00ff"}), ("\x01", "1.5"), ("text", None)]
    assert bodies[8]["direction"] == "PUSH" and bodies[8]["key"] == 7
    assert flush(at) == (0, 0)


def test_a_large_log_goes_out_in_order_and_in_parts(at, out):
    fill(at, 10000)
    assert flush(at, 1) == (1, 0)
    assert flush(at, 5000) == (5000, 0)
    assert at.one("SELECT count(*) FROM action_log WHERE synced=1") == 5001
    assert flush(at) == (4999, 0)
    assert [r[2] for r in stored(at, out)] == ids(at)


def test_an_event_goes_out_as_it_was_emitted(at, out):
    at.one("SELECT event_define('v1.Tea', '{\"grams\":\"number\"}', '')")
    ids = [at.one("SELECT event_emit('v1.Tea', ?)", '{"grams": %d}' % i)
           for i in range(3)]
    at.run("DELETE FROM event_log WHERE payload = '{\"grams\": 1}'")
    assert flush(at) == (3, 0)
    rows = stored(at, out)
    assert [r[2] for r in rows] == ids
    assert [r[0].split(".", 3)[3] for r in rows] == [
        "event.v1.Tea", "action.EVENT", "event.v1.Tea"]
    assert rows[2][1] == '{"grams": 2}'
    assert json.loads(rows[1][1])["payload"] == {"name": "v1.Tea"}


def test_what_is_marked_again_is_published_again(at, out):
    fill(at, 300)
    flush(at)
    at.run("UPDATE action_log SET synced=0 WHERE seq IN (3, 299)")
    assert flush(at) == (2, 2)  # the stream knew both
    assert len(stored(at, out)) == 300


def test_two_flushers_publish_nothing_twice(at, out, server, tmp_path):
    fill(at, 20000)
    program = FLUSHER.format(so=SO, url=server.url, user=out)
    script = tmp_path / "flusher.py"
    script.write_text(program)
    both = [subprocess.Popen([sys.executable, script, at.path, "1"])
            for _ in range(2)]
    assert [p.wait(60) for p in both] == [0, 0]
    assert at.one("SELECT count(*) FROM action_log WHERE synced=0") == 0
    assert [r[2] for r in stored(at, out)] == ids(at)


def test_it_stands_alone(at, out):
    fill(at, 3)
    at.run("BEGIN")
    assert "inside a transaction" in at.error("SELECT nats_flush()")
    at.run("ROLLBACK")
    assert "call it alone" in at.error(
        "SELECT nats_flush() FROM action_log")
    assert flush(at) == (3, 0)


@pytest.mark.inprocess
def test_a_read_only_file_publishes_nothing(at, out, open_db):
    fill(at, 3)
    reader = open_db(f"file:{at.path}?mode=ro", uri=True)
    reader.one("SELECT choir_config('user', ?)", out)
    reader.one("SELECT choir_config('nats.url', 'nats://127.0.0.1:1')")
    assert "read-only" in reader.error("SELECT nats_flush()")
    assert stored(at, out) == []


@pytest.mark.parametrize("user", ["a.b", "a.b.c"])
def test_a_user_who_is_no_word_of_a_subject_is_refused(at, user):
    at.one("SELECT choir_config('user', ?)", user)
    assert f"the user '{user}' cannot be one word" in at.error(
        "SELECT nats_flush()")


@pytest.mark.parametrize("kind, id, message", [
    ("A B", "x", "not a subject: it has a blank"),
    ("A..B", "x", "a part between dots is empty"),
    (".", "x", "a part between dots is empty"), ("*", "x", "wildcard"),
    ("A.>", "x", "wildcard"), ("A\r\nPUB x 0", "x", "it has a blank"),
    ("", "x", "empty"), ("OK", "a b", "its id: msg_id must be"),
    ("OK", "", "its id: msg_id must be"),
    ("OK", "a\r\nX: y", "its id: msg_id must be")])
def test_a_row_that_cannot_go_out_is_named(at, out, kind, id, message):
    fill(at, 2)
    at.rows("INSERT INTO action_log(id, action_type) VALUES(?, ?)", id, kind)
    fill(at, 1)
    error = at.error("SELECT nats_flush()")
    assert "row 3 of action_log" in error and message in error
    at.error("SELECT nats_flush()")
    at.run("UPDATE action_log SET synced=1 WHERE seq=3")
    flush(at)
    assert [r[2] for r in stored(at, out)] == [
        i for n, i in enumerate(ids(at)) if n != 2]


def test_a_stream_that_refuses_says_why_and_nothing_is_lost(at):
    name = "R" + os.urandom(4).hex()
    at.one("SELECT choir_config('user', ?)", name)
    at.one("SELECT choir_config('nats.stream', ?)", name)
    fill(at, 5)
    assert "no stream of 127.0.0.1" in at.error("SELECT nats_flush()")
    at.one("SELECT nats_stream_create(?, json_array(?), '{\"max_msgs\":3,"
           "\"discard\":\"new\"}')", name, f"choiros.user.{name}.>")
    assert "row 4 of action_log: the stream refuses" in at.error(
        "SELECT nats_flush()")
    assert at.one("SELECT count(*) FROM action_log WHERE synced=1") == 3
    other = at.one("SELECT choir_config('nats.stream', 'another')")
    assert other == "another"
    assert "does not match" in at.error("SELECT nats_flush()")


def test_no_lock_is_held_while_the_network_is_waited_for(at, open_db):
    """A server that takes its time: others write meanwhile."""
    seen = threading.Event()

    def slow(p):
        p.hello()
        replies = [p.request()[1] for _ in range(100)]
        seen.set()
        time.sleep(1.2)
        for i, reply in enumerate(replies, 1):
            p.answer(reply, b'{"stream":"CHOIROS","seq":%d}' % i)
        p.wait()
    fill(at, 100)
    other = open_db(at.path)
    other.run("PRAGMA busy_timeout=0")
    with ScriptedNats(slow) as s:
        at.one("SELECT choir_config('nats.url', ?)", s.url)
        times = []

        def write():
            con = sqlite3.connect(at.path, isolation_level=None, timeout=0)
            seen.wait(5)
            for i in range(20):
                con.execute("INSERT INTO user_settings(setting_name) "
                            "VALUES(?)", (f"s{i}",))
                times.append(time.monotonic())
                time.sleep(0.01)
            con.close()
        thread = threading.Thread(target=write)
        thread.start()
        assert flush(at) == (100, 0)
        thread.join()
    assert len(times) == 20
    assert at.one("SELECT count(*) FROM action_log WHERE synced=0") == 20


def test_a_lost_connection_loses_nothing(at, out, server):
    fill(at, 500)

    def dies(p):
        p.hello()
        for i in range(200):
            reply = p.request()[1]
            if i < 100:
                p.answer(reply, b'{"stream":"%s","seq":%d}'
                         % (out.encode(), i + 1))
    with ScriptedNats(dies) as s:
        at.one("SELECT choir_config('nats.url', ?)", s.url)
        assert "closed by the server" in at.error("SELECT nats_flush()")
    kept = at.one("SELECT count(*) FROM action_log WHERE synced=1")
    assert 0 < kept <= 100  # what arrived before the connection was reset
    at.one("SELECT choir_config('nats.url', ?)", server.url)
    # what the other one claimed to have is not there: everything again
    assert json.loads(at.one("SELECT nats_flush()"))["resent"] == kept
    assert [r[2] for r in stored(at, out)] == ids(at)


def test_what_a_server_acknowledged_and_lost_is_published_again(db, tmp_path):
    s = nats.Nats(tmp_path / "n")
    db.one("SELECT choir_config('nats.url', ?)", s.url)
    db.one("SELECT choir_config('user', 'ada')")
    create = "SELECT nats_stream_create('CHOIROS', '[\"choiros.>\"]')"
    db.one(create)
    fill(db, 50)
    assert flush(db) == (50, 0)
    s.kill()
    s.start()
    assert json.loads(db.one("SELECT nats_flush()"))["resent"] == 0
    s.kill()
    shutil.rmtree(s.folder / "js")
    s.start()
    db.one(create)
    fill(db, 50)
    result = json.loads(db.one("SELECT nats_flush()"))
    assert (result["published"], result["resent"]) == (100, 50)
    assert [r[2] for r in stored(db, "CHOIROS")] == ids(db)
    s.stop()


@pytest.mark.parametrize("name", ["remote.sqlite", "folder/"])
def test_push_flush_push_and_then_nothing_more_moves(at, out, tmp_path, name):
    (tmp_path / "folder").mkdir()
    remote = f"file://{tmp_path}/{name}"

    def push():
        return json.loads(at.one("SELECT sync_push(?)", remote))["pushed"]
    for round in range(3):
        at.one("SELECT artifact_put('/a.txt', ?)", str(round))
        assert push() == 1
        assert flush(at)[0] >= 2
        push()
        for _ in range(4):
            assert (flush(at), push()) == ((0, 0), 0)
    # what waited goes out with the next action
    at.one("SELECT log_record('RUN_END', '{}')")
    flush(at)
    rows = stored(at, out)
    assert [r[2] for r in rows] == ids(at)
    assert sum(r[0].endswith("sync.complete") for r in rows) == 6


# ------------------------------------------------------------------- kill -9

FLUSHER = """
import sqlite3, sys, time
con = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
con.enable_load_extension(True)
con.load_extension({so!r})
for key, value in (("nats.url", {url!r}), ("user", {user!r}),
                   ("nats.stream", {user!r}), ("nats.timeout_ms", "2000")):
    con.execute("SELECT choir_config(?, ?)", (key, value)).fetchall()
once = sys.argv[2] == "1"
n = 0
while True:
    if not once:
        con.execute("BEGIN IMMEDIATE")
        for _ in range(1 + n * 7 % 60):
            n += 1
            con.execute("INSERT INTO action_log(action_type, payload)"
                        " VALUES('STEP', '{{}}')")
        con.execute("COMMIT")
        print(n, flush=True)
    try:
        con.execute("SELECT nats_flush()").fetchall()
    except sqlite3.Error as e:
        if once:
            raise
        print(e, file=sys.stderr, flush=True)
        time.sleep(0.02)
    if once:
        break
"""


class Publisher:
    def __init__(self, tmp_path, db, server, name):
        self.script = tmp_path / "publisher.py"
        self.script.write_text(FLUSHER.format(so=SO, url=server.url,
                                              user=name))
        self.path, self.err = db.path, open(tmp_path / "stderr", "ab")

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, self.script, self.path, "0"],
            stdout=subprocess.PIPE, stderr=self.err)
        self.process.stdout.readline()  # it is at work

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def check(db, name):
    """A consumer that drops what it has seen sees every action, in order."""
    flush(db)
    first = list(dict.fromkeys(r[2] for r in stored(db, name)))
    assert first == ids(db)
    assert db.one("PRAGMA integrity_check") == "ok"


@pytest.mark.once
def test_kill_the_publisher_at_any_moment(at, out, server, tmp_path):
    publisher = Publisher(tmp_path, at, server, out)
    rng = random.Random(1)
    for _ in range(200 if nats.FULL else 6):
        publisher.start()
        time.sleep(rng.uniform(0, 0.12))
        publisher.kill()
    check(at, out)
    assert at.one("SELECT count(*) FROM action_log") > 5
    publisher.err.close()


@pytest.mark.once
def test_kill_the_server_at_any_moment(db, tmp_path):
    s = nats.Nats(tmp_path / "n")
    name = "K"
    db.one("SELECT choir_config('nats.url', ?)", s.url)
    db.one("SELECT choir_config('user', 'K')")
    db.one("SELECT choir_config('nats.stream', 'K')")
    db.one("SELECT nats_stream_create('K', '[\"choiros.>\"]')")
    publisher = Publisher(tmp_path, db, s, name)
    publisher.start()
    rng = random.Random(2)
    for _ in range(200 if nats.FULL else 6):
        time.sleep(rng.uniform(0, 0.15))
        s.kill()
        time.sleep(rng.uniform(0, 0.02))
        s.start()
    time.sleep(0.3)
    publisher.kill()
    check(db, name)
    publisher.err.close()
    s.stop()
