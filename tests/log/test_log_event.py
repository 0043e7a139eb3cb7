# SPDX-License-Identifier: MIT
"""Events: checked and applied by triggers, rebuilt exactly by a replay."""
import json
import random
import sqlite3

import pytest

PERSONA = ("v1.PersonaCreated",
           '{"id":"text","name":"text","personality":"object?"}',
           "INSERT INTO personas(id, name, personality, created_at, updated_at)"
           " VALUES(NEW.payload->>'$.id', NEW.payload->>'$.name',"
           " coalesce(NEW.payload->'$.personality', '{}'), NEW.timestamp,"
           " NEW.timestamp)")
MEMORY = ("v1.MemoryAdded",
          '{"id":"text","personaId":"text","content":"text",'
          '"importance":"number"}',
          "INSERT INTO memories(id, persona_id, content, importance, created_at,"
          " updated_at) VALUES(NEW.payload->>'$.id', NEW.payload->>'$.personaId',"
          " NEW.payload->>'$.content', NEW.payload->>'$.importance',"
          " NEW.timestamp, NEW.timestamp);")


def define(db, *events):
    return [json.loads(db.one("SELECT event_define(?, ?, ?)", *e))
            for e in events]


def emit(db, event, **payload):
    return db.one("SELECT event_emit(?, ?)", event, json.dumps(payload))


def replay(db, *name):
    return json.loads(db.one(f"SELECT event_replay({','.join('?' * len(name))})",
                             *name))


def content(db, *tables):
    """Typed rows of the tables."""
    return [sorted((tuple((type(v).__name__, v) for v in row)
                    for row in db.rows(f"SELECT * FROM {t}")), key=repr)
            for t in tables]


@pytest.fixture
def personas(db):
    assert define(db, PERSONA, MEMORY) == [
        {"name": "v1.PersonaCreated", "tables": ["personas"]},
        {"name": "v1.MemoryAdded", "tables": ["memories"]}]
    return db


def test_an_event_is_stored_and_applied_in_one(personas):
    i = emit(personas, "v1.PersonaCreated", id="p", name="Ada",
             personality={"mood": "calm"})
    emit(personas, "v1.MemoryAdded", id="m", personaId="p", content="tea",
         importance=0.7)
    assert personas.rows("SELECT id, name FROM event_log WHERE seq = 1") == [
        (i, "v1.PersonaCreated")]
    assert personas.rows("SELECT name, personality FROM personas") == [
        ("Ada", '{"mood":"calm"}')]
    assert personas.rows("SELECT persona_id, content, importance FROM memories"
                         ) == [("p", "tea", 0.7)]
    with pytest.raises(personas.failure):  # the materializer fails: no event
        emit(personas, "v1.PersonaCreated", id="p", name="again")
    assert personas.one("SELECT count(*) FROM event_log") == 2


def test_a_materializer_may_empty_a_table(db):
    db.run("CREATE TABLE t(v); INSERT INTO t VALUES(1)")
    assert json.loads(db.one("SELECT event_define('v1.Clear', '{}',"
                             " 'DELETE FROM t')"))["tables"] == ["t"]
    emit(db, "v1.Clear")
    db.run("INSERT INTO t VALUES(2)")
    replay(db)
    assert db.rows("SELECT * FROM t") == []


def test_plain_sql_is_an_event_too(tmp_path, personas):
    plain = sqlite3.connect(tmp_path / "ws.db")
    plain.execute("INSERT INTO event_log(name, payload) VALUES(?, ?)",
                  ("v1.PersonaCreated", '{"id":"q","name":"Bob"}'))
    with pytest.raises(sqlite3.IntegrityError, match="v1.PersonaCreated:"
                       " \\$.name must be text"):
        plain.execute("INSERT INTO event_log(name, payload) VALUES(?, ?)",
                      ("v1.PersonaCreated", '{"id":"r"}'))
    with pytest.raises(sqlite3.IntegrityError, match="not defined"):
        plain.execute("INSERT INTO event_log(name, payload) VALUES('x', '{}')")
    plain.commit()
    plain.close()
    assert personas.rows("SELECT name FROM personas") == [("Bob",)]
    assert len(personas.one("SELECT id FROM event_log")) == 36


