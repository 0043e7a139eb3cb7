# SPDX-License-Identifier: MIT
"""Watches: what changed is named, commits of others are seen at once."""
import json
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from conftest import SANITIZED

SEEDS = {  # the labels that the seeds' reactive queries have
    "personaMemories$":
        "SELECT persona_id, count(*), avg(importance) FROM memories"
        " GROUP BY persona_id ORDER BY 1",
    "activePersona$": "SELECT id, name FROM active_persona",
    "dashboardMetrics$":
        "SELECT (SELECT count(*) FROM personas),"
        " (SELECT count(*) FROM memories), (SELECT count(*) FROM messages)",
}


def define(db, label, sql):
    return json.loads(db.one("SELECT watch_define(?, ?)", label, sql))


def poll(db, *timeout):
    return [r[0] for r in db.rows("SELECT label FROM watch_poll"
                                  + ("(?)" if timeout else ""), *timeout)]


@pytest.fixture
def seeds(db):
    for label, sql in SEEDS.items():
        define(db, label, sql)
    return db


def test_a_watch_knows_its_tables_and_is_a_view(seeds, tmp_path):
    assert define(seeds, "activePersona$", SEEDS["activePersona$"]) == {
        "label": "activePersona$", "tables": ["personas"]}
    assert sorted(define(seeds, "dashboardMetrics$",
                         SEEDS["dashboardMetrics$"])["tables"]) == [
        "memories", "messages", "personas"]
    plain = sqlite3.connect(tmp_path / "ws.db")
    assert plain.execute('SELECT * FROM "_choir_watch_dashboardMetrics$"'
                         ).fetchall() == [(0, 0, 0)]
    plain.close()


def test_a_poll_names_what_changed_and_only_that(seeds):
    assert poll(seeds) == ["activePersona$", "dashboardMetrics$",
                           "personaMemories$"]
    assert poll(seeds) == []
    seeds.run("INSERT INTO personas(id, name) VALUES('p', 'Ada')")
    assert poll(seeds) == ["dashboardMetrics$"]
    seeds.run("UPDATE personas SET is_active = 1")
    assert poll(seeds) == ["activePersona$"]
    seeds.run("INSERT INTO memories(persona_id, content) VALUES('p', 'tea')")
    rows = seeds.rows("SELECT label, rows, length(hash) FROM watch_poll")
    assert rows == [("dashboardMetrics$", 1, 64), ("personaMemories$", 1, 64)]
    seeds.run("UPDATE memories SET content = 'more tea'")
    assert poll(seeds) == []  # not in a result
    seeds.run("BEGIN; DELETE FROM memories")
    assert poll(seeds) == ["dashboardMetrics$", "personaMemories$"]
    seeds.run("ROLLBACK")
    assert poll(seeds) == ["dashboardMetrics$", "personaMemories$"]


def test_the_hash_is_that_of_values_and_types(db):
    db.run("CREATE TABLE t(a)")
    define(db, "w", "SELECT a FROM t")
    seen = set()
    for value in ("NULL", "1", "1.0", "'1'", "x'31'", "''", "x''", "'1\t'"):
        db.run(f"DELETE FROM t; INSERT INTO t VALUES({value})")
        seen.add(db.one("SELECT hash FROM watch_poll"))
    assert len(seen) == 8
    db.run("DELETE FROM t; INSERT INTO t VALUES(1)")
    assert db.one("SELECT hash FROM watch_poll") in seen


def test_changes_of_others_and_of_tables_that_are_not_logged(
        seeds, tmp_path, open_db):
    define(seeds, "cache", "SELECT count(*) FROM server_cache")
    seeds.run("CREATE TABLE kept(a)")
    seeds.one("SELECT log_track('kept')")
    define(seeds, "kept", "SELECT * FROM kept")
    poll(seeds)
    other = open_db(tmp_path / "ws.db", choir=False)
    other.run("INSERT INTO server_cache(key) VALUES('k')")
    assert poll(seeds) == ["cache"]
    other.run("INSERT INTO kept VALUES(1)")
    assert poll(seeds) == ["kept"]
    other.run("ALTER TABLE kept RENAME TO gone;"  # as views do, it follows
              "UPDATE gone SET a = 2")
    assert poll(seeds) == ["kept"]


def test_what_was_not_fetched_is_told_again(seeds):
    assert len(seeds.rows("SELECT label FROM watch_poll LIMIT 1")) == 1
    assert {"dashboardMetrics$", "personaMemories$"} <= set(poll(seeds))
    assert poll(seeds) == []


def test_a_table_that_lost_a_trigger_is_looked_at(db):
    db.run("CREATE TABLE tea(a); INSERT INTO tea VALUES(1)")
    db.one("SELECT log_track('tea')")
    define(db, "tea", "SELECT a FROM tea")
    assert poll(db) == ["tea"]
    db.run('DROP TRIGGER "_choir_log_@1_update"')
    assert poll(db) == []
    db.run("UPDATE tea SET a = 2")
    assert poll(db) == ["tea"]


