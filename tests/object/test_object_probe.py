# SPDX-License-Identifier: MIT
"""s3_probe: what a store really does. The stores of this suite differ, and the
probe says in what."""
import threading
import time

import pytest

from fault_proxy import silent

NO = {"file": set(), "s3": set(),
      "rgw": {"etag_quoted", "multipart_if_absent", "copy_if_match",
              "delete_if_match"}}


@pytest.mark.rights
def test_a_store_shows_what_it_can(store, request):
    db, root = store
    name = request.node.callspec.params["store"]
    rows = db.rows('SELECT "check", status, detail FROM s3_probe(?)', root)
    assert {c for c, s, _ in rows if s == "no"} == NO[name], rows
    assert not [r for r in rows if r[1] == "error"]
    assert len(rows) == (11 if name == "file" else 17)
    assert {"create_if_absent", "swap", "swap_stale_refused"} <= {
        c for c, s, _ in rows if s == "yes"}
    assert db.rows("SELECT key FROM s3_list(?)", root) == []


def test_what_is_no_root_is_said(db):
    assert "must end in '/'" in db.error("SELECT * FROM s3_probe('file:///tmp/x')")
    assert "url must be text" in db.error("SELECT * FROM s3_probe(NULL)")
    db.one("SELECT choir_lock()")
    assert "locked" in db.error("SELECT * FROM s3_probe('file:///tmp/')")


@pytest.mark.net
def test_a_refusal_is_a_row(s3, gateway):
    db, _ = s3
    rows = db.rows("SELECT * FROM s3_probe('s3://no-such-bucket/')")
    assert rows[0][:2] == ("put", "error") and "404 NoSuchBucket" in rows[0][2]


@pytest.mark.net
@pytest.mark.inprocess
def test_an_interrupt_leaves_no_scratch_object(proxy):
    db, root, p = proxy
    p.plan = lambda n, m, t: silent(20) if m == "GET" else None

    def interrupt():
        while not any(m == "GET" for m, _ in p.seen):
            time.sleep(0.01)
        db.con.interrupt()
    thread = threading.Thread(target=interrupt)
    thread.start()
    assert "interrupt" in db.error("SELECT * FROM s3_probe(?)", root)
    thread.join()
    p.plan = lambda *_: None
    assert db.rows("SELECT key FROM s3_list(?)", root) == []
