# SPDX-License-Identifier: MIT
"""Tasks, citations, personas, the views on them and the metrics."""
import collections
import json
import multiprocessing
import time

import pytest
from conftest import Db


def claim(db, *args):
    got = db.one(f"SELECT task_claim({','.join('?' * len(args))})", *args)
    return got and json.loads(got)


def test_tasks_are_claimed_oldest_first_and_once(db):
    ids = [db.one("SELECT task_add(?, ?)", "ab"[i % 2], json.dumps({"n": i})) for i in range(6)]
    assert claim(db, "b")["id"] == ids[1]
    assert [claim(db)["id"] for _ in range(5)] == [ids[i] for i in (0, 2, 3, 4, 5)]
    assert claim(db) is None


def test_a_task_goes_its_way(db):
    ident = db.one("SELECT task_add('sum', '[1,2]')")
    assert db.rows("SELECT id, status, task_type, started FROM tasks_open") == [
        (ident, "PENDING", "sum", None)]
    task = claim(db, None, 60000)
    assert (task["type"], task["input"], task["attempt"]) == ("sum", [1, 2], 1)
    assert 50000 < task["lease_until"] - time.time() * 1000 <= 60000
    assert db.rows("SELECT status, lease_until FROM tasks_open")[0][0] == "RUNNING"
    assert db.one("SELECT task_done(?, '{\"sum\":3}')", ident) == 1
    assert db.one("SELECT task_done(?, 'again')", ident) == 0
    assert db.rows("SELECT status, output, error, completed_at >= started_at, lease_until"
                   " FROM agent_tasks") == [("COMPLETED", '{"sum":3}', None, 1, None)]
    assert db.rows("SELECT * FROM tasks_open") == []
    assert [r[0] for r in db.rows("SELECT action_type FROM action_log ORDER BY seq")] == [
        "TASK_ADD", "TASK_START", "TASK_DONE"]


def test_plain_input_stays_text(db):
    db.one("SELECT task_add('t', 'not json'), task_add('t', 5)")
    assert [claim(db)["input"], claim(db)["input"]] == ["not json", 5]
    # Not a number to SQLite's columns either: it would lose digits.
    db.one("SELECT task_add('t', '007'), task_add('t', ?)", "9" * 40)
    assert [claim(db)["input"], claim(db)["input"]] == ["007", int("9" * 40)]
    db.run("INSERT INTO agent_tasks(task_type, input) VALUES('t', '1.10')")
    assert db.one("SELECT input FROM agent_tasks"
                  " WHERE status = 'PENDING'") == "1.10"


def test_a_failed_task_is_a_dead_letter(db):
    ident = db.one("SELECT task_add('t', '{}')")
    assert db.one("SELECT task_fail(?, 'not mine')", ident) == 0  # not RUNNING
    claim(db)
    assert db.one("SELECT task_fail(?, 'no such file')", ident) == 1
    assert claim(db) is None
    assert db.rows("SELECT id, error, attempts FROM tasks_failed") == [(ident, "no such file", 1)]


def test_a_retry_waits_and_ends_after_max_attempts(db):
    ident = db.one("SELECT task_add('t', '{}', 2)")
    claim(db)
    assert db.one("SELECT task_fail(?, 'later', 3600000)", ident) == 1
    assert claim(db) is None
    db.run("UPDATE agent_tasks SET lease_until = lease_until - 3600000")
    assert claim(db)["attempt"] == 2
    assert db.one("SELECT task_fail(?, 'again', 0)", ident) == 1
    assert claim(db) is None
    assert db.rows("SELECT error, attempts FROM tasks_failed") == [("again", 2)]
    assert db.one("SELECT lease_until FROM agent_tasks") is None


def test_a_retry_that_succeeds_has_no_error_and_no_earlier_start(db):
    ident = db.one("SELECT task_add('t', '{}')")
    claim(db)
    db.run("UPDATE agent_tasks SET started_at = 9000000000000")  # a clock that was wrong
    db.one("SELECT task_fail(?, 'later', 0)", ident)
    claim(db)
    assert db.one("SELECT task_done(?, 1)", ident) == 1
    assert db.rows("SELECT status, error, started_at, lease_until FROM agent_tasks") == [
        ("COMPLETED", None, 9000000000001, None)]


