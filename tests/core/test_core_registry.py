# SPDX-License-Identifier: MIT
"""What choir registers is what choir_help() lists and the doc blocks explain;
the checkers of `make check` find what they are there for."""
import shutil
import sqlite3
import sys

import pytest

from conftest import OMIT_NET, ROOT, SO

sys.path.insert(0, str(ROOT / "tools"))
import docs  # noqa: E402
import layers  # noqa: E402
import lint  # noqa: E402
import requirements  # noqa: E402
import surface  # noqa: E402


def test_help_lists_every_documented_function_with_its_kind_and_risk(db):
    want = {(name, kind, risk) for b, _, name, kind, risk in docs.entries()
            if not (OMIT_NET and b.room in docs.NET)}
    assert set(db.rows("SELECT name, kind, risk FROM choir_help")) == want
    assert not [row for row in want if row[2] == "unknown"]


def test_every_function_that_help_lists_can_be_found(db):
    functions = {r[0] for r in db.rows("SELECT name FROM pragma_function_list")}
    modules = {r[0] for r in db.rows("SELECT name FROM pragma_module_list")}
    for name, kind in db.rows("SELECT name, kind FROM choir_help"):
        assert name in (modules if kind in ("table", "module") else functions), name


def test_help_finds_by_name_first_and_knows_misspelt_names(db):
    assert [name for name, in db.rows(
        "SELECT name FROM choir_help('artifact_PUT')")][:2] == [
            "artifact_put", "artifact_put_file"]
    names = [name for name, in db.rows("SELECT name FROM choir_help('sync')")]
    room = [name.startswith("sync_") or name == "choir_backup" for name in names]
    assert room == sorted(room, reverse=True) and not all(room)
    assert db.error("SELECT * FROM choir_help('artifact_putt')") == (
        "choir_help: nothing is about 'artifact_putt'; did you mean"
        " 'artifact_put'?")
    assert db.error("SELECT * FROM choir_help('no such thing')") == (
        "choir_help: nothing is about 'no such thing'; select name, summary"
        " from choir_help")
    assert "did you mean" not in db.error(
        "SELECT * FROM choir_help(hex(zeroblob(500)))")
    assert db.error("SELECT * FROM choir_help(x'00')") == (
        "choir_help: topic must be text, got blob")


@pytest.mark.inprocess
@pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 40, 1), reason="SQLite")
def test_the_surface_of_the_file_is_the_documented_one():
    assert list(surface.problems(SO)) == []


def ext_copy(tmp_path):
    shutil.copytree(ROOT / "ext", tmp_path / "ext")
    return tmp_path / "ext"


@pytest.mark.inprocess
@pytest.mark.parametrize("room, include", [
    ("core", "../store/store.h"),   # upward
    ("store", "../embed/embed.h"),  # a sibling
])
def test_a_planted_include_against_the_layers_is_found(tmp_path, room, include):
    ext = ext_copy(tmp_path)
    assert list(layers.problems(ext)) == []
    (ext / room / f"{room}_planted.c").write_text(f'#include "{include}"\n')
    assert any(f"{room} may not include" in p for p in layers.problems(ext))


@pytest.mark.inprocess
@pytest.mark.parametrize("planted, found", [
    ("static int f(void) { goto end; }\n", "goto is banned"),
    ("static char *f(void) { return malloc(3); }\n", "malloc is banned"),
    ("static int f(void) {\n" + "  g();\n" * 80 + "}\n", "has 82 lines"),
    ("int i;\n" * 1001, "lines, at most 1000"),
    ("static int coreVersion(void) {\n  return 1;\n}\n", "is also in"),
    ("/* TO" "DO */\n", "does not belong here"),
])
def test_a_planted_breach_of_the_house_rules_is_found(tmp_path, planted, found):
    ext = ext_copy(tmp_path)
    (ext / "core/core_zz.c").write_text(
        "/* SPDX-License-Identifier: MIT */\n/*\n** Planted.\n*/\n" + planted)
    assert any(found in p and "core_zz" in p for p in lint.problems(tmp_path))


@pytest.mark.inprocess
@pytest.mark.parametrize("was, planted, found", [
    ("| 76 |", "| 75 |", "the numbers are not 1 to 76"),
    ("`cache_set`", "`cache_sett`", "no function, table or view cache_sett"),
    ("::test_values_expire", "::test_values_stay", "is no test of that file"),
    ("tests/test_readme.py", "tests/test_me.py", "is no file of tests/"),
    ("| yes |", "| |", "status must be yes, part: … or no: …, got"),
])
def test_a_planted_error_in_the_requirements_is_found(tmp_path, was, planted, found):
    (tmp_path / "docs").mkdir()
    for name in ("docs/reference", "sql", "ext", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    text = (ROOT / "docs/requirements.md").read_text()
    page = tmp_path / "docs/requirements.md"
    page.write_text(text)
    assert list(requirements.problems(tmp_path)) == []
    page.write_text(text.replace(was, planted, 1))
    assert any(found in p for p in requirements.problems(tmp_path))
