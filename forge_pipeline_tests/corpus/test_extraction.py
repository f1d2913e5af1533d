"""Every landed file leaves documents or a reason, whatever is in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge_pipeline.corpus import tables
from forge_pipeline.corpus.extraction import extract_documents
from forge_pipeline.corpus.extractor import extractor
from forge_pipeline.corpus.settings import ExtractionSettings
from forge_pipeline.errors import SourceError
from forge_pipeline.reporting import SilentProgress

Land = Callable[[Mapping[str, bytes | str]], Path]
Output = Callable[[], Path]

PROSE = "A paragraph of plain text that says something, and then says a little more.\n"


def pdf(text: str, *, catalog: str = "") -> bytes:
    """A PDF file of one page with one line of text."""
    content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R {catalog}>>".encode(),
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, value in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, value)
    table = b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return body + table + b"trailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(body)


def encrypted_pdf() -> bytes:
    encryption = b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >>" % (b"28" * 32, b"4e" * 32)
    file_id = b"<" + b"ab" * 16 + b">"
    trailer = b"trailer << /Size 6 /Encrypt %s /ID [%s %s] /Root" % (encryption, file_id, file_id)
    return pdf("secret").replace(b"trailer << /Size 6 /Root", trailer)


def extract_one(path: str, data: bytes | str, tmp_path: Path, **limits: Any) -> dict[str, Any]:
    """What a worker answers for one file."""
    content = data.encode() if isinstance(data, str) else data
    file = tmp_path / "file"
    file.write_bytes(content)
    item = {"path": path, "file": str(file), "sha256": hashlib.sha256(content).hexdigest()}
    return extractor(ExtractionSettings(**limits).model_dump(mode="json"))(item)


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return tables.read_table(folder, name).to_pylist()


@pytest.mark.parametrize(
    ("path", "data", "form", "fragments"),
    [
        ("notes.txt", PROSE, "text", ["plain text"]),
        ("latin.txt", "Grüße aus der Straße, schöne Bäume und Öl für später".encode("cp1252"), "text", ["Straße"]),
        ("utf16.txt", "Wide text".encode("utf-16"), "text", ["Wide text"]),
        ("japanese.txt", ("日本語の文章です。これは試験のための文章です。" * 4).encode("shift_jis"), "text", ["試験"]),
        ("guide.md", "# Guide\n\nText.\n", "markdown", ["# Guide"]),
        ("README", "# Tool\n\nSee [docs](https://a.b).\n\n```\nrun\n```\n", "markdown", ["```"]),
        ("guide.rst", "Guide\n=====\n\n.. note:: Text.\n", "rest", [".. note::"]),
        ("page.html", "<html><body><h1>Top</h1><p>Some text.</p></body></html>", "html", ["# Top", "Some text."]),
        ("page.txt", "<!DOCTYPE html><html><body><p>Hidden page</p></body></html>", "html", ["Hidden page"]),
        ("code.html", "<html><body><pre>if a &lt; b:\n  go()</pre></body></html>", "html", ["\n  go()", "a < b"]),
        ("record.json", '{"title": "T", "body": "The text."}', "json", ["The text."]),
        ("fields.json", '{"name": "gear", "price": 3}', "json", ["name: gear\nprice: 3\n"]),
        ("list.json", '[{"text": "one"}, {"text": "two"}]', "json", ["one", "two"]),
        ("many.jsonl", '{"text": "one"}\n\n{"text": "two"}\n', "jsonl", ["one", "two"]),
        ("export", '{"text": "one"}\n{"text": "two"}\n', "jsonl", ["one", "two"]),
        ("paper.pdf", pdf("Hello from a page"), "pdf", ["Hello from a page"]),
        ("paper.txt", pdf("Hello from a page"), "pdf", ["Hello from a page"]),
        ("tool.py", "def f():\n    return 1\n", "python", ["def f"]),
        ("cookie.py", "# -*- coding: latin-1 -*-\nname = 'Jürgen'\n".encode("latin-1"), "python", ["Jürgen"]),
        ("script", "#!/usr/bin/env python3\nprint(1)\n", "python", ["print"]),
        ("Makefile", "all:\n\ttrue\n", "make", ["true"]),
        ("x.dist-info/METADATA", "Metadata-Version: 2.1\nName: x\n\nLong.\n", "distribution", ["Name: x", "Long."]),
        ("windows.txt", b"one\r\ntwo\r\n", "text", ["one\ntwo\n"]),
    ],
)  # fmt: skip
def test_a_file_is_read_by_its_content(
    path: str, data: bytes | str, form: str, fragments: list[str], tmp_path: Path
) -> None:
    answer = extract_one(path, data, tmp_path)
    assert answer["quarantine"] == []
    assert {document["format"] for document in answer["documents"]} == {form}
    text = "\0".join(document["text"] for document in answer["documents"])
    assert all(fragment in text for fragment in fragments), text


@pytest.mark.parametrize(
    ("path", "data", "kind"),
    [
        ("empty.txt", b"", "empty"),
        ("blank.txt", b" \n\t\n", "empty"),
        ("nul.txt", b"text\0text", "binary"),
        ("program", b"\x7fELF\x02\x01\x01" + bytes(60), "binary"),
        ("noise.txt", bytes(range(1, 32)) * 40, "binary"),
        ("bad.json", b'{"a": ', "invalid_json"),
        ("deep.json", b"[" * 200_000 + b"]" * 200_000, "invalid_json"),
        ("deep.jsonl", b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "invalid_json"),
        ("digits.json", b'{"a": ' + b"9" * 100_000 + b"}", "invalid_json"),
        ("number.jsonl", b"17\n", "invalid_json"),
        ("half.pdf", pdf("Hello")[:300], "truncated"),
        ("locked.pdf", encrypted_pdf(), "encrypted"),
        ("nothing.pdf", pdf(""), "no_text"),
        ("broken.pdf", b"%PDF-1.4\n" + b"x" * 500 + b"\n%%EOF\n", "invalid_pdf"),
        ("frame.html", b"<html><head><script>var a;</script></head><body></body></html>", "no_text"),
        ("line.txt", b"x" * 3000, "long_line"),
        ("large.txt", b"a b\n" * 2000, "too_large"),
        ("lying.py", b"# coding: utf-8\nname = '\xff\xfe\xfa'\n", "undecodable"),
    ],
)  # fmt: skip
def test_a_file_without_usable_text_gives_a_reason(path: str, data: bytes, kind: str, tmp_path: Path) -> None:
    limits = {"max_line_characters": 2000} if kind == "long_line" else {}
    if kind == "too_large":
        limits = {"max_file_bytes": 5000}
    answer = extract_one(path, data, tmp_path, **limits)
    assert answer["documents"] == []
    assert [reason for reason, _ in answer["quarantine"]] == [kind]


def test_a_bad_line_costs_that_record_alone(tmp_path: Path) -> None:
    answer = extract_one("a.jsonl", '{"text": "one"}\nnot json\n{"text": "three"}\n', tmp_path)
    assert [document["part"] for document in answer["documents"]] == ["#1", "#3"]
    assert [reason for _, reason in answer["quarantine"]] == ["line 2: Expecting value: line 1 column 1 (char 0)"]


def test_what_utf8_cannot_hold_is_replaced(tmp_path: Path) -> None:
    (document,) = extract_one("a.json", '{"text": "half \\ud800 pair", "title": "\\udfff"}', tmp_path)["documents"]
    assert document["text"] == "half \ufffd pair"
    assert document["title"] == "\ufffd"


@given(
    data=st.binary(max_size=2000), name=st.sampled_from(["a", "a.txt", "a.html", "a.json", "a.jsonl", "a.pdf", "a.py"])
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_documents_or_a_reason(data: bytes, name: str, tmp_path: Path) -> None:
    answer = extract_one(name, data, tmp_path)
    assert answer["documents"] or answer["quarantine"]
    for document in answer["documents"]:
        document["text"].encode()


MIXED: dict[str, bytes | str] = {
    "a.txt": PROSE,
    "b/c.md": "# Title\n\n" + PROSE,
    "d.jsonl": "\n".join(json.dumps({"text": f"record {n}"}) for n in range(150)),
    "e.bin": bytes(100),
    "f.pdf": pdf("A page"),
    "g.json": "{",
    **{f"many/{n}.py": f"x = {n}\n" for n in range(150)},
}


def test_each_landed_file_is_in_documents_or_in_quarantine(land: Land, output: Output) -> None:
    landing, out = land(MIXED), output()
    outcome = extract_documents(ExtractionSettings(), landing, out, SilentProgress(), workers=1)
    documents, quarantine = rows_of(out, tables.DOCUMENTS), rows_of(out, tables.QUARANTINE)
    assert {row["path"] for row in documents} | {row["path"] for row in quarantine} == set(MIXED)
    assert {row["path"]: row["reason"].split(":")[0] for row in quarantine} == {
        "e.bin": "binary",
        "g.json": "invalid_json",
    }
    assert len({row["doc_id"] for row in documents}) == len(documents) == outcome.counts["documents_kept"]
    assert all(row["split_group"] == row["file_sha256"] for row in documents)
    assert outcome.counts["files_in"] == len(MIXED)
    assert outcome.counts["files_quarantined"] == 2


def test_the_number_of_workers_changes_no_byte(land: Land, output: Output) -> None:
    landing, one, three = land(MIXED), output(), output()
    extract_documents(ExtractionSettings(), landing, one, SilentProgress(), workers=1)
    extract_documents(ExtractionSettings(), landing, three, SilentProgress(), workers=3)
    for name in (tables.DOCUMENTS, tables.QUARANTINE):
        assert (one / name).read_bytes() == (three / name).read_bytes()


def test_a_file_that_changed_since_it_was_landed_is_quarantined(land: Land, output: Output, tmp_path: Path) -> None:
    landing, out = land({"a.txt": PROSE, "b.txt": PROSE + "b", "c.txt": PROSE + "c"}), output()
    (tmp_path / "source" / "a.txt").write_text("something else")
    (tmp_path / "source" / "b.txt").unlink()
    extract_documents(ExtractionSettings(), landing, out, SilentProgress(), workers=1)
    assert [row["path"] for row in rows_of(out, tables.DOCUMENTS)] == ["c.txt"]
    assert [row["reason"].split(":")[0] for row in rows_of(out, tables.QUARANTINE)] == ["changed", "changed"]


def test_a_batch_without_a_readable_file_is_an_error_that_names_them(land: Land, output: Output) -> None:
    with pytest.raises(SourceError, match=r"a\.bin: binary"):
        extract_documents(ExtractionSettings(), land({"a.bin": bytes(9)}), output(), SilentProgress(), workers=1)
