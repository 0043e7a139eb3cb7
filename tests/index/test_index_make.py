# SPDX-License-Identifier: MIT
"""Making an index, what is refused, and what keeps it true to its table."""
import pytest

from test_index_search import f32, fill, nearest


def ids(db, q, k=10, **hidden):
    return [r[0] for r in nearest(db, q, k, **hidden)]


@pytest.mark.parametrize("sql,message", [
    ("SELECT vec_index_create('x', 'none', 'e')", "no table 'none'"),
    ("SELECT vec_index_create('x', 'docs', 'none')",
     "table 'docs' has no stored column 'none'"),
    ("SELECT vec_index_create('x', 'v', 'e')",
     "'v' is a view or a virtual table"),
    ("SELECT vec_index_create('x', 'keyless', 'e')",
     "table 'keyless' has no INTEGER PRIMARY KEY"),
    ("SELECT vec_index_create('x', 'lean', 'e')",
     "table 'lean' has no INTEGER PRIMARY KEY"),
    ("SELECT vec_index_create('x', 'bare', 'e')",
     "column 'e' of 'bare' has no vector yet; state its dimensions"),
    ("SELECT vec_index_create('near', 'docs', 'e')",
     "there is an index 'near' already"),
    ("SELECT vec_index_create('a b', 'docs', 'e')", "the name of an index is"),
    ("SELECT vec_index_create('', 'docs', 'e')", "the name of an index is"),
    ("SELECT vec_index_create(NULL, 'docs', 'e')", "name"),
    ("SELECT vec_index_create('x', 'docs', 'lang')",
     "row 1 of 'docs' holds text, not a vector"),
    ("""SELECT vec_index_create('x', 'docs', 'e', '{"mode":"fast"}')""",
     "mode must be auto, flat or lists, got 'fast'"),
    ("""SELECT vec_index_create('x', 'docs', 'e', '{"metric":"l1"}')""",
     "metric must be cosine, l2 or dot, got 'l1'"),
    ("""SELECT vec_index_create('x', 'docs', 'e', '{"type":"bit"}')""",
     "a column of bits cannot be indexed"),
    ("""SELECT vec_index_create('x', 'docs', 'e', '{"colour":1}')""",
     "unknown option 'colour'"),
    ("""SELECT vec_index_create('x', 'docs', 'e', '{"partition":"p"}')""",
     "table 'docs' has no stored column 'p'"),
    ("SELECT vec_index_create('x', 'docs', 'e', '{')", "options"),
    ("""SELECT vec_index_create('x', 'bare', 'e', '{"dimensions":9999}')""",
     "an index has 2 to 8192 dimensions, not 9999"),
    ("SELECT vec_index_drop('x')", "no vector index 'x'"),
    ("SELECT vec_index_optimize('x')", "no vector index 'x'"),
    ("SELECT vec_index_info('x')", "no vector index 'x'"),
])
def test_refusals_leave_nothing_behind(db, sql, message):
    fill(db, 5)
    db.run("CREATE TABLE keyless(e BLOB);"
           "CREATE TABLE lean(id INTEGER PRIMARY KEY, e BLOB) WITHOUT ROWID;"
           "CREATE TABLE bare(id INTEGER PRIMARY KEY, e BLOB);"
           "CREATE VIEW v AS SELECT * FROM docs")
    before = db.rows("SELECT name FROM sqlite_schema ORDER BY 1")
    assert message in db.error(sql)
    assert db.rows("SELECT name FROM sqlite_schema ORDER BY 1") == before


def test_a_drop_leaves_the_table_as_it_was(db):
    before = db.rows("SELECT name FROM sqlite_schema ORDER BY 1")
    fill(db, 5)
    db.one("SELECT vec_index_drop('near')")
    db.run("DROP TABLE docs")
    after = db.rows("SELECT name FROM sqlite_schema ORDER BY 1")
    assert set(after) - set(before) == {("_choir_vec",)}
    fill(db, 6)
    assert db.one("SELECT vec_index_info('near') ->> 'rows'") == 6
    assert db.one("SELECT choir_uninstall() > 0") == 1
    assert not db.rows("SELECT name FROM sqlite_schema"
                       " WHERE name LIKE '_choir_vec%'")


