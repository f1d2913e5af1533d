"""Entries say what a document defines, and where."""

from __future__ import annotations

import pytest

from forge_pipeline.corpus.catalog import entries_of
from forge_pipeline.corpus.python_source import first_sentence, module_name, return_phrase

SOURCE = '''\
"""A module — with a dash."""

class Gear(Part, metaclass=Meta):
    """A toothed wheel. It turns."""

    def turn(self, angle: float = 0.5, *, fast=False) -> float:
        """Turn it.

        Returns the new angle.
        """
        return angle  # ünïcödé

    @property
    def teeth(self):
        """Return the number of teeth, e.g. twelve."""
        return 12

def build(
    name,
    *parts,
):
    return Gear()

try:
    import fast
except ImportError:
    async def slow(): "Do it slowly"
'''


def test_python_is_catalogued_with_signatures_and_places() -> None:
    entries = entries_of(
        SOURCE.replace("except ImportError:", "except ImportError: pass\nelse:"), "python", "shop/gear.py", ""
    )
    assert [(e.kind, e.name, e.signature, e.returns, e.summary) for e in entries] == [
        ("class", "Gear", "Gear(Part, metaclass=Meta)", "Gear", "A toothed wheel."),
        ("method", "Gear.turn", "turn(self, angle: float=0.5, *, fast=False) -> float", "float", "Turn it."),
        ("method", "Gear.teeth", "teeth(self)", "number", "Return the number of teeth, e.g. twelve."),
        ("function", "build", "build(name, *parts)", "", ""),
        ("function", "slow", "slow()", "", "Do it slowly"),
    ]
    assert {entry.container for entry in entries} == {"shop.gear"}


def test_places_are_characters_of_the_text_even_beyond_ascii() -> None:
    text = "é = 'ü'; ö = 1\nclass Ä:\n    def ö(self): return 'é'  # ü\n"
    spans = {entry.name: text[entry.start : entry.end] for entry in entries_of(text, "python", "a.py", "")}
    assert spans == {"Ä": "class Ä:\n    def ö(self): return 'é'", "Ä.ö": "def ö(self): return 'é'"}


def test_source_that_does_not_parse_has_no_entries() -> None:
    assert entries_of("def f(:\n", "python", "a.py", "") == []
    assert entries_of("x = " + "(" * 10_000, "python", "a.py", "") == []


def test_sections_have_their_first_sentence() -> None:
    text = (
        "# Guide\n\nHow to build. And more.\n\n```\n# a comment\n```\n\n"
        "## Set-up `now` ##\n\nInstall it\nfirst.\n\n\n## Empty\n"
    )
    entries = entries_of(text, "markdown", "guide.md", "Guide")
    assert [(e.name, e.summary) for e in entries] == [
        ("Guide", "How to build."),
        ("Set-up now", "Install it first."),
        ("Empty", ""),
    ]
    assert text[entries[1].start : entries[1].end] == "## Set-up `now` ##\n\nInstall it\nfirst."
    rest = "Title\n=====\n\nAbout it.\n\nPart\n----\n\n.. note:: no\n\nReal text.\n"
    assert [(e.name, e.summary) for e in entries_of(rest, "rest", "a.rst", "")] == [
        ("Title", "About it."),
        ("Part", "Real text."),
    ]
    assert {e.container for e in entries_of(rest, "rest", "docs/a.rst", "")} == {"a.rst"}


def test_reference_pages_and_records_give_the_entries_of_the_source() -> None:
    html = (
        "# json\n\n## loads(s, *, cls=None)\n\nDeserialize s. Return an object.\n\n"
        "## class Decoder(object)\n\n### Decoder.decode(self, s) -> str\n\nDecode it.\n"
    )
    found = {(e.kind, e.name, e.signature, e.returns) for e in entries_of(html, "html", "json.html", "json")}
    assert found == {
        ("section", "json", "", ""),
        ("function", "loads", "loads(s, *, cls=None)", "object"),
        ("class", "Decoder", "Decoder(object)", "Decoder"),
        ("method", "Decoder.decode", "decode(self, s) -> str", "str"),
    }
    record = (
        "name: loads\nkind: function\nmodule: json\nsignature: loads(s)\nreturns: \n"
        "documentation:\nDeserialize s.\n\nname: no\n"
    )
    (entry,) = entries_of(record, "jsonl", "json.jsonl", "loads")
    assert (entry.name, entry.container, entry.signature, entry.returns, entry.summary) == (
        "loads", "json", "loads(s)", "", "Deserialize s.",
    )  # fmt: skip
    assert (entry.start, entry.end) == (0, len(record))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Do it. Then stop.", "Do it."),
        ("Use version 1.5 of\nit, e.g. this one! Yes", "Use version 1.5 of it, e.g. this one!"),
        ("f(x) -> int\n\nAdd one to x.", "Add one to x."),
        (">>> f(1)\n2\n\nAdd one.", "Add one."),
        ("", ""),
        (":param x: a number", ""),
    ],
)
def test_the_first_sentence(text: str, expected: str) -> None:
    assert first_sentence(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Return a list of names.", "list"),
        ("Do it.\n\nReturns True if it went well", "bool"),
        ("Nothing to say about what a function should return a copy of.", ""),
        ("Return the absolute path.", "absolute path"),
    ],
)
def test_what_a_docstring_says_is_returned(text: str, expected: str) -> None:
    assert return_phrase(text) == expected


def test_module_names() -> None:
    assert [module_name(path) for path in ("os.py", "json/__init__.py", "json/decoder.py")] == [
        "os",
        "json",
        "json.decoder",
    ]
