# SPDX-License-Identifier: MIT
"""kill -9 at any write of a change of the index: it and the table agree.

CHOIR_INDEX_FULL=1 tries every call that changes a file; by default one in 211.
kill_driver.py says what must hold after each."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
STRIDE = "1" if os.environ.get("CHOIR_INDEX_FULL") else "211"


@pytest.mark.inprocess
@pytest.mark.once
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux shim")
def test_a_kill_at_any_write_leaves_index_and_table_in_agreement(tmp_path):
    shim = tmp_path / "shim.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", shim,
                    HERE.parent / "sync/fault_shim.c", "-ldl"], check=True)
    env = {**os.environ, "LD_PRELOAD": str(shim)}
    out = subprocess.run([sys.executable, HERE / "kill_driver.py",
                          tmp_path / "run", shim, STRIDE], env=env,
                         capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-4000:]
    assert min(json.loads(out.stdout).values()) >= 2, out.stdout
