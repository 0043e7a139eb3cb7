# SPDX-License-Identifier: MIT
"""S: a secret is found nowhere but in the request that it belongs to.

    canary.py DIR

A process that knows secrets of every kind (session, environment, proxy, URL)
does with choir what can be done: requests that succeed, fail and are sent
elsewhere, pushes, backups, exports, logs. Then every place where something of
it could be written down is searched for each secret, plain, in base64, URL
form and hex. test_http_canary.py looks at some of the places in `make test`;
the needles are its own.
"""
import argparse
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
for d in "", "servers", "http":
    sys.path.insert(0, str(HERE.parent / d))
from conftest import Db  # noqa: E402
from fault_server import FaultServer, close, echo, redirect, status  # noqa: E402
from test_http_canary import forms  # noqa: E402

SECRETS = {n: f"canary-{n}-{os.getpid():x}-9f8e7d6c" for n in (
    "bearer", "header", "s3key", "s3token", "proxy", "cookie", "signature",
    "userinfo", "nats", "qdrant", "libsql", "process")}
LEFT_EMPTY = ("temporary folder",)  # a place with nothing shows nothing
INSIDE = {n: f"canary-env-{n}-51c3" for n in ("openai", "aws")}


def needles(names=None):
    return {f: n for n, s in {**SECRETS, **INSIDE}.items()
            if names is None or n in names for f in forms(s)}


