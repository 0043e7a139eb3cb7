# SPDX-License-Identifier: MIT
"""Any table, any statement, any pragma: the log tells what happened.

Random statements run on tables of every shape, under every combination of
recursive_triggers, foreign_keys, trusted_schema, defensive mode and
double-quoted strings, while choir's generator of triggers records them. The
oracle is the table itself, read before and after each statement:

  - every key whose row came, went or changed has a record;
  - what has no record has not changed, and the reverse: without REPLACE, a
    record means a change;
  - the operations of one key are a history that can have happened;
  - a replica of the keys, made from the records alone, is the table.

  CHOIR_LOG_OPS   statements in all (default 10,000)
  CHOIR_LOG_SEED  of the random choices (default 1)
"""
import json
import os
import random

import pytest

from random_tables import (COMBINATIONS, SHAPES, Run, generator, quote,
                           typed)  # noqa: F401

OPS = int(os.environ.get("CHOIR_LOG_OPS", "10000"))
SEED = int(os.environ.get("CHOIR_LOG_SEED", "1"))

pytestmark = pytest.mark.inprocess


def from_log(pk, composite, encoding):
    if not composite:
        return typed(pk)
    decode = {"blob": bytes.fromhex, "real": float,
              "text": lambda x: bytes.fromhex(x).decode(encoding)}
    return tuple(typed(v if not isinstance(v, dict)
                       else [decode[k](x) for k, x in v.items()][0])
                 for v in json.loads(pk))


class LogRun(Run):
    """What the log says, held against the tables."""

    def read(self, table):
        keys, pools = self.tables[table]
        columns = keys + [c for c in pools if c not in keys]
        found = {}
        for row in self.d.rows("SELECT " + ", ".join(map(quote, columns))
                               + f" FROM {quote(table)}"):
            key = tuple(map(typed, row[: len(keys)]))
            key = key if len(keys) > 1 else key[0]
            assert key not in found
            found[key] = tuple(map(typed, row[len(keys):]))
        return found

    def step(self):
        before = {t: self.read(t) for t in self.tables}
        sql, values = self.attempt(0.05)
        log = self.d.rows("SELECT seq, action_type, tbl, pk, payload"
                          " FROM action_log WHERE seq > ? ORDER BY seq",
                          self.seq)
        self.seq = log[-1][0] if log else self.seq
        for t in self.tables:
            composite = len(self.tables[t][0]) > 1
            self.judge(before[t], self.read(t), self.live[t],
                       [(op, from_log(pk, composite, self.encoding))
                        for _, op, tbl, pk, _ in log if tbl == t],
                       (sql, values, log))

    def judge(self, before, after, live, ops, what):
        changed = {k for k in before.keys() | after.keys()
                   if before.get(k) != after.get(k)}
        recorded = {k for _, k in ops}
        assert changed <= recorded, ("missed", changed - recorded, what)
        for op, key in ops:
            if self.strict:
                assert (key in live) or op == "INSERT", ("no such row", what)
                assert (key not in live) or op != "INSERT" or self.replace, (
                    "twice", what)
            if op == "DELETE":
                live.discard(key)
            else:
                live.add(key)
        assert live == set(after), ("replica", live ^ set(after), what)
        if self.strict and not self.replace:
            came_and_went = {k for k in recorded if len(
                [1 for _, key in ops if key == k]) > 1}
            assert recorded <= changed | came_and_went, (
                "nothing changed", recorded - changed, what)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_the_log_alone_rebuilds_the_keys(shape, open_db, generator):
    each = max(1, OPS // (len(SHAPES) * len(COMBINATIONS)) + 1)
    for i, pragmas in enumerate(COMBINATIONS):
        rng = random.Random(f"{SEED} {shape} {i}")
        run = LogRun(open_db, generator, shape, pragmas, rng)
        for _ in range(each):
            run.step()
        run.close()


def test_an_expression_index_is_refused_by_name(open_db, generator):
    d = open_db()
    d.load(generator)
    d.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a);"
          "CREATE UNIQUE INDEX low ON t(lower(a))")
    assert d.error("SELECT test_triggers('t')") == (
        "test_triggers: unique index low of table t is on an expression; the"
        " log cannot tell what REPLACE removes through it")
    assert d.error("SELECT test_triggers('u')") == (
        "test_triggers: table u does not exist")
    d.run("CREATE VIEW v AS SELECT 1; CREATE TABLE u(rowid, oid, _rowid_)")
    assert d.error("SELECT test_triggers('v')") == (
        "test_triggers: v is a view, not a table")
    assert d.error("SELECT test_triggers('u')") == (
        "test_triggers: table u has no PRIMARY KEY, and columns that hide its"
        " rowid, so that nothing tells its rows apart")


def test_a_rowid_table_without_conflicts_gets_four_triggers(open_db, generator):
    d = open_db()
    d.load(generator)
    d.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    assert len(json.loads(d.one("SELECT test_triggers('t')"))) == 4
    d.run("CREATE UNIQUE INDEX ta ON t(a)")
    assert len(json.loads(d.one("SELECT test_triggers('t')"))) == 7
