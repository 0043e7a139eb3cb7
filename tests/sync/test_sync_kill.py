# SPDX-License-Identifier: MIT
"""kill -9, a full disk or an I/O error at any system call of a push or pull.

CHOIR_SYNC_FAULTS=1 tries every call (about 16,000 faults); by default every
251st. fault_driver.py says what must hold after each."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
STRIDE = {"1": "1"}.get(os.environ.get("CHOIR_SYNC_FAULTS", ""), "251")


@pytest.mark.inprocess
@pytest.mark.once
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux shim")
@pytest.mark.parametrize("remote", ["plain", "folder", "crypt"])
def test_a_fault_at_any_call_leaves_the_old_or_the_new_state(tmp_path, remote):
    shim = tmp_path / "shim.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", shim,
                    HERE / "fault_shim.c", "-ldl"], check=True)
    stride = "751" if remote == "crypt" and STRIDE != "1" else STRIDE
    env = {**os.environ, "LD_PRELOAD": str(shim)}
    out = subprocess.run([sys.executable, HERE / "fault_driver.py",
                          tmp_path / "run", shim, stride, remote], env=env,
                         capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-4000:]
    tried = json.loads(out.stdout)
    least = 8 if stride == STRIDE else 3
    assert tried["kill"] >= least and tried["half write"] >= least, tried
