from __future__ import annotations

import lzma
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forge_pipeline.corpus.tables import DOCUMENTS, TRAINING_SCHEMA, read_table, write_table
from forge_pipeline.errors import StorageError
from forge_pipeline.evaluation.bits_per_byte import (
    BITS_PER_BYTE,
    HeldOutDocument,
    choose,
    document_nats,
    evaluate_bits_per_byte,
)
from forge_pipeline.evaluation.settings import BitsPerByteSettings
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.reporting import SilentProgress
from forge_pipeline.tokens.settings import ShardSettings
from forge_pipeline.tokens.shards import ShardReader, write_shards


def document(name: str, tokens: list[int], text: bytes = b"text") -> HeldOutDocument:
    return HeldOutDocument(name, "source", f"{name}.txt", "", "text", text, np.array(tokens, dtype=np.int64))


def test_a_bigram_s_bits_are_those_counted_by_hand(model: Mistral) -> None:
    """With its blocks silenced the model is a table: the next token depends on the last one alone."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
    embedding = model.model.embed_tokens.weight.detach().double()
    head = model.lm_head.weight.detach().double()
    gain = model.model.norm.weight.detach().double()

    def nats(before: int, after: int) -> float:
        state = embedding[before]
        state = state / math.sqrt(float(state.square().mean()) + model.config.norm_epsilon) * gain
        logits = head @ state
        return float(torch.logsumexp(logits, 0) - logits[after])

    tokens = [17, 300, 300, 41, 0]
    expected = nats(0, 17) + nats(17, 300) + nats(300, 300) + nats(300, 41) + nats(41, 0)
    for window, overlap in ((128, 0), (2, 0), (3, 1), (4, 3)):
        found = document_nats(model, [document("a", tokens)], 0, window, overlap)
        assert found == pytest.approx([expected], rel=1e-4)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(2, 40), st.data())
def test_every_token_is_counted_once_whatever_the_windows(lengths: list[int], window: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, window - 1))
    uniform = _uniform_model()
    documents = [document(str(place), [5] * length) for place, length in enumerate(lengths)]
    found = document_nats(uniform, documents, 0, window, overlap)
    assert found == pytest.approx([length * math.log(400) for length in lengths], rel=1e-5)


def _uniform_model() -> Mistral:
    from forge_pipeline.models.architecture import ArchitectureSettings, ModelConfig

    settings = ArchitectureSettings(hidden_size=32, layers=1, heads=2, key_value_heads=1, intermediate_size=32)
    uniform = Mistral(ModelConfig.build(settings, 400))
    with torch.no_grad():
        for parameter in uniform.parameters():
            parameter.zero_()
    return uniform


def test_overlap_gives_each_token_more_context_and_one_window_all(model: Mistral) -> None:
    tokens = np.random.default_rng(0).integers(7, 400, 60).tolist()
    whole = document_nats(model, [document("a", tokens)], 0, 128, 0)[0]
    with torch.no_grad():
        log_probs = torch.log_softmax(model(torch.tensor([[0, *tokens[:-1]]]))[0], -1)
    assert whole == pytest.approx(-float(log_probs[range(60), tokens].sum()), rel=1e-5)
    # The last window but one token: all context that the whole document gives, within the window.
    cut = document_nats(model, [document("a", tokens)], 0, 20, 0)[0]
    with torch.no_grad():
        expected = 0.0
        for start in range(0, 60, 20):
            piece = [0, *tokens][start : start + 21]
            log_probs = torch.log_softmax(model(torch.tensor([piece[:-1]]))[0], -1)
            expected -= float(log_probs[range(len(piece) - 1), piece[1:]].sum())
    assert cut == pytest.approx(expected, rel=1e-5)


@given(st.lists(st.integers(1, 50), max_size=12), st.integers(1, 200))
def test_whole_documents_are_chosen_up_to_the_limit(lengths: list[int], limit: int) -> None:
    documents = [document(f"{place:02}", [1] * length) for place, length in enumerate(lengths)]
    chosen = choose(documents, limit)
    assert chosen == choose(documents, limit)
    assert len(chosen) >= min(1, len(documents))
    if len(chosen) > 1:
        assert sum(len(item.token_ids) for item in chosen) <= limit
    assert choose(documents, None) == documents


@pytest.fixture
def corpus(tmp_path: Path, tokenizer: Path) -> tuple[Path, Path]:
    """One batch of twelve test documents in two formats, and others; its shards."""
    training, shards = tmp_path / "training", tmp_path / "shards"
    training.mkdir()
    shards.mkdir()
    rows = []
    for number in range(20):
        text = f"Document {number}: " + f"open the file {number * 7} times, naïvely. " * (1 + number % 5)
        rows.append(
            {
                "doc_id": f"{(number * 7) % 20:032}",
                "source": "one" if number % 3 else "two",
                "path": f"path/{number}",
                "part": "",
                "format": "python" if number % 2 else "text",
                "language": "en",
                "text": text,
                "bytes": len(text.encode()),
                "split": "test" if number < 12 else "train",
            }
        )
    write_table(training / DOCUMENTS, TRAINING_SCHEMA, rows)
    write_shards(ShardSettings(), training, tokenizer, shards, SilentProgress())
    return training, shards


def test_figures_and_baselines_are_of_the_very_same_bytes(
    corpus: tuple[Path, Path], model: Mistral, tmp_path: Path
) -> None:
    training, shards = corpus
    (tmp_path / "out").mkdir()
    results = evaluate_bits_per_byte(
        BitsPerByteSettings(maximum_tokens=200), model, [shards], [training], tmp_path / "out", seed=0, resamples=200
    )
    rows = read_table(tmp_path / "out", BITS_PER_BYTE).to_pylist()
    documents = {row["path"]: row["text"].encode() for row in read_table(training, DOCUMENTS).to_pylist()}
    held_out = sorted(f"path/{number}" for number in range(12))
    assert 1 < len(rows) < 12
    scored = sorted(row["path"] for row in rows)
    size = sum(len(documents[path]) for path in scored)
    by_name = {(result.metric, result.detail): result for result in results}
    main = by_name["bits_per_byte", ""]
    assert main.value == pytest.approx(sum(row["bits"] for row in rows) / size)
    assert main.n == len(rows)
    assert main.low <= main.value <= main.high
    assert by_name["zlib_bits_per_byte", ""].value == pytest.approx(
        sum(8 * len(zlib.compress(documents[path], 9)) for path in scored) / size
    )
    for detail, paths in (("", scored), ("all 12 documents of the split", held_out)):
        together = b"".join(documents[path] for path in paths)
        expected = 8 * len(lzma.compress(together, preset=9 | lzma.PRESET_EXTREME)) / len(together)
        assert by_name["xz_bits_per_byte", detail].value == pytest.approx(expected)
    parts = [result for (metric, detail), result in by_name.items() if detail.startswith("format ")]
    assert sum(part.n for part in parts) == len(rows)


def test_the_score_of_a_document_is_that_of_its_stored_tokens(
    corpus: tuple[Path, Path], model: Mistral, tmp_path: Path
) -> None:
    training, shards = corpus
    (tmp_path / "out").mkdir()
    settings = BitsPerByteSettings(maximum_tokens=None)
    evaluate_bits_per_byte(settings, model, [shards], [training], tmp_path / "out", seed=0, resamples=100)
    reader = ShardReader([shards])
    stored = reader.documents("test")
    for row in read_table(tmp_path / "out", BITS_PER_BYTE).to_pylist():
        number = stored.doc_ids.to_pylist().index(row["doc_id"])
        tokens = stored.tokens(number).astype(np.int64).tolist()
        assert row["tokens"] == len(tokens)
        assert tokens[-1] == reader.end_token_id
        nats = document_nats(model, [document("a", tokens)], reader.end_token_id, 256, 0)[0]
        assert row["bits"] == pytest.approx(nats / math.log(2), rel=1e-5)


def test_shards_of_other_documents_are_refused(corpus: tuple[Path, Path], model: Mistral, tmp_path: Path) -> None:
    training, shards = corpus
    other = tmp_path / "other"
    other.mkdir()
    write_table(other / DOCUMENTS, TRAINING_SCHEMA, read_table(training, DOCUMENTS).to_pylist()[1:])
    with pytest.raises(StorageError, match="is in none of 1 batches"):
        evaluate_bits_per_byte(BitsPerByteSettings(), model, [shards], [other], tmp_path, seed=0, resamples=100)
