"""What a document defines or explains: functions, classes and methods of Python, and sections of prose.

Each entry has its place in the document's text. Questions, answers and tasks are made from these.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from forge_pipeline.corpus.python_source import first_sentence, module_name, parse_module, return_phrase, symbols
from forge_pipeline.corpus.readers.formats import RECORD_FORMATS

ENTRY_ID_DIGITS = 32
_FENCED = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
_MARKDOWN_HEADING = re.compile(r"^#{1,6}[ \t]+(?P<name>\S[^\n]*?)[ \t]*#*[ \t]*$", re.MULTILINE)
_UNDERLINED_HEADING = re.compile(
    r"^(?:([=\-~^\"#*+])\1{2,}\n)?[ \t]*(?P<name>\w[^\n]{0,120})\n([=\-~^\"#*+])\3{2,}[ \t]*$", re.MULTILINE
)
# A function as "dumps(obj)", a class as "class JSONDecoder(object)", a method as "JSONDecoder.decode(self, s) -> str".
_API_HEADING = re.compile(
    r"^(?P<is_class>class )?(?P<name>[A-Za-z_][\w.]*)(?P<arguments>\(.*\))?(?: -> (?P<returns>.+))?$"
)
_RECORD_FIELD = re.compile(r"^(name|kind|module|signature|returns|documentation):[ \n](.*)$", re.MULTILINE)
_MARKS = re.compile(r"[`*]+")


@dataclass(frozen=True)
class Entry:
    """``start`` and ``end`` are character offsets in the document's text."""

    name: str
    kind: str
    container: str
    signature: str
    returns: str
    summary: str
    start: int
    end: int


def cataloguer(_settings: Mapping[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function, for a worker, from a document (doc_id, path, format, title, text) to {entries}: catalog rows."""

    # Syntax trees are many small objects without cycles: looking for cycles would take most of the time.
    gc.set_threshold(1_000_000)

    def catalogue(item: dict[str, Any]) -> dict[str, Any]:
        entries = entries_of(item["text"], item["format"], item["path"], item["title"])
        return {"entries": [{"entry_id": _entry_id(item["doc_id"], entry), **vars(entry)} for entry in entries]}

    return catalogue


def entries_of(text: str, form: str, path: str, title: str) -> list[Entry]:
    """The entries of a document, in the order of the text; none for formats that define nothing."""
    container = title or path.rpartition("/")[2]
    if form == "python":
        return list(_python_entries(text, module_name(path)))
    if form in RECORD_FORMATS:
        return list(_record_entries(text, container))
    if form in ("html", "markdown", "distribution"):
        return list(_section_entries(text, container, _MARKDOWN_HEADING))
    if form in ("rest", "text"):
        return list(_section_entries(text, container, _UNDERLINED_HEADING))
    return []


def _entry_id(doc_id: str, entry: Entry) -> str:
    name = f"{doc_id}\0{entry.name}\0{entry.start}"
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:ENTRY_ID_DIGITS]


def _python_entries(text: str, module: str) -> Iterator[Entry]:
    tree = parse_module(text)
    if tree is None:
        return
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    for symbol in symbols(tree):
        first = symbol.node.lineno - 1
        last = (symbol.node.end_lineno or symbol.node.lineno) - 1
        yield Entry(
            name=symbol.name,
            kind=symbol.kind,
            container=module,
            signature=symbol.signature,
            returns=symbol.returns,
            summary=symbol.summary,
            start=starts[first] + _characters(lines[first], symbol.node.col_offset),
            end=starts[last] + _characters(lines[last], _end_offset(symbol.node)),
        )


def _end_offset(node: ast.stmt) -> int:
    return node.end_col_offset or 0


def _characters(line: str, offset: int) -> int:
    """Syntax trees count in bytes of UTF-8."""
    return offset if line.isascii() else len(line.encode("utf-8")[:offset].decode("utf-8", "ignore"))


def _record_entries(text: str, container: str) -> Iterator[Entry]:
    """A record that was written out field by field and has a name and a signature."""
    found = list(_RECORD_FIELD.finditer(text))
    values = {match[1]: match[2] for match in reversed(found)}
    if "name" not in values or "signature" not in values:
        return
    documentation = next((text[match.start(2) :] for match in found if match[1] == "documentation"), "")
    yield Entry(
        name=values["name"],
        kind=values.get("kind", "function"),
        container=values.get("module", container),
        signature=values["signature"],
        returns=values.get("returns", "").strip(),
        summary=first_sentence(documentation),
        start=0,
        end=len(text),
    )


def _section_entries(text: str, container: str, heading: re.Pattern[str]) -> Iterator[Entry]:
    # What looks like a heading in a code block is a comment.
    visible = _FENCED.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    found = list(heading.finditer(visible))
    ends = [*(match.start() for match in found[1:]), len(text)]
    for match, end in zip(found, ends, strict=False):
        body = visible[match.end() : end]
        while end > match.end() and text[end - 1].isspace():
            end -= 1
        name = match["name"].strip()
        # A star in a signature is no mark-up.
        yield _api_entry(name, body, container, match.start(), end) or Entry(
            name=_MARKS.sub("", name),
            kind="section",
            container=container,
            signature="",
            returns="",
            summary=first_sentence(body),
            start=match.start(),
            end=end,
        )


def _api_entry(heading: str, body: str, container: str, start: int, end: int) -> Entry | None:
    """An entry of reference documentation, whose heading is a signature; None for any other heading."""
    match = _API_HEADING.match(heading)
    if not match or not (match["arguments"] or match["is_class"]):
        return None
    short = match["name"].rpartition(".")[2]
    returns = match["returns"] or ""
    kind = "class" if match["is_class"] else "method" if "." in match["name"] else "function"
    return Entry(
        name=match["name"],
        kind=kind,
        container=container,
        signature=short + (match["arguments"] or "") + (f" -> {returns}" if returns else ""),
        returns=match["name"] if kind == "class" else returns or return_phrase(body.strip()),
        summary=first_sentence(body),
        start=start,
        end=end,
    )
