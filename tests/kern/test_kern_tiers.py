# SPDX-License-Identifier: MIT
"""Every kernel tier agrees with a double-precision reference."""
import shutil
import subprocess

import pytest

from conftest import ROOT


def build(tmp_path, name, *flags):
    cc = shutil.which("gcc") or shutil.which("clang-14") or shutil.which("cc")
    if cc is None:
        pytest.skip("no C compiler")
    out = tmp_path / name
    sources = sorted(map(str, (ROOT / "ext/kern").glob("*.c")))
    subprocess.run([cc, "-O2", *flags, *sources,
                    str(ROOT / "tests/kern/kern_test.c"), "-o", str(out),
                    "-lm"], check=True)
    return out


def run(program):
    done = subprocess.run([str(program)], capture_output=True, text=True)
    print(done.stdout)
    return done


def test_every_tier_of_this_machine_is_within_its_error_bound(tmp_path):
    done = run(build(tmp_path, "kern_test"))
    assert done.returncode == 0, done.stdout
    assert "tier scalar  executed" in done.stdout


def test_avx512_logic_holds_when_its_intrinsics_are_emulated(tmp_path):
    flags = open("/proc/cpuinfo").read()
    if "avx2" not in flags or "f16c" not in flags:
        pytest.skip("emulating AVX-512 needs AVX2")
    done = run(build(tmp_path, "kern_emulated", "-DKERN_EMULATE",
                     f"-I{ROOT / 'tests/kern'}", "-mavx2", "-mfma", "-mf16c",
                     "-Wno-psabi"))
    assert done.returncode == 0, done.stdout
    assert "tier v4      executed" in done.stdout
    assert "tier vnni    executed" in done.stdout
