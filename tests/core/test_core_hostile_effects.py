# SPDX-License-Identifier: MIT
"""A hostile file changes nothing, seen by what would have changed.

test_core_hostile.py asks SQLite whether it refuses; here nobody is asked. The
file is a workspace into whose schema an attacker wrote calls that would show:
rows, files, settings, the lock, a request to a server of ours. It is then used
in every ordinary way, as the main database and attached to another workspace,
with trusted_schema on and off, and afterwards everything must be as it was.
Each call is first made by hand, to see that it would have shown.
"""
import contextlib
import os
import pathlib
import shutil
import socket
import sqlite3
import threading

import pytest

from conftest import Db

pytestmark = pytest.mark.inprocess

CALLS = {  # function -> arguments with which it leaves a trace
    "choir_config": "'user', 'evil'",
    "choir_init": "",
    "choir_lock": "",
    "choir_secret": """'evil', '{"type":"http","scope":"http://a/"}'""",
    "choir_uninstall": "",
    "artifact_put": "'/evil.md', 'x'",
    "artifact_put_file": "'/evil.md', '{folder}/in/file.txt'",
    "artifact_import": "'{folder}/in'",
    "artifact_export": "'{folder}/evil'",
    "artifact_delete": "'/a.md'",
    "artifact_move": "'/a.md', '/evil.md'",
    "artifact_purge": "",
    "artifact_flush": "",
    "artifact_sweep": "0",
    "conversation_create": "'evil'",
    "conversation_delete": "'talk'",
    "conversation_rename": "'talk', 'evil'",
    "message_add": "'talk', 'user', 'evil'",
    "setting_set": "'theme', 'evil'",
    "state_set": "'mood', '$.evil', 1",
    "state_delete": "'mood'",
    "state_level": "'mood', 1",
    "state_checkpoint": "'evil'",
    "state_checkpoint_drop": "'monday'",
    "state_restore": "'monday'",
    "state_import": """'{{"evil":1}}'""",
    "state_export": "'{folder}/evil'",
    "choir_import": "'{folder}/in/nola.db'",
    "choir_export": "'{folder}/evil-agent.db'",
    "server_state_set": "'s', 'k', 'evil'",
    "cache_set": "'k', 'evil'",
    "cache_purge": "'*'",
    "task_add": "'evil', 1",
    "task_claim": "",
    "task_done": "'running', 1",
    "task_fail": "'running', 'evil'",
    "citation_add": "'/a.md', 'evil', 1",
    "persona_activate": "'ada'",
    "log_record": "'EVIL', '{{}}'",
    "log_track": "'t'",
    "log_untrack": "'kept'",
    "log_undo": "",
    "log_prune": "99999999999999, 'all'",
    "log_seal": "",
    "event_define": "'v1.Evil', '{{}}', ''",
    "event_policy": "'keep'",
    "event_emit": "'v1.Good', '{{}}'",
    "event_replay": "",
    "event_compact": "",
    "watch_define": "'evil', 'SELECT 1'",
    "vec_index_create": "'evil', 'vecs', 'e'",
    "vec_index_drop": "'good'",
    "vec_index_optimize": "'good'",
    "choir_index": "",
    "choir_backup": "'{folder}/evil.db'",
    "sync_push": "'file://{folder}/evil.sqlite'",
    "sync_schedule": "5000",
    "sync_auto": "5000, 'file://{folder}/in/pages/'",
    "sync_restore": "1, '{folder}/evil-old.db', 'file://{folder}/in/pages/'",
    "sync_compact": "'file://{folder}/in/pages/', 'snapshot'",
    "sync_prune": "2, 'file://{folder}/in/pages/'",
    "s3_put": "'file://{folder}/evil.txt', 'x'",
    "s3_put_file": "'file://{folder}/evil.txt', '{folder}/in/file.txt'",
    "s3_get_file": "'file://{folder}/in/file.txt', '{folder}/evil.txt'",
    "s3_copy": "'file://{folder}/in/file.txt', 'file://{folder}/evil.txt'",
    "s3_delete": "'file://{folder}/in/file.txt'",
    "jsonrpc": "'http://127.0.0.1:{port}/', 'evil'",
    "graphql": "'http://127.0.0.1:{port}/', 'evil'",
    "qdrant_count": "",
    "qdrant_delete": "'a'",
    "qdrant_flush": "",
    "qdrant_index": "'evil', 'keyword'",
    "qdrant_init": "",
    "qdrant_ping": "",
    "qdrant_set_payload": "'{}', '{}'",
    "qdrant_upsert": "'a', 0, 'evil'",
    "libsql_batch": "'http://127.0.0.1:{port}', '[\"SELECT 1\"]'",
    "libsql_pull": "'http://127.0.0.1:{port}', 'evil', 'evil'",
    "libsql_push": "'http://127.0.0.1:{port}', 'user_settings', 'evil'",
    "nats_publish": "'evil', 'x'",
    "nats_js_publish": "'evil', 'x'",
    "nats_request": "'evil', 'x'",
    "nats_ack": "'$JS.ACK.S.C.1.1.1.1.1'",
    "nats_stream_create": """'evil', '["evil"]'""",
    "nats_ping": "",
    "nats_apply": "'S', 'c'",
    "nats_flush": "",
}
REQUESTS = [n for n in CALLS if "{port}" in CALLS[n]
            or n.startswith(("qdrant_", "nats_"))]
