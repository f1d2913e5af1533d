"""Curation repairs, drops and redacts, and says so in a row each time."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_pipeline.corpus import tables
from forge_pipeline.corpus.curation import curate_documents
from forge_pipeline.corpus.language import LanguageIdentifier, sample
from forge_pipeline.corpus.normalisation import normalise
from forge_pipeline.corpus.quality import first_failing
from forge_pipeline.corpus.sensitive import find_sensitive, is_card, is_iban, redact
from forge_pipeline.corpus.settings import (
    CurationSettings,
    LanguageSettings,
    NormalisationSettings,
    QualitySettings,
    SensitivePolicy,
)
from forge_pipeline.reporting import SilentProgress

PROSE = (
    "The committee met in the old town hall to talk about the plan for the new bridge. "
    "Some of the members had read the report of the engineers, and they asked what it would cost. "
)
KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    "MIIBOgIBAAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WGeKLs1Pt8Qu\n"
    "-----END RSA PRIVATE KEY-----"
)
# Split so that no scanner takes this file for a leak.
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
GITHUB = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"


def _kinds(text: str, policy: SensitivePolicy | None = None) -> list[tuple[str, str]]:
    found = find_sensitive(text, policy or SensitivePolicy())
    return [(finding.kind, text[finding.start : finding.end]) for finding in found]


# -- numbers with a check ----------------------------------------------------------------------------------------

# Examples of the SWIFT IBAN registry.
IBANS = [
    "GB29 NWBK 6016 1331 9268 19",
    "DE89370400440532013000",
    "FR1420041010050500013M02606",
    "NO9386011117947",
    "MT84MALT011000012345MTLCAST001S",
]
# Test numbers that the card schemes publish.
CARDS = ["4111 1111 1111 1111", "5555555555554444", "3782-822463-10005", "6011111111111117", "30569309025904"]


@pytest.mark.parametrize("number", IBANS)
def test_an_iban_passes_its_check_and_a_wrong_digit_fails(number: str) -> None:
    assert is_iban(number)
    last = number[-1]
    assert not is_iban(number[:-1] + ("1" if last != "1" else "2"))
    assert _kinds(f"pay to {number}, please") == [("iban", number)]


@pytest.mark.parametrize("number", CARDS)
def test_a_card_number_passes_its_check_and_a_wrong_digit_fails(number: str) -> None:
    assert is_card(number)
    assert not is_card(number[:-1] + str((int(number[-1]) + 1) % 10))
    assert ("card", number) in _kinds(f"card {number} expires")


@given(st.text(alphabet="0123456789", min_size=13, max_size=19))
def test_a_card_number_is_what_luhn_says(digits: str) -> None:
    doubled = [int(d) if place % 2 == 0 else sum(divmod(2 * int(d), 10)) for place, d in enumerate(reversed(digits))]
    if is_card(digits):
        assert sum(doubled) % 10 == 0


def test_an_iban_before_a_word_in_capitals_is_found() -> None:
    assert _kinds("GB29 NWBK 6016 1331 9268 19 BANK") == [("iban", "GB29 NWBK 6016 1331 9268 19")]


# -- patterns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail ada.lovelace+x@analytical.engine.org now", [("email", "ada.lovelace+x@analytical.engine.org")]),
        ("<guido@python.org>", [("email", "guido@python.org")]),
        ("author='x@corp.io'", [("email", "x@corp.io")]),
        ("me@example.com, you@mail.test", []),
        ("@decorator.with_dots\ndef f(): ...", []),
        ("user@host", []),
        ("call +49 30 901820 or (212) 555-0100", [("phone", "+49 30 901820"), ("phone", "(212) 555-0100")]),
        ("a range of 100-200 and 1+2345678901234567890", []),
        ("server 8.8.8.8 answers", [("ip_address", "8.8.8.8")]),
        ("host=8.8.8.8 <8.8.4.4>", [("ip_address", "8.8.8.8"), ("ip_address", "8.8.4.4")]),
        ("127.0.0.1 192.168.1.1 10.0.0.1 0.0.0.0 192.0.2.1 999.1.1.1", []),
        ("version 8.8.8.8, v8.8.8.8, torch==8.8.8.8, 1.8.8.8.8", []),
        (f"id {AWS}.", [("cloud_key", AWS)]),
        (f"token={GITHUB}", [("token", GITHUB)]),
        (f"{KEY}\n", [("private_key", KEY)]),
        ("-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----", []),
        ("4111 1111 1111 1112 and 12345678901234567890", []),
    ],
)  # fmt: skip
def test_sensitive_values_are_found_and_lookalikes_are_not(text: str, expected: list[tuple[str, str]]) -> None:
    assert _kinds(text) == expected


def test_a_value_inside_another_is_part_of_it() -> None:
    key = KEY.replace("MIIB", "a@corp.io\nMIIB")
    assert _kinds(key) == [("private_key", key)]


@given(st.text(), st.sampled_from(["", "a@corp.io", "8.8.8.8", AWS, KEY, IBANS[0]]), st.text())
def test_redaction_replaces_the_findings_and_leaves_the_rest(before: str, value: str, after: str) -> None:
    text = f"{before}\nuse {value} now\n{after}"
    findings = find_sensitive(text, SensitivePolicy())
    redacted = redact(text, findings)
    removed = sum(finding.end - finding.start - len(finding.tag) for finding in findings)
    assert len(redacted) == len(text) - removed
    if value:
        assert f"use {value} now" not in redacted


def test_a_kind_that_is_off_is_left_alone() -> None:
    assert _kinds("a@corp.io 8.8.8.8", SensitivePolicy(email="off")) == [("ip_address", "8.8.8.8")]


# -- normalisation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected", "rules"),
    [
        ("schÃ¶n und gut", "schön und gut", ["encoding_repaired"]),
        ("l\u2019humanitÃ©", "l\u2019humanité", ["encoding_repaired"]),
        ("a\r\nb\rc", "a\nb\nc", ["newlines"]),
        ("a\x00b\x07c\td\ufeff", "abc\td", ["control_characters"]),
        ("cafe\u0301", "café", ["unicode_form"]),
        ("plain — text “quoted”", "plain — text “quoted”", []),
    ],
)
def test_repairs_change_what_is_broken_and_say_so(text: str, expected: str, rules: list[str]) -> None:
    repaired, alterations = normalise(text, NormalisationSettings(), is_code=False)
    assert repaired == expected
    assert [alteration.rule for alteration in alterations] == rules


def test_code_keeps_its_literals() -> None:
    assert normalise("x = 'schÃ¶n'", NormalisationSettings(), is_code=True) == ("x = 'schÃ¶n'", [])


@given(st.text())
def test_normalised_text_is_composed_has_no_controls_and_stays_as_it_is(text: str) -> None:
    once, alterations = normalise(text, NormalisationSettings(), is_code=False)
    assert unicodedata.is_normalized("NFC", once)
    assert not [c for c in once if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    assert bool(alterations) == (once != text)
    again, more = normalise(once, NormalisationSettings(repair_encoding=False), is_code=False)
    assert (again, more) == (once, [])


# -- language and quality ----------------------------------------------------------------------------------------


def test_languages_are_told_apart() -> None:
    identifier = LanguageIdentifier(LanguageSettings())
    german = "Der Ausschuss traf sich im alten Rathaus, um über den Plan für die neue Brücke zu sprechen."
    french = "Le comité s'est réuni à la mairie pour parler du projet de construction du nouveau pont."
    assert [identifier.identify(text)[0] for text in (PROSE, german, french, "4711")] == ["en", "de", "fr", "und"]


@given(st.text(max_size=5000), st.integers(100, 1000))
def test_a_sample_is_no_longer_than_asked_for(text: str, characters: int) -> None:
    assert len(sample(text, characters)) <= characters + 2


@pytest.mark.parametrize(
    ("text", "form", "rule"),
    [
        (PROSE, "text", None),
        ("too short", "text", "too_short"),
        ("ab " * 50, "text", "short_words"),
        (("x" * 40 + " ") * 50, "text", "long_words"),
        ("#tag and " * 30, "text", "symbols"),
        ("# Heading of this part\n\n" + PROSE, "markdown", None),
        ("12.5 of 33.1 is 99.7 and 44.3 and 51.9 or 66.6 77.7 88.8 91.2 91.3", "text", "few_letters"),
        ("".join(f"- item of the list number {n} here\n" for n in range(20)), "text", "bullet_lines"),
        ("".join(f"see the page of part {n} ...\n" for n in range(20)), "text", "symbols"),
        (("The same line of the page again and again.\n") * 20, "text", "duplicate_lines"),
        ("Lorem ipsum dolor sit amet and the rest of the page that is to be written.", "text", "placeholder_text"),
        ("python software foundation licence agreement for version two point seven point", "text", "stop_words"),
        ("def f():\n    return 1\n\nprint(f())\n", "python", None),
        ("x=1", "python", "too_short"),
        ("var a=" + "b+" * 4000, "javascript", "long_line"),
        (("x = " + "1 + " * 60 + "1\n") * 10, "python", "long_lines"),
        ("{}[]();:,.<>/?!@#$%^&*-+=|~" * 3 + "\n", "c", "few_letters"),
        ("# Generated by protoc. DO NOT EDIT.\nimport this_module\n", "python", "generated"),
        ("TABLE = [\n" + "".join(f"    0x{n:04x},  # entry\n" for n in range(200)) + "]\n", "python", "mostly_data"),
        ("name: x", "jsonl", "too_short"),
        ("name: a gear of steel", "jsonl", None),
    ],
)
def test_each_quality_rule_finds_its_case(text: str, form: str, rule: str | None) -> None:
    failing = first_failing(text, form, "en", QualitySettings())
    assert (failing.rule if failing else None) == rule


def test_rules_about_words_do_not_judge_scripts_without_spaces() -> None:
    assert first_failing("日本語の文章です。これは試験のための文章です。", "text", "ja", QualitySettings()) is None


# -- the stage ---------------------------------------------------------------------------------------------------


def _curate(settings: CurationSettings, documents: Path, out: Path, workers: int = 1) -> dict[str, Any]:
    return curate_documents(settings, documents, out, SilentProgress(), workers=workers).counts


def test_every_document_is_kept_or_has_a_row_that_drops_it(
    part: Callable[..., Path], output: Callable[[], Path]
) -> None:
    documents = part([PROSE, "short", PROSE + f"Write to ada@analytical.org or use {GITHUB}. \r\n", PROSE + "schÃ¶n"])
    out = output()
    counts = _curate(CurationSettings(), documents, out)
    given_ids = tables.column(tables.read_table(documents, tables.DOCUMENTS), "doc_id")
    kept = tables.read_table(out, tables.DOCUMENTS).to_pylist()
    decisions = tables.read_table(out, tables.DECISIONS).to_pylist()
    dropped = [row["doc_id"] for row in decisions if row["action"] == "drop"]
    assert sorted([row["doc_id"] for row in kept] + dropped) == sorted(given_ids)
    assert [(row["rule"], row["action"]) for row in decisions] == [
        ("too_short", "drop"),
        ("newlines", "alter"),
        ("email", "redact"),
        ("token", "redact"),
        ("encoding_repaired", "alter"),
    ]
    assert kept[1]["text"] == PROSE + "Write to <EMAIL> or use <TOKEN>. \n"
    assert kept[1]["bytes"] == len(kept[1]["text"].encode())
    assert {row["language"] for row in kept} == {"en"}
    assert counts["documents_in"] == 4
    assert counts["documents_dropped"] == counts["dropped_too_short"] == 1
    assert counts["redactions"] == 2
    assert "ada@" not in json.dumps(decisions)


def test_a_secret_can_drop_the_document(part: Callable[..., Path], output: Callable[[], Path]) -> None:
    settings = CurationSettings.model_validate({"sensitive": {"prose": {"private_key": "drop"}}})
    counts = _curate(settings, part([PROSE, PROSE + KEY]), output())
    assert counts["dropped_private_key"] == 1


def test_only_the_languages_asked_for_are_kept(part: Callable[..., Path], output: Callable[[], Path]) -> None:
    german = "Der Ausschuss traf sich im alten Rathaus, um über den Plan für die neue Brücke zu sprechen. " * 2
    code = {"text": "def f():\n    return 'something'\n", "path": "f.py", "format": "python"}
    out = output()
    counts = _curate(CurationSettings(language=LanguageSettings(keep=("en",))), part([PROSE, german, code]), out)
    assert counts["dropped_language"] == 1
    assert tables.column(tables.read_table(out, tables.DOCUMENTS), "language") == ["en", "code"]


def test_the_number_of_workers_changes_no_byte(part: Callable[..., Path], output: Callable[[], Path]) -> None:
    documents = part([f"{PROSE} Number {n} of them, by x{n}@corp.io." for n in range(200)])
    one, two = output(), output()
    _curate(CurationSettings(), documents, one, workers=1)
    _curate(CurationSettings(), documents, two, workers=2)
    for name in (tables.DOCUMENTS, tables.DECISIONS):
        assert (one / name).read_bytes() == (two / name).read_bytes()
