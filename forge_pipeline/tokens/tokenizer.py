"""The tokenizer stage: byte-level BPE learned from the training split, in the Hugging Face layout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forge_pipeline.errors import SourceError
from forge_pipeline.reporting import Check, Outcome, Progress
from forge_pipeline.tokens.chat import CHAT_TEMPLATE, TOKENIZER_FILE
from forge_pipeline.tokens.documents import choose, document_batches, total_bytes
from forge_pipeline.tokens.encoding import drawn
from forge_pipeline.tokens.fertility import measure_fertility
from forge_pipeline.tokens.settings import TokenizerSettings
from forge_pipeline.tokens.special_tokens import END_OF_DOCUMENT, SPECIAL_TOKENS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CODE_VERSION = "1"
TOKENIZER_FOLDER = "tokenizer"
# Exactly Qwen2's: llama.cpp knows no pre-tokenizer by its pattern, only by the name of a model that has it.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLIT_PATTERNS = {"single": QWEN2_PATTERN, "up_to_three": QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")}


def train_tokenizer(settings: TokenizerSettings, training: Sequence[Path], output: Path, progress: Progress) -> Outcome:
    """Learn a tokenizer from the train split of ``training`` (training_documents folders, in batch order).

    Fills ``output`` with `tokenizer/` (tokenizer.json, tokenizer_config.json with the chat template,
    special_tokens_map.json) and `fertility.parquet`. Raises SourceError if there is no text to learn from.
    """
    available = total_bytes(training, "train")
    if available == 0:
        raise SourceError(
            "there is no training text to learn a tokenizer from",
            where=", ".join(str(part) for part in training) or "no batch",
            fix="add documents, or look into decisions.parquet for why they were dropped",
        )
    fraction = min(1.0, settings.training_bytes / available)
    used = [0, 0]
    with progress.task("learning the tokenizer", available * fraction, "bytes") as task:

        def texts() -> Iterator[list[str]]:
            for batch in _train_texts(training, fraction):
                size = sum(len(text.encode("utf-8")) for text in batch)
                used[0] += len(batch)
                used[1] += size
                task.advance(size)
                yield batch

        tokenizer = learn(settings, texts())
    if used[1] == 0:
        raise SourceError(
            f"no document was drawn: training_bytes {settings.training_bytes} of {available} bytes is too few",
            fix="raise training_bytes",
        )
    folder = output / TOKENIZER_FOLDER
    folder.mkdir()
    save_tokenizer(tokenizer, folder)
    outcome = measure_fertility(settings, training, folder, output, progress)
    size = tokenizer.get_vocab_size()
    outcome.counts = {
        "vocabulary_size": size,
        "trained_on_documents": used[0],
        "trained_on_bytes": used[1],
        **outcome.counts,
    }
    outcome.checks.append(
        Check(
            "vocabulary_is_full",
            size == settings.vocabulary_size,
            "the text was enough to learn as many tokens as the recipe asks for",
            size,
            settings.vocabulary_size,
        )
    )
    return outcome


def learn(settings: TokenizerSettings, texts: Iterator[list[str]]) -> Tokenizer:
    """BPE over ``texts``; the result depends on the texts alone, not on threads."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERNS[settings.digits]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary_size,
        min_frequency=settings.minimum_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """The files that transformers.AutoTokenizer, vLLM and llama.cpp's converter read."""
    tokenizer.save(str(folder / TOKENIZER_FILE), pretty=False)
    names = {"eos_token": END_OF_DOCUMENT, "pad_token": END_OF_DOCUMENT}
    special = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(token)): {"content": token, **special} for token in SPECIAL_TOKENS
        },
        "additional_special_tokens": [token for token in SPECIAL_TOKENS if token != END_OF_DOCUMENT],
        "bos_token": None,
        "unk_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **names,
    }
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(
        folder / "special_tokens_map.json",
        names | {"additional_special_tokens": config["additional_special_tokens"]},
    )


def _train_texts(training: Sequence[Path], fraction: float) -> Iterator[list[str]]:
    for part in training:
        for rows in document_batches(part, ["doc_id", "split", "text"]):
            learned_from = drawn(rows["doc_id"], fraction) & (np.asarray(rows["split"], dtype=object) == "train")
            yield choose(rows, learned_from.tolist())["text"]


def _write_json(path: Path, body: dict[str, Any]) -> None:
    path.write_text(json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
