#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every #include in ext/ is one that ext/LAYERS allows: layers.py [EXT_DIR]

A folder may include its own header and the headers of the folders on its line;
choir.c may include every room. A room has one header, ext/<room>/<room>.h, and
that is the only file of it that others may see. docs/architecture.md tells the
same.
"""
import pathlib
import re
import sys


def layers(ext):
    allowed = {}
    for line in (ext / "LAYERS").read_text().splitlines():
        line = line.split("#", 1)[0].strip()
        if line:
            room, _, below = line.partition(":")
            allowed[room.strip()] = below.split()
    return allowed


def cycle(allowed):
    """The rooms in an order where each comes after what it includes."""
    left, order = dict(allowed), []
    while left:
        ready = [r for r in left if not set(left[r]) - set(order) - {r}]
        if not ready:
            return order, sorted(left)
        order += ready
        for r in ready:
            del left[r]
    return order, []


def problems(ext):
    allowed = layers(ext)
    stuck = cycle(allowed)[1]
    if stuck:
        yield f"{ext}/LAYERS: a circle or an unknown folder at {' '.join(stuck)}"
    for path in sorted(ext.rglob("*")):
        if path.suffix not in (".c", ".h", ".inc"):
            continue
        room = path.parent.relative_to(ext).as_posix()
        if room != "." and room not in allowed:
            yield f"{path}: folder {room} is not in LAYERS"
            continue
        for n, line in enumerate(path.read_text().splitlines(), 1):
            m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not m or m.group(1).startswith("sqlite3"):
                continue
            target = (path.parent / m.group(1)).resolve()
            where = f"{path}:{n}"
            if not target.is_file():
                continue  # from an include path, or the compiler will say so
            other = target.parent.relative_to(ext.resolve()).as_posix()
            if other in (room, "."):
                continue
            if room != "." and other not in allowed[room]:
                yield f"{where}: {room} may not include {other} (ext/LAYERS)"
            elif target.name != other + ".h":
                yield f"{where}: {other} is entered by {other}/{other}.h only"


def untold(ext):
    """Where the table of docs/architecture.md says something else."""
    page = (ext.parent / "docs/architecture.md").read_text()
    told = {room: set() if below == "nothing" else set(below.split(", "))
            for rooms, below in re.findall(r"^\| (`.*`) \| (.*) \|$", page, re.M)
            for room in re.findall(r"`(\w+)`", rooms)}
    for room, below in layers(ext).items():
        if told.get(room) != set(below):
            yield (f"docs/architecture.md: {room} may include"
                   f" {' '.join(below) or 'nothing'} (ext/LAYERS)")


def main():
    ext = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "ext")
    bad = [*problems(ext), *untold(ext)]
    for line in bad:
        print(line, file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
