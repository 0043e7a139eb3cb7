# SPDX-License-Identifier: MIT
"""Hrana over HTTP on SQLite: a small libSQL server for tests.

/v2/pipeline, /v3/pipeline and /v3/cursor with batons; checked by the official
client (npm @libsql/client) in tests/libsql. Options for what servers differ in:

  token      requests need Authorization: Bearer
  v3         False: 404 for all of /v3, as older servers say
  padded     False: blobs come without padding
  base_url   streams go on there (another HranaServer over the same streams)
"""
import base64
import http.server
import json
import secrets
import socket
import sqlite3
import threading


class Fault(Exception):
    def __init__(self, message, code):
        super().__init__(message)
        self.code = code


def code_of(e):
    return getattr(e, "sqlite_errorname", "SQLITE_ERROR")


class Stream:
    def __init__(self, path):
        self.con = sqlite3.connect(path, isolation_level=None,
                                   check_same_thread=False, timeout=5)
        self.con.execute("PRAGMA journal_mode = wal")
        self.con.execute("PRAGMA synchronous = off")
        self.con.text_factory = lambda b: b.decode("utf-8", "replace")
        self.stored = {}
        self.lock = threading.Lock()

    def close(self):
        self.con.close()


def value_in(v):
    kind = v["type"]
    if kind == "integer":
        return int(v["value"])
    if kind == "blob":
        return base64.b64decode(v["base64"] + "==")
    return {"null": lambda: None, "float": lambda: float(v["value"]),
            "text": lambda: v["value"]}[kind]()


