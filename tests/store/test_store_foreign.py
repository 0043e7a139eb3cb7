# SPDX-License-Identifier: MIT
"""What other programs keep becomes a workspace, and AgentFS gets it back."""
import json
import os
import sqlite3
import struct

import pytest
from servers import foreign

AGENTFS = """
    CREATE TABLE fs_config(key, value); CREATE TABLE fs_inode(ino INTEGER PRIMARY KEY, mode, size);
    CREATE TABLE fs_dentry(id, name, parent_ino, ino); CREATE TABLE fs_data(ino, chunk_index, data);"""


def took(db, path):
    got = json.loads(db.one("SELECT choir_import(?)", str(path)))
    return got["kinds"], got["took"], got["left"]


def make(path, script):
    con = sqlite3.connect(path)
    con.executescript(script)
    con.commit()
    con.close()
    return path


@pytest.fixture
def omni(tmp_path):
    return make(tmp_path / "conversations.db", """
        CREATE TABLE conversations(id TEXT PRIMARY KEY, title TEXT, created_at INTEGER, updated_at INTEGER);
        CREATE TABLE messages(id TEXT PRIMARY KEY, conversation_id TEXT, role TEXT, content TEXT,
          timestamp INTEGER, metadata TEXT);
        CREATE TABLE drafts(x); INSERT INTO drafts VALUES(1), (2); CREATE TABLE pragma_table_info(x);
        INSERT INTO conversations VALUES('c1', 'Plans', 1700000000000, 1700000002000), ('c2', NULL, 1700000000, 1700000000);
        INSERT INTO messages VALUES('m1', 'c1', 'user', 'Hi', 1700000001000, '{"a":1}'),
          ('m2', 'c1', 'AI', 'Hello', 1700000002000, 'not json'), ('m3', 'c1', 'robot', 'x', 0, NULL),
          ('m4', 'gone', 'user', 'x', 0, NULL);""")


@pytest.fixture
def nola(tmp_path):
    return make(tmp_path / "nola.db", """
        CREATE TABLE state_storage(key_name TEXT PRIMARY KEY, value_json TEXT,
          created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
        CREATE TABLE conversation_history(id INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT, message TEXT,
          speaker TEXT, timestamp TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
        INSERT INTO state_storage(key_name, value_json, updated_at) VALUES
          ('Identity', '{"name":"Nola"}', '2025-12-23 10:00:00'), ('Broken', '{', NULL);
        INSERT INTO conversation_history(user_id, message, speaker, timestamp) VALUES
          ('ada', 'Hello Nola', 'ada', '2025-12-23 10:00:00'), ('ada', 'Hello Ada', 'Nola', '2025-12-23 10:00:01'),
          ('bob', 'Hi', 'user', '2025-12-23 11:00:00');""")


def test_omni_ai_s_conversations(db, omni):
    assert took(db, omni) == (["omni-ai"], {"conversations": 2, "messages": 2},
                              {"messages": 2, "drafts": 2})
    assert db.rows("SELECT conversation, role, content, time FROM chat ORDER BY position") == [
        ("Plans", "user", "Hi", "2023-11-14T22:13:21.000Z"),
        ("Plans", "assistant", "Hello", "2023-11-14T22:13:22.000Z")]
    assert db.rows("SELECT id, metadata FROM messages ORDER BY id") == [("m1", '{"a":1}'), ("m2", None)]
    assert db.rows("SELECT id, created_at, updated_at FROM conversation_history ORDER BY id") == [
        ("c1", 1700000000000, 1700000002000), ("c2", 1700000000000, 1700000000000)]
    db.one("SELECT conversation_rename('c1', 'Mine')")
    assert took(db, omni)[1] == {}  # what is here stays
    assert db.one("SELECT title FROM conversation_history WHERE id = 'c1'") == "Mine"


