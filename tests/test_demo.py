# SPDX-License-Identifier: MIT
"""`make demo` keeps what its script promises."""
import os
import subprocess

import pytest
from conftest import ROOT

pytestmark = pytest.mark.once  # it runs in the stock shell


def demo(tmp_path, **env):
    return subprocess.run(
        ["/usr/bin/python3", ROOT / "tools" / "demo" / "run.py"], text=True,
        env={**os.environ, "OUT": str(tmp_path / "out"), **env},
        capture_output=True)


@pytest.mark.skipif(not os.path.isdir("/usr/share/common-licenses"),
                    reason="the licence texts are Debian's")
def test_the_demo_tells_its_story_to_the_end(tmp_path):
    done = demo(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Now you" in done.stdout
    assert max(len(line) for line in done.stdout.split("\n")
               if line.startswith(("│", "┌", "─"))) <= 80
    assert sorted(os.listdir(tmp_path / "out"))[:2] == ["laptop.db",
                                                        "phone.db"]


def test_the_demo_takes_a_folder_of_the_user_s(tmp_path):
    folder = tmp_path / "it's mine"
    folder.mkdir()
    (folder / "tea.md").write_text("# Tea\n\nSencha at seventy degrees.\n")
    done = demo(tmp_path, DIR=str(folder), Q="sencha")
    assert done.returncode == 0, done.stderr
    assert "/documents/tea.md" in done.stdout


def test_the_demo_stops_where_a_promise_is_broken(tmp_path):
    (tmp_path / "empty").mkdir()
    done = demo(tmp_path, DIR=str(tmp_path / "nothing"))
    assert done.returncode == 1
    assert "cannot open" in done.stdout
