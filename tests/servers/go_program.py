# SPDX-License-Identifier: MIT
"""Programs from the Go module proxy, installed once into build/servers."""
import fcntl
import os
import pathlib
import pwd
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def go_program(name, module):
    """The path of what `go install module` makes, or None when it cannot be
    had here. The environment's CHOIR_TEST_NAME names another one."""
    given = os.environ.get("CHOIR_TEST_" + name.upper().replace("-", "_"))
    if given:
        return given
    folder = ROOT / "build/servers"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            go = shutil.which("go") or "/usr/local/go/bin/go"
            if not os.path.exists(go):
                return None
            # HOME is a test's own: without the user's caches each program
            # takes minutes to compile
            home = pwd.getpwuid(os.getuid()).pw_dir
            env = dict(os.environ, GOBIN=str(folder), HOME=home if os.access(
                home, os.W_OK) else str(folder))
            if subprocess.run([go, "install", module], env=env,
                              capture_output=True).returncode:
                return None
    return str(path)
