# SPDX-License-Identifier: MIT
"""Vector values: what goes in, what comes out, what is refused."""
import locale
import math
import random
import struct
import subprocess

import pytest

from conftest import DRIVER, SO


def f32(*values):
    return struct.pack(f"<{len(values)}f", *values)


def f16(*values):
    return struct.pack(f"<{len(values)}e", *values)


def test_json_numbers_are_rounded_as_python_rounds_them(db):
    rnd = random.Random(7)
    texts = ["0.1", "1e-45", "7e-46", "3.4028235677973366e38", "-0",
             "0.30000001192092896", "123456789012345678901234567890",
             "1" + "0" * 30, "0." + "0" * 30 + "1", "9007199254740993",
             "2.5e-324", "16777217", "33554435"]
    for _ in range(3000):
        texts.append("%.*e" % (rnd.randint(0, 24), rnd.uniform(-1, 1)
                               * 10.0 ** rnd.randint(-44, 37)))
        texts.append("%.*f" % (rnd.randint(0, 30), rnd.gauss(0, 1)))
    blob = db.one("SELECT vec_f32(?)", "[" + ",".join(texts) + "]")
    want = [struct.unpack("<f", struct.pack("<f", float(t)))[0]
            if abs(float(t)) < 3.4028235677973366e38 else math.inf
            for t in texts]
    assert list(struct.unpack(f"<{len(texts)}f", blob)) == want


@pytest.mark.parametrize("factor, low, high", [(3, 0, 1e-5), (-3, 2 - 1e-5, 2)])
def test_rounding_does_not_lead_out_of_the_cosine_distances(factor, low, high, db):
    rnd = random.Random(11)
    for n in (3, 8, 33):
        for _ in range(60):
            a = [rnd.gauss(0, 1) for _ in range(n)]
            r = db.one("SELECT vec_distance_cosine(?, ?)", f32(*a),
                       f32(*[factor * x for x in a]))
            assert low <= r <= high, a


@pytest.mark.inprocess
def test_the_hosts_locale_does_not_change_numbers(db, tmp_path, monkeypatch):
    """A locale of our own: one that differs in its decimal comma."""
    (tmp_path / "comma").write_text(
        'comment_char %\nescape_char /\nLC_NUMERIC\ndecimal_point ","\n'
        'thousands_sep ""\ngrouping -1\nEND LC_NUMERIC\n')
    try:
        subprocess.run(["localedef", "-c", "-i", tmp_path / "comma", "-f",
                        "UTF-8", tmp_path / "xx_XX"], capture_output=True)
        monkeypatch.setenv("LOCPATH", str(tmp_path))
        locale.setlocale(locale.LC_NUMERIC, "xx_XX")
    except (OSError, locale.Error) as e:
        pytest.skip(f"localedef cannot make a locale here: {e}")
    try:
        assert locale.localeconv()["decimal_point"] == ","
        text = "[0.1234567890123456789, 1,5, 0x1.8p0, 12345678901234567890,3]"
        assert db.one("SELECT vector_extract(vec_f32(?))", text) == (
            "[0.12345679,1,5,1.5,1.2345679e+19,3]")
    finally:
        locale.setlocale(locale.LC_NUMERIC, "C")


@pytest.mark.parametrize("dim", [1, 8, 384, 1536, 65536])
def test_vectors_of_any_length_go_through_every_function(db, dim):
    rnd = random.Random(dim)
    a = [rnd.uniform(-1, 1) for _ in range(dim)]
    b = [rnd.uniform(-1, 1) for _ in range(dim)]
    pa, pb = f32(*a), f32(*b)
    a, b = struct.unpack(f"<{dim}f", pa), struct.unpack(f"<{dim}f", pb)
    dot = math.fsum(x * y for x, y in zip(a, b))
    na, nb = (math.sqrt(math.fsum(x * x for x in v)) for v in (a, b))
    l2 = math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b)))
    l1 = math.fsum(abs(x - y) for x, y in zip(a, b))
    got = db.rows("SELECT vec_length(?1), vec_distance_dot(?1, ?2),"
                  " vec_distance_cosine(?1, ?2), vec_distance_l2(?1, ?2),"
                  " vec_distance_l1(?1, ?2), inner_product(?1, ?2)",
                  pa, pb)[0]
    assert got[0] == dim
    assert got[1] == pytest.approx(-dot, abs=1e-5 * na * nb + 1e-6)
    assert got[2] == pytest.approx(1 - dot / na / nb, abs=1e-5)
    assert got[3] == pytest.approx(l2, rel=1e-5)
    assert got[4] == pytest.approx(l1, rel=1e-5)
    assert got[5] == -got[1]
    total = db.one("SELECT vec_add(?1, ?2)", pa, pb)
    assert total == f32(*[struct.unpack("<f", f32(x + y))[0]
                          for x, y in zip(a, b)])
    assert db.one("SELECT count(*) FROM vec_each(?)", pa) == dim