CALLS = {k: v if "{folder}" in v or "{port}" in v else
         v.replace("{{", "{").replace("}}", "}") for k, v in CALLS.items()}
BY_ITSELF = {  # places that SQLite looks at when it reads the schema
    "check": "CREATE TABLE c(a, CHECK({call} IS NOT 'never'))",
    "generated": "CREATE TABLE c(a, b AS ({call}) STORED)",
    "index": "CREATE INDEX i ON t(a || {call})",
}
TOGETHER = {
    "view": "CREATE VIEW v{i} AS SELECT {call} AS x",
    "trigger": "CREATE TRIGGER r{i} AFTER INSERT ON t{i} BEGIN"
               " SELECT {call}; END",
    "instead": "CREATE TRIGGER o{i} INSTEAD OF INSERT ON w{i} BEGIN"
               " DELETE FROM t{i} WHERE {call} = 1; END",
    "default": "CREATE TABLE c{i}(a, b DEFAULT ({call}))",
}


class Listener:
    """Counts who connects, and hangs up."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port, self.count = self.socket.getsockname()[1], 0
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        with contextlib.suppress(OSError):
            while True:
                guest = self.socket.accept()[0]
                self.count += 1
                guest.close()

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def fill(folder):
    """A file to read and a store of objects with an orphan to sweep."""
    (folder / "in/users/u1/artifacts").mkdir(parents=True, exist_ok=True)
    (folder / "in/users/u1/artifacts/orphan").write_text("nobody's")
    (folder / "in/file.txt").write_text("a file")
    nola = sqlite3.connect(folder / "in/nola.db")
    nola.executescript("DROP TABLE IF EXISTS state_storage;"
                       "CREATE TABLE state_storage(key_name, value_json);"
                       "INSERT INTO state_storage VALUES('evil', '1')")
    nola.close()


def pages(folder):
    """A remote of page deltas with something to merge and to prune."""
    (folder / "in/pages").mkdir()
    url = f"file://{folder}/in/pages/"
    d = Db(folder / "in/pushed.db", init=True)
    for i in range(4):
        d.one("SELECT setting_set('theme', ?)", f"{i}")
        d.one("SELECT sync_push(?)", url)
        if i in (1, 2):
            d.one("SELECT sync_compact(?, 'snapshot')", url)
    d.close()


@pytest.fixture(autouse=True)
def store(world, monkeypatch):
    monkeypatch.setenv("CHOIR_USER", "u1")
    monkeypatch.setenv("CHOIR_REMOTE_ARTIFACTS", f"file://{world[0]}/in")
    monkeypatch.setenv("CHOIR_QDRANT_URL", f"http://127.0.0.1:{world[1].port}")
    monkeypatch.setenv("NATS_URL", f"nats://127.0.0.1:{world[1].port}")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a workspace, files to read, a server to reach."""
    folder = tmp_path_factory.mktemp("hostile")
    fill(folder)
    d = Db(folder / "good.db", init=True)
    d.run("PRAGMA journal_mode = delete;"
          "INSERT INTO conversation_history(id, title) VALUES('talk', 'good')")
    d.one("SELECT artifact_put('/a.md', 'text')")
    d.one("SELECT artifact_put('/large', zeroblob(1048577))")
    d.one("SELECT artifact_put('/gone.md', 'text')")
    d.one("SELECT artifact_delete('/gone.md')")
    d.one("SELECT setting_set('theme', 'good')")
    d.run("CREATE TABLE kept(a)")
    d.one("SELECT log_track('kept')")
    d.run("INSERT INTO kept VALUES(1)")
    d.one("SELECT event_define('v1.Good', '{}', 'INSERT INTO personas(name)"
          " VALUES(NEW.name)')")
    d.one("SELECT event_emit('v1.Good', '{}')")
    d.run("DELETE FROM personas")
    d.one("SELECT state_set('mood', '$.now', 'calm'), state_checkpoint('monday')")
    d.one("SELECT state_set('mood', '$.now', 'good'), cache_set('k', 'good', NULL)")
    d.one("SELECT task_add('waiting', 1)")
    d.run("INSERT INTO agent_tasks(id, task_type, input, status, lease_until)"
          " VALUES('running', 'work', 1, 'RUNNING', 9e15);"
          "INSERT INTO personas(id, name) VALUES('ada', 'Ada')")
    d.run("DROP TRIGGER _choir_log_memories_update")  # for choir_init to mend
    d.run("CREATE TABLE t(a); INSERT INTO t VALUES(1);"
          "CREATE TABLE vecs(id INTEGER PRIMARY KEY, e BLOB);"
          "INSERT INTO vecs(e) VALUES(vec_f32('[1, 2]'))")
    d.one("SELECT vec_index_create('good', 'vecs', 'e')")
    d.close()
    pages(folder)
    server = Listener()
    yield folder, server
    server.close()


