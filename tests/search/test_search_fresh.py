# SPDX-License-Identifier: MIT
"""choir_search is never stale: whatever a connection sees, it searches."""
import random

import pytest


@pytest.fixture(params=["never", "first", "always"])
def ws(db, request):
    """A workspace that is indexed never, once, or before every search."""
    db.when = request.param
    for i in range(5):
        db.one("SELECT artifact_put(?, ?)", f"/d{i}.txt", f"common word{i}")
    if db.when != "never":
        db.one("SELECT choir_index()")
    db.rows("SELECT * FROM choir_search('common')")
    return db


def found(db, query):
    if getattr(db, "when", "") == "always":
        db.one("SELECT choir_index()")
    return sorted(r[0] for r in db.rows(
        "SELECT coalesce(path, preview) FROM choir_search(?)"
        " WHERE source <> 'vector'", query))


def test_a_new_document_is_found_at_once(ws):
    ws.one("SELECT artifact_put('/new.txt', 'brand zebra')")
    assert found(ws, "zebra") == ["/new.txt"]


def test_a_changed_document_has_its_new_words_only(ws):
    ws.one("SELECT artifact_put('/d1.txt', 'zebra now')")
    assert found(ws, "zebra") == ["/d1.txt"]
    assert found(ws, "word1") == []


def test_a_deleted_document_is_gone_at_once(ws):
    ws.one("SELECT artifact_delete('/d1.txt')")
    assert found(ws, "word1") == []
    ws.run("DELETE FROM artifacts WHERE path='/d2.txt'")
    assert found(ws, "word2") == []
    assert len(found(ws, "common")) == 3


def test_a_moved_document_has_its_new_path(ws):
    ws.one("SELECT artifact_move('/d1.txt', '/else/where.txt')")
    assert found(ws, "word1") == ["/else/where.txt"]
    assert found(ws, "where") == ["/else/where.txt"]


def test_plain_sql_is_seen(ws):
    ws.run("UPDATE artifacts SET content='zebra' WHERE path='/d1.txt';"
           "INSERT INTO artifacts(path, name, content) VALUES('/p', 'p', 'zebra');"
           "INSERT INTO memories(content) VALUES('zebra memory')")
    assert found(ws, "zebra") == ["/d1.txt", "/p", "zebra memory"]
    ws.run("REPLACE INTO artifacts(id, path, name, content)"
           " SELECT id, path, name, 'lion' FROM artifacts WHERE path='/p'")
    assert found(ws, "lion") == ["/p"]
    assert found(ws, "zebra") == ["/d1.txt", "zebra memory"]


def test_a_rolled_back_change_was_never_there(ws):
    ws.rows("BEGIN")
    ws.one("SELECT artifact_put('/d1.txt', 'zebra')")
    assert found(ws, "zebra") == ["/d1.txt"]
    ws.rows("ROLLBACK")
    assert found(ws, "zebra") == []
    assert found(ws, "word1") == ["/d1.txt"]


def test_a_change_in_place_of_a_rolled_back_one_is_seen(ws):
    ws.rows("BEGIN")
    ws.one("SELECT artifact_put('/d1.txt', 'zebra')")
    assert found(ws, "zebra") == ["/d1.txt"]
    ws.rows("ROLLBACK")
    ws.one("SELECT artifact_put('/d1.txt', 'lion')")
    assert found(ws, "lion") == ["/d1.txt"]
    assert found(ws, "zebra") == []


def test_savepoints_are_followed(ws):
    ws.rows("BEGIN")
    ws.rows("SAVEPOINT a")
    ws.one("SELECT artifact_put('/x.txt', 'zebra')")
    ws.rows("SAVEPOINT b")
    ws.one("SELECT artifact_put('/y.txt', 'zebra')")
    assert found(ws, "zebra") == ["/x.txt", "/y.txt"]
    ws.rows("ROLLBACK TO b")
    assert found(ws, "zebra") == ["/x.txt"]
    ws.rows("ROLLBACK TO a")
    assert found(ws, "zebra") == []
    ws.rows("COMMIT")
    assert found(ws, "common") == [f"/d{i}.txt" for i in range(5)]


def test_a_rolled_back_index_was_never_there(ws):
    ws.one("SELECT artifact_put('/new.txt', 'zebra')")
    ws.rows("BEGIN")
    ws.one("SELECT choir_index()")
    assert found(ws, "zebra") == ["/new.txt"]
    ws.rows("ROLLBACK")
    assert found(ws, "zebra") == ["/new.txt"]
    assert found(ws, "word1") == ["/d1.txt"]
    assert ws.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'


def test_another_connection_is_seen(ws, open_db):
    other = open_db(ws.path)
    other.one("SELECT artifact_put('/o.txt', 'zebra')")
    assert found(ws, "zebra") == ["/o.txt"]
    other.one("SELECT choir_index()")
    assert found(ws, "zebra") == ["/o.txt"]
    other.one("SELECT artifact_delete('/o.txt')")
    assert found(ws, "zebra") == []
    other.one("SELECT choir_index('rebuild')")
    assert found(ws, "word3") == ["/d3.txt"]


def test_a_connection_without_choir_is_seen(ws, open_db):
    plain = open_db(ws.path, choir=False)
    plain.run("UPDATE artifacts SET content='zebra' WHERE path='/d1.txt';"
              "DELETE FROM artifacts WHERE path='/d2.txt'")
    assert found(ws, "zebra") == ["/d1.txt"]
    assert found(ws, "word2") == []


