# SPDX-License-Identifier: MIT
"""A function that writes is all or nothing, keeps out of the host's
transaction and bookkeeping, and says where it cannot be called."""
import pytest

INSIDE = ("a statement that writes is running; call it as SELECT f(…), not"
          " inside INSERT, UPDATE, DELETE or CREATE TABLE AS")


@pytest.mark.parametrize("sql", [
    "INSERT INTO mine SELECT setting_set('a', 1)",
    "INSERT INTO mine VALUES(setting_set('a', 1))",
    "UPDATE mine SET x = setting_set('a', 1)",
    "DELETE FROM mine WHERE setting_set('a', 1) = 1",
    "CREATE TABLE made AS SELECT setting_set('a', 1)",
])
def test_inside_a_statement_that_writes_it_says_how_to_call_it(db, sql):
    db.run("CREATE TABLE mine(x); INSERT INTO mine VALUES(0)")
    assert db.error(sql) == f"setting_set: {INSIDE}"
    assert db.one("SELECT setting_get('a')") is None
    assert db.rows("SELECT * FROM mine") == [(0,)]


def test_a_failed_call_leaves_nothing_behind(db):
    before = db.rows("SELECT * FROM artifacts"), db.rows("SELECT * FROM action_log")
    db.run("CREATE TRIGGER no AFTER INSERT ON artifacts BEGIN"
           " SELECT RAISE(ABORT, 'not today'); END")
    assert "not today" in db.error("SELECT artifact_put('/a', 'x')")
    assert (db.rows("SELECT * FROM artifacts"),
            db.rows("SELECT * FROM action_log")) == before
    db.run("BEGIN; COMMIT")  # no transaction was left open


def test_a_failed_call_inside_a_transaction_of_the_host_undoes_itself_alone(db):
    db.run("CREATE TABLE mine(x);"
           "CREATE TRIGGER no AFTER INSERT ON artifacts BEGIN"
           " SELECT RAISE(ABORT, 'not today'); END;"
           "BEGIN; INSERT INTO mine VALUES(1)")
    assert "not today" in db.error("SELECT artifact_put('/a', 'x')")
    db.run("INSERT INTO mine VALUES(2); COMMIT")
    assert db.rows("SELECT x FROM mine") == [(1,), (2,)]
    assert db.one("SELECT count(*) FROM artifacts") == 0


def test_a_rollback_of_the_host_takes_the_call_back(db):
    db.run("BEGIN")
    db.one("SELECT setting_set('a', 1)")
    db.run("ROLLBACK")
    assert db.one("SELECT setting_get('a')") is None


def test_it_can_be_called_between_savepoints_of_the_host(db):
    db.run("SAVEPOINT choir_call; SAVEPOINT mine")
    db.one("SELECT setting_set('a', 1)")
    db.run("ROLLBACK TO mine; RELEASE mine")
    db.one("SELECT setting_set('b', 2)")
    db.run("RELEASE choir_call; BEGIN; COMMIT")
    assert db.one("SELECT setting_get('a')") is None
    assert db.one("SELECT setting_get('b')") in (2, "2")


def test_last_insert_rowid_is_the_hosts(db):
    db.run("CREATE TABLE mine(x); INSERT INTO mine(rowid, x) VALUES(4711, 1)")
    db.one("SELECT artifact_put('/a', 'x')")
    db.one("SELECT setting_set('a', 1)")
    assert db.one("SELECT last_insert_rowid()") == 4711
    db.error("SELECT message_add('nobody', 'user', 'x')")
    assert db.one("SELECT last_insert_rowid()") == 4711


def test_it_is_called_once_a_row_while_the_host_reads(db):
    db.run("CREATE TABLE names(n); INSERT INTO names VALUES('a'),('b'),('c')")
    rows = db.rows("SELECT setting_set(n, n) FROM names")
    assert len(rows) == 3
    assert db.one("SELECT count(*) FROM user_settings") == 3


def test_a_read_only_file_is_refused_and_reads_on(open_db, tmp_path):
    d = open_db(tmp_path / "ws.db", init=True)
    d.one("SELECT setting_set('a', 1)")
    d.run("PRAGMA journal_mode=DELETE; PRAGMA query_only=1")
    assert "readonly" in d.error("SELECT setting_set('a', 2)").replace("-", "")
    assert d.one("SELECT setting_get('a')") in (1, "1")


def test_a_busy_database_is_named_and_nothing_is_lost(open_db, tmp_path):
    a = open_db(tmp_path / "ws.db", init=True)
    b = open_db(tmp_path / "ws.db", pragmas=["busy_timeout=50"])
    b.run("PRAGMA busy_timeout=50")
    a.run("BEGIN IMMEDIATE")
    assert b.error("SELECT setting_set('a', 1)") == (
        "setting_set: database is locked; PRAGMA busy_timeout says how long to"
        " wait for the connection that writes")
    a.run("COMMIT")
    b.one("SELECT setting_set('a', 1)")
    assert a.one("SELECT setting_get('a')") in (1, "1")


def test_a_reader_that_fell_behind_a_writer_is_told_what_to_do(open_db, tmp_path):
    """SQLite does not wait then, whatever the timeout."""
    a = open_db(tmp_path / "ws.db", init=True)
    b = open_db(tmp_path / "ws.db")
    b.run("BEGIN")
    b.rows("SELECT * FROM user_settings")
    a.one("SELECT setting_set('a', 1)")
    message = b.error("SELECT setting_set('b', 1)")
    assert "another connection wrote since" in message
    assert "call it alone, as SELECT f(…), or after BEGIN IMMEDIATE" in message
    b.run("ROLLBACK; BEGIN IMMEDIATE")
    b.rows("SELECT * FROM user_settings")
    b.one("SELECT setting_set('b', 1)")
    b.run("COMMIT")
    assert a.one("SELECT count(*) FROM user_settings") == 2
