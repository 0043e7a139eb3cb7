# SPDX-License-Identifier: MIT
"""choir_index: absorbs what changed, once, exactly, and nothing else."""
import ctypes
import json
import threading
import time

import pytest




def problems(db):
    return [p["problem"] for p in json.loads(
        db.one("SELECT choir_check()"))["problems"] if p["part"] == "search"]


def index(db, *args):
    marks = ",".join("?" * len(args))
    got = json.loads(db.one(f"SELECT choir_index({marks})", *args))
    assert got.pop("pending") == 0
    assert problems(db) == []
    return got["indexed"], got["removed"], got["chunks"]


def dump(db):
    """Everything the index holds, without its document ids."""
    return db.rows(
        "SELECT kind, doc, path, hex(hash), c.id & 1048575, start, text,"
        " hex(embedding) FROM _choir_doc AS d"
        " LEFT JOIN _choir_chunk AS c ON c.id >> 20 = d.id"
        " LEFT JOIN _choir_vector AS v USING(id) ORDER BY 1, 2, 5")


def fill(db):
    db.one("SELECT artifact_put('/a.txt', 'alpha apple')")
    db.one("SELECT artifact_put('/b.md', ?)",
           "# One\n\n" + "beta " * 300 + "\n\n# Two\n\nbread")
    db.one("SELECT artifact_put('/c.bin', ?)", b"\0\1\2")
    db.one("SELECT message_add(conversation_create('c'), 'user', 'gamma')")
    db.run("INSERT INTO memories(content) VALUES('delta')")


def test_it_counts_what_it_did_and_twice_is_once(db):
    fill(db)
    assert index(db) == (5, 0, 9)
    state = db.rows("SELECT * FROM _choir_chunk"), dump(db)
    assert index(db) == (0, 0, 0)
    assert state == (db.rows("SELECT * FROM _choir_chunk"), dump(db))


def test_an_index_with_nothing_to_do_does_not_change_the_file(db, open_db):
    fill(db)
    index(db)
    other = open_db(db.path, choir=False)
    version = other.one("PRAGMA data_version")
    db.one("SELECT choir_index()")
    assert other.one("PRAGMA data_version") == version


def test_only_what_changed_is_indexed(db):
    fill(db)
    index(db)
    db.one("SELECT artifact_put('/a.txt', 'other words')")
    assert index(db) == (1, 0, 2)
    db.run("UPDATE artifacts SET metadata='{\"x\":1}', mime_type='x/y'")
    assert index(db) == (0, 0, 0)


def test_small_steps_and_one_rebuild_give_the_same_index(db):
    for i in range(30):
        db.one("SELECT artifact_put(?, ?)", f"/d{i % 7}.txt", f"text {i} " * i)
        if i % 5 == 0:
            db.one("SELECT artifact_delete(?)", f"/d{i % 7}.txt")
        if i % 3 == 0:
            index(db)
    index(db)
    grown = dump(db)
    ids = db.rows("SELECT id, doc FROM _choir_doc ORDER BY id")
    index(db, "rebuild")
    assert dump(db) == grown
    assert db.rows("SELECT id, doc FROM _choir_doc ORDER BY id") == ids


def test_a_kept_vector_uses_all_of_a_byte(db):
    fill(db)
    index(db)
    for kept, in db.rows("SELECT embedding FROM _choir_vector"):
        assert max(abs(x) for x in memoryview(kept).cast("b")) == 127


def test_a_move_embeds_nothing(db):
    fill(db)
    index(db)
    db.run("UPDATE _choir_vector SET embedding=zeroblob(384)")
    db.one("SELECT artifact_move('/b.md', '/deep/er.md')")
    assert index(db) == (1, 0, 1)
    assert db.one("SELECT count(DISTINCT embedding) FROM _choir_vector") == 1
    assert db.one("SELECT path FROM choir_search('deep')") == "/deep/er.md"


