# SPDX-License-Identifier: MIT
"""Nested state: paths, levels, the tree, checkpoints, seeds, damage."""
import json
import os
import random

import pytest
from conftest import Db


def live(db):
    return json.loads(db.one("SELECT state_all()"))


@pytest.mark.parametrize("value, got, kind", [
    (7, 7, "integer"), (2**63 - 1, 2**63 - 1, "integer"), (0.1 + 0.2, 0.1 + 0.2, "real"),
    (5e-324, 5e-324, "real"), (1.0, 1.0, "real"), ("text", "text", "text"),
    ('"quoted"', '"quoted"', "text"), ("", "", "text"), ("{not json", "{not json", "text"),
    ('é "\\\n', 'é "\\\n', "text"), (None, None, "null"),
    ('{"a":[1]}', '{"a":[1]}', "text"), ("[1, 2]", "[1,2]", "text"),
])
def test_a_value_comes_back_as_what_it_was(db, value, got, kind):
    db.one("SELECT state_set('k', '$.a.b', ?)", value)
    assert db.rows("SELECT state_get('k', '$.a.b'), typeof(state_get('k', '$.a.b'))") == [(got, kind)]
    db.one("SELECT state_set('whole', '$', ?)", value)
    assert db.one("SELECT state_get('whole')") == got


def test_json_functions_say_what_text_means(db):
    db.one("SELECT state_set('k', '$.t', json('true')), state_set('k', '$.q', json_quote('[1]')),"
           " state_set('k', '$.s', json('\"x\"'))")
    assert live(db) == {"k": {"t": True, "q": "[1]", "s": "x"}}
    assert db.one("SELECT json_object('k', state_get('k', '$'))") == (
        '{"k":{"t":true,"q":"[1]","s":"x"}}')


def test_parents_are_made_and_arrays_grow(db):
    for path, value in (("$.a.b.c", 1), ("$.a.list[0]", 2), ("$.a.list[#]", 3), ("$.a.list[1]", 4)):
        assert db.one("SELECT state_set('k', ?, ?)", path, value) == 1
        assert db.one("SELECT state_set('k', ?, ?)", path.replace("[#]", "[1]"),
                      value) == 0
    assert live(db) == {"k": {"a": {"b": {"c": 1}, "list": [2, 4]}}}
    db.one("SELECT state_set('l', '$[0]', 1)")
    assert db.one("SELECT state_get('l')") == "[1]"


def test_delete_takes_a_path_or_the_key(db):
    db.one("""SELECT state_set('k', '$', '{"a":1,"b":[1,2]}')""")
    assert db.one("SELECT state_delete('k', '$.b[0]')") == 1
    assert db.one("SELECT state_delete('k', '$.none')") == 0
    assert live(db) == {"k": {"a": 1, "b": [2]}}
    assert db.one("SELECT state_delete('k')") == 1
    assert db.one("SELECT state_delete('k')") == 0
    assert live(db) == {}
    assert db.rows("SELECT state_get('k'), state_get('k', '$.a')") == [(None, None)]


@pytest.mark.parametrize("call, problem", [
    ("state_get('')", "key must have 1 to 1000 bytes, got 0"),
    ("state_get(NULL)", "key must be text, got null"),
    ("state_get('k', 'a')", "json_path must begin with $, got 'a'; write '$.a'"),
    ("state_set('k', 'a.b', 1)", "json_path must begin with $, got 'a.b'; write '$.a.b'"),
    ("state_set('k', '$.n.x', 1)", "nothing can be put at $.n.x; what is above it is not an"
     " object, or an array that ends earlier"),
    ("state_set('k', '$.l[5]', 1)", "nothing can be put at $.l[5]; what is above it is not an"
     " object, or an array that ends earlier"),
    ("state_set('k', '$.a', x'00')", "value must be text, got blob"),
    ("state_set('k', '$.a', 9e999)", "value must be finite, got Inf"),
    ("state_set('k', '$.a', 'a' || char(0))", "value has a NUL character at byte 1"),
    ("state_level('k', 4)", "level must be 1 to 3, got 4"),
    ("state_level('k', 'L4')", "level must be 1, 2, 3 or L1, L2, L3, got 'L4'"),
    ("state_level('none', 1)", "no key 'none'; see state_set"),
    ("state_all(0)", "level must be 1 to 3, got 0"),
    ("state_checkpoint('seed')", "the checkpoint seed is kept by state_import; choose another name"),
    ("state_restore('none')", "no checkpoint 'none'; see state_checkpoints"),
    ("state_checkpoint_drop('none')", "no checkpoint 'none'; see state_checkpoints"),
    ("state_import('[1]')", "cannot read [1]: No such file or directory"),
    ("state_import('{')", "the text is not valid JSON"),
    ("state_import('{}', 'x')", "mode must be seed or replace, got 'x'"),
    ("state_import(NULL)", "json_or_file must be text, got null"),
    ("server_state_get('s', NULL)", "key must be text, got null"),
    ("server_state_set('', 'k', 1)", "server must have 1 to 1000 bytes, got 0"),
])
def test_what_is_refused(db, call, problem):
    db.one("""SELECT state_set('k', '$', '{"n":1,"l":[]}')""")
    assert db.error(f"SELECT {call}") == f"{call.split('(')[0]}: {problem}"
    assert live(db) == {"k": {"n": 1, "l": []}}


