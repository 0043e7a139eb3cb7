# SPDX-License-Identifier: MIT
"""The official JavaScript client of libSQL, from npm, installed once into
build/servers/libsql."""
import fcntl
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLIENT = "@libsql/client@0.18.0"


def folder():
    """Where node finds it, or None when it cannot be had here."""
    if not shutil.which("npm"):
        return None
    at = ROOT / "build/servers/libsql"
    at.mkdir(parents=True, exist_ok=True)
    with open(at / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (at / "node_modules/@libsql/client").is_dir():
            (at / "package.json").write_text('{"type": "module"}\n')
            if subprocess.run(
                    ["npm", "install", "--ignore-scripts", "--no-audit",
                     "--no-fund", "--omit=optional", CLIENT], cwd=at,
                    capture_output=True).returncode:
                return None
    return at
