"""One file to documents, inside a worker (see `extraction` for the stage)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forge_pipeline.corpus.readers import InputFile, Passage, Unreadable, reader_for


def extractor(settings: Mapping[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function from {path, file, sha256} to {format, documents, quarantine}; see the fields of Passage.

    ``quarantine`` lists [kind, detail] of the file, or of records in it, that gave no document. A file gives at
    least one document or one such reason.
    """

    def extract(item: dict[str, Any]) -> dict[str, Any]:
        found = ""
        documents: list[dict[str, str]] = []
        problems: list[tuple[str, str]] = []
        try:
            file = InputFile(item["path"], _read(Path(item["file"]), item["sha256"], settings["max_file_bytes"]))
            reader = reader_for(file, settings)
            found = reader.format
            reading = reader.read(file)
            problems.extend((problem.kind, problem.detail) for problem in reading.problems)
            for passage in reading.passages:
                try:
                    documents.append(_document(passage, settings["max_line_characters"]))
                except Unreadable as problem:
                    problems.append((problem.kind, f"{passage.part} {problem.detail}".strip()))
            if not documents and not problems:
                problems.append(("empty", "the file has no records"))
        except Unreadable as problem:
            problems.append((problem.kind, problem.detail))
        return {"format": found, "documents": documents, "quarantine": problems}

    return extract


def _read(path: Path, sha256: str, most_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > most_bytes:
            raise Unreadable("too_large", f"{size} bytes, allowed {most_bytes}")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise Unreadable("changed", "the file is gone since it was landed") from error
    except OSError as error:
        raise Unreadable("unreadable", str(error.strerror)) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Unreadable("changed", "the file is not the one that was landed")
    if not data.strip():
        raise Unreadable("empty", "the file is empty")
    return data


def _document(passage: Passage, longest_line: int) -> dict[str, str]:
    text = _encodable(passage.text)
    if not text.strip():
        raise Unreadable("empty", "no text")
    if len(text) > longest_line:
        longest = max(map(len, text.split("\n")))
        if longest > longest_line:
            raise Unreadable("long_line", f"a line of {longest} characters, allowed {longest_line}")
    return {
        "part": passage.part,
        "format": passage.format,
        "language_hint": passage.language_hint,
        "title": _encodable(passage.title)[:300],
        "text": text,
    }


def _encodable(text: str) -> str:
    """Lone surrogates, which JSON can hold and UTF-8 cannot, become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