def test_columns_that_are_not_there_are_done_without(db, tmp_path):
    path = make(tmp_path / "o.db", """
        CREATE TABLE conversations(id INTEGER PRIMARY KEY, title, createdAt);
        CREATE TABLE messages(id INTEGER PRIMARY KEY, conversationId, role, content);
        INSERT INTO conversations VALUES(1, 'a', '2025-01-01T00:00:00Z'); INSERT INTO messages VALUES(7, 1, 'user', 'x');""")
    assert took(db, path) == (["omni-ai"], {"conversations": 1, "messages": 1}, {})
    assert db.one("SELECT created_at FROM conversation_history") == 1735689600000


def test_nola_s_two_tables_and_the_view_in_her_columns(db, nola):
    db.one("SELECT state_set('Other', '$', 1)")
    assert took(db, nola) == (["nola", "nola"], {"keys": 1, "conversations": 2, "messages": 3},
                              {"state_storage": 1})
    assert db.one("SELECT state_get('Identity', '$.name')") == "Nola"
    assert db.rows("SELECT user_id, message, speaker, timestamp FROM nola_conversation_history ORDER BY id") == [
        ("ada", "Hello Nola", "ada", "2025-12-23 10:00:00"),
        ("ada", "Hello Ada", "Nola", "2025-12-23 10:00:01"),
        ("bob", "Hi", "user", "2025-12-23 11:00:00")]
    assert db.rows("SELECT role FROM chat WHERE conversation = 'ada' ORDER BY position") == [
        ("user",), ("assistant",)]
    db.one("SELECT state_set('Identity', '$.name', 'Nora')")
    assert took(db, nola)[1] == {} and db.one("SELECT state_get('Identity', '$.name')") == "Nora"


def test_a_folder_is_json_files(db, tmp_path):
    (tmp_path / "j").mkdir()
    (tmp_path / "j/Identity.json").write_text('{"name":"Nola"}')
    assert json.loads(db.one("SELECT choir_import(?)", str(tmp_path / "j")))["new"] == 1


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    if foreign.python() is None:
        pytest.skip("llm and agentfs-sdk cannot be installed from PyPI")
    folder = tmp_path_factory.mktemp("foreign")
    foreign.run(foreign.WRITE, folder)
    return folder


@pytest.mark.once
def test_llm_s_logs(db, written):
    assert took(db, written / "logs.db") == (["llm logs"], {"conversations": 1, "messages": 6}, {})
    assert db.rows("SELECT role, content FROM chat ORDER BY position") == [
        ("system", "be brief"), ("user", "hello"), ("assistant", "echo: hello"),
        ("system", "be brief"), ("user", "again"), ("assistant", "echo: again")]
    assert json.loads(db.one("SELECT metadata FROM messages WHERE role = 'assistant'"))["model"] == "echo"
    assert took(db, written / "logs.db")[1] == {}


@pytest.mark.once
def test_llm_s_vectors_are_read_unchanged(db, written):
    assert took(db, written / "embeddings.db") == (["llm embeddings"], {"embeddings": 2}, {})
    assert db.rows("SELECT collection, name, model, embedding, content, metadata FROM llm_embeddings") == [
        ("notes", "a", "toy", struct.pack("<3f", 11, 1, -0.5), "hello world", '{"k": 1}'),
        ("notes", "b", "toy", struct.pack("<3f", 3, 1, -0.5), None, None)]
    assert db.rows("SELECT e.name FROM vec_scan('llm_embeddings', 'embedding', '[3,1,-0.5]', 1) AS v"
                   " JOIN llm_embeddings AS e ON e.id = v.rowid") == [("b",)]


