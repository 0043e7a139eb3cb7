# SPDX-License-Identifier: MIT
"""One way to reach choir from tests: the Db class, whatever the driver.

  CHOIR_SO           the extension to load (default: ./choir.so)
  CHOIR_DRIVER       sqlite3 (Debian's Python and its SQLite), apsw (the
                     newest), shell (linked from the amalgamation: CHOIR_SHELL)
  CHOIR_REQUIRE_ALL  1: a skipped test is a failed test
  CHOIR_REPEAT       1: the cases ran before under another driver or build, so
                     those marked `once` are left out
  CHOIR_SANITIZED    1: under sanitizers, where time and memory tell nothing

Db.rows(sql, *params) -> list of tuples     Db.one(...) -> first value
Db.run(script)        -> many statements    Db.error(...) -> error text

A test that needs the connection itself (Db.con: threads, open cursors, the
process's own memory) is marked `inprocess`; it has no meaning in the shell. One
that is long and does not depend on who calls choir is marked `once`.
"""
import contextlib
import os
import pathlib
import sqlite3
import tempfile
import uuid

import pytest

import shell_db

ROOT = pathlib.Path(__file__).resolve().parent.parent
SO = os.path.abspath(os.environ.get("CHOIR_SO", str(ROOT / "choir.so")))
DRIVER = os.environ.get("CHOIR_DRIVER", "sqlite3")
SHELL = os.environ.get("CHOIR_SHELL",
                       str(ROOT / "build/shell/choir-shell-asan"))
OMIT_NET = DRIVER == "shell" and SHELL.endswith("-nonet")
REPEAT = os.environ.get("CHOIR_REPEAT") == "1"
SANITIZED = os.environ.get("CHOIR_SANITIZED") == "1"
pytest_plugins = ["s3_stores"]
NET = ("http", "qdrant", "nats", "libsql")  # folders of tests that it lacks


NEW = []  # a workspace that choir_init() has made, and the lineage in it


def new_workspace():
    """The bytes of a file like those that choir_init() makes."""
    if not NEW:
        with tempfile.TemporaryDirectory() as folder:
            d = Db(folder + "/ws.db")
            d.one("SELECT choir_init()")
            lineage = d.one("SELECT value FROM _choir_meta"
                            " WHERE key = 'sync.lineage'").encode()
            d.close()
            NEW[:] = pathlib.Path(d.path).read_bytes(), lineage
        assert NEW[0].count(lineage) == 1
    return NEW[0].replace(NEW[1], uuid.uuid4().hex.encode())


