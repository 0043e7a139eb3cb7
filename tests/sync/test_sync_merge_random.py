# SPDX-License-Identifier: MIT
"""Random schedules of edits, pushes and merges on two or three devices.

The model below is the rule of docs/recipes.md, "Two devices, one workspace", in a
few lines of Python. At every merge the three versions that went in are known, so
every cell that comes out is compared with what the rule says; every record of the
log that either side had must be there, the remote's first; and in the end all
devices agree. CHOIR_SYNC_FULL=1 runs 1,000 schedules."""
import json
import os
import random
import struct

import pytest

FULL = os.environ.get("CHOIR_SYNC_FULL") == "1"
SCHEDULES = int(os.environ.get("CHOIR_SYNC_MERGES", "1000" if FULL else "6"))
SEED = int(os.environ.get("CHOIR_SYNC_SEED", "0"))
STEPS = 12

SCHEMA = """
CREATE TABLE t(id TEXT PRIMARY KEY, a, b, c);
CREATE TABLE w(k TEXT, n INTEGER, v, PRIMARY KEY(k, n)) WITHOUT ROWID;
CREATE TABLE num(id INTEGER PRIMARY KEY, v, x REAL);
CREATE TABLE kid(id TEXT PRIMARY KEY, num REFERENCES num(id), v);
CREATE TABLE bag(a, b);
CREATE TABLE u(id TEXT PRIMARY KEY, u UNIQUE);
CREATE TABLE fired(what);
CREATE TRIGGER fire AFTER INSERT ON t BEGIN INSERT INTO fired VALUES(NEW.id); END;
CREATE TABLE vec(id INTEGER PRIMARY KEY, e BLOB);
INSERT INTO vec SELECT value, vec_f32('[' || value || ',1,0,0]') FROM
  json_each('[1,2,3,4,5,6]');
SELECT vec_index_create('i', 'vec', 'e', '{"metric":"l2"}');
SELECT log_track('t');
SELECT log_track('num');
"""
KEYED = {  # key columns, value columns
    "t": ("id", "a,b,c"), "w": ("k,n", "v"), "kid": ("id", "num,v"),
    "u": ("id", "u"), "num": ("id", "v,x"), "vec": ("id", "e"),
    "user_settings": ("setting_name", "setting_value"),
    "conversation_history": ("id", "title"),
    "messages": ("id", "conversation_id,content")}
BAGS = {"bag": "a,b", "fired": "what"}
MOVES = {"num": [("kid", 0)], "vec": []}  # which column of whom refers to it
REFERS = {"kid": (0, "num"), "messages": (0, "conversation_history")}


def exact(v):
    """Equal only when type and bits are."""
    return (type(v).__name__, struct.pack("<d", v) if type(v) is float else v)


def read(db):
    out = {"log": db.rows("SELECT id, action_type FROM action_log ORDER BY seq")}
    for t, (k, v) in KEYED.items():
        n = k.count(",") + 1
        out[t] = {tuple(map(exact, r[:n])): tuple(map(exact, r[n:]))
                  for r in db.rows(f"SELECT {k},{v} FROM {t}")}
    for t, v in BAGS.items():
        out[t] = sorted(tuple(map(exact, r))
                        for r in db.rows(f"SELECT {v} FROM {t}"))
    return out


# ---------------------------------------------------------------- the model

def move(base, here, there, t):
    """Rows that both inserted under one number: here's get free ones."""
    taken = [k for k in sorted(here[t]) if k not in base[t] and k in there[t]
             and here[t][k] != there[t][k]]
    top = max([k[0][1] for d in (base, here, there) for k in d[t]] + [0])
    new = {k: (exact(top + 1 + i),) for i, k in enumerate(taken)}
    here[t] = {new.get(k, k): v for k, v in here[t].items()}
    for child, i in MOVES[t]:
        for k, row in here[child].items():
            if (row[i],) in new:
                here[child][k] = row[:i] + new[row[i],] + row[i + 1:]


def three(b, h, t):
    """One table, by key: rows of base, here, there."""
    out = dict(t)
    for k, row in h.items():
        if b.get(k) == row:
            continue
        if k not in t:
            out[k] = row  # new here, or changed here and deleted there
        else:
            was = b.get(k)
            out[k] = tuple(y if was is None or y != was[i] else x
                           for i, (x, y) in enumerate(zip(row, t[k])))
    for k, row in b.items():
        if k not in h and t.get(k) == row:
            del out[k]
    return out


def bag(b, h, t):
    out = list(t)
    for row in set(b) | set(h):
        n = h.count(row) - b.count(row)
        for _ in range(-n):
            if row in out:
                out.remove(row)
        out += [row] * max(n, 0)
    return sorted(out)


def orphans(content, child):
    """The keys that rows refer to and that are not there. (An undo makes some:
    nobody enforces foreign keys here.)"""
    i, parent = REFERS[child]
    keys = [(row[i],) for row in content[child].values()]
    return {k for k in keys if k[0] != exact(None) and k not in content[parent]}


