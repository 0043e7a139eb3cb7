# SPDX-License-Identifier: MIT
"""What tests of pushes and pulls say again and again."""
import json
import pathlib


def call(d, sql, *args):
    return json.loads(d.one("SELECT " + sql, *args))


def push(d, url, *mode):
    return call(d, "sync_push(?%s)" % (", ?" * len(mode)), url, *mode)


def pull(d, url, *mode):
    return call(d, "sync_pull(?%s)" % (", ?" * len(mode)), url, *mode)


def put(d, path, content="x"):
    d.rows("INSERT INTO artifacts(path, name, content) VALUES(?, ?, ?)",
           path, path.rsplit("/")[-1], content)


def paths(d):
    return [r[0] for r in d.rows("SELECT path FROM artifacts ORDER BY path")]


def state(d, url):
    return d.one("SELECT state FROM sync_status(?)", url)


def objects(url):
    """Of a folder file://…/, as names in it."""
    root = pathlib.Path(url[7:])
    return sorted(str(p.relative_to(root)) for p in root.rglob("*.ltx"))
