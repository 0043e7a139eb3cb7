# SPDX-License-Identifier: MIT
"""docs/datasette.md and docs/datasette.yaml, in Datasette itself."""
import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from conftest import ROOT, SO, Db

pytestmark = pytest.mark.once


class Datasette:
    """The command of docs/datasette.md on a file, at a port of its own."""

    def __init__(self, path, *options):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "datasette", path, "-m",
             ROOT / "docs/datasette.yaml", "--port", str(port), *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                self.get("/-/versions.json")
                return
            except urllib.error.URLError:
                assert self.process.poll() is None, "datasette ended"
                time.sleep(0.1)
        raise AssertionError("datasette does not answer")

    def get(self, path, /, **query):
        query = "?" + urllib.parse.urlencode(query) if query else ""
        with urllib.request.urlopen(self.url + path + query, timeout=60) as r:
            return r.read().decode()

    def rows(self, path, /, **query):
        return json.loads(self.get(path, _shape="array", **query))

    def close(self):
        self.process.terminate()
        self.process.wait()


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """A workspace with something of everything, searchable."""
    path = tmp_path_factory.mktemp("datasette") / "notes.db"
    d = Db(path, init=True)
    for sql in ("SELECT artifact_put('/garden/tea.md', 'green tea in the shade')",
                "SELECT artifact_put('/list.txt', 'flour and eggs')",
                "INSERT INTO conversation_history(id, title) VALUES('talk', 'Dinner')",
                "SELECT message_add('talk', 'user', 'what shall we cook?')",
                "SELECT state_set('Identity', '$.name.first', 'Ada')",
                "SELECT choir_index()", "PRAGMA journal_mode = DELETE"):
        d.rows(sql)
    d.close()
    return path


@pytest.fixture(scope="module")
def site(notes):
    d = Datasette(notes, "--load-extension",
                  f"{SO}:sqlite3_choir_readonly_init")
    yield d
    d.close()


def test_every_table_and_view_has_its_page(site, notes):
    page = site.get("/notes")
    d = Db(notes)
    shown = [n for n, in d.rows(
        "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")]
    d.close()
    for name in shown:
        site.get("/notes/" + name)
        if name.startswith("_choir"):  # hidden until one asks
            assert f">{name}</a></h3>" not in page, name
    assert re.search(r'href="/notes/files"', page)


def test_views_and_the_tree_of_the_state_are_pages(site):
    assert [r["path"] for r in site.rows("/notes/files.json")] == [
        "/garden/tea.md", "/list.txt"]
    assert site.rows("/notes/chat.json")[0]["content"] == "what shall we cook?"
    assert [(r["path"], r["value"]) for r in site.rows(
        "/notes/state_leaves.json")] == [("$.name.first", "Ada")]
    assert "ARTIFACT" in site.get("/notes/timeline", _sort_desc="seq")


def test_the_four_questions_are_answered(site):
    found = site.rows("/notes/search.json", words="green tea")
    assert found[0]["path"] == "/garden/tea.md"
    assert [r["path"] for r in site.rows("/notes/directory.json", dir="/")] == [
        "/garden/", "/list.txt"]
    assert site.rows("/notes/document.json", path="/list.txt") == [
        {"content": "flour and eggs"}]
    assert sum(r["actions"] for r in site.rows(
        "/notes/what_happened.json")) >= 4


@pytest.mark.parametrize("sql", [
    "SELECT artifact_put('/x', 'y')", "SELECT * FROM http_get('http://h/')",
    "SELECT sync_push('file:///tmp/x/')", "SELECT choir_backup('/tmp/x.db')"])
def test_a_visitor_can_neither_write_nor_reach_out(site, sql):
    with pytest.raises(urllib.error.HTTPError) as e:
        site.get("/notes.json", sql=sql)
    assert "no such" in e.value.read().decode()


def test_without_choir_the_tables_and_views_are_there(notes):
    d = Datasette(notes)
    try:
        assert len(d.rows("/notes/files.json")) == 2
        assert d.rows("/notes/chat.json")[0]["role"] == "user"
    finally:
        d.close()
