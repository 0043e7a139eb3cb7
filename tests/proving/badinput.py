# SPDX-License-Identifier: MIT
"""B: every argument of every function, with everything that it must not be.

    badinput.py DIR [--every N] [--seed S] [--replay 'function;case']

The functions are those of pragma_function_list and choir_help(); the other
arguments of a call are, in turn, good ones (of test_core_hostile_effects.py)
and a plain text. Each function has a process of its own. A violation is: a
crash; an error that does not begin with `<function>: `; a file that an error
has changed; a call that does not end a second after sqlite3_interrupt();
descriptors that stay open; a result that is no value of its own (text that is
not UTF-8 where the input was).
"""
import argparse
import hashlib
import json
import math
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "core"),
                str(HERE.parent / "servers")]
from conftest import Db  # noqa: E402
from test_core_hostile_effects import CALLS  # noqa: E402

MIB = "m" * (1 << 20)
BAD = {  # name -> SQL, or a parameter to bind
    "NULL": None, "empty text": "", "space": " ", "text": "x", "quote": "'\";--",
    "zero": 0, "minus one": -1, "integer max": 2**63 - 1,
    "integer min": -2**63, "2^31": 2**31, "1e308": 1e308, "-0.0": -0.0,
    "tiny": 5e-324, "infinity": math.inf, "-infinity": -math.inf,
    "NaN text": "NaN", "empty blob": b"", "one byte": b"\x00",
    "truncated vector": b"\x00\x00\x80?\x00", "NaN vector": b"\x00\x00\xc0\x7f" * 3,
    "infinite vector": b"\x00\x00\x80\x7f" * 3, "large blob": bytes(1 << 20),
    "1 MiB text": MIB, "1 MiB JSON": '["' + MIB + '"]',
    "deep JSON": "[" * 10000 + "]" * 10000, "deep object": '{"a":' * 10000,
    "JSON": '{"a":[1,null,{}]}', "not JSON": "{\"a\":", "NUL": "a\0b",
    "NUL first": "\0", "path up": "../..", "absolute": "/", "device": "/dev/null",
    "long path": "/" + "x" * 5000, "URL": "http://127.0.0.1:1/",
    "file URL": "file:///../..", "wrong URL": "http://[", "path glob": "%*?[",
    "control": "\x01\x1f\x7f", "newline": "a\r\nb", "emoji": "\U0001f600" * 50,
    "surrogate": "SQL:CAST(x'eda080' AS TEXT)",
    "not UTF-8": "SQL:CAST(x'61ff6280' AS TEXT)",
    "cut UTF-8": "SQL:CAST(x'61f09f98' AS TEXT)", "zeroblob": "SQL:zeroblob(3000000)",
}