def test_bad_paths_are_sqlite_s_errors(db):
    db.one("SELECT state_set('k', '$', '{}')")
    assert "path" in db.error("SELECT state_get('k', '$x')")
    assert "path" in db.error("SELECT state_set('k', '$x', 1)")


def test_levels_contain_each_other(db):
    for key, level in (("Identity", 1), ("Persona", "L2"), ("Context", 3)):
        db.one("SELECT state_set(?, '$', 1)", key)
        db.one("SELECT state_level(?, ?)", key, level)
    assert [sorted(json.loads(db.one("SELECT state_all(?)", n))) for n in (1, "l2", 3, None)] == [
        ["Identity"], ["Identity", "Persona"], ["Context", "Identity", "Persona"],
        ["Context", "Identity", "Persona"]]
    assert db.one("SELECT state_level('Identity', 'L1')") == 0
    db.one("SELECT state_set('Identity', '$', 2)")
    assert db.one("SELECT level FROM state_storage WHERE key_name = 'Identity'") == 1


def test_the_tree_has_every_node_below_its_parent(db):
    db.one("""SELECT state_set('k', '$', '{"a":{"b":[1,{"c":null}]},"d":true,"e":1.5}')""")
    assert db.rows("SELECT depth, path, parent, name, type, value FROM state_tree('k')") == [
        (0, "$", None, None, "object", None),
        (1, "$.a", "$", "a", "object", None),
        (2, "$.a.b", "$.a", "b", "array", None),
        (3, "$.a.b[0]", "$.a.b", 0, "integer", 1),
        (3, "$.a.b[1]", "$.a.b", 1, "object", None),
        (4, "$.a.b[1].c", "$.a.b[1]", "c", "null", None),
        (1, "$.d", "$", "d", "true", 1),
        (1, "$.e", "$", "e", "real", 1.5)]
    assert db.rows("SELECT * FROM state_tree('none')") == []


def test_server_state_keeps_types_and_servers_apart(db):
    for value in (1, 1.5, "x", b"\0\1"):
        assert db.one("SELECT server_state_set('a', 'last_sync_time', ?)", value) == 1
        assert db.one("SELECT server_state_set('a', 'last_sync_time', ?)", value) == 0
        assert db.one("SELECT server_state_get('a', 'last_sync_time')") == value
    assert db.one("SELECT server_state_get('b', 'last_sync_time')") is None
    assert db.one("SELECT server_state_set('a', 'last_sync_time', NULL)") == 1
    assert db.one("SELECT count(*) FROM server_state") == 0


# -------------------------------------------------------------- checkpoints


def test_any_checkpoint_gives_back_exactly_what_was_there(db):
    """Random states, checkpoints made, dropped and restored in any order."""
    rng = random.Random(4)
    kept = {}

    def table():
        return db.rows("SELECT key_name, value_json, level FROM state_storage")

    for step in range(300):
        key = f"k{rng.randrange(6)}"
        do = rng.randrange(10)
        if do < 5:
            db.one("SELECT state_set(?, ?, ?)", key, rng.choice(["$.a", "$.b.c"]), rng.randrange(3))
            db.one("SELECT state_level(?, ?)", key, rng.randrange(1, 4))
        elif do == 5:
            db.one("SELECT state_delete(?)", key)
        elif do < 8:
            db.one("SELECT state_checkpoint(?)", f"p{step}")
            kept[f"p{step}"] = table()
        elif kept:
            name = rng.choice(sorted(kept))
            if do == 8:
                db.one("SELECT state_restore(?)", name)
                assert table() == kept[name]
                assert db.rows("SELECT * FROM state_diff(?, NULL)", name) == []
            elif len(kept) > 3:
                db.one("SELECT state_checkpoint_drop(?)", name)
                del kept[name]
    for name, rows in kept.items():
        db.one("SELECT state_restore(?)", name)
        assert table() == rows
    assert {n for n, in db.rows("SELECT name FROM state_checkpoints")} == set(kept)
    for name in kept:
        db.one("SELECT state_checkpoint_drop(?)", name)
    assert db.rows("SELECT (SELECT count(*) FROM state_versions),"
                   " (SELECT count(*) FROM state_values)") == [(0, 0)]


