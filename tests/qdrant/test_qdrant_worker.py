# SPDX-License-Identifier: MIT
"""The worker of docs/recipes.md as a process: saved, announced, embedded with
all-MiniLM-L6-v2, stored, found."""
import re
import subprocess
import sys
import time

import pytest

import minilm
import nats
from conftest import ROOT
from embed_server import EmbedServer
from qdrant_fixtures import ada, server  # noqa: F401

WORKER = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import Db
d = Db(sys.argv[2])
for name, value in zip(sys.argv[4::2], sys.argv[5::2]):
    d.one("SELECT choir_config(?, ?)", name, value)
print("ready", flush=True)
while True:
    d.run(sys.argv[3])
"""


def block(heading):
    page = (ROOT / "docs/recipes.md").read_text()
    return re.search(rf"^## {re.escape(heading)}\n.*?^```sql\n(.*?)^```", page,
                     re.M | re.S).group(1)


@pytest.mark.once
def test_what_one_process_saves_a_worker_makes_searchable(ada, server, tmp_path):
    if nats.program() is None:
        pytest.skip("nats-server is not installed (tools/setup.sh)")
    bus = nats.Nats(tmp_path / "nats")
    settings = {"nats.url": bus.url, "qdrant.url": server.url, "user": "ada",
                "qdrant.collection": server.collection,
                "embed.provider": "ollama", "embed.model": "all-minilm"}
    worker = None
    try:
        with EmbedServer(minilm.embed, "all-minilm") as model:
            settings["embed.url"] = model.ollama
            for name, value in settings.items():
                ada.one("SELECT choir_config(?, ?)", name, value)
            ada.one("SELECT nats_stream_create('CHOIROS', '[\"choiros.>\"]')")
            ada.one("SELECT qdrant_init()")
            worker = subprocess.Popen(
                [sys.executable, "-c", WORKER, ROOT / "tests", ada.path,
                 block("A worker that makes saved files searchable"),
                 *[x for pair in settings.items() for x in pair]],
                stdout=subprocess.PIPE, text=True)
            assert worker.stdout.readline() == "ready\n"
            for name, text in (
                    ("/a.md", "The cat sleeps on the warm sofa."),
                    ("/b.md", "Quarterly revenue grew by four percent.")):
                ada.one("SELECT artifact_put(?, ?)", name, text)
            ada.one("SELECT nats_flush()")
            for query, path in (("a kitten taking a nap", "/a.md"),
                                ("company earnings", "/b.md")):
                end = time.monotonic() + 120
                while ada.one("SELECT count(*) FROM qdrant_scroll()") < 2:
                    assert worker.poll() is None and time.monotonic() < end
                    time.sleep(0.05)
                assert ada.one("SELECT path FROM qdrant_search(?) LIMIT 1",
                               query) == path
    finally:
        if worker:
            worker.kill()
            worker.wait()
        bus.stop()