def test_a_cleared_log_is_noticed(ws):
    ws.one("SELECT artifact_put('/d1.txt', 'zebra')")
    ws.run("DELETE FROM action_log")
    assert found(ws, "zebra") == ["/d1.txt"]
    ws.run("UPDATE artifacts SET content='lion' WHERE path='/d1.txt'")
    assert found(ws, "lion") == ["/d1.txt"]


def test_a_log_row_pruned_in_the_middle_is_noticed(ws):
    ws.run("UPDATE artifacts SET content='zebra' WHERE path='/d1.txt';"
           "DELETE FROM action_log WHERE seq=(SELECT max(seq) FROM action_log);"
           "UPDATE artifacts SET content='lion' WHERE path='/d2.txt'")
    assert found(ws, "zebra") == ["/d1.txt"]
    assert found(ws, "lion") == ["/d2.txt"]


def test_missing_triggers_are_noticed(ws):
    for (name,) in ws.rows("SELECT name FROM sqlite_schema WHERE type='trigger'"
                           " AND tbl_name='artifacts'"):
        ws.run(f'DROP TRIGGER "{name}"')
    ws.run("UPDATE artifacts SET content='zebra' WHERE path='/d1.txt'")
    assert found(ws, "zebra") == ["/d1.txt"]
    ws.run("UPDATE artifacts SET content='lion' WHERE path='/d1.txt'")
    assert found(ws, "lion") == ["/d1.txt"]
    ws.one("SELECT choir_init()")
    assert found(ws, "lion") == ["/d1.txt"]
    assert found(ws, "zebra") == []


def test_vacuum_changes_nothing(ws):
    ws.one("SELECT artifact_delete('/d0.txt')")
    ws.run("VACUUM")
    assert found(ws, "common") == [f"/d{i}.txt" for i in range(1, 5)]
    assert ws.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'


def test_an_attached_workspace_is_searched(ws, tmp_path):
    ws.run(f"ATTACH '{tmp_path}/other.db' AS aux")
    ws.one("SELECT choir_init('aux')")
    ws.one("SELECT artifact_put('/aux.txt', 'zebra in aux')")
    assert found(ws, "zebra") == ["/aux.txt"]
    ws.one("SELECT choir_index()")
    assert found(ws, "zebra") == ["/aux.txt"]
    assert found(ws, "common") == []
    ws.one("SELECT choir_config('schema', 'main')")
    assert found(ws, "zebra") == []
    assert len(found(ws, "common")) == 5


def test_another_file_under_the_same_name_is_another_workspace(ws, tmp_path):
    for name, word in (("a", "zebra"), ("b", "lion")):
        ws.run(f"ATTACH '{tmp_path}/{name}.db' AS aux")
        ws.one("SELECT choir_init('aux')")
        ws.one("SELECT artifact_put('/x.txt', ?)", word)
        assert found(ws, word) == ["/x.txt"]
        ws.one("SELECT choir_config('schema', 'main')")
        ws.run("DETACH aux")
    ws.run(f"ATTACH '{tmp_path}/a.db' AS aux")
    ws.one("SELECT choir_config('schema', 'aux')")
    assert found(ws, "zebra") == ["/x.txt"]
    assert found(ws, "lion") == []


def test_memory_databases_under_one_name_are_told_apart(ws):
    for word in ("zebra", "lion"):
        ws.run("ATTACH ':memory:' AS aux")
        ws.one("SELECT choir_init('aux')")
        ws.one("SELECT artifact_put('/x.txt', ?)", word)
        assert found(ws, word) == ["/x.txt"]
        ws.one("SELECT choir_config('schema', 'main')")
        ws.run("DETACH aux")


def test_random_histories_are_searched_rightly(ws, open_db):
    """Against a model: what the connection sees, in and out of transactions."""
    r = random.Random(f"fresh {ws.when}")
    words = [f"token{chr(97 + i)}{i}" for i in range(12)]
    model = {f"/d{i}.txt": f"word{i}" for i in range(5)}
    saved, other = None, open_db(ws.path)
    for step in range(120):
        act = r.choice(["put", "put", "delete", "begin", "end", "back", "move",
                        "index", "search", "search", "other"])
        path = r.choice([f"/d{i}.txt" for i in range(8)])
        if act == "put":
            model[path] = r.choice(words)
            ws.one("SELECT artifact_put(?, ?)", path, model[path])
        elif act == "delete" and path in model:
            del model[path]
            ws.one("SELECT artifact_delete(?)", path)
        elif act == "move" and path in model and "/m.txt" not in model:
            model["/m.txt"] = model.pop(path)
            ws.one("SELECT artifact_move(?, '/m.txt')", path)
        elif act == "begin" and saved is None:
            ws.rows("BEGIN IMMEDIATE")
            saved = dict(model)
        elif act in ("end", "back") and saved is not None:
            ws.rows("COMMIT" if act == "end" else "ROLLBACK")
            model = model if act == "end" else saved
            saved = None
        elif act == "index":
            ws.one("SELECT choir_index()")
        elif act == "other" and saved is None:
            model[path] = r.choice(words)
            other.one("SELECT artifact_put(?, ?)", path, model[path])
        elif act == "search":
            word = r.choice(words)
            assert found(ws, word) == sorted(
                p for p in model if model[p] == word), (step, word)
    if saved is not None:
        ws.rows("COMMIT")
    ws.one("SELECT choir_index()")
    assert ws.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
