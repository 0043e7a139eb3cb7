# SPDX-License-Identifier: MIT
"""choir_search: what it finds, in which form, and what it refuses."""
import json

import pytest

DOCS = {
    "/plans/roadmap.md": "# Quarterly plan\n\nShip the search, then the sync.",
    "/plans/budget.md": "Money for the quarter: servers, coffee.",
    "/law/mit.txt": "Permission is hereby granted, free of charge. The software"
                    " is provided as is, without warranty of any kind.",
    "/law/apache.txt": "If You institute patent litigation then any patent"
                       " licenses granted to You terminate.",
    "/notes/100%_done.txt": "percent and underscore",
    "/notes/100xxdone.txt": "percent and underscore",
}


@pytest.fixture(params=["pending", "indexed"])
def ws(db, request):
    """The same documents, before and after choir_index()."""
    for path, text in DOCS.items():
        db.one("SELECT artifact_put(?, ?)", path, text)
    if request.param == "indexed":
        assert json.loads(db.one("SELECT choir_index()")) == {
            "indexed": 6, "removed": 0, "chunks": 12, "pending": 0}
    return db


def paths(db, query, **args):
    more = "".join(f" AND {k} = '{v}'" for k, v in args.items())
    return [r[0] for r in db.rows(
        f"SELECT path FROM choir_search(?) WHERE 1{more}", query)]


def test_words_find_their_document_first(ws):
    assert paths(ws, "quarterly plan")[0] == "/plans/roadmap.md"
    assert paths(ws, "patent litigation")[0] == "/law/apache.txt"


def test_all_columns_are_as_documented(ws):
    rank, score, kind, ident, path, preview, source = ws.rows(
        "SELECT * FROM choir_search('warranty of any kind')")[0]
    assert (rank, kind, path) == (1, "artifact", "/law/mit.txt")
    assert ident == ws.one("SELECT id FROM artifacts WHERE path=?", path)
    assert preview == DOCS["/law/mit.txt"]
    assert source == "text+vector"
    assert score == pytest.approx(2 / 61)


def test_ranks_count_from_one_and_scores_fall(ws):
    rows = ws.rows("SELECT rank, score FROM choir_search('percent the patent')")
    assert [r[0] for r in rows] == list(range(1, len(rows) + 1))
    assert [r[1] for r in rows] == sorted((r[1] for r in rows), reverse=True)


def test_misspelt_words_find_their_document(ws):
    assert paths(ws, "warrenty")[0] == "/law/mit.txt"
    assert paths(ws, "quartely paln")[0] == "/plans/roadmap.md"
    assert paths(ws, "litigaton")[0] == "/law/apache.txt"


@pytest.mark.parametrize("query", ["cofee", "paln", "litigaiton", "warrantie"])
def test_a_misspelt_word_counts_as_the_one_that_is_there(ws, query):
    assert ws.rows("SELECT source FROM choir_search(?, 1)", query) == [
        ("text+vector",)]


def test_words_side_by_side_come_before_the_same_words_apart(db):
    db.one("SELECT artifact_put('/apart', 'tea in a cup that was red')")
    db.one("SELECT artifact_put('/beside', 'red tea in a cup that was')")
    assert paths(db, "red tea") == ["/beside", "/apart"]


def test_the_last_word_may_be_unfinished(ws):
    assert paths(ws, "patent litig")[0] == "/law/apache.txt"
    assert paths(ws, "cof") == ["/plans/budget.md"]


def test_case_and_diacritics_do_not_matter(ws):
    ws.one("SELECT artifact_put('/fr.txt', 'Déjà vu à l''École')")
    assert paths(ws, "DEJA ecole")[0] == "/fr.txt"
    assert paths(ws, "déjà VU")[0] == "/fr.txt"


def test_other_scripts_are_found(ws):
    for path, text, query in (
            ("/gr.txt", "Ὀδυσσεύς πολύτροπος", "οδυσσευσ"),
            ("/ru.txt", "Ёлка и снег", "елка"),
            ("/he.txt", "שלום עולם", "שלום"),
            ("/zh.txt", "今天的会议记录在这里。", "会议记录"),
            ("/em.txt", "launch 🚀 day", "🚀")):
        ws.one("SELECT artifact_put(?, ?)", path, text)
        assert paths(ws, query)[0] == path


