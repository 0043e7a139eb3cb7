# SPDX-License-Identifier: MIT
"""Runs under LD_PRELOAD=fault_shim.so: fault_driver.py DIR SHIM STRIDE

For every scenario, journal mode and kind of fault: a child process does one
sync call and is killed (or a system call fails) at its 1st, 2nd, … call that
changes a file. After each one the parent looks at what is left:

  - both databases are whole, and hold the old or the new state, no mixture;
  - the remote is absent, the old or the new version, complete and sealed;
  - the same call again succeeds unaided and gives the expected end state;
  - nothing is left beside the remote but its lock file.

Remotes: a plain file, and a folder of page deltas with its compaction and
pruning, in clear or encrypted. DIR SHIM STRIDE [plain|folder|crypt]

Prints one line of JSON: how many faults were tried, of which kind.
"""
import ctypes
import json
import os
import pathlib
import shutil
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import conftest  # noqa: E402

OFF, COUNT, KILL, HALF, ENOSPACE, EIOERR = range(6)
ROOT, SHIM, STRIDE = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
BASE, WORK = ROOT / "base", ROOT / "work"
FOLDER = len(sys.argv) > 4 and sys.argv[4] != "plain"
CRYPT = len(sys.argv) > 4 and sys.argv[4] == "crypt"
URL = f"file://{WORK}/remote/" + ("" if FOLDER else "ws.sqlite")
shim = ctypes.CDLL(SHIM)


class Db(conftest.Db):
    def __init__(self, *args, choir=True, **kw):
        super().__init__(*args, choir=choir, **kw)
        if choir and CRYPT:
            self.one("SELECT choir_secret('k', ?)", json.dumps(
                {"type": "sync", "scope": "file:///", "key": "5a" * 32}))


def put(d, *names):
    for n in names:
        d.rows("INSERT INTO artifacts(path, name, content) VALUES(?,?,?)",
               f"/{n}", n, n * 20000)


def paths(file, choir=False):
    if not file.exists():
        return None
    d = Db(file, choir=choir)
    try:
        assert d.one("PRAGMA integrity_check") == "ok", file
        if not d.rows("SELECT 1 FROM sqlite_schema WHERE name='artifacts'"):
            return None
        return tuple(r[0][1:] for r in d.rows(
            "SELECT path FROM artifacts ORDER BY 1"))
    finally:
        d.close()


def remote_paths():
    """What a new device would get, or None."""
    if not FOLDER:
        return paths(WORK / "remote/ws.sqlite")
    if not list((WORK / "remote").rglob("*.ltx")):
        return None
    d = Db(":memory:")
    try:
        d.one("SELECT sync_pull(?)", URL)
        assert d.one("PRAGMA integrity_check") == "ok"
        return tuple(r[0][1:] for r in d.rows(
            "SELECT path FROM artifacts ORDER BY 1"))
    finally:
        d.close()


def fresh():
    shutil.rmtree(WORK, ignore_errors=True)
    (WORK / "remote").mkdir(parents=True)


def build(mode, steps):
    """Runs steps(a, b) in WORK and keeps the result as BASE."""
    fresh()
    a = Db(WORK / "a.db", init=True)
    a.rows(f"PRAGMA journal_mode={mode}")
    put(a, "one")
    steps(a)
    a.close()
    shutil.rmtree(BASE, ignore_errors=True)
    shutil.copytree(WORK, BASE)


def pushed(a):
    a.one("SELECT sync_push(?)", URL)


def device(mode):
    b = Db(WORK / "b.db")
    b.one("SELECT sync_pull(?)", URL)
    b.rows(f"PRAGMA journal_mode={mode}")
    return b


