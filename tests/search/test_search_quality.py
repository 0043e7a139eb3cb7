# SPDX-License-Identifier: MIT
"""The first answer is the one a reader would pick: a small corpus, asked in
the ways people ask, and the system's licence texts where they are there."""
import json
import pathlib

import pytest

CORPUS = {
    "/law/permissive.md":
        "# A permissive licence\n\nYou may use, copy, change and sell the"
        " software. The notice stays in every copy.\n\n## No warranty\n\nThe"
        " software is given as it is. There is no warranty of any kind, and"
        " the authors are not liable for damages.",
    "/law/patents.md":
        "# Patents\n\nEach contributor grants a licence to the patents that"
        " the contribution needs.\n\n## Retaliation\n\nWhoever starts patent"
        " litigation against a contributor loses the patent licence on that"
        " day: this is called patent retaliation.",
    "/law/copyleft.md":
        "# Share alike\n\nWhoever passes a changed work on must pass it on"
        " under the same terms, with its source.",
    "/design/store.md":
        "# The object store\n\nA writer uploads the object first and the"
        " pointer last. The pointer is replaced by a conditional write: the"
        " store takes it only when the old version is still there.",
    "/design/search.md":
        "# Search\n\nWords and vectors each give a ranked list, and both lists"
        " are fused by reciprocal rank.",
    "/design/log.md":
        "# The action log\n\nTriggers record every change. A consumer keeps a"
        " cursor and reads what came after it.",
    "/plans/q3.md":
        "# Quarterly plan\n\nIn July we ship the demo, in August the sync, in"
        " September the hosted search.",
    "/plans/retro.md":
        "# Retrospective\n\nThe plan was late because the tests were slow.",
    "/notes/bread.md":
        "Flour, water, salt and sourdough. Knead, let it rise over night, bake"
        " at 250 degrees.",
    "/notes/garten.md":
        "Im Frühling säen wir Möhren, Erbsen und Spinat; gegossen wird abends.",
    "/notes/voyage.md":
        "Le train pour Besançon part à midi. Réserver l'hôtel près de la gare.",
    "/img/harbour-sunset.png": b"\x89PNG\r\n\x1a\n\0\0",
}

ASKED = [
    ("patent retaliation", "/law/patents.md"),
    ("conditional write object store", "/design/store.md"),
    ("warrenty for damages", "/law/permissive.md"),
    ("no waranty", "/law/permissive.md"),
    ("quarterly plan", "/plans/q3.md"),
    ("quarterly pl", "/plans/q3.md"),
    ("quaterly plan", "/plans/q3.md"),
    ("what happens when somebody sues over a patent", "/law/patents.md"),
    ("share alike", "/law/copyleft.md"),
    ("reciprocal rank fusion", "/design/search.md"),
    ("triggers and cursors", "/design/log.md"),
    ("sourdough", "/notes/bread.md"),
    ("mohren saen", "/notes/garten.md"),
    ("besancon hotel", "/notes/voyage.md"),
    ("harbour", "/img/harbour-sunset.png"),
    ("retro", "/plans/retro.md"),
    ("PATENT RETALIATION", "/law/patents.md"),
]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Every question's answers, before and after choir_index()."""
    from conftest import Db
    d = Db(tmp_path_factory.mktemp("quality") / "ws.db", init=True)
    for path, text in CORPUS.items():
        d.one("SELECT artifact_put(?, ?)", path, text)
    answers = {}
    for when in ("before", "after"):
        for query, _ in ASKED:
            answers[query, when] = [r[0] for r in d.rows(
                "SELECT path FROM choir_search(?)", query)]
        d.one("SELECT choir_index()")
    d.close()
    return answers


@pytest.mark.parametrize("query, path", ASKED)
def test_the_first_answer_is_the_expected_one(asked, query, path):
    assert asked[query, "before"][:1] == [path]
    assert asked[query, "after"][:1] == [path]


LICENCES = pathlib.Path("/usr/share/common-licenses")
DEMO = [
    ("patent retaliation", ("/MPL-1.1", "/MPL-2.0", "/GPL-3", "/Apache-2.0")),
    ("invarient sectoins", ("/GFDL-1.2", "/GFDL-1.3")),
    ("patent retalliation", ("/MPL-1.1", "/MPL-2.0", "/GPL-3", "/Apache-2.0")),
    ("disclaimer of warrenty", ("/MPL-2.0", "/MPL-1.1", "/GFDL-1.3", "/GPL-3",
                                "/GPL-2", "/LGPL-2.1", "/LGPL-2")),
    ("invariant sections", ("/GFDL-1.2", "/GFDL-1.3")),
    ("GPL-3", ("/GPL-3",)),
    ("artistic", ("/Artistic",)),
]


@pytest.mark.skipif(not LICENCES.is_dir(), reason="no licence texts here")
def test_the_licence_texts_of_the_system_answer(db):
    for path in sorted(LICENCES.iterdir()):
        if not path.is_symlink():
            db.one("SELECT artifact_put(?, ?)", "/" + path.name,
                   path.read_bytes())
    assert json.loads(db.one("SELECT choir_index()"))["indexed"] >= 10
    for query, expected in DEMO:
        first = db.one("SELECT path FROM choir_search(?, 1)", query)
        assert first in expected, query
