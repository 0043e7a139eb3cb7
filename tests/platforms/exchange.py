#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""exchange.py SHELL REMOTE: files go between another processor and this one.

One side writes a workspace (files, a vector index, state with a checkpoint, a
sealed log) and pushes it; the other opens the file, checks it, searches it,
writes to it, and pulls the pushed copy. Then the sides change places. What is
computed on both sides must be the same: embeddings to the bit, and who is near.
"""
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = ["sqlite3", "-cmd", f".load '{ROOT / 'choir.so'}'"]

WRITE = """
.bail on
.output /dev/null
SELECT choir_init();
SELECT artifact_import('docs', '/docs');
SELECT choir_index();
SELECT state_set('theme', '$.colour', 'dark');
SELECT state_checkpoint('first');
CREATE TABLE item(id INTEGER PRIMARY KEY, e BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
INSERT INTO item SELECT i, embed('word' || i || ' and ' || (i * 7 % 31))
  FROM n;
SELECT vec_index_create('item_e', 'item', 'e');
SELECT vec_index_optimize('item_e');
SELECT log_track('item');
UPDATE item SET e = vec_f32(e) WHERE id < 10;
SELECT log_seal();
SELECT sync_push('{remote}');
"""
CHECK = """
.bail on
SELECT 'check', choir_check();
SELECT 'files', count(*) > 3 FROM artifacts;
SELECT 'found', path FROM choir_search('pure SQL triggers write the log', 3);
SELECT 'near', id, (SELECT rowid FROM vec_search('item_e', e, 1))
  FROM item WHERE id IN (8, 77, 599);
SELECT 'embedded', hex(embed('The same words on every machine, naïve'));
SELECT 'state', state_get('theme', '$.colour');
SELECT 'log', log_verify();
SELECT 'digest', count(*), sum(length(e)) FROM item;
"""
CHANGE = """
.bail on
.output /dev/null
DELETE FROM item WHERE id % 5 = 0;
UPDATE item SET e = embed('changed ' || id) WHERE id % 7 = 0;
SELECT artifact_put('/from/there.md', 'written on the other side');
SELECT vec_index_optimize('item_e');
SELECT log_seal();
SELECT sync_push('{remote}');
"""


def run(shell, path, script):
    done = subprocess.run([*shell, str(path)], input=script, text=True,
                          cwd=ROOT, capture_output=True, timeout=1200)
    if done.returncode or done.stderr.strip():
        raise SystemExit(f"exchange: {shell[0]}: {done.stderr or done.stdout}")
    return done.stdout


def same(what, one, other):
    for a, b in itertools.zip_longest(one.split("\n"), other.split("\n")):
        if a != b:
            raise SystemExit(f"exchange: {what} differs:\n{a}\n{b}")


def exchange(writer, reader, folder):
    (folder / "remote").mkdir(parents=True)
    remote = f"file://{folder / sys.argv[2]}" + "/" * sys.argv[2].endswith("/")
    ws, copy = folder / "ws.db", folder / "copy.db"
    run(writer, ws, WRITE.format(remote=remote))
    seen = run(writer, ws, CHECK)
    same("what was written", seen, run(reader, ws, CHECK))
    run(reader, copy, f"SELECT sync_pull('{remote}');")
    same("what was pulled", seen, run(reader, copy, CHECK))
    run(reader, copy, CHANGE.format(remote=remote))
    seen = run(reader, copy, CHECK)
    run(writer, ws, f"SELECT sync_pull('{remote}');")
    same("what came back", seen, run(writer, ws, CHECK))


def main():
    there = [os.path.abspath(sys.argv[1])]
    with tempfile.TemporaryDirectory() as tmp:
        exchange(there, HERE, pathlib.Path(tmp) / "there")
        exchange(HERE, there, pathlib.Path(tmp) / "here")
    print("exchange: files and remotes go both ways")


main()
