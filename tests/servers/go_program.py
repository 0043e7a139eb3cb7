# SPDX-License-Identifier: MIT
"""Programs from the Go module proxy, installed once into build/servers."""
import fcntl
import os
import pathlib
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
            env = dict(os.environ, GOBIN=str(folder))
            env.setdefault("HOME", str(folder))
            if subprocess.run([go, "install", module], env=env,
                              capture_output=True).returncode:
                return None
    return str(path)
