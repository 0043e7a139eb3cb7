# SPDX-License-Identifier: MIT
"""qdrant_flush: the workspace's documents as points, and never one too many."""
import json
import threading

import pytest

import qdrant_server
from fault_server import FaultServer
from qdrant_fixtures import (Server, ada, fake, old, server, two,  # noqa: F401
                             vec)


def flush(db, *args):
    out = json.loads(db.one(
        f"SELECT qdrant_flush({', '.join('?' * len(args))})", *args))
    return out["sent"], out["removed"], out["points"], out["pending"]


def points(db):
    """(kind, artifact_id, chunk) of all points, and their payloads."""
    found = [json.loads(p) for (p,) in db.rows(
        "SELECT payload FROM qdrant_scroll()")]
    return {(p["kind"], p["artifact_id"], p["chunk"]): p for p in found}


@pytest.fixture
def ready(ada, server):
    ada.one("SELECT qdrant_init()")
    return ada


def put(db, path, text):
    return db.one("SELECT artifact_put(?, ?)", path, text)


def test_documents_of_every_kind_become_points(ready):
    a = put(ready, "/docs/plan.md", "# Plan\n\n" + "quarterly words. " * 200)
    b = put(ready, "/bin/logo.png", bytes(range(256)))
    c = ready.one("SELECT conversation_create('Talk')")
    m = ready.one("SELECT message_add(?, 'user', 'what is the plan?')", c)
    ready.run("INSERT INTO memories(id, content) VALUES('m1', 'likes tea')")
    assert flush(ready) == (4, 0, 7, 0)
    got = points(ready)
    assert sorted(k[2] for k in got if k[1] == a) == [0, 1, 2, 3]
    first = got["artifact", a, 0]
    assert first["path"] == "/docs/plan.md" and first["model"] == "hash-384"
    assert first["mime_type"] == "text/markdown"
    assert first["content_preview"].startswith("# Plan")
    assert len(first["content_preview"]) <= 300
    assert first["updated_at"] == ready.one(
        "SELECT updated_at FROM artifacts WHERE id = ?", a)
    assert got["artifact", b, 0]["content_preview"] == "/bin/logo.png"
    assert got["message", m, 0]["conversation_id"] == c
    assert got["memory", "m1", 0]["content_preview"] == "likes tea"
    assert ready.rows("SELECT path FROM qdrant_search('quarterly') LIMIT 1") \
        == [("/docs/plan.md",)]


def test_a_workspace_whose_lineage_is_gone_is_flushed(ready):
    ready.run("DELETE FROM _choir_meta WHERE key = 'sync.lineage'")
    a = put(ready, "/a.md", "tea")
    assert flush(ready) == (1, 0, 1, 0)
    ready.one("SELECT artifact_delete(?)", a)
    assert flush(ready) == (0, 1, 0, 0)
    assert points(ready) == {}


def test_changes_moves_and_deletes_follow(ready):
    a = put(ready, "/a.txt", "alpha " * 1000)
    b = put(ready, "/b.txt", "beta")
    flush(ready)
    assert ready.one("SELECT qdrant_count()") == 8
    put(ready, "/a.txt", "short now")
    ready.one("SELECT artifact_move('/b.txt', '/c.txt')")
    assert flush(ready) == (2, 0, 2, 0)
    assert {k: p["path"] for k, p in points(ready).items()} == {
        ("artifact", a, 0): "/a.txt", ("artifact", b, 0): "/c.txt"}
    ready.one("SELECT artifact_delete('/c.txt')")
    ready.run("DELETE FROM artifacts WHERE path = '/a.txt'")
    assert flush(ready) == (0, 2, 0, 0)
    assert points(ready) == {}