class Bad:
    def __init__(self, folder, every, seed):
        self.folder, self.every, self.seed = folder, every, seed
        # '../..' must stay inside
        self.at = folder / "a/b/c/d"
        self.at.mkdir(parents=True)
        os.chdir(self.at)
        os.environ.update(
            CHOIR_USER="u1", CHOIR_REMOTE=f"file://{folder}/remote/",
            CHOIR_REMOTE_ARTIFACTS=f"file://{folder}/store",
            CHOIR_QDRANT_URL="http://127.0.0.1:1", HOME=str(folder / "home"),
            NATS_URL="nats://127.0.0.1:1", CHOIR_NATS_TIMEOUT_MS="100",
            TMPDIR=str(folder / "tmp"), SQLITE_TMPDIR=str(folder / "tmp"))
        for n in "remote", "store", "home", "tmp":
            (folder / n).mkdir()
        (folder / "in").mkdir()
        (folder / "in/file.txt").write_text("text")
        self.base = folder / "base.db"
        d = Db(self.base, init=True)
        d.run("PRAGMA journal_mode = delete; CREATE TABLE kept(a);"
              "CREATE TABLE t(a); INSERT INTO t VALUES(1);"
              "CREATE TABLE vecs(id INTEGER PRIMARY KEY, e BLOB);"
              "INSERT INTO vecs(e) VALUES(vec_f32('[1, 2]'));"
              "INSERT INTO conversation_history(id, title)"
              " VALUES('talk', 'good')")
        for sql in ("log_track('kept')", "artifact_put('/a.md', 'tea')",
                    "setting_set('theme', 'x')", "state_set('mood', '$', 1)",
                    "state_checkpoint('monday')", "cache_set('k', 1)",
                    "event_define('v1.Good', '{}', '')", "choir_index()",
                    "vec_index_create('good', 'vecs', 'e')"):
            d.one("SELECT " + sql)
        d.close()
        d = Db()
        self.registry = {n: k for n, k in d.rows(
            "SELECT name, kind FROM choir_help()")}
        self.arity = {}
        for n, a in d.rows("SELECT name, narg FROM pragma_function_list"):
            if n in self.registry:
                self.arity.setdefault(n, set()).add(a)
        for n, k in self.registry.items():
            if k == "table":
                self.arity[n] = {len(d.rows(
                    f"SELECT 1 FROM pragma_table_xinfo('{n}')"
                    " WHERE hidden = 1"))}
        d.close()

    def arguments(self, name):
        """[(label, values)]: every position with every value, the others good."""
        most = max(6 if a < 0 else a for a in self.arity.get(name, {0}))
        least = min(1 if a < 0 else a for a in self.arity.get(name, {0}))
        good = ["x"] * most
        try:
            text = "SELECT " + CALLS.get(name, "").replace(
                "{folder}", str(self.folder)).replace("{port}", "1")
            row = sqlite3.connect(":memory:").execute(text).fetchone()
            for i, v in enumerate(row[:most]):
                good[i] = v
        except sqlite3.Error:
            pass
        for n in sorted({least, most}):
            for i in range(n):
                for label, value in BAD.items():
                    for which, rest in (("good", good), ("x", ["x"] * most)):
                        values = list(rest[:n])
                        values[i] = value
                        yield f"{n} {i} {label} {which}", values

    def sql(self, name, values):
        text, bound = [], []
        for v in values:
            if isinstance(v, str) and v.startswith("SQL:"):
                text.append(v[4:])
            else:
                text.append("?")
                bound.append(v)
        call = f"{name}({', '.join(text)})"
        if self.registry[name] == "table":
            return f"SELECT * FROM {call} LIMIT 3", bound
        return f"SELECT {call}", bound

    def digest(self, d):
        """Of the file, but for the counter of commits: one may be empty."""
        a = d.con.serialize()
        return hashlib.sha256(a[:24] + a[28:92] + a[96:]).digest()

    def fresh(self):
        path = self.at / "ws.db"
        for p in self.at.glob("ws.db*"):
            p.unlink()
        shutil.copy(self.base, path)
        d = Db(path)
        d.con.text_factory = bytes
        for key in "http.timeout_ms", "http.retries":
            try:
                d.rows("SELECT choir_config(?, '100')", key)
            except sqlite3.Error:
                pass
        return d

    def one(self, d, name, label, values, tell):
        """Runs a case; False: the workspace has to be made again."""
        sql, bound = self.sql(name, values)
        before, changes = self.digest(d), d.con.total_changes
        timer = threading.Timer(1.5, d.con.interrupt)
        timer.start()
        start, error = time.monotonic(), None
        try:
            d.con.execute(sql, bound).fetchall()
        except sqlite3.Error as e:
            error = str(e)
        except (OverflowError, UnicodeDecodeError):
            pass
        timer.cancel()
        took = time.monotonic() - start
        if took > 10:
            tell(label, f"took {took:.1f} s: {error}")
        if error is None:
            return self.digest(d) == before and changes == d.con.total_changes
        if not error.startswith(name + ": ") and not any(
                x in error for x in ("wrong number of arg", "too many arg",
                                     "string or blob too big", "interrupted",
                                     "out of memory")):
            tell(label, f"not the form of an error: {error[:200]!r}")
        if len(error) > 2000:
            tell(label, f"an error of {len(error)} bytes: {error[:80]!r}")
        if d.con.in_transaction:
            tell(label, f"leaves a transaction open: {error[:200]}")
            return False
        if self.digest(d) != before:
            tell(label, f"the error changed the file: {error[:200]}")
            return False
        return True

    def function(self, name, w, chosen=None):
        """In a child: one line of JSON for each violation, then the count."""
        def tell(label, what):
            os.write(w, json.dumps({"replay": f"{name};{label}",
                                    "what": what}).encode() + b"\n")
        rnd = random.Random(f"{self.seed};{name}")
        cases = [c for c in self.arguments(name)
                 if chosen is None or c[0] == chosen]
        if chosen is None and self.every > 1:
            cases = rnd.sample(cases, max(1, len(cases) // self.every)) \
                if cases else []
        d = self.fresh()
        fds = len(os.listdir("/proc/self/fd"))
        for n, (label, values) in enumerate(cases):
            os.write(w, b"@" + label.encode() + b"\n")
            if not self.one(d, name, label, values, tell):
                d.close()
                for p in self.at.iterdir():
                    if not p.name.startswith("ws.db"):
                        shutil.rmtree(p, ignore_errors=True) if p.is_dir() \
                            else p.unlink()
                d = self.fresh()
        report = json.loads(d.one("SELECT choir_check()"))
        if report["ok"] != 1 or d.one("PRAGMA integrity_check") != b"ok":
            tell("", f"afterwards: {report}")
        d.close()
        del d
        left = len(os.listdir("/proc/self/fd"))
        if left > fds:
            tell("", f"{left - fds + 1} descriptors stay open")
        os.write(w, b"=%d\n" % len(cases))

    def run(self, chosen=None):
        count, violations = 0, []
        for name, kind in sorted(self.registry.items()):
            if kind == "module" or chosen and chosen.split(";")[0] != name:
                continue
            r, w = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    signal.alarm(900)
                    self.function(name, w, chosen and chosen.split(";")[1])
                finally:
                    os._exit(0)
            os.close(w)
            data = b""
            while chunk := os.read(r, 65536):
                data += chunk
            os.close(r)
            _, status = os.waitpid(pid, 0)
            last, done = "", None
            for line in data.decode(errors="replace").splitlines():
                if line.startswith("@"):
                    last = line[1:]
                elif line.startswith("="):
                    done = int(line[1:])
                else:
                    violations.append(json.loads(line))
            if done is None:
                violations.append({"replay": f"{name};{last}",
                                   "what": f"the process ended: {status}"})
            count += done or 0
        return {"count": count, "violations": violations}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay")
    args = parser.parse_args()
    folder = args.dir.resolve() / "b"
    shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(Bad(folder, args.every, args.seed).run(args.replay)))


if __name__ == "__main__":
    main()
