# SPDX-License-Identifier: MIT
"""Every statement of docs/recipes.md that is about the store runs as it stands."""
import json
import re

import pytest
from conftest import ROOT

TEXT = (ROOT / "docs/recipes.md").read_text()


def row(name):
    """The statement in the table row that begins with name."""
    return re.search(rf"^\| {re.escape(name)} \| `([^`]+)` \|$", TEXT, re.M).group(1)


def test_the_five_routes_of_a_conversation_api(db):
    ident = db.one(row("create"), "Plans")
    message = db.one(row("message"), ident, "user", "Hello")
    assert len(ident) == len(message) == 36
    assert [r[:3] for r in db.rows(row("load"))] == [(ident, "Plans", 1)]
    assert [r[:3] for r in db.rows(row("– with messages"))] == [(ident, "user", "Hello")]
    assert db.one(row("title"), ident, "Better plans") == 1
    assert db.rows(row("load"))[0][1] == "Better plans"
    assert db.one(row("delete"), ident) == 1
    assert db.rows(row("load")) == [] and db.one("SELECT count(*) FROM messages") == 0


def test_the_five_endpoints_of_a_state_api(db):
    assert db.one(row("`PUT /api/state/{key}`"), "Identity", '{"name":"Nola"}') == 1
    db.one("SELECT state_checkpoint('first')")
    assert db.one(row("`GET /api/state/{key}`"), "Identity") == '{"name":"Nola"}'
    assert json.loads(db.one(row("`GET /api/state`"))) == {"Identity": {"name": "Nola"}}
    assert db.one(row("`DELETE /api/state/{key}`"), "Identity") == 1
    assert db.one(row("`GET /api/state/{key}`"), "Identity") is None
    assert db.one(row("`POST /api/state/restore`"), "first") == 1
    assert db.one(row("`GET /api/state/{key}`"), "Identity") == '{"name":"Nola"}'


@pytest.mark.inprocess
def test_every_block_of_the_page_runs_in_order(tmp_path, monkeypatch, open_db):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds/Identity.json").write_text('{"name": "Nola"}')
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/tea.md").write_text("The ceremony of tea")
    db = open_db(tmp_path / "ws.db", init=True)
    ident, results = None, {}
    for section in re.split(r"^## ", TEXT, flags=re.M)[1:]:
        if not section.startswith(("State", "Search", "Nearest", "Server", "Tasks", "Personas", "Shards",
                                   "How", "Take")):
            continue
        for block in re.findall(r"^```sql\n(.*?)^```", section, re.M | re.S):
            for sql in block.strip().split("\n"):
                if ":id" in sql and "task_" in sql:
                    ident = json.loads(db.one("SELECT task_claim()") or "{}").get("id", ident)
                rows = db.rows(sql.replace(":id", f"'{ident}'"))
                if sql.startswith("SELECT task_claim"):
                    ident = json.loads(rows[0][0])["id"]
                results[sql] = rows
    assert results["SELECT state_get('Persona', '$.traits.humor');"] == [(7,)]
    assert results["SELECT key, path, before, after FROM state_diff('before the visit', NULL);"] == [
        ("Identity", "$.name", "Nola", "Nora")]
    assert json.loads((tmp_path / "backup/Identity.json").read_text()) == {"name": "Nola"}
    assert results["SELECT cache_get('https://api.test/models', 30000);"] == [('{"n":3}',)]
    assert results["SELECT name, memories FROM active_persona;"] == [("Ada", 1)]
    assert len(results["SELECT title FROM shard1.conversations UNION ALL SELECT title FROM"
                       " shard2.conversations;"]) == 2
    assert [r[0] for r in results["SELECT path, preview FROM choir_search('tea ceremony', 5);"]
            ] == ["/notes/tea.md"]
    assert [rows for sql, rows in results.items() if "AS v JOIN item" in sql][0][0][0] == (
        "desk lamp")
    assert json.loads([rows for sql, rows in results.items() if "log_undo" in sql][0][0][0])[
        "rows"] == 0
