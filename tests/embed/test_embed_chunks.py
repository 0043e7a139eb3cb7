# SPDX-License-Identifier: MIT
"""embed_chunks: pieces end at seams, offsets are exact, nothing is lost."""
import random
import time

import pytest

SPACE = b" \t\n\v\f\r"


def pieces(db, text, **options):
    import json
    rows = db.rows('SELECT ord, start, "end", text, char_start, char_end'
                   " FROM embed_chunks(?, ?)", text, json.dumps(options))
    data = text.encode()
    limit = options.get("max", 1000)
    covered = bytearray(len(data))
    for i, (n, start, end, piece, cstart, cend) in enumerate(rows):
        assert n == i
        assert data[start:end] == piece.encode()
        assert text[cstart:cend] == piece
        assert 0 < end - start <= limit
        assert piece.encode()[:1] not in SPACE
        assert piece.encode()[-1:] not in SPACE
        covered[start:end] = b"\1" * (end - start)
    for i, byte in enumerate(data):
        assert covered[i] or bytes([byte]) in SPACE, f"byte {i} is in no piece"
    return [r[3] for r in rows]


def test_a_short_text_is_one_piece(db):
    assert pieces(db, "  hello\n\nworld \n") == ["hello\n\nworld"]


def test_a_text_without_content_has_no_pieces(db):
    assert pieces(db, "") == []
    assert pieces(db, " \n\t\n ") == []
    assert db.rows("SELECT * FROM embed_chunks(NULL)") == []


def test_a_markdown_heading_starts_a_piece(db):
    assert pieces(db, "intro\n\n# One\ntext\n\n## Two\n\nmore") == [
        "intro", "# One\ntext", "## Two\n\nmore"]


def test_headings_without_text_between_stay_together(db):
    assert pieces(db, "# Title\n\n## Part\n\ntext") == [
        "# Title\n\n## Part\n\ntext"]


def test_a_comment_in_a_code_fence_is_not_a_heading(db):
    text = "say\n\n```sh\n\n# not a heading\nls\n```\n\nend"
    assert pieces(db, text) == [text]
    assert pieces(db, text + "\n\n# but this is\nx")[1] == "# but this is\nx"


def test_seven_hashes_or_no_space_are_not_headings(db):
    for line in ("####### seven", "#tag", "#!/bin/sh"):
        assert pieces(db, f"a\n\n{line}\nb") == [f"a\n\n{line}\nb"]


def test_long_texts_break_at_blank_lines_first(db):
    paragraphs = ["word " * 30 + "end." for _ in range(4)]
    got = pieces(db, "\n\n".join(paragraphs), max=400)
    assert got == ["\n\n".join(paragraphs[:2]), "\n\n".join(paragraphs[2:])]


def test_long_paragraphs_break_at_sentence_ends(db):
    got = pieces(db, "First one here. Second (one) there! " * 20, max=100)
    assert all(p[-1] in ".!" for p in got)


def test_ideographic_full_stops_end_sentences(db):
    got = pieces(db, "今天天气很好。" * 40, max=100)
    assert all(p.endswith("。") for p in got)


def test_long_sentences_break_between_words(db):
    got = pieces(db, "alpha beta gamma delta " * 50, max=64)
    assert {w for p in got for w in p.split()} == {
        "alpha", "beta", "gamma", "delta"}


def test_a_megabyte_word_is_cut_between_characters(db):
    got = pieces(db, "é" * 500_000, max=1001)
    assert len(got) == 1000 and set(map(len, got)) == {500}


def test_overlap_repeats_whole_words(db):
    words = [f"w{i:03}" for i in range(200)]
    got = pieces(db, " ".join(words), max=100, overlap=20)
    for a, b in zip(got, got[1:]):
        again = [w for w in a.split() if w in b.split()]
        assert 1 <= len(again) <= 5 and b.startswith(again[0])


def test_random_texts_keep_every_byte_and_offset(db):
    r = random.Random(4)
    alphabet = ["a", "bc", " ", " ", "\n", "\n\n", ". ", "# ", "é", "🚀", "中",
                "```\n", "\n# H\n", "שלום", "\t", '."', "?"]
    for _ in range(150):
        text = "".join(r.choices(alphabet, k=r.randrange(400)))
        size = r.choice([64, 65, 100, 200])
        pieces(db, text, max=size, overlap=r.randrange(size // 2 + 1))


@pytest.mark.once
def test_cost_is_linear(db):
    def seconds(text, **options):
        best = 9.0
        for _ in range(3):
            t = time.perf_counter()
            db.one("SELECT count(*) FROM embed_chunks(?)", text)
            best = min(best, time.perf_counter() - t)
        return best
    for unit in ("x", "\n# h", " ", '"', "#", "a\n\n", "`"):
        small = seconds(unit * (100_000 // len(unit)))
        large = seconds(unit * (1_600_000 // len(unit)))
        assert large < 64 * small + 0.5, unit  # squares would be 256 times


@pytest.mark.parametrize("sql, message", [
    ("SELECT * FROM embed_chunks(7)", "document must be text, got integer"),
    ("SELECT * FROM embed_chunks(x'00')", "document must be text, got blob"),
    ("SELECT * FROM embed_chunks(CAST(x'61ff' AS TEXT))",
     "document is not valid UTF-8 at byte 1"),
    ("SELECT * FROM embed_chunks('a' || char(0) || 'b')",
     "document has a NUL character at byte 1"),
    ("SELECT * FROM embed_chunks('a', 'no')", "options is not valid JSON: no"),
    ("SELECT * FROM embed_chunks('a', '[1]')",
     "options must be a JSON object, got array"),
    ("SELECT * FROM embed_chunks('a', '{\"max\":63}')",
     "max must be 64 to 1048576, got 63"),
    ("SELECT * FROM embed_chunks('a', '{\"max\":\"many\"}')",
     "max must be an integer, got text"),
    ("SELECT * FROM embed_chunks('a', '{\"max\":100,\"overlap\":51}')",
     "overlap must be 0 to 50, got 51"),
    ("SELECT * FROM embed_chunks('a', '{\"max\":null,\"size\":1}')",
     'options are max and overlap, not {"size":1}'),
    ("SELECT * FROM embed_chunks",
     "needs at least 1 argument; the arguments are the hidden columns of (ord,"
     ' start, "end", text, char_start, char_end, document HIDDEN, options'
     " HIDDEN)"),
])
def test_bad_input_is_named(db, sql, message):
    assert db.error(sql) == "embed_chunks: " + message
