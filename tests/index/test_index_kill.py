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
sys.path.insert(0, str(HERE.parent / "proving"))
import faults  # noqa: E402

STRIDE = "1" if os.environ.get("CHOIR_INDEX_FULL") else "211"


@pytest.mark.inprocess
@pytest.mark.once
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux shim")
def test_a_kill_at_any_write_leaves_index_and_table_in_agreement(tmp_path):
    shim = faults.build_shim(tmp_path)
    env = {**os.environ, "LD_PRELOAD": str(shim)}
    out = subprocess.run([sys.executable, HERE / "kill_driver.py",
                          tmp_path / "run", shim, STRIDE], env=env,
                         capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-4000:]
    assert min(json.loads(out.stdout).values()) >= 2, out.stdout
