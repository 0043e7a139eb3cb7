# SPDX-License-Identifier: MIT
"""Loading: nothing is opened, nothing is written, any order, any moment."""
import json
import pathlib
import subprocess
import sys

import pytest

from conftest import DRIVER, ROOT, SANITIZED, SO, Db

pytestmark = pytest.mark.inprocess


def vec0():
    """sqlite-vec's library, where tools/setup.sh put it."""
    found = list(ROOT.glob("build/venv/lib/python3*/site-packages/"
                           "sqlite_vec/vec0.*"))
    if not found:
        pytest.skip("sqlite-vec is not in build/venv; run tools/setup.sh")
    return str(found[0])


# In a process of its own: this one has loaded everything already.
MAPS = """
import sqlite3, sys
def libraries():
    return {l.split()[-1] for l in open("/proc/self/maps") if ".so" in l}
def rss():  # statm's counters are approximate
    return sum(int(l.split()[1]) << 10 for l in open("/proc/self/smaps_rollup")
               if l.startswith("Rss:"))
c = sqlite3.connect(":memory:", isolation_level=None)
c.execute("SELECT * FROM pragma_function_list").fetchall()
c.enable_load_extension(True)
before, memory = libraries(), rss()
c.load_extension(sys.argv[1])
grown = rss() - memory
new = {l for l in libraries() - before if not l.endswith("/choir.so")}
new = {l for l in new if not any(s in l for s in sys.argv[2:])}
threads = len(__import__("os").listdir("/proc/self/task"))
print(sorted(new), threads, grown)
c.close()
"""


# libm comes with choir.so; a sanitizer brings its own libraries and memory.
EXPECTED = ["/libm."] + ["san.so", "/libstdc++", "/libgcc_s"] * SANITIZED


def in_a_new_process():
    return subprocess.run([sys.executable, "-c", MAPS, SO, *EXPECTED],
                          check=True, capture_output=True, text=True).stdout


def test_loading_opens_no_library_and_starts_no_thread():
    libraries, rest = in_a_new_process().split("] ")
    assert libraries == "["
    assert rest.split()[0] == "1"


def test_loading_costs_at_most_a_megabyte():
    grown = [int(in_a_new_process().split()[-1]) for _ in range(3)]
    assert SANITIZED or min(grown) <= 1 << 20


def test_loading_writes_nothing(tmp_path, open_db):
    path = tmp_path / "host.db"
    d = open_db(path, choir=False)
    d.run("CREATE TABLE mine(x); INSERT INTO mine VALUES(1)")
    d.close()
    before = path.read_bytes()
    d = open_db(path)
    assert d.rows("SELECT x FROM mine") == [(1,)]
    d.one("SELECT choir_version()")
    d.close()
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "host.db"]
    assert list(pathlib.Path(tmp_path / "home").iterdir()) == []


def test_loading_twice_is_fine(open_db):
    d = open_db(init=True)
    d.one("SELECT choir_config('user', 'ada')")
    d.load(SO)
    assert d.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
    d.one("SELECT setting_set('a', 1)")


def test_two_connections_load_and_close_in_any_order(tmp_path):
    a, b = (Db(tmp_path / "ws.db", init=True) for _ in range(2))
    a.one("SELECT setting_set('a', 1)")
    a.close()
    assert b.one("SELECT setting_get('a')") in (1, "1")
    b.close()


def loaded_by_sql(d, path, entry=None):
    if DRIVER == "apsw":
        d.con.enableloadextension(True)
    else:
        d.con.enable_load_extension(True)
    return d.rows("SELECT load_extension(?, ?)", path, entry) if entry else \
        d.rows("SELECT load_extension(?)", path)


def test_loading_while_a_statement_runs(open_db):
    d = open_db(choir=False)
    d.run("CREATE TABLE n(i); INSERT INTO n VALUES(1),(2),(3)")
    reading = d.con.execute("SELECT i FROM n")
    next(reading)
    loaded_by_sql(d, SO)
    assert len(list(reading)) == 2
    d.one("SELECT choir_init()")
    assert d.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'


