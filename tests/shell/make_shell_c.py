#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""SQLite's shell.c from its source tree: make_shell_c.py TREE OUT

What tool/mkshellc.tcl does there, for machines without Tcl: INCLUDE lines of
src/shell.c.in are replaced by the files they name, a typedef is kept once.
"""
import pathlib
import re
import sys

tree, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
typedefs = set()


def once(line):
    m = re.match(r"typedef .*\b([a-zA-Z0-9_]+);", line)
    if m and m.group(1) in typedefs:
        return ""
    if m:
        typedefs.add(m.group(1))
    return line


lines = []
for line in (tree / "src/shell.c.in").read_text("latin-1").splitlines():
    m = re.match(r"INCLUDE (\S+)", line)
    if not m:
        lines.append(once(line))
        continue
    for inner in (tree / "src" / m.group(1)).read_text("latin-1").splitlines():
        if re.match(r'#include "sqlite|# *include "test_windirent.h"', inner):
            inner = ""
        lines.append(once(inner))
out.write_text("\n".join(lines) + "\n", "latin-1")
