# SPDX-License-Identifier: MIT
"""Runs tests/unit/anchor_test.c: a host in C closes its connections cleanly."""
import os
import shutil
import subprocess

import pytest

from conftest import ROOT, SO


@pytest.mark.skipif(not shutil.which(os.environ.get("CC", "cc")),
                    reason="no C compiler")
@pytest.mark.once
def test_a_host_in_c_closes_cleanly(tmp_path):
    program = tmp_path / "anchor_test"
    subprocess.run([os.environ.get("CC", "cc"), "-o", program,
                    ROOT / "tests/unit/anchor_test.c", "-lsqlite3",
                    "-lcmocka"], check=True)
    run = subprocess.run([program], env=dict(os.environ, CHOIR_SO=SO),
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
