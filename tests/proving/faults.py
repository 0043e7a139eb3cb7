# SPDX-License-Identifier: MIT
"""K: a fault at every system call of every programme.

    faults.py DIR [--only NAME]… [--points N] [--seed S] [--worker I/N]
              [--mode WAL]
    faults.py DIR --replay 'programme;mode;fault;call;seed'

A programme (programmes.py) is a prepared folder and some calls. For every kind
of fault and every call of the system that a clean run makes (or N of them a
kind, chosen by the seed): a child process runs the programme until it is
killed, or until a call fails; then the parent looks at what is left:

  - plain SQLite opens the file and finds it whole, choir_check() too;
  - its rows, and everything else that the programme names, are what a clean run
    has before or after the call that was hit: nothing acknowledged is lost;
  - the programme goes on from there, without help, to the same end;
  - nothing is left that a clean run does not leave.

Which columns hold chance or time is found by two clean runs: what differs is
not compared. Runs under LD_PRELOAD=shim.so; prints one line of JSON.
"""
import argparse
import ctypes
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from conftest import SO, Db  # noqa: E402

FAULTS = {  # name -> (mode of the shim, the mode that counts its calls)
    "kill": (2, 1), "half write": (3, 1), "disk full": (4, 1),
    "I/O error": (5, 1), "interrupted": (6, 12), "read error": (8, 7),
    "short read": (9, 7), "lost writes": (10, 1), "torn writes": (11, 1)}
DEADLY = ("kill", "half write", "lost writes", "torn writes")
POWER = ("lost writes", "torn writes")
shim = None  # the library, when it is preloaded


def preload():
    """The shim of this process, which must have been started with it."""
    global shim
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    shim.shim_seen.restype = ctypes.c_char_p
    shim.kept = ctypes.CDLL(SO)  # stays mapped from one connection to the next
    return shim


def build_shim(folder):
    out = pathlib.Path(folder) / "shim.so"
    subprocess.run(["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared",
                    "-fPIC", "-o", out, HERE / "shim.c", "-ldl"], check=True)
    return out


def scratch(where=None):
    """A folder in memory, where the system has one: fsync costs nothing. What
    runs that were killed have left beside it goes."""
    where = where or ("/dev/shm" if os.access("/dev/shm", os.W_OK)
                      else tempfile.gettempdir())
    for old in pathlib.Path(where).glob("choir-proving-*"):
        try:
            os.kill(int(old.name.split("-")[2]), 0)
        except ProcessLookupError:
            remove(old)
        except (ValueError, PermissionError):
            pass  # not of this kind, or somebody else's
    return pathlib.Path(tempfile.mkdtemp(prefix=f"choir-proving-{os.getpid()}-",
                                         dir=where))


def remove(folder):
    """Also what a programme has locked."""
    subprocess.run(["chmod", "-R", "u+rwx", folder], stderr=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)


class Violation(Exception):
    pass


def need(condition, what, *rest):
    if not condition:
        raise Violation(" ".join([what, *map(repr, rest)]))


# ----------------------------------------------------------- what can be seen

def content(file, ignore=()):
    """{table: (columns, rows)} by plain SQLite, which must find it whole."""
    if not file.exists() or file.stat().st_size == 0:
        return {}
    con = sqlite3.connect(file, isolation_level=None)
    try:
        found = con.execute("PRAGMA integrity_check").fetchall()
        need(found == [("ok",)], "integrity_check", file.name, found[:3])
        out = {}
        for t, in con.execute(
                "SELECT name FROM sqlite_schema WHERE type='table' AND name"
                " NOT GLOB '_choir_*' AND name NOT GLOB 'sqlite_*'").fetchall():
            if t in ignore:
                continue
            cur = con.execute(f'SELECT * FROM "{t}"')
            out[t] = ([c[0] for c in cur.description], cur.fetchall())
        if con.execute("SELECT 1 FROM sqlite_schema WHERE name ="
                       " '_choir_vec'").fetchone():
            cur = con.execute("SELECT name FROM _choir_vec")
            out["_choir_vec"] = (["name"], cur.fetchall())
        rows = con.execute("SELECT name FROM sqlite_schema WHERE"
                           " type = 'trigger'").fetchall()
        out |= {"triggers": (["name"], rows)} if rows else {}
        version = con.execute("PRAGMA user_version").fetchall()
        if out or version != [(0,)]:  # an empty file may be there or not
            out["PRAGMA user_version"] = (["v"], version)
        return out
    finally:
        con.close()


