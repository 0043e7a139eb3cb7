# SPDX-License-Identifier: MIT
"""The programs whose files choir_import reads, in a Python of their own.

python() installs `llm` and AgentFS from PyPI into build/foreign, once, and
gives its interpreter, or None where that cannot be done. write(folder) lets
both write files there: logs.db and embeddings.db of llm, agent.db of AgentFS.
"""
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HOME = ROOT / "build/foreign"
PACKAGES = ["llm==0.27.1", "sqlite-utils==3.38", "sqlite-migrate==0.1b0", "httpx==0.28.1",
            "agentfs-sdk==0.6.4"]

WRITE = """
import asyncio, os, sys
import llm, sqlite_utils
from llm.migrations import migrate
from agentfs_sdk import AgentFS, AgentFSOptions
folder = sys.argv[1]

class Echo(llm.Model):
    model_id = "echo"
    def execute(self, prompt, stream, response, conversation):
        yield "echo: " + prompt.prompt

class Toy(llm.EmbeddingModel):
    model_id = "toy"
    def embed_batch(self, texts):
        for text in texts:
            yield [float(len(text)), 1.0, -0.5]

logs = sqlite_utils.Database(os.path.join(folder, "logs.db"))
migrate(logs)
talk = Echo().conversation()
for question in ("hello", "again"):
    answer = talk.prompt(question, system="be brief")
    answer.text()
    answer.log_to_db(logs)
notes = llm.Collection("notes", sqlite_utils.Database(os.path.join(folder, "embeddings.db")), model=Toy())
notes.embed("a", "hello world", store=True, metadata={"k": 1})
notes.embed("b", "bye")

async def agent():
    a = await AgentFS.open(AgentFSOptions(id="x", path=os.path.join(folder, "agent.db")))
    await a.fs.write_file("/notes/hello.txt", "hello \\u00e9")
    await a.fs.write_file("/big.bin", bytes(range(256)) * 50)
    await a.fs.write_file("/empty", b"")
    await a.kv.set("user:1", {"name": "Ada"})
    await a.tools.success(await a.tools.start("search", {"q": "tea"}), {"n": 1})
    await a.tools.error(await a.tools.start("fetch", {"u": "x"}), "timeout")
    await a.close()
asyncio.run(agent())
"""

READ = """
import asyncio, json, sys
from agentfs_sdk import AgentFS, AgentFSOptions

async def agent():
    a = await AgentFS.open(AgentFSOptions(id="x", path=sys.argv[1]))
    print(json.dumps([sorted(await a.fs.readdir("/")), await a.fs.read_file("/notes/hello.txt"),
                      (await a.fs.read_file("/big.bin", encoding=None)).hex(),
                      await a.kv.get("user:1"),
                      sorted((t.name, t.status) for t in await a.tools.get_recent(0))]))
    await a.close()
asyncio.run(agent())
"""


def python():
    exe, done = HOME / "bin/python", HOME / "packages"
    if not (done.exists() and done.read_text() == " ".join(PACKAGES)):
        for command in (["/usr/bin/python3", "-m", "venv", str(HOME)],
                        [str(exe), "-m", "pip", "install", "-q", *PACKAGES]):
            if subprocess.run(command, capture_output=True).returncode != 0:
                return None
        done.write_text(" ".join(PACKAGES))
    return str(exe)


def run(program, *args):
    return subprocess.run([python(), "-c", program, *map(str, args)], check=True, text=True,
                          capture_output=True).stdout
