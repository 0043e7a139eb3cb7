# SPDX-License-Identifier: MIT
"""Random schedules of edits, pushes and pulls on two or three devices.

The model: a push that returned "pushed" is the one truth until the next one.
After every step the remote holds exactly the rows of the last acknowledged
push; a device whose push or pull was refused has kept its own rows; a device
that took the remote's version has exactly those rows.
"""
import json
import os
import pathlib
import random

import pytest

SCHEDULES = int(os.environ.get("CHOIR_SYNC_SCHEDULES", "60"))
STEPS = 14
CONFLICT = ("the remote has moved", "both sides changed")


class Device:
    def __init__(self, db):
        self.db, self.rows, self.synced = db, set(), False
        self.stamp = None  # differs when the content may differ

    def read(self):
        return {r[0] for r in self.db.rows("SELECT path FROM artifacts")}

    def put(self, path):
        self.db.rows("INSERT INTO artifacts(path, name) VALUES(?, ?)",
                     path, path.rsplit("/")[-1])
        self.rows.add(path)

    def call(self, sql, *params):
        try:
            return json.loads(self.db.one(sql, *params)), None
        except self.db.failure as e:
            return None, str(e)


def run(seed, folder, open_db):
    rng = random.Random(seed)
    url = f"file://{folder}/remote.sqlite"
    if seed % 2:  # page deltas
        (folder / "remote").mkdir()
        url = f"file://{folder}/remote/"
    first = open_db(folder / "d0.db", init=True)
    devices = [Device(first)] + [Device(open_db(folder / f"d{i}.db"))
                                 for i in range(1, rng.choice([2, 2, 3]))]
    first.rows(f"PRAGMA journal_mode={rng.choice(['WAL', 'DELETE'])}")
    devices[0].synced = True
    truth = stamp = None
    pushed = {}
    for step in range(STEPS):
        d = rng.choice(devices)
        kind = rng.choice(["edit", "edit", "push", "pull", "theirs", "vacuum",
                           "forget"])
        note = f"seed {seed} step {step} {kind}"
        if kind == "edit" and d.synced:
            d.put(f"/{seed}-{step}")
            d.stamp = step
        elif kind == "vacuum" and d.synced:
            d.db.run("VACUUM")
            d.stamp = step
        elif kind == "forget":
            for f in pathlib.Path(os.environ["HOME"]).rglob("pages-*"):
                f.unlink()
        elif kind == "push" and d.synced:
            result, error = d.call("SELECT sync_push(?)", url)
            if error:
                assert any(c in error for c in CONFLICT), (note, error)
                assert truth is not None and stamp != d.stamp, note
            elif result["pushed"]:
                truth, stamp, d.stamp = set(d.rows), step, step
                pushed[step] = truth
            elif seed % 2:  # what is here is there, newer or not
                assert d.rows in pushed.values(), note
            else:
                assert truth == d.rows, note
        elif kind in ("pull", "theirs"):
            mode = (url,) if kind == "pull" else (url, "theirs")
            result, error = d.call("SELECT sync_pull(%s)" % ", ".join(
                "?" * len(mode)), *mode)
            if truth is None:
                assert "nothing at" in error, (note, error)
            elif error:
                assert kind == "pull" and "both sides changed" in error, (
                    note, error)
                assert stamp != d.stamp, note
            elif result["pulled"]:
                if "saved" in result:
                    saved = open_db(result["saved"], choir=False)
                    assert {r[0] for r in saved.rows(
                        "SELECT path FROM artifacts")} == d.rows, note
                else:
                    assert d.rows <= truth, note
                d.rows, d.synced, d.stamp = set(truth), True, stamp
        if d.synced:
            assert d.read() == d.rows, note
    if truth is not None:
        check = open_db(":memory:")
        check.one("SELECT sync_pull(?)", url)
        assert {r[0] for r in check.rows(
            "SELECT path FROM artifacts")} == truth, seed
        assert json.loads(first.one("SELECT sync_verify(?)", url))["ok"] == 1
    for d in devices:
        assert d.db.one("PRAGMA quick_check") == "ok"


@pytest.mark.once
@pytest.mark.parametrize("part", range(4))
def test_in_every_schedule_the_loser_learns_and_no_acknowledged_row_is_lost(
        part, tmp_path):
    from conftest import connections
    for seed in range(part, SCHEDULES, 4):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with connections() as open_db:
            run(seed, folder, open_db)