def test_a_lease_that_ends_gives_the_task_to_another_until_it_is_dead(db):
    ident = db.one("SELECT task_add('t', '{}', 2)")
    for attempt in (1, 2):
        assert claim(db, None, 1)["attempt"] == attempt
        time.sleep(0.01)
    assert claim(db) is None
    assert db.one("SELECT task_done(?, 1)", ident) == 0
    assert db.rows("SELECT error, attempts FROM tasks_failed") == [
        ("the lease ended 2 times, the last attempt allowed", 2)]
    db.run("UPDATE agent_tasks SET status = 'PENDING', attempts = 0")  # by hand, once more
    assert claim(db)["attempt"] == 1


def worker(path, start, results):
    d = Db(path)
    d.run("PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 30000")
    start.wait()
    mine = []
    while True:
        got = d.one("SELECT task_claim()")
        if got is None:
            break
        mine.append(got[7:43])
    d.close()
    results.put(mine)


@pytest.mark.once
@pytest.mark.inprocess
def test_eight_processes_claim_each_task_exactly_once(db):
    n = 1000
    db.run("BEGIN")
    for i in range(n):
        db.one("SELECT task_add('t', ?)", i)
    db.run("COMMIT")
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    workers = [context.Process(target=worker, args=(db.path, start, results)) for _ in range(8)]
    for w in workers:
        w.start()
    start.set()
    claims = collections.Counter(sum((results.get(timeout=60) for _ in workers), []))
    for w in workers:
        w.join()
    assert len(claims) == n and set(claims.values()) == {1}
    assert db.rows("SELECT status, attempts, count(*) FROM agent_tasks GROUP BY 1, 2") == [
        ("RUNNING", 1, n)]


def test_two_connections_that_write_at_once_wait_for_each_other(tmp_path, open_db):
    a, b = open_db(tmp_path / "w.db", init=True), open_db(tmp_path / "w.db")
    a.one("SELECT setting_set('k', 'a')")
    b.run("PRAGMA busy_timeout = 0")
    a.run("BEGIN IMMEDIATE")
    assert "locked" in b.error("SELECT setting_set('k', 'b')")
    a.run("COMMIT")
    assert b.one("SELECT setting_set('k', 'b')") == 1


@pytest.mark.parametrize("call, problem", [
    ("task_add('', 1)", "type must have 1 to 1000 bytes, got 0"),
    ("task_add('t', NULL)", "input must be given, got null"),
    ("task_add('t', x'00')", "input must be text, got blob"),
    ("task_add('t', 1, 0)", "max_attempts must be 1 to 1000, got 0"),
    ("task_claim(5)", "type must be text, got integer"),
    ("task_claim('t', 0)", "lease_ms must be 1 to 2592000000, got 0"),
    ("task_done(NULL, 1)", "id must be text, got null"),
    ("task_done('x', x'00')", "output must be text, got blob"),
    ("task_fail('x', 'y', -1)", "retry_ms must be 0 to 2592000000, got -1"),
    ("citation_add('/none', 'r', 1)", "no artifact '/none'; see artifact_ls"),
    ("citation_add('/a', 'r', 1.5)", "weight must be 0 to 1, got 1.5"),
    ("citation_add('/a', 'r', NULL)", "weight must be a number, got null"),
    ("citation_add('/a', '', 1)", "run must have 1 to 1000 bytes, got 0"),
    ("persona_activate('none')", "no persona 'none'; insert one into personas"),
])
def test_what_is_refused(db, call, problem):
    db.one("SELECT artifact_put('/a', 'x')")
    assert db.error("SELECT " + call) == f"{call.split('(')[0]}: {problem}"
    assert db.one("SELECT (SELECT count(*) FROM agent_tasks) + (SELECT count(*) FROM citations)") == 0


def test_citations_are_summed_up_and_outlive_their_artifact(db):
    ident = db.one("SELECT artifact_put('/a.md', 'x')")
    db.one("SELECT citation_add('/a.md', 'run-1', 0.25, 'quoted'), citation_add(?, 'run-1', 1)", ident)
    db.one("SELECT artifact_delete('/a.md')")
    assert "no artifact '/a.md'" in db.error("SELECT citation_add('/a.md', 'run-2', 1)")
    assert db.rows("SELECT path, deleted, citations, runs, weight FROM citation_totals") == [
        ("/a.md", 1, 2, 1, 1.25)]


