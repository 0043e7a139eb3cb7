# SPDX-License-Identifier: MIT
"""An interrupted call leaves no transaction open and nothing half done."""
import random
import threading

import pytest


@pytest.mark.inprocess
def test_an_interrupted_choir_index_is_undone_whole(tmp_path, open_db):
    rng = random.Random(7)
    stopped = 0
    for n in range(25):
        db = open_db(tmp_path / f"{n}.db", init=True)
        db.run("BEGIN")
        for i in range(40):
            db.one("SELECT artifact_put(?, ?)", f"/{i}", f"{i} words " * 4000)
        db.run("COMMIT")
        timer = threading.Timer(rng.random() * 0.08, db.con.interrupt)
        timer.start()
        try:
            db.one("SELECT choir_index()")
        except db.failure as e:
            assert "interrupted" in str(e).lower()
            stopped += 1
        timer.join()
        in_transaction = getattr(db.con, "in_transaction", None)
        assert not in_transaction
        db.run("BEGIN IMMEDIATE; COMMIT")
        assert db.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
        db.close()
    assert stopped > 0
