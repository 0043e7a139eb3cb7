# SPDX-License-Identifier: MIT
"""nats_apply(): events of one workspace become events of another, once."""
import json
import os
import random
import subprocess
import sys
import time

import pytest

import nats
from conftest import ROOT, SO
from nats_fixtures import at, server  # noqa: F401

DEFINE = """SELECT event_define('v1.Added', '{"n":"integer"}',
  'INSERT INTO sums(n) VALUES(NEW.payload->>''$.n'')')"""


def prepare(db, user, stream):
    db.one("SELECT choir_config('user', ?)", user)
    db.one("SELECT choir_config('nats.stream', ?)", stream)
    db.run("CREATE TABLE IF NOT EXISTS sums(id INTEGER PRIMARY KEY, n)")
    db.one(DEFINE)


@pytest.fixture
def pair(at, server, open_db, tmp_path):
    """Two workspaces at one stream, and its name."""
    stream = "A" + os.urandom(4).hex()
    # subjects of the tests' users alone, for a subject has one stream
    users = [stream + "ada", stream + "bob"]
    at.one("SELECT nats_stream_create(?, json_array(?, ?))", stream,
           *[f"choiros.user.{u}.>" for u in users])
    other = open_db(tmp_path / "other.db", init=True)
    other.one("SELECT choir_config('nats.url', ?)", server.url)
    for db, user in zip((at, other), users):
        prepare(db, user, stream)
    return at, other, stream


def emit(db, *values):
    for n in values:
        db.one("SELECT event_emit('v1.Added', json_object('n', ?))", n)


def flush(db):
    return json.loads(db.one("SELECT nats_flush()"))["published"]


def apply(db, stream, *more):
    mark = ", ?" * len(more)
    return json.loads(db.one(f"SELECT nats_apply(?, 'here'{mark})", stream,
                             *more))


def sums(db):
    return [r[0] for r in db.rows("SELECT n FROM sums ORDER BY id")]


def drain(db, stream):
    while apply(db, stream)["applied"]:
        pass


def test_events_of_one_are_applied_by_the_other_once_and_in_order(pair):
    ada, bob, stream = pair
    emit(ada, *range(1, 6))
    assert flush(ada) >= 5
    assert apply(bob, stream, 2)["applied"] == 2
    drain(bob, stream)
    assert sums(bob) == [1, 2, 3, 4, 5]
    rows = bob.rows("SELECT id, payload FROM event_log ORDER BY seq")
    assert rows == ada.rows("SELECT id, payload FROM event_log ORDER BY seq")
    emit(bob, 6)
    flush(bob)
    drain(ada, stream)
    drain(bob, stream)
    assert sums(ada) == sums(bob) == [1, 2, 3, 4, 5, 6]
    # what came in does not go out again
    assert flush(ada) == flush(bob) == 0
    subjects = [r[0] for r in ada.rows(
        "SELECT subject FROM nats_fetch(?, 'look', 100, 0) WHERE"
        " subject GLOB '*.event.*'", stream)]
    assert subjects == [f"choiros.user.{stream}ada.event.v1.Added"] * 5 + [
        f"choiros.user.{stream}bob.event.v1.Added"]


def test_ones_own_events_are_known(pair):
    ada, _, stream = pair
    emit(ada, 1, 2)
    flush(ada)
    result = apply(ada, stream)
    assert (result["applied"], result["known"]) == (0, 2)
    assert sums(ada) == [1, 2]


def test_a_message_that_comes_twice_is_applied_once(pair):
    ada, bob, stream = pair
    subject = f"choiros.user.{stream}ada.event.v1.Added"
    for i, id in enumerate(["a", "b", "a", None, None]):
        if id:  # the same id twice, beyond the stream's memory of ids
            ada.one("SELECT nats_js_publish(?, '{\"n\":7}', ?)", subject,
                    id + "-" * i)
        else:
            ada.one("SELECT nats_js_publish(?, '{\"n\":8}')", subject)
    assert apply(bob, stream)["applied"] == 5
    rows = bob.rows("SELECT ack FROM nats_fetch(?, 'again', 9, 0)", stream)
    for (ack,) in rows:
        bob.one("SELECT nats_ack(?, 'nak')", ack)
    result = json.loads(bob.one("SELECT nats_apply(?, 'again')", stream))
    assert (result["applied"], result["known"]) == (0, 5)
    assert sums(bob) == [7, 7, 7, 8, 8]
    assert bob.one("SELECT group_concat(id) FROM event_log WHERE id GLOB ?",
                   stream + ":*") == f"{stream}:4,{stream}:5"