def test_keys_that_did_not_change_cost_nothing(db):
    for i in range(200):
        db.one("SELECT state_set(?, '$', printf('%.*c', 1000, 'x'))", f"k{i}")
    assert db.one("SELECT state_checkpoint('a')") == 200
    pages = db.one("PRAGMA page_count")
    for i in range(50):
        assert db.one("SELECT state_checkpoint(?)", f"b{i}") == 0
    assert db.one("PRAGMA page_count") - pages <= 2
    db.one("SELECT state_set('k7', '$', 1)")
    assert db.one("SELECT state_checkpoint('c')") == 1
    db.one("SELECT state_delete('k8')")
    assert db.one("SELECT state_checkpoint('gone')") == 1
    db.one("SELECT state_restore('a')")
    values = db.one("SELECT count(*) FROM state_values")
    db.one("SELECT state_checkpoint('d')")
    assert db.one("SELECT count(*) FROM state_values") == values  # one value of 200 equal ones


def test_a_diff_tells_leaf_by_leaf(db):
    db.one("""SELECT state_set('k', '$', '{"same":1,"n":1,"gone":[1,2],"e":{}}')""")
    db.one("SELECT state_set('old', '$', 'x'), state_checkpoint('a')")
    db.one("""SELECT state_set('k', '$', '{"same":1,"n":"1","e":[],"new":null}')""")
    db.one("SELECT state_level('k', 1), state_delete('old'), state_set('young', '$', 2)")
    db.one("SELECT state_checkpoint('b')")
    rows = db.rows("SELECT * FROM state_diff('a', 'b')")
    assert rows == [
        ("k", None, "level", 3, 1), ("k", "$.e", "changed", "{}", "[]"),
        ("k", "$.gone[0]", "removed", 1, None), ("k", "$.gone[1]", "removed", 2, None),
        ("k", "$.n", "changed", 1, "1"), ("k", "$.new", "added", None, None),
        ("old", "$", "removed", "x", None), ("young", "$", "added", None, 2)]
    db.run("CREATE TABLE json_tree(x)")  # takes no place of SQLite's
    assert db.rows("SELECT * FROM state_diff('a', NULL)") == rows
    assert len(db.rows("SELECT * FROM state_diff(NULL, 'a')")) == len(rows)
    assert db.rows("SELECT * FROM state_diff('a', 'a')") == []
    assert db.rows("SELECT * FROM state_diff(NULL, NULL)") == []


def test_a_name_is_taken_once(db):
    db.one("SELECT state_checkpoint('a')")
    assert "there is a checkpoint 'a'; choose another name" in db.error("SELECT state_checkpoint('a')")


def test_a_corrupt_value_is_read_from_a_checkpoint_and_mended_by_writing(db):
    db.one("""SELECT state_set('k', '$', '{"a":1}'), state_checkpoint('good')""")
    db.run("UPDATE state_storage SET value_json = '{\"a\":'")
    assert db.rows("SELECT state_get('k'), state_get('k', '$.a'), state_all()") == [
        ('{"a":1}', 1, '{"k":{"a":1}}')]
    assert db.rows("SELECT count(*) FROM state_tree('k')") == [(2,)]
    assert {"part": "store", "problem": "the value of state key k is not JSON"} in json.loads(
        db.one("SELECT choir_check()"))["problems"]
    assert db.one("SELECT state_set('k', '$.b', 2)") == 1
    assert db.one("SELECT value_json FROM state_storage") == '{"a":1,"b":2}'
    db.run("UPDATE state_storage SET value_json = 'x'")
    assert db.one("SELECT state_delete('k', '$.a')") == 1
    assert db.one("SELECT value_json FROM state_storage") == "{}"
    db.run("UPDATE state_storage SET value_json = 'x'")
    assert db.one("SELECT state_restore('good')") == 1
    assert db.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'


