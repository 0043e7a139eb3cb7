#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Lines that the tests ran, per room; `make coverage`.

  coverage.py DIR…            the table, of every .gcda below these folders
  coverage.py DIR… --missing [ROOM or FILE]
                              the lines that were not, with their text
  coverage.py DIR… --below N  also fails when a room is below N percent

A line of a file counts once, whichever build ran it: the extension, the C unit
tests, the sweep of allocation failures.
"""
import collections
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def lines_of(folder):
    """{file: {line: times}} of every object that ran, of ext/ alone."""
    found = collections.defaultdict(lambda: collections.defaultdict(int))
    data = sorted(pathlib.Path(folder).rglob("*.gcno"))
    for i in range(0, len(data), 40):
        out = subprocess.run(
            ["gcov", "--json-format", "--stdout"] + [str(d) for d in
                                                     data[i:i + 40]],
            cwd=ROOT, capture_output=True, text=True).stdout
        for text in out.splitlines():
            for f in json.loads(text)["files"] if text else ():
                name = f["file"]
                if name.startswith("ext/"):
                    for line in f["lines"]:
                        found[name][line["line_number"]] += line["count"]
    return found


def room(name):
    part = name.split("/")
    return part[1] if len(part) > 2 else "core"  # ext/choir.c


def main(argv):
    folders, missing, below = [], None, 0.0
    args = iter(argv)
    for a in args:
        if a == "--missing":
            missing = next(args, "")
        elif a == "--below":
            below = float(next(args))
        else:
            folders.append(a)
    total = collections.defaultdict(lambda: collections.defaultdict(int))
    for folder in folders:
        for name, lines in lines_of(folder).items():
            for number, count in lines.items():
                total[name][number] += count
    if missing is not None:
        for name in sorted(total):
            if missing not in ("", room(name)) and missing not in name:
                continue
            text = (ROOT / name).read_text().splitlines()
            for n, count in sorted(total[name].items()):
                if not count:
                    print(f"{name}:{n}: {text[n - 1].strip()}")
        return 0
    rooms = collections.defaultdict(lambda: [0, 0])
    for name, lines in total.items():
        rooms[room(name)][0] += sum(1 for c in lines.values() if c)
        rooms[room(name)][1] += len(lines)
    rooms["all"] = [sum(r[i] for r in rooms.values()) for i in (0, 1)]
    least = 100.0
    print("| room | lines | run | % |\n|--|--:|--:|--:|")
    for name, (run, all_) in sorted(rooms.items(), key=lambda r: (
            r[0] == "all", r[0])):
        percent = 100 * run / all_ if all_ else 0
        least = min(least, percent)
        print(f"| `{name}` | {all_:,} | {run:,} | {percent:.1f} |")
    return least < below


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
