# SPDX-License-Identifier: MIT
"""H: nothing stored in a file makes choir act.

    hostile.py DIR [--every N] [--seed S] [--replay 'function;place;how']

Every function, table function and module of the registry in every place of a
schema that can name it, in a file made by somebody else; and every text column
of a workspace's own tables holding such a call. The file is opened, read,
written, checked, dumped, backed up and vacuumed, as the main database and
attached to another, with trusted_schema on and off. The shim lists what the
process does meanwhile: a socket, a program, or a file other than the database
itself is a violation. test_core_hostile.py says what SQLite must answer, and
test_core_hostile_effects.py that no row changes; the calls are those.
"""
import argparse
import json
import os
import pathlib
import random
import re
import shutil
import socket
import sqlite3
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "core"),
                str(HERE.parent / "servers")]
import faults  # noqa: E402
from conftest import Db  # noqa: E402
from test_core_hostile_effects import CALLS  # noqa: E402

SCALAR = {
    "view": ["CREATE VIEW v AS SELECT {call} AS x"],
    "trigger": ["CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT {call}; END"],
    "trigger when": ["CREATE TRIGGER r BEFORE INSERT ON t WHEN {call} IS NULL"
                     " BEGIN SELECT 1; END"],
    "instead trigger": ["CREATE VIEW v AS SELECT a FROM t",
                        "CREATE TRIGGER r INSTEAD OF INSERT ON v BEGIN"
                        " DELETE FROM t WHERE {call} = 1; END"],
    "check": ["CREATE TABLE c(a, CHECK({call} IS NOT 'never'))"],
    "default": ["CREATE TABLE c(a, b DEFAULT ({call}))"],
    "generated": ["CREATE TABLE c(a, b AS ({call}))"],
    "stored column": ["CREATE TABLE c(a, b AS ({call}) STORED)"],
    "index": ["CREATE INDEX i ON t(a || {call})"],
    "partial index": ["CREATE INDEX i ON t(a) WHERE {call} IS NULL"],
    "event": ["CREATE TABLE event_log(seq, a, name, payload)",
              "CREATE TRIGGER _choir_event_1 AFTER INSERT ON event_log BEGIN"
              " SELECT {call}; END", "INSERT INTO event_log VALUES(1,1,1,1)"],
    "log trigger": ["CREATE TRIGGER _choir_log_t_insert AFTER INSERT ON t"
                    " BEGIN INSERT INTO t SELECT {call}; END"],
}
TABLE = {
    "view": ["CREATE VIEW v AS SELECT * FROM {call}"],
    "trigger": ["CREATE TRIGGER r AFTER INSERT ON t BEGIN DELETE FROM t WHERE"
                " EXISTS(SELECT 1 FROM {name}); END"],
    "virtual table": ["PRAGMA writable_schema = 1",
                      "INSERT INTO sqlite_schema VALUES('table', 'c', 'c', 0,"
                      " 'CREATE VIRTUAL TABLE c USING {vtab}')"],
}
USES = {
    "open": ["SELECT count(*) FROM {s}.sqlite_schema"],
    "select": ["SELECT * FROM {s}.t", "SELECT * FROM {s}.v",
               "SELECT * FROM {s}.c", "SELECT count(*) FROM {s}.t WHERE a > 0"],
    "insert": ["INSERT INTO {s}.t(a) VALUES(2)", "INSERT INTO {s}.c(a)"
               " VALUES(2)", "INSERT INTO {s}.v(a) VALUES(2)",
               "INSERT INTO {s}.event_log VALUES(2, 2, 2, 2)",
               "UPDATE {s}.t SET a = 5", "DELETE FROM {s}.t WHERE a = 5"],
    "integrity_check": ["PRAGMA {s}.integrity_check", "PRAGMA {s}.quick_check",
                        "REINDEX"],
    "dump": [], "backup": [], "vacuum": ["VACUUM {s}"],
}
INSIDE = {  # what choir itself does with a workspace's stored text
    "select": ["SELECT * FROM choir_doctor", "SELECT * FROM choir_metrics",
               "SELECT * FROM choir_settings", "SELECT * FROM watch_poll",
               "SELECT * FROM log_changes", "SELECT * FROM timeline",
               "SELECT * FROM sync_health", "SELECT * FROM log_versions",
               "SELECT * FROM choir_search('tea')",
               "SELECT * FROM vec_search('near', '[1, 2]', 2)",
               "SELECT vec_index_info('near')", "SELECT setting_get('theme')",
               "SELECT state_get('mood')", "SELECT task_claim()",
               "SELECT server_state_get('s', 'k')"],
    "insert": ["SELECT artifact_put('/b.md', 'b')", "SELECT state_set('m', '$',"
               " 1)", "INSERT INTO kept VALUES(2)", "UPDATE kept SET a = 3",
               "SELECT event_emit('v1.Good', '{}')", "SELECT event_replay()",
               "SELECT log_undo()", "SELECT choir_index()",
               "SELECT vec_index_optimize('near')", "SELECT log_seal()",
               "SELECT choir_init()", "SELECT log_untrack('kept')"],
    "integrity_check": ["PRAGMA integrity_check", "SELECT choir_check()",
                        "SELECT log_verify()"],
    "dump": [], "backup": [], "vacuum": ["VACUUM"],
}