def test_a_corrupt_value_without_a_checkpoint_is_an_error_that_says_so(db):
    db.run("INSERT INTO state_storage(key_name, value_json) VALUES('k', 'x')")
    for call in ("state_get('k')", "state_set('k', '$.a', 1)", "state_all()",
                 "state_delete('k', '$.a')", "state_checkpoint('p')", "state_export()"):
        assert ("the value of key 'k' is not JSON and no checkpoint has another; put one by"
                " select state_set('k', '$', …)") in db.error("SELECT " + call)
    assert db.one("SELECT state_set('k', '$', 1), state_get('k')") == 1
    assert db.one("SELECT state_get('k')") == 1


def test_a_damaged_checkpoint_restores_nothing(db):
    db.one("SELECT state_set('a', '$', 1), state_set('b', '$', 2), state_checkpoint('p')")
    db.one("SELECT state_set('a', '$', 3), state_set('b', '$', 4)")
    db.run("UPDATE state_values SET value_json = '9' WHERE value_json = '2'")
    assert db.error("SELECT state_restore('p')") == (
        "state_restore: checkpoint 'p' has a damaged value for key 'b'; nothing was restored")
    assert live(db) == {"a": 3, "b": 4}
    assert {"part": "store", "problem": "checkpoints have a damaged value for state key b"} in \
        json.loads(db.one("SELECT choir_check()"))["problems"]


def test_a_table_of_the_host_is_not_taken(db):
    db.run("CREATE TABLE state_versions(mine)")
    assert "state_versions already exists" in db.error("SELECT state_checkpoint('a')")
    assert db.rows("SELECT name FROM sqlite_schema WHERE name = 'state_points'") == []


# ---------------------------------------------------------- seeds and files


@pytest.fixture
def seeds(tmp_path):
    folder = tmp_path / "seeds"
    (folder / "stimuli").mkdir(parents=True)
    (folder / "Identity.json").write_text('{ "name": "Nola",\n "born": 1.0 }\n')
    (folder / "Persona.json").write_text('["warm"]')
    (folder / "stimuli" / "conversations.json").write_text('{"n": 0}')
    (folder / "readme.md").write_text("not state")
    (folder / ".hidden.json").write_text("{")
    return folder


def test_the_first_run_seeds_and_later_runs_keep_the_live_state(db, seeds):
    first = json.loads(db.one("SELECT state_import(?)", str(seeds)))
    assert first == {"from": str(seeds), "keys": 3, "new": 3, "changed": 0, "kept": 0, "problems": []}
    assert live(db) == {"Identity": {"name": "Nola", "born": 1.0}, "Persona": ["warm"],
                        "stimuli/conversations": {"n": 0}}
    db.one("SELECT state_set('Identity', '$.name', 'Nora'), state_delete('Persona')")
    (seeds / "Context.json").write_text("{}")
    (seeds / "Identity.json").write_text('{"name": "Nina"}')
    again = json.loads(db.one("SELECT state_import(?)", str(seeds)))
    assert (again["new"], again["changed"], again["kept"]) == (1, 0, 3)
    assert live(db) == {"Identity": {"name": "Nora", "born": 1.0}, "Context": {},
                        "stimuli/conversations": {"n": 0}}
    db.one("SELECT state_restore('seed')")
    assert live(db) == {"Identity": {"name": "Nina"}, "Persona": ["warm"], "Context": {},
                        "stimuli/conversations": {"n": 0}}


def test_replace_takes_the_files_values(db, seeds):
    db.one("SELECT state_set('Persona', '$', 'mine'), state_set('Other', '$', 1)")
    got = json.loads(db.one("SELECT state_import(?, 'replace')", str(seeds)))
    assert (got["new"], got["changed"], got["kept"]) == (2, 1, 0)
    assert live(db)["Persona"] == ["warm"] and live(db)["Other"] == 1


def test_a_damaged_live_value_falls_back_to_its_seed(db, seeds):
    db.one("SELECT state_import(?)", str(seeds))
    db.run("UPDATE state_storage SET value_json = '{' WHERE key_name = 'Identity'")
    assert db.one("SELECT state_get('Identity', '$.name')") == "Nola"