def test_an_index_over_an_empty_table_fills_with_it(db):
    db.run("CREATE TABLE docs(id INTEGER PRIMARY KEY, e BLOB)")
    db.one("""SELECT vec_index_create('near', 'docs', 'e',
        '{"dimensions":3}')""")
    q = f32([1, 2, 3])
    assert nearest(db, q) == []
    db.rows("INSERT INTO docs(e) VALUES(?), (?)", q, f32([3, 2, 1]))
    assert ids(db, q) == [1, 2]
    assert db.one("SELECT vec_index_optimize('near')") == 2
    assert ids(db, q) == [1, 2]
    db.run("DELETE FROM docs")
    assert ids(db, q) == []
    db.one("SELECT vec_index_optimize('near')")
    assert ids(db, q) == []
    db.rows("INSERT INTO docs(e) VALUES(?)", q)
    db.one("SELECT vec_index_optimize('near')")
    assert ids(db, q) == [1]


def test_a_change_is_found_at_once_by_every_connection(db, tmp_path, open_db):
    q = fill(db, 50)[0]
    other = open_db(tmp_path / "ws.db")
    best = ids(db, q, 1)[0]
    assert ids(other, q, 1) == [best]
    other.rows("UPDATE docs SET e=? WHERE id=?", f32([-1.0] * 16), best)
    other.rows("INSERT INTO docs(id, e) VALUES(777, ?)", q)
    assert ids(db, q, 1) == [777]
    assert best not in ids(db, q, 10) or ids(db, q) == ids(db, q, exact=1)
    other.run("DELETE FROM docs WHERE id=777")
    assert ids(db, q) == ids(db, q, exact=1)
    other.one("SELECT vec_index_optimize('near')")
    assert ids(db, q) == ids(db, q, exact=1)


def test_a_rolled_back_change_is_forgotten(db):
    q = fill(db, 50)[0]
    want = nearest(db, q)
    db.run("BEGIN")
    db.rows("INSERT INTO docs(id, e) VALUES(777, ?)", q)
    assert ids(db, q, 1) == [777]
    db.run("SAVEPOINT a")
    db.rows("UPDATE docs SET e=? WHERE id=777", f32([-1.0] * 16))
    db.one("SELECT vec_index_optimize('near')")
    assert ids(db, q, 1) != [777]
    db.run("ROLLBACK TO a")
    assert ids(db, q, 1) == [777]
    db.run("ROLLBACK")
    assert nearest(db, q) == want
    db.rows("INSERT INTO docs(id, e) VALUES(778, ?)", q)
    assert ids(db, q, 1) == [778]


def test_replace_through_another_unique_column_leaves_no_ghost(db):
    q = fill(db, 50)[0]
    db.run("UPDATE docs SET tag=id")
    first = ids(db, q, 3)
    db.rows("INSERT OR REPLACE INTO docs(id, e, tag) VALUES(900, ?, ?)",
            f32([-1.0] * 16), first[0])
    assert ids(db, q, 10) == ids(db, q, 10, exact=1)
    assert len(ids(db, q, 60)) == 50
    db.rows("INSERT INTO docs(id, e) VALUES(?, ?)", first[0], q)
    assert ids(db, q, 1) == first[:1]
    db.one("SELECT vec_index_optimize('near')")
    assert ids(db, q, 60) == ids(db, q, 60, exact=1)
    assert db.one("SELECT choir_check() ->> 'ok'") == 1


def test_the_primary_key_may_change(db):
    q = fill(db, 50)[0]
    first = ids(db, q, 2)
    db.rows("UPDATE docs SET id=5000 WHERE id=?", first[0])
    for step in ("pending", "absorbed"):
        assert ids(db, q, 2) == [5000, first[1]]
        db.one("SELECT vec_index_optimize('near')")