def test_a_prefix_is_exact_and_has_no_wildcards(ws):
    assert paths(ws, "percent", prefix="/notes/100%_") == [
        "/notes/100%_done.txt"]
    assert paths(ws, "percent", prefix="/NOTES/") == []
    assert len(paths(ws, "percent", prefix="/notes/")) == 2
    assert len(paths(ws, "percent", prefix="notes/")) == 2
    assert paths(ws, "percent", prefix="/") == paths(ws, "percent")


def test_a_prefix_leaves_out_messages(ws):
    ws.one("SELECT message_add(conversation_create('c'), 'user', 'percent')")
    assert None in paths(ws, "percent")
    assert None not in paths(ws, "percent", prefix="/")


def test_the_heaviest_of_many_partial_matches_stay(db):
    db.run("SELECT artifact_put('/a' || value, 'alpha n' || value) FROM"
           " (WITH RECURSIVE c(value) AS (VALUES(1) UNION ALL SELECT value + 1"
           " FROM c WHERE value < 150) SELECT value FROM c)")
    db.one("SELECT artifact_put('/last', 'beta gamma')")
    path, source = db.rows("SELECT path, source FROM"
                           " choir_search('alpha beta gamma', 1)")[0]
    assert path == "/last" and source.startswith("text")


def test_k_is_a_number_of_documents(ws):
    for k in (1, 2):
        assert len(ws.rows("SELECT 1 FROM choir_search('percent', ?)", k)) == k
    assert len(ws.rows("SELECT 1 FROM choir_search('percent', 1000)")) >= 2


def test_messages_and_memories_are_found(ws):
    ws.one("SELECT message_add(conversation_create('c'), 'user',"
           " 'where is the zebra')")
    ws.run("INSERT INTO memories(content) VALUES('the zebra sleeps')")
    rows = ws.rows("SELECT kind, path, preview FROM choir_search('zebra')")
    assert sorted(rows) == [("memory", None, "the zebra sleeps"),
                            ("message", None, "where is the zebra")]


def test_a_file_that_is_no_text_is_found_by_its_path(ws):
    ws.one("SELECT artifact_put('/img/holiday-beach.png', ?)",
           b"\x89PNG\0\0beachcomber")
    assert ws.rows("SELECT path, preview, source FROM choir_search('beach')") \
        == [("/img/holiday-beach.png", "/img/holiday-beach.png", "text")]
    assert paths(ws, "beachcomber") in ([], ["/img/holiday-beach.png"])


def test_a_path_hit_shows_how_the_document_begins(ws):
    row = ws.rows("SELECT path, preview FROM choir_search('budget')")[0]
    assert row == ("/plans/budget.md", DOCS["/plans/budget.md"])


def test_long_texts_show_the_passage(ws):
    text = "filler words here. " * 30 + "The needle lies here. " + "more. " * 60
    ws.one("SELECT artifact_put('/hay.txt', ?)", text)
    preview = ws.one("SELECT preview FROM choir_search('needle')")
    assert "The needle lies here." in preview
    assert preview.startswith("…") and preview.endswith("…")
    assert len(preview.encode()) <= 210 and "\n" not in preview


ODD_QUERIES = [
    '"', "'", '"patent', "patent AND", "AND OR NOT", "NEAR(a b)", "(", ")",
    "text:patent", "pat*", "*", "^patent", "-patent", "a+b", "{x}", "%", "_",
    "\\", "--", ";", "patent; DROP TABLE artifacts", "patent\n\tlitigation",
    "\u0301", "\u200d", "𝕡𝕒𝕥", "a" * 5000, "word " * 3000,
    " ".join(f"w{i}" for i in range(500)), "\U0010ffff"]


