"""Unicode repairs. Each says what it changed."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from forge_pipeline.corpus.settings import NormalisationSettings

# C0 and C1 without tab and newline, DEL, and the byte order mark inside a text.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\ufeff]")
_NEWLINES = re.compile("\r\n?|\x85")


@dataclass(frozen=True)
class Alteration:
    """``count`` is in units of ``detail``."""

    rule: str
    count: int
    detail: str


def normalise(text: str, settings: NormalisationSettings, *, is_code: bool) -> tuple[str, list[Alteration]]:
    """The text with newlines as \\n and the repairs that ``settings`` asks for.

    Encodings are not repaired in code: what looks broken there is often a literal that is meant to.
    """
    alterations = []

    def alter(rule: str, count: int, detail: str) -> None:
        if count:
            alterations.append(Alteration(rule, count, detail))

    text, count = _NEWLINES.subn("\n", text)
    alter("newlines", count, "line ends written as \\n")
    if settings.repair_encoding and not is_code and not text.isascii():
        text, count = _repair_encoding(text)
        alter("encoding_repaired", count, "lines that had been decoded with the wrong encoding (ftfy)")
    if settings.remove_control_characters:
        text, count = _CONTROLS.subn("", text)
        alter("control_characters", count, "control characters removed")
    if settings.unicode_form != "off" and not unicodedata.is_normalized(settings.unicode_form, text):
        before = len(text)
        text = unicodedata.normalize(settings.unicode_form, text)
        alter("unicode_form", max(1, abs(before - len(text))), f"characters composed to {settings.unicode_form}")
    return text, alterations


def _repair_encoding(text: str) -> tuple[str, int]:
    """Repair the lines that ftfy's pattern of suspicious sequences finds; the others cost one search."""
    # Imported here: most workers never meet such a line.
    import ftfy
    from ftfy.badness import is_bad

    repaired = 0
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if not line.isascii() and is_bad(line):
            better = ftfy.fix_encoding(line)
            if better != line:
                lines[number] = better
                repaired += 1
    return "\n".join(lines), repaired
