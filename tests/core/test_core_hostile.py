# SPDX-License-Identifier: MIT
"""A hostile file cannot make choir act.

The attacker prepares a database in which a view, a trigger, a constraint, a
default, a generated column or an index calls a choir function; SQLite lets
them, because on their side the name belongs to a harmless stub. The victim
opens it with choir loaded and uses it. Every function that can read, write or
reach out must be refused ("unsafe use"). SQLite before 3.50.2 forgets to ask
in a CHECK constraint, even one that only integrity_check runs; there, writing
and reaching out must be refused all the same.
"""
import sqlite3

import pytest

from conftest import SANITIZED, SO

# place -> (what the attacker stores, what the victim runs)
PLACES = {
    "view": ("CREATE VIEW v AS SELECT {call} AS x", ["SELECT * FROM v"]),
    "trigger": ("CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT {call}; END",
                ["INSERT INTO t VALUES(2)"]),
    "check": ("CREATE TABLE c(a, CHECK({call} IS NOT 'never'))",
              ["INSERT INTO c VALUES(2)", "PRAGMA integrity_check",
               "PRAGMA quick_check"]),
    "default": ("CREATE TABLE c(a, b DEFAULT ({call}))",
                ["INSERT INTO c(a) VALUES(2)"]),
    "generated": ("CREATE TABLE c(a, b AS ({call}))", ["SELECT b FROM c"]),
    "index": ("CREATE INDEX i ON t({call})",
              ["INSERT INTO t VALUES(2)", "REINDEX"]),
    "partial index": ("CREATE INDEX i ON t(a) WHERE {call} IS NULL",
                      ["INSERT INTO t VALUES(2)", "REINDEX"]),
}


def guarded(d, risks=("read", "write", "effect")):
    """(name, kind, arities) of every function that can do more than compute."""
    arity = {}
    for name, n in d.rows("SELECT name, narg FROM pragma_function_list"):
        arity.setdefault(name, []).append(3 if n < 0 else n)
    return [(name, kind, sorted(arity.get(name, [0]))) for name, kind, risk
            in d.rows("SELECT DISTINCT name, kind, risk FROM choir_help()")
            if risk in risks]


def attack(path, statement, name, narg):
    """Writes the attacker's file, with a stub in the function's place."""
    a = sqlite3.connect(path, isolation_level=None)
    a.execute("PRAGMA synchronous = OFF")
    a.execute("BEGIN")
    a.execute("CREATE TABLE t(a)")
    a.execute("INSERT INTO t VALUES(1)")
    a.create_function(name, narg, lambda *_: 1, deterministic=True)
    a.execute(statement)
    if statement.startswith("CREATE TABLE c"):
        a.execute("INSERT INTO c(a) VALUES(1)")
    a.execute("COMMIT")
    a.close()


def refused(d, sql):
    """An aggregate has no place in a schema's expression to begin with."""
    message = d.error(sql)
    return any(x in message for x in (
        "unsafe use of", "malformed database schema", "misuse of aggregate",
        "unknown function"))


@pytest.mark.parametrize("place", PLACES)
def test_no_function_runs_from_the_schema_of_a_foreign_file(
        place, tmp_path, open_db):
    stored, uses = PLACES[place]
    risks = ("write", "effect") if place == "check" else ("read", "write",
                                                          "effect")
    functions = [(name, n) for name, kind, arities
                 in guarded(open_db(), risks) if kind not in ("table", "module")
                 for n in arities]
    assert len(functions) > 3
    if SANITIZED:  # refused by SQLite: the same as without, at length
        functions = functions[::8]
    for i, (name, narg) in enumerate(functions):
        if narg == 0 and place == "index":
            continue  # SQLite wants a column in it
        path = tmp_path / f"{i}.db"
        argument = "a" if place == "index" else "1"
        call = f"{name}({', '.join([argument] * narg)})"
        attack(path, stored.format(call=call), name, narg)
        for use in uses:
            d = open_db(path)
            assert refused(d, use), f"{call} ran by {use}"
            d.close()


def test_no_table_function_runs_from_a_view_or_trigger(tmp_path, open_db):
    names = [n for n, kind, _ in guarded(open_db()) if kind == "table"]
    assert len(names) > 2
    for i, name in enumerate(names):
        path = tmp_path / f"{i}.db"
        attack(path, f"CREATE VIEW v AS SELECT * FROM {name}", "stub", 0)
        a = sqlite3.connect(path, isolation_level=None)
        a.execute("CREATE TRIGGER r AFTER INSERT ON t BEGIN"
                  f" DELETE FROM t WHERE EXISTS(SELECT 1 FROM {name}); END")
        a.close()
        d = open_db(path)
        for use in ("SELECT * FROM v", "INSERT INTO t VALUES(2)"):
            assert refused(d, use), f"{name} ran by {use}"
        d.close()


def test_a_file_attached_to_a_workspace_cannot_write_it(tmp_path, db):
    path = tmp_path / "foreign.db"
    attack(path, "CREATE TABLE c(a, CHECK(choir_uninstall() IS NOT 'never'))",
           "choir_uninstall", 0)
    before = db.rows("SELECT name FROM main.sqlite_schema")
    for use in (f"ATTACH '{path}' AS foreign_file",
                "PRAGMA foreign_file.quick_check",
                "INSERT INTO foreign_file.c(a) VALUES(2)"):
        try:
            db.rows(use)
        except db.failure as e:  # 3.40.1 refuses the file, newer ones its use
            assert "unsafe use" in str(e) or "unknown database" in str(e) \
                or "no such table" in str(e), use
    assert db.rows("SELECT name FROM main.sqlite_schema") == before


def test_a_table_of_the_host_with_the_name_of_a_table_function_is_harmless(
        tmp_path, open_db):
    """choir's own SQL never looks itself up by name."""
    path = tmp_path / "shadow.db"
    a = sqlite3.connect(path, isolation_level=None)
    names = [n for n, kind, _ in guarded(open_db()) if kind == "table"]
    for name in [*names, "choir_anchor"]:
        a.execute(f"CREATE TABLE {name}(version, value)")
        a.execute(f"INSERT INTO {name} VALUES('shadow', 'shadow')")
    a.close()
    d = open_db(path)
    assert d.one("SELECT choir_init()") >= 1
    assert d.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
    assert d.one("SELECT choir_uninstall()") >= 1


@pytest.mark.parametrize("place", ["check", "generated", "index"])
def test_a_file_that_was_in_use_before_choir_was_loaded_is_no_way_around(
        place, tmp_path, open_db):
    """SQLite asks what a function may do when it reads the schema, and lets
    names pass that it does not know yet."""
    stored, uses = PLACES[place]
    argument = "a" if place == "index" else "1"
    attack(tmp_path / "x.db", stored.format(call=f"artifact_delete({argument})"),
           "artifact_delete", 1)
    for use in uses:
        d = open_db(tmp_path / "x.db", choir=False)
        d.rows("SELECT * FROM t")
        d.load(SO)
        assert refused(d, use), use
        d.close()
