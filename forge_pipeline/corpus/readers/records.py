"""JSON and JSON Lines: a record is a document."""

from __future__ import annotations

import json
from typing import Any

from forge_pipeline.corpus.readers.base import InputFile, Passage, Reader, Reading, Unreadable

_LINES_NAMES = ("jsonl", "ndjson", "jsonlines")
# Names under which a text file may well be JSON.
_MAYBE_NAMES = frozenset({"", "txt", "text", "data"})
_LANGUAGE_FIELDS = ("language", "lang")
# One row says how many more records were bad, so that a broken export does not flood the quarantine.
_MOST_PROBLEMS = 20


class JsonLinesReader(Reader):
    """One record a line. A line that is no record is quarantined; the others are read."""

    format = "jsonl"

    def claims(self, file: InputFile) -> bool:
        if file.extension in _LINES_NAMES:
            return True
        if file.extension not in _MAYBE_NAMES | {"json"} or not file.head.startswith("{"):
            return False
        lines = [line for line in file.text.split("\n", 64)[:64] if line.strip()][:2]
        return len(lines) == 2 and all(_is_object(line) for line in lines)

    def read(self, file: InputFile) -> Reading:
        reading = Reading()
        bad = 0
        for number, line in enumerate(file.text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                reading.passages.append(self._passage(parse_json(line), number))
            except Unreadable as problem:
                bad += 1
                if bad <= _MOST_PROBLEMS:
                    reading.problems.append(Unreadable(problem.kind, f"line {number}: {problem.detail}"))
        if bad > _MOST_PROBLEMS:
            reading.problems.append(Unreadable("invalid_json", f"and {bad - _MOST_PROBLEMS} more lines"))
        return reading

    def _passage(self, record: object, number: int) -> Passage:
        return record_passage(record, f"#{number}", self.format, self.settings)


class JsonReader(Reader):
    """A record, or a list of them."""

    format = "json"

    def claims(self, file: InputFile) -> bool:
        if file.extension == "json":
            return True
        return file.extension in _MAYBE_NAMES and file.head[:1] in ("{", "[") and _is_json(file.text)

    def read(self, file: InputFile) -> Reading:
        value = parse_json(file.text)
        if not isinstance(value, list):
            return Reading([record_passage(value, "", self.format, self.settings)])
        if not any(isinstance(item, (dict, str)) for item in value):
            # A list of numbers or lists is one table of data.
            return Reading([Passage(file.text, self.format)])
        reading = Reading()
        for number, item in enumerate(value, start=1):
            try:
                reading.passages.append(record_passage(item, f"#{number}", self.format, self.settings))
            except Unreadable as problem:
                if len(reading.problems) < _MOST_PROBLEMS:
                    reading.problems.append(Unreadable(problem.kind, f"item {number}: {problem.detail}"))
        return reading


def parse_json(text: str) -> object:
    """The value. Raises Unreadable for text that is not JSON or is nested beyond reason."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise Unreadable("invalid_json", "nested too deeply") from error
    except ValueError as error:
        raise Unreadable("invalid_json", str(error)) from error


def record_passage(record: object, part: str, form: str, settings: Any) -> Passage:
    """A record's text: its text field, or all its fields written out, one a line ("name: value")."""
    if isinstance(record, str):
        record = {"text": record}
    if not isinstance(record, dict):
        raise Unreadable("invalid_json", f"a {type(record).__name__} is no record")
    named = {str(key).lower(): value for key, value in record.items()}
    text = next((named[name] for name in settings["text_fields"] if isinstance(named.get(name), str)), None)
    if text is None:
        text = "\n".join(_field(key, value) for key, value in record.items()) + "\n"
    if not text.strip():
        raise Unreadable("empty", "a record without text")
    title = next((named[name] for name in settings["title_fields"] if isinstance(named.get(name), (str, int))), "")
    hint = next((named[name] for name in _LANGUAGE_FIELDS if isinstance(named.get(name), str)), "")
    return Passage(text, form, str(title), part, hint.lower() if len(hint) <= 3 else "")


def _field(key: str, value: object) -> str:
    if not isinstance(value, str):
        return f"{key}: {json.dumps(value, ensure_ascii=False)}"
    return f"{key}:\n{value}" if "\n" in value else f"{key}: {value}"


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except Unreadable:
        return False
    return True


def _is_object(line: str) -> bool:
    try:
        return isinstance(parse_json(line), dict)
    except Unreadable:
        return False