def call_of(name, world):
    folder, server = world
    return f"{name}({CALLS[name]})".replace("{folder}", str(folder)).replace(
        "{port}", str(server.port))


def trace(d, world, schema="main"):
    """Everything that a call could have changed."""
    folder, server = world
    seen = {"files": sorted(str(p.relative_to(folder)) for p in
                            folder.rglob("*") if "-journal" not in p.name)}
    seen["requests"] = server.count
    seen["state"] = sorted(p.name for p in pathlib.Path(
        os.environ["HOME"]).rglob("due-*"))
    try:
        seen["thread"] = d.one("SELECT json_extract(sync_auto(), '$.running')")
    except d.failure as e:
        seen["thread"] = str(e)
    seen["user"] = d.one("SELECT choir_config('user')")
    seen["locked"] = d.one("SELECT json_extract(choir_debug(), '$.locked')")
    seen["secrets"] = d.rows("SELECT * FROM choir_secrets")
    schema = f'"{schema}"'
    seen["schema"] = d.rows(f"SELECT type, name FROM {schema}.sqlite_schema"
                            " WHERE name GLOB '_choir*' ORDER BY 1, 2")
    for name in ("artifacts", "conversation_history", "messages",
                 "user_settings", "state_storage", "state_points",
                 "state_versions", "server_state", "server_cache",
                 "agent_tasks", "citations", "personas", "action_log",
                 "_choir_meta", "_choir_doc", "_choir_chunk", "_choir_vec"):
        try:
            seen[name] = d.rows(f"SELECT * FROM {schema}.{name}")
        except d.failure as e:
            seen[name] = str(e)
    return seen


def test_each_call_shows_when_made_by_hand(world, tmp_path):
    folder, server = world
    for name in CALLS:
        path = folder / "hand.db"
        shutil.copy(folder / "good.db", path)
        d = Db(path)
        before = trace(d, world)
        try:
            d.rows("PRAGMA busy_timeout = 0")
            if name in REQUESTS:
                d.one("SELECT choir_config('http.attempts', '1')")
            d.rows("SELECT " + call_of(name, world))
        except d.failure as e:
            assert name in REQUESTS, (name, e)
        after = trace(d, world)
        d.close()
        assert before != after, f"{name} leaves no trace"
        for p in list(folder.iterdir()):
            if p.name not in ("good.db", "in"):
                shutil.rmtree(p) if p.is_dir() else p.unlink()
        fill(folder)


