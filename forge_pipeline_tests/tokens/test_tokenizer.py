"""The tokenizer says every text exactly, is the same every time, and loads elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_pipeline.errors import SourceError, StorageError
from forge_pipeline.reporting import SilentProgress
from forge_pipeline.tokens.chat import encode_text, load_tokenizer
from forge_pipeline.tokens.documents import total_bytes
from forge_pipeline.tokens.encoding import DocumentEncoder, drawn
from forge_pipeline.tokens.settings import TokenizerSettings
from forge_pipeline.tokens.special_tokens import SPECIAL_TOKENS
from forge_pipeline.tokens.tokenizer import train_tokenizer

HOSTILE = st.lists(
    st.one_of(
        st.text(max_size=30), st.sampled_from(SPECIAL_TOKENS), st.sampled_from(["<|", "|>", "\r\n", "  ", "'Ll"])
    ),
    max_size=12,
).map("".join)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_special_tokens_have_the_first_ids(tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(7))
    assert tokenizer.get_vocab_size() == 400


@given(text=HOSTILE)
def test_any_text_decodes_to_itself_and_holds_no_special_token(text: str, tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    ids = encode_text(tokenizer, text)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert not ids or min(ids) >= len(SPECIAL_TOKENS)


@given(texts=st.lists(HOSTILE, max_size=6))
def test_the_fast_encoder_gives_the_ids_of_tokenizers(texts: list[str], tokenizer_folder: Path) -> None:
    encoder, reference = DocumentEncoder(tokenizer_folder), load_tokenizer(tokenizer_folder)
    encoded = encoder.encode(texts)
    assert [encoded.document(index).tolist() for index in range(len(texts))] == [
        encode_text(reference, text) for text in texts
    ]


def test_digits_in_groups_are_cut_the_same_way_by_both_encoders(corpus: list[Path], tmp_path: Path) -> None:
    settings = TokenizerSettings(vocabulary_size=300, digits="up_to_three")
    train_tokenizer(settings, corpus, tmp_path, SilentProgress())
    texts = ["1 12 123 1234 12345 x1y22", "１２３４ ٣٤٥٦ ½"]
    encoder, reference = DocumentEncoder(tmp_path / "tokenizer"), load_tokenizer(tmp_path / "tokenizer")
    encoded = encoder.encode(texts)
    encoder.verify(texts, encoded, [0, 1])
    cut = reference.pre_tokenizer.pre_tokenize_str("12345")
    assert [piece for piece, _ in cut] == ["123", "45"]


def test_a_wrong_encoding_is_refused(tokenizer_folder: Path) -> None:
    encoder = DocumentEncoder(tokenizer_folder)
    texts = ["one text", "another"]
    encoded = encoder.encode(texts)
    encoder.verify(texts, encoded, [0, 1])
    encoded.ids[-1] += 1
    encoder.verify(texts, encoded, [0])
    with pytest.raises(StorageError, match="disagree"):
        encoder.verify(texts, encoded, [0, 1])


def test_the_same_text_gives_the_same_bytes_whatever_the_threads(
    corpus: list[Path], tokenizer_artifact: Path, tmp_path: Path
) -> None:
    command = (
        "import sys\nfrom pathlib import Path\nfrom forge_pipeline.reporting import SilentProgress\n"
        "from forge_pipeline.tokens.settings import TokenizerSettings\n"
        "from forge_pipeline.tokens.tokenizer import train_tokenizer\n"
        "*parts, output = map(Path, sys.argv[1:])\n"
        "train_tokenizer(TokenizerSettings(vocabulary_size=400), parts, output, SilentProgress())\n"
    )
    subprocess.run(
        [sys.executable, "-c", command, *map(str, corpus), str(tmp_path)],
        check=True,
        env=os.environ | {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "7"},
    )
    assert files_of(tmp_path) == files_of(tokenizer_artifact)


def test_only_the_train_split_is_learned_from(
    write_documents: Callable[[Path, Sequence[tuple[str, str]]], Path], tmp_path: Path
) -> None:
    train = [("train", "alpha beta " * 30)]
    plain = write_documents(tmp_path / "plain", train)
    mixed = write_documents(tmp_path / "mixed", [*train, ("test", "zzzqqq " * 200), ("validation", "wwwxxx " * 200)])
    for part in (plain, mixed):
        (tmp_path / f"{part.name}_out").mkdir()
        train_tokenizer(TokenizerSettings(vocabulary_size=300), [part], tmp_path / f"{part.name}_out", SilentProgress())
    name = "tokenizer/tokenizer.json"
    assert (tmp_path / "plain_out" / name).read_bytes() == (tmp_path / "mixed_out" / name).read_bytes()


def test_a_large_corpus_is_sampled(corpus: list[Path], tmp_path: Path) -> None:
    available = total_bytes(corpus, "train")
    settings = TokenizerSettings(vocabulary_size=300, training_bytes=available // 3)
    outcome = train_tokenizer(settings, corpus, tmp_path, SilentProgress())
    assert 0 < outcome.counts["trained_on_bytes"] < available * 0.6  # type: ignore[operator]


@given(doc_ids=st.lists(st.text(max_size=8), unique=True), fraction=st.floats(0, 1))
def test_what_is_drawn_does_not_depend_on_the_other_documents(doc_ids: list[str], fraction: float) -> None:
    together = drawn(doc_ids, fraction).tolist()
    assert together == [bool(drawn([doc_id], fraction)[0]) for doc_id in doc_ids]
    assert drawn(doc_ids, 1.0).all()
    assert not drawn(doc_ids, 0.0).any()


def test_no_training_text_is_an_error_that_names_the_batch(
    write_documents: Callable[[Path, Sequence[tuple[str, str]]], Path], tmp_path: Path
) -> None:
    part = write_documents(tmp_path / "batch", [("test", "only held out")])
    (tmp_path / "output").mkdir()
    with pytest.raises(SourceError, match="batch"):
        train_tokenizer(TokenizerSettings(), [part], tmp_path / "output", SilentProgress())
    with pytest.raises(StorageError, match=r"missing/documents\.parquet"):
        train_tokenizer(TokenizerSettings(), [tmp_path / "missing"], tmp_path / "output", SilentProgress())


def test_little_text_gives_a_smaller_vocabulary_and_says_so(
    write_documents: Callable[[Path, Sequence[tuple[str, str]]], Path], tmp_path: Path
) -> None:
    part = write_documents(tmp_path / "batch", [("train", "few words")])
    (tmp_path / "output").mkdir()
    outcome = train_tokenizer(TokenizerSettings(), [part], tmp_path / "output", SilentProgress())
    (check,) = [check for check in outcome.checks if check.name == "vocabulary_is_full"]
    assert not check.passed
    assert outcome.counts["vocabulary_size"] == check.value == 263


def test_fertility_counts_every_document_once(
    corpus: list[Path], tokenizer_artifact: Path, tokenizer_folder: Path
) -> None:
    table = pq.read_table(tokenizer_artifact / "fertility.parquet").to_pylist()
    reference = load_tokenizer(tokenizer_folder)
    expected: dict[tuple[str | None, ...], list[int]] = {}
    for part in corpus:
        for row in pq.read_table(part / "documents.parquet").to_pylist():
            counts = expected.setdefault((row["language"], row["format"], row["split"]), [0, 0, 0, 0])
            tokens = len(encode_text(reference, row["text"]))
            for place, value in enumerate((1, row["bytes"], len(row["text"].split()), tokens)):
                counts[place] += value
    found = {
        (row["language"], row["format"], row["split"]): [
            row[name] for name in ("documents", "bytes", "words", "tokens")
        ]
        for row in table
    }
    assert found == expected
    assert all(row["bytes_per_token"] == row["bytes"] / row["tokens"] for row in table if row["tokens"])


@pytest.mark.parametrize("beside_a_mistral", [False, True])
def test_transformers_loads_it_and_gives_the_same_ids(
    beside_a_mistral: bool, tokenizer_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    for name, data in files_of(tokenizer_folder).items():
        (tmp_path / name).write_bytes(data)
    if beside_a_mistral:
        config = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "vocab_size": 400}
        (tmp_path / "config.json").write_text(json.dumps(config))
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tokenizer_folder)
    for text in ("def f(x):\n    return 'größe' # 1234", "  a  \n\n b", "don't 東京", "\r\n\t "):
        assert theirs(text)["input_ids"] == encode_text(ours, text)
        assert theirs.decode(theirs(text)["input_ids"]) == text
    assert theirs.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(7))
    assert (theirs.eos_token, theirs.pad_token, theirs.bos_token) == ("<|endoftext|>", "<|endoftext|>", None)
    hostile = theirs("<|end|>", split_special_tokens=True)["input_ids"]
    assert hostile == encode_text(ours, "<|end|>")
