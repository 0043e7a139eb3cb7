# SPDX-License-Identifier: MIT
"""The README's SQL runs, in order, in the stock shell on one file."""
import os
import re
import shutil
import subprocess

import pytest
from conftest import ROOT, SO

SQLITE3 = shutil.which("sqlite3", path="/usr/bin:/bin:" + os.environ["PATH"])
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


@pytest.mark.once
def test_the_readme_s_sql_runs_and_its_first_result_is_as_printed(tmp_path):
    os.symlink(SO, tmp_path / "choir.so")
    os.symlink(ROOT / "docs", tmp_path / "docs")
    script = "\n".join(["-- block %d\n%s" % (i, b) for i, b in
                        enumerate(blocks("sql"))])
    script = script.replace("/tmp/", f"{tmp_path}/")
    done = subprocess.run(
        [SQLITE3, "-bail", "-cmd", ".mode box", "notes.db"],
        input=script, text=True, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert blocks("text")[0] in done.stdout


@pytest.mark.once
def test_the_readme_s_python_runs(tmp_path):
    os.symlink(SO, tmp_path / "choir.so")
    done = subprocess.run(["/usr/bin/python3", "-c", blocks("python")[0]],
                          cwd=tmp_path, text=True, capture_output=True)
    assert done.stdout.startswith("/notes/tea.md 0."), done.stderr


def test_every_file_the_readme_names_exists():
    for target in re.findall(r"`(tests/[^`]+|tools/[^` ]+)`", README):
        assert (ROOT / target).exists(), target


def prose(page):
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)


def anchors(page):
    """The headings of a page as GitHub names them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", prose(page), re.M)}


def test_every_link_of_the_docs_leads_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in
             re.findall(r"\]\(\s*(?!https?:)([^)\s]+)\s*\)", prose(page))]
    assert len(links) > 200
    for page, link in links:
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), (page.name, link)
        assert not anchor or anchor in anchors(target), (page.name, link)
