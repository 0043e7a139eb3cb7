# SPDX-License-Identifier: MIT
"""No room to write: every function says so under its name and changes nothing.

The calls are those that leave a trace when nothing is in the way
(test_core_hostile_effects.py). Three ways to have no room: a file opened
read-only, a disk on which no byte more can be written (RLIMIT_FSIZE), a
database that may not grow.
"""
import contextlib
import os
import pathlib
import resource
import shutil

import pytest
from conftest import Db
from test_core_hostile_effects import (  # noqa: F401
    CALLS, REQUESTS, call_of, store, trace, world)

pytestmark = [pytest.mark.inprocess, pytest.mark.once]

# They write no byte, or to nobody's file.
ELSEWHERE = {"artifact_sweep", "choir_config", "choir_lock", "choir_secret",
             "s3_delete", "sync_auto", "sync_prune", *REQUESTS}
NAMES = [n for n in CALLS if n not in ELSEWHERE]
READS = {n for n in NAMES if n.startswith("s3_")} | {
    "artifact_export", "choir_backup", "choir_export", "state_export",
    "sync_compact", "sync_restore", "sync_schedule"}


@contextlib.contextmanager
def full_disk():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files(folder):
    """Files with content: an empty one, or a folder, is no loss."""
    return {p: p.read_bytes() for p in folder.rglob("*")
            if p.is_file() and p.stat().st_size
            and not p.name.startswith("full.db")}


@pytest.fixture
def full(world):
    """full() -> a connection to a copy of the world's workspace."""
    folder = world[0]
    opened = []

    def make(mode="rw"):
        shutil.copy(folder / "good.db", folder / "full.db")
        opened.append(Db(f"file:{folder}/full.db?mode={mode}", uri=True))
        return opened[-1]

    yield make
    for d in opened:
        d.close()
    for p in folder.glob("full.db*"):
        p.unlink()


def state(d, world):
    home = pathlib.Path(os.environ["HOME"])
    return {**trace(d, world), "files": files(world[0]), "state": files(home)}


def refused(d, name, world):
    """The message; nothing may have changed."""
    before = state(d, world)
    message = d.error("SELECT " + call_of(name, world))
    assert message.startswith(name + ": "), message
    assert state(d, world) == before
    assert d.one("PRAGMA integrity_check") == "ok"
    return message


@pytest.mark.parametrize("name", NAMES)
def test_on_a_full_disk(full, world, name):
    d = full()
    with full_disk():
        message = refused(d, name, world)
    assert "disk I/O error" in message or "File too large" in message, message


@pytest.mark.parametrize("name", [n for n in NAMES if n not in READS])
def test_in_a_file_opened_read_only(full, world, name):
    message = refused(full("ro"), name, world)
    assert "read" in message, message


@pytest.mark.parametrize("call", [
    "artifact_put('/a.md', zeroblob(100000))",
    "artifact_import('{folder}/large')",
    "message_add('talk', 'user', hex(zeroblob(50000)))",
    "setting_set('theme', hex(zeroblob(50000)))",
    "state_set('mood', '$.x', hex(zeroblob(50000)))",
    "cache_set('k', zeroblob(100000))",
    "task_add('t', hex(zeroblob(50000)))",
    "log_record('RUN', json_quote(hex(zeroblob(50000))))",
    "choir_index()",
    "vec_index_create('other', 'vecs', 'e')",
])
def test_in_a_database_that_may_not_grow(full, world, call):
    d, name = full(), call.split("(")[0]
    d.run("VACUUM")
    (world[0] / "large").mkdir(exist_ok=True)
    (world[0] / "large/file").write_bytes(bytes(100_000))
    before = trace(d, world)
    d.run("PRAGMA max_page_count = 1")  # as large as it is
    message = d.error("SELECT " + call.replace("{folder}", str(world[0])))
    assert message.startswith(name + ": ")
    assert message.endswith("database or disk is full")
    assert trace(d, world) == before
    d.run("PRAGMA max_page_count = 100000")
    d.one("SELECT " + call.replace("{folder}", str(world[0])))