def test_one_bad_file_and_nothing_is_imported(db, seeds):
    (seeds / "Z.json").write_text("{")
    assert db.error("SELECT state_import(?)", str(seeds)) == (
        f"state_import: {seeds}/Z.json is not valid JSON")
    assert live(db) == {} and db.rows("SELECT * FROM state_checkpoints") == []
    (seeds / "Z.json").write_bytes(b"\xff")
    assert "is not text in UTF-8" in db.error("SELECT state_import(?)", str(seeds))


def test_names_that_differ_by_case_and_links_are_reported(db, seeds):
    (seeds / "Stimuli").mkdir()
    (seeds / "link.json").symlink_to(seeds / "Identity.json")
    problems = json.loads(db.one("SELECT state_import(?)", str(seeds)))["problems"]
    assert problems == [
        {"file": f"{seeds}/link.json", "problem": "a symbolic link is not followed"},
        {"file": f"{seeds}/stimuli", "problem": "differs from Stimuli only by case"}]


def test_export_and_import_are_inverse(db, tmp_path, open_db, seeds):
    db.one("SELECT state_import(?)", str(seeds))
    db.one("SELECT state_set('odd \"key', '$', 'é')")
    out = tmp_path / "out"
    got = json.loads(db.one("SELECT state_export(?)", str(out)))
    assert (got["files"], got["written"], got["unchanged"], got["problems"]) == (4, 4, 0, [])
    assert json.loads(db.one("SELECT state_export(?)", str(out)))["unchanged"] == 4
    assert json.loads((out / "stimuli/conversations.json").read_text()) == {"n": 0}
    a, b = open_db(tmp_path / "a.db", init=True), open_db(tmp_path / "b.db", init=True)
    a.one("SELECT state_import(?)", str(out))
    b.one("SELECT state_import(?)", db.one("SELECT state_export()"))
    assert live(a) == live(b) == live(db)
    (tmp_path / "one.json").write_text(db.one("SELECT state_export()"))
    c = open_db(tmp_path / "c.db", init=True)
    c.one("SELECT state_import(?)", str(tmp_path / "one.json"))
    assert live(c) == live(db)


def test_keys_that_would_leave_the_folder_stay_home(db, tmp_path):
    for key in ("../up", "/abs", "a//b", "a/../b", "con\ntrol"):
        db.one("SELECT state_set(?, '$', 1)", key)
    got = json.loads(db.one("SELECT state_export(?)", str(tmp_path / "out")))
    assert got["files"] == 0 and got["skipped"]["refused"] == 5
    assert not (tmp_path / "up.json").exists()


def test_numbers_come_through_an_import_as_they_were_written(db):
    text = ('{"a":1e2,"b":12345678901234567890,"c":0.30000000000000004,'
            '"d":-9223372036854775808,"e":0}')
    db.one("SELECT state_import(?)", text)
    assert db.one("SELECT state_export()") == text


def test_tables_of_the_host_do_not_stand_for_sqlite_s_own(db):
    db.run("CREATE TABLE json_each(x); CREATE TABLE json_tree(x)")
    db.one("""SELECT state_import('{"a":{"b":1}}')""")
    assert db.rows("SELECT path, value FROM state_tree('a')") == [
        ("$", None), ("$.b", 1)]


def test_the_database_itself_is_never_opened(db, tmp_path):
    assert "belongs to a database that is open" in db.error(
        "SELECT state_import(?)", str(tmp_path / "ws.db"))


@pytest.mark.inprocess
def test_a_read_only_workspace_reads_and_does_not_write(db, tmp_path):
    db.one("SELECT state_set('k', '$', 1), state_checkpoint('p')")
    d = Db(f"file:{tmp_path}/ws.db?mode=ro", uri=True)
    assert d.rows("SELECT state_get('k'), state_all(), (SELECT count(*) FROM state_checkpoints)") == [
        (1, '{"k":1}', 1)]
    for call in ("state_set('k', '$', 2)", "state_checkpoint('q')", "state_restore('p')",
                 "state_import('{\"z\":1}')"):
        assert "readonly" in d.error("SELECT " + call).replace("read-only", "readonly")
    d.close()


def test_depth_and_size_have_an_end(db):
    deep = "[" * 900 + "]" * 900
    db.one("SELECT state_set('k', '$', ?)", deep)
    assert db.one("SELECT count(*) FROM state_tree('k')") == 900
    big = "x" * 1_000_000
    db.one("SELECT state_set('b', '$.x', ?)", big)
    assert db.one("SELECT state_get('b', '$.x')") == big
    assert os.path.exists(db.path)
