# SPDX-License-Identifier: MIT
"""nats.c, the official client, on the other side: it reads what choir wrote and
choir reads what it wrote."""
import subprocess

import pytest

import nats
from nats_fixtures import at, server, stream  # noqa: F401


@pytest.fixture(scope="module")
def oracle():
    return nats.oracle()


@pytest.mark.once
def test_each_reads_what_the_other_wrote(at, server, stream, oracle):
    run = subprocess.run([oracle, "publish", server.url, stream + ".theirs",
                          "500", "20"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    rows = at.rows("SELECT subject, payload, msg_id FROM"
                   " nats_fetch(?, 'c', 1000, 0)", stream)
    assert rows == [(stream + ".theirs", "x" * 20, f"o-{i}")
                    for i in range(500)]
    mine = [(f"{stream}.mine.{i}", f"id-{i}", f"päyload {i}")
            for i in range(50)]
    for subject, id, payload in mine:
        at.one("SELECT nats_js_publish(?, ?, ?)", subject, payload, id)
    run = subprocess.run([oracle, "read", server.url, stream + ".mine.>",
                          "durable", "50"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert [tuple(line.split("\t")) for line in run.stdout.splitlines()
            ] == mine