@pytest.mark.once
def test_agentfs_both_ways(db, written, tmp_path, open_db):
    assert took(db, written / "agent.db") == (["agentfs"], {"files": 3, "keys": 1, "tasks": 2}, {})
    assert db.rows("SELECT path, size_bytes FROM artifact_ls('/', 1)") == [
        ("/big.bin", 12800), ("/empty", 0), ("/notes/hello.txt", 8)]
    assert db.one("SELECT artifact_get('/big.bin')") == bytes(range(256)) * 50
    assert db.rows("SELECT task_type, status, error FROM agent_tasks ORDER BY 1") == [
        ("fetch", "FAILED", "timeout"), ("search", "COMPLETED", None)]
    assert took(db, written / "agent.db")[1] == {}
    out = tmp_path / "out.db"
    assert json.loads(db.one("SELECT choir_export(?)", str(out)))["took"] == {
        "files": 3, "keys": 1, "tasks": 2}
    assert json.loads(foreign.run(foreign.READ, out)) == [
        ["big.bin", "empty", "notes"], "hello é", (bytes(range(256)) * 50).hex(), {"name": "Ada"},
        [["fetch", "error"], ["search", "success"]]]
    back = open_db(tmp_path / "back.db", init=True)
    took(back, out)
    for sql in ("SELECT path, content, hash FROM artifacts ORDER BY path",
                "SELECT key_name, value_json FROM state_storage",
                "SELECT task_type, json(input), status, error FROM agent_tasks ORDER BY 1"):
        assert back.rows(sql) == db.rows(sql)
    assert db.error("SELECT choir_export(?)", str(out)) == f"choir_export: {out} is there already"


def test_nothing_is_half_imported(db, omni, tmp_path):
    db.run("CREATE TRIGGER no BEFORE INSERT ON messages WHEN NEW.id = 'm2' BEGIN SELECT RAISE(ABORT, 'no'); END")
    assert "no" in db.error("SELECT choir_import(?)", str(omni))
    assert db.one("SELECT count(*) FROM conversation_history") == 0


def test_files_that_are_something_else_are_refused(db, tmp_path, open_db):
    assert db.error("SELECT choir_import(?)", str(tmp_path / "ws.db")) == (
        f"choir_import: {tmp_path}/ws.db belongs to a database that is open on this connection")
    open_db(tmp_path / "other.db", init=True).close()
    assert "is a workspace; attach it" in db.error("SELECT choir_import(?)", str(tmp_path / "other.db"))
    make(tmp_path / "plain.db", "CREATE TABLE t(a)")
    assert db.error("SELECT choir_import(?)", str(tmp_path / "plain.db")) == (
        f"choir_import: {tmp_path}/plain.db has no tables of omni-ai, nola, llm or agentfs")
    (tmp_path / "text").write_text("not a database, but long enough to be looked at " * 40)
    assert "file is not a database" in db.error("SELECT choir_import(?)", str(tmp_path / "text"))
    assert "must be text, got null" in db.error("SELECT choir_import(NULL)")


def test_views_of_a_foreign_file_are_not_read(db, tmp_path):
    make(tmp_path / "v.db", "CREATE TABLE conversations(id, title); CREATE VIEW messages AS"
         " SELECT 1 AS id, 'c' AS conversation_id, 'user' AS role, 'x' AS content")
    assert "has no tables of" in db.error("SELECT choir_import(?)", str(tmp_path / "v.db"))


@pytest.mark.parametrize("sql", [
    "INSERT INTO fs_dentry VALUES(9, '..', 1, 2)", "INSERT INTO fs_dentry VALUES(9, 'a/../b', 1, 2)",
    "INSERT INTO fs_data VALUES(2, 0, 'abc'), (2, 9999999, 'x')",
    "INSERT INTO fs_dentry VALUES(9, 'loop', 3, 3), (10, 'in', 1, 3)",
])
def test_a_hostile_agentfs_file_changes_nothing_or_little(db, tmp_path, sql):
    path = make(tmp_path / "h.db", AGENTFS + """
        INSERT INTO fs_inode VALUES(1, 16877, 0), (2, 33188, 3), (3, 16877, 0);
        INSERT INTO fs_dentry VALUES(1, 'f', 1, 2);""" + sql)
    try:
        took(db, path)
    except db.failure as e:
        assert "choir_import: " in str(e)
    assert all(p == "/f" or ".." not in p for p, in db.rows("SELECT path FROM artifacts"))


