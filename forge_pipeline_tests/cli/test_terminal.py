import io
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from forge_pipeline.cli import terminal
from forge_pipeline.cli.terminal import TerminalProgress, format_number, format_seconds
from forge_pipeline.reporting import Check, Outcome, Table


def console_for(*, is_terminal: bool) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=is_terminal, width=100, highlight=False), stream


def printed(view: object) -> str:
    console, stream = console_for(is_terminal=False)
    console.print(view)
    return stream.getvalue()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(terminal, "PLAIN_INTERVAL", 0.0)
    return


def test_without_a_terminal_stages_are_plain_lines() -> None:
    console, stream = console_for(is_terminal=False)
    with TerminalProgress(["documents", "tokenizer"], console) as progress:
        progress.stage_started("documents")
        progress.note("3 files in quarantine")
        progress.stage_finished("documents", "done", "1,800 documents", seconds=12)
        progress.stage_finished("tokenizer", "reused")
    assert stream.getvalue().splitlines() == [
        "1/2 documents: started",
        "  3 files in quarantine",
        "✓ 1/2 documents done 12 s  1,800 documents",
        "= 2/2 tokenizer reused",
    ]


def test_a_short_task_is_silent_without_a_terminal() -> None:
    console, stream = console_for(is_terminal=False)
    with TerminalProgress(console=console) as progress, progress.task("reading", total=3, unit="files") as task:
        for _ in range(3):
            task.advance()
    assert stream.getvalue() == ""


@pytest.mark.usefixtures("no_waiting")
def test_a_long_task_tells_how_far_it_is_and_how_long_it_will_take() -> None:
    console, stream = console_for(is_terminal=False)
    with TerminalProgress(console=console) as progress, progress.task("reading", total=1200, unit="files") as task:
        task.advance(600)
        task.advance(600)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("  reading: 600/1,200 files, ")
    assert lines[0].endswith(" left")
    assert lines[1] == "  reading: 1,200/1,200 files"


@pytest.mark.usefixtures("no_waiting")
def test_metrics_are_one_line() -> None:
    console, stream = console_for(is_terminal=False)
    with TerminalProgress(console=console) as progress:
        progress.metrics(100, {"loss": 3.14159, "tokens_per_second": 7612.4})
    assert stream.getvalue() == "  step 100  loss 3.142  tokens_per_second 7,612.4\n"


def test_in_a_terminal_the_current_stage_its_task_and_what_is_next_are_drawn() -> None:
    console, stream = console_for(is_terminal=True)
    with TerminalProgress(["documents", "tokenizer", "base_model"], console) as progress:
        progress.stage_started("documents")
        with progress.task("reading", total=10, unit="files") as task:
            task.advance(4)
            progress.metrics(7, {"loss": 2.5})
            drawn = printed(progress._render())
        progress.stage_finished("documents", "done")
    assert "documents" in drawn
    assert "4/10 files" in drawn
    assert "loss 2.5" in drawn
    assert "next: tokenizer, base_model" in drawn
    assert "documents" in stream.getvalue()


def test_threads_may_report_at_the_same_time() -> None:
    console, stream = console_for(is_terminal=False)
    with TerminalProgress(console=console) as progress:
        threads = [threading.Thread(target=lambda: [progress.note("line") for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert stream.getvalue().splitlines() == ["  line"] * 200


def test_text_that_looks_like_markup_is_shown_as_it_is() -> None:
    console, stream = console_for(is_terminal=False)
    with TerminalProgress(console=console) as progress:
        progress.note("[bold]dropped[/bold] list[int]")
        progress.stage_started("a[red]")
    assert "[bold]dropped[/bold] list[int]" in stream.getvalue()
    assert "a[red]: started" in stream.getvalue()
    assert "dict[str, int]" in printed(terminal.table_view(Table("t", ("dict[str, int]",), (("x[y]",),))))


def test_an_outcome_shows_counts_checks_with_figures_and_tables() -> None:
    outcome = Outcome(
        counts={"documents": 1800, "bits_per_byte": 1.7125},
        checks=[Check("beats_zlib", True, "below zlib -9", 1.71, 1.84), Check("nothing_lost", False, "all read")],
        tables=[Table("Dropped", ("reason", "documents"), (("too short", 12), ("licence", None)))],
    )
    text = printed(terminal.outcome_view("base_model", outcome))
    assert "✓ beats_zlib  below zlib -9  1.71 (threshold 1.84)" in text
    assert "✗ nothing_lost  all read" in text
    for expected in ("1,800", "1.712", "Dropped", "too short", "12"):
        assert expected in text


def test_a_summary_shows_pairs_and_tables_in_order() -> None:
    table = Table("Evaluation", ("stage", "accuracy"), (("base", 0.12), ("sft", 0.6)))
    text = printed(terminal.summary_view("python_assistant", [("Documents", {"in": 2000, "kept": 1800}), table]))
    assert text.index("Documents") < text.index("2,000") < text.index("Evaluation") < text.index("sft")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "-"), (True, "yes"), ("as is", "as is"), (0, "0"), (1234567, "1,234,567"), (2.0, "2")),
        *((0.123456, "0.1235"), (7612.44, "7,612.4"), (1e-7, "1e-07"), (float("inf"), "inf"), (float("nan"), "nan")),
    ],
)
def test_numbers_are_readable(value: float | str | None, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.9, "9.9 s"),
        (12.4, "12 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