@pytest.mark.parametrize("shape, good, bad", [
    ('{"a":"text"}', ['{"a":""}', '{"a":"x","b":1}'],
     ['{}', '{"a":1}', '{"a":null}', '[]', '1', '{']),
    ('{"a":"text?"}', ['{}', '{"a":null}', '{"a":"x"}'], ['{"a":1}']),
    ('{"a":"integer"}', ['{"a":1}'], ['{"a":1.5}', '{"a":"1"}']),
    ('{"a":"number"}', ['{"a":1}', '{"a":1.5}'], ['{"a":true}']),
    ('{"a":"boolean"}', ['{"a":true}', '{"a":false}'], ['{"a":1}']),
    ('{"a":"array"}', ['{"a":[]}'], ['{"a":{}}']),
    ('{"a":"any"}', ['{"a":null}', '{"a":[1]}'], ['{}']),
    ('{"a":{"b":"text","c d":"integer?"}}', ['{"a":{"b":"x","c d":1}}'],
     ['{"a":1}', '{"a":{"b":1}}', '{"a":{"b":"x","c d":"1"}}']),
    ('{}', ['{}', '{"x":1}'], ['[]', 'null', '""']),
])
def test_a_payload_has_its_shape(shape, good, bad, db):
    define(db, ("v1.T", shape, ""))
    for payload in good:
        db.rows("INSERT INTO event_log(name, payload) VALUES('v1.T', ?)",
                payload)
    for payload in bad:
        assert "v1.T: " in db.error(
            "INSERT INTO event_log(name, payload) VALUES('v1.T', ?)", payload)
    assert db.one("SELECT count(*) FROM event_log") == len(good)


@pytest.mark.parametrize("arguments, message", [
    (("two words", "{}", ""), "name must be 1 to 100 of"),
    ((None, "{}", ""), "name must be text, got null"),
    (("v1.T", "{", ""), "json_shape is not valid JSON"),
    (("v1.T", "[]", ""), "shape must be a JSON object"),
    (("v1.T", '"text"', ""), "shape must be a JSON object"),
    (("v1.T", '{"a":"float"}', ""), "$.a of the shape must be text"),
    (("v1.T", '{"a":["text"]}', ""), "$.a of the shape must be text"),
    (("v1.T", '{"a":1}', ""), "$.a of the shape must be text"),
    (("v1.T", "{}", "nonsense"), 'near "nonsense": syntax error'),
    (("v1.T", "{}", "SELECT 1; END; DROP TABLE artifacts"),
     "materializer must be statements of a trigger, and ends before"),
    (("v1.T", "{}", "INSERT INTO nowhere VALUES(1)"),
     "no such table: main.nowhere"),
    (("v1.T", "{}", "DELETE FROM action_log"),
     "materializer must not write action_log"),
    (("v1.T", "{}", "INSERT INTO event_log(name, payload) VALUES('a', 'b')"),
     "materializer must not write event_log"),
    (("v1.T", "{}", "INSERT INTO words(words) VALUES('a')"),
     "materializer must write ordinary tables"),
])
def test_what_is_no_definition_says_why(arguments, message, db):
    db.run("CREATE VIRTUAL TABLE words USING fts5(x)")
    before = db.rows("SELECT name FROM sqlite_schema ORDER BY 1")
    assert db.error("SELECT event_define(?, ?, ?)", *arguments).startswith(
        "event_define: " + message)
    assert db.rows("SELECT name FROM sqlite_schema ORDER BY 1") == before