@pytest.mark.parametrize("chunks", ["(2, 0, 'abc'), (2, 0, 'x')", "(2, 0, 'x'), (2, -1, 'y')"])
def test_chunks_of_agentfs_that_do_not_follow_each_other_are_refused(db, tmp_path, chunks):
    path = make(tmp_path / "h.db", AGENTFS + f"""
        INSERT INTO fs_inode VALUES(1, 16877, 0), (2, 33188, 3);
        INSERT INTO fs_dentry VALUES(1, 'f', 1, 2); INSERT INTO fs_data VALUES{chunks}""")
    assert "the chunks of inode 2 do not follow each other" in db.error("SELECT choir_import(?)", str(path))
    assert db.one("SELECT count(*) FROM artifacts") == 0


def test_an_import_leaves_a_foreign_file_as_it_is(db, omni, tmp_path):
    con = sqlite3.connect(omni)
    con.execute("PRAGMA journal_mode=WAL")
    con.execute("UPDATE conversations SET title = 'in the wal'")
    con.commit()
    for end in ("", "-wal"):  # as a program that was killed leaves it
        (tmp_path / f"left.db{end}").write_bytes((tmp_path / f"conversations.db{end}").read_bytes())
    con.close()
    left = [(tmp_path / f"left.db{end}", (tmp_path / f"left.db{end}").read_bytes()) for end in ("", "-wal")]
    took(db, left[0][0])
    assert db.one("SELECT title FROM conversation_history WHERE id = 'c1'") == "in the wal"
    assert [path.read_bytes() for path, _ in left] == [data for _, data in left]


def test_folders_of_agentfs_that_are_in_themselves_come_to_an_end(db, tmp_path):
    path = make(tmp_path / "h.db", AGENTFS + """
        INSERT INTO fs_inode VALUES(1, 16877, 0), (2, 16877, 0), (3, 33188, 0);
        INSERT INTO fs_dentry VALUES(1, 'd', 1, 2), (2, 'a', 2, 2), (3, 'b', 2, 2), (4, 'f', 1, 3)""")
    assert took(db, path)[1] == {"files": 1}
    assert db.rows("SELECT path FROM artifacts") == [("/f",)]


def test_paths_that_are_none_do_not_go_to_agentfs(db, tmp_path):
    db.run("INSERT INTO artifacts(path, name, content) VALUES('notes.md', 'notes.md', 'x'),"
           " ('/d/', '', 'x'), ('/good', 'good', 'x'), ('/good/a/b', 'b', 'x')")
    said = json.loads(db.one("SELECT choir_export(?)", str(tmp_path / "out.db")))
    assert said["took"]["files"] == 1
    assert [p["file"] for p in said["problems"]] == ["/d/", "/good/a/b", "notes.md"]
    plain = sqlite3.connect(tmp_path / "out.db")
    assert plain.execute("SELECT name FROM fs_dentry").fetchall() == [("good",)]
    plain.close()


def test_an_export_that_fails_leaves_no_file(db, tmp_path):
    (tmp_path / "out.db-wal").mkdir()
    assert "choir_export: " in db.error("SELECT choir_export(?)", str(tmp_path / "out.db"))
    assert not (tmp_path / "out.db").exists()


def test_an_export_is_private_and_goes_where_a_killed_one_began(db, tmp_path):
    out = tmp_path / "agent.db"
    out.touch()  # what a process that was killed at once leaves
    db.one("SELECT choir_export(?)", str(out))
    assert "is there already" in db.error("SELECT choir_export(?)", str(out))
    db.one("SELECT choir_export(?)", str(tmp_path / "new.db"))
    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600


def test_a_pipe_is_no_file_to_import(db, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert db.error("SELECT choir_import(?)", str(tmp_path / "pipe")) == (
        f"choir_import: {tmp_path}/pipe is not a file")