def test_any_text_is_a_safe_query(ws):
    for query in ODD_QUERIES:
        found = paths(ws, query)
        assert "patent" not in query or "/law/apache.txt" in found, query


def test_a_query_without_words_finds_nothing(ws):
    for query in ("", " ", "?!", "\n", "— «»"):
        assert ws.rows("SELECT * FROM choir_search(?)", query) == []


@pytest.mark.parametrize("args, message", [
    ("NULL", "query must be text, got null"),
    ("7", "query must be text, got integer"),
    ("x'61'", "query must be text, got blob"),
    ("CAST(x'61ff' AS TEXT)", "query is not valid UTF-8 at byte 1"),
    ("'a' || char(0)", "query has a NUL character at byte 1"),
    ("'a', 0", "k must be 1 to 1000, got 0"),
    ("'a', 1001", "k must be 1 to 1000, got 1001"),
    ("'a', 'many'", "k must be an integer, got text"),
    ("'a', 5, 'near'", "scope must be local, remote or all, got 'near'"),
    ("'a', 5, 'local', 7", "prefix must be text, got integer"),
])
def test_bad_arguments_are_named(db, args, message):
    assert db.error(f"SELECT * FROM choir_search({args})") == (
        "choir_search: " + message)


def test_null_options_are_defaults(ws):
    assert ws.rows("SELECT * FROM choir_search('patent', NULL, NULL, NULL)") == (
        ws.rows("SELECT * FROM choir_search('patent')"))


def test_a_search_can_be_joined_and_nested(ws):
    rows = ws.rows(
        "SELECT q.column1, s.path FROM (VALUES('patent'), ('coffee')) AS q,"
        " choir_search(q.column1, 1) AS s")
    assert rows == [("patent", "/law/apache.txt"),
                    ("coffee", "/plans/budget.md")]
    assert ws.one(
        "SELECT b.path FROM choir_search('coffee', 1) AS a,"
        " choir_search(a.preview, 1) AS b") == "/plans/budget.md"


def test_without_a_workspace_it_says_so(tmp_path, open_db):
    d = open_db(tmp_path / "plain.db")
    assert d.error("SELECT * FROM choir_search('a')") == (
        "choir_search: no workspace in schema main; run select choir_init()")


def test_an_empty_workspace_has_no_answers(db):
    assert db.rows("SELECT * FROM choir_search('anything')") == []
    db.one("SELECT choir_index()")
    assert db.rows("SELECT * FROM choir_search('anything')") == []


def test_a_search_writes_nothing(ws):
    before = ws.one("SELECT total_changes()")
    ws.rows("SELECT * FROM choir_search('patent')")
    assert ws.one("SELECT total_changes()") == before


def test_a_readonly_connection_searches(ws, open_db):
    ws.one("SELECT artifact_put('/late.txt', 'lately written')")
    d = open_db(f"file:{ws.path}?mode=ro", uri=True,
                entry="sqlite3_choir_readonly_init")
    assert [r[0] for r in d.rows("SELECT path FROM choir_search('lately')")] == [
        "/late.txt"]
    assert "no such function" in d.error("SELECT choir_index()")


def test_a_locked_connection_does_not_search(ws):
    ws.one("SELECT choir_lock()")
    assert "this connection is locked" in ws.error(
        "SELECT * FROM choir_search('a')")


def test_a_view_of_the_file_cannot_search(ws):
    ws.run("CREATE VIEW v AS SELECT * FROM choir_search('patent')")
    assert "unsafe use of virtual table" in ws.error("SELECT * FROM v")


def test_ranks_are_fused_as_the_search_does(db):
    assert db.one("SELECT rrf(1)") == 1 / 61
    assert db.one("SELECT rrf(2, 0.5, 0)") == 0.25
    assert db.one("SELECT rrf(NULL)") is None
    for call, problem in (("rrf(0)", "rank must be 1 to"),
                          ("rrf('x')", "rank must be an integer"),
                          ("rrf(1, 'x')", "weight must be a number"),
                          ("rrf(1, 1, -1)", "k must be 0 to")):
        assert problem in db.error("SELECT " + call)