def test_deleted_documents_leave_nothing(db):
    fill(db)
    index(db)
    db.run("DELETE FROM messages; DELETE FROM memories")
    for path in ("/a.txt", "/b.md", "/c.bin"):
        db.one("SELECT artifact_delete(?)", path)
    assert index(db) == (0, 5, 0)
    for table in ("_choir_doc", "_choir_chunk", "_choir_vector"):
        assert db.one(f"SELECT count(*) FROM {table}") == 0
    assert db.one("SELECT count(*) FROM _choir_fts WHERE _choir_fts"
                  " MATCH 'alpha OR beta OR gamma OR delta OR txt'") == 0


def test_files_that_are_no_text_are_known_by_their_path(db):
    cases = {"/nul.txt": b"abc\0def", "/png": b"\x89PNG" + bytes(range(256)),
             "/latin.txt": "caf\xe9 \xe0 la carte \xe9\xe8".encode("latin-1")}
    for path, content in cases.items():
        db.one("SELECT artifact_put(?, ?)", path, content)
    assert index(db) == (3, 0, 3)
    assert db.one("SELECT count(*) FROM _choir_vector") == 0


def test_a_stray_byte_does_not_hide_a_text(db):
    text = b"plain words here " * 10 + b"\xff\xfe and more needle words"
    db.one("SELECT artifact_put('/odd.txt', ?)", text)
    index(db)
    start, piece = db.rows("SELECT start, text FROM _choir_chunk"
                           " WHERE id & 1048575")[0]
    assert piece.encode() == text.replace(b"\xff", b"?").replace(b"\xfe", b"?")
    assert db.one("SELECT path FROM choir_search('needle')") == "/odd.txt"


@pytest.mark.parametrize("text", [
    "", " \n ", "x" * 1_000_000, "🚀" * 3000, "שלום עולם " * 500,
    "\n".join(f"{'#' * (i % 6 + 1)} h{i}" for i in range(3000)),
    "> " * 5000, "[" * 20000, "word\r\n" * 5000, "\ufeffbom text"],
    ids=["empty", "blank", "one-word", "emoji", "rtl", "headings", "quotes",
         "brackets", "crlf", "bom"])
def test_odd_texts_are_indexed(db, text):
    db.one("SELECT artifact_put('/odd', ?)", text)
    index(db)
    data = text.encode()
    for start, piece in db.rows("SELECT start, text FROM _choir_chunk"
                                " WHERE id & 1048575"):
        assert data[start:start + len(piece.encode())] == piece.encode()
    db.rows("SELECT * FROM choir_search(?)", text[:50])


def test_odd_content_by_plain_sql_is_indexed(db):
    db.run("INSERT INTO messages(conversation_id, role, content)"
           " VALUES('x', 'user', NULL), ('x', 'user', x'00ff'),"
           " ('x', 'user', 42), ('x', 'user', x'6e6565646c65');"
           "INSERT INTO artifacts(id, path, name, content)"
           " VALUES('odd id '' \"', 'no/slash', 'n', 'zebra')")
    index(db)
    assert db.one("SELECT preview FROM choir_search('needle')") == "needle"
    assert db.one("SELECT preview FROM choir_search('42')") == "42"
    assert db.rows("SELECT id, path FROM choir_search('zebra')") == [
        ("odd id ' \"", "no/slash")]


