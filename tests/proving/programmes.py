# SPDX-License-Identifier: MIT
"""What the fault sweep runs: each function prepares a folder and returns

    steps      the calls: (sql, parameters…); the sweep goes on at the first
               one whose effect is missing
    file       the database that acts (a.db)
    settle     what a connection is told before it acts
    parts      name -> function: what else is before or after, never between
    ignore     tables that say how often something ran
    between    columns that one call sets row by row, as it says it does
    told       whether the rows of a call say that it left something out
    answers    queries whose rows after the last call are those of a clean run
    sweep      calls that clear away what a killed call may leave
    may_leave  names (# for chance) that may stay
"""
import hashlib
import json
import os
import pathlib
import re
import sqlite3
import struct

from conftest import Db

BOTH, WAL = ("WAL", "DELETE"), ("WAL",)
ALL = []


def programme(modes=BOTH):
    def keep(make):
        make.modes = modes
        ALL.append(make)
        return make
    return keep


def workspace(folder, mode, name="a.db"):
    d = Db(folder / name, init=True)
    d.rows(f"PRAGMA journal_mode={mode}")
    return d


def tree(folder):
    """The files below folder with the hash of each; what chance may name not."""
    def look():
        return {str(p.relative_to(folder)): hashlib.sha256(
            p.read_bytes()).hexdigest()[:16]
            for p in sorted(folder.rglob("*")) if p.is_file()
            and not p.name.startswith(".")}
    return look


# ------------------------------------------------------------------- workspace

@programme()
def init(folder, mode):
    d = Db(folder / "a.db")
    d.rows(f"PRAGMA journal_mode={mode}")
    d.run("CREATE TABLE mine(x); INSERT INTO mine VALUES(1), (2)")
    d.close()
    return {"steps": [("SELECT choir_init()",),
                      ("SELECT setting_set('theme', 'dark')",)],
            "answers": ["SELECT setting_get('theme')"]}


@programme(WAL)
def init_of_nothing(folder, mode):
    return {"steps": [("SELECT choir_init()",)]}


@programme(WAL)
def uninstall(folder, mode):
    d = workspace(folder, mode)
    d.run("CREATE TABLE mine(x); INSERT INTO mine VALUES(1)")
    d.one("SELECT artifact_put('/a.md', 'text')")
    d.close()
    return {"steps": [("SELECT choir_uninstall()",), ("SELECT choir_init()",)]}


@programme()
def imports(folder, mode):
    workspace(folder, mode).close()
    tree_in = folder / "in/sub"
    tree_in.mkdir(parents=True)
    for i in range(12):
        (tree_in / f"{i}.md").write_text(f"note {i} " * (40 * i + 1))
    (folder / "in/large.bin").write_bytes(bytes(range(256)) * 300)
    nola = sqlite3.connect(folder / "nola.db")
    nola.executescript(
        "CREATE TABLE state_storage(key_name, value_json);"
        "INSERT INTO state_storage VALUES('a', '1'), ('b', '{\"c\":2}')")
    nola.close()
    return {"steps": [("SELECT artifact_import(?, '/docs')",
                       str(folder / "in")),
                      ("SELECT choir_import(?)", str(folder / "nola.db")),
                      ("SELECT state_import('{\"x\":{\"y\":[1,2]}}')",)],
            "answers": ["SELECT path FROM artifact_ls('/docs', 1)"],
            "told": lambda rows: re.search(r'"skipped":{[^}]*:[1-9]',
                                            str(rows))}


# ------------------------------------------------------------------------- log

@programme()
def tracked(folder, mode):
    d = workspace(folder, mode)
    d.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b);"
          "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)"
          " INSERT INTO t SELECT i, i, hex(zeroblob(300)) FROM n")
    d.close()
    return {"steps": [
        ("SELECT log_track('t')",),
        ("INSERT INTO t VALUES(100, 100, 'new')",),
        ("UPDATE t SET b = a * 2 WHERE id % 3 = 0",),
        ("UPDATE OR REPLACE t SET a = 1 WHERE id = 7",),
        ("DELETE FROM t WHERE id BETWEEN 10 AND 15",),
        ("SELECT log_untrack('t')",),
        ("SELECT log_track('t', '{\"labels\":[\"b\"]}')",),
        ("SELECT log_seal()",)],
        "answers": ["SELECT json_extract(log_verify(), '$.ok')",
                    "SELECT count(*) FROM log_changes"]}


