#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tells the story of demo.sql with the stock sqlite3 shell; `make demo`.

  DIR=folder   import this folder, instead of the docs and the licence texts
  Q='words'    what to search for in it
  OUT=folder   where laptop.db, phone.db and remote/ are left; default demo

Stops, with a non-zero status, at the first result that is not what the script
promises.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OUT = pathlib.Path(os.environ.get("OUT", ROOT / "demo")).absolute()
REMOTE = f"file://{OUT}/remote/"
WIDTH = 80
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
BOLD, DIM, RED = "1", "2", "31"


def paint(code, text):
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def parse(text, own):
    """Chapters: (device, title, [[told, statement, promise or None]])."""
    chapters, told, sql, wanted = [], [], [], True
    for line in text.split("\n"):
        if line.startswith("--- "):
            device, title = line[4:].split(": ", 1)
            chapters.append((device, title, []))
        elif not chapters:
            continue
        elif line.startswith("--? "):
            wanted = (line[4:] == "own") == own
        elif line.startswith(("--= ", "--! ")):
            if wanted:
                chapters[-1][2][-1][2] = (line[2], line[4:])
        elif line.startswith("-- "):
            told.append(line[3:])
        elif line:
            sql.append(line)
            if line.endswith(";"):
                if wanted:
                    chapters[-1][2].append(
                        [" ".join(told), "\n".join(sql), None])
                told, sql = [], []
        else:
            wanted = True
    return chapters


def sqlite3(device, sql):
    """What a user would type: sqlite3 demo/laptop.db, .load ./choir, sql."""
    name = device.split()[0]
    load = [] if "without" in device else ["-cmd", ".load ./choir"]
    mode = ".mode box --wrap 40 --wordwrap on" if " FROM " in sql.replace(
        "\n", " ") else ".mode list"
    return subprocess.run(
        ["sqlite3", "-bail", *load, "-cmd", mode, str(OUT / (name + ".db"))],
        input=sql, cwd=ROOT, text=True, capture_output=True,
        env={**os.environ, "CHOIR_REMOTE": REMOTE,
             "XDG_STATE_HOME": str(OUT / "state" / name)})


def first_row(result):
    """The cells of the first row; those of a box that wrap are cut short."""
    lines = result.split("\n")
    if not lines[0].startswith("┌"):
        return lines[0].split("|")
    return [cell.strip() for cell in (lines + [""] * 4)[3].split("│")[1:-1]]


def show(text, code=None):
    for line in textwrap.wrap(text, WIDTH - 2):
        print(paint(code, line) if code else line)


def step(device, told, sql, promise):
    """Shows one statement and its result; what went wrong, or None."""
    if told:
        show(told, DIM)
    prompt = "sqlite> " if "without" in device else f"{device}> "
    for line in sql.split("\n"):
        print(paint(BOLD, prompt + line))
        prompt = "...> ".rjust(len(prompt))
    done = sqlite3(device, sql)
    kind, want = promise or ("=", "")
    if done.returncode:
        got = re.sub(r"^(Runtime|Parse) error near line \d+: | \(\d+\)$", "",
                     done.stderr.strip())
        show("Error: " + got, RED)
        print()
        if kind == "!" and want in got:
            return None
        return f"this statement should not have failed: {sql}"
    print(done.stdout)
    row = first_row(done.stdout)
    if kind == "!" or not any(cell.startswith(want) for cell in row):
        return f"the first row should be: {want}" if kind == "=" else \
            f"this should have been refused, naming: {want}"
    return None


def prepare():
    OUT.mkdir(parents=True, exist_ok=True)
    for device in ("laptop", "phone"):
        for suffix in ("", "-wal", "-shm", "-journal"):
            (OUT / (device + ".db" + suffix)).unlink(missing_ok=True)
    for name in ("remote", "state"):
        shutil.rmtree(OUT / name, ignore_errors=True)
        (OUT / name).mkdir()


def main():
    start = time.monotonic()
    own = os.environ.get("DIR", "")
    own = str(pathlib.Path(own).expanduser().absolute()) if own else ""
    values = {"dir": own, "words": os.environ.get("Q") or "read me"}
    text = (HERE / "demo.sql").read_text()
    for key, value in values.items():
        text = text.replace("${%s}" % key, value.replace("'", "''"))
    prepare()
    for number, (device, title, steps) in enumerate(parse(text, bool(own)), 1):
        head = f"── {number}. {title} "
        print(paint(BOLD, head + "─" * (WIDTH - len(head))) + "\n")
        for told, sql, promise in steps:
            wrong = step(device, told, sql, promise)
            if wrong:
                sys.exit(f"demo: {wrong}")
    print(paint(BOLD, "── Now you " + "─" * (WIDTH - 11)) + "\n")
    print((HERE / "next.txt").read_text().replace("${out}", os.path.relpath(
        OUT)))
    print(f"The demo took {time.monotonic() - start:.1f} s.")


if __name__ == "__main__":
    main()
