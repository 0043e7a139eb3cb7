#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Static analysis of every source; `make analyze`.

  analyze.py          all tools
  analyze.py TOOL…    of tidy (clang-tidy 14 with .clang-tidy), gcc
                      (-fanalyzer), cppcheck
  analyze.py … FILE…  these sources alone

The checkers of scan-build are in clang-tidy, as clang-analyzer-…: the same code of
the same version, with the same findings.

tools/analyze.known lists what they say although it is not so, with the reason.
What is not listed fails, and so does a line there that says nothing any more.
"""
import collections
import concurrent.futures
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = ["-std=gnu11", "-Iext", "-fPIC"]
COMMAND = {
    "tidy": lambda f: ["clang-tidy-14", "--quiet", f, "--"] + FLAGS + ["-w"],
    "gcc": lambda f: ["gcc", "-fanalyzer", "-O1", "-c", "-o", "/dev/null",
                      f] + FLAGS,
    "cppcheck": lambda f: ["cppcheck", "-q", "--std=c11", "-Iext",
                           "--inline-suppr", "--template=gcc", "--enable="
                           "warning,performance,portability", f],
}
FINDING = re.compile(r"^([^\s:]+):(\d+):\d+: (?:warning|error): (.*) "
                     r"\[([\w.,-]+)\]$", re.M)


def known():
    """{(file, check): [how many, reason]}"""
    table = {}
    for line in (ROOT / "tools/analyze.known").read_text().splitlines():
        if line and not line.startswith("#"):
            name, check, count, reason = line.split(None, 3)
            table[name, check] = [int(count), reason]
    return table


def run(tool, name):
    got = subprocess.run(COMMAND[tool](name), cwd=ROOT, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         errors="replace", timeout=900)
    found = set()
    for where, line, text, check in FINDING.findall(got.stdout):
        where = str(pathlib.Path(ROOT, where).resolve())
        if where.startswith(f"{ROOT}/ext/"):
            check = check.replace("-Wanalyzer", "analyzer")
            found.add((where[len(str(ROOT)) + 1:], int(line), check, text))
    return found


def main(args):
    tools = [a for a in args if a in COMMAND] or list(COMMAND)
    every = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("ext/**/*.c"))
    names = [a for a in args if a not in COMMAND] or every
    bad, want = 0, known()
    for tool in tools:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            found = set().union(*pool.map(lambda f: run(tool, f), names))
        count = collections.Counter((f[0], f[2]) for f in found)
        new = [f for f in sorted(found)
               if count[f[0], f[2]] > want.get((f[0], f[2]), [0])[0]]
        for where, line, check, text in new:
            print(f"{where}:{line}: {text} [{check}]")
        print(f"analyze: {tool}: {len(names)} files, {len(found)} findings,"
              f" {len(new)} unexplained", flush=True)
        bad += len(new)
        for key in count:
            if key in want:
                want[key].append("seen")
    for (name, check), entry in want.items():
        if len(entry) == 2 and len(tools) == len(COMMAND) and names == every:
            print(f"tools/analyze.known: {name} {check} is not found any more")
            bad += 1
    return bad != 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
