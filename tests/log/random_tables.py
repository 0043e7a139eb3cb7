# SPDX-License-Identifier: MIT
"""Tables of every shape, and random statements on them: REPLACE, UPSERT, OR
IGNORE, cascades, keys that change, triggers of the host, savepoints."""
import itertools
import json
import os
import subprocess

import pytest

from conftest import ROOT

DEFENSIVE, DQS_DML, DQS_DDL = 1010, 1013, 1014

NUMBERS = [1, 2, 3, 4, 5, 6, 7, 8]
TEXTS = ["a", "A", "b", "B ", "b", "é", "É", "x\0y", "", "1", "~.b"]
MIXED = [1, 1.0, 2, 2.5, 0.1 + 0.2, -1e300, float("inf"), "1", "a", "A", b"a",
         b"", b"\x00\xff", "é", "x\0y"]
SOME = [None, None, 1, 1.0, "a", "A", b"a", "é"]

# name -> (statements, {table: (key columns, {column: values})}, strict): 1 when
# the records must come in the order of the changes, 2 when only without foreign
# keys (their actions run before any AFTER trigger), 0 when a trigger of the
# host may come between a change and its record.
SHAPES = {
    "integer key": (
        ["CREATE TABLE t(id INTEGER PRIMARY KEY, v, w TEXT)"],
        {"t": (["id"], {"id": NUMBERS + [None], "v": SOME, "w": TEXTS})}, 1),
    "text key": (
        ["CREATE TABLE t(k TEXT PRIMARY KEY NOT NULL, v TEXT, n REAL)"],
        {"t": (["k"], {"k": TEXTS, "v": SOME, "n": NUMBERS})}, 1),
    "untyped key": (
        ["CREATE TABLE t(k PRIMARY KEY, v) WITHOUT ROWID"],
        {"t": (["k"], {"k": MIXED, "v": SOME})}, 1),
    "composite key": (
        ["CREATE TABLE t(a, b TEXT, v, PRIMARY KEY(b, a)) WITHOUT ROWID"],
        {"t": (["b", "a"], {"a": MIXED, "b": ["p", "q\0"], "v": SOME})}, 1),
    "composite key and rowid": (
        ["CREATE TABLE t(v, a INT NOT NULL, b NOT NULL, u UNIQUE,"
         " PRIMARY KEY(a, b))"],
        {"t": (["a", "b"], {"a": [1, 2, "x"], "b": [1, 1.0, "1", b"1"],
                            "v": SOME, "u": SOME + NUMBERS})}, 1),
    "unique": (
        ["CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, w TEXT, x,"
         " UNIQUE(w, x))"],
        {"t": (["id"], {"id": NUMBERS + [None], "u": SOME + NUMBERS,
                        "w": ["p", "q"], "x": SOME})}, 1),
    "partial unique": (
        ["CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, path TEXT, gone INT, v)",
         "CREATE UNIQUE INDEX \"where\" ON t(path) WHERE /* ) live */ gone IS"
         " NULL AND t.path <> 'wh''ere' -- and no more"],
        {"t": (["id"], {"id": TEXTS[:6], "path": ["p", "q", "wh'ere"],
                        "gone": [None, None, 1], "v": SOME})}, 1),
    "collations": (
        ["CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL,"
         " u TEXT COLLATE NOCASE UNIQUE, v COLLATE NOCASE) WITHOUT ROWID",
         "CREATE UNIQUE INDEX tv ON t(v COLLATE RTRIM)"],
        {"t": (["k"], {"k": TEXTS, "u": TEXTS + [None], "v": TEXTS + [None]})},
        1),
    "other names": (
        ['CREATE TABLE "new ""~.t"("select" INTEGER PRIMARY KEY, "a b" UNIQUE,'
         ' pk UNIQUE, tbl, n, gone, r, "new", "o""ld")'],
        {'new "~.t': (["select"], {
            "select": NUMBERS + [None], "a b": SOME + NUMBERS, "pk": SOME,
            "tbl": SOME, "n": SOME, "gone": SOME, "r": SOME, "new": SOME,
            'o"ld': SOME})}, 1),
    "strict": (
        ["CREATE TABLE t(id INTEGER PRIMARY KEY, n INT UNIQUE, w TEXT, a ANY,"
         " b BLOB, r REAL, UNIQUE(w, a)) STRICT"],
        {"t": (["id"], {"id": NUMBERS + [None], "n": NUMBERS + [None, "x"],
                        "w": TEXTS + [None, 5], "a": MIXED,
                        "b": [None, b"a", b"", "a"], "r": SOME})}, 1),
    "generated": (
        ["CREATE TABLE t(id INTEGER PRIMARY KEY, a,"
         " g AS (lower(a) || 'x') UNIQUE, s TEXT AS (upper(a)) STORED)"],
        {"t": (["id"], {"id": NUMBERS + [None], "a": SOME + TEXTS})}, 1),
    "cascades": (
        ["CREATE TABLE p(id INTEGER PRIMARY KEY, u UNIQUE,"
         " up INTEGER REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE)",
         "CREATE TABLE c(id INTEGER PRIMARY KEY, p INTEGER REFERENCES p"
         " ON DELETE CASCADE ON UPDATE SET NULL, u UNIQUE)",
         "CREATE TRIGGER p_gone BEFORE DELETE ON p BEGIN"
         " DELETE FROM c WHERE p = OLD.id; END"],
        {"p": (["id"], {"id": NUMBERS, "u": SOME + NUMBERS,
                        "up": NUMBERS[:3] + [None]}),
         "c": (["id"], {"id": NUMBERS + [None], "p": NUMBERS + [None],
                        "u": SOME + NUMBERS})}, 2),
}

