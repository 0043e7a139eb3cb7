#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""docs/requirements.md names only what is there: requirements.py [ROOT]

  - the numbers 1 to 76, each once and in order
  - a status: yes, or part or no with the reason; a yes names a function and a
    test
  - a function has a heading in docs/reference, a table or view is made in sql/
    or ext/
  - a test is a function of the file named before `::`; where tests are no
    functions (a script that runs programs) the file alone
"""
import pathlib
import re
import sys

COUNT = 76
NAME = re.compile(r"`([^`]+)`")
MADE = re.compile(r"CREATE (?:VIRTUAL )?(?:TABLE|VIEW) (?:IF NOT EXISTS )?~\."
                  r"(\w+)")


def known(root):
    """Every function, table and view."""
    names = set()
    for page in root.glob("docs/reference/*.md"):
        for heading in re.findall(r"^## (.+)$", page.read_text(), re.M):
            names |= set(re.findall(r"^\w+$", heading.replace(", ", "\n"), re.M))
    for source in [*root.glob("sql/*.sql"), *root.glob("ext/*/*.c")]:
        names |= set(MADE.findall(source.read_text()))
    return names


def rows(text):
    """The cells of each row of the table, without its head."""
    lines = [x for x in text.splitlines() if x.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def missing_test(root, test):
    """What is wrong with a test's name, or None."""
    path, _, function = test.partition("::")
    file = root / path
    if not path.startswith("tests/") or not file.is_file():
        return "is no file of tests/"
    if not function:
        return "names no test" if file.name.startswith("test_") else None
    if not re.search(rf"^def {re.escape(function)}\(", file.read_text(), re.M):
        return "is no test of that file"
    return None


def problems(root):
    names, numbers = known(root), []
    for row in rows((root / "docs/requirements.md").read_text()):
        where = f"requirement {row[0]}"
        if len(row) != 5:
            yield f"{where}: {len(row)} columns, not 5"
            continue
        numbers.append(row[0])
        by, tests = NAME.findall(row[2]), NAME.findall(row[3])
        if not re.fullmatch(r"yes|(part|no): .+", row[4]):
            yield f"{where}: status must be yes, part: … or no: …, got {row[4]}"
        if row[4] == "yes" and not (by and tests):
            yield f"{where}: yes without a function and a test"
        for name in by:
            if name not in names:
                yield f"{where}: no function, table or view {name}"
        for test in tests:
            wrong = missing_test(root, test)
            if wrong:
                yield f"{where}: {test} {wrong}"
    if numbers != [str(n) for n in range(1, COUNT + 1)]:
        yield f"the numbers are not 1 to {COUNT}, each once and in order"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    bad = list(problems(root))
    for line in bad:
        print(f"docs/requirements.md: {line}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