def test_unknown_versions_follow_the_policy(personas):
    emitted = ("SELECT event_emit('v2.PersonaCreated',"
               " '{\"id\":\"z\",\"full\":\"Zoe\"}')")
    assert personas.one("SELECT event_policy()") == "fail"
    assert personas.error(emitted) == (
        "event_emit: events of this name are not defined; see event_define and"
        " event_policy")
    assert personas.one("SELECT event_policy('ignore')") == "ignore"
    assert personas.one(emitted) is None
    assert personas.one("SELECT count(*) FROM event_log") == 0
    assert personas.one("SELECT event_policy('keep')") == "keep"
    assert personas.one(emitted) is not None
    assert personas.one("SELECT count(*) FROM personas") == 0
    define(personas, ("v2.PersonaCreated", '{"id":"text","full":"text"}',
                      "INSERT INTO personas(id, name) VALUES(NEW.payload->>'id',"
                      " NEW.payload->>'full')"))
    emit(personas, "v1.PersonaCreated", id="a", name="Ada")  # side by side
    replay(personas)
    assert personas.rows("SELECT name FROM personas ORDER BY 1") == [
        ("Ada",), ("Zoe",)]
    assert personas.one("SELECT event_policy('fail'), event_policy()") == "fail"
    assert personas.error("SELECT event_policy('warn')").startswith(
        "event_policy: unknown must be fail, keep or ignore, got 'warn'")


def test_a_replay_rebuilds_what_was_damaged_and_nothing_else(personas):
    for i in range(20):
        emit(personas, "v1.PersonaCreated", id=f"p{i}", name=f"n{i}")
        emit(personas, "v1.MemoryAdded", id=f"m{i}", personaId=f"p{i}",
             content="tea", importance=i / 20)
    before = content(personas, "personas", "memories")
    log = personas.one("SELECT count(*) FROM action_log")
    assert replay(personas) == {"events": 40, "tables": 2, "changed": 0}
    assert personas.one("SELECT count(*) FROM action_log") == log
    personas.run("DELETE FROM personas WHERE id < 'p15';"  # and memories
                 "UPDATE memories SET importance = 1;"
                 "INSERT INTO memories(id, content) VALUES('x', 'no event')")
    assert replay(personas)["changed"] > 20
    assert content(personas, "personas", "memories") == before
    assert personas.one("SELECT count(*) FROM action_log") > log
    personas.run("UPDATE personas SET name = 'x'; DELETE FROM memories")
    replay(personas, "v1.PersonaCreated")
    assert content(personas, "personas") == before[:1]
    assert personas.one("SELECT count(*) FROM memories") == 0


def test_rows_from_before_all_events_stay(db):
    db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v, g AS (v || '!'));"
           "INSERT INTO t(id, v) VALUES(1, 0.1), (2, x'00'), (3, NULL)")
    define(db, ("v1.Add", '{"v":"any"}',
                "INSERT INTO t(v) VALUES(NEW.payload->>'v')"),
           ("v1.Drop", '{"id":"integer"}',
            "DELETE FROM t WHERE id = NEW.payload->>'id'"))
    emit(db, "v1.Add", v="x")
    emit(db, "v1.Drop", id=2)
    before = content(db, "t")
    db.run("DELETE FROM t")
    replay(db)
    assert content(db, "t") == before


def test_a_table_of_the_host_may_be_called_as_one_of_sqlite_s(db):
    db.run("CREATE TABLE pragma_table_info(x);"
           "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"
           "INSERT INTO t VALUES(1, 'before')")
    define(db, ("v1.Add", '{"v":"text"}',
                "INSERT INTO t(v) VALUES(NEW.payload->>'v')"))
    emit(db, "v1.Add", v="x")
    db.run("ALTER TABLE t ADD COLUMN w")
    for rows in 2, 3:
        assert json.loads(db.one("SELECT event_compact()"))["rows"] == rows
        emit(db, "v1.Add", v="y")
    before = content(db, "t")
    db.run("DELETE FROM t")
    replay(db)
    assert content(db, "t") == before