def merged(base, here, there):
    here = {t: dict(v) if isinstance(v, dict) else v for t, v in here.items()}
    for t in MOVES:
        move(base, here, there, t)
    out = {t: three(base[t], here[t], there[t]) for t in KEYED}
    out.update({t: bag(base[t], here[t], there[t]) for t in BAGS})
    for child, (i, parent) in REFERS.items():  # who is referred to comes back
        for k in (orphans(out, child) - orphans(there, child)
                  - orphans(here, child)):
            out[parent][k] = here[parent].get(k) or base[parent][k]
    return out


# ------------------------------------------------------------------ devices

VALUES = [None, 0, 1, -1, 2 ** 62, 0.5, 0.1 + 0.2, -0.0, 1.0, 9e999, "", "text",
          "ünï", b"", b"\0\xff", "0"]


class Device:
    def __init__(self, db, name, rng):
        self.db, self.name, self.rng, self.n = db, name, rng, 0
        self.base = None  # the content of the version it stands on

    def fresh(self):
        self.n += 1
        return f"{self.name}{self.n}"

    def any(self, sql, default=None):
        rows = self.db.rows(sql)
        return self.rng.choice(rows)[0] if rows else default

    def do(self, sql, *params):
        try:
            self.db.rows(sql, *params)
        except self.db.failure as e:
            assert "constraint" in str(e) or "has changed again" in str(e) or (
                "nothing to undo" in str(e)), str(e)

    def edit(self):
        r, v = self.rng, self.rng.choice(VALUES)
        key = self.any("SELECT id FROM t", "k")
        kinds = {
            "insert": ("INSERT INTO t VALUES(?, ?, 1, 2)", self.fresh(), v),
            "shared": ("INSERT OR REPLACE INTO t VALUES(?, ?, ?, 2)",
                       f"s{r.randrange(4)}", v, r.choice(VALUES)),
            "update": (f"UPDATE t SET {r.choice('abc')}=? WHERE id=?", v, key),
            "delete": ("DELETE FROM t WHERE id=?", key),
            "rekey": ("UPDATE t SET id=? WHERE id=?", self.fresh(), key),
            "upsert": ("INSERT INTO w VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET"
                       " v=excluded.v", r.choice("xyz"), r.randrange(3), v),
            "wdelete": ("DELETE FROM w WHERE n=?", r.randrange(3)),
            "num": ("INSERT INTO num(v, x) VALUES(?, ?)", v, r.choice([1, 2.5])),
            "numup": ("UPDATE num SET v=? WHERE id=?", v,
                      self.any("SELECT id FROM num", 0)),
            "kid": ("INSERT INTO kid VALUES(?, ?, ?)", self.fresh(),
                    self.any("SELECT id FROM num ORDER BY id DESC LIMIT 2"), v),
            "bag": ("INSERT INTO bag VALUES(?, ?)", v, r.randrange(2)),
            "unbag": ("DELETE FROM bag WHERE rowid=?",
                      self.any("SELECT rowid FROM bag", 0)),
            "bagup": ("UPDATE bag SET b=b + 1 WHERE rowid=?",
                      self.any("SELECT rowid FROM bag", 0)),
            "u": ("INSERT INTO u VALUES(?, ?)", self.fresh(), r.randrange(40)),
            "vec": ("INSERT INTO vec(e) VALUES(vec_f32(?))",
                    f"[{r.randrange(1000)},{r.random()},1,0]"),
            "vecup": ("UPDATE vec SET e=vec_f32(?) WHERE id=?",
                      f"[{r.randrange(1000)},{r.random()},2,0]",
                      self.any("SELECT id FROM vec", 0)),
            "absorb": ("SELECT vec_index_optimize('i')",),
            "setting": ("SELECT setting_set(?, ?)", f"s{r.randrange(3)}",
                        self.fresh()),
            "talk": ("SELECT conversation_create(?)", self.fresh()),
            "say": ("SELECT message_add(?, 'user', ?)", self.any(
                "SELECT id FROM conversation_history", "none"), self.fresh()),
            "hush": ("SELECT conversation_delete(?)", self.any(
                "SELECT id FROM conversation_history", "none")),
            "file": ("SELECT artifact_put(?, ?)", f"/{self.fresh()}.txt",
                     f"word{self.name}{self.n}"),
            "index": ("SELECT choir_index()",),
            "seal": ("SELECT log_seal()",),
            "record": ("SELECT log_record('NOTE', '{}')",),
            "undo": ("SELECT log_undo(?)", self.any(
                "SELECT seq FROM action_log WHERE tbl IN ('t', 'num') ORDER BY seq"
                " DESC LIMIT 3", 0)),
            "vacuum": ("VACUUM",),
        }
        weights = [1 if k in ("vacuum", "absorb", "index", "seal") else 4
                   for k in kinds]
        kind = r.choices(list(kinds), weights)[0]
        if kind == "say" and not self.db.rows(
                "SELECT 1 FROM conversation_history"):
            kind = "talk"
        if kind == "undo" and not self.db.rows(
                "SELECT 1 FROM action_log WHERE tbl IN ('t', 'num')"):
            kind = "record"
        self.do(*kinds[kind])
        return kind

    def call(self, sql, *params):
        try:
            return json.loads(self.db.one(sql, *params)), None
        except self.db.failure as e:
            return None, str(e)