@pytest.mark.parametrize("pending", [False, True])
def test_content_that_moved_away_is_found_as_it_was_indexed(db, pending):
    """As artifact_flush() leaves it; another hash is content never seen."""
    db.one("SELECT artifact_put('/big.txt', 'oolong from the mountain')")
    db.one("SELECT choir_index()")
    db.run("UPDATE artifacts SET content = NULL, s3_key = 'k'")
    if not pending:
        db.one("SELECT choir_index()")
    assert db.rows("SELECT path, preview FROM choir_search('mountain')") == [
        ("/big.txt", "oolong from the mountain")]
    db.one("SELECT artifact_move('/big.txt', '/small.txt')")
    db.run("UPDATE artifacts SET hash = upper(hash)")
    assert db.rows("SELECT path, preview, source FROM choir_search('mountain')") == [
        ("/small.txt", "oolong from the mountain", "text+vector")]
    db.run("UPDATE artifacts SET hash = replace(hash, substr(hash, 1, 1), 'x')")
    if not pending:
        db.one("SELECT choir_index()")
    assert db.rows("SELECT * FROM choir_search('mountain')") == []
    assert db.rows("SELECT preview FROM choir_search('small')") == [("/small.txt",)]


def test_a_utf16_database_is_indexed(tmp_path, open_db):
    d = open_db(tmp_path / "u16.db", pragmas=["encoding='UTF-16le'"])
    d.one("SELECT choir_init()")
    d.one("SELECT artifact_put('/é.txt', 'Größe 🚀 needle')")
    before = d.rows("SELECT * FROM choir_search('needle')")
    index(d)
    assert d.rows("SELECT * FROM choir_search('needle')") == before
    assert before[0][4] == "/é.txt"
    assert len(d.rows("SELECT 1 FROM choir_search('x', 9, 'local', '/é')")) <= 1


def test_the_answer_is_the_same_before_and_after(db):
    for i in range(60):
        db.one("SELECT artifact_put(?, ?)", f"/d{i}.txt",
               f"common words {'rare' if i % 9 == 0 else 'usual'} number{i} "
               + "tail " * (i % 5))
    queries = ("rare common", "usual number7", "comon wrods", "tail", "d12")
    before = [db.rows("SELECT * FROM choir_search(?, 60)", q) for q in queries]
    index(db)
    after = [db.rows("SELECT * FROM choir_search(?, 60)", q) for q in queries]
    def plain(answers):
        return [[(r[1], r[3], r[5], r[6]) for r in rows] for rows in answers]
    assert [sorted(a) for a in plain(before)] == [sorted(a)
                                                   for a in plain(after)]


def test_damage_is_found_and_rebuild_mends_it(db):
    fill(db)
    index(db)
    for damage in ("DELETE FROM _choir_vector WHERE id=(SELECT max(id) FROM"
                   " _choir_vector)",
                   "UPDATE _choir_chunk SET text='other' WHERE id=(SELECT"
                   " max(id) FROM _choir_chunk)",
                   "DELETE FROM _choir_doc WHERE kind='memory'",
                   "INSERT INTO _choir_chunk VALUES(77, 0, 'stray')"):
        db.run(damage)
        assert "choir_index('rebuild')" in problems(db)[0]
        index(db, "rebuild")


def test_a_vector_of_the_wrong_size_is_named(db):
    fill(db)
    index(db)
    db.run("UPDATE _choir_vector SET embedding=x'00'")
    assert db.error("SELECT * FROM choir_search('alpha')").startswith(
        "choir_search: row ")


def test_vectors_of_another_model_are_not_mixed(db):
    fill(db)
    index(db)
    good = dump(db)
    db.run("UPDATE _choir_meta SET value='older' WHERE key='search.model';"
           "UPDATE _choir_vector SET embedding=zeroblob(384)")
    assert db.error("SELECT * FROM choir_search('alpha')") == (
        "choir_search: the index has vectors of older and embed.provider is"
        " hash-384; run select choir_index()")
    assert db.rows("SELECT status, detail FROM choir_doctor"
                   " WHERE \"check\"='embedding model'") == [("warn", "older")]
    assert index(db) == (0, 0, db.one("SELECT count(*) FROM _choir_vector"))
    assert dump(db) == good


