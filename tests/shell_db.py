# SPDX-License-Identifier: MIT
"""A connection that is a running SQLite shell, spoken to over pipes.

Parameters become literals, rows are read back from `.mode quote` exactly, an
error is what the shell writes to stderr. One limit is the shell's own: it
prints text up to an embedded NUL, so a test that looks at one uses hex().
"""
import os
import re
import sqlite3
import subprocess
import tempfile
import uuid

TOKEN = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\[[^\]]*\]|`[^`]*`"
    r"|--[^\n]*|/\*.*?\*/|\?(\d*)", re.S)
CELL = re.compile(
    r"(?P<null>NULL)|(?P<real>-?\d+\.\d+(?:e[+-]?\d+)?|-?1e\+?999|-?Inf)"
    r"|(?P<int>-?\d+)|X'(?P<blob>[0-9a-fA-F]*)'|'(?P<text>(?:[^']|'')*)'", re.S)


class ShellError(Exception):
    pass


def literal(value):
    if value is None or value != value:
        return "NULL"
    if isinstance(value, (bool, int)):
        return str(int(value))
    if isinstance(value, float):
        return repr(value).replace("inf", "9e999")
    if isinstance(value, str):
        if any(ord(c) < 32 or ord(c) == 127 for c in value):
            return "CAST(x'%s' AS TEXT)" % value.encode().hex()
        return "'" + value.replace("'", "''") + "'"
    return "x'%s'" % bytes(value).hex()


def bind(sql, params):
    """sql with ?, ?1, ?2 … outside quotes and comments replaced."""
    used = [0]

    def one(m):
        if m.group(1) is None:
            return m.group(0)
        used[0] = int(m.group(1)) if m.group(1) else used[0] + 1
        return literal(params[used[0] - 1])
    return TOKEN.sub(one, sql) if params else sql


def parse(text):
    """The rows of `.mode quote` output."""
    rows, row, at = [], [], 0
    while at < len(text):
        m = CELL.match(text, at)
        if not m:
            raise ShellError(f"not a row of .mode quote: {text[at:at + 80]!r}")
        kind, at = m.lastgroup, m.end()
        value = m.group(kind)
        if kind == "null":
            row.append(None)
        elif kind == "int":
            row.append(int(value))
        elif kind == "real":
            row.append(float(value))  # 1e999 is infinity
        elif kind == "blob":
            row.append(bytes.fromhex(value))
        else:
            row.append(value.replace("''", "'"))
        if text[at:at + 1] == "\n":
            rows.append(tuple(row))
            row = []
        at += 1
    return rows


def statements(script):
    """The statements of a script; splits where SQLite says one is complete."""
    current = ""
    for part in re.split(r"(;)", script):
        current += part
        if part == ";" and sqlite3.complete_statement(current):
            yield current
            current = ""
    if TOKEN.sub(lambda m: "" if m.group(0)[:2] in ("--", "/*") else "x",
                 current).strip():
        if not sqlite3.complete_statement(current + "\n;"):
            raise ShellError(f"incomplete input: {current[-80:]!r}")
        yield current + "\n;"


class Shell:
    def __init__(self, program, path, entry="choir"):
        self.stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [program, "-batch", "-init", os.devnull, path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr,
            env=dict(os.environ, CHOIR_SHELL_ENTRY=entry))
        self.send(".mode quote\n.headers off\n.explain off\n.timeout 5000\n")

    def send(self, text):
        """Runs text, returns what it printed; raises what it complained."""
        mark = f"end-{uuid.uuid4().hex}"
        seen = self.stderr.seek(0, os.SEEK_END)
        out = b""
        try:
            self.process.stdin.write(f"{text}\n.print {mark}\n".encode())
            self.process.stdin.flush()
            while not out.endswith(f"{mark}\n".encode()):
                more = os.read(self.process.stdout.fileno(), 1 << 20)
                if not more:
                    raise BrokenPipeError
                out += more
        except BrokenPipeError:
            self.stderr.seek(seen)
            raise AssertionError("the shell died with status "
                                 f"{self.process.wait()}: "
                                 f"{self.stderr.read()!r}") from None
        self.stderr.seek(seen)
        complaint = self.stderr.read().decode("utf-8", "replace")
        if complaint:
            raise ShellError(message(complaint))
        return out[:-len(mark) - 1].decode()

    def rows(self, sql, params=()):
        rows = []
        for statement in statements(bind(sql, params)):
            rows += parse(self.send(statement))
        return rows

    def load(self, path, entry=None):
        self.send(f".load '{path}' {entry or ''}")

    def close(self):
        self.process.stdin.close()
        try:
            status = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.process.stdout.close()
        self.stderr.close()
        if status not in (0, 1):
            raise AssertionError(f"the shell ended with status {status}")


def message(complaint):
    """`Runtime error near line 3: text (19)` and its marker line -> text."""
    text = re.sub(r"^(?:(?:Parse|Runtime) error|Error)(?: near line \d+)?:"
                  r" (?:in prepare, |stepping, )?", "", complaint)
    text = re.sub(r"\n  .*\n +\^--- error here\n?$", "", text, flags=re.S)
    return re.sub(r"(?: \(\d+\))?\n*$", "", text)