class Run:
    def __init__(self, seed, folder, open_db):
        rng = self.rng = random.Random(seed)
        self.seed, self.versions, self.note = seed, [], f"seed {seed}"
        self.nMerge = self.nRefused = 0
        (folder / "remote").mkdir()
        self.url = f"file://{folder}/remote/"
        first = open_db(folder / "a.db", init=True)
        first.run(f"PRAGMA journal_mode={rng.choice(['WAL', 'DELETE'])};" + SCHEMA)
        names = "abc"[:rng.choice([2, 2, 3]) if FULL else 2]
        self.devices = [Device(first, "a", rng)] + [
            Device(open_db(folder / f"{n}.db"), n, rng) for n in names[1:]]
        for _ in range(6):
            self.devices[0].edit()
        self.push(self.devices[0])
        for d in self.devices[1:]:
            assert self.merge(d) == "pulled"


    def push(self, d):
        told, error = d.call("SELECT sync_push(?)", self.url)
        if error:
            assert "the remote has moved" in error and "'merge'" in error, error
            assert d.base is not self.versions[-1], self.note
        elif told["pushed"]:
            d.base = read(d.db)
            self.versions.append(d.base)
        return error

    def merge(self, d):
        base, here, there = d.base, read(d.db) if d.base else None, (
            self.versions[-1])
        told, error = d.call("SELECT sync_pull(?, 'merge')", self.url)
        if error:
            want = merged(base, here, there)["u"]
            values = [v for v in want.values() if v != (exact(None),)]
            assert len(values) > len(set(values)), (self.note, error)
            assert "UNIQUE constraint failed: u.u" in error, (self.note, error)
            assert read(d.db) == here, self.note
            for (k,) in [k for k in here["u"] if k not in base["u"]]:
                d.db.rows("DELETE FROM u WHERE id=?", k[1])
            self.nRefused += 1
            return "refused"
        if not told["pulled"]:
            return "nothing"
        d.base = there
        now = read(d.db)
        if "merged" not in told:
            assert now == there, self.note
            return "pulled"
        want = merged(base, here, there)
        for t in want:
            assert now[t] == want[t], (self.note, t)
        self.log(here, there, now)
        self.sound(d)
        self.nMerge += 1
        return "merged"

    def log(self, here, there, now):
        ids = [r[0] for r in now["log"]]
        theirs = [r[0] for r in there["log"]]
        known = set(theirs)
        mine = [r[0] for r in here["log"] if r[0] not in known]
        rest = ids[len(theirs):]
        assert ids[:len(theirs)] == theirs, self.note
        assert now["log"][len(theirs)][1] == "SYNC_MERGE", self.note
        assert rest[1:1 + len(mine)] == mine, self.note
        assert {r[1] for r in now["log"][len(theirs) + 1 + len(mine):]} <= {
            "SYNC_CONFLICT"}, self.note

    def sound(self, d):
        assert d.db.one("PRAGMA integrity_check") == "ok", self.note
        assert d.db.one("SELECT choir_check()") == '{"ok":1,"problems":[]}', (
            self.note)
        assert json.loads(d.db.one("SELECT log_verify()"))["ok"] == 1, self.note

    def found(self, d):
        for i, e in d.db.rows("SELECT id, e FROM vec"):
            near = {r[0] for r in d.db.rows(
                "SELECT rowid FROM vec_search('i', ?, 1)", e)}
            alike = {r[0] for r in d.db.rows("SELECT id FROM vec WHERE e=?", e)}
            assert near <= alike and near, (self.note, i)
        for (path,) in d.db.rows("SELECT path FROM artifacts"):
            word = "word" + path[1:].split(".")[0]
            assert d.db.one("SELECT path FROM choir_search(?, 1)", word) == path, (
                self.note, word)

    def go(self):
        for step in range(STEPS):
            d = self.rng.choice(self.devices)
            self.note = f"seed {self.seed} step {step} device {d.name}"
            what = self.rng.choice(["edit", "edit", "edit", "push", "merge"])
            if what == "edit":
                for _ in range(self.rng.randrange(1, 5)):
                    d.edit()
            elif what == "push":
                self.push(d)
            else:
                self.merge(d)
        self.note = f"seed {self.seed} at the end"
        for d in self.devices:
            while self.merge(d) == "refused":
                pass
            assert self.push(d) is None
        for d in self.devices:
            assert self.merge(d) in ("pulled", "nothing")
            assert read(d.db) == self.versions[-1], self.note
            self.sound(d)
        self.found(self.rng.choice(self.devices))


@pytest.mark.once
@pytest.mark.parametrize("part", range(2))
def test_after_any_schedule_of_merges_every_cell_is_what_the_rule_says(part,
                                                                       tmp_path):
    from conftest import connections
    n = refused = 0
    for seed in range(SEED + part, SEED + SCHEDULES, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with connections() as open_db:
            run = Run(seed, folder, open_db)
            run.go()
        n += run.nMerge
        refused += run.nRefused
    print(f"{n} merges, {refused} refused")
    assert n > 0
