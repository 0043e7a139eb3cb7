# SPDX-License-Identifier: MIT
"""choir_search over what is here and what is in the collection."""
import pytest

from fault_server import FaultServer, status
from qdrant_fixtures import (ada, fake, old, server, two,  # noqa: F401
                             vec)

HITS = "SELECT {} FROM choir_search(?, 10, ?)"


@pytest.fixture
def both(ada, tmp_path, open_db, server):
    """Two devices of one user: what the other flushed, and what is here."""
    ada.one("SELECT qdrant_init()")
    other = server.tell(open_db(tmp_path / "other.db", init=True))
    for path, text in (("/there/tea.md", "green tea and its water"),
                       ("/there/oven.md", "bread from a hot oven")):
        other.one("SELECT artifact_put(?, ?)", path, text)
    other.one("SELECT qdrant_flush()")
    for path, text in (("/here/tea.md", "black tea with milk"),
                       ("/here/tax.md", "a law about tax")):
        ada.one("SELECT artifact_put(?, ?)", path, text)
    ada.one("SELECT qdrant_flush()")
    return ada


def paths(db, query, scope):
    return [r[0] for r in db.rows(HITS.format("path"), query, scope)]


def test_every_scope_finds_its_own(both):
    assert set(paths(both, "tea", "local")) == {"/here/tea.md"}
    found = paths(both, "tea", "remote")
    assert set(found[:2]) == {"/here/tea.md", "/there/tea.md"}
    found = both.rows(HITS.format("path, source"), "tea", "all")
    assert found[0] == ("/here/tea.md", "text+remote")
    assert ("/there/tea.md", "remote") in found


def test_a_document_that_two_lists_have_is_one_row_with_both_ranks(both):
    rows = both.rows(HITS.format("rank, score, kind, id, path, preview"),
                     "black tea with milk", "all")
    assert [r[0] for r in rows] == list(range(1, len(rows) + 1))
    assert len({r[3] for r in rows}) == len(rows)
    assert rows[0][1] == pytest.approx(3 / 61)
    assert rows[0][2:] == ("artifact", both.one(
        "SELECT id FROM artifacts WHERE path = '/here/tea.md'"),
        "/here/tea.md", "black tea with milk")
    assert [r[1] for r in rows] == sorted((r[1] for r in rows), reverse=True)


def test_a_hit_of_the_remote_has_all_its_columns(both):
    rank, score, kind, ident, path, preview, source = both.rows(
        "SELECT * FROM choir_search('hot oven', 1, 'remote')")[0]
    assert (rank, kind, path, preview, source) == (
        1, "artifact", "/there/oven.md", "bread from a hot oven", "remote")
    assert score == pytest.approx(1 / 61) and len(ident) == 36


def test_chunks_of_one_document_are_one_hit(both):
    both.one("SELECT artifact_put('/here/long.md', ?)",
             "\n\n".join(["tea leaves " * 60] * 20))
    both.one("SELECT qdrant_flush()")
    found = paths(both, "tea leaves", "remote")
    assert len(found) == len(set(found)) and "/here/long.md" in found


def test_what_is_gone_here_is_not_shown_from_there(both):
    both.one("SELECT artifact_delete('/here/tea.md')")
    assert both.one("SELECT qdrant_count(qdrant_filter('path', '=',"
                    " '/here/tea.md'))") == 1  # no flush yet
    for scope in ("remote", "all"):
        assert "/here/tea.md" not in paths(both, "tea", scope)


def test_a_prefix_holds_for_both(both):
    for prefix in ("/there/", "there/"):
        rows = both.rows("SELECT path FROM choir_search('tea', 10, 'all')"
                         " WHERE prefix = ?", prefix)
        assert rows and all(r[0].startswith("/there/") for r in rows)


def test_messages_and_points_made_by_hand_are_found(both):
    c = both.one("SELECT conversation_create('Talk')")
    m = both.one("SELECT message_add(?, 'user', 'zebra crossing')", c)
    both.one("SELECT qdrant_upsert('by-hand', 0, 'zebra stripes')")
    both.one("SELECT qdrant_flush()")
    rows = both.rows(HITS.format("kind, id, path"), "zebra", "all")
    assert ("message", m, None) in rows
    assert ("artifact", "by-hand", None) in rows


def test_a_remote_that_is_down_is_told_and_not_waited_for(both, server):
    with FaultServer() as s:
        gone = s.url("")
        s.on(f"/collections/{server.collection}/points/query", status(503))
        both.one("SELECT choir_config('qdrant.url', ?)", gone)
        rows = both.rows(HITS.format("path, source"), "tea", "all")
        assert rows[0][0] == "/here/tea.md"
        assert rows[0][1].startswith("text; without remote: ")
        assert "status" in both.error(HITS.format("path"), "tea", "remote")
    rows = both.rows(HITS.format("path, source"), "tea", "all")
    assert "without remote: " in rows[0][1] and gone in rows[0][1]
    assert gone in both.error(HITS.format("path"), "tea", "remote")
    assert paths(both, "…", "all") == []


def test_without_a_user_there_is_no_remote(db):
    db.one("SELECT artifact_put('/a.md', 'tea')")
    (row,) = db.rows(HITS.format("path, source"), "tea", "all")
    assert row[0] == "/a.md" and "without remote: no user is set" in row[1]
    assert "no user is set" in db.error(HITS.format("path"), "tea", "remote")


def test_the_readonly_entry_stays_local(tmp_path, open_db):
    open_db(tmp_path / "r.db", init=True).one(
        "SELECT artifact_put('/a.md', 'tea')")
    ro = open_db(tmp_path / "r.db", entry="sqlite3_choir_readonly_init")
    assert len(ro.rows("SELECT path FROM choir_search('tea')")) == 1
    for scope in ("remote", "all"):
        assert "this connection is read-only; use scope 'local'" in ro.error(
            HITS.format("path"), "tea", scope)
