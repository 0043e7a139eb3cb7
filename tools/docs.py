#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads the doc blocks of ext/ and writes what is made from them.

  docs.py help OUT.c         the table behind choir_help()
  docs.py cases OUT.sql      every example, for tests/oom/oom.c
  docs.py reference DIR      docs/reference/<room>.md
  docs.py check DIR          fails when DIR is not what `reference` would write,
                             or when a registered function has no block

A block is a C comment in which a line starts with `SQL:`. Grammar:

  SQL: name(args[, optional]) -> TYPE          scalar
  SQL: aggregate name(args) -> TYPE            aggregate
  SQL: name(args) -> TABLE(columns)            table-valued
  SQL: module name(args) -> TABLE(columns)     CREATE VIRTUAL TABLE … USING name
  (several SQL: lines: the block documents all of them)
  text, argument lines (indented), `NULL:`, `Errors:`, `Source:`, `Since:`
  > statement (one or more lines)
  = expected row, columns joined by |          or   ! expected error
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROOMS = ["core", "kern", "vec", "index", "store", "log", "embed", "search",
         "http", "object", "qdrant", "nats", "libsql", "sync"]
# Left out of a build with CHOIR_OMIT_NET.
NET = ("http", "qdrant", "nats", "libsql")
CLASSES = "PURE|VOLATILE|READ|WRITE|SETTING|EFFECT"


class Block:
    def __init__(self, room, where, lines):
        self.room, self.where = room, where
        self.signatures, self.text, self.examples = [], [], []
        current = None
        while lines and not lines[-1].strip():
            lines.pop()
        for line in lines:
            if line.startswith("SQL:"):
                self.signatures.append(line[4:].strip())
            elif self.signatures and line.startswith("  ") and not self.text:
                self.signatures[-1] += ("" if self.signatures[-1].endswith("(")
                                        else " ") + line.strip()
            elif line.startswith("> "):
                if current is None or current["rows"] or current["error"]:
                    current = {"sql": [], "rows": [], "error": None}
                    self.examples.append(current)
                current["sql"].append(line[2:])
            elif line.startswith("= ") or line == "=":
                current["rows"].append(line[2:])
            elif line.startswith("! "):
                current["error"] = line[2:]
            elif self.text or line.strip():
                self.text.append(line)
        while self.text and not self.text[-1].strip():
            self.text.pop()

    def names(self):
        return [name_of(s) for s in self.signatures]

    def summary(self):
        words = []
        for line in self.text:
            if not line.strip():
                break
            words.append(line.strip())
        text = " ".join(words)
        return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]

    def example(self):
        return "\n".join(self.examples[0]["sql"]) if self.examples else ""


def name_of(signature):
    return re.match(r"(?:aggregate\s+|module\s+)?([a-z0-9_]+)",
                    signature).group(1)


def bare(signature):
    return re.sub(r"^(aggregate|module) ", "", signature)


def kind_of(signature):
    if signature.startswith(("aggregate ", "module ")):
        return signature.split(" ", 1)[0]
    return "table" if "-> TABLE(" in signature else "scalar"


def sources():
    for path in sorted((ROOT / "ext").rglob("*.[ch]")):
        yield path, path.read_text()


def blocks():
    found = []
    for path, text in sources():
        room = path.parent.name
        for m in re.finditer(r"/\*\n(.*?)\*/", text, re.S):
            lines = [re.sub(r"^\*\* ?", "", l) for l in m.group(1).split("\n")]
            if any(l.startswith("SQL:") for l in lines):
                line = text[: m.start()].count("\n") + 1
                where = f"{path.relative_to(ROOT)}:{line}"
                found.append(Block(room, where, lines))
    return found


def registered():
    """name -> risk, from the rows of the rooms' tables."""
    rows = {}
    pattern = re.compile(
        r'\{\s*"([a-z][a-z0-9_]*)"\s*,[^{};]*?CHOIR_(%s)\b' % CLASSES, re.S)
    for _, text in sources():
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        for name, risk in pattern.findall(text):
            rows[name] = "write" if risk == "SETTING" else risk.lower()
    return rows


