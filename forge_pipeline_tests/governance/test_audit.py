"""The audit page shows what the tables hold, keeps hostile text as text, and tells of altered artifacts."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from forge_pipeline.governance.audit import DOCUMENTS_FILE, PAGE_FILE, write_audit_report
from forge_pipeline.governance.lineage_view import LineageView
from forge_pipeline.governance.settings import AuditSettings
from forge_pipeline.governance.trace import documents_of_model
from forge_pipeline.reporting import Outcome, SilentProgress

SETTINGS = AuditSettings(top_documents=3)


class Page(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def view_of(lineage: Any) -> LineageView:
    names = ("decision", "sft", "reward_audit")
    return LineageView.of_entries(lineage.store, [(lineage[name].key, lineage[name].fingerprint) for name in names])


@pytest.fixture(scope="module")
def report(lineage: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("audit")
    return folder, write_audit_report(SETTINGS, "assistant", view_of(lineage), folder, SilentProgress())


@pytest.fixture(scope="module")
def page(report: tuple[Path, Outcome]) -> Page:
    return Page((report[0] / PAGE_FILE).read_text(encoding="utf-8"))


def test_text_from_documents_never_becomes_markup(page: Page) -> None:
    assert not {"script", "iframe", "object", "link"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    # Shown all the same, as what it is: a path, a title and a quarantine reason.
    for shown in ("<script>alert('x')</script> & \"quoted\".md", "<img src=x onerror=alert(1)>", "no <b>pages</b>"):
        assert shown in page.text


def test_the_page_needs_no_other_host_and_no_script(page: Page) -> None:
    for name, value in page.attributes:
        if name in ("src", "href"):
            assert value.startswith(("#", "data:image/svg+xml;base64,")) or value == DOCUMENTS_FILE
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in page.attributes


def test_counts_at_each_stage_are_those_of_the_tables(page: Page) -> None:
    funnel = page.text[page.text.index("Files landed") : page.text.index("Decisions by rule")]
    assert re.findall(r"(?:Files landed|Documents read|After curation|Unique|Training set|Split for training"
                      r"|Seen in pre-training) (\d+)", funnel) == ["10", "9", "8", "6", "5", "4", "3"]  # fmt: skip
    assert "duplicates dropped: 1 exact, 1 near" in funnel
    assert "dropped by decontamination: 1" in funnel


def test_decisions_evaluations_and_the_gate_are_shown(page: Page) -> None:
    assert "quality too_short drop 1 1" in page.text
    assert "decontamination held_out_overlap drop 1 1" in page.text
    assert "0.2 (0.1 to 0.3; 200 questions) 0.7 (0.6 to 0.8; 200 questions)" in page.text
    assert "release gate passed" in page.text
    assert "an agent that says nothing gets no reward" in page.text


def test_every_artifact_and_file_digest_is_listed(page: Page, lineage: Any) -> None:
    for record in view_of(lineage).records:
        assert record.fingerprint in page.text
        for entry in record.files:
            assert entry.sha256 in page.text


def test_all_documents_lie_beside_the_page(report: tuple[Path, Outcome], lineage: Any) -> None:
    assert pq.read_table(report[0] / DOCUMENTS_FILE) == documents_of_model(view_of(lineage))
    assert report[1].counts["documents"] == 3


def test_the_same_lineage_makes_the_same_bytes(report: tuple[Path, Outcome], lineage: Any, tmp_path: Path) -> None:
    write_audit_report(SETTINGS, "assistant", view_of(lineage), tmp_path, SilentProgress())
    for name in (PAGE_FILE, DOCUMENTS_FILE):
        assert (tmp_path / name).read_bytes() == (report[0] / name).read_bytes()


def test_an_altered_artifact_is_named_and_fails_the_check(
    new_lineage: Callable[[], Any], report: tuple[Path, Outcome], tmp_path: Path
) -> None:
    assert [check.passed for check in report[1].checks] == [True]
    lineage = new_lineage()
    metrics = lineage.store.read(lineage["base"]) / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("8.0", "7.0"))
    outcome = write_audit_report(SETTINGS, "assistant", view_of(lineage), tmp_path, SilentProgress())
    assert [check.passed for check in outcome.checks] == [False]
    text = Page((tmp_path / PAGE_FILE).read_text(encoding="utf-8")).text
    assert "altered artifacts: 1" in text
    assert "assistant/base_model: metrics.jsonl: sha256 is" in text


def test_a_lineage_without_release_or_reward_says_so(lineage: Any, tmp_path: Path) -> None:
    view = LineageView.of_record(lineage.store, lineage["base"])
    write_audit_report(SETTINGS, "assistant", view, tmp_path, SilentProgress())
    text = Page((tmp_path / PAGE_FILE).read_text(encoding="utf-8")).text
    assert "no release decision yet" in text
    assert "No reward was audited" in text
    assert "No stage was evaluated." in text