def test_metrics_and_doctor_tell_what_is_pending(db):
    fill(db)
    values = dict(db.rows("SELECT name, value FROM choir_metrics"))
    assert (values["search.documents"], values["search.chunks"]) == (0, 0)
    index(db)
    values = dict(db.rows("SELECT name, value FROM choir_metrics"))
    assert [values["search." + k] for k in ("documents", "chunks", "pending")
            ] == [5, 9, 0]
    assert db.rows("SELECT status FROM choir_doctor WHERE \"check\" IN"
                   " ('full text', 'search index', 'embedding model')") == [
        ("ok",)] * 3


@pytest.mark.parametrize("sql, message", [
    ("SELECT choir_index('some')",
     "choir_index: what must be pending, rebuild or remote, got 'some'"),
    ("SELECT choir_index(7)", "choir_index: what must be text, got integer"),
    ("INSERT INTO memories(content) SELECT choir_index()",
     "choir_index: a statement that writes is running; call it as SELECT f(…),"
     " not inside INSERT, UPDATE, DELETE or CREATE TABLE AS"),
])
def test_bad_calls_are_named(db, sql, message):
    assert db.error(sql) == message


def test_a_readonly_file_is_not_indexed(db, open_db):
    fill(db)
    d = open_db(f"file:{db.path}?mode=ro", uri=True)
    assert "readonly" in d.error("SELECT choir_index()")
    assert len(d.rows("SELECT 1 FROM choir_search('alpha apple')")) == 1


def test_a_writer_makes_it_wait_and_fail(db, open_db):
    fill(db)
    other = open_db(db.path, choir=False)
    other.rows("BEGIN IMMEDIATE")
    db.rows("PRAGMA busy_timeout=50")
    assert "locked" in db.error("SELECT choir_index()")
    other.rows("ROLLBACK")
    assert index(db)[0] == 5


def test_the_connection_closes_clean(tmp_path, open_db):
    """Only the last of the connections on a file can leave WAL mode."""
    d = open_db(tmp_path / "own.db", init=True)
    fill(d)
    d.rows("SELECT * FROM choir_search('alpha')")
    d.one("SELECT choir_index()")
    d.rows("SELECT * FROM choir_search('alpha')")
    d.close()
    assert not (tmp_path / "own.db-wal").exists()
    plain = open_db(tmp_path / "own.db", choir=False)
    assert plain.one("PRAGMA journal_mode=DELETE") == "delete"


def test_a_workspace_without_choir_keeps_working(db, open_db):
    fill(db)
    index(db)
    plain = open_db(db.path, choir=False)
    plain.run("UPDATE artifacts SET content='zebra' WHERE path='/a.txt'; VACUUM")
    assert plain.one("PRAGMA integrity_check") == "ok"
    assert index(db)[0] == 1
    assert db.one("SELECT path FROM choir_search('zebra')") == "/a.txt"


def test_uninstall_removes_it_and_init_brings_it_back(db):
    fill(db)
    index(db)
    db.one("SELECT choir_uninstall()")
    assert db.rows("SELECT name FROM sqlite_schema WHERE name GLOB"
                   " '_choir_*'") == []
    db.one("SELECT choir_init()")
    assert db.one("SELECT path FROM choir_search('alpha')") == "/a.txt"
    assert index(db) == (5, 0, 9)


def test_a_new_workspace_has_no_tables_of_search(db):
    db.rows("SELECT * FROM choir_search('alpha')")
    sql = ("SELECT count(*) FROM sqlite_schema WHERE name GLOB '_choir_doc*' OR"
           " name GLOB '_choir_chunk*' OR name GLOB '_choir_vector*' OR"
           " name GLOB '_choir_fts*'")
    assert db.one(sql) == 0
    assert problems(db) == []
    db.one("SELECT choir_index()")
    assert db.one(sql) > 3