def checked(file):
    """choir_check() of a workspace."""
    if not file.exists() or file.stat().st_size == 0:
        return
    d = Db(file)
    try:
        if d.rows("SELECT 1 FROM sqlite_schema WHERE name='_choir_meta'"):
            report = json.loads(d.one("SELECT choir_check()"))
            need(report["ok"] == 1, "choir_check", file.name, report)
    finally:
        d.close()


def short(value):
    """A value as a line can show it, still itself."""
    text = repr(value)
    if len(text) < 100:
        return text
    return text[:40] + "…" + hashlib.sha256(text.encode()).hexdigest()[:12]


def columns(state):
    """(table, column) -> its values, in an order of their own."""
    return {(t, c): sorted(repr(r[i]) for r in rows)
            for t, (names, rows) in state.items()
            for i, c in enumerate(names)}


def projected(state, stable):
    return {t: sorted(" ".join(short(v) for c, v in zip(names, row)
                               if (t, c) in stable) for row in rows)
            for t, (names, rows) in state.items()}


def names(folder):
    """The files there; what chance put into a name is one letter."""
    out = []
    for p in folder.rglob("*"):
        name = str(p.relative_to(folder))
        if p.is_file() and not re.search(r"-(wal|shm|journal)$", name):
            out.append(re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|"
                              r"\d{8}T\d{6}(\.\d+)?Z?|[0-9a-f]{8,}", "#", name))
    return set(out)


# ------------------------------------------------------------------ one subject

