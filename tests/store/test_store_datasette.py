# SPDX-License-Identifier: MIT
"""docs/datasette.md and docs/datasette.yaml, in Datasette itself."""
import html
import http.cookiejar
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
        self.open = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())).open
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "datasette", path, "-m",
             ROOT / "docs/datasette.yaml", "--port", str(port), *options],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
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
        with self.open(self.url + path + query, timeout=60) as r:
            return r.read().decode()

    def rows(self, path, /, **query):
        return json.loads(self.get(path, _shape="array", **query))

    def forms(self, path):
        """What the forms of a page would send, as [(action, {name: value})]."""
        out = []
        for action, body in re.findall(
                r'<form action="([^"]*)" method="post">(.*?)</form>',
                self.get(path), re.S):
            fields = {}
            for tag in re.findall(r"<input [^>]*>", body):
                has = dict(re.findall(r'(\w+)="([^"]*)"', tag))
                fields[has["name"]] = html.unescape(has.get("value", ""))
            out.append((action, fields))
        return out

    def send(self, action, fields):
        """Sends a form; the page that comes then."""
        with self.open(self.url + action, urllib.parse.urlencode(
                fields).encode(), timeout=60) as r:
            return r.read().decode()

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


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
                "SELECT state_set('Identity', '$.tags', '[\"kind\", 7]')",
                "INSERT INTO personas(id, name) VALUES('p', 'Ada')",
                "INSERT INTO memories(id, persona_id, content, importance)"
                " VALUES('m', 'p', 'likes <tea>', 0.25)",
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
        "/notes/state_leaves.json")] == [
            ("$.name.first", "Ada"), ("$.tags[0]", "kind"), ("$.tags[1]", 7)]
    newest = site.rows("/notes/timeline.json")[:2]
    assert newest[0]["seq"] > newest[1]["seq"]
    assert "ARTIFACT" in site.get("/notes/timeline")


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


TEMPLATES = ("--template-dir", ROOT / "docs/datasette")


@pytest.fixture
def editor(notes, tmp_path):
    """The command that edits, on a copy; nobody has signed in."""
    path = tmp_path / "notes.db"
    path.write_bytes(notes.read_bytes())
    d = Datasette(path, *TEMPLATES, "--load-extension", SO, "--root",
                  "--setting", "default_allow_sql", "off")
    d.path = path
    yield d
    d.close()


def form(site, page, query, **fields):
    """The first form of a page for a query that has these fields."""
    return next((action, has) for action, has in site.forms(page)
                if action.endswith("/" + query)
                and fields.items() <= has.items())


def test_the_state_is_a_tree_that_root_edits(editor):
    assert "Ada" in editor.get("/notes/state")
    assert editor.forms("/notes/state") == []
    with pytest.raises(urllib.error.HTTPError) as e:
        editor.get("/notes", sql="SELECT 1")
    assert e.value.code == 403
    url = editor.process.stdout.readline().strip()
    editor.get(url[url.index("/-/"):])

    def save(query, new, **which):
        action, fields = form(editor, "/notes/state", query, **which)
        return editor.send(action, {**fields, **new})

    assert "Saved" in save("state_set", {"value": "Grace"}, path="$.name.first")
    save("state_set", {"value": "12"}, path="$.tags[#]")
    save("state_set", {"value": '"8"'}, path="$.tags[1]")
    save("state_set", {"key": "Persona", "path": "$.mood.now", "value": "calm"},
         path="$.")
    save("state_delete", {}, path="$.tags[0]")
    d = Db(editor.path)
    assert [json.loads(t) for t, in d.rows(
        "SELECT value_json FROM state_storage ORDER BY key_name")] == [
        {"name": {"first": "Grace"}, "tags": ["8", 12]},
        {"mood": {"now": "calm"}}]
    assert d.one("SELECT count(*) FROM action_log WHERE tbl = 'state_storage'"
                 " AND seq > 5") >= 4
    d.close()
    for _ in range(2):  # what is shown is sent back as it is
        for action, fields in editor.forms("/notes/state"):
            if fields.get("value"):
                editor.send(action, fields)
    assert '&#34;8&#34;' in editor.get("/notes/state")


def test_nobody_else_edits(editor):
    for query in ("state_set", "state_delete", "memory_save", "memory_add"):
        with pytest.raises(urllib.error.HTTPError) as e:
            editor.get("/notes/" + query)
        assert e.value.code == 403
        with pytest.raises(urllib.error.HTTPError) as e:  # no form, no token
            editor.open(urllib.request.Request(
                f"{editor.url}/notes/{query}", b'{"key": "Identity"}',
                {"Content-Type": "application/json"}))
        assert e.value.code == 403 and b"permission" in e.value.read()


def test_memories_are_shown_by_persona_and_edited(editor):
    page = editor.get("/notes/memory")
    assert "likes &lt;tea&gt;" in page and 'value="0.25"' in page
    url = editor.process.stdout.readline().strip()
    editor.get(url[url.index("/-/"):])
    action, fields = form(editor, "/notes/memory", "memory_save", id="m")
    editor.send(action, {**fields, "importance": "0.75"})
    action, fields = form(editor, "/notes/memory", "memory_add",
                          persona_id="p")
    editor.send(action, {**fields, "content": "has a garden"})
    action, fields = form(editor, "/notes/memory", "memory_save", id="m")
    assert "constraint failed" in editor.send(
        action, {**fields, "importance": "2"})
    d = Db(editor.path)
    assert d.rows("SELECT persona, content, importance FROM persona_memories"
                  " ORDER BY importance") == [
        ("Ada", "has a garden", 0.5), ("Ada", "likes <tea>", 0.75)]
    d.close()


def test_activity_is_drawn_as_bars(editor):
    page = editor.get("/notes/activity")
    assert 'class="bar" style="width: 100.0%"' in page
    assert 'http-equiv="refresh"' in page


def test_without_choir_the_tables_and_views_are_there(notes):
    d = Datasette(notes)
    try:
        assert len(d.rows("/notes/files.json")) == 2
        assert d.rows("/notes/chat.json")[0]["role"] == "user"
    finally:
        d.close()
