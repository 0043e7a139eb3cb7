# SPDX-License-Identifier: MIT
"""Every example of every doc block gives what its block says.

An example runs in a fresh workspace; when it has several statements, the last
one's rows count. A row is its values joined by |, NULL as NULL, a blob as
x'…', numbers as SQLite prints them.
"""
import sys

import pytest

from conftest import OMIT_NET, ROOT
from shell_db import statements

sys.path.insert(0, str(ROOT / "tools"))
import docs  # noqa: E402

EXAMPLES = [
    pytest.param(e, id=f"{b.names()[0]}-{i}")
    for b in docs.blocks() if not (OMIT_NET and b.room in docs.NET)
    for i, e in enumerate(b.examples, 1)]


def shown(value):
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if isinstance(value, float):
        text = "%.15g" % value
        return text if any(c in text for c in ".einf") else text + ".0"
    return str(value)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example, db):
    *before, last = statements("\n".join(example["sql"]))
    for sql in before:
        db.rows(sql)
    if example["error"]:
        assert db.error(last) == example["error"]
    else:
        rows = ["|".join(map(shown, row)) for row in db.rows(last)]
        assert "\n".join(rows) == "\n".join(example["rows"])


def test_every_block_has_an_example():
    assert not [b.where for b in docs.blocks() if not b.examples]
