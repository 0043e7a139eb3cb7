# SPDX-License-Identifier: MIT
"""Whatever happened to a tracked table, log_undo() gives back what was.

The random statements of random_tables run on tracked tables. Their
whole content, typed, is remembered at every record. Then everything since a
random record is undone: the content must be the one remembered, value by value
and type by type; undoing the undo must give what was before it.

  CHOIR_LOG_OPS   statements in all (default 3,000; from 10,000 on under every
                  combination of pragmas)
  CHOIR_LOG_SEED  of the random choices (default 1)
"""
import json
import os
import random
import time

import pytest

from random_tables import (COMBINATIONS, NUMBERS, SHAPES, SOME, Run,
                           generator, quote, typed)  # noqa: F401

OPS = int(os.environ.get("CHOIR_LOG_OPS", "3000"))
SEED = int(os.environ.get("CHOIR_LOG_SEED", "1"))

pytestmark = [pytest.mark.inprocess, pytest.mark.slow]

UNDO_SHAPES = dict(SHAPES)
UNDO_SHAPES["no key"] = (
    ["CREATE TABLE t(a, b UNIQUE, c REAL)"],
    {"t": (["rowid"], {"rowid": NUMBERS + [None, -1], "a": SOME,
                       "b": SOME + NUMBERS, "c": SOME})}, 1)
UNDO_SHAPES["automatic key"] = (
    ["CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v, w TEXT)"],
    {"t": (["id"], {"id": [None, None, None, 1, 2, -1], "v": SOME,
                    "w": ["a", "b"]})}, 1)
UNDO_SHAPES["a key by default"] = (
    ["CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL DEFAULT"
     " (hex(randomblob(8))), v, w UNIQUE)"],
    {"t": (["id"], {"id": ["a", "b", "c"], "v": SOME, "w": SOME + NUMBERS})}, 1)

class UndoRun(Run):
    def __init__(self, *args):
        super().__init__(*args)
        self.d.run("DROP TRIGGER IF EXISTS h6")  # its rows cannot be restored
        self.seen = {0: self.content()}

    def track(self):
        for table in self.tables:
            self.d.one("SELECT log_track(?)", table)

    def content(self):
        found = {}
        for table, (keys, pools) in self.tables.items():
            names = ", ".join(map(quote, dict.fromkeys(keys + list(pools))))
            found[table] = sorted(
                (tuple(map(typed, row)) for row in self.d.rows(
                    f"SELECT {names} FROM {quote(table)}")), key=repr)
        return found

    def tail(self):
        return self.d.one("SELECT coalesce(max(seq), 0) FROM action_log")

    def insert(self, table):
        """Now and then with the key left to its default."""
        sql, values = super().insert(table)
        if table == "t" and self.default and self.rng.random() < 0.5:
            return "INSERT OR REPLACE INTO t(v, w) VALUES (?, ?)", [
                self.rng.choice(SOME), self.rng.choice(["a", "b", 1, 2])]
        return sql, values

    def step(self):
        sql, values = self.attempt(0.1)
        self.seen[self.tail()] = self.content()
        self.did.append((self.tail(), sql, values))

    def undo(self):
        point = self.rng.choice(list(self.seen))
        before = self.content()
        said = json.loads(self.d.one("SELECT log_undo(?, 'since')", point))
        assert said["not_restored"] == [], (said, self.did)
        assert self.content() == self.seen[point], (point, self.did)
        if self.rng.random() < 0.5 and said["seq"]:
            self.d.one("SELECT log_undo(?)", said["seq"])
            assert self.content() == before, ("redo", point, self.did)
        self.seen[self.tail()] = self.content()
        self.did.append((self.tail(), "undo", said))


@pytest.mark.parametrize("shape", UNDO_SHAPES)
def test_undo_gives_the_exact_earlier_content(shape, open_db, generator,  # noqa: F811
                                              monkeypatch):
    monkeypatch.setitem(SHAPES, shape, UNDO_SHAPES[shape])
    pragmas_of = COMBINATIONS if OPS >= 10000 else random.Random(
        f"{SEED} {shape}").sample(COMBINATIONS, 8)
    each = OPS // (len(UNDO_SHAPES) * len(pragmas_of)) + 1
    for i, pragmas in enumerate(pragmas_of):
        rng = random.Random(f"{SEED} undo {shape} {i}")
        UndoRun.did, UndoRun.default = [], shape in ("a key by default",
                                                     "automatic key")
        run = UndoRun(open_db, generator, shape, pragmas, rng)
        left = each
        while left > 0:
            n = min(left, rng.randint(1, 12))
            for _ in range(n):
                run.step()
            run.undo()
            left -= n
        assert run.d.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
        run.close()


@pytest.mark.parametrize("columns", [3, 40, 1 << 31, (1 << 32) - 1])
def test_an_image_with_more_columns_than_its_table_is_refused(db, columns):
    db.run("CREATE TABLE cup(id INTEGER PRIMARY KEY, name TEXT);"
           "SELECT log_track('cup', '{\"undo\":true}');"
           "INSERT INTO cup VALUES(1, 'a')")
    time.sleep(0.002)  # records of one millisecond are one action
    db.rows("UPDATE cup SET name = 'b'")
    db.rows("UPDATE _choir_undo_1 SET k = ? WHERE k > 0", columns)
    assert "columns instead of 2" in db.error("SELECT log_undo()")
    assert db.rows("SELECT * FROM cup") == [(1, "b")]
