# SPDX-License-Identifier: MIT
"""Packages from npm, installed once into build/servers/<name>."""
import fcntl
import os
import pathlib
import pwd
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def npm_package(name, package, *options):
    """The folder whose node_modules has it, or None when it cannot be had."""
    if not shutil.which("npm"):
        subprocess.run([ROOT / "tools/setup.sh", "only", "npm"])
        if not shutil.which("npm"):
            return None
    at = ROOT / "build/servers" / name
    at.mkdir(parents=True, exist_ok=True)
    # HOME is a test's own: without the user's cache it is fetched again. Two
    # npm at once trip over each other in that cache.
    env = dict(os.environ, HOME=pwd.getpwuid(os.getuid()).pw_dir)
    with open(at.parent / "npm.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (at / "installed").exists():
            return at
        (at / "package.json").write_text('{"type": "module"}\n')
        for _ in range(2):
            done = subprocess.run(
                ["npm", "install", "--no-audit", "--no-fund",
                 "--loglevel=error", *options, package], cwd=at, env=env,
                capture_output=True, text=True)
            if done.returncode == 0:
                (at / "installed").touch()
                return at
    print(done.stdout + done.stderr)
    return None