HOST = [  # triggers of the host that change the same row again
    "AFTER INSERT ON t WHEN NEW.v = 1 BEGIN UPDATE t SET v = 2, u = u || 'x'"
    " WHERE id = NEW.id; END",
    "AFTER INSERT ON t WHEN NEW.v = 3 BEGIN DELETE FROM t WHERE id = NEW.id;"
    " END",
    "AFTER INSERT ON t WHEN NEW.v = 8 BEGIN INSERT OR REPLACE INTO t(id, u, v)"
    " VALUES(NEW.id, NEW.u, 9), (NEW.id + 9, NEW.u, 2); END",
    "AFTER UPDATE ON t WHEN NEW.v = 4 BEGIN UPDATE t SET id = id + 100, v = 2"
    " WHERE id = NEW.id; END",
    "AFTER UPDATE ON t WHEN NEW.v = 7 BEGIN DELETE FROM t WHERE id = NEW.id;"
    " END",
    "AFTER DELETE ON t WHEN OLD.v = 5 BEGIN INSERT OR IGNORE INTO t(id, u, v)"
    " VALUES(OLD.id, OLD.u, 2); END",
    "BEFORE DELETE ON t WHEN OLD.v = 6 BEGIN SELECT RAISE(IGNORE); END",
    "BEFORE INSERT ON t WHEN NEW.v = 9 BEGIN INSERT OR REPLACE INTO t(u, v)"
    " VALUES(NEW.u || 'y', 2); END",
    "BEFORE UPDATE ON t WHEN NEW.v = 9 BEGIN DELETE FROM t WHERE u = 1; END",
]
VALUES = [None, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
for i, when in enumerate(("before", "after")):
    SHAPES[f"host's triggers, made {when}"] = (
        ["CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v)"]
        + ([f"CREATE TRIGGER h{j} {h}" for j, h in enumerate(HOST)]
           + ["CHOIR"])[::1 if i == 0 else -1],
        {"t": (["id"], {"id": NUMBERS + [None], "u": SOME + NUMBERS,
                        "v": VALUES})}, 0)

COMBINATIONS = list(itertools.product((0, 1), repeat=5))


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    """The extension of trigger_sql.c, linked with the objects of the build."""
    so = tmp_path_factory.mktemp("log") / "trigger_sql.so"
    build = ROOT / "build"
    objects = [build / c.relative_to(ROOT).with_suffix(".o")
               for room in ("core", "log") for c in ROOT.glob(f"ext/{room}/*.c")]
    objects += [build / "gen_help.o", build / "gen_sql.o"]
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", so,
                    ROOT / "tests/log/trigger_sql.c", *objects], check=True)
    return so


def quote(name):
    return '"' + name.replace('"', '""') + '"'


def typed(value):
    """1, 1.0, '1' and x'31' are four different keys."""
    return (type(value).__name__, value)


