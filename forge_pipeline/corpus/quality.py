"""Rules that a document must pass to be worth learning from. The first that fails is the reason for the drop."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from forge_pipeline.corpus.readers.formats import CODE_FORMATS, RECORD_FORMATS
from forge_pipeline.corpus.settings import CodeRules, ProseRules, QualitySettings

_STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
_BULLET = re.compile(r"^\s*(?:[-*+•‣◦–]|\d{1,3}[.)])\s", re.MULTILINE)
# The marks of a Markdown heading match first, outside the group: they are no symbols.
_SYMBOL = re.compile(r"^#{1,6}\s|(#+|\.\.\.|…)", re.MULTILINE)
_LETTER = re.compile(r"[^\W\d_]")
# Languages written without spaces: rules about words say nothing about them.
_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "km", "lo", "my", "bo", "dz"})
_GENERATED = re.compile(
    r"(?:do not (?:edit|modify)|auto-?generated|automatically generated|generated (?:by|from|using)\b.*\bdo not\b)",
    re.IGNORECASE,
)
# A comment line near the top is where generators sign.
_COMMENT = re.compile(r"^\s*(?:#|//|/\*|\*|--|;|<!--|\"\"\"|''')(.*)$", re.MULTILINE)
_HEAD_CHARACTERS = 1_000
# One literal (or a closing bracket), perhaps with a comma and a comment.
_DATA_LINE = re.compile(
    r"^[ \t]*[\[({]*[-+]?(?:0[xX][0-9a-fA-F]+|\d[\d_.eE+\-]*|[bruBRU]{0,2}\"[^\"\n]*\"|[bruBRU]{0,2}'[^'\n]*')"
    r"[\])}]*[ \t]*(?:[,:][^\n]*)?(?:(?:#|//)[^\n]*)?$",
    re.MULTILINE,
)
_LEAST_DATA_LINES = 100
_PLACEHOLDER = "lorem ipsum"


@dataclass(frozen=True)
class Failing:
    """A rule that a document did not pass. ``detail`` says in words what the value is."""

    rule: str
    value: float
    threshold: float
    detail: str


def first_failing(text: str, form: str, language: str, settings: QualitySettings) -> Failing | None:
    """The first rule that the text fails, or None. Which rules apply depends on its format."""
    if form in CODE_FORMATS:
        return next(_code_failures(text, settings.code), None)
    if form in RECORD_FORMATS:
        return next(_record_failures(text, settings.minimum_record_words), None)
    return next(_prose_failures(text, language, settings.prose), None)


def _record_failures(text: str, minimum: int) -> Iterator[Failing]:
    words = len(text.split())
    if words < minimum:
        yield Failing("too_short", words, minimum, "words of the record")


def _prose_failures(text: str, language: str, rules: ProseRules) -> Iterator[Failing]:
    if language not in _WITHOUT_SPACES:
        yield from _word_failures(text, language, rules)
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        yield Failing("too_short", 0, rules.minimum_words, "lines with text")
        return
    bullets = len(_BULLET.findall(text)) / len(lines)
    if bullets > rules.maximum_bullet_lines:
        yield Failing("bullet_lines", bullets, rules.maximum_bullet_lines, "share of lines with a bullet")
    ellipses = sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines)
    if ellipses > rules.maximum_ellipsis_lines:
        yield Failing("ellipsis_lines", ellipses, rules.maximum_ellipsis_lines, "share of lines ending in ...")
    repeated = _repeated_share(lines)
    if repeated > rules.maximum_duplicate_lines:
        yield Failing("duplicate_lines", repeated, rules.maximum_duplicate_lines, "share of text in repeated lines")
    if rules.drop_placeholder_text and _PLACEHOLDER in text[:100_000].lower():
        yield Failing("placeholder_text", 1, 0, 'the page says "lorem ipsum"')


def _word_failures(text: str, language: str, rules: ProseRules) -> Iterator[Failing]:
    words = text.split()
    if len(words) < rules.minimum_words:
        yield Failing("too_short", len(words), rules.minimum_words, "words")
        return
    if len(words) > rules.maximum_words:
        yield Failing("too_long", len(words), rules.maximum_words, "words")
    # An address is long whatever the language.
    plain = [word for word in words if "://" not in word]
    mean = sum(map(len, plain)) / max(1, len(plain))
    if mean < rules.minimum_mean_word_length:
        yield Failing("short_words", mean, rules.minimum_mean_word_length, "mean characters a word")
    if mean > rules.maximum_mean_word_length:
        yield Failing("long_words", mean, rules.maximum_mean_word_length, "mean characters a word")
    symbols = sum(map(bool, _SYMBOL.findall(text))) / len(words)
    if symbols > rules.maximum_symbols_per_word:
        yield Failing("symbols", symbols, rules.maximum_symbols_per_word, "# and ... a word")
    alphabetic = sum(_LETTER.search(word) is not None for word in words) / len(words)
    if alphabetic < rules.minimum_alphabetic_words:
        yield Failing("few_letters", alphabetic, rules.minimum_alphabetic_words, "share of words with a letter")
    if language == "en" and rules.minimum_stop_words:
        found = len(_STOP_WORDS.intersection(word.lower() for word in words))
        if found < rules.minimum_stop_words:
            yield Failing("stop_words", found, rules.minimum_stop_words, "different stop words")


def _repeated_share(lines: list[str]) -> float:
    """The share of characters in lines that occurred before."""
    seen: set[str] = set()
    repeated = 0
    for line in lines:
        if line in seen:
            repeated += len(line)
        seen.add(line)
    return repeated / sum(map(len, lines))


def _code_failures(text: str, rules: CodeRules) -> Iterator[Failing]:
    dense = len(text) - text.count(" ") - text.count("\n") - text.count("\t")
    if dense < rules.minimum_characters:
        yield Failing("too_short", dense, rules.minimum_characters, "characters that are not white space")
    lines = text.split("\n")
    longest = max(map(len, lines))
    if longest > rules.maximum_line_length:
        yield Failing("long_line", longest, rules.maximum_line_length, "characters in the longest line")
    mean = len(text) / max(1, len(lines) - (not lines[-1]))
    if mean > rules.maximum_mean_line_length:
        yield Failing("long_lines", mean, rules.maximum_mean_line_length, "mean characters a line")
    alphanumeric = _alphanumeric_share(text)
    if alphanumeric < rules.minimum_alphanumeric:
        yield Failing("few_letters", alphanumeric, rules.minimum_alphanumeric, "share of letters and digits")
    if rules.drop_generated and _is_generated(text):
        yield Failing("generated", 1, 0, "a comment at the head says that the file is generated")
    if len(lines) >= _LEAST_DATA_LINES:
        filled = sum(1 for line in lines if line.strip())
        data = len(_DATA_LINE.findall(text)) / max(1, filled)
        if data > rules.maximum_data_lines:
            yield Failing("mostly_data", data, rules.maximum_data_lines, "share of lines that are only literals")


def _is_generated(text: str) -> bool:
    return any(_GENERATED.search(comment) for comment in _COMMENT.findall(text[:_HEAD_CHARACTERS]))


_ALPHANUMERIC = np.zeros(256, dtype=bool)
_ALPHANUMERIC[[*b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"]] = True
# Bytes of anything beyond ASCII count: nearly all of it is letters.
_ALPHANUMERIC[128:] = True


def _alphanumeric_share(text: str) -> float:
    data = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
    return float(np.count_nonzero(_ALPHANUMERIC[data])) / max(1, len(data))