def test_what_is_refused_waits_and_the_rest_goes_on(pair):
    ada, bob, stream = pair
    event = f"choiros.user.{stream}ada.event."
    publish = "SELECT nats_js_publish(?, ?, ?)"
    bob.rows("SELECT * FROM nats_fetch(?, 'here', 1, 0,"
             " '{\"ack_wait\":300000000}')", stream)
    for i, (subject, payload) in enumerate([
            (event + "v1.Added", '{"n":1}'), (event + "v1.Added", '{"n":"x"}'),
            (event + "v1.Added", "not json"), (event + "v1.Added", b"\xff\0"),
            (event + "v2.Added", '{"n":2}'), (event + "v1.Added", ""),
            (f"choiros.user.{stream}ada.action.X", '{"n":3}'),
            (event + "v1.Added", '{"n":4}')]):
        ada.one(publish, subject, payload, f"id-{i}")
    result = apply(bob, stream)
    assert (result["applied"], result["skipped"], result["refused"]) == (
        2, 1, 5)
    assert "message 2: v1.Added: $.n must be integer" in result["error"]
    assert sums(bob) == [1, 4]
    assert bob.one("SELECT count(*) FROM event_log") == 2
    bob.one(DEFINE.replace("v1", "v2"))
    for _ in range(20):
        time.sleep(0.1)
        result = apply(bob, stream)
        if result["applied"]:
            break
    assert sums(bob) == [1, 4, 2]


def test_it_needs_events_and_stands_alone(at, pair, open_db, tmp_path):
    _, bob, stream = pair
    bare = open_db(tmp_path / "bare.db", init=True)
    assert "no events are defined" in bare.error("SELECT nats_apply('S','c')")
    bob.run("BEGIN")
    assert "inside a transaction" in bob.error(
        "SELECT nats_apply(?, 'c')", stream)
    bob.run("ROLLBACK")
    assert "has no stream 'none'" in bob.error("SELECT nats_apply('none','c')")
    assert "max must be 1 to 65536" in bob.error(
        "SELECT nats_apply(?, 'c', 0)", stream)
    assert apply(bob, stream) == {"applied": 0, "known": 0, "skipped": 0,
                                  "refused": 0}


def test_a_database_that_cannot_be_written_acknowledges_nothing(pair):
    ada, bob, stream = pair
    emit(ada, 1)
    flush(ada)
    bob.run("PRAGMA query_only = 1")
    assert "nats_apply" in bob.error("SELECT nats_apply(?, 'ro')", stream)
    bob.run("PRAGMA query_only = 0")
    bob.rows("SELECT nats_ack(ack, 'nak') FROM nats_fetch(?, 'ro', 9, 0)",
             stream)
    assert json.loads(bob.one("SELECT nats_apply(?, 'fresh')", stream))[
        "applied"] == 1


def test_the_recipe_for_a_table_keeps_every_message_once(pair):
    ada, bob, stream = pair
    recipe = (ROOT / "docs/recipes.md").read_text().split(
        "## Messages into a table")[1].split("```sql")[1].split("```")[0]
    recipe = recipe.replace("'CHOIROS'", f"'{stream}'")
    emit(ada, 1, 2, 3)
    flush(ada)
    bob.run(recipe)
    n = bob.one("SELECT count(*) FROM inbox")
    assert bob.one("SELECT count(*) FROM inbox WHERE subject LIKE '%v1.Added'"
                   ) == 3
    bob.run(recipe)
    assert bob.one("SELECT count(*) FROM inbox") == n
    bob.run(recipe.replace("'inbox', 1000", "'again', 1000"))
    assert bob.one("SELECT count(*) FROM inbox") == n


APPLIER = """
import sqlite3, sys
con = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
con.enable_load_extension(True)
con.load_extension({so!r})
con.execute("SELECT choir_config('nats.url', ?)", ({url!r},)).fetchall()
print("ready", flush=True)
while True:
    con.execute("SELECT nats_apply(?, 'here', 40)", ({stream!r},)).fetchall()
"""


@pytest.mark.once
def test_kill_it_at_any_moment(pair, server, tmp_path):
    ada, bob, stream = pair
    rounds = 200 if nats.FULL else 8
    bob.rows("SELECT * FROM nats_fetch(?, 'here', 1, 0,"
             " '{\"ack_wait\":200000000}')", stream)
    n = rounds * 150
    ada.rows("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c"
             " WHERE i<?) SELECT event_emit('v1.Added', json_object('n', i))"
             " FROM c", n)
    flush(ada)
    script = tmp_path / "applier.py"
    script.write_text(APPLIER.format(so=SO, url=server.url, stream=stream))
    rng = random.Random(3)
    for _ in range(rounds):
        p = subprocess.Popen([sys.executable, script, bob.path],
                             stdout=subprocess.PIPE)
        p.stdout.readline()
        time.sleep(rng.uniform(0, 0.03))
        p.kill()
        p.wait()
        p.stdout.close()
    time.sleep(0.3)
    for _ in range(200):
        drain(bob, stream)
        if len(sums(bob)) >= n:
            break
        time.sleep(0.1)
    assert sorted(sums(bob)) == list(range(1, n + 1))
    assert bob.one("SELECT count(*) - count(DISTINCT id) FROM event_log") == 0
    assert bob.one("PRAGMA integrity_check") == "ok"
