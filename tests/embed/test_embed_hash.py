# SPDX-License-Identifier: MIT
"""embed: hash-384 is what docs/formats.md says, to the last bit."""
import hashlib
import math
import re
import struct

import pytest

from conftest import OMIT_NET

MASK = (1 << 64) - 1


def feature_hash(tag, text):
    h = 0xCBF29CE484222325
    for b in tag.encode() + text.encode():
        h = (h ^ b) * 0x100000001B3 & MASK
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & MASK
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & MASK
    return h ^ h >> 33


def reference(words):
    """hash-384 in a few lines, for words already folded."""
    sums, seen = [0] * 384, {}
    for word in words:
        k = seen.get(word, 0)
        seen[word] = k + 1
        if k >= 3:
            continue
        weight = (16, 4, 2)[k] * (0, 4, 4, 8, 12, 14, 15, 15, 16)[
            min(len(word), 8)]
        wide = ord(word[0]) >= 0x2E80
        marked = word if wide else f"<{word}>"
        lengths = (1, 2, 3) if wide else (3, 4, 5)
        features = [(2 * weight, feature_hash("w", word))] + [
            (weight, feature_hash("g", marked[i:i + n]))
            for n in lengths for i in range(len(marked) - n + 1)]
        for w, h in features:
            sums[(h >> 32) * 384 >> 32] += w if h & 1 else -w
    norm = math.sqrt(float(sum(s * s for s in sums)))
    return struct.pack("<384f", *(s / norm for s in sums))


def words_of(text):
    return re.findall(r"[a-z0-9]+", text.lower())


@pytest.mark.parametrize("text", [
    "a", "patent", "Patent retaliation",
    "the cat and the dog and the bird and the fish",
    "x" * 64, "A licence grants rights, subject to 42 conditions. " * 30])
def test_ascii_texts_match_the_reference(db, text):
    assert db.one("SELECT embed(?)", text) == reference(words_of(text))


@pytest.mark.parametrize("text, words", [
    ("Ça déjà VU", ["ca", "deja", "vu"]),
    ("Cafe\u0301", ["cafe"]),
    ("Straße Ærøskøbing Łódź", ["strasse", "aeroskobing", "lodz"]),
    ("ΆΛΦΑ ὈΔΥΣΣΕΎΣ Ὀδυσσεύς", ["αλφα", "οδυσσευσ", "οδυσσευσ"]),
    ("Ёлка ЖУК Ѣ", ["елка", "жук", "ѣ"]),
    ("don't", ["don", "t"]),
    ("naïve—ﬁn “x” a_b", ["naive", "ﬁn", "x", "a", "b"]),
    ("会议记录", ["会议记录"]),
    ("rocket 🚀 go", ["rocket", "🚀", "go"]),
    ("שלום עולם", ["שלום", "עולם"]),
    ("x" * 70, ["x" * 64, "x" * 6]),
])
def test_words_are_folded_as_documented(db, text, words):
    assert db.one("SELECT embed(?)", text) == reference(words)


def test_golden_vectors_do_not_change(db):
    """The bytes that docs/formats.md gives; files in the world hold them."""
    for text, digest in GOLDEN:
        blob = db.one("SELECT embed(?)", text)
        assert hashlib.sha256(blob).hexdigest() == digest


GOLDEN = [
    ("choir",
     "cd46c358ec727361fc39fb5ab46eb9c2e095bf5362391bd10e65be2e0a6101e0"),
    ("Zwölf Boxkämpfer, déjà vu: 42 会议 🚀",
     "9331959e418bc4eb0fe75ddf1f080084f3d77f7240a0c5594bca76ee907e4d65"),
]


def test_vectors_have_length_one_and_subtype_of_f32(db):
    blob = db.one("SELECT embed('some words here')")
    values = struct.unpack("<384f", blob)
    assert abs(math.fsum(v * v for v in values) - 1) < 1e-6


def test_a_text_without_words_is_the_zero_vector(db):
    for text in ("", " \n", "?!… — «»"):
        assert db.one("SELECT embed(?)", text) == bytes(1536)