class Run:
    """One table shape under one combination of pragmas."""

    def __init__(self, open_db, generator, shape, pragmas, rng):
        statements, self.tables, self.strict = SHAPES[shape]
        self.rng, self.replace = rng, False
        self.strict = self.strict == 1 or self.strict == 2 and not pragmas[1]
        # OR FAIL leaves what a failing trigger of the host had reached.
        self.fail = not shape.startswith("host")
        # In UTF-16, lower() of a blob is not the same each time: SQLite itself
        # then damages an index on it.
        wide = sum(pragmas) % 2 and shape != "generated"
        self.encoding = "utf-16le" if wide else "utf-8"
        self.d = d = open_db(init=True,
                             pragmas=[f"encoding='{self.encoding}'"])
        d.load(generator)
        recursive, keys, trusted, defensive, dqs = pragmas
        d.run(f"PRAGMA recursive_triggers={recursive};"
              f"PRAGMA foreign_keys={keys};PRAGMA trusted_schema={trusted}")
        for op, value in ((DQS_DML, dqs), (DQS_DDL, dqs),
                          (DEFENSIVE, defensive)):
            assert d.one("SELECT test_db_config(?, ?)", op, value) == value
        for s in statements + ["CHOIR"] * ("CHOIR" not in statements):
            if s == "CHOIR":
                self.track()
            else:
                d.run(s)
        self.seq, self.live = 0, {t: set() for t in self.tables}

    def track(self):
        for table in self.tables:
            for sql in json.loads(self.d.one("SELECT test_triggers(?)", table)):
                self.d.run(sql)

    def close(self):
        self.d.close()

    # ------------------------------------------------------- statements

    def values(self, table, columns):
        pools = self.tables[table][1]
        return [self.rng.choice(pools[c]) for c in columns]

    def where(self, table):
        """A few rows: by key, by another column, now and then all."""
        if self.rng.random() < 0.05:
            return "1", []
        keys, pools = self.tables[table]
        columns = keys if self.rng.random() < 0.7 else [
            self.rng.choice(list(pools))]
        return (" AND ".join(f"{quote(c)} IS ?" for c in columns),
                self.values(table, columns))

    def insert(self, table):
        keys, pools = self.tables[table]
        columns = [c for c in pools if c in keys or self.rng.random() < 0.9]
        rows = self.rng.choice([1, 1, 1, 3])
        verb = self.rng.choice(["INSERT", "INSERT OR REPLACE", "REPLACE",
                                "INSERT OR IGNORE", "INSERT OR FAIL",
                                "INSERT OR ABORT", "UPSERT", "UPSERT"])
        if verb == "INSERT OR FAIL" and not self.fail:
            verb = "INSERT"
        self.replace = "REPLACE" in verb
        tail = ""
        if verb == "UPSERT":
            verb = "INSERT"
            target = ("" if self.rng.random() < 0.5 else
                      "(" + ", ".join(map(quote, keys)) + ")")
            c = quote(self.rng.choice(list(pools)))
            tail = f" ON CONFLICT{target} DO " + (
                "NOTHING" if self.rng.random() < 0.3
                else f"UPDATE SET {c} = excluded.{c}")
        sql = (f"{verb} INTO {quote(table)}({', '.join(map(quote, columns))})"
               f" VALUES {', '.join(['(' + ','.join('?' * len(columns)) + ')'] * rows)}"
               + tail)
        return sql, [v for _ in range(rows)
                     for v in self.values(table, columns)]

    def update(self, table):
        keys, pools = self.tables[table]
        columns = self.rng.sample(list(pools), self.rng.choice(
            [1, 1, min(2, len(pools))]))
        names = [quote(c) for c in columns]
        values = self.values(table, columns)
        if pools[keys[0]][:8] == NUMBERS and keys[0] not in columns \
                and self.rng.random() < 0.15:  # the key by its other name
            names.append(self.rng.choice(["rowid", "oid", "_rowid_"]))
            values.append(self.rng.choice(NUMBERS))
        how = self.rng.choice(["", "", " OR REPLACE", " OR REPLACE",
                               " OR IGNORE", " OR FAIL"])
        if how == " OR FAIL" and not self.fail:
            how = ""
        self.replace = "REPLACE" in how
        where, more = self.where(table)
        return (f"UPDATE{how} {quote(table)} SET "
                + ", ".join(f"{n} = ?" for n in names) + f" WHERE {where}",
                values + more)

    def delete(self, table):
        self.replace = False
        where, more = self.where(table)
        return f"DELETE FROM {quote(table)} WHERE {where}", more

    def attempt(self, chance):
        """A random statement, undone by a savepoint with this chance; SQL and
        values."""
        table = self.rng.choice(list(self.tables))
        sql, values = self.rng.choice([self.insert, self.insert, self.update,
                                       self.update, self.delete])(table)
        rollback = self.rng.random() < chance
        if rollback:
            self.d.rows("SAVEPOINT test")
        try:
            self.d.rows(sql, *values)
        except self.d.failure as e:
            assert any(w in str(e) for w in (
                "constraint", "UNIQUE", "mismatch", "FOREIGN KEY",
                "cannot store")), (sql, e)
        if rollback:
            self.d.rows("ROLLBACK TO test")
            self.d.rows("RELEASE test")
        return sql, values
