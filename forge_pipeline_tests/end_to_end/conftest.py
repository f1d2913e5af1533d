"""A small project: a folder of mixed documents, and a recipe that takes them through every stage in minutes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

RECIPE = """\
type: forge_pipeline.components.CorpusComponent
attributes:
  landing:
    settle_seconds: 0
    sources:
      - name: office
        location: {documents}
        licence: proprietary
        owner: the clerk
      - name: landing
        location: {landing}
  splitting: {{train: 0.7, validation: 0.1, test: 0.2}}
  tokenizer: {{vocabulary_size: 1024}}
---
type: forge_pipeline.components.ModelComponent
attributes:
  corpus: clerk
  architecture:
    {{hidden_size: 64, layers: 2, heads: 4, key_value_heads: 2, intermediate_size: 128, context_length: 256}}
  pretraining:
    sequence_length: 64
    sequences_per_step: 8
    validation_tokens: 2000
    engine: {{steps: {steps}, micro_batch: 8, checkpoint_every: 10, evaluate_every: 20}}
  supervised:
    examples: {{maximum_per_kind: 40, demonstrations: 40, held_out_questions: 30}}
    training:
      engine: {{steps: 6, micro_batch: 8, checkpoint_every: 3, evaluate_every: 6}}
  preferences:
    pairs: {{maximum_per_kind: 40, held_out_pairs: 30}}
    training:
      engine:
        {{steps: 3, checkpoint_every: 3, evaluate_every: 3, optimizer: {{kind: adamw, learning_rate: 0.0001}}}}
  agent:
    settings:
      tasks: {{train: 400, validation: 8, test: 120}}
      audit: {{tasks: 200}}
      policy: {{group_size: 2, tasks_per_step: 4, sampled_steps: 2}}
      evaluation: {{tasks: 12, samples: 2}}
    engine: {{steps: 2, micro_batch: 8, checkpoint_every: 1, optimizer: {{kind: adamw, learning_rate: 0.0001}}}}
  evaluation:
    bits_per_byte: {{maximum_tokens: 4000}}
    questions: {{maximum: 20}}
  release:
    registered_model: clerk
    thresholds:
      - {{metric: bits_per_byte, stage: base_model, at_most: {threshold}}}
"""


@dataclass
class Project:
    """Folders of the project, and `forge` run in it."""

    root: Path
    environment: dict[str, str]
    steps: int = 30
    threshold: float = 9.0

    @property
    def documents(self) -> Path:
        return self.root / "my documents"

    @property
    def landing(self) -> Path:
        return self.root / "landing"

    def write_recipe(self) -> None:
        folder = self.root / "recipes" / "clerk"
        folder.mkdir(parents=True, exist_ok=True)
        text = RECIPE.format(documents=self.documents, landing=self.landing, steps=self.steps, threshold=self.threshold)
        (folder / "defs.yaml").write_text(text)

    def forge(
        self, *arguments: str, expect: int = 0, timeout: float = 600, inside: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """``inside`` is a command that runs the one that follows it."""
        done = subprocess.run(
            [*inside, sys.executable, "-P", "-m", "forge_pipeline.cli.main", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.root,
            env=self.environment,
        )
        assert done.returncode == expect, done.stderr[-3000:]
        return done

    def json(self, *arguments: str, expect: int = 0, inside: Sequence[str] = ()) -> Any:
        return json.loads(self.forge(*arguments, "--json", expect=expect, inside=inside).stdout)


@pytest.fixture(scope="session")
def clerk(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project before anything ran."""
    return new_project(tmp_path_factory.mktemp("a project"))


def new_project(root: Path) -> Project:
    environment = dict(os.environ) | {"FORGE_HOME": str(root / "home"), "FORGE_RECIPES": str(root / "recipes")}
    project = Project(root, environment)
    project.landing.mkdir()
    fill(project.documents)
    project.write_recipe()
    return project


def fill(folder: Path) -> None:
    """Real documents of each kind: code, text, Markdown, HTML, JSON, JSON lines, PDF, and one that cannot be read."""
    from matplotlib.figure import Figure

    library = Path(sysconfig.get_path("stdlib"))
    (folder / "code").mkdir(parents=True)
    modules = sorted(library.glob("*.py"))[:90]
    for path in modules:
        shutil.copyfile(path, folder / "code" / path.name)
    shutil.copyfile(library / "json" / "decoder.py", folder / "code" / "copy_of_decoder.py")
    shutil.copyfile(library / "json" / "decoder.py", folder / "code" / "decoder.py")
    (folder / "licence.txt").write_text(
        (library / "LICENSE.txt").read_text() if (library / "LICENSE.txt").exists() else ""
    )
    sections = "\n\n".join(
        f"## Procedure {number}\n\nThe clerk opens file {number}, reads its pages with care and signs the last one."
        for number in range(30)
    )
    (folder / "handbook.md").write_text(f"# Handbook of the office\n\n{sections}\n")
    body = "".join(
        f"<h2>Rule {n}</h2><p>Rule {n} says that the office answers every letter in {n} days.</p>" for n in range(20)
    )
    (folder / "rules.html").write_text(
        f"<html><head><title>Rules</title></head><body><h1>Rules</h1>{body}</body></html>"
    )
    letters = [
        {"id": n, "text": f"Letter {n}: we ask the office to send us the file about case {n * 7}."} for n in range(30)
    ]
    (folder / "letters.jsonl").write_text("\n".join(json.dumps(letter) for letter in letters))
    (folder / "notes.json").write_text(json.dumps({"title": "Notes", "text": "The office closes at five. " * 8}))
    page = Figure()
    page.text(0.1, 0.5, "Statute of the office.\nIt serves whoever writes to it,\nin the order of the letters.")
    page.savefig(folder / "statute.pdf")
    (folder / "scan.bin").write_bytes(bytes(range(256)) * 20)