class HranaServer:
    def __init__(self, path, token=None, v3=True, padded=True, streams=None):
        self.path, self.token, self.v3, self.padded = str(path), token, v3, padded
        self.streams = {} if streams is None else streams
        self.base_url, self.asked = None, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                self.connection.setsockopt(socket.IPPROTO_TCP,
                                           socket.TCP_NODELAY, 1)

            def log_message(self, *args):
                pass

            def say(self, status, data):
                data = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                known = self.path == "/v2" or self.path == "/v3" and outer.v3
                self.say(200 if known else 404, {})

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append((self.path, body))
                if outer.token and self.headers.get("Authorization") \
                        != "Bearer " + outer.token:
                    return self.say(401, {"error": "the token is wrong"})
                version, _, what = self.path[1:].partition("/")
                if version not in ("v2", "v3") or version == "v3" and not \
                        outer.v3 or what not in ("pipeline", "cursor"):
                    return self.say(404, {"error": "no such path"})
                ask = json.loads(body)
                baton = ask.get("baton")
                if baton is None:
                    stream = Stream(outer.path)
                else:
                    stream = outer.streams.pop(baton, None)
                    if stream is None:
                        return self.say(400, {"message": "the stream is gone",
                                              "code": "STREAM_EXPIRED"})
                if what == "cursor":
                    return self.cursor(stream, ask["batch"])
                results = [outer.request(stream, r) for r in ask["requests"]]
                if any(r["type"] == "close" for r in ask["requests"]):
                    stream.close()
                    baton = None
                else:
                    baton = outer.keep(stream)
                self.say(200, {"baton": baton, "base_url": outer.base_url,
                               "results": results})

            def chunk(self, data):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

            def cursor(self, stream, batch):
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                baton = secrets.token_hex(16)
                lines = [json.dumps({"baton": baton,
                                     "base_url": outer.base_url})]
                size = 0
                for entry in outer.entries(stream, batch):
                    lines.append(json.dumps(entry, separators=(",", ":")))
                    size += len(lines[-1])
                    if size > 1 << 16:
                        self.chunk(("\n".join(lines) + "\n").encode())
                        lines, size = [], 0
                if lines:
                    self.chunk(("\n".join(lines) + "\n").encode())
                outer.streams[baton] = stream
                self.wfile.write(b"0\r\n\r\n")

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request, address):
                pass  # a client that went away

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,),
                         daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.stop()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def keep(self, stream):
        baton = secrets.token_hex(16)
        self.streams[baton] = stream
        return baton

    # ------------------------------------------------------------ statements

    def value_out(self, v):
        if v is None:
            return {"type": "null"}
        if isinstance(v, int):
            return {"type": "integer", "value": str(v)}
        if isinstance(v, float):
            return {"type": "float", "value": v}
        if isinstance(v, str):
            return {"type": "text", "value": v}
        data = base64.b64encode(v).decode()
        return {"type": "blob",
                "base64": data if self.padded else data.rstrip("=")}

    def run(self, stream, stmt):
        """The cursor of a statement."""
        sql = stmt.get("sql")
        if sql is None:
            sql = stream.stored.get(stmt["sql_id"])
        named = stmt.get("named_args") or []
        if named:
            args = {a["name"].lstrip(":@$"): value_in(a["value"])
                    for a in named}
        else:
            args = [value_in(a) for a in stmt.get("args") or []]
        try:
            return stream.con.execute(sql, args)
        except (sqlite3.Error, sqlite3.Warning, ValueError) as e:
            raise Fault(str(e), code_of(e)) from None

    def columns(self, cur):
        return [{"name": c[0], "decltype": None}
                for c in cur.description or ()]

    def execute(self, stream, stmt):
        before = stream.con.total_changes
        cur = self.run(stream, stmt)
        try:
            rows = [[self.value_out(v) for v in row] for row in cur]
        except sqlite3.Error as e:
            raise Fault(str(e), code_of(e)) from None
        return {"cols": self.columns(cur),
                "rows": rows if stmt.get("want_rows", True) else [],
                "affected_row_count": stream.con.total_changes - before,
                "last_insert_rowid": str(cur.lastrowid or 0)}

    def holds(self, stream, cond, done):
        kind = cond["type"]
        if kind == "ok":
            return done[cond["step"]] == "ok"
        if kind == "error":
            return done[cond["step"]] == "error"
        if kind == "not":
            return not self.holds(stream, cond["cond"], done)
        if kind in ("and", "or"):
            each = (self.holds(stream, c, done) for c in cond["conds"])
            return all(each) if kind == "and" else any(each)
        return not stream.con.in_transaction  # is_autocommit

    def batch(self, stream, batch):
        results, errors, done = [], [], []
        for step in batch["steps"]:
            result = error = None
            if not step.get("condition") or self.holds(
                    stream, step["condition"], done):
                try:
                    result = self.execute(stream, step["stmt"])
                except Fault as e:
                    error = {"message": str(e), "code": e.code}
            results.append(result)
            errors.append(error)
            done.append("ok" if result else "error" if error else None)
        return {"step_results": results, "step_errors": errors}

    def entries(self, stream, batch):
        done = []
        for i, step in enumerate(batch["steps"]):
            done.append(None)
            if step.get("condition") and not self.holds(
                    stream, step["condition"], done):
                continue
            try:
                cur = self.run(stream, step["stmt"])
                yield {"type": "step_begin", "step": i,
                       "cols": self.columns(cur)}
                for row in cur:
                    yield {"type": "row",
                           "row": [self.value_out(v) for v in row]}
                yield {"type": "step_end", "affected_row_count":
                       max(cur.rowcount, 0),
                       "last_insert_rowid": str(cur.lastrowid or 0)}
                done[i] = "ok"
            except Fault as e:
                yield {"type": "step_error", "step": i,
                       "error": {"message": str(e), "code": e.code}}
                done[i] = "error"
            except sqlite3.Error as e:
                yield {"type": "step_error", "step": i,
                       "error": {"message": str(e), "code": code_of(e)}}
                done[i] = "error"

    def request(self, stream, r):
        kind = r["type"]
        answer = {"type": kind}
        try:
            if kind == "execute":
                answer["result"] = self.execute(stream, r["stmt"])
            elif kind == "batch":
                answer["result"] = self.batch(stream, r["batch"])
            elif kind == "sequence":
                stream.con.executescript(r["sql"])
            elif kind == "describe":
                cur = stream.con.execute("EXPLAIN " + r["sql"])
                cur.close()
                answer["result"] = {"params": [], "cols": [],
                                    "is_explain": False, "is_readonly": False}
            elif kind == "store_sql":
                stream.stored[r["sql_id"]] = r["sql"]
            elif kind == "get_autocommit":
                answer["is_autocommit"] = not stream.con.in_transaction
        except Fault as e:
            return {"type": "error", "error": {"message": str(e),
                                               "code": e.code}}
        except (sqlite3.Error, sqlite3.Warning) as e:
            return {"type": "error", "error": {"message": str(e),
                                               "code": code_of(e)}}
        return {"type": "ok", "response": answer}


if __name__ == "__main__":  # for bench and other languages: path [token]
    import sys
    s = HranaServer(sys.argv[1], *sys.argv[2:3])
    print(s.url, flush=True)
    sys.stdin.read()
    s.stop()