def test_halves_convert_and_keep_their_type(db):
    values = [0.0, 1.0, -2.5, 65504.0, 6e-8, 0.1]
    assert db.one("SELECT vec_f16(?)", str(values)) == f16(*values)
    assert db.one("SELECT vec_f16(vec_f32(?))", f32(*values)) == f16(*values)
    assert db.one("SELECT vec_f16(?)", f16(*values)) == f16(*values)
    back = struct.unpack("<6e", f16(*values))
    assert db.one("SELECT vec_f32(vec_f16(?))", f16(*values)) == f32(*back)
    assert db.one("SELECT vec_type(vec_bf16(vec_f16(?)))", f16(1)) == "bfloat16"
    assert db.one("SELECT hex(vec_bf16(vec_f32(?)))", f32(1.0, -3.0)
                  ) == "803F40C0"
    assert db.one("SELECT vec_length(vec_f16(?))", f16(*values)) == 6
    assert db.one("SELECT vec_distance_l2(vec_f16('[1,2]'), vec_f16('[4,6]'))"
                  ) == 5.0
    assert db.one("SELECT vec_to_json(vec_add(vec_bf16('[1,2]'),"
                  " vec_bf16('[4,6]')))") == "[5.000000,8.000000]"
    assert db.one("SELECT hex(vec_slice(vec_f16('[1,2,3]'), 1, 2))") == "0040"
    # bytes of int8 and bit vectors are taken as they are
    assert db.one("SELECT hex(vec_f16(vec_int8(x'003C')))") == "003C"


@pytest.mark.parametrize("sql, message", [
    ("vec_f32(NULL)", "vec_f32: vector must be a blob or JSON text, got null"),
    ("vec_f32(7)", "vec_f32: vector must be a blob or JSON text, got integer"),
    ("vec_f32(1.5)", "vec_f32: vector must be a blob or JSON text, got real"),
    ("vec_f32('')",
     "vec_f32: vector has no elements; a vector needs at least one"),
    ("vec_f32(x'')",
     "vec_f32: vector has no elements; a vector needs at least one"),
    ("vec_f32(x'00000000ff')",
     "vec_f32: vector is not a float32 vector: its 5 bytes are no multiple of 4"),
    ("vec_f32('words')", "vec_f32: vector is not a JSON array: words"),
    ("vec_f32('[1, x]')", "vec_f32: vector has no usable number at byte 4: x]"),
    ("vec_f32('[1e999]')",
     "vec_f32: vector has no usable number at byte 1: 1e999]"),
    ("vec_f16(x'01')",
     "vec_f16: vector is not a float16 vector: its 1 bytes are no multiple of 2"),
    ("vec_int8('[1, 400]')",
     "vec_int8: vector has a value outside -128 to 127 at byte 4: 400]"),
    ("vec_int8(3)", "vec_int8: vector must be a blob or JSON text, got integer"),
    ("vec_bit('[1]')", "vec_bit: vector must be a blob, got text"),
    ("vec_length(NULL)",
     "vec_length: vector must be a blob or JSON text, got null"),
    ("vec_add('[1,2]', '[1]')",
     "vec_add: vectors have different dimensions, 2 and 1"),
    ("vec_sub(vec_bit(x'01'), vec_bit(x'01'))",
     "vec_sub: cannot subtract bit vectors"),
    ("vec_add('[1]', NULL)",
     "vec_add: 2nd vector must be a blob or JSON text, got null"),
    ("vec_distance_l2('[1,2]', '[1,2,3]')",
     "vec_distance_l2: vectors have different dimensions, 2 and 3"),
    ("vec_distance_l2('[1]', vec_int8('[1]'))",
     "vec_distance_l2: vectors have different types, float32 and int8; wrap"
     " both in the same constructor, as in vec_int8(x)"),
    ("vec_distance_cosine(vec_bit(x'01'), vec_bit(x'01'))",
     "vec_distance_cosine: no cosine distance between bit vectors; bits have"
     " hamming"),
    ("vec_distance_hamming('[1]', '[1]')",
     "vec_distance_hamming: no hamming distance between float32 vectors;"
     " hamming needs vec_bit(x)"),
    ("vec_normalize(vec_int8('[1]'))",
     "vec_normalize: vector has type int8; only float vectors can be"
     " normalized"),
    ("vec_slice('[1,2]', 1, 1)",
     "vec_slice: no elements 1 to before 1 in a vector of 2"),
    ("vec_slice('[1,2]', -1, 1)",
     "vec_slice: no elements -1 to before 1 in a vector of 2"),
    ("vec_slice(vec_bit(x'0102'), 4, 8)",
     "vec_slice: bit vectors are cut at multiples of 8, not at 4 and 8"),
    ("vec_quantize_binary('[1,2]')",
     "vec_quantize_binary: vector has 2 elements; bits need a multiple of 8"),
    ("vec_quantize_binary(vec_bit(x'01'))",
     "vec_quantize_binary: vector has bits already"),
    ("vec_quantize_int8('[1]', 'all')",
     "vec_quantize_int8: range must be 'unit', got 'all'"),
    ("subvector('[1,2]', 0, 1)", "subvector: start must be 1 to 2, got 0"),
    ("subvector('[1,2]', 2, 2)",
     "subvector: no elements 1 to before 3 in a vector of 2"),
    ("vec_sum(value) FROM json_each('[\"[1]\", \"[1,2]\"]')",
     "vec_sum: vectors have different dimensions, 1 and 2"),
    ("vec_avg(vec_bit(x'01'))", "vec_avg: cannot add bit vectors"),
    ("* FROM vec_each(NULL)",
     "vec_each: vector must be a blob or JSON text, got null"),
    ("choir_config('vec.kernel', 'mmx')",
     "choir_config: vec.kernel 'mmx' is not on this machine; auto, scalar"),
])
def test_what_is_wrong_is_said(db, sql, message):
    got = db.error("SELECT " + sql)
    assert got == message or "mmx" in sql and got.startswith(message)


