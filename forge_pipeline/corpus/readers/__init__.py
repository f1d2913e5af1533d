"""Readers turn files into text, one class a format. The first in `READERS` that claims a file reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forge_pipeline.corpus.readers.base import InputFile, Passage, Reader, Reading, Unreadable
from forge_pipeline.corpus.readers.code import CodeReader
from forge_pipeline.corpus.readers.distribution import DistributionReader
from forge_pipeline.corpus.readers.markup import HtmlReader
from forge_pipeline.corpus.readers.pdf import PdfReader
from forge_pipeline.corpus.readers.records import JsonLinesReader, JsonReader
from forge_pipeline.corpus.readers.text import MarkdownReader, PlainTextReader, RestReader

__all__ = ["READERS", "InputFile", "Passage", "Reader", "Reading", "Unreadable", "reader_for"]

# From the most certain sign to the least.
READERS: tuple[type[Reader], ...] = (
    PdfReader,
    DistributionReader,
    HtmlReader,
    JsonLinesReader,
    JsonReader,
    CodeReader,
    MarkdownReader,
    RestReader,
    PlainTextReader,
)


def reader_for(file: InputFile, settings: Mapping[str, Any]) -> Reader:
    """The reader of a file. Raises Unreadable if the file is binary and no reader claims it."""
    for kind in READERS:
        reader = kind(settings)
        if reader.claims(file):
            return reader
    raise Unreadable("binary", "no reader claims the file")
