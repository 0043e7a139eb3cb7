# SPDX-License-Identifier: MIT
"""Litestream, from the Go module proxy, installed once into build/servers.

  restore(url, file)      litestream restore -o file url
  replicate(db, url)      until everything is there, then stopped by its pid
"""
import os
import pathlib
import subprocess
import time

from go_program import go_program

MODULE = "github.com/benbjohnson/litestream/cmd/litestream@v0.5.18"


def program():
    """The program's path, or None when it cannot be had here."""
    return go_program("litestream", MODULE)


def restore(url, file, *args, env=None):
    out = subprocess.run([program(), "restore", *args, "-o", str(file), url],
                         capture_output=True, text=True, timeout=120,
                         env={**os.environ, **(env or {})})
    assert out.returncode == 0, out.stdout + out.stderr


def replicate(db, url, while_running=lambda: None, env=None):
    """One run of `litestream replicate` during which while_running() writes."""
    folder = pathlib.Path(db).parent
    with open(folder / "litestream.log", "wb") as log:
        process = subprocess.Popen(
            [program(), "replicate", str(db), url], stdout=log, stderr=log,
            env={**os.environ, **(env or {})})
        try:
            time.sleep(1.5)
            while_running()
            time.sleep(2.5)  # its sync interval is a second
        finally:
            process.terminate()
            process.wait(30)
