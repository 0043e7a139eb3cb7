# SPDX-License-Identifier: MIT
"""One way to reach choir from tests: the Db class, whatever the driver.

  CHOIR_SO      the extension to load (default: ./choir.so)
  CHOIR_DRIVER  sqlite3 (Debian's Python and its SQLite) or apsw (the newest)

Db.rows(sql, *params) -> list of tuples     Db.one(...) -> first value
Db.run(script)        -> many statements    Db.error(...) -> error text
"""
import os
import pathlib
import sqlite3

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SO = os.path.abspath(os.environ.get("CHOIR_SO", str(ROOT / "choir.so")))
DRIVER = os.environ.get("CHOIR_DRIVER", "sqlite3")


class Db:
    """A connection; choir is loaded unless choir=False."""

    def __init__(self, path=":memory:", choir=True, init=False, uri=False,
                 entry=None, pragmas=()):
        self.path = str(path)
        if DRIVER == "apsw":
            import apsw
            flags = (apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
                     | (apsw.SQLITE_OPEN_URI if uri else 0))
            self.con = apsw.Connection(self.path, flags=flags)
            self.con.set_busy_timeout(5000)
            self.failure = apsw.Error
        else:
            self.con = sqlite3.connect(self.path, isolation_level=None,
                                       uri=uri, timeout=5)
            self.failure = sqlite3.Error
        for p in pragmas:
            self.run("PRAGMA " + p)
        if choir:
            self.load(SO, entry)
        if init:
            self.one("SELECT choir_init()")

    def load(self, path, entry=None):
        path = str(path)
        if DRIVER == "apsw":
            self.con.enable_load_extension(True)
            self.con.load_extension(path, entry)
        elif entry:
            self.con.enable_load_extension(True)
            self.con.execute("SELECT load_extension(?, ?)", (path, entry))
        else:
            self.con.enable_load_extension(True)
            self.con.load_extension(path)

    def rows(self, sql, *params):
        return [tuple(r) for r in self.con.execute(sql, params).fetchall()]

    def one(self, sql, *params):
        rows = self.rows(sql, *params)
        return rows[0][0] if rows else None

    def run(self, script):
        if DRIVER == "apsw":
            self.con.execute(script).fetchall()
        else:
            self.con.executescript(script)

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


@pytest.fixture
def open_db():
    """open_db(path, ...) -> Db, closed at the end of the test."""
    opened = []

    def make(*args, **kw):
        opened.append(Db(*args, **kw))
        return opened[-1]

    yield make
    for d in opened:
        d.close()


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
        if name.startswith(("CHOIR_", "XDG_", "AWS_")) and name not in (
                "CHOIR_SO", "CHOIR_DRIVER", "CHOIR_REQUIRE_ALL"):
            monkeypatch.delenv(name)
