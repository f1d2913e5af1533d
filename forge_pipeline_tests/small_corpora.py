"""Small corpora, a tokenizer learned from one of them, and a small model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from forge_pipeline.corpus.tables import CATALOG, CATALOG_SCHEMA, DOCUMENTS, TRAINING_SCHEMA, write_table
from forge_pipeline.models.architecture import ArchitectureSettings, ModelConfig
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.tokens.settings import TokenizerSettings
from forge_pipeline.tokens.tokenizer import learn, save_tokenizer

VERBS = ("open", "close", "read", "write", "split", "join", "find", "count", "merge", "sort", "copy", "drop")
NOUNS = ("file", "stream", "header", "packet", "table", "socket", "buffer", "record", "window", "branch", "token")
DEFAULTS = ("None", "0", "1", "'utf-8'", "True", "b''", "(1, 2)")

WriteCorpus = Callable[..., Path]


def split_of(number: int) -> str:
    return {0: "test", 1: "validation"}.get(number % 8, "train")


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def code_entries(modules: int) -> list[dict[str, Any]]:
    """Functions with parameters, defaults and a sentence each, eleven a module."""
    rows = []
    for module in range(modules):
        for place, noun in enumerate(NOUNS):
            number = module * len(NOUNS) + place
            verb = VERBS[number % len(VERBS)]
            name = f"{verb}_{noun}_{module}"
            default, other = DEFAULTS[number % len(DEFAULTS)], DEFAULTS[(number + 3) % len(DEFAULTS)]
            rows.append(
                {
                    "entry_id": digest("code", number),
                    "name": name,
                    "kind": "function",
                    "container": f"package.module_{module}",
                    "signature": f"{name}({noun}, {verb}_size={default}, *, mode_{place}={other})",
                    "returns": f"list[{noun.title()}]" if number % 3 else "",
                    "summary": f"{verb.title()} the {noun} number {number} of a package and tell how far it came.",
                    "doc_id": digest("document", module),
                    "split": split_of(module),
                    "source": "code",
                    "start": 0,
                    "end": 0,
                }
            )
    return rows


def prose_document(number: int) -> tuple[str, list[tuple[str, int, int]]]:
    """A text with six titled sections, and each one's title, start and end."""
    text, places = "", []
    for section in range(6):
        word = NOUNS[(number + section) % len(NOUNS)]
        title = f"{VERBS[(number * 5 + section) % len(VERBS)].title()}ing {word}s, part {number * 6 + section}"
        start = len(text)
        # No two sections may share a run of words, or the held-out ones would rule out the others.
        varied = [VERBS[int(digest(number, section, place), 16) % len(VERBS)] for place in range(12)]
        text += f"## {title}\n\nRule {number * 6 + section} of the {word} is short. "
        text += f"It says: {' '.join(varied[:6])} {word} {' '.join(varied[6:])} once in month {section + 1}.\n\n"
        places.append((title, start, len(text)))
    return text, places


def document_row(doc_id: str, split: str, text: str) -> dict[str, Any]:
    row = dict.fromkeys(TRAINING_SCHEMA.names, "") | {"doc_id": doc_id, "split": split, "text": text}
    sizes = {"bytes": len(text.encode()), "language_confidence": 1.0}
    return row | {"source": "made", "path": f"{doc_id}.txt", "format": "text", "language": "en"} | sizes


@pytest.fixture
def write_corpus(tmp_path: Path) -> WriteCorpus:
    """`write_corpus(modules=.., prose=.., extra=[rows])`: the folder of one batch of training documents."""

    def write(modules: int = 40, prose: int = 0, extra: Sequence[dict[str, Any]] = (), name: str = "training") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        catalog = [*code_entries(modules), *extra]
        texts: dict[str, tuple[str, str]] = {}
        for row in catalog:
            _, before = texts.get(row["doc_id"], ("", ""))
            texts[row["doc_id"]] = row["split"], f'{before}def {row["signature"]}:\n    """{row["summary"]}"""\n\n'
        for number in range(prose):
            text, places = prose_document(number)
            doc_id = digest("prose", number)
            texts[doc_id] = (split_of(number), text)
            for title, start, end in places:
                catalog.append(
                    {
                        "entry_id": digest("section", title),
                        "name": title,
                        "kind": "section",
                        "container": f"Handbook {number}",
                        "signature": "",
                        "returns": "",
                        "summary": text[start:end].split("\n\n")[1].split(". ")[0] + ".",
                        "doc_id": doc_id,
                        "split": split_of(number),
                        "source": "prose",
                        "start": start,
                        "end": end,
                    }
                )
        write_table(folder / CATALOG, CATALOG_SCHEMA, catalog)
        documents = [document_row(doc_id, split, text) for doc_id, (split, text) in texts.items()]
        write_table(folder / DOCUMENTS, TRAINING_SCHEMA, documents)
        return folder

    return write


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are slowed down by a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a tokenizer of 400 tokens."""
    artifact = tmp_path_factory.mktemp("tokenizer")
    (artifact / "tokenizer").mkdir()
    texts = [row["summary"] + row["signature"] for row in code_entries(8)]
    save_tokenizer(learn(TokenizerSettings(vocabulary_size=400), iter([texts])), artifact / "tokenizer")
    return artifact


@pytest.fixture
def model(context_length: int) -> Mistral:
    """A small model whose every weight matters."""
    settings = ArchitectureSettings(
        hidden_size=32,
        layers=2,
        heads=2,
        key_value_heads=1,
        intermediate_size=48,
        context_length=context_length,
    )
    made = Mistral(ModelConfig.build(settings, 400))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1 + (parameter.ndim == 1))
    return made
