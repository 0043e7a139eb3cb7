# SPDX-License-Identifier: MIT
"""Litestream, from the Go module proxy, installed once into build/servers.

  restore(url, file)      litestream restore -o file url
  replicate(db, url)      until everything is there, then stopped by its pid
"""
import fcntl
import os
import pathlib
import shutil
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULE = "github.com/benbjohnson/litestream/cmd/litestream@v0.5.18"


def program():
    """The program's path, or None when it cannot be had here."""
    given = os.environ.get("CHOIR_TEST_LITESTREAM")
    if given:
        return given
    folder = ROOT / "build/servers"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "litestream"
    with open(folder / "litestream.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            go = shutil.which("go") or "/usr/local/go/bin/go"
            if not os.path.exists(go):
                return None
            env = dict(os.environ, GOBIN=str(folder))
            env.setdefault("HOME", str(folder))
            if subprocess.run([go, "install", MODULE], env=env,
                              capture_output=True).returncode:
                return None
    return str(path)


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
