# SPDX-License-Identifier: MIT
"""CHOIR_SYNC_BIG=1: a database past the page at 1 GiB that SQLite keeps for
its locks (needs 6 GB of disk)."""
import json
import os

import pytest


if os.environ.get("CHOIR_SYNC_BIG") == "1":
    @pytest.mark.parametrize("size", [4096, 65536])
    def test_a_database_past_the_lock_page(tmp_path, open_db, size):
        (tmp_path / "remote").mkdir()
        url = f"file://{tmp_path}/remote/ws.sqlite"
        d = open_db(tmp_path / "a.db", pragmas=[f"page_size={size}"],
                    init=True)
        d.run("CREATE TABLE big(a)")
        for _ in range(11):
            d.rows("INSERT INTO big VALUES(randomblob(100000000))")
        assert json.loads(d.one("SELECT sync_push(?)", url))["pushed"] == 1
        assert os.path.getsize(tmp_path / "remote/ws.sqlite") > 1 << 30
        assert json.loads(d.one("SELECT sync_push(?)", url))["pushed"] == 0
        b = open_db(tmp_path / "b.db")
        assert json.loads(b.one("SELECT sync_pull(?)", url))["pulled"] == 1
        query = "SELECT choir_sha256(a) FROM big"
        assert b.rows(query) == d.rows(query)
        assert b.one("PRAGMA integrity_check") == "ok"
        assert json.loads(b.one("SELECT sync_push(?)", url))["pushed"] == 0
        copy = json.loads(b.one("SELECT choir_backup(?)",
                                str(tmp_path / "c.db")))
        assert copy["bytes"] == os.path.getsize(tmp_path / "c.db")