def local():
    """Names whose row says CHOIR_LOCAL: registered read-only too."""
    return {name for _, text in sources() for name in re.findall(
        r'\{\s*"([a-z][a-z0-9_]*)"[^{};]*?CHOIR_LOCAL', text)}


def entries():
    risk = registered()
    out = []
    for b in blocks():
        for s in b.signatures:
            name = name_of(s)
            out.append((b, s, name, kind_of(s), risk.get(name, "unknown")))
    order = {r: i for i, r in enumerate(ROOMS)}
    out.sort(key=lambda e: (order.get(e[0].room, 99), e[2]))
    return out


def c_string(text):
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + text.replace("??", '?""?') + '"'


def write_help(out):
    rows, here = [], local()
    for b, s, name, kind, risk in entries():
        row = "    {%s,\n     %d},\n" % (",\n     ".join(
            c_string(x) for x in (name, kind, b.room, risk,
                                  bare(s), b.summary(),
                                  b.example())),
            name in here or risk not in ("write", "effect"))
        rows.append(f"#ifndef CHOIR_OMIT_NET\n{row}#endif\n"
                    if b.room in NET else row)
    pathlib.Path(out).write_text(
        "/* Generated by tools/docs.py from the doc blocks in ext/. */\n"
        '#include "core/core.h"\n\nCHOIR_DATA const ChoirHelp choirHelp[] = {\n'
        + "".join(rows) + "};\nCHOIR_DATA const int choirHelpCount = "
        "(int)(sizeof(choirHelp) / sizeof(choirHelp[0]));\n")


def reference():
    pages = {}
    risk = registered()
    order = {r: i for i, r in enumerate(ROOMS)}
    for b in sorted(blocks(), key=lambda b: (order.get(b.room, 99),
                                             b.names()[0])):
        page = pages.setdefault(b.room, [
            f"# {b.room}\n",
            "<!-- Generated by `make docs` from the doc blocks in "
            f"ext/{b.room}/. -->\n"])
        page.append(f"## {', '.join(b.names())}\n")
        page.append("```sql\n" + "\n".join(
            bare(s) for s in b.signatures) + "\n```\n")
        kinds = sorted({kind_of(s) for s in b.signatures})
        risks = sorted({risk.get(n, "unknown") for n in b.names()})
        page.append(f"*{', '.join(kinds)} · risk: {', '.join(risks)}*\n")
        page.append(markdown(b.text) + "\n")
        for e in b.examples:
            page.append("```sql\n" + "\n".join(e["sql"]) + "\n"
                        + "".join(f"-- {r}\n" for r in e["rows"])
                        + (f"-- error: {e['error']}\n" if e["error"] else "")
                        + "```\n")
    made = {f"{room}.md": "\n".join(p) for room, p in pages.items()}
    made["README.md"] = index(list(pages))
    made["config.md"] = config()
    return made


def index(rooms):
    """Every function on one page, by room."""
    page = ["# Reference\n",
            "<!-- Generated by `make docs` from the doc blocks in ext/. -->\n",
            "Every function of choir, by room; the settings are in"
            " [config](config.md). In SQL the same list is `choir_help()`.\n"]
    for room in sorted(rooms, key=lambda r: ROOMS.index(r)):
        page.append(f"## [{room}]({room}.md)\n")
        page.append("| | |\n|--|--|\n" + "".join(
            f"| [`{name}`]({room}.md#{anchor(b)}) | {cell(b.summary())} |\n"
            for b, _, name, _, _ in entries() if b.room == room))
    return "\n".join(page)


def anchor(block):
    """GitHub's anchor of a block's heading."""
    return "-".join(", ".join(block.names()).replace(",", "").split())


def cell(text):
    return text.replace("|", "\\|")


