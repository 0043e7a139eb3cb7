# SPDX-License-Identifier: MIT
"""choir_lock() turns off everything that reaches out, for good."""
import re


def calls(d):
    """A call of every function of class effect, with NULLs for arguments."""
    for name, kind, signature in d.rows(
            "SELECT name, kind, signature FROM choir_help"
            " WHERE risk = 'effect' AND kind <> 'module'"):
        inside = re.search(r"\((.*?)\)(?: ->|$)", signature)
        required = re.sub(r"\[.*", "", inside.group(1) if inside else "")
        n = len([a for a in required.split(",") if a.strip()])
        call = f"{name}({', '.join(['NULL'] * n)})"
        yield name, (f"SELECT * FROM {call}" if kind == "table"
                     else f"SELECT {call}")


def test_every_effect_is_refused_after_choir_lock(db):
    assert db.one("SELECT choir_lock()") == 1
    n = 0
    for name, sql in calls(db):
        assert db.error(sql) == (
            f"{name}: this connection is locked; effects were turned off by"
            " choir_lock()"), sql
        n += 1
    assert n > 0


def test_locking_twice_is_fine_and_local_work_goes_on(db):
    db.one("SELECT choir_lock()")
    assert db.one("SELECT choir_lock()") == 1
    db.one("SELECT setting_set('theme', 'dark')")
    assert db.one("SELECT setting_get('theme')") == "dark"


def test_a_lock_belongs_to_its_connection(open_db, tmp_path):
    a = open_db(tmp_path / "ws.db", init=True)
    b = open_db(tmp_path / "ws.db")
    a.one("SELECT choir_lock()")
    (tmp_path / "f.txt").write_text("words")
    assert b.one("SELECT artifact_put_file('f.txt', ?)",
                 str(tmp_path / "f.txt"))