def test_a_replay_that_fails_leaves_everything(personas):
    emit(personas, "v1.PersonaCreated", id="p", name="Ada")
    define(personas, ("v1.PersonaCreated", "{}",
                      "SELECT RAISE(ABORT, 'not any more');"
                      "INSERT INTO personas(name) VALUES(1)"))
    personas.run("UPDATE personas SET name = 'Bob'")
    before = content(personas, "personas", "action_log", "event_log")
    assert personas.error("SELECT event_replay()") == (
        "event_replay: not any more")
    assert content(personas, "personas", "action_log", "event_log") == before
    personas.run("INSERT INTO memories(content) VALUES('triggers are on')")
    assert personas.one("SELECT action_type FROM action_log ORDER BY seq DESC"
                        ) == "MEMORY_ADD"
    assert personas.error("SELECT event_replay('v3.No')") == (
        "event_replay: events v3.No are not defined")


def test_compaction_keeps_the_state_without_the_events(personas):
    personas.one("SELECT event_policy('keep')")
    personas.run("INSERT INTO event_log(name, payload) VALUES('v9.X', '{}')")
    for i in range(5):
        emit(personas, "v1.PersonaCreated", id=f"p{i}", name=f"n{i}")
    before = content(personas, "personas")
    assert json.loads(personas.one("SELECT event_compact()")) == {
        "events": 5, "rows": 5}
    assert personas.rows("SELECT name FROM event_log") == [("v9.X",)]
    emit(personas, "v1.PersonaCreated", id="q", name="later")
    personas.run("DELETE FROM personas")
    replay(personas)
    assert len(content(personas, "personas")[0]) == 6
    personas.run("DELETE FROM personas WHERE id = 'q'")
    assert content(personas, "personas") == before


@pytest.mark.parametrize("keys", [0, 1])
def test_random_events_are_replayed_to_the_identical_content(keys, db):
    db.run(f"PRAGMA foreign_keys = {keys};"
           "CREATE TABLE a(k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, n, u"
           " UNIQUE) WITHOUT ROWID;"
           "CREATE TABLE b(x, a REFERENCES a ON DELETE CASCADE)")
    j = "NEW.payload->>"
    define(db,
           ("v1.Set", '{"k":"text"}', f"INSERT INTO a VALUES({j}'k', {j}'n',"
            f" {j}'u') ON CONFLICT DO UPDATE SET n = excluded.n"),
           ("v1.Put", '{"k":"text"}',
            f"REPLACE INTO a VALUES({j}'k', NEW.seq, {j}'u')"),
           ("v1.Link", '{"k":"text"}', f"INSERT INTO b SELECT {j}'n', k FROM a"
            f" WHERE k = {j}'k'"),
           ("v1.Drop", '{"k":"text"}', f"DELETE FROM b WHERE a = {j}'k';"
            f"DELETE FROM a WHERE k = {j}'k'"))
    rng = random.Random(keys)
    for _ in range(300):
        try:
            emit(db, rng.choice(["v1.Set", "v1.Put", "v1.Link", "v1.Drop"]),
                 k=rng.choice("abcABC"), n=rng.choice([1, 1.5, None, "x"]),
                 u=rng.choice([None, 1, 2, 3, "1"]))
        except db.failure as e:
            assert "constraint" in str(e)
    before = content(db, "a", "b")
    db.run("UPDATE a SET n = 'x', u = NULL WHERE k < 'b'; DELETE FROM b")
    replay(db)
    assert content(db, "a", "b") == before
    assert replay(db)["changed"] == 0


def test_check_finds_a_materializer_that_is_gone(personas):
    assert personas.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
    personas.run('DROP TRIGGER "_choir_event_do_v1.MemoryAdded"')
    assert "a trigger of events v1.MemoryAdded is missing" in personas.one(
        "SELECT choir_check()")


def test_uninstall_leaves_the_events(personas):
    emit(personas, "v1.PersonaCreated", id="p", name="Ada")
    personas.one("SELECT choir_uninstall()")
    assert personas.one("SELECT count(*) FROM event_log") == 1
    personas.run("INSERT INTO event_log(name, payload) VALUES('x', '{}')")


@pytest.mark.parametrize("call", ["event_emit('v1.A', '{}')", "event_replay()",
                                  "event_compact()"])
def test_without_definitions_there_are_no_events(call, db):
    name = call.split("(")[0]
    assert db.error(f"SELECT {call}") == (
        f"{name}: no events are defined; run select event_define(…)")
