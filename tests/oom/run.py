#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the allocation-failure sweep (oom.c) beside real servers on 127.0.0.1,
whose addresses it finds in the environment.

  run.py                      every case
  run.py NAME                 one
  run.py NAME S.N once|ever   one failure, as a failed sweep names it
"""
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/servers"))


def embed(stack, folder):
    from embed_server import EmbedServer
    model = lambda texts: [[len(t) + 1.0, 2.0, 3.0] for t in texts]
    return stack.enter_context(EmbedServer(model)).openai


def qdrant(stack, folder):
    import qdrant_server
    return stack.enter_context(qdrant_server.Qdrant(folder)).url


def nats(stack, folder):
    import nats
    if nats.program() is None:
        raise OSError("no nats-server")
    server = nats.Nats(folder, websocket="no_tls: true")
    stack.callback(server.stop)
    os.environ["OOM_NATS_WS"] = f"ws://127.0.0.1:{server.ws}"
    return server.url


def libsql(stack, folder):
    from hrana_server import HranaServer
    server = HranaServer(str(folder) + ".db")
    stack.callback(server.stop)
    return server.url


def s3(stack, folder):
    import versitygw
    if versitygw.program() is None:
        raise OSError("no versitygw")
    folder.mkdir()
    server = versitygw.Versitygw(folder)
    stack.callback(server.stop)
    return server.endpoint


def main():
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(
            tempfile.TemporaryDirectory()))
        for start in embed, qdrant, nats, libsql, s3:
            name = start.__name__
            try:
                os.environ["OOM_" + name.upper()] = start(stack, folder / name)
            except (ImportError, OSError) as e:
                print(f"oom: no server for {name}, its cases are left out: {e}")
                if os.environ.get("CHOIR_REQUIRE_ALL") == "1":
                    return 1
        return subprocess.run([ROOT / "build/oom/oom",
                               ROOT / "build/oom/cases.sql"] + sys.argv[1:]
                              ).returncode


if __name__ == "__main__":
    sys.exit(main())
