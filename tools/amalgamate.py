#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Merges ext/ into one file to compile into a program: amalgamate.py BUILD DIST

DIST/choir.c and DIST/choir.h. As an extension:
  cc -shared -fPIC -fvisibility=hidden choir.c -o choir.so -lm
Linked statically:
  cc -DSQLITE_CORE choir.c sqlite3.c app.c -lm
  and sqlite3_auto_extension((void (*)(void))sqlite3_choir_init)
-DCHOIR_OMIT_NET leaves out every room that reaches the network.

Headers with a guard are merged once; files without one (kernels that are
included once per tier) every time. What is shared between files becomes
static (CHOIR_PRIVATE), so nothing but the entry points has linkage. A macro
that a .c file defines ends with that file.
"""
import pathlib
import re
import sys

import docs
import layers

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXT = ROOT / "ext"
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
OPENING = """\
/* SPDX-License-Identifier: MIT */
/*
** choir %s, merged from its sources by tools/amalgamate.py: do not edit.
** SQLITE_CORE links it into a program together with SQLite; without it this
** file is a loadable extension. CHOIR_OMIT_NET leaves the network out.
*/
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64 /* folders and files of any size on 32 bits */
#endif
#define CHOIR_AMALGAMATION 1
"""


class Merge:
    def __init__(self, build):
        self.build, self.once, self.out = build, set(), []

    def find(self, name, near):
        for folder in (near, EXT, self.build):
            path = (folder / name).resolve()
            if path.is_file():
                return path
        return None

    def file(self, path):
        text = path.read_text()
        if re.search(r"^#ifndef (CHOIR_\w+_H)\n#define \1$", text, re.M):
            if path in self.once:
                return
            self.once.add(path)
        self.out.append(f"/* ---- {path.name} */")
        for line in text.splitlines():
            m = INCLUDE.match(line)
            target = m and self.find(m.group(1), path.parent)
            if target:
                self.file(target)
            else:
                self.out.append(line)
        if path.suffix == ".c":
            self.out += ["#undef " + name for name in sorted(set(re.findall(
                r"^\s*#\s*define\s+(?!SQLITE_)([A-Za-z]\w*)", text, re.M)))]

    def room(self, room):
        """A room's sources; those of the network can be left out."""
        files = sorted((EXT / room).glob("*.c"))
        if files and room in docs.NET:
            self.out.append("#ifndef CHOIR_OMIT_NET")
        for f in files:
            self.file(f)
        if files and room in docs.NET:
            self.out.append("#endif /* CHOIR_OMIT_NET */")


def main():
    build, dist = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
    version = re.search(r'CHOIR_VERSION "([^"]+)"',
                        (EXT / "choir.h").read_text()).group(1)
    merge = Merge(build)
    merge.out.append(OPENING % version)
    # The headers of all rooms first, lowest layer first.
    merge.file(EXT / "choir.h")
    order = layers.cycle(layers.layers(EXT))[0]
    for room in order:
        header = EXT / room / f"{room}.h"
        if header.is_file():
            merge.file(header)
    for name in ("gen_help.c", "gen_sql.c"):
        merge.file(build / name)
    for room in order:
        merge.room(room)
    merge.file(EXT / "choir.c")
    dist.mkdir(parents=True, exist_ok=True)
    (dist / "choir.c").write_text("\n".join(merge.out) + "\n")
    (dist / "choir.h").write_text((EXT / "choir.h").read_text())


if __name__ == "__main__":
    main()
