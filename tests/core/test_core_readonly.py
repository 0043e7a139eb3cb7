# SPDX-License-Identifier: MIT
"""sqlite3_choir_readonly_init: for a web page over the file (Datasette).

Nothing that writes or reaches out exists on such a connection; search does,
held to what is local.
"""
READONLY = "sqlite3_choir_readonly_init"
LOCAL = {"choir_search", "embed", "embed_each"}  # local under this entry point


def names(d):
    return ({n for (n,) in d.rows("SELECT name FROM pragma_function_list")}
            | {n for (n,) in d.rows("SELECT name FROM pragma_module_list")})


def test_the_readonly_entry_point_has_nothing_that_writes_or_reaches_out(
        open_db):
    bare, full = names(open_db(choir=False)), open_db()
    d = open_db(entry=READONLY)
    risk = dict(full.rows("SELECT name, risk FROM choir_help()"))
    have = names(d) - bare
    assert {n for (n,) in d.rows("SELECT name FROM choir_help")} == have & set(
        risk)
    bad = {n for n in have & set(risk) if risk[n] in ("write", "effect")}
    assert bad <= LOCAL
    assert {n for n, r in risk.items() if r in ("pure", "read")} <= have


def test_a_workspace_is_searched_through_it(tmp_path, open_db):
    w = open_db(tmp_path / "ws.db", init=True)
    w.one("SELECT artifact_put('/notes/tea.md', 'green tea from Uji')")
    w.one("SELECT choir_index()")
    d = open_db(f"file:{tmp_path}/ws.db?mode=ro", uri=True, entry=READONLY)
    assert d.one("SELECT path FROM choir_search('tea', 1)") == "/notes/tea.md"
    assert d.one("SELECT path FROM artifact_ls('/notes')") == "/notes/tea.md"
    assert "no such function" in d.error("SELECT artifact_delete('/notes/tea.md')")


def test_an_unindexed_workspace_is_searched_through_it(tmp_path, open_db):
    w = open_db(tmp_path / "ws.db", init=True)
    w.one("SELECT artifact_put('/notes/tea.md', 'green tea from Uji')")
    d = open_db(f"file:{tmp_path}/ws.db?mode=ro", uri=True, entry=READONLY)
    assert d.one("SELECT path FROM choir_search('tea', 1)") == "/notes/tea.md"