class Db:
    """A connection; choir is loaded unless choir=False. With init it is one to
    a workspace: where there is no file yet, to a copy of a new one."""

    def __init__(self, path=":memory:", choir=True, init=False, uri=False,
                 entry=None, pragmas=()):
        self.path = str(path)
        if init and choir and not (pragmas or uri or entry) \
                and self.path != ":memory:" and not os.path.exists(self.path):
            pathlib.Path(self.path).write_bytes(new_workspace())
        if DRIVER == "shell":
            self.con = shell_db.Shell(SHELL, self.path, "none" if not choir
                                      else "readonly" if entry and
                                      "readonly" in entry else "choir")
            self.failure = shell_db.ShellError
        elif DRIVER == "apsw":
            import apsw
            flags = (apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
                     | (apsw.SQLITE_OPEN_URI if uri else 0))
            self.con = apsw.Connection(self.path, flags=flags)
            self.con.setbusytimeout(5000)
            self.failure = apsw.Error
        else:
            self.con = sqlite3.connect(self.path, isolation_level=None,
                                       uri=uri, timeout=5)
            self.failure = sqlite3.Error
        for p in pragmas:
            self.run("PRAGMA " + p)
        if choir and DRIVER != "shell":
            self.load(SO, entry)
        if init:
            self.one("SELECT choir_init()")

    def load(self, path, entry=None):
        path = str(path)
        if DRIVER == "shell":
            foreign = pathlib.Path(SHELL).with_name("choir.so")
            own = foreign if path == SO and foreign.exists() else path
            self.con.load(str(own), entry)  # a shell of another processor
        elif DRIVER == "apsw":
            self.con.enableloadextension(True)
            self.con.loadextension(path, entry)
        elif entry:
            self.con.enable_load_extension(True)
            self.con.execute("SELECT load_extension(?, ?)", (path, entry))
        else:
            self.con.enable_load_extension(True)
            self.con.load_extension(path)

    def rows(self, sql, *params):
        if DRIVER == "shell":
            return self.con.rows(sql, params)
        return [tuple(r) for r in self.con.execute(sql, params).fetchall()]

    def one(self, sql, *params):
        rows = self.rows(sql, *params)
        return rows[0][0] if rows else None

    def run(self, script):
        if DRIVER == "shell":
            self.con.rows(script)
        elif DRIVER == "apsw":
            self.con.execute(script).fetchall()
        else:
            for sql in shell_db.statements(script):  # executescript commits
                self.con.execute(sql).fetchall()

    def error(self, sql, *params):
        """The message of the error that sql must give."""
        try:
            rows = self.rows(sql, *params)
        except self.failure as e:
            text = str(e)
            return text.split("Error: ", 1)[-1]
        raise AssertionError(f"no error from {sql!r}, got {rows!r}")

    def close(self):
        self.con.close()


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "inprocess: needs the connection inside this process")
    config.addinivalue_line("markers", "once: long, the same everywhere")
    config.addinivalue_line("markers", "slow: the same as once")
    config.addinivalue_line("markers", "net: needs what CHOIR_OMIT_NET drops")
    config.addinivalue_line(
        "markers", "rights: lists or deletes, as the seeds' policy does not let")


def pytest_make_parametrize_id(config, val):
    """A test's name is an environment variable of what it starts: short."""
    if isinstance(val, (str, bytes)) and len(val) > 200:
        return f"{len(val)}-long"


def pytest_collection_modifyitems(config, items):
    """What has no meaning under this driver is not there to be skipped."""
    def out(item):
        return (DRIVER == "shell" and item.get_closest_marker("inprocess")
                or REPEAT and (item.get_closest_marker("once")
                               or item.get_closest_marker("slow"))
                or OMIT_NET and (item.path.parent.name in NET
                                 or item.get_closest_marker("net"))
                or item.get_closest_marker("rights") and "policy" in
                item.callspec.params.values())
    gone = [i for i in items if out(i)]
    items[:] = [i for i in items if not out(i)]
    if gone:
        config.hook.pytest_deselected(items=gone)


def no_skip(report):
    """CHOIR_REQUIRE_ALL=1: what cannot be run has failed."""
    if report.skipped and os.environ.get("CHOIR_REQUIRE_ALL") == "1" \
            and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) \
            else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"CHOIR_REQUIRE_ALL=1: {report.nodeid}: {reason}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    no_skip(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    """A file that leaves itself out as a whole."""
    outcome = yield
    no_skip(outcome.get_result())


@contextlib.contextmanager
def connections():
    """make(path, ...) -> Db, closed at the end."""
    opened = []

    def make(*args, **kw):
        opened.append(Db(*args, **kw))
        return opened[-1]

    try:
        yield make
    finally:
        for d in opened:
            d.close()


@pytest.fixture
def open_db():
    """open_db(path, ...) -> Db, closed at the end of the test."""
    with connections() as make:
        yield make


@pytest.fixture
def db(tmp_path, open_db):
    """A fresh workspace in a file."""
    return open_db(tmp_path / "ws.db", init=True)


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """No test reads or writes the developer's own configuration."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(home))
    for name in list(os.environ):
        if name.startswith(("CHOIR_", "XDG_", "AWS_", "QDRANT_", "OPENAI_",
                            "OLLAMA_", "NATS_")) and name not in (
                "CHOIR_SO", "CHOIR_DRIVER", "CHOIR_SHELL",
                "CHOIR_REQUIRE_ALL", "CHOIR_SANITIZED", "CHOIR_REPEAT"):
            monkeypatch.delenv(name)