@programme()
def undo(folder, mode):
    d = workspace(folder, mode)
    d.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b);"
          "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)"
          " INSERT INTO t SELECT i, i, hex(zeroblob(200)) FROM n")
    d.one("SELECT log_track('t')")
    d.run("UPDATE t SET b = 'one';"
          "DELETE FROM t WHERE id > 40;"
          "INSERT INTO t VALUES(200, 200, x'00ff')")
    d.close()
    return {"steps": [("SELECT log_undo()",),
                      ("SELECT log_undo(0, 'since')",),
                      ("SELECT log_prune(99999999999999, 'all')",)],
            "again": False}


@programme()
def events(folder, mode):
    d = workspace(folder, mode)
    d.one("SELECT event_define('v1.P', '{\"id\":\"text\"}', 'INSERT INTO"
          " personas(id, name, created_at, updated_at) VALUES("
          "NEW.payload->>''$.id'', ''n'', 1, 1)')")
    for i in range(25):
        d.one("SELECT event_emit('v1.P', ?)", json.dumps({"id": f"p{i}"}))
    d.run("UPDATE personas SET name = 'wrong' WHERE id = 'p3';"
          "DELETE FROM personas WHERE id = 'p4'")
    d.close()
    return {"steps": [("SELECT event_replay()",),
                      ("SELECT event_emit('v1.P', '{\"id\":\"last\"}')",),
                      ("SELECT event_compact()",)], "again": False}


@programme(WAL)
def agents(folder, mode):
    d = workspace(folder, mode)
    d.run("INSERT INTO agent_tasks(id, task_type, input) VALUES('a', 't', '{}');"
          "INSERT INTO conversation_history(id, title) VALUES('talk', 'Talk')")
    d.close()
    return {"steps": [
        ("SELECT state_set('k', '$.a.b', 'text')",),
        ("SELECT state_checkpoint('one')",),
        ("SELECT state_set('k', '$.a', 2)",),
        ("SELECT state_restore('one')",),
        ("SELECT task_claim('t')",),
        ("SELECT task_done('a', 1)",),
        ("SELECT message_add('talk', 'user', 'hello')",),
        ("SELECT conversation_delete('talk')",),
        ("SELECT cache_set('k', 'v', NULL)",),
        ("SELECT artifact_put('/a.md', 'text')",),
        ("SELECT artifact_move('/a.md', '/b.md')",),
        ("SELECT artifact_delete('/b.md')",),
        ("SELECT artifact_purge()",)], "again": False}


# ---------------------------------------------------------------------- search

@programme()
def text_index(folder, mode):
    d = workspace(folder, mode)
    for i in range(20):
        d.one("SELECT artifact_put(?, ?)", f"/{i}.md",
              f"# Note {i}\n\nwords about tea and licence {i} " * 8)
    d.close()
    return {"steps": [("SELECT choir_index()",),
                      ("SELECT artifact_put('/5.md', 'gamma rays')",),
                      ("SELECT artifact_delete('/6.md')",),
                      ("SELECT choir_index()",),
                      ("SELECT choir_index('rebuild')",)],
            "answers": ["SELECT path FROM choir_search('gamma', 3)",
                        "SELECT count(*) FROM choir_search('tea licence', 50)"]}


def vectors(d, first, last):
    d.rows("BEGIN")
    for i in range(first, last):
        d.rows("INSERT INTO v VALUES(?, ?)", i, struct.pack(
            "<8f", *((i * k) % 37 + 1.0 for k in range(3, 11))))
    d.rows("COMMIT")


NEAR = ("SELECT rowid, round(distance, 4) FROM"
        " vec_search('near', (SELECT e FROM v WHERE id = 9), 5)")