def test_a_watch_may_be_replaced_and_removed(seeds):
    poll(seeds)
    define(seeds, "activePersona$", "SELECT 1")
    assert poll(seeds) == ["activePersona$"]
    assert define(seeds, "activePersona$", None)["tables"] == []
    assert poll(seeds) == []
    assert seeds.rows("SELECT name FROM sqlite_schema WHERE name ="
                      " '_choir_watch_activePersona$'") == []


@pytest.mark.parametrize("arguments, message", [
    (("a b", "SELECT 1"), "label must be 1 to 64 of"),
    ((None, "SELECT 1"), "label must be text, got null"),
    (("a", "DELETE FROM messages"), 'near "DELETE": syntax error'),
    (("a", "SELECT 1; DELETE FROM messages"),
     "sql must be one SELECT, and goes on with"),
    (("a", "SELECT * FROM nowhere"), "no such table: main.nowhere"),
    (("a", ""), "incomplete input"),
    (("a", 1), "sql must be text, got integer"),
])
def test_what_is_no_watch_says_why(arguments, message, db):
    assert db.error("SELECT watch_define(?, ?)", *arguments).startswith(
        "watch_define: " + message)
    assert db.rows("SELECT name FROM sqlite_schema WHERE name GLOB"
                   " '_choir_watch_*'") == []


def test_versions_of_tables(db):
    assert db.rows("SELECT * FROM log_versions") == []
    db.one("SELECT setting_set('a', '1')")
    db.one("SELECT setting_set('a', '2')")
    db.one("SELECT artifact_put('/x', 'y')")
    assert db.rows("SELECT * FROM log_versions") == [
        ("artifacts", 3, 1), ("user_settings", 2, 2)]


def test_nobody_else_writes_a_database_in_memory(open_db):
    d = open_db(init=True)
    assert d.one("SELECT watch_wait(0, 60000)") is None
    d.one("SELECT log_record('A', '{}')")
    assert d.one("SELECT watch_wait(0, 60000)") == 1


def test_a_wait_ends_when_its_time_is_over(db):
    start = time.monotonic()
    assert db.one("SELECT watch_wait(0, 150)") is None
    assert poll(db, 150) == []
    assert 0.29 < time.monotonic() - start < 5
    assert db.error("SELECT watch_wait(0, -1)").startswith(
        "watch_wait: timeout_ms must be")
    assert db.error("SELECT * FROM watch_poll('x')").startswith(
        "watch_poll: timeout_ms must be")


WRITER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for i in range(int(sys.argv[2])):
    sys.stdin.readline()
    db.execute("INSERT INTO user_settings(setting_name) VALUES(?)", (str(i),))
    print(time.clock_gettime(time.CLOCK_MONOTONIC), flush=True)
"""


@pytest.mark.inprocess
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_commit_of_another_process_is_seen_within_50_ms(mode, db, tmp_path):
    db.run(f"PRAGMA journal_mode = {mode}")
    n, late = 12, []
    writer = subprocess.Popen([sys.executable, "-c", WRITER,
                               tmp_path / "ws.db", str(n)], text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    cpu = time.process_time()
    for i in range(n):
        timer = threading.Timer(0.05 + i * 0.007, lambda: (
            writer.stdin.write("\n"), writer.stdin.flush()))
        timer.start()
        assert db.one("SELECT watch_wait(?, 20000)", i) == i + 1
        seen = time.clock_gettime(time.CLOCK_MONOTONIC)
        late.append(seen - float(writer.stdout.readline()))
        timer.join()
    cpu = time.process_time() - cpu
    writer.stdin.close()
    writer.stdout.close()
    assert writer.wait() == 0
    # The better half: on a busy machine both wait for a processor too.
    assert sorted(late)[n // 4] < 0.05, late
    if not SANITIZED:
        assert cpu < 0.5, cpu  # of about 1.2 seconds of waiting


@pytest.mark.inprocess
def test_a_poll_waits_for_a_change_of_its_result(seeds, tmp_path):
    poll(seeds)

    def write():
        other = sqlite3.connect(tmp_path / "ws.db", isolation_level=None)
        other.execute("INSERT INTO user_settings(setting_name) VALUES('x')")
        time.sleep(0.05)
        other.execute("INSERT INTO personas(name) VALUES('Ada')")
        other.close()
    timer = threading.Timer(0.05, write)
    timer.start()
    assert poll(seeds, 20000) == ["dashboardMetrics$"]
    timer.join()
    assert poll(seeds) == []


@pytest.mark.inprocess
def test_a_wait_is_interrupted(db):
    over = threading.Event()

    def interrupt():  # again, in case the first came before the statement
        while not over.wait(0.1):
            db.con.interrupt()
    thread = threading.Thread(target=interrupt)
    thread.start()
    assert "interrupted" in db.error("SELECT watch_wait(0, 60000)")
    over.set()
    thread.join()