def test_inside_a_transaction_of_the_host(open_db):
    d = open_db(choir=False)
    d.run("BEGIN; CREATE TABLE n(i)")
    loaded_by_sql(d, SO)
    d.one("SELECT choir_init()")
    d.run("ROLLBACK")
    assert d.rows("SELECT name FROM sqlite_schema") == []


COPY = """
import json, pathlib, shutil, sys
sys.path[:0] = [sys.argv[1]]
from conftest import SO, Db
folder = pathlib.Path(sys.argv[2])
shutil.copy(SO, folder / "what-ever.so")
(folder / "remote").mkdir()
url = f"file://{folder}/remote/"
a = Db(folder / "a.db", init=True, uri=True)
b = Db(folder / "b.db", choir=False, uri=True)
b.load(folder / "what-ever.so")
a.one("SELECT setting_set('colour', 'blue')")
a.one("SELECT sync_push(?)", url)
names = []
for d in a, b:
    names += [d.one("SELECT sync_at(1, ?)", url)]
    d.rows("ATTACH ? AS old", names[-1])
    names += [d.one("SELECT setting_value FROM old.user_settings")]
print(json.dumps(names))
"""


@pytest.mark.inprocess
@pytest.mark.once
def test_a_copy_under_any_name_loads_beside_the_first(tmp_path):
    """Each has a VFS for the versions that its own connections attach."""
    out = subprocess.run([sys.executable, "-c", COPY, ROOT / "tests", tmp_path],
                         capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    one, value, two, again = json.loads(out.stdout)
    assert value == again == "blue"
    assert "vfs=choir_at&" in one and "vfs=choir_at2&" in two


def test_the_read_only_entry_point_offers_no_writing(open_db):
    d = open_db(entry="sqlite3_choir_readonly_init")
    assert d.one("SELECT choir_version()")
    for name in ("choir_init", "setting_set", "artifact_put_file"):
        assert "no such function" in d.error(f"SELECT {name}(1)") or \
            "wrong number" in d.error(f"SELECT {name}(1)")


def shared_names(d):
    return d.one("SELECT detail FROM choir_doctor"
                 " WHERE \"check\" = 'shared names'")


@pytest.mark.parametrize("order", ["sqlite-vec first", "choir first"])
def test_sqlite_vec_loads_beside_choir(open_db, order):
    d = open_db(choir=False)
    for path in [vec0(), SO][::1 if order == "sqlite-vec first" else -1]:
        d.load(path)
    assert d.one("SELECT vec_distance_l2('[0,0]', '[3,4]')") == 5.0
    d.run("CREATE VIRTUAL TABLE v USING vec0(e float[2]);"
          "INSERT INTO v(rowid, e) VALUES(1, '[0,0]'), (2, '[3,4]')")
    assert d.rows("SELECT rowid, distance FROM v WHERE e MATCH '[0,1]'"
                  " AND k = 1") == [(1, 1.0)]
    assert d.one("SELECT choir_version()")


def test_sqlite_vec_keeps_its_names_when_choir_comes_while_statements_run(
        open_db):
    d = open_db(choir=False)
    loaded_by_sql(d, vec0())
    loaded_by_sql(d, SO)
    assert d.one("SELECT vec_distance_l2('[0,0]', '[3,4]')") == 5.0
    if d.one("SELECT count(*) FROM choir_help WHERE name = 'vec_length'"):
        assert "vec_length" in shared_names(d)


def test_choir_first_by_sql_then_sqlite_vec_says_who_was_there(open_db):
    """SQLite refuses to replace a function while a statement runs; choir
    cannot mend the other's order, and works on."""
    d = open_db(choir=False)
    loaded_by_sql(d, SO)
    if d.one("SELECT count(*) FROM choir_help WHERE name = 'vec_length'"):
        try:
            loaded_by_sql(d, vec0())
        except d.failure as e:
            assert "unable to delete/modify" in str(e) or "error" in str(e)
    assert d.one("SELECT choir_version()")