def test_a_program_without_choir_writes_and_nothing_is_missed(
        db, tmp_path, open_db):
    q = fill(db, 50)[0]
    plain = open_db(tmp_path / "ws.db", choir=False)
    plain.rows("INSERT INTO docs(id, e) VALUES(777, ?)", q)
    plain.run("DELETE FROM docs WHERE id < 20; VACUUM")
    assert ids(db, q)[0] == 777
    assert ids(db, q) == ids(db, q, exact=1)


def test_a_renamed_table_keeps_its_index(db):
    q = fill(db, 50)[0]
    want = ids(db, q)
    db.run("ALTER TABLE docs RENAME TO papers")
    assert ids(db, q) == want
    db.rows("INSERT INTO papers(id, e) VALUES(777, ?)", q)
    assert ids(db, q)[0] == 777
    assert db.one("SELECT vec_index_info('near') ->> 'trusted'") == 1
    db.one("SELECT vec_index_optimize('near')")
    assert db.one("SELECT vec_index_info('near') ->> 'table'") == "papers"
    db.run("ALTER TABLE papers RENAME COLUMN e TO vector")
    assert "has no column 'e' any more" in db.error(
        "SELECT * FROM vec_search('near', ?, 1)", q)


def test_a_rebuilt_table_lost_its_triggers_and_is_noticed(db):
    q = fill(db, 50)[0]
    db.run("""CREATE TABLE docs2(id INTEGER PRIMARY KEY, e BLOB, lang, tag);
      INSERT INTO docs2 SELECT * FROM docs; DROP TABLE docs;
      ALTER TABLE docs2 RENAME TO docs""")
    db.rows("INSERT INTO docs(id, e) VALUES(777, ?)", q)
    assert ids(db, q)[0] == 777
    assert db.one("SELECT vec_index_info('near') ->> 'trusted'") == 0
    assert "lost its triggers" in db.one("SELECT choir_check()")
    db.one("SELECT vec_index_optimize('near')")
    assert db.one("SELECT vec_index_info('near') ->> 'trusted'") == 1
    assert ids(db, q)[0] == 777
    assert db.one("SELECT choir_check() ->> 'ok'") == 1


def test_a_dropped_table_is_an_error_that_says_so(db):
    q = fill(db, 5)[0]
    db.run("DROP TABLE docs")
    said = ("index 'near': no table 'docs' in schema main; vec_index_drop('near')"
            " removes the index")
    assert db.error("SELECT * FROM vec_search('near', ?, 1)", q) == (
        "vec_search: " + said)
    assert db.error("SELECT choir_index()") == "choir_index: " + said
    assert said in db.one("SELECT choir_check()")
    assert db.one("SELECT vec_index_drop('near')") == 1


def test_an_old_snapshot_is_searched_as_it_was(db, tmp_path, open_db):
    q = fill(db, 50)[0]
    reader = open_db(tmp_path / "ws.db")
    reader.run("BEGIN")
    want = nearest(reader, q)
    db.rows("INSERT INTO docs(id, e) VALUES(777, ?)", q)
    db.one("SELECT vec_index_optimize('near')")
    assert nearest(reader, q) == want
    reader.run("COMMIT")
    assert ids(reader, q)[0] == 777


def test_a_read_only_connection_searches_pending_rows(db, tmp_path, open_db):
    q = fill(db, 50)[0]
    db.rows("INSERT INTO docs(id, e) VALUES(777, ?)", q)
    reader = open_db(tmp_path / "ws.db", pragmas=["query_only=1"])
    assert ids(reader, q)[0] == 777


