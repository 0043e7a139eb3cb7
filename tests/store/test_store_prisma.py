# SPDX-License-Identifier: MIT
"""docs/prisma.md, run by Prisma itself on a workspace."""
import json
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests/servers"))
from npm_package import npm_package  # noqa: E402

pytestmark = [pytest.mark.once, pytest.mark.inprocess]


@pytest.fixture
def page(tmp_path):
    """run(command…) in a folder where the blocks of the page are files."""
    at = npm_package("prisma", "prisma@6.19.0", "@prisma/client@6.19.0",
                     "@prisma/adapter-libsql@6.19.0", "--ignore-scripts")
    if at is None:
        pytest.skip("Prisma: no npm to install it with")
    blocks = re.findall(r"```(\w+)\n(.*?)```", (
        ROOT / "docs/prisma.md").read_text(), re.S)
    assert [kind for kind, _ in blocks] == ["ts", "prisma", "sh", "ts"]
    for name, (_, text) in zip(("prisma.config.ts", "schema.prisma",
                                "models.sh", "use.ts"), blocks):
        (tmp_path / name).write_text(text)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").symlink_to(at / "node_modules")

    def run(*command):
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=300,
            env={**os.environ, "CHECKPOINT_DISABLE": "1"})
        assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
        return done.stdout
    return run


def test_prisma_reads_and_writes_a_workspace(page, tmp_path, open_db):
    d = open_db(tmp_path / "notes.db", init=True)
    d.one("SELECT artifact_put('/garden/tea.md', 'green tea')")
    page("sh", "-e", "models.sh")
    models = dict(re.findall(r"^model (\w+) {\n(.*?)^}",
                             (tmp_path / "schema.prisma").read_text(),
                             re.S | re.M))
    for name, in d.rows("SELECT name FROM sqlite_schema WHERE type = 'table'"
                        " AND name NOT GLOB 'sqlite_*'"):
        fields = re.findall(r"^  (\w+) +\S+", models[name.lstrip("_")], re.M)
        for column, in d.rows("SELECT name FROM pragma_table_info(?)", name):
            assert column in fields, (name, column)
    with open(tmp_path / "use.ts", "a") as f:
        f.write("console.log(JSON.stringify([talk, files], (_, v) =>"
                " typeof v === 'bigint' ? Number(v) : v))\n")
    talk, files = json.loads(page("node", "node_modules/jiti/lib/jiti-cli.mjs",
                                  "use.ts"))
    assert files == [{"path": "/garden/tea.md", "content": "green tea"}]
    assert d.rows("SELECT id, title, created_at FROM conversation_history") \
        == [(talk["id"], "Dinner", talk["created_at"])]
    assert d.rows("SELECT conversation, content FROM chat") == [
        ("Dinner", "what shall we cook?")]
    assert [a for a, in d.rows("SELECT action_type FROM action_log ORDER BY seq"
                               )][-2:] == ["CONVERSATION_CREATE", "MESSAGE_ADD"]
    assert json.loads(d.one("SELECT choir_check()"))["ok"] == 1