@programme()
def vector_index(folder, mode):
    d = workspace(folder, mode)
    d.run("CREATE TABLE v(id INTEGER PRIMARY KEY, e BLOB)")
    vectors(d, 1, 700)
    d.close()
    return {"steps": [
        ("SELECT vec_index_create('near', 'v', 'e',"
         " '{\"mode\":\"lists\",\"metric\":\"l2\"}')",),
        ("DELETE FROM v WHERE id % 7 = 0",),
        ("UPDATE v SET e = (SELECT e FROM v WHERE id = 9) WHERE id < 4",),
        ("SELECT choir_index()",),
        ("SELECT vec_index_optimize('near')",)],
        "answers": [NEAR + " WHERE exact = 1"]}


@programme(WAL)
def vector_split(folder, mode):
    """Half as many rows again go to lists that are full: they split."""
    d = workspace(folder, mode)
    d.run("CREATE TABLE v(id INTEGER PRIMARY KEY, e BLOB)")
    vectors(d, 1, 1000)
    d.one("SELECT vec_index_create('near', 'v', 'e', '{\"mode\":\"lists\"}')")
    vectors(d, 1000, 2600)
    d.close()
    return {"steps": [("SELECT choir_index()",),
                      ("SELECT vec_index_drop('near')",)],
            "again": False}


# --------------------------------------------------------------------- objects

@programme(WAL)
def artifact_store(folder, mode):
    d = workspace(folder, mode)
    (folder / "store").mkdir()
    big = bytes(range(256)) * 4200
    for n in "one", "two":
        d.rows("SELECT artifact_put(?, ?)", f"/{n}", n.encode() + big)
    d.close()

    def held():
        """Every artifact's content is here, or named and there."""
        con = sqlite3.connect(folder / "a.db")
        rows = con.execute("SELECT path, content, s3_key, hash FROM artifacts"
                           " WHERE deleted_at IS NULL ORDER BY 1").fetchall()
        con.close()
        out = []
        for path, blob, key, digest in rows:
            if blob is None:
                found = [p for p in (folder / "store").rglob("*")
                         if p.is_file() and not p.name.startswith(".")
                         and hashlib.sha256(p.read_bytes()).hexdigest()
                         == digest]
                out.append((path, bool(found and key)))
            else:
                out.append((path, hashlib.sha256(blob).hexdigest() == digest))
        return {"whole": all(ok for _, ok in out)}
    return {"settle": ["SELECT choir_config('user', 'u1')",
                       "SELECT choir_config('remote.artifacts',"
                       f" 'file://{folder}/store')"],
            # One after the other moves; `content` says that none is lost.
            "between": {("artifacts", "content"), ("artifacts", "s3_key")},
            "steps": [("SELECT artifact_flush()",),
                      ("SELECT artifact_put('/one', zeroblob(1100000))",),
                      ("SELECT artifact_flush()",),
                      ("SELECT length(artifact_fetch('/two'))",),
                      ("SELECT artifact_delete('/two')",),
                      ("SELECT artifact_sweep(0)",)],
            "parts": {"content": held},
            "sweep": ["SELECT artifact_sweep(0)"],
            "answers": ["SELECT length(artifact_fetch('/one'))"]}


@programme(WAL)
def object_files(folder, mode):
    workspace(folder, mode).close()
    (folder / "store/a").mkdir(parents=True)
    url = f"file://{folder}/store/"
    (folder / "in.txt").write_text("in " * 3000)

    return {"steps": [
        ("SELECT s3_put(?, ?)", url + "a/b", b"first" * 2000),
        ("SELECT s3_put(?, ?)", url + "a/b", b"second" * 3000),
        ("SELECT s3_put_file(?, ?)", url + "c", str(folder / "in.txt")),
        ("SELECT s3_copy(?, ?)", url + "c", url + "d"),
        ("SELECT s3_get_file(?, ?)", url + "d", str(folder / "out.txt")),
        ("SELECT s3_delete(?)", url + "c")],
        "parts": {"store": tree(folder / "store"),
                  "out": lambda: (folder / "out.txt").exists() and
                  (folder / "out.txt").read_text()},
        "resume": "parts",
        "sweep": [f"SELECT s3_put('{url}z', 'z')", f"SELECT s3_delete('{url}z')",
                  f"SELECT s3_put('{url}a/z', 'z')",
                  f"SELECT s3_delete('{url}a/z')"]}


