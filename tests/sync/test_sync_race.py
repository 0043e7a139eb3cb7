# SPDX-License-Identifier: MIT
"""Somebody else writes while a pull decides and copies."""
import json
import random
import threading
import time

import pytest


@pytest.mark.once
@pytest.mark.inprocess
@pytest.mark.parametrize("mode, name", [
    ("WAL", "ws.sqlite"), ("DELETE", "ws.sqlite"), ("WAL", "")])
def test_a_commit_during_a_pull_is_never_lost(tmp_path, mode, name):
    """The other connection commits one row at a random moment of the pull.
    Whatever the pull answers, an acknowledged row is there afterwards."""
    from conftest import Db
    rng = random.Random(7)
    (tmp_path / "remote").mkdir()
    url = f"file://{tmp_path}/remote/{name}"
    insert = "INSERT INTO artifacts(path, name, content) VALUES(?, ?, ?)"
    a = Db(tmp_path / "a.db", init=True)
    a.rows(insert, "/big", "big", b"x" * 4000000)
    a.one("SELECT sync_push(?)", url)
    b = Db(tmp_path / "b.db")
    b.one("SELECT sync_pull(?)", url)
    b.rows(f"PRAGMA journal_mode={mode}")
    for i in range(20):
        a.rows(insert, f"/a{i}", f"a{i}", b"")
        a.one("SELECT sync_push(?)", url)
        acknowledged = []

        def write():
            if i % 5 == 0:
                return  # nobody writes: the pull must succeed
            other = Db(tmp_path / "b.db", choir=False)
            time.sleep(rng.random() * 0.05)
            try:
                other.rows(insert, f"/b{i}", f"b{i}", b"")
                acknowledged.append(f"/b{i}")
            except other.failure:
                pass  # busy, or the path is gone: not acknowledged
            other.close()

        thread = threading.Thread(target=write)
        thread.start()
        try:
            answer = str(json.loads(b.one("SELECT sync_pull(?)", url))[
                "pulled"])
        except b.failure as e:
            answer = str(e).split(":")[1].strip()
        thread.join()
        have = {r[0] for r in b.rows("SELECT path FROM artifacts")}
        assert set(acknowledged) <= have, (i, answer)
        assert answer == "1" or i % 5, answer
        b.one("SELECT sync_pull(?, 'theirs')", url)
    a.close()
    b.close()