class Subject:
    """A programme in one journal mode, with what its clean runs showed."""

    def __init__(self, folder, make, mode):
        self.make, self.mode = make, mode
        self.name = make.__name__
        self.base, self.work = folder / "base", folder / "work"
        self.main = "a.db"
        os.environ["HOME"] = str(self.work / "home")
        os.environ["TMPDIR"] = os.environ["SQLITE_TMPDIR"] = \
            str(self.work / "tmp")
        self.prepare()
        runs = [self.clean(), self.clean()]
        a, b = (r["main"] for r in runs)
        first = [columns(s) for s in a]
        second = [columns(s) for s in b]
        self.stable = {k for i in range(len(first)) for k in first[i]
                       if all(x.get(k) == y.get(k)
                              for x, y in zip(first, second))}
        self.stable -= self.programme.get("between", set())
        self.states = [projected(s, self.stable) for s in a]
        self.parts = runs[0]["parts"]
        same = {k for k in self.parts[-1]
                if all(x[k] == y[k] for x, y in
                       zip(runs[0]["parts"], runs[1]["parts"]))}
        self.parts = [{k: p[k] for k in same} for p in self.parts]
        need(self.parts[-1].keys() == runs[1]["parts"][-1].keys(),
             "a part differs between clean runs of", self.name,
             runs[0]["parts"], runs[1]["parts"])
        self.answers = runs[0]["answers"]
        need(self.answers == runs[1]["answers"], "answers of clean runs differ")
        self.files = runs[0]["files"] | runs[1]["files"]

    def prepare(self):
        shutil.rmtree(self.base, ignore_errors=True)
        self.fresh(copy=False)
        self.programme = self.make(self.work, self.mode)
        self.main = self.programme.get("file", "a.db")
        self.steps = self.programme["steps"]
        shutil.copytree(self.work, self.base, symlinks=True)

    def fresh(self, copy=True):
        for folder in (self.work, pathlib.Path(f"{self.work}.stash")):
            shutil.rmtree(folder, ignore_errors=True)
        pathlib.Path(f"{self.work}.stash").mkdir(parents=True)
        if copy:
            shutil.copytree(self.base, self.work, symlinks=True)
        for name in "home", "tmp":
            (self.work / name).mkdir(parents=True, exist_ok=True)

    def open(self):
        d = Db(self.work / self.main)
        d.rows("PRAGMA busy_timeout = 3000")
        for sql in self.programme.get("settle", ()):
            d.rows(sql)
        return d

    def step(self, d, i):
        return d.rows(*self.steps[i][:1], *self.steps[i][1:])

    def seen_parts(self):
        return {k: f() for k, f in self.programme.get("parts", {}).items()}

    def state(self):
        return content(self.work / self.main, self.programme.get("ignore", ()))

    def replies(self):
        d = self.open()
        try:
            return [d.rows(q) for q in self.programme.get("answers", ())]
        finally:
            d.close()

    def clean(self):
        self.fresh()
        d = self.open()
        out = {"main": [self.state()], "parts": [self.seen_parts()]}
        for i in range(len(self.steps)):
            self.step(d, i)
            out["main"].append(self.state())
            out["parts"].append(self.seen_parts())
        d.close()
        time.sleep(0.002)
        checked(self.work / self.main)
        out["answers"] = self.replies()
        out["files"] = names(self.work)
        return out

    # ---------------------------------------------------------- one fault
    def child(self, w, mode, n, seed):
        code = 3
        try:
            d = self.open()
            shim.shim_root(str(self.work).encode())
            shim.shim_arm(n, mode, seed)
            try:
                for i in range(len(self.steps)):
                    told = self.told(self.step(d, i))
                    os.write(w, b"!" if told else b"+")
                code = 0
                if mode in (10, 11) and n:
                    shim.shim_power()  # right after the last answer
            except d.failure as e:
                count = shim.shim_count()
                shim.shim_arm(0, 0, 0)
                code = 1 if str(e) and not self.open_after(d) else 4
                os.write(w, f" {count} {e}".encode())
            else:
                count = shim.shim_count()
                shim.shim_arm(0, 0, 0)
                os.write(w, f" {count}".encode())
        except BaseException as e:  # anything else is the harness
            os.write(w, f" 0 harness: {e!r}".encode())
        finally:
            os._exit(code)

    def told(self, rows):
        """Did the call answer that it left something out?"""
        return self.programme.get("told", lambda rows: False)(rows)

    @staticmethod
    def open_after(d):
        """A failed call leaves no transaction open and the connection usable."""
        return d.con.in_transaction

    def act(self, fault, n, seed):
        """(outcome, calls acknowledged, system calls counted, message)"""
        mode, counting = FAULTS[fault]
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(r)
            signal.alarm(120)
            self.child(w, mode if n else counting, n, seed)
        os.close(w)
        out = b""
        while chunk := os.read(r, 4096):
            out += chunk
        os.close(r)
        _, status = os.waitpid(pid, 0)
        acked, _, rest = out.decode(errors="replace").partition(" ")
        self.left_out = "!" in acked
        count, _, message = rest.partition(" ")
        if os.WIFSIGNALED(status):
            need(os.WTERMSIG(status) == signal.SIGKILL and fault in DEADLY
                 and n, "signal", os.WTERMSIG(status))
            return "killed", len(acked), 0, ""
        code = os.WEXITSTATUS(status)
        need(code in (0, 1), "the child ended with", code, message)
        return ("done", "failed")[code], len(acked), int(count or 0), message

    def look(self, fault, outcome, k):
        """After the fault: where the programme stands."""
        state = projected(self.state(), self.stable)
        if self.mode != "WAL" or not self.programme.get("workspace", True):
            low = k - (fault in POWER)  # a journal's end is no synced name
        else:
            low = k
        may = [i for i in (k + 1, k, low)
               if 0 <= i < len(self.states)]
        at = [i for i in may if self.states[i] == state]
        need(at, "the rows are those of no moment near call", k, outcome,
             self.difference(state, self.states[min(may)]),
             self.difference(state, self.states[max(may)]))
        checked(self.work / self.main)
        seen = {n: p for n, p in self.seen_parts().items() if n in
                self.parts[-1]}
        for name, part in seen.items():
            need(any(self.parts[i][name] == part for i in may),
                 "part", name, part, [self.parts[i][name] for i in may])
        if self.programme.get("resume") == "parts":
            at = [i for i in at if self.parts[i] == seen]
            need(at, "the parts are of different moments", seen)
            return at[0] if self.parts[at[0]] != self.parts[k] else k
        return at[0] if self.states[at[0]] != self.states[k] else k

    @staticmethod
    def difference(a, b):
        return {t: {"here": [r for r in a.get(t, []) if r not in b.get(t, [])],
                    "there": [r for r in b.get(t, []) if r not in a.get(t, [])]}
                for t in sorted(a.keys() | b.keys())
                if a.get(t) != b.get(t)} or "same"

    def finish(self, at, same=True, power=False):
        """The rest without help, from call `at` on."""
        d = self.open()
        try:
            again = self.programme.get("again", True)
            start = at if at < len(self.steps) or not again \
                else len(self.steps) - 1
            for i in range(start, len(self.steps)):
                self.step(d, i)
        finally:
            d.close()
        state = projected(self.state(), self.stable)
        need(state == self.states[-1] or not same, "the end is another",
             self.difference(state, self.states[-1]))
        checked(self.work / self.main)
        need(self.seen_parts().items() >= self.parts[-1].items(),
             "the end of the parts is another", self.seen_parts())
        replies = self.replies()
        need(replies == self.answers, "answers", replies, self.answers)
        d = self.open()
        for sql in self.programme.get("sweep", ()):
            d.rows(sql)
        d.close()
        extra = names(self.work) - self.files - set(
            self.programme.get("may_leave", ()))
        if power:  # that a temporary file has lost its name may be lost too
            extra = {n for n in extra if not n.startswith("tmp/")}
        need(not extra, "left over", sorted(extra))

    def point(self, fault, n, seed):
        self.fresh()
        outcome, acked, _, message = self.act(fault, n, seed)
        try:
            if outcome == "done":
                need(acked == len(self.steps), "acknowledged", acked)
            if self.left_out:
                self.finish(0, same=False)
            else:
                self.finish(self.look(fault, outcome, acked),
                            power=fault in POWER)
        except (Violation, sqlite3.Error, OSError) as e:
            raise Violation(f"{outcome} after {acked} calls ({message}): {e}")
        return outcome