# --------------------------------------------------------------------- exports

@programme(WAL)
def exports(folder, mode):
    d = workspace(folder, mode)
    for i in range(6):
        d.one("SELECT artifact_put(?, ?)", f"/n/{i}.md", f"note {i}" * 900)
    d.one("SELECT state_set('mood', '$.a', 1)")
    d.close()

    def readable(name):
        def look():
            p = folder / name
            if not p.exists():
                return None
            con = sqlite3.connect(p)
            try:
                assert con.execute("PRAGMA integrity_check").fetchone() == (
                    "ok",), name
                return con.execute("SELECT count(*) FROM sqlite_schema"
                                   ).fetchone()[0] > 0 or None
            finally:
                con.close()
        return look

    return {"steps": [
        ("SELECT choir_backup(?)", str(folder / "backup.db")),
        ("SELECT choir_export(?)", str(folder / "agent.db")),
        ("SELECT artifact_export(?)", str(folder / "out")),
        ("SELECT state_export(?)", str(folder / "state"))],
        "parts": {"backup": readable("backup.db"),
                  "agent": readable("agent.db")},
        "resume": "parts"}


# ------------------------------------------------------------------------ sync

def put(d, *names_):
    for n in names_:
        d.rows("INSERT INTO artifacts(path, name, content) VALUES(?,?,?)",
               f"/{n}", n, n * 20000)


def paths(file):
    con = sqlite3.connect(file)
    try:
        assert con.execute("PRAGMA integrity_check").fetchone() == ("ok",), file
        if not con.execute("SELECT 1 FROM sqlite_schema WHERE"
                           " name='artifacts'").fetchone():
            return None
        return [r[0][1:] for r in con.execute(
            "SELECT path FROM artifacts ORDER BY 1")]
    finally:
        con.close()


KEY = ("SELECT choir_secret('k', '{\"type\":\"sync\",\"scope\":\"file:///\","
       f"\"key\":\"{'5a' * 32}\"}}')")


class Remote:
    """A plain file, or a folder of page deltas, in clear or encrypted."""

    def __init__(self, folder, mode, kind):
        self.folder, self.mode, self.kind = folder, mode, kind
        self.url = f"file://{folder}/remote/" + (
            "ws.sqlite" if kind == "plain" else "")
        (folder / "remote").mkdir()

    def unlock(self, d):
        if self.kind == "crypt":
            d.rows(KEY)
        return d

    def pushed(self, d):
        d.one("SELECT sync_push(?)", self.url)

    def device(self):
        b = self.unlock(Db(self.folder / "b.db"))
        b.one("SELECT sync_pull(?)", self.url)
        b.rows(f"PRAGMA journal_mode={self.mode}")
        return b

    def what(self):
        """What a new device would get; all that is there is sealed."""
        remote = self.folder / "remote"
        if self.kind == "plain":
            if not (remote / "ws.sqlite").exists():
                return None
        elif not list(remote.rglob("*.ltx")):
            return None
        d = self.unlock(Db(":memory:"))
        try:
            d.one("SELECT sync_pull(?)", self.url)
            assert d.one("PRAGMA integrity_check") == "ok"
            report = json.loads(d.one("SELECT sync_verify(?)", self.url))
            assert report["ok"] == 1, report
            return [r[0][1:] for r in d.rows(
                "SELECT path FROM artifacts ORDER BY 1")]
        finally:
            d.close()

    def subject(self, call, file="a.db", extra=()):
        """One call, whose push afterwards finds nothing to do."""
        return {"settle": [KEY] if self.kind == "crypt" else [],
                "file": file, "steps": [(f"SELECT {call}", self.url)],
                "ignore": ("sync_state", "action_log"),
                "parts": {"remote": self.what},
                "answers": ["SELECT json_extract(sync_push("
                            f"'{self.url}'), '$.pushed')"],
                "sweep": ["INSERT INTO artifacts(path, name, content)"
                          " VALUES('/z', 'z', 'z')",
                          f"SELECT sync_push('{self.url}')"],
                # Merged files, because a slow machine lets more become due.
                "may_leave": (".choir-lock", "remote/.choir-lock", *extra,
                              *(f"remote/ltx/{i}/#-#.ltx" for i in (1, 2, 3)))}