def test_activating_a_persona_is_instant_and_exclusive(db):
    db.run("INSERT INTO personas(id, name, personality) VALUES('a', 'Ada', '{\"warm\":1}'), ('b', 'Bea', '{}');"
           "INSERT INTO memories(persona_id, content, importance) VALUES('a', 'likes tea', 0.9)")
    assert db.one("SELECT persona_activate('a')") == 1
    assert db.one("SELECT persona_activate('a')") == 0
    assert db.rows("SELECT name, personality, memories FROM active_persona") == [
        ("Ada", '{"warm":1}', 1)]
    assert db.one("SELECT persona_activate('b')") == 1
    assert db.rows("SELECT name FROM active_persona") == [("Bea",)]
    assert db.rows("SELECT persona, content, importance FROM persona_memories") == [
        ("Ada", "likes tea", 0.9)]


def test_the_six_metrics_are_there_and_say_what_they_are(db):
    names = ["queryCount", "averageResponseTime", "connectionPoolUtilization",
             "reactiveQueryCount", "eventCount", "syncStatus"]

    def metrics():
        return {n: (v, u) for n, v, u in db.rows("SELECT name, value, unit FROM choir_metrics")}

    before = metrics()
    db.one("SELECT state_set('k', '$', 1)")
    db.rows("SELECT state_get('k')")
    after = metrics()
    assert all(after[n][1] for n in names)
    assert after["queryCount"][0] == before["queryCount"][0] + 2
    assert 0 < after["averageResponseTime"][0] < 1000
    assert 0 < after["connectionPoolUtilization"][0] < 1
    assert after["eventCount"][0] == before["eventCount"][0] + 1
    assert after["syncStatus"][0] == "never"


def test_sync_health_follows_the_remote(db, tmp_path):
    assert db.rows("SELECT * FROM sync_health") == [("never", None, None, None, None)]
    db.one("SELECT state_set('k', '$', 1)")
    time.sleep(0.002)  # times are in milliseconds
    db.one("SELECT sync_push(?)", f"file://{tmp_path}/remote.sqlite")
    status, last, _, local, remote = db.rows("SELECT * FROM sync_health")[0]
    assert (status, local) == ("synced", remote) and last.endswith("Z")
    time.sleep(0.002)
    db.one("SELECT state_set('k', '$', 2)")
    assert db.one("SELECT status FROM sync_health") == "changed"


def test_ten_shards_are_workspaces_of_their_own(tmp_path, open_db):
    d = open_db(tmp_path / "main.db", init=True)
    for i in range(10):
        d.run(f"ATTACH '{tmp_path}/shard{i}.db' AS shard{i}")
        d.one("SELECT choir_init(?)", f"shard{i}")
    for i in list(range(10)) + [3, 7]:
        d.one("SELECT choir_config('schema', ?)", f"shard{i}")
        d.one("SELECT state_set('who', '$', ?), artifact_put(?, 'x')", i, f"/{i}.md")
        d.one("SELECT message_add(conversation_create(?), 'user', 'hi')", f"talk {i}")
        d.one("SELECT task_add('t', ?), cache_set('k', ?)", i, i)
        d.one("SELECT state_checkpoint(?)", f"p{d.one('SELECT count(*) FROM state_checkpoints')}")
    for i in range(10):
        d.one("SELECT choir_config('schema', ?)", f"shard{i}")
        assert d.rows("SELECT state_get('who'), cache_get('k'), (SELECT count(*) FROM artifact_ls('/'))"
                      ) == [(i, i, 1)]
        assert json.loads(d.one("SELECT task_claim()"))["input"] == i
        assert d.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
    union = " UNION ALL ".join(f"SELECT {i}, conversation FROM shard{i}.chat" for i in range(10))
    assert len(d.rows(union)) == 12
    d.one("SELECT choir_config('schema', 'main')")
    assert d.rows("SELECT state_get('who'), (SELECT count(*) FROM artifact_ls('/'))") == [(None, 0)]
