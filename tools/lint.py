#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""House rules that a compiler does not check: lint.py [ROOT]

  - a file has at most 1,000 lines, a function at most 80 (LONG lists the rest)
  - no goto, no C allocator, no unbounded string function (CALLS lists the rest)
  - file-static functions are named once in the whole tree (one file, merged)
  - a source file opens with its licence and a comment that says what it is
  - nothing is left to do, and no line names the machine it was written on
"""
import pathlib
import re
import sys

MAX_FILE, MAX_FUNCTION = 1000, 80

# What is longer than the limit, and why that reads better than pieces.
LONG = {}

# file -> calls it may make, and why (in the file).
CALLS = {}

BANNED = {
    "goto": "carry the error (ChoirErr)",
    "malloc": "sqlite3_malloc64 or choirMalloc", "calloc": "choirMalloc",
    "realloc": "choirRealloc", "free": "sqlite3_free",
    "strdup": "choirMprintf", "strndup": "choirMprintf",
    "asprintf": "choirMprintf",
    "strcpy": "memcpy with a length", "strcat": "ChoirBuf",
    "strncpy": "memcpy with a length", "strncat": "ChoirBuf",
    "sprintf": "sqlite3_snprintf", "vsprintf": "sqlite3_vsnprintf",
    "gets": "read", "atoi": "strtoll with its end", "atol": "strtoll",
    "atoll": "strtoll", "atof": "strtod with its end", "strtok": "strchr",
    "rand": "sqlite3_randomness", "srand": "sqlite3_randomness",
    "system": "nothing", "popen": "nothing", "alloca": "choirMalloc",
    "printf": "an error or a row", "exit": "an error", "abort": "an error",
    "sqlite3_malloc": "sqlite3_malloc64", "sqlite3_realloc":
    "sqlite3_realloc64",
    "sqlite3_commit_hook": "nothing: hooks are the host's",
    "sqlite3_rollback_hook": "nothing: hooks are the host's",
    "sqlite3_update_hook": "nothing: hooks are the host's",
    "sqlite3_wal_hook": "nothing: hooks are the host's",
    "sqlite3_set_authorizer": "nothing: hooks are the host's",
    "sqlite3_progress_handler": "nothing: hooks are the host's",
}
# In two pieces, so that this file does not find itself.
LEFT_OVER = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
MACHINE = re.compile(r"/wo" r"rk/|/tmp/w" r"t|/ro" r"ot/")


def blank(text):
    """text without comments and literals, line for line."""
    def spaces(m):
        return re.sub(r"[^\n]", " ", m.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\])+\'',
                  spaces, text, flags=re.S)


def functions(code):
    """(name, first line, lines, static) of each definition in blanked code.

    clang-format puts a definition's first letter and its last brace in the
    first column, which is all the grammar that this needs.
    """
    lines = code.split("\n")
    start = None
    for i, line in enumerate(lines):
        if start is None and re.match(r"[A-Za-z_]", line):
            start = i
        if start is None:
            continue
        text = "\n".join(lines[start:i + 1])
        if "{" not in text:
            if line.startswith("#") or line.rstrip().endswith(";"):
                start = None  # a declaration
        elif line.startswith("}") or text.count("{") == text.count("}"):
            head = re.sub(r"__attribute__\s*\(\(.*?\)\)+", "",
                          text.split("{")[0], flags=re.S)
            m = re.search(r"([A-Za-z_]\w*)\s*\(", head)
            if m and "=" not in head:
                yield (m.group(1), start + 1, i - start + 1,
                       re.search(r"\bstatic\b", head) is not None)
            start = None


def source(root, path, seen):
    text = path.read_text()
    name = path.relative_to(root).as_posix()
    n = text.count("\n")
    if n > MAX_FILE and name not in LONG:
        yield f"{name}: {n} lines, at most {MAX_FILE}"
    if not re.match(r"/\* SPDX-License-Identifier: MIT \*/\n/\*\n\*\* \S", text):
        yield f"{name}:1: opens without its licence and what it is for"
    code = blank(text)
    for i, line in enumerate(code.split("\n"), 1):
        for call in re.findall(r"\b(goto)\b|\b([a-z_0-9]+)\s*\(", line):
            call = call[0] or call[1]
            if call in BANNED and call not in CALLS.get(name, ()):
                yield f"{name}:{i}: {call} is banned: use {BANNED[call]}"
    if path.suffix == ".inc":  # included several times under several names
        return
    for function, line, size, static in functions(code):
        if size > MAX_FUNCTION and f"{name}:{function}" not in LONG:
            yield (f"{name}:{line}: {function} has {size} lines, at most "
                   f"{MAX_FUNCTION}")
        if static and path.suffix == ".c":
            other = seen.setdefault(function, name)
            if other != name:
                yield f"{name}:{line}: {function} is also in {other}"


def problems(root):
    seen = {}
    for path in sorted((root / "ext").rglob("*")):
        if path.suffix in (".c", ".h", ".inc"):
            yield from source(root, path, seen)
    for top in ("ext", "sql", "tools", "tests", "bench", "docs", "Makefile",
                "README.md", ".ci"):
        here = root / top
        for path in sorted(here.rglob("*") if here.is_dir() else [here]):
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            try:
                text = path.read_text()
            except UnicodeDecodeError:
                continue  # a golden file
            for i, line in enumerate(text.split("\n"), 1):
                for what in (LEFT_OVER, MACHINE):
                    m = what.search(line)
                    if m:
                        yield (f"{path.relative_to(root)}:{i}: "
                               f"{m.group(0)} does not belong here")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    bad = list(problems(root))
    for line in bad:
        print(line, file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
