#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs choir in every program that can load it: `make hosts`.

  run.py [--install] [NAME …]

In each host a few lines of its own language open a new file, load choir, run
with_choir.sql and close; then open the file again without choir, run
without_choir.sql and close. A line of those files is one statement and, after
`-- `, the value it must give. The close must leave no -wal file behind: that
is how an unfinished statement of an extension shows.

--install fetches what is missing (Debian packages, npm, PyPI, Maven, Go,
crates) into build/hosts; without it, hosts that are not there are skipped.
CHOIR_REQUIRE_ALL=1 makes a skipped host a failure, where it is a required one.
One line a host: name, version, its SQLite, ok or why not.
"""
import glob
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "hosts"
SO = os.path.abspath(os.environ.get("CHOIR_SO", str(ROOT / "choir.so")))
SCRIPTS = HERE / "with_choir.sql", HERE / "without_choir.sql"
JARS = BUILD / "java" / "jars"
NPM = BUILD / "npm" / "node_modules"


class Missing(Exception):
    pass


def run(command, **kw):
    try:
        done = subprocess.run([str(c) for c in command], text=True,
                              timeout=600, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, **kw)
    except FileNotFoundError as e:
        raise Missing(f"no {e.filename}")
    if done.returncode:
        said = (done.stderr + done.stdout).strip().split("\n")
        telling = [x for x in said if re.search("rror|ception|failed", x)]
        raise RuntimeError((telling or said)[0].strip()
                           or f"exit code {done.returncode}")
    return done.stdout


def apt(*packages):
    run([ROOT / "tools" / "setup.sh", "only", *packages])


def program(name):
    found = shutil.which(name, path="/usr/bin:/bin:" + os.environ["PATH"])
    if not found:
        raise Missing(f"no {name}")
    return found


def one_of(pattern):
    found = sorted(glob.glob(str(pattern)))
    if not found:
        raise Missing(f"no {pattern.relative_to(ROOT)}")
    return found[0]


def copied(name):
    """A folder of this one under build/hosts, where tools may write."""
    shutil.copytree(HERE / name, BUILD / name, dirs_exist_ok=True)
    return BUILD / name


def npm():
    if not shutil.which("npm"):
        apt("npm")
    folder = copied("npm")
    run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund",
         "--no-package-lock", "--loglevel=error"], cwd=folder)


def venv():
    run([ROOT / "tools" / "setup.sh"])


def maven():
    if not shutil.which("mvn") or not shutil.which("java"):
        apt("maven", "default-jdk-headless")
    run(["mvn", "-q", "-B", "dependency:copy-dependencies",
         f"-DoutputDirectory={JARS}"], cwd=copied("java"))


def go():
    folder = copied("go")
    run([program("go"), "mod", "tidy"], cwd=folder)
    run([program("go"), "build", "-tags", "libsqlite3", "-o", "smoke", "."],
        cwd=folder)


def cargo():
    run([program("cargo"), "build", "-q", "--release"], cwd=copied("rust"))


def shell(path, script, so):
    sqlite3 = program("sqlite3")
    load = ["-cmd", f".load {so}"] if so else []
    version = run([sqlite3, "--version"]).split()[0]
    return (f"{version}\n{version}\n"
            + run([sqlite3, "-batch", "-bail", *load, path],
                  stdin=open(script)))


def simple(*command):
    """A host whose program takes: database, script, extension or ''."""
    def start(path, script, so):
        words = [c() if callable(c) else c for c in command]
        return run([*words, path, script, so])
    return start


def php(path, script, so):
    return run([program("php"), "-d",
                f"sqlite3.extension_dir={os.path.dirname(SO)}",
                HERE / "smoke_php.php", path, script, so])


def sqljs(path, script, so):
    """Cannot load extensions: the shell makes the file, sql.js uses it."""
    if so:
        return shell(path, script, so)
    return run([node(), BUILD / "npm" / "smoke_sqljs.cjs", path, script])


def node():
    return one_of(NPM / "node-linux-*" / "bin" / "node")


# name, required, how to get it, how to run it
HOSTS = [
    ("sqlite3 shell", True, lambda: apt("sqlite3"), shell),
    ("Python sqlite3", True, lambda: apt("python3"),
     simple("/usr/bin/python3", HERE / "smoke_python.py")),
    ("Python apsw", True, venv,
     simple(ROOT / "build/venv/bin/python", HERE / "smoke_apsw.py")),
    ("node:sqlite", True, npm,
     simple(node, "--no-warnings", BUILD / "npm" / "smoke_node.mjs")),
    ("better-sqlite3", True, npm,
     simple(node, BUILD / "npm" / "smoke_better_sqlite3.cjs",
            "better-sqlite3")),
    ("Ruby sqlite3", True, lambda: apt("ruby", "ruby-sqlite3"),
     simple(lambda: program("ruby"), HERE / "smoke_ruby.rb")),
    ("PHP SQLite3", True, lambda: apt("php-cli", "php-sqlite3"), php),
    ("Java JDBC", True, maven,
     simple(lambda: program("java"), "-cp",
            lambda: one_of(JARS / "sqlite-jdbc-*.jar") and JARS / "*",
            HERE / "java" / "Smoke.java")),
    ("Tcl sqlite3", False, lambda: apt("tcl", "libsqlite3-tcl"),
     simple(lambda: program("tclsh"), HERE / "smoke_tcl.tcl")),
    ("Perl DBD::SQLite", False, lambda: apt("libdbd-sqlite3-perl"),
     simple(lambda: program("perl"), HERE / "smoke_perl.pl")),
    ("libsql (npm)", False, npm,
     simple(node, BUILD / "npm" / "smoke_better_sqlite3.cjs", "libsql")),
    ("Bun", False, npm,
     simple(lambda: one_of(NPM / "@oven" / "bun-linux-*" / "bin" / "bun"),
            BUILD / "npm" / "smoke_bun.mjs")),
    ("Deno", False, npm,
     simple(lambda: one_of(NPM / "@deno" / "linux-*" / "deno"), "run",
            "--no-lock", "-A", BUILD / "npm" / "smoke_node.mjs")),
    ("sql.js (without)", False, npm, sqljs),
    ("Go go-sqlite3", False, go,
     simple(lambda: one_of(BUILD / "go" / "smoke"))),
    ("Rust rusqlite", False, cargo,
     simple(lambda: one_of(BUILD / "rust" / "target" / "release" / "smoke"))),
]


def fetch(get):
    try:
        get()
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as e:
        raise Missing(f"cannot install: {e}")


def statements(script):
    """[(statement, the value it must give)]"""
    return [line.split("; -- ", 1) for line in
            script.read_text().strip().split("\n")]


def smoke(start):
    """Runs both scripts; the host's version and its SQLite's."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "workspace.db")
        plain = os.path.join(folder, "plain.sql")
        for script, so in zip(SCRIPTS, (SO, "")):
            with open(plain, "w") as out:
                out.writelines(s + ";\n" for s, _ in statements(script))
            got = start(path, plain, so).strip().split("\n")
            versions, got = got[:2], got[2:] + ["nothing"] * 99
            for (sql, want), have in zip(statements(script), got):
                if want != have:
                    raise RuntimeError(f"{sql[:40]}…: {have}, not {want}")
            left = [p for p in os.listdir(folder) if p.startswith(
                "workspace.db-")]
            if left:
                raise RuntimeError(f"close left {', '.join(left)} behind")
    return versions


def main():
    names = [a for a in sys.argv[1:] if a != "--install"]
    install = "--install" in sys.argv
    strict = os.environ.get("CHOIR_REQUIRE_ALL") == "1"
    bad = ran = 0
    BUILD.mkdir(parents=True, exist_ok=True)
    done = set()
    print(f"{'host':18}{'version':14}{'SQLite':10}result "
          f"({platform.system()} {platform.machine()})")
    for name, required, get, start in HOSTS:
        if names and not any(n.lower() in name.lower() for n in names):
            continue
        versions, result = ["-", "-"], "ok"
        try:
            if install and get not in done:
                fetch(get)
                done.add(get)
            versions = smoke(start)
            ran += 1
        except Missing as e:
            bad += required and strict
            result = f"not here: {e}"
        except (RuntimeError, subprocess.TimeoutExpired) as e:
            bad += 1
            result = f"FAILED: {e}"
        print(f"{name:18}{versions[0]:14}{versions[1]:10}{result}", flush=True)
    print(f"{ran} hosts ran, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