class Canary:
    def __init__(self, folder):
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        for n in "home", "tmp", "store", "pages", "plain", "out":
            (folder / n).mkdir(parents=True)
        os.environ.update(HOME=str(folder / "home"), TMPDIR=str(folder / "tmp"),
                          SQLITE_TMPDIR=str(folder / "tmp"), CHOIR_USER="u1",
                          CHOIR_REMOTE_ARTIFACTS=f"file://{folder}/store")
        self.places, self.errors, self.trace = {}, [], []

    def put(self, place, text):
        if isinstance(text, str):
            text = text.encode("utf-8", "surrogateescape")
        self.places[place] = self.places.get(place, b"") + text

    def ask(self, d, place, sql, *params):
        try:
            self.put(place, repr(d.rows(sql, *params)))
        except d.failure as e:
            self.put(place, "")
            self.put("errors", str(e) + "\n")
        self.put("sqlite_stmt", repr(d.rows("SELECT sql FROM sqlite_stmt")))

    def arm(self, d, s, other):
        secret = "SELECT choir_secret(?, ?)"
        d.one(secret, "api", json.dumps(
            {"type": "http", "scope": s.url("/"),
             "bearer_token": SECRETS["bearer"],
             "headers": {"api-key": SECRETS["header"]}}))
        d.one(secret, "store", json.dumps(
            {"type": "s3", "scope": "s3://bkt/", "access_key": "AKIAX",
             "secret_key": SECRETS["s3key"], "region": "eu-west-1",
             "session_token": SECRETS["s3token"],
             "endpoint": s.url("/")}))
        for kind, fields in (("nats", {"token": SECRETS["nats"]}),
                             ("qdrant", {"api_key": SECRETS["qdrant"]}),
                             ("libsql", {"token": SECRETS["libsql"]})):
            for more in ({"scope": "nats://127.0.0.1:1"} if kind == "nats"
                         else {"scope": s.url("/")},):
                self.ask(d, "answers", secret, kind, json.dumps(
                    {"type": kind, **more, **fields}))
        script = self.folder / "process.sh"
        script.write_text(
            "#!/bin/sh\nenv > %s/child-env\ntr '\\0' ' ' < /proc/$$/cmdline >"
            " %s/child-cmdline\necho '%s'\n" % (
                self.folder, self.folder, json.dumps(
                    {"Version": 1, "AccessKeyId": "AKIAP",
                     "SecretAccessKey": SECRETS["process"]})))
        script.chmod(0o700)
        (self.folder / "home/.aws").mkdir()
        (self.folder / "home/.aws/config").write_text(
            f"[profile p]\ncredential_process = {script}\nregion = x\n")
        self.ask(d, "answers", secret, "process", json.dumps(
            {"type": "s3", "scope": "s3://prc/", "provider": "chain",
             "profile": "p", "endpoint": s.url("/")}))
        s.on("/echo", echo)
        s.on("/gone", close)
        s.on("/busy", status(403))
        s.on("/away", redirect(other.url("/echo"), 307))
        other.on("/echo", echo)

    def requests(self, d, s, other):
        d.one("SELECT choir_config('http.redirects', 3)")
        d.one("SELECT choir_config('http.timeout_ms', '500')")
        sig = "?X-Amz-Signature=" + SECRETS["signature"]
        get = ("SELECT request_headers, request_cookies,"
               " response_headers, remote_address, timings, meta"
               " FROM http_get(?, http_headers('Cookie', ?))")
        for path in "/echo", "/gone", "/busy", "/away", "/none":
            self.ask(d, "columns", get, s.url(path) + sig, SECRETS["cookie"])
        user = "http://u:" + SECRETS["userinfo"] + "@127.0.0.1:1/"
        for url in (user, user.replace("http", "ftp"), user + sig,
                    user.replace("http", "libsql"), user.replace("http", "s3")):
            for sql in ("SELECT * FROM http_get(?)", "SELECT s3_get(?)",
                        "SELECT jsonrpc(?, 'm')", "SELECT sync_push(?)",
                        "SELECT libsql_batch(?, '[\"SELECT 1\"]')",
                        "SELECT graphql(?, 'q')", "SELECT sync_status(?)",
                        "SELECT * FROM sync_log(?)",
                        "SELECT choir_config('nats.url', ?)",
                        "SELECT choir_config('qdrant.url', ?)",
                        "SELECT choir_config('remote', ?)"):
                self.ask(d, "columns", sql, url)
        for sql in ("SELECT s3_get('s3://bkt/k')", "SELECT s3_put('s3://bkt/k', 'x')",
                    "SELECT s3_get('s3://prc/k')", "SELECT * FROM s3_list('s3://prc/')",
                    "SELECT sync_push('s3://bkt/ws/')", "SELECT nats_ping()",
                    "SELECT qdrant_ping()", "SELECT embed('x')",
                    "SELECT nats_publish('a', 'b')", "SELECT embed_model()",
                    "SELECT * FROM s3_probe('s3://bkt/')"):
            self.ask(d, "columns", sql)
        self.ask(d, "presigned", "SELECT length(s3_presign('GET', 's3://bkt/k', 9))")
        d.one("SELECT choir_config('http.proxy', ?)",
              "http://u:" + SECRETS["proxy"] + "@127.0.0.1:1/")
        self.ask(d, "columns", "SELECT * FROM http_get('http://127.0.0.1:2/')")
        self.ask(d, "choir_config", "SELECT choir_config('http.proxy')")
        d.one("SELECT choir_config('http.proxy', NULL)")
        self.put("another host's requests", repr(
            [(r.path, r.headers) for r in other.seen]).replace(
                SECRETS["signature"], ""))
        self.own = repr([r.headers for r in s.seen])

    def work(self, d):
        for sql in ("CREATE TABLE t(a)", "SELECT log_track('t')",
                    "INSERT INTO t VALUES(1)", "SELECT artifact_put('/a', 'x')",
                    "SELECT artifact_put('/l', zeroblob(1100000))",
                    "SELECT artifact_flush()", "SELECT choir_index()",
                    "SELECT log_seal()", "SELECT state_set('k', '$', 1)"):
            d.rows(sql)
        f = self.folder
        for sql in (f"SELECT sync_push('file://{f}/pages/')",
                    f"SELECT sync_push('file://{f}/plain/ws.sqlite')",
                    f"SELECT choir_backup('{f}/out/backup.db')",
                    f"SELECT choir_export('{f}/out/agent.db')",
                    f"SELECT artifact_export('{f}/out/files')",
                    f"SELECT state_export('{f}/out/state')"):
            self.ask(d, "answers", sql)
        for table in ("choir_secrets", "choir_settings", "choir_transfers",
                      "choir_doctor", "choir_metrics", "choir_help",
                      "sqlite_schema", "action_log", "timeline", "log_changes",
                      "sync_health", "sync_status", "pragma_function_list",
                      "s3_credentials('s3://bkt/k')", "s3_credentials('s3://prc/k')"):
            self.ask(d, table, f"SELECT * FROM {table}")
        for call in "choir_debug()", "choir_check()", "log_prove(1)":
            self.ask(d, call, f"SELECT {call}")
        for explain in "EXPLAIN", "EXPLAIN QUERY PLAN":
            self.ask(d, explain, f"{explain} SELECT * FROM http_get('http://h/')"
                     " WHERE response_status_code = 200")
        self.put(".dump", "\n".join(d.con.iterdump()))

    def files(self, names, place):
        found = b""
        for n in names:
            p = self.folder / n
            for q in sorted(p.rglob("*")) if p.is_dir() else [p]:
                if q.is_file() and ".aws" not in q.parts:
                    found += q.name.encode() + q.read_bytes()
        self.put(place, found)

    def run(self):
        with FaultServer() as s, FaultServer() as other:
            d = Db(self.folder / "ws.db", init=True)
            os.environ["OPENAI_API_KEY"] = INSIDE["openai"]
            os.environ["AWS_SECRET_ACCESS_KEY"] = INSIDE["aws"]
            self.arm(d, s, other)
            self.requests(d, s, other)
            # From here on no statement of the host names a secret.
            d.con.set_trace_callback(
                lambda t: self.put("the host's trace hook", t + "\n"))
            self.ask(d, "columns", "SELECT request_headers, meta FROM"
                     f" http_get('{s.url('/echo')}')")
            self.ask(d, "columns", "SELECT s3_get('s3://bkt/k')")
            self.work(d)
            self.files(["ws.db"], "the database")
            self.files(["ws.db-wal"], "the WAL")
            self.files(["ws.db-shm"], "the shared memory")
            d.con.set_trace_callback(None)
            sent = all(SECRETS[n] in self.own for n in ("bearer", "s3token"))
            self.put("/proc/self/cmdline", pathlib.Path(
                "/proc/self/cmdline").read_bytes())
            d.rows("PRAGMA journal_mode = delete")
            d.run("BEGIN; INSERT INTO t VALUES(2)")
            self.files(["ws.db-journal"], "the rollback journal")
            d.run("COMMIT; VACUUM")
            d.close()
        for place, names in (
                ("the closed database", ["ws.db"]), ("backup", ["out/backup.db"]),
                ("AgentFS export", ["out/agent.db"]),
                ("exported files", ["out/files"]),
                ("exported state", ["out/state"]),
                ("remote: plain file", ["plain"]),
                ("remote: pages", ["pages"]), ("object store", ["store"]),
                ("temporary folder", ["tmp"]), ("home: state and caches",
                                                ["home"]),
                ("command line of a program", ["child-cmdline"]),
                ("environment of a program", ["child-env"])):
            self.files(names, place)
        return sent