# ----------------------------------------------------------------- many of them

def points(total, wanted, rnd):
    if not wanted or wanted >= total:
        return list(range(1, total + 1))
    start, step = rnd.random() * total / wanted, total / wanted
    return sorted({1 + int(start + i * step) % total for i in range(wanted)})


def sweep(args, programmes):
    tried, violations, met = {}, [], 0
    mine, of = (int(x) for x in args.worker.split("/"))
    jobs = [(m, mode) for m in programmes for mode in m.modes
            if args.mode in (None, mode)]
    for i, (make, mode) in enumerate(jobs):
        if i % of != mine:
            continue
        try:
            subject = Subject(args.dir, make, mode)
        except (Violation, sqlite3.Error) as e:  # nothing fails, and it does
            violations.append({"replay": f"{make.__name__};{mode};kill;0;0",
                               "what": f"a clean run: {e}"})
            print(f"violation: {make.__name__} {mode}: a clean run: {e}",
                  file=sys.stderr, flush=True)
            continue
        counts = {}
        for fault, (_, counting) in FAULTS.items():
            if counting not in counts:
                subject.fresh()
                outcome, _, n, message = subject.act(fault, 0, 0)
                need(outcome == "done", "clean run", subject.name, message)
                counts[counting] = n
            total = counts[counting] + (fault in POWER)
            rnd = random.Random(f"{args.seed};{subject.name};{mode};{fault}")
            for n in points(total, args.points, rnd):
                replay = f"{subject.name};{mode};{fault};{n};{args.seed + n}"
                try:
                    met += subject.point(fault, n, args.seed + n) != "done"
                except Violation as e:
                    violations.append({"replay": replay, "what": str(e)[:2000]})
                    print(f"violation: {replay}\n    {str(e)[:800]}",
                          file=sys.stderr, flush=True)
                tried[fault] = tried.get(fault, 0) + 1
        print(f"  {subject.name} {mode}: {counts}, {sum(tried.values())} points"
              f" so far, {len(violations)} violations", file=sys.stderr,
              flush=True)
    return {"count": sum(tried.values()), "met": met, "tried": tried,
            "violations": violations}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--only", action="append")
    parser.add_argument("--mode", help="of the journal; default: both")
    parser.add_argument("--points", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worker", default="0/1")
    parser.add_argument("--replay")
    args = parser.parse_args()
    preload()
    import programmes
    known = {p.__name__: p for p in programmes.ALL}
    args.dir = args.dir.resolve() / args.worker.replace("/", "-")
    if args.replay:
        name, mode, fault, n, seed = args.replay.split(";")
        print(Subject(args.dir, known[name], mode).point(
            fault, int(n), int(seed)))
        return
    chosen = [p for n, p in known.items() if not args.only
              or any(n.startswith(o) for o in args.only)]
    print(json.dumps(sweep(args, chosen)))


if __name__ == "__main__":
    main()