def test_messages_are_valid_utf8_whatever_the_input(db):
    for text in ("[1, é" * 9, "ééééééééééééééééééé", "[1,\x01"):
        assert "vec_f32: vector " in db.error("SELECT vec_f32(?)", text)
    for cut in range(1, 30):
        assert db.error("SELECT vec_f32(CAST(x'%s' AS TEXT))" % (
            ("ab" * cut) + "c3")).startswith("vec_f32: vector is not")


@pytest.mark.inprocess  # the shell takes literals of up to 1 MB
def test_large_and_deep_json_is_handled(db):
    big = "[" + ",".join(["0.25"] * 250_000) + "]"
    assert len(big) > 1 << 20
    assert db.one("SELECT vec_length(?)", big) == 250_000
    assert db.one("SELECT length(vec_to_json(?))", big) == 9 * 250_000 + 1
    assert "no usable number at byte 1: [[[" in db.error(
        "SELECT vec_f32(?)", "[" * 10_000 + "]" * 10_000)
    assert db.one("SELECT vec_length(?)", "[" + "9" * 1_000_00 + "e-100000]"
                  ) == 1


def test_unaligned_blobs_are_read(db):
    """substr() gives blobs that start at any address."""
    values = [float(i) - 20 for i in range(48)]
    for shift in range(8):
        blob = b"\xee" * shift + f32(*values)
        assert db.one("SELECT vec_distance_l2(substr(?1, ?2), ?3)", blob,
                      shift + 1, f32(*values)) == 0.0
        assert db.one("SELECT vec_add(substr(?1, ?2), substr(?1, ?2))", blob,
                      shift + 1) == f32(*[2 * v for v in values])


def test_nan_and_infinity_go_through(db):
    nan, inf = f32(math.nan, 1), f32(math.inf, 1)
    assert db.one("SELECT vec_distance_l2(?, '[1,1]')", nan) is None
    assert db.one("SELECT vec_distance_cosine(?, '[1,1]')", nan) is None
    assert db.one("SELECT vec_distance_dot(?, '[1,1]') < -1e300", inf) == 1
    assert db.one("SELECT vec_to_json(?)", nan) == "[null,1.000000]"
    assert db.one("SELECT vector_extract(?)", inf) == "[null,1]"
    assert db.rows("SELECT value FROM vec_each(?)", nan) == [(None,), (1.0,)]
    assert db.one("SELECT vec_distance_cosine('[0,0]', '[1,1]')") is None


def test_vector_extract_comes_back_exactly(db):
    rnd = random.Random(3)
    blob = f32(*[rnd.gauss(0, 1) * 10.0 ** rnd.randint(-30, 30)
                 for _ in range(2000)])
    text = db.one("SELECT vector_extract(?)", blob)
    assert db.one("SELECT json_valid(?)", text) == 1
    assert db.one("SELECT vector32(?)", text) == blob