def attacked(folder, statements, names):
    path = folder / "hostile.db"
    shutil.copy(folder / "good.db", path)
    a = sqlite3.connect(path, isolation_level=None)
    a.execute("PRAGMA synchronous = OFF")
    for name in names:
        a.create_function(name, -1, lambda *_: 1, deterministic=True)
    for s in statements:
        a.execute(s)
    a.close()
    return path


def use(d, schema, tables):
    """Everything that people do with a file; errors are welcome."""
    def attempt(sql):
        try:
            d.rows(sql)
        except d.failure:
            pass
    attempt(f"PRAGMA {schema}.quick_check")
    attempt(f"PRAGMA {schema}.integrity_check")
    for t in tables:
        attempt(f"SELECT * FROM {schema}.{t}")
        attempt(f"SELECT count(*), a FROM {schema}.{t} WHERE a IS NOT NULL")
        attempt(f"INSERT INTO {schema}.{t}(a) VALUES(2)")
        attempt(f"UPDATE {schema}.{t} SET a = 3")
        attempt(f"DELETE FROM {schema}.{t} WHERE a = 3")
    attempt(f"ANALYZE {schema}")
    attempt("REINDEX")
    attempt(f"VACUUM {schema}")
    attempt("ALTER TABLE t ADD COLUMN more")


def unharmed(world, path, tables):
    folder = world[0]
    for trusted in (1, 0):
        for attached in (0, 1):
            v = Db(folder / "good.db" if attached else path)
            schema = "foreign_file" if attached else "main"
            v.rows(f"PRAGMA trusted_schema = {trusted}")
            try:
                if attached:
                    v.rows(f"ATTACH '{path}' AS foreign_file")
                v.rows(f"PRAGMA {schema}.synchronous = off")
            except v.failure as e:  # refused at the door
                assert "unsafe use" in str(e) or "misuse of agg" in str(e), e
                v.close()
                continue
            before = {s: trace(v, world, s) for s in {"main", schema}}
            v.rows("BEGIN")
            use(v, schema, tables)
            after = {s: trace(v, world, s) for s in {"main", schema}}
            assert after == before, (path, schema, trusted)
            v.rows("ROLLBACK")
            if not attached:
                use(v, "main", tables)
                assert trace(v, world) == before["main"], (path, trusted)
            v.close()
    path.unlink()


@pytest.mark.parametrize("place", BY_ITSELF)
def test_one_call_in_the_schema_does_nothing(place, world):
    for name in CALLS:
        call = call_of(name, world)
        path = attacked(world[0], [BY_ITSELF[place].format(call=call)], [name])
        unharmed(world, path, ["t", "c"])


def test_calls_in_views_triggers_and_defaults_do_nothing(world):
    statements, tables = [], []
    for i, name in enumerate(CALLS):
        statements += [f"CREATE TABLE t{i}(a)", f"INSERT INTO t{i} VALUES(1)",
                       f"CREATE VIEW w{i} AS SELECT a FROM t{i}"]
        statements += [s.format(i=i, call=call_of(name, world))
                       for s in TOGETHER.values()]
        tables += [f"t{i}", f"v{i}", f"w{i}", f"c{i}"]
    path = attacked(world[0], statements, list(CALLS))
    unharmed(world, path, tables)


def test_every_function_that_acts_is_tried(open_db):
    acting = {n for n, in open_db().rows(
        "SELECT name FROM choir_help() WHERE kind NOT IN ('table', 'module')"
        " AND risk IN ('write', 'effect')")}
    quiet = {"embed", "embed_all", "sync_pull", "sync_verify", "sync_at", "sync_due",
             "artifact_fetch", "s3_get", "s3_head", "s3_presign", "s3_credentials"}  # they read
    assert acting - quiet - set(CALLS) == set()
