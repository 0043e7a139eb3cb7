# SPDX-License-Identifier: MIT
"""A Qdrant server for each test: its engine behind the test server, or the
real one that CHOIR_TEST_QDRANT_URL names, in a collection of the test's own."""
import contextlib
import json
import os
import urllib.request
import uuid

import pytest

import qdrant_server

REAL = os.environ.get("CHOIR_TEST_QDRANT_URL")
REAL_KEY = os.environ.get("CHOIR_TEST_QDRANT_API_KEY")
POINTS = ("query", "query/groups", "query/batch", "scroll", "count", "delete", "facet")


class Server:
    """url, key and a collection's name; seen and sent() for the test server."""

    def __init__(self, url, key, seen):
        self.url, self.key, self.seen = url, key, seen
        self.collection = "choir-" + uuid.uuid4().hex[:12]

    def raw(self, method, path, body=None):
        """A request of somebody else's."""
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["api-key"] = self.key
        data = None if body is None else json.dumps(body).encode()
        reply = urllib.request.urlopen(urllib.request.Request(
            self.url + path, data, headers, method=method))
        return json.load(reply)

    def put(self, *points, collection=None):
        """Points as they are: (id, vector, payload)."""
        self.raw("PUT", f"/collections/{collection or self.collection}"
                 "/points?wait=true", {"points": [
                     {"id": i, "vector": v, "payload": p}
                     for i, v, p in points]})

    def make(self, size=2, distance="Dot", collection=None):
        self.raw("PUT", f"/collections/{collection or self.collection}",
                 {"vectors": {"size": size, "distance": distance}})

    def index(self, field, schema):
        self.raw("PUT", f"/collections/{self.collection}/index?wait=true",
                 {"field_name": field, "field_schema": schema})

    def sent(self, tail):
        """Bodies of the requests whose path ends in /tail, in order."""
        return [b for m, p, b in self.seen
                if p.split("?")[0].endswith("/" + tail)]

    def tell(self, db, user="ada"):
        db.one("SELECT choir_config('qdrant.url', ?)", self.url)
        db.one("SELECT choir_config('qdrant.collection', ?)", self.collection)
        db.one("SELECT choir_config('user', ?)", user)
        db.one("SELECT choir_config('http.attempts', 1)")
        return db


@pytest.fixture
def server(tmp_path):
    if REAL:
        s = Server(REAL.rstrip("/"), REAL_KEY, None)
        yield s
        with contextlib.suppress(OSError):
            s.raw("DELETE", f"/collections/{s.collection}")
        return
    with qdrant_server.Qdrant(tmp_path / "qdrant") as q:
        yield Server(q.url, None, q.seen)


@pytest.fixture
def fake(tmp_path):
    """The test server, also when there is a real one: for what is asked."""
    with qdrant_server.Qdrant(tmp_path / "qdrant") as q:
        yield Server(q.url, None, q.seen)


@pytest.fixture
def old(tmp_path):
    """old(version): the test server, as a version before this one."""
    with contextlib.ExitStack() as stack:
        def start(version):
            q = stack.enter_context(qdrant_server.Qdrant(
                tmp_path / version, version=version))
            return Server(q.url, None, q.seen)
        yield start


@pytest.fixture
def ada(db, server):
    return server.tell(db)


@pytest.fixture
def two(server):
    """A collection of vectors of length 2, compared by their product: the
    score of (x, 0) for the query (1, 0) is x."""
    server.make()
    return server


@pytest.fixture
def vec():
    import struct
    return lambda *v: struct.pack(f"<{len(v)}f", *v)
