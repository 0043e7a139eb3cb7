# SPDX-License-Identifier: MIT
"""Fixtures of tests/nats: a server for a file of tests, a workspace at it."""
import itertools

import pytest

import nats

COUNT = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A nats-server for the tests that leave it alone."""
    if nats.program() is None:
        pytest.skip("nats-server is not installed (tools/setup.sh)")
    s = nats.Nats(tmp_path_factory.mktemp("nats"))
    yield s
    s.stop()


@pytest.fixture
def at(db, server):
    """A workspace of user ada that talks to the server."""
    db.one("SELECT choir_config('nats.url', ?)", server.url)
    db.one("SELECT choir_config('user', 'ada')")
    return db


@pytest.fixture
def stream(at):
    """(name, prefix): a stream of its own for this test, on prefix.>"""
    name = f"S{next(COUNT)}x"
    at.one("SELECT nats_stream_create(?, json_array(?))", name, name + ".>")
    return name