# name -> (what is built, the file that acts, the call, and for the acting
# file, the remote: state before, state after)
def scenarios(mode):
    def first_push(a):
        pass

    def next_push(a):
        pushed(a)
        put(a, "two")

    def first_pull(a):
        pushed(a)

    def next_pull(a):
        pushed(a)
        device(mode).close()
        put(a, "two")
        pushed(a)

    def theirs(a):
        pushed(a)
        b = device(mode)
        put(b, "mine")
        b.close()
        put(a, "two")
        pushed(a)

    def kept(a):
        # Four pushes and a snapshot a day ago; two pushes and one more since.
        for i in range(4):
            a.rows("UPDATE artifacts SET content=? WHERE path='/one'",
                   os.urandom(30000))
            pushed(a)
        a.one("SELECT sync_compact(?, 'snapshot')", URL)
        for n in "two", "two":
            a.rows("INSERT OR IGNORE INTO artifacts(path, name, content)"
                   " VALUES(?, ?, 'x')", f"/{n}", n)
            a.rows("UPDATE artifacts SET content=? WHERE path='/one'",
                   os.urandom(9000))
            pushed(a)
        for p in (WORK / "remote").rglob("*.ltx"):
            os.utime(p, (p.stat().st_mtime - 90000,) * 2)

    def pruned(a):
        kept(a)
        a.one("SELECT sync_compact(?, 'snapshot')", URL)
        for p in (WORK / "remote").rglob("*.ltx"):
            os.utime(p, (p.stat().st_mtime - 90000,) * 2)

    one, two, mine = ("one",), ("one", "two"), ("mine", "one")
    more = {
        "compact": (kept, "a.db", "sync_compact(?)", two, two, two, two),
        "snapshot": (kept, "a.db", "sync_compact(?, 'snapshot')", two, two,
                     two, two),
        "prune": (pruned, "a.db", "sync_prune(2, ?)", two, two, two, two),
    } if FOLDER and mode == "WAL" else {}
    return more | {
        "first push": (first_push, "a.db", "sync_push(?)", one, one, None, one),
        "next push": (next_push, "a.db", "sync_push(?)", two, two, one, two),
        "first pull": (first_pull, "b.db", "sync_pull(?)", None, one, one, one),
        "next pull": (next_pull, "b.db", "sync_pull(?)", one, two, two, two),
        "theirs": (theirs, "b.db", "sync_pull(?, 'theirs')", mine, two, two,
                   two),
    }


def act(file, call, n, kind):
    """One call in a child: 'killed', 'failed', 'done'; and calls counted."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            d = Db(WORK / file)
            shim.shim_arm(n, kind)
            try:
                d.one(f"SELECT {call}", URL)
                code = 0
            except d.failure as e:
                code = 1
                os.write(w, b"x" if not str(e) else b"")
            count = shim.shim_count()
            shim.shim_arm(0, OFF)
            os.write(w, str(count).encode())
        finally:
            os._exit(code)
    os.close(w)
    out = b""
    while chunk := os.read(r, 100):
        out += chunk
    os.close(r)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return "killed", 0
    code = os.WEXITSTATUS(status)
    assert code in (0, 1), code
    return ("done", "failed")[code], int(out)


def leftovers():
    return {p.name for p in (WORK / "remote").rglob("*") if p.is_file()
            and p.suffix != ".ltx"} - {"ws.sqlite", ".choir-lock"}


def look(name, note, file, call, before, after, remote_before, remote_after):
    state = paths(WORK / file)
    assert state in (before, after), (note, state)
    remote = remote_paths()
    assert remote in (remote_before, remote_after), (note, remote)
    for other in "a.db", "b.db":
        if other != file and (WORK / other).exists():
            assert paths(WORK / other) is not None, note
    if remote:
        d = Db()
        assert json.loads(d.one("SELECT sync_verify(?)", URL))["ok"] == 1, note
        d.close()
    # The same again, without help.
    d = Db(WORK / file)
    result = json.loads(d.one(f"SELECT {call}", URL))
    if name == "theirs" and state == before:
        kept = paths(pathlib.Path(result["saved"]))
        assert kept == before, (note, kept)
    assert json.loads(d.one("SELECT sync_push(?)", URL))["pushed"] == 0, note
    d.close()
    assert paths(WORK / file) == after, note
    assert remote_paths() == remote_after, note
    if "push" in name:
        if leftovers():  # swept by the next put
            d = Db(WORK / file)
            put(d, "three")
            d.one("SELECT sync_push(?)", URL)
            d.close()
        assert not leftovers(), (note, leftovers())


def main():
    tried = {}
    os.environ["HOME"] = str(ROOT / "home")
    for mode in "WAL", "DELETE":
        for name, (steps, file, call, *states) in scenarios(mode).items():
            build(mode, steps)
            fresh()
            shutil.copytree(BASE, WORK, dirs_exist_ok=True)
            outcome, total = act(file, call, 0, COUNT)
            assert outcome == "done" and total > 5, (name, outcome, total)
            for kind, label in ((KILL, "kill"), (HALF, "half write"),
                                (ENOSPACE, "disk full"), (EIOERR, "I/O error")):
                start = 1 + (kind + len(name)) % STRIDE
                for n in range(start, total + 1, STRIDE):
                    fresh()
                    shutil.copytree(BASE, WORK, dirs_exist_ok=True)
                    note = (mode, name, label, n, total)
                    outcome, _ = act(file, call, n, kind)
                    # The number of calls varies by a few: "done" is no fault.
                    if kind in (KILL, HALF):
                        assert outcome in ("killed", "done"), (note, outcome)
                    look(name, (*note, outcome), file, call, *states)
                    tried[label] = tried.get(label, 0) + (outcome != "done")
    print(json.dumps(tried))


main()