class Hostile:
    def __init__(self, folder, every, seed):
        self.folder, self.every = folder, every
        self.rnd = random.Random(seed)
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "in").mkdir(parents=True)
        (folder / "in/file.txt").write_text("text")
        self.server = socket.create_server(("127.0.0.1", 0))
        port = self.server.getsockname()[1]
        os.environ.update(
            CHOIR_USER="u1", CHOIR_REMOTE=f"file://{folder}/in/",
            CHOIR_REMOTE_ARTIFACTS=f"file://{folder}/in",
            CHOIR_QDRANT_URL=f"http://127.0.0.1:{port}",
            NATS_URL=f"nats://127.0.0.1:{port}", CHOIR_NATS_TIMEOUT_MS="200",
            HOME=str(folder / "home"), TMPDIR=str(folder / "tmp"),
            SQLITE_TMPDIR=str(folder / "tmp"))
        for n in "home", "tmp":
            (folder / n).mkdir()
        self.url = f"http://127.0.0.1:{port}/"
        self.count, self.violations = 0, []
        d = Db()
        self.registry = sorted(set(d.rows(
            "SELECT name, kind FROM choir_help()")))
        arity = {}
        for n, a in d.rows("SELECT name, narg FROM pragma_function_list"):
            arity.setdefault(n, []).append(2 if a < 0 else a)
        self.arity = {n: sorted(set(a))[-1] for n, a in arity.items()}
        d.close()
        self.workspaces()

    def workspaces(self):
        d = Db(self.folder / "good.db", init=True)
        d.run("PRAGMA journal_mode = delete; CREATE TABLE kept(a);"
              "CREATE TABLE vecs(id INTEGER PRIMARY KEY, e BLOB);"
              "INSERT INTO vecs(e) VALUES(vec_f32('[1, 2]'))")
        for sql in ("log_track('kept')", "artifact_put('/a.md', 'tea')",
                    "setting_set('theme', 'x')", "state_set('mood', '$', 1)",
                    "event_define('v1.Good', '{}', 'INSERT INTO kept"
                    " VALUES(1)')", "event_emit('v1.Good', '{}')",
                    "watch_define('w', 'SELECT a FROM kept')",
                    "vec_index_create('near', 'vecs', 'e')",
                    "server_state_set('s', 'k', 'v')", "choir_index()",
                    "task_add('t', '{}')", "log_seal()"):
            d.one("SELECT " + sql)
        d.run("INSERT INTO kept VALUES(1)")
        d.close()

    def call(self, name):
        text = CALLS.get(name)
        if text is None:
            text = ", ".join([f"'{self.url}'"] * self.arity.get(name, 1))
        return f"{name}({text})".replace("{folder}", str(self.folder)).replace(
            "{port}", self.url.split(":")[2][:-1])

    def cases(self):
        for name, kind in self.registry:
            places = TABLE if kind in ("table", "module") else SCALAR
            for place in places:
                for how in ("main", "attached", "main untrusted"):
                    yield name, kind, place, how
        con = sqlite3.connect(self.folder / "good.db")
        for t, in con.execute("SELECT name FROM sqlite_schema WHERE type ="
                              " 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
                              " AND name NOT GLOB 'sqlite_*'").fetchall():
            for column in con.execute("SELECT name FROM pragma_table_info(?)",
                                      (t,)).fetchall():
                for what in ("sql", "url", "trigger"):
                    yield f"{t}.{column[0]}", "text", what, "main"
        con.close()

    def attack(self, path, name, kind, place):
        con = sqlite3.connect(path, isolation_level=None)
        try:
            if kind == "text":
                table, column = name.split(".")
                for t, in con.execute("SELECT name FROM sqlite_schema WHERE"
                                      " type='trigger' AND tbl_name = ?",
                                      (table,)).fetchall():
                    if place == "trigger":  # left in, to see them run
                        break
                    con.execute(f'DROP TRIGGER "{t}"')
                text = self.url if place == "url" else \
                    f"SELECT {self.call('sync_push')}"
                con.execute(f'UPDATE OR IGNORE "{table}" SET "{column}" = ?',
                            (text,))
                return True
            con.execute("CREATE TABLE t(a)")
            con.execute("INSERT INTO t VALUES(1)")
            con.create_function(name, -1, lambda *_: 1, deterministic=True)
            call = self.call(name)
            vtab = f"{name}({self.url})".replace("'", "''")
            places = TABLE if kind in ("table", "module") else SCALAR
            for sql in places[place]:
                con.execute(sql.format(call=call, name=name, vtab=vtab))
            if "CREATE TABLE c" in places[place][0]:
                con.execute("INSERT INTO c(a) VALUES(1)")
            return True
        except sqlite3.Error:
            return False  # such a file cannot be made (aggregates)
        finally:
            con.close()

    def allowed(self, line):
        what, _, path = line.partition(" ")
        if what in ("socket", "connect", "lookup", "spawn"):
            return False
        inside = path.removeprefix(str(self.folder) + "/")
        return re.fullmatch(r"(hostile|victim|copy)\.db(-journal|-wal|-shm|"
                            r"-mj[0-9A-F]+)?|tmp/(etilqs_|\.choir-tmp-|"
                            r"#|[^/]*$).*|tmp|\.", inside) is not None \
            or path in ("/dev/null", "/dev/urandom")

    def use(self, d, use, statements, schema):
        def attempt(work):
            try:
                work()
            except Exception as e:  # refused is what is wanted
                if isinstance(e, (AssertionError, MemoryError)):
                    raise
        for sql in statements:
            attempt(lambda: d.rows(sql.replace("{s}", schema)))
        if use == "dump":
            attempt(lambda: list(d.con.iterdump()))
        if use == "backup":
            def copy():
                to = sqlite3.connect(self.folder / "copy.db")
                try:
                    d.con.backup(to, name=schema)
                finally:
                    to.close()
            attempt(copy)

    def case(self, name, kind, place, how):
        path = self.folder / "hostile.db"
        for p in self.folder.glob("*.db*"):
            if p.name != "good.db":
                p.unlink()
        if kind == "text":
            shutil.copy(self.folder / "good.db", path)
        if not self.attack(path, name, kind, place):
            return
        schema = "foreign_file" if how == "attached" else "main"
        shim = faults.shim
        for use, statements in (INSIDE if kind == "text" else USES).items():
            self.count += 1
            if how == "attached":
                shutil.copy(self.folder / "good.db", self.folder / "victim.db")
            d = Db(self.folder / ("victim.db" if how == "attached"
                                  else "hostile.db"))
            shim.shim_watch(1)
            try:
                d.rows(f"PRAGMA trusted_schema = {how != 'main untrusted':d}")
                if how == "attached":
                    d.rows(f"ATTACH '{path}' AS foreign_file")
                self.use(d, use, statements, schema)
            except sqlite3.Error:
                pass
            d.close()
            seen = shim.shim_seen().decode(errors="replace").splitlines()
            shim.shim_watch(0)
            bad = [x for x in seen if not self.allowed(x)]
            if bad:
                self.violations.append(
                    {"replay": f"{name};{place};{how}",
                     "what": f"{use}: {sorted(set(bad))[:5]}"})

    def run(self, chosen=None):
        cases = list(self.cases())
        if chosen:
            cases = [c for c in cases if chosen == ";".join(
                (c[0], c[2], c[3]))]
        elif self.every > 1:
            cases = self.rnd.sample(cases, len(cases) // self.every)
        for c in cases:
            self.case(*c)
        self.server.setblocking(False)
        try:
            self.server.accept()
            self.violations.append({"replay": "", "what": "a connection came"})
        except BlockingIOError:
            pass
        return {"count": self.count, "violations": self.violations}


def works(folder):
    """The shim sees what there is to see: the same calls made by hand."""
    h = Hostile(folder / "self", 1, 1)
    d = Db(h.folder / "hand.db", init=True)
    faults.shim.shim_watch(1)
    for sql in (h.call("artifact_export"), h.call("jsonrpc"),
                h.call("nats_ping"), h.call("choir_backup")):
        try:
            d.rows(f"SELECT {sql}")
        except sqlite3.Error:
            pass
    d.close()
    seen = faults.shim.shim_seen().decode()
    faults.shim.shim_watch(0)
    for what in "mkdir", "connect", "link":
        assert what in seen, (what, seen)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay")
    args = parser.parse_args()
    faults.preload()
    args.dir = args.dir.resolve()
    works(args.dir)
    print(json.dumps(Hostile(args.dir / "h", args.every, args.seed).run(
        args.replay)))


if __name__ == "__main__":
    main()