def config():
    """The settings, from the table in core_config.c."""
    text = (ROOT / "ext/core/core_config.c").read_text()
    table = re.search(r"aConfigKey\[\] = \{\n(.*?)\n\};", text, re.S).group(1)
    string = r'((?:"(?:[^"\\]|\\.)*"\s*)+|NULL)'
    row = re.compile(r"\{%s,\s*%s,\s*%s,\s*([\w |]+),\s*%s\}"
                     % (string, string, string, string))

    def value(literal):
        return None if literal.strip() == "NULL" else "".join(
            re.findall(r'"((?:[^"\\]|\\.)*)"', literal)).replace('\\"', '"')

    page = ["# config\n",
            "<!-- Generated by `make docs` from ext/core/core_config.c. -->\n",
            "A setting of a connection comes from the first of these that has"
            " it: `choir_config(key, value)`, the environment,"
            " `$XDG_CONFIG_HOME/choir/config` (lines `key = value`, refused"
            " unless only its owner may read it), the default. The table"
            " `choir_settings` shows what holds and why. Values marked secret"
            " are masked wherever they are shown.\n",
            "| key | environment | default | |\n|--|--|--|--|"]
    for key, env, default, flags, doc in row.findall(table):
        env = ", ".join(f"`{e}`" for e in (value(env) or "").split(",") if e)
        default = f"`{value(default)}`" if value(default) is not None else ""
        secret = " (secret)" if "SECRET" in flags else ""
        page.append(f"| `{value(key)}` | {env} | {default} |"
                    f" {cell(value(doc))}{secret} |")
    return "\n".join(page) + "\n"


def markdown(lines):
    out, code = [], False
    for line in lines:
        indented = line.startswith("  ")
        if indented and not code:
            out.append("```text")
        if code and not indented:
            out.append("```")
        code = indented
        line = re.sub(r"^(NULL|Errors|Source|Since):", r"**\1**:", line)
        out.append(line if indented else line)
    if code:
        out.append("```")
    return re.sub(r"(\S)\n(\*\*(?:NULL|Errors|Source|Since)\*\*)", r"\1\n\n\2",
                  "\n".join(out))


def check(directory):
    bad = []
    documented = {n for b in blocks() for n in b.names()}
    rows = registered()
    for name in sorted(set(rows) - documented):
        bad.append(f"{name}: registered but has no doc block")
    for name in sorted(documented - set(rows)):
        bad.append(f"{name}: has a doc block but is not registered")
    for path, text in sources():
        for m in re.finditer(r"/\*\n(\*\* SQL:.*?)\n\*/", text, re.S):
            bad += [f"{path.relative_to(ROOT)}: not part of its doc block: {x}"
                    for x in m.group(1).split("\n") if not x.startswith("**")]
    for b in blocks():
        if not b.examples:
            bad.append(f"{b.where}: {', '.join(b.names())}: no example")
        bad += [f"{b.where}: a signature goes on with two blanks: {s}"
                for s in b.signatures if s.count("(") != s.count(")")]
    pages = reference()
    have = {p.name: p.read_text() for p in pathlib.Path(directory).glob("*.md")
            if p.read_text().startswith("# ") and "Generated by" in
            p.read_text()[:200]}
    for name in sorted(set(pages) | set(have)):
        if pages.get(name) != have.get(name):
            bad.append(f"{directory}/{name} is stale; run make docs")
    for line in bad:
        print("docs:", line, file=sys.stderr)
    return 1 if bad else 0


def main():
    command, out = sys.argv[1], sys.argv[2]
    if command == "help":
        write_help(out)
    elif command == "cases":
        pathlib.Path(out).write_text("".join(
            f"-- case {b.names()[0]}-{i}\n" + "\n".join(e["sql"])
            .rstrip(";") + ";\n"
            for b in blocks() for i, e in enumerate(b.examples, 1)))
    elif command == "reference":
        pathlib.Path(out).mkdir(parents=True, exist_ok=True)
        for name, text in reference().items():
            (pathlib.Path(out) / name).write_text(text)
    elif command == "check":
        return check(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
