#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What loading choir adds to a connection is what is documented.

  surface.py CHOIR_SO   loads it and compares:
    exports of the file       = the three entry points
    pragma_function_list      = the rooms' tables = the doc blocks
    pragma_module_list        = the table-valued functions + choir_anchor
    choir_help()              = all of them, with the same risk
    the workspace's schema    = no choir function, no virtual table but
                                _choir_fts
  and the read-only entry point adds nothing of class write or effect, except
  rows marked CHOIR_LOCAL.
"""
import pathlib
import re
import sqlite3
import subprocess
import sys

import docs

ENTRIES = {"sqlite3_choir_init", "sqlite3_extension_init",
           "sqlite3_choir_readonly_init"}


def exports(so):
    out = subprocess.run(["nm", "-D", "--defined-only", so], check=True,
                         capture_output=True, text=True).stdout
    return {line.split()[-1].split("@")[0] for line in out.splitlines()}


def listed(con):
    functions = {r[0] for r in con.execute(
        "SELECT DISTINCT name FROM pragma_function_list")}
    modules = {r[0] for r in con.execute("SELECT name FROM pragma_module_list")}
    return functions, modules


def loaded(so, entry):
    con = sqlite3.connect(":memory:", isolation_level=None)
    con.execute("SELECT * FROM pragma_function_list, pragma_module_list LIMIT 1")
    before = listed(con)
    con.enable_load_extension(True)
    con.execute("SELECT load_extension(?, ?)", (so, entry))
    con.enable_load_extension(False)
    after = listed(con)
    return con, after[0] - before[0], after[1] - before[1]


def compare(what, have, want):
    for name in sorted(have - want):
        yield f"{what}: {name} is extra"
    for name in sorted(want - have):
        yield f"{what}: {name} is missing"


def schema(con, functions):
    """Persistent schema that another SQLite could not use."""
    con.execute("SELECT choir_init()")
    word = re.compile(r"\b(%s)\s*\(" % "|".join(sorted(functions)))
    for name, sql in con.execute(
            "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"):
        m = word.search(sql)
        if m:
            yield f"schema: {name} calls {m.group(1)}()"
        if re.match(r"\s*CREATE\s+VIRTUAL", sql, re.I) and name != "_choir_fts":
            yield f"schema: {name} is a virtual table"


def problems(so):
    yield from compare("exports", exports(so), ENTRIES)
    rows = docs.entries()
    scalars = {e[2] for e in rows if e[3] not in ("table", "module")}
    tables = {e[2] for e in rows if e[3] in ("table", "module")}
    con, functions, modules = loaded(so, "sqlite3_choir_init")
    yield from compare("functions", functions, scalars)
    yield from compare("modules", modules, tables | {"choir_anchor"})
    helped = dict(con.execute("SELECT name, risk FROM choir_help"))
    yield from compare("choir_help", set(helped), scalars | tables)
    yield from schema(con, scalars)
    con.close()
    con, functions, modules = loaded(so, "sqlite3_choir_readonly_init")
    for name in sorted((functions | modules) - {"choir_anchor"}):
        if helped.get(name) in ("write", "effect") and name not in docs.local():
            yield f"read-only entry point: {name} is of class {helped[name]}"
    con.close()


def main():
    bad = list(problems(str(pathlib.Path(sys.argv[1]).resolve())))
    for line in bad:
        print(line, file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
