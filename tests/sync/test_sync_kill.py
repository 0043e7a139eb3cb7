# SPDX-License-Identifier: MIT
"""kill -9, power failures and I/O errors at any system call of a push or pull.

One call of each kind for each programme, of encrypted folders for the next push and
pull; `make proving T=K` tries more of all of them, FULL=1 all. tests/proving/faults.py says what must hold after each."""
import json
import os
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests/proving"))
import faults  # noqa: E402


@pytest.mark.inprocess
@pytest.mark.once
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux shim")
@pytest.mark.parametrize("programmes, kills, met", [
    ("plain", 5, 30), ("folder", 5, 30), ("crypt_next", 2, 10)])
def test_a_fault_at_any_call_leaves_the_old_or_the_new_state(
        tmp_path, programmes, kills, met):
    env = {**os.environ, "LD_PRELOAD": str(faults.build_shim(tmp_path))}
    folder = faults.scratch()
    out = subprocess.run([sys.executable, faults.HERE / "faults.py", folder,
                          "--points", "1", "--seed", "5", "--mode", "WAL",
                          "--only", f"sync_{programmes}"], env=env, capture_output=True,
                         text=True)
    shutil.rmtree(folder, ignore_errors=True)
    assert out.returncode == 0, out.stderr[-4000:]
    told = json.loads(out.stdout)
    assert told["violations"] == []
    assert told["tried"]["kill"] >= kills and told["met"] >= met, told
