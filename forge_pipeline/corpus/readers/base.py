"""What every reader does: claim a file by its content, and turn it into passages of text."""

from __future__ import annotations

import codecs
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# PEP 263 in a comment, `charset=` of HTML, `encoding=` of XML.
_DECLARED = re.compile(rb"""(?:coding[:=]\s*|charset\s*=\s*["']?|encoding\s*=\s*["'])([-\w.]+)""")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\b\x1b"))
_MOST_CONTROLS = 0.01


class Unreadable(Exception):  # noqa: N818 - it says something of the file, not of the program
    """A file (or a record) without usable text. ``kind`` is a stable name, ``detail`` for people."""

    def __init__(self, kind: str, detail: str) -> None:
        self.kind = kind
        self.detail = detail
        super().__init__(f"{kind}: {detail}")


@dataclass(frozen=True)
class Passage:
    """A document as read: ``part`` is "" or names the place in the file ("#3": the third record)."""

    text: str
    format: str
    title: str = ""
    part: str = ""
    language_hint: str = ""


@dataclass
class Reading:
    """All that came of a file: passages, and the reasons for records that gave none."""

    passages: list[Passage] = field(default_factory=list)
    problems: list[Unreadable] = field(default_factory=list)


class InputFile:
    """A file in memory. ``path`` is relative to its source."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.data = data

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def extension(self) -> str:
        """Lower case, without the dot; "" if there is none."""
        stem, _, extension = self.name.rpartition(".")
        return extension.lower() if stem else ""

    @cached_property
    def text(self) -> str:
        """The decoded file with newlines as \\n. Raises Unreadable if it is binary or in no encoding we know."""
        return decode(self.data).replace("\r\n", "\n").replace("\r", "\n")

    @cached_property
    def head(self) -> str:
        """The beginning of the text, without leading white space."""
        return self.text[:4096].lstrip()


class Reader(ABC):
    """One file format. To add one, write a subclass and put it in `readers.READERS`.

    ``settings`` are the extraction settings as plain JSON. A reader raises Unreadable when the file gives nothing.
    """

    format: ClassVar[str]

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    @abstractmethod
    def claims(self, file: InputFile) -> bool:
        """Whether the content (helped by the name, where content can be several things) is of this format."""

    @abstractmethod
    def read(self, file: InputFile) -> Reading:
        """The passages of a file that this reader claimed."""


def decode(data: bytes) -> str:
    """Text from bytes: by byte order mark, as UTF-8, as declared in the file, else by detection.

    Raises Unreadable for binary data and for bytes that the encoding found does not allow.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return _decode_as(data, encoding)
    if b"\0" in data:
        raise Unreadable("binary", f"a NUL byte at offset {data.index(0)}")
    controls = len(data) - len(data.translate(None, _CONTROLS))
    if controls > _MOST_CONTROLS * len(data):
        raise Unreadable("binary", f"{controls} control characters in {len(data)} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_as(data, _declared_encoding(data) or _detected_encoding(data))


def _declared_encoding(data: bytes) -> str | None:
    match = _DECLARED.search(data[:1024])
    if not match:
        return None
    try:
        return codecs.lookup(match[1].decode("ascii")).name
    except (LookupError, UnicodeDecodeError):
        return None


def _detected_encoding(data: bytes) -> str:
    from resiliparse.parse.encoding import detect_encoding

    return detect_encoding(data) or "cp1252"


def _decode_as(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError, ValueError) as error:
        raise Unreadable("undecodable", f"not valid {encoding}: {error}"[:300]) from error