def remote_programmes(kind):
    def first_push(r, a):
        return r.subject("sync_push(?)")

    def next_push(r, a):
        r.pushed(a)
        put(a, "two")
        return r.subject("sync_push(?)")

    def first_pull(r, a):
        r.pushed(a)
        return r.subject("sync_pull(?)", "b.db")

    def next_pull(r, a):
        r.pushed(a)
        r.device().close()
        put(a, "two")
        r.pushed(a)
        return r.subject("sync_pull(?)", "b.db")

    def later_pull(r, a):
        # Killed after a pull: its WAL, with the mark of that pull, is there.
        r.pushed(a)
        b = r.device()
        put(a, "two")
        r.pushed(a)
        b.one("SELECT sync_pull(?)", r.url)
        left = {p: p.read_bytes() for p in r.folder.glob("b.db*")
                if not p.name.endswith("-shm")}
        b.close()
        for p, raw in left.items():
            p.write_bytes(raw)
        put(a, "three")
        r.pushed(a)
        return r.subject("sync_pull(?)", "b.db")

    def diverged(mode):
        def pull(r, a):
            r.pushed(a)
            b = r.device()
            put(b, "mine")
            b.close()
            put(a, "two")
            r.pushed(a)
            return r.subject(f"sync_pull(?, '{mode}')", "b.db")
        pull.__name__ = mode
        return pull

    def kept(r, a):
        # Four pushes and a snapshot a day ago; two pushes and one more since.
        for i in range(4):
            a.rows("UPDATE artifacts SET content=? WHERE path='/one'",
                   os.urandom(30000))
            r.pushed(a)
        a.one("SELECT sync_compact(?, 'snapshot')", r.url)
        for n in "two", "two":
            a.rows("INSERT OR IGNORE INTO artifacts(path, name, content)"
                   " VALUES(?, ?, 'x')", f"/{n}", n)
            a.rows("UPDATE artifacts SET content=? WHERE path='/one'",
                   os.urandom(9000))
            r.pushed(a)
        older(r)

    def older(r):
        for p in (r.folder / "remote").rglob("*.ltx"):
            os.utime(p, (p.stat().st_mtime - 90000,) * 2)

    def compact(r, a):
        kept(r, a)
        return r.subject("sync_compact(?)")

    def snapshot(r, a):
        kept(r, a)
        return r.subject("sync_compact(?, 'snapshot')")

    def prune(r, a):
        kept(r, a)
        a.one("SELECT sync_compact(?, 'snapshot')", r.url)
        older(r)
        return r.subject("sync_prune(2, ?)")

    def restore(r, a):
        kept(r, a)
        out = r.folder / "restored.db"
        subject = r.subject("1")
        subject["steps"] = [(f"SELECT sync_restore(2, '{out}', ?)", r.url)]
        subject["parts"]["restored"] = lambda: out.exists() and paths(out)
        subject["resume"], subject["again"] = "parts", False
        # What a kill left of a file is removed by the next one written there.
        subject["sweep"] = [f"SELECT sync_restore(2, '{out}2', '{r.url}')"]
        subject["may_leave"] = (*subject["may_leave"], f"{out.name}2")
        return subject

    every = [(first_push, BOTH), (next_push, BOTH), (first_pull, BOTH),
             (next_pull, BOTH), (diverged("theirs"), BOTH)]
    if kind != "plain":
        every += [(later_pull, WAL), (diverged("merge"), BOTH), (compact, WAL),
                  (snapshot, WAL), (prune, WAL), (restore, WAL)]
    for steps, modes in every:
        def make(folder, mode, steps=steps):
            r = Remote(folder, mode, kind)
            a = r.unlock(workspace(folder, mode))
            put(a, "one")
            subject = steps(r, a)
            a.close()
            return subject
        make.__name__ = f"sync_{kind}_{steps.__name__}"
        programme(modes)(make)


remote_programmes("plain")
remote_programmes("folder")
remote_programmes("crypt")