def test_an_attached_database_has_indexes_of_its_own(db, tmp_path, open_db):
    q = fill(db, 20)[0]
    other = open_db(tmp_path / "other.db")
    fill(other, 30, seed=2)
    want = nearest(other, q)
    other.close = lambda: None
    other.con.close()
    db.rows("ATTACH ? AS aux", str(tmp_path / "other.db"))
    assert db.rows("SELECT rowid, distance, rank FROM"
                   " vec_search('aux.near', ?, 10)", q) == want
    assert ids(db, q) == ids(db, q, exact=1)
    db.rows("INSERT INTO aux.docs(id, e) VALUES(777, ?)", q)
    assert db.one("SELECT rowid FROM vec_search('aux.near', ?, 1)", q) == 777
    assert db.one("SELECT vec_index_optimize('aux.near')") == 1
    db.run("DETACH aux")
    assert "no vector index 'aux.near'" in db.error(
        "SELECT * FROM vec_search('aux.near', ?, 1)", q)


def test_choir_index_absorbs(db):
    q = fill(db, 50)[0]
    db.rows("INSERT INTO docs(id, e) VALUES(777, ?)", q)
    assert db.one("SELECT vec_index_info('near') ->> 'pending'") == 1
    db.one("SELECT choir_index()")
    assert db.one("SELECT vec_index_info('near') ->> 'pending'") == 0
    assert ids(db, q)[0] == 777


def test_lists_are_split_and_given_up(db):
    queries = fill(db, 1200, options='{"mode":"lists"}')
    before = db.one("SELECT vec_index_info('near') ->> 'lists'")
    db.run("INSERT INTO docs(e) SELECT e FROM docs, (SELECT 1 UNION SELECT 2"
           " UNION SELECT 3)")
    db.one("SELECT vec_index_optimize('near')")
    assert db.one("SELECT vec_index_info('near') ->> 'lists'") > before
    assert db.one("SELECT choir_check() ->> 'ok'") == 1
    db.run("DELETE FROM docs WHERE id > 900")
    db.one("SELECT vec_index_optimize('near')")
    assert db.one("SELECT vec_index_info('near') ->> 'lists'") <= before
    assert db.one("SELECT choir_check() ->> 'ok'") == 1
    for q in queries:
        assert len(set(ids(db, q, recall=1.0)) & set(ids(db, q, exact=1))) >= 9


def test_it_searches_within_its_memory(db):
    q = fill(db, 3000, options='{"mode":"lists"}')[0]
    want = nearest(db, q, 20)
    for size in (0, 40000, 10**9):
        db.one("SELECT choir_config('vec.cache_bytes', ?)", str(size))
        assert nearest(db, q, 20) == want == nearest(db, q, 20)


def test_the_index_is_a_few_percent_of_the_vectors(db):
    db.run("CREATE TABLE docs(id INTEGER PRIMARY KEY, e BLOB)")
    db.run("WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 3000)"
           " INSERT INTO docs SELECT i, randomblob(384) FROM n")
    db.one("""SELECT vec_index_create('near', 'docs', 'e', '{"type":"int8"}')""")
    assert db.one("SELECT vec_index_info('near') ->> 'bytes'") < (
        3000 * 384 * 4 * .06)


@pytest.mark.parametrize("damage", [
    "UPDATE _choir_vec_near_seg SET block=substr(block, 2)",
    "UPDATE _choir_vec_near_seg SET block=NULL",
    "UPDATE _choir_vec_near_seg SET block='text'",
    "UPDATE _choir_vec_near_seg SET n=0",
    "UPDATE _choir_vec_near_seg SET n=-1",
    "UPDATE _choir_vec_near_seg SET n=9223372036854775807",
    "UPDATE _choir_vec_near_list SET centre=x'00', gen=gen+1;"
    " UPDATE _choir_vec SET gen=gen+1",
    "UPDATE _choir_vec_near_list SET id=-5; UPDATE _choir_vec SET gen=gen+1",
    "UPDATE _choir_vec SET mean=NULL, gen=gen+1",
    "UPDATE _choir_vec SET dim=0, gen=gen+1",
    "UPDATE _choir_vec SET dim=99999999, gen=gen+1",
    "UPDATE _choir_vec SET type='x', gen=gen+1",
    "UPDATE _choir_vec SET scale=0, gen=gen+1",
])
def test_damaged_internal_rows_are_reported(db, damage):
    q = fill(db, 100)[0]
    db.run("UPDATE _choir_vec SET gen=gen+1;" + damage)
    assert "is damaged; run select vec_index_drop('near')" in db.error(
        "SELECT * FROM vec_search('near', ?, 1)", q)
    assert db.one("SELECT choir_check() ->> 'ok'") == 0
    assert db.one("SELECT vec_index_drop('near')") == 1


