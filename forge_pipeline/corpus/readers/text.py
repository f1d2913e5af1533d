"""Plain text, Markdown and reStructuredText: kept as they are written, with a title if they have one."""

from __future__ import annotations

import re

from forge_pipeline.corpus.readers.base import InputFile, Passage, Reader, Reading

_MARKDOWN_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
_MARKDOWN_SIGNS = (
    _MARKDOWN_HEADING,
    re.compile(r"^(```|~~~)", re.MULTILINE),
    re.compile(r"\[[^\]\n]+\]\((https?://|[\w./#-]+\))"),
    re.compile(r"^[-*] \[[ x]\] ", re.MULTILINE),
)
_REST_TITLE = re.compile(r"^(?:([=\-~^\"#*+])\1{2,}\n)?[ \t]*(\S[^\n]*)\n([=\-~^\"#*+])\3{2,}[ \t]*$", re.MULTILINE)
_REST_SIGNS = (
    re.compile(r"^\.\. [\w-]+::", re.MULTILINE),
    re.compile(r":(?:ref|func|class|mod|doc|meth|term):`"),
    re.compile(r"`[^`\n]+ <[^>\n]+>`_"),
    re.compile(r"^\.\. _[^:\n]+:", re.MULTILINE),
    re.compile(r"::\n\n +\S", re.MULTILINE),
)
_MARKED_UP_NAMES = frozenset({"", "txt", "text"})


class MarkdownReader(Reader):
    format = "markdown"

    def claims(self, file: InputFile) -> bool:
        if file.extension in ("md", "markdown", "mdown"):
            return True
        return file.extension in _MARKED_UP_NAMES and sum(bool(sign.search(file.text)) for sign in _MARKDOWN_SIGNS) >= 2

    def read(self, file: InputFile) -> Reading:
        heading = _MARKDOWN_HEADING.search(file.text)
        return Reading([Passage(file.text, self.format, heading[1] if heading else "")])


class RestReader(Reader):
    format = "rest"

    def claims(self, file: InputFile) -> bool:
        if file.extension in ("rst", "rest"):
            return True
        return file.extension in _MARKED_UP_NAMES and sum(bool(sign.search(file.text)) for sign in _REST_SIGNS) >= 2

    def read(self, file: InputFile) -> Reading:
        title = _REST_TITLE.search(file.text)
        return Reading([Passage(file.text, self.format, title[2].strip() if title else "")])


class PlainTextReader(Reader):
    """Takes whatever no other reader claimed."""

    format = "text"

    def claims(self, file: InputFile) -> bool:
        return True

    def read(self, file: InputFile) -> Reading:
        return Reading([Passage(file.text, self.format)])