def inner(folder):
    c = Canary(folder)
    sent = c.run()
    own_process = needles(set(SECRETS))
    violations = []
    for place, data in c.places.items():
        # A program inherits the environment that it was given anyway.
        wanted = own_process if place == "environment of a program" \
            else needles()
        for needle, name in wanted.items():
            if needle.encode() in data:
                at = data.index(needle.encode())
                violations.append({"replay": place, "what": f"{name}: " + repr(
                    data[max(0, at - 60):at + 20])})
    empty = [p for p, v in c.places.items() if not v and p not in LEFT_EMPTY]
    if not sent or empty:
        violations.append({"replay": "", "what": "the canaries did not fly"
                           f" everywhere: {empty}"})
    (folder / "result.json").write_text(json.dumps(
        {"places": sorted(c.places), "violations": violations}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--inner", action="store_true")
    args = parser.parse_args()
    folder = args.dir.resolve() / "s"
    if args.inner:
        inner(folder)
        return
    out = subprocess.run([sys.executable, __file__, str(args.dir), "--inner"],
                         capture_output=True, timeout=300)
    if out.returncode:
        sys.exit(out.stderr.decode())
    r = json.loads((folder / "result.json").read_text())
    for place, data in (("standard output", out.stdout),
                        ("standard error", out.stderr)):
        r["places"].append(place)
        r["violations"] += [{"replay": place, "what": n} for f, n in
                            needles().items() if f.encode() in data]
    r["count"] = len(r["places"])
    print(json.dumps(r))


if __name__ == "__main__":
    main()