def test_choir_check_finds_what_is_not_as_it_should_be(db):
    fill(db, 100)
    for sql, message in [
            ("UPDATE _choir_vec_near_list SET n=n+1", "another number of rows"),
            ("INSERT INTO _choir_vec_near_seg SELECT id+1, n, block FROM"
             " _choir_vec_near_seg WHERE id=0", "rows are in it twice"),
            ("DELETE FROM _choir_vec_near_seg WHERE id=0",
             "rows of the table are not in it"),
            ("UPDATE _choir_vec_near_seg SET block="
             "CAST(zeroblob(100) || substr(block, 101) AS BLOB)",
             "codes that are not theirs")]:
        db.run("SAVEPOINT a; UPDATE _choir_vec SET gen=gen+1;" + sql)
        assert message in db.one("SELECT choir_check()")
        db.run("ROLLBACK TO a; RELEASE a")
    assert db.one("SELECT choir_check() ->> 'ok'") == 1


def test_a_dump_restored_by_plain_sqlite_has_its_index(db, tmp_path, open_db):
    q = fill(db, 200)[0]
    db.rows("INSERT INTO docs(id, e) VALUES(777, ?)", q)
    tables = db.rows("SELECT name, sql FROM sqlite_schema WHERE type='table'"
                     " AND (name LIKE '_choir_vec%' OR name='docs')")
    triggers = db.rows("SELECT sql FROM sqlite_schema WHERE type='trigger'"
                       " AND name LIKE '_choir_vec%'")
    copy = open_db(tmp_path / "copy.db", choir=False)
    for name, sql in tables:
        copy.run(sql)
        for row in db.rows(f'SELECT * FROM "{name}"'):
            copy.rows(f'INSERT INTO "{name}" VALUES'
                      f'({",".join("?" * len(row))})', *row)
    for (sql,) in triggers:
        copy.rows(sql)
    copy.run("VACUUM")
    restored = open_db(tmp_path / "copy.db")
    assert nearest(restored, q) == nearest(db, q)
    assert restored.one("SELECT vec_index_info('near') ->> 'trusted'") == 1


def pending(db):
    return db.one("SELECT vec_index_info('near') ->> 'pending'")


@pytest.mark.parametrize("remote", ["ws.sqlite", "folder/"])
def test_a_push_puts_pending_rows_where_they_belong(open_db, tmp_path, remote):
    db = open_db(tmp_path / "a.db", init=True)
    (tmp_path / "folder").mkdir()
    url = f"file://{tmp_path}/{remote}"
    q = fill(db)[0]
    db.rows("INSERT INTO docs(e) VALUES(?)", q)
    db.run("DELETE FROM docs WHERE id=4")
    assert pending(db) == 2
    want = nearest(db, q)
    assert '"pushed":1' in db.one("SELECT sync_push(?)", url)
    assert pending(db) == 0
    assert '"pushed":0' in db.one("SELECT sync_push(?)", url)
    there = open_db(tmp_path / "b.db")
    there.one("SELECT sync_pull(?)", url)
    assert pending(there) == 0
    assert nearest(there, q) == want == nearest(db, q)


def test_a_row_that_cannot_be_indexed_does_not_keep_a_push_back(db, tmp_path):
    fill(db)
    db.rows("INSERT INTO docs(id, e) VALUES(5000, x'0011')")
    assert "row 5000" in db.error("SELECT choir_index()")
    assert '"pushed":1' in db.one("SELECT sync_push(?)",
                                  f"file://{tmp_path}/r.sqlite")
    assert db.rows("SELECT id FROM _choir_vec_near_pending") == [(5000,)]
    db.run("DELETE FROM docs WHERE id=5000")
    db.one("SELECT choir_index()")
    assert pending(db) == 0