def test_a_constant_query_gives_the_same_as_a_changing_one(db):
    """What is kept of a constant argument must not outlive it."""
    db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, e, f)")
    rnd = random.Random(5)
    for _ in range(40):
        db.rows("INSERT INTO t(e, f) VALUES(?, ?)",
                f32(*[rnd.gauss(0, 1) for _ in range(20)]),
                str([rnd.gauss(0, 1) for _ in range(20)]))
    for metric in ("cosine", "l2", "l1", "dot"):
        fn = f"vec_distance_{metric}"
        for q in (f32(*[rnd.gauss(0, 1) for _ in range(20)]),
                  str([rnd.gauss(0, 1) for _ in range(20)])):
            one_by_one = [db.one(f"SELECT {fn}(e, ?) FROM t WHERE id=?", q, i)
                          for i in range(1, 41)]
            for sql in (f"{fn}(e, ?)", f"{fn}(?, e)"):
                got = [r for r, in db.rows(f"SELECT {sql} FROM t", q)]
                assert got == pytest.approx(one_by_one, rel=1e-6, abs=1e-6)
        both = [r for r, in db.rows(f"SELECT {fn}(e, f) FROM t")]
        alone = [db.one(f"SELECT {fn}(e, f) FROM t WHERE id=?", i)
                 for i in range(1, 41)]
        assert both == alone
        # in a correlated subquery the "constant" changes with the outer row
        pairs = db.rows(f"SELECT a.id, (SELECT {fn}(b.e, a.f) FROM t b"
                        " WHERE b.id = 7) FROM t a")
        assert [r for _, r in pairs] == pytest.approx([
            db.one(f"SELECT {fn}((SELECT e FROM t WHERE id=7), f) FROM t"
                   " WHERE id=?", i) for i, _ in pairs], rel=1e-6, abs=1e-6)


def test_a_bad_row_among_good_ones_fails_with_both_lengths(db):
    db.run("CREATE TABLE t(e); INSERT INTO t VALUES('[1,2]'), ('[1,2,3]')")
    assert db.error("SELECT vec_distance_cosine(e, '[1,2]') FROM t") == (
        "vec_distance_cosine: vectors have different dimensions, 3 and 2")


def test_sums_and_averages_skip_null_and_work_in_groups(db):
    db.run("CREATE TABLE t(g, e); INSERT INTO t VALUES(1, '[1,2]'), (1, NULL),"
           " (1, '[3,6]'), (2, NULL), (3, vec_int8('[100,100]'))")
    assert db.rows("SELECT g, vec_to_json(vec_avg(e)) FROM t WHERE g = 1") == [
        (1, "[2.000000,4.000000]")]
    assert db.rows("SELECT g, vec_sum(e) IS NULL FROM t GROUP BY g LIMIT 2"
                   ) == [(1, 0), (2, 1)]
    assert db.one("SELECT vec_sum(e) FROM t WHERE g > 9") is None
    db.run("INSERT INTO t VALUES(3, vec_int8('[100, -100]'))")
    assert db.one("SELECT vec_to_json(vec_sum(vec_int8(e))) FROM t WHERE g=3"
                  ) == "[200.000000,0.000000]"


def test_every_tier_of_this_machine_can_be_forced_and_agrees(db):
    tiers = db.error("SELECT choir_config('vec.kernel', '?')").split(
        "auto, ")[1].split(", ")
    assert tiers[0] == "scalar"
    rnd = random.Random(11)
    a, b = (f32(*[rnd.gauss(0, 1) for _ in range(301)]) for _ in range(2))
    results = []
    for tier in tiers:
        assert db.rows("SELECT choir_config('vec.kernel', ?), vec_kernel()",
                       tier) == [(tier, tier)]
        results.append(db.rows(
            "SELECT vec_distance_l2(?1, ?2), vec_distance_cosine(?1, ?2),"
            " vec_distance_dot(?1, ?2), vec_distance_l1(?1, ?2)", a, b)[0])
    for r in results:
        assert r == pytest.approx(results[0], rel=1e-5, abs=1e-5)
    db.one("SELECT choir_config('vec.kernel', NULL)")
    assert db.one("SELECT vec_kernel()") == tiers[-1]


def test_a_tier_from_the_environment_that_is_not_there_is_reported(
        tmp_path, open_db, monkeypatch):
    monkeypatch.setenv("CHOIR_VEC_KERNEL", "altivec")
    d = open_db(tmp_path / "x.db")
    assert d.one("SELECT vec_distance_l2('[1]', '[3]')") == 2.0
    assert d.one('SELECT status FROM choir_doctor WHERE "check" ='
                 " 'vector kernels'") == "warn"


@pytest.mark.inprocess
@pytest.mark.inprocess
def test_functions_of_others_are_left_alone(tmp_path, open_db):
    """pgvector's and libSQL's names are taken only where they are free."""
    d = open_db(tmp_path / "x.db", choir=False)
    if DRIVER == "apsw":
        d.con.createscalarfunction("l2_distance", lambda a, b: "mine", 2)
    else:
        d.con.create_function("l2_distance", 2, lambda a, b: "mine")
    d.load(SO)
    assert d.one("SELECT l2_distance(1, 2)") == "mine"
    assert d.one("SELECT vector_dims('[1]')") == 1
    assert "l2_distance" in d.one(
        "SELECT detail FROM choir_doctor WHERE \"check\" = 'shared names'")
