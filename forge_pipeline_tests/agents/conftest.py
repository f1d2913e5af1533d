"""A small library, its tasks, a tokenizer that can speak about it, and a tiny model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from forge_pipeline.agents.settings import AgentSettings, EpisodeSettings, TaskSettings
from forge_pipeline.agents.tasks import DEMONSTRATIONS_FILE, build_tasks
from forge_pipeline.corpus.tables import CATALOG, CATALOG_SCHEMA, read_table, write_table
from forge_pipeline.models.architecture import ArchitectureSettings, ModelConfig
from forge_pipeline.models.files import new_model
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.reporting import SilentProgress
from forge_pipeline.tokens.chat import load_tokenizer
from forge_pipeline.tokens.settings import TokenizerSettings
from forge_pipeline.tokens.tokenizer import learn, save_tokenizer

CatalogWriter = Callable[[list[dict[str, Any]]], Path]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny products gain nothing from threads, and lose much where other processes want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def entry(name: str, container: str, split: str, **fields: Any) -> dict[str, Any]:
    """One row of a catalog."""
    return {
        "entry_id": hashlib.sha256(f"{container}/{name}".encode()).hexdigest()[:32],
        "name": name,
        "kind": "function",
        "container": container,
        "signature": f"{name}(value)",
        "returns": "",
        "summary": f"About {name}.",
        "doc_id": hashlib.sha256(container.encode()).hexdigest()[:32],
        "split": split,
        "source": "here",
        "start": 0,
        "end": 1,
    } | fields


def code_library(modules: int = 60) -> list[dict[str, Any]]:
    """Modules with four functions each, every tenth held out; some names stand in two modules."""
    rows = []
    for number in range(modules):
        split = "test" if number % 10 == 3 else "validation" if number % 10 == 6 else "train"
        container = f"package.module{number:03}"
        for place in range(4):
            name = f"function_{number}_{place}"
            signature = f"{name}(argument{number}{place}, other=1)"
            rows.append(
                entry(name, container, split, signature=signature, returns=f"Result{number}{place}", start=place * 10)
            )
        if number % 10 != 3 and (number + 10) % 10 == number % 10:
            rows.append(entry(f"shared_{number // 20}_{number % 10}", container, split, start=90))
    return rows


def prose_library(documents: int = 40) -> list[dict[str, Any]]:
    """Documents with titled sections and nothing else; every document has an introduction."""
    rows = []
    for number in range(documents):
        split = "test" if number % 8 == 3 else "train"
        for place, title in enumerate(("Introduction", f"Topic {number} basics", f"Topic {number} in depth")):
            fields = {"kind": "section", "signature": "", "start": place * 100}
            rows.append(entry(title, f"Guide {number}", split, **fields))
    return rows


@pytest.fixture
def write_catalog(tmp_path: Path) -> CatalogWriter:
    def write(rows: list[dict[str, Any]]) -> Path:
        folder = tmp_path / f"training-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        write_table(folder / CATALOG, CATALOG_SCHEMA, rows)
        return folder

    return write


@pytest.fixture(scope="session")
def settings() -> AgentSettings:
    return AgentSettings(
        tasks=TaskSettings(train=200, validation=20, test=60), episode=EpisodeSettings(total_tokens=512, turn_tokens=64)
    )


@pytest.fixture(scope="session")
def tasks_folder(tmp_path_factory: pytest.TempPathFactory, settings: AgentSettings) -> Path:
    """The tasks of the code library."""
    catalog, output = tmp_path_factory.mktemp("training"), tmp_path_factory.mktemp("tasks")
    write_table(catalog / CATALOG, CATALOG_SCHEMA, code_library())
    build_tasks(settings.tasks, [catalog], output, SilentProgress())
    return output


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory, tasks_folder: Path) -> Path:
    """A tokenizer learned from the demonstrations."""
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = read_table(tasks_folder, DEMONSTRATIONS_FILE)["messages"].to_pylist()
    tokenizer = learn(TokenizerSettings(vocabulary_size=480), iter([texts]))
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> Mistral:
    """A random model none of whose parts is the identity."""
    shape = ArchitectureSettings(
        hidden_size=32, layers=2, heads=2, key_value_heads=1, intermediate_size=48, context_length=512
    )
    made = new_model(ModelConfig.build(shape, tokenizer.get_vocab_size()), seed=1)
    generator = np.random.default_rng(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.from_numpy(generator.normal(size=parameter.shape)).float() * 0.1)
    return made


@pytest.fixture
def code_rows() -> list[dict[str, Any]]:
    return code_library()


@pytest.fixture
def prose_rows() -> list[dict[str, Any]]:
    return prose_library()


@pytest.fixture
def make_entry() -> Callable[..., dict[str, Any]]:
    return entry
