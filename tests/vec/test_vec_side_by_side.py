# SPDX-License-Identifier: MIT
"""choir's shared vec_* functions and sqlite-vec's give the same results.

Both are loaded into one connection, in either order. A later load replaces the
names of an earlier one, so the results of the first are collected before the
second is loaded. The inputs are random, errors included: whatever one refuses
the other refuses. Blobs, subtypes, types and JSON text are identical; what is
computed in floating point may differ by the tolerances stated below. The text
of error messages is each extension's own.
"""
import math
import os
import random
import struct

import pytest

from conftest import SO, Db

sqlite_vec = pytest.importorskip("sqlite_vec", reason="PyPI sqlite-vec")
pytestmark = [pytest.mark.inprocess, pytest.mark.slow]

SEED = int(os.environ.get("CHOIR_SEED", "20"))
INPUTS = 10_000

# relative to the largest magnitude of a result's kind
EXACT = 0.0
UNIT = 1e-6  # elements of a normalized vector, cosine distance (absolute)
SUM = 1e-5   # sums of up to 400 float32 terms (relative)


def f32(values):
    return struct.pack(f"<{len(values)}f", *values)


class Inputs:
    """Random SQL expressions with their parameters."""

    def __init__(self, seed):
        self.rnd = random.Random(seed)

    def pick(self, *choices):
        return self.rnd.choice(choices)

    def dim(self):
        return self.pick(1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 33, 64, 100, 400,
                         self.rnd.randint(1, 64))

    def floats(self, n):
        kind = self.rnd.random()
        if kind < 0.04:
            return [0.0] * n
        values = [self.rnd.gauss(0, self.pick(0.01, 1, 100)) for _ in range(n)]
        if kind < 0.12:
            values[self.rnd.randrange(n)] = self.pick(
                math.nan, math.inf, -math.inf, -0.0, 1e-42)
        return values

    def number(self, v):
        text = self.pick("%r", "%.3f", "%.9g", "%.17g", "%+e", "%.25f") % v
        return text

    def json_f32(self, n):
        values = self.floats(n)
        sep = self.pick(",", ", ", " , ", ",\n\t")
        return self.pick("", " ") + "[" + sep.join(
            self.number(v) for v in values) + "]" + self.pick("", "", " ", "x")

    def json_int8(self, n):
        return "[" + self.pick(",", ", ").join(
            str(self.rnd.randint(-128, 127)) for _ in range(n)) + "]"

    def broken(self):
        """Text that is damaged, or lenient notation."""
        if self.rnd.random() < 0.4:
            return self.pick(
                "", " ", "[", "]", "[]", "[ ]", "[]x", "[,]", "[,1]", "[1,]",
                "[1,,2]", "[1 2]", "[1", "[1,2", "{}", "null", "[null]",
                "[true]", '["1"]', "[[1]]", "[1]]", "[1}", "[1;2]", "x[1]",
                "[nan]", "[NaN, 1]", "[-nan]", "[nan(1_a)]", "[nan(]", "[nanx]",
                "[inf]", "[-Infinity]", "[infin]", "[0x10]", "[0X.8p1]",
                "[0x]", "[0x1p-2000]", "[0x1p5000]", "[1e400]", "[-1e400]",
                "[1e-400]", "[0e-400]", "[1e39]", "[1e-46]", "[4.9e-324]",
                "[2.2250738585072011e-308]", "[18446744073709551616]",
                "[9007199254740993]", "[1.7976931348623159e308]",
                "[0.1000000000000000055511151231257827]", "[1" + "0" * 40 + "]",
                "[0." + "0" * 60 + "1]", "[" + "9" * 800 + "]", "[1.]", "[.5]",
                "[.]", "[-]", "[+1]", "[- 1]", "[01]", "[1e]", "[1e+]",
                "[1E5]", "[1d]", "[1_0]", "[1\v]", "[1,\v2]", "[\f1]",
                "\v[1]", "[1\0]", "[1,2\0", "[1]\0x", "\0", "[\xa01]", "[1 2]",
                "[128]", "[-129]", "[1.5]", "[99999999999999999999]", "[-0]")
        text = list(self.pick(self.json_f32, self.json_int8)(
            self.rnd.randint(1, 6)))
        for _ in range(self.rnd.randint(1, 3)):
            at = self.rnd.randrange(len(text))
            text[at] = self.pick("", " ", ",", "[", "]", "e", "-", ".", "x",
                                 "\n", "\0", "1", "é")
        return "".join(text)

    def other(self):
        return self.pick(None, 1, 0, -7, 2.5, 1 << 60, math.inf)

    def blob(self):
        return self.rnd.randbytes(self.pick(0, 1, 2, 3, 4, 8, 12, 13, 32, 64))

    def vector(self, n=None, kind=None, wild=True):
        """(expression, parameter) of a vector, rarely of something else."""
        n = n or self.dim()
        x = self.rnd.random()
        if wild and x < 0.05:
            return "?", self.other()
        if wild and x < 0.15:
            return self.pick("?", "vec_f32(?)", "vec_int8(?)"), self.broken()
        if wild and x < 0.22:
            return self.pick("?", "vec_f32(?)", "vec_int8(?)",
                             "vec_bit(?)"), self.blob()
        kind = kind or self.pick("text", "blob", "blob", "f32", "int8", "int8b",
                                 "bit")
        if kind == "text":
            return "?", self.json_f32(n)
        if kind == "blob":
            return "?", f32(self.floats(n))
        if kind == "f32":
            return "vec_f32(?)", f32(self.floats(n))
        if kind == "int8":
            return "vec_int8(?)", self.json_int8(n)
        if kind == "int8b":
            return "vec_int8(?)", self.rnd.randbytes(n)
        return "vec_bit(?)", self.rnd.randbytes(max(1, n // 8))

    def two(self):
        """Mostly the same kind and length, so that something is computed."""
        if self.rnd.random() < 0.2:
            a, b = self.vector(), self.vector()
        else:
            n, kind = self.dim(), self.pick("text", "blob", "f32", "int8",
                                            "int8b", "bit")
            a, b = self.vector(n, kind, False), self.vector(n, kind, False)
        return f"{a[0]}, {b[0]}", [a[1], b[1]]

    def call(self):
        one = lambda: (lambda v: (v[0], [v[1]]))(self.vector())
        name = self.pick(
            "vec_f32", "vec_f32", "vec_int8", "vec_bit", "vec_length",
            "vec_type", "vec_add", "vec_sub", "vec_normalize", "vec_slice",
            "vec_to_json", "vec_quantize_binary", "vec_quantize_int8",
            "vec_distance_l2", "vec_distance_l1", "vec_distance_cosine",
            "vec_distance_hamming", "vec_each")
        if name in ("vec_add", "vec_sub") or name.startswith("vec_distance"):
            args, params = self.two()
        elif name in ("vec_f32", "vec_int8", "vec_bit"):
            params = [self.pick(self.other, self.broken, self.blob,
                                lambda: self.json_f32(self.dim()),
                                lambda: self.json_int8(self.dim()),
                                lambda: f32(self.floats(self.dim())))()]
            args = "?"
        elif name == "vec_slice":
            n = self.dim()
            v, p = self.vector(n)
            bound = lambda: self.pick(0, n, self.rnd.randint(-1, n + 1), 8, 16,
                                      n // 8 * 8, None, "1", 2.9, (1 << 32) + 1)
            args, params = f"{v}, ?, ?", [p, bound(), bound()]
        elif name == "vec_quantize_int8":
            v, p = self.vector()
            if self.rnd.random() < 0.7:
                n = self.dim()
                v, p = "?", f32([self.rnd.uniform(-1.1, 1.1) for _ in range(n)])
            args, params = f"{v}, ?", [p, self.pick("unit", "unit", "unit",
                                                    "UNIT", "x", "", None, 1)]
        elif name == "vec_quantize_binary" and self.rnd.random() < 0.6:
            v, p = self.vector(8 * self.rnd.randint(1, 20), None, False)
            args, params = v, [p]
        else:
            args, params = one()
        if name == "vec_each":
            return name, ("SELECT rowid, value, typeof(value), NULL FROM"
                          f" vec_each({args})"), params
        return name, (f"SELECT r, typeof(r), subtype(r), NULL FROM"
                      f" (SELECT {name}({args}) AS r)"), params


def collect(db, calls):
    out = []
    for _, sql, params in calls:
        try:
            out.append(db.rows(sql, *params))
        except db.failure as e:
            out.append(f"error: {e}")
    return out


def near(a, b, tolerance, absolute=False):
    if a is None or b is None or isinstance(a, str) or math.isnan(a):
        return a == b or (a != a and b != b)
    if math.isinf(a) or math.isinf(b):
        return a == b
    return abs(a - b) <= tolerance * (1.0 if absolute else max(abs(a), abs(b)))


def same(name, ours, theirs):
    if isinstance(ours, str) or isinstance(theirs, str):
        return isinstance(ours, str) and isinstance(theirs, str)
    if len(ours) != len(theirs):
        return False
    for row, other in zip(ours, theirs):
        if row == other:
            continue
        if row[1:] != other[1:]:
            return False
        a, b = row[0], other[0]
        if name == "vec_distance_cosine":
            ok = near(a, b, UNIT, True)
        elif name.startswith("vec_distance"):
            ok = near(a, b, SUM)
        elif isinstance(a, bytes) and len(a) == len(b) and len(a) % 4 == 0:
            # the same floats; a NaN's bits are the processor's
            n = len(a) // 4
            ok = all(near(x, y, UNIT if name == "vec_normalize" else EXACT)
                     for x, y in zip(struct.unpack(f"<{n}f", a),
                                     struct.unpack(f"<{n}f", b)))
        else:
            ok = False
        if not ok:
            return False
    return True


@pytest.mark.parametrize("first", ["choir", "sqlite-vec"])
def test_ten_thousand_random_inputs_give_the_same(first):
    rnd = Inputs(SEED + (first == "choir"))
    calls = [rnd.call() for _ in range(INPUTS)]
    db = Db(choir=False)
    paths = {"choir": SO, "sqlite-vec": sqlite_vec.loadable_path()}
    results = {}
    try:
        for which in sorted(paths, key=lambda w: w != first):
            db.load(paths[which])
            results[which] = collect(db, calls)
        if first == "choir":  # what is there now is sqlite-vec's
            assert db.one("SELECT vec_debug()").startswith("Version: v0.1.9")
    finally:
        db.close()
    wrong = [(sql, params, ours, theirs)
             for (name, sql, params), ours, theirs in zip(
                 calls, results["choir"], results["sqlite-vec"])
             if not same(name, ours, theirs)]
    for case in wrong[:5]:
        print(*(str(part)[:600] for part in case), sep="\n    ")
    assert not wrong, f"{len(wrong)} of {INPUTS} differ"
    # The comparison is worth something: results and errors are both common.
    errors = sum(isinstance(r, str) for r in results["choir"])
    assert INPUTS * 0.1 < errors < INPUTS * 0.6
    names = {name for name, _, _ in calls}
    assert len(names) == 17


def test_the_functions_that_sqlite_vec_has_are_all_here():
    db, theirs = Db(), Db(choir=False)
    theirs.load(sqlite_vec.loadable_path())
    sql = ("SELECT name, narg FROM pragma_function_list"
           " WHERE name LIKE 'vec%' ORDER BY 1, 2")
    missing = set(theirs.rows(sql)) - set(db.rows(sql))
    db.close(), theirs.close()
    assert missing == {("vec_debug", 0), ("vec_version", 0)}


def test_loading_after_sqlite_vec_leaves_its_tables_working():
    db = Db(choir=False)
    db.load(sqlite_vec.loadable_path())
    db.run("CREATE VIRTUAL TABLE v USING vec0(e float[2])")
    db.run("INSERT INTO v(rowid, e) VALUES(1, '[1, 2]'), (2, '[5, 6]')")
    db.load(SO)
    assert db.rows("SELECT rowid FROM v WHERE e MATCH vec_f32('[5, 5]')"
                   " AND k = 1") == [(2,)]
    assert db.rows("SELECT rowid FROM vec_scan('v', 'e', '[5, 5]', 1, 'l2')"
                   ) == [(2,)]
    db.close()


def test_loading_while_a_statement_runs_keeps_their_names_and_says_so():
    db = Db(choir=False)
    db.load(sqlite_vec.loadable_path())
    db.run("CREATE TABLE t(a); INSERT INTO t VALUES(1), (2)")
    cursor = db.con.execute("SELECT a FROM t")
    next(cursor)
    db.load(SO)
    kept = db.one("SELECT detail FROM choir_doctor WHERE \"check\" ="
                  " 'shared names'")
    cursor.close()
    assert "vec_f32" in kept
    assert db.one("SELECT vec_length('[1, 2]')") == 2
    db.close()