def test_null_gives_null_and_roles_agree(db):
    assert db.rows("SELECT embed(NULL), embed(NULL, 'query'),"
                   " embed('a', NULL) = embed('a'),"
                   " embed('a', 'query') = embed('a', 'document')") == [
        (None, None, 1, 1)]


def test_a_misspelling_is_nearer_than_another_word(db):
    def cosine(a, b):
        va, vb = (struct.unpack("<384f", db.one("SELECT embed(?)", t))
                  for t in (a, b))
        return sum(x * y for x, y in zip(va, vb))
    assert cosine("warranty", "warrenty") > 0.3
    assert cosine("licence", "licences") > 0.5
    assert cosine("warranty", "elephant") < 0.2


def test_a_megabyte_of_one_word_or_many_is_embedded(db):
    for text in ("x" * 1_000_000, "word " * 200_000,
                 " ".join(map(str, range(150_000)))):
        assert len(db.one("SELECT embed(?)", text)) == 1536


KNOWN = "hash-384" if OMIT_NET else "hash-384, openai, ollama, tei"


@pytest.mark.parametrize("sql, message", [
    ("SELECT embed(1)", "embed: text must be text, got integer"),
    ("SELECT embed(x'61')", "embed: text must be text, got blob"),
    ("SELECT embed(CAST(x'ff' AS TEXT))",
     "embed: text is not valid UTF-8 at byte 0"),
    ("SELECT embed('a' || char(0))", "embed: text has a NUL character at byte 1"),
    ("SELECT embed('a', 'answer')",
     "embed: role must be document or query, got 'answer'"),
    ("SELECT choir_config('embed.provider', 'gpt')",
     f"choir_config: embed.provider is 'gpt' and choir knows {KNOWN}; run"
     " select choir_config('embed.provider', 'hash-384')"),
])
def test_bad_input_is_named(db, sql, message):
    assert db.error(sql) == message


@pytest.mark.inprocess
def test_a_provider_from_the_environment_is_checked_at_use(db, monkeypatch):
    monkeypatch.setenv("CHOIR_EMBED_PROVIDER", "oracle")
    assert db.error("SELECT embed_model()").startswith(
        f"embed_model: embed.provider is 'oracle' and choir knows {KNOWN}")


def test_a_readonly_connection_has_the_local_model(tmp_path, open_db):
    d = open_db(tmp_path / "r.db", entry="sqlite3_choir_readonly_init")
    assert d.one("SELECT length(embed('a'))") == 1536


def test_a_locked_connection_embeds_nothing(db):
    db.one("SELECT choir_lock()")
    assert "this connection is locked" in db.error("SELECT embed('a')")


def test_embed_each_gives_every_vector_in_order(db):
    import json
    texts = [f"text number {i} é🚀" for i in range(150)] + ["", " "]
    rows = db.rows("SELECT ord, embedding FROM embed_each(?)",
                   json.dumps(texts))
    assert rows == [(i, db.one("SELECT embed(?)", t))
                    for i, t in enumerate(texts)]
    assert db.rows("SELECT * FROM embed_each('[]')") == []
    assert db.rows("SELECT * FROM embed_each(NULL)") == []


@pytest.mark.parametrize("texts, message", [
    ("'[1]'", "element 0 must be text, got integer"),
    ("'[\"a\",null]'", "element 1 must be text, got null"),
    ("'{\"a\":\"b\"}'", "texts must be a JSON array, got object"),
    ("'\"a\"'", "texts must be a JSON array, got text"),
    ("'[\"a\"], \"b\"'", "texts is not valid JSON: [\"a\"], \"b\""),
    ("7", "texts must be text, got integer"),
    ("'[\"a\"]', 'x'", "role must be document or query, got 'x'"),
])
def test_embed_each_names_bad_input(db, texts, message):
    assert db.error(f"SELECT * FROM embed_each({texts})") == (
        "embed_each: " + message)