def test_a_flush_at_rest_asks_and_writes_nothing(ready, server, tmp_path):
    put(ready, "/a.txt", "alpha")
    flush(ready)
    before = ready.one("SELECT count(*) FROM action_log")
    ready.run("PRAGMA wal_checkpoint(TRUNCATE)")
    data = (tmp_path / "ws.db").read_bytes()
    if server.seen is not None:
        server.seen.clear()
    assert flush(ready) == (0, 0, 0, 0)
    ready.run("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (tmp_path / "ws.db").read_bytes() == data
    assert ready.one("SELECT count(*) FROM action_log") == before
    if server.seen is not None:
        assert not [1 for m, p, b in server.seen if b is not None]


def test_bookkeeping_is_no_change_of_the_users(ready):
    put(ready, "/a.txt", "alpha")
    before = ready.rows("SELECT seq, action_type FROM action_log")
    changed = ready.rows("SELECT * FROM artifacts")
    flush(ready)
    assert ready.rows("SELECT seq, action_type FROM action_log") == before
    assert ready.rows("SELECT * FROM artifacts") == changed


def test_push_flush_push_then_nothing(ready, tmp_path):
    url = f"file://{tmp_path}/remote.sqlite"
    put(ready, "/a.txt", "alpha")

    def push():
        return json.loads(ready.one("SELECT sync_push(?)", url)).get("pushed")
    push()
    flush(ready)
    push()
    for _ in range(3):
        assert flush(ready) == (0, 0, 0, 0)
        assert push() == 0


def test_choir_index_of_the_remote_is_a_flush(ready):
    put(ready, "/a.txt", "alpha")
    assert json.loads(ready.one("SELECT choir_index('remote')")) == {
        "sent": 1, "removed": 0, "points": 1, "pending": 0}
    assert ready.one("SELECT qdrant_count()") == 1


def test_max_and_pending_count_documents(ready):
    for n in range(10):
        put(ready, f"/{n}.txt", f"word{n}")
    lag = "SELECT value FROM choir_metrics WHERE name = 'qdrant.pending'"
    assert ready.one(lag) == 10
    assert flush(ready, 4) == (4, 0, 4, 6)
    assert ready.one(lag) == 6
    assert flush(ready, 4) == (4, 0, 4, 2)
    put(ready, "/new.txt", "new")  # met by the first pass and in the log
    assert flush(ready) == (4, 0, 4, 0)
    assert ready.one("SELECT qdrant_count()") == 11
    assert flush(ready, 5) == (0, 0, 0, 0)
    assert "max must be 1 to" in ready.error("SELECT qdrant_flush(0)")


def test_another_target_gets_everything(ready, server):
    for n in range(3):
        put(ready, f"/{n}.txt", f"word{n}")
    flush(ready)
    other = server.collection + "-b"
    ready.one("SELECT choir_config('qdrant.collection', ?)", other)
    assert "status 404" in ready.error("SELECT qdrant_flush()")
    ready.one("SELECT qdrant_init()")
    assert flush(ready) == (3, 0, 3, 0)
    server.raw("DELETE", f"/collections/{other}")


def test_a_gap_in_the_log_is_closed_by_looking_at_everything(ready, server):
    """Points of a document that went while nobody wrote it down go too; those
    of other workspaces of the same user stay."""
    keep = put(ready, "/keep.txt", "keep")
    gone = put(ready, "/gone.txt", "gone")
    flush(ready)
    ready.one("SELECT qdrant_upsert('by hand', 0, 'text',"
              " '{\"kind\":\"artifact\",\"workspace\":\"another\"}')")
    ready.run("DROP TRIGGER _choir_log_artifacts_delete;"
              "DELETE FROM artifacts WHERE path = '/gone.txt'")
    ready.one("SELECT choir_init()")  # notices, and sends consumers back
    assert flush(ready)[:2] == (1, 1)
    assert {k[1] for k in points(ready)} == {keep, "by hand"}
    assert gone not in {k[1] for k in points(ready)}


def test_a_flush_that_is_cut_off_goes_on(db, tmp_path):
    """The server dies at each request in turn; in the end all is there once."""
    with qdrant_server.Qdrant(tmp_path / "q") as q:
        server = Server(q.url, None, q.seen)
        db = server.tell(db)
        db.one("SELECT qdrant_init()")
        for n in range(200):
            put(db, f"/{n}.txt", f"word{n} " * 20)
        left, real = [0], q.route

        def route(method, path, query, body):
            if method in ("PUT", "POST"):
                left[0] -= 1
                if left[0] < 0:
                    if left[0] % 2:  # done, but the reply says it is not
                        real(method, path, query, body)
                    raise qdrant_server.Problem(500, "Service internal error")
            return real(method, path, query, body)
        q.route = route
        for attempt in range(20):
            left[0] = attempt
            try:
                flush(db)
                break
            except db.failure as e:
                assert "status 500" in str(e)
        q.route = real
        flush(db)
        assert attempt >= 2
        assert len(points(db)) == 200 == db.one("SELECT qdrant_count()")
        assert flush(db) == (0, 0, 0, 0)


@pytest.mark.inprocess
def test_a_flush_can_be_interrupted(ready, server):
    for n in range(400):
        put(ready, f"/{n}.txt", f"word{n}")
    timer = threading.Timer(0.05, ready.con.interrupt)
    timer.start()
    try:
        flush(ready)
    except ready.failure as e:
        assert "nterrupt" in str(e) + type(e).__name__
    timer.join()
    flush(ready)
    assert ready.one("SELECT qdrant_count()") == 400


def test_no_transaction_waits_for_the_network(ready):
    put(ready, "/a.txt", "alpha")
    ready.run("BEGIN")
    assert "call it outside BEGIN" in ready.error("SELECT qdrant_flush()")
    ready.run("COMMIT")
    assert "call it" in ready.error(
        "INSERT INTO user_settings(setting_name, setting_value) SELECT 'x',"
        " qdrant_flush()")
    assert flush(ready) == (1, 0, 1, 0)


def test_what_it_needs_is_named(tmp_path, open_db, server):
    db = server.tell(open_db(":memory:"))
    assert "no workspace in schema main" in db.error("SELECT qdrant_flush()")
    with FaultServer() as s:
        gone = s.url("")
    db = open_db(tmp_path / "w.db", init=True)
    db.one("SELECT choir_config('qdrant.url', ?)", gone)
    db.one("SELECT choir_config('http.attempts', 1)")
    assert "no user is set" in db.error("SELECT qdrant_flush()")
    db.one("SELECT choir_config('user', 'ada')")
    put(db, "/a.txt", "alpha")
    assert gone in db.error("SELECT qdrant_flush()")
    assert db.one("SELECT value FROM choir_metrics"
                  " WHERE name = 'qdrant.pending'") == 1


@pytest.mark.inprocess
def test_a_workspace_that_cannot_be_written_is_not_flushed(tmp_path, open_db,
                                                           server):
    open_db(tmp_path / "w.db", init=True).close()
    db = server.tell(open_db(f"file:{tmp_path}/w.db?mode=ro", uri=True))
    assert db.error("SELECT qdrant_flush()") == (
        "qdrant_flush: the workspace is read-only and the place of the flush is"
        " written there")


def test_texts_of_any_kind_go_through(ready):
    texts = ["", " \n ", "a\0b", "ü" * 5000, "x" * 100000, "{\"json\": [1]}",
             "line\r\n" * 500]
    for n, t in enumerate(texts):
        ready.rows("INSERT INTO artifacts(path, name, content) VALUES(?, 'x',"
                   " ?)", f"/{n}", t)
    ready.rows("INSERT INTO artifacts(path, name, content) VALUES('/bad', 'x',"
               " CAST(x'ff61ff' AS TEXT))")
    sent, removed, n, pending = flush(ready)
    assert (sent, removed, pending) == (8, 0, 0)
    paths = {json.loads(p)["path"] for (p,) in ready.rows(
        "SELECT payload FROM qdrant_scroll()")}
    assert paths == {f"/{n}" for n in range(7)} | {"/bad"}