def test_a_dropped_table_is_made_again(db):
    fill(db)
    index(db)
    for table in ("_choir_vector", "_choir_chunk", "_choir_doc", "_choir_fts"):
        db.run(f"DROP TABLE {table}")
        assert db.one("SELECT path FROM choir_search('alpha')") == "/a.txt"
        index(db)
        assert db.one("SELECT path FROM choir_search('alpha')") == "/a.txt"


@pytest.mark.once
def test_it_can_be_interrupted(db):
    for i in range(300):
        db.one("SELECT artifact_put(?, ?)", f"/{i}", f"{i} words " * 4000)
    timer = threading.Timer(0.15, db.con.interrupt)
    timer.start()
    start = time.monotonic()
    assert "interrupted" in db.error("SELECT choir_index()")
    assert time.monotonic() - start < 1.5
    assert not db.rows("SELECT 1 FROM sqlite_schema WHERE name='_choir_doc'")
    timer.join()
    assert index(db)[0] == 300


def without_fts5(db):
    """The connection as in a SQLite that was built without FTS5."""
    handle = ctypes.c_void_p.from_address(id(db.con) + 16)
    keep = [n.encode() for (n,) in db.rows("PRAGMA module_list") if n != "fts5"]
    names = (ctypes.c_char_p * (len(keep) + 1))(*keep, None)
    lib = ctypes.CDLL("libsqlite3.so.0")
    assert lib.sqlite3_drop_modules(handle, names) == 0


@pytest.mark.once
class TestWithoutFts5:
    def test_vectors_alone_answer(self, db):
        fill(db)
        without_fts5(db)
        rows = db.rows("SELECT path, source FROM choir_search('alpha apple')")
        assert rows[0] == ("/a.txt", "vector")
        db.one("SELECT choir_index()")
        assert db.rows("SELECT path, source FROM choir_search('alpha apple')"
                       )[0] == ("/a.txt", "vector")
        assert problems(db) == []
        assert db.rows("SELECT status, detail FROM choir_doctor"
                       " WHERE \"check\"='full text'") == [("warn", "no FTS5")]

    def test_the_text_index_is_caught_up_where_fts5_is(self, db, open_db):
        fill(db)
        index(db)
        poor = open_db(db.path)
        without_fts5(poor)
        poor.one("SELECT artifact_put('/late.txt', 'zebra')")
        poor.one("SELECT choir_index()")
        rows = db.rows("SELECT path, source FROM choir_search('zebra')")
        assert rows[0] == ("/late.txt", "text+vector")
        index(db)
        assert db.rows("SELECT path, source FROM choir_search('zebra')") == rows
        assert db.one("SELECT count(*) FROM _choir_fts WHERE _choir_fts"
                      " MATCH 'zebra'") == 1


def test_a_vector_index_over_the_chunks_gives_the_same_answers(db):
    for i in range(300):
        db.one("SELECT artifact_put(?, ?)", f"/n/{i}.md",
               f"note {i} about " + " ".join(
                   w for j, w in enumerate("tea harbour violin granite orbit"
                                           " saffron ledger".split())
                   if i >> j & 1))
    db.one("SELECT choir_index()")
    queries = ["tea harbour", "violin", "granite orbit ledger", "safron"]

    def answers(q):
        return db.rows("SELECT path, source FROM choir_search(?, 10)", q)
    want = [answers(q) for q in queries]
    db.one("SELECT vec_index_create('choir_search', '_choir_vector',"
           """ 'embedding', '{"type":"int8"}')""")
    assert [answers(q) for q in queries] == want
    db.one("SELECT artifact_put('/n/new.md', 'violin violin')")
    assert answers("violin")[0][0] == "/n/new.md"
    db.one("SELECT choir_index()")
    assert answers("violin")[0][0] == "/n/new.md"
    assert db.one("SELECT vec_index_info('choir_search') ->> 'pending'") == 0
    db.one("SELECT choir_index('rebuild')")
    assert answers("violin")[0][0] == "/n/new.md"
    assert db.one("SELECT choir_check() ->> 'ok'") == 1
