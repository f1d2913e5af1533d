"""The package: a model folder that transformers, vLLM and llama.cpp's converter read unchanged, with its card.

Layout of the artifact::

    model/        config.json, *.safetensors, generation_config.json, tokenizer files, README.md, SHA256SUMS
    package.json  digest of the package and its figures
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from forge_pipeline.errors import StorageError
from forge_pipeline.release.decision import read_decision
from forge_pipeline.release.facts import LineageFacts
from forge_pipeline.release.manifest import MANIFEST_FILE, write_manifest
from forge_pipeline.release.model_card import Weights, write_model_card
from forge_pipeline.release.results import read_evaluations
from forge_pipeline.release.settings import ReleaseSettings
from forge_pipeline.release.weights import Tensor, read_header, refuse_numbers_that_are_not_finite
from forge_pipeline.reporting import Check, Outcome, Progress, Scalar, Table

CODE_VERSION = "1"
MODEL_FOLDER = "model"
PACKAGE_FILE = "package.json"
CARD_FILE = "README.md"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
TEMPLATE_FILE = "chat_template.jinja"
REQUIRED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
# Nothing else is shipped: no optimizer state, no samples, no pickled file.
OPTIONAL = (TEMPLATE_FILE, "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", WEIGHTS_INDEX)
FIX = "run the training stage that wrote it again"


def package_model(
    settings: ReleaseSettings,
    model: Path,
    decision: Path,
    facts: LineageFacts,
    output: Path,
    progress: Progress,
) -> Outcome:
    """Copy the model of the artifact ``model`` (its `model/`) into a package, with a card and a list of digests.

    ``decision`` is the release_decision artifact, which also holds the evaluations that the card shows.
    Raises StorageError if a file is missing, a safetensors file is not whole, a weight is not finite, the
    embedding does not fit config.json, or there is no chat template.
    """
    source = model / MODEL_FOLDER
    gate = read_decision(decision)
    weights_files = _weights_files(source)
    with progress.task("checking weights", total=len(weights_files), unit="files") as task:
        tensors = []
        for path in weights_files:
            header = read_header(path)
            refuse_numbers_that_are_not_finite(path, header)
            tensors += header
            task.advance()
    config = _read_json(source / "config.json")
    weights = _weights(config, tensors, source)
    _refuse_missing_chat_parts(source)
    target = output / MODEL_FOLDER
    target.mkdir()
    shipped = [source / name for name in (*REQUIRED, *OPTIONAL) if (source / name).is_file()] + weights_files
    for path in shipped:
        shutil.copyfile(path, target / path.name)
    left_out = sorted(path.name for path in source.iterdir() if path not in shipped)
    if left_out:
        progress.note(f"left out of the package: {', '.join(left_out)}")
    evaluations = read_evaluations(decision)
    card = write_model_card(settings, facts, gate, evaluations, weights)
    (target / CARD_FILE).write_text(card, encoding="utf-8")
    digest = write_manifest(target)
    _write_package_file(output / PACKAGE_FILE, digest, settings, gate, weights)
    return _outcome(target, digest, gate, weights)


def read_package(package: Path) -> dict[str, Any]:
    """The body of `package.json`."""
    return _read_json(package / PACKAGE_FILE)


def _weights_files(source: Path) -> list[Path]:
    index = source / WEIGHTS_INDEX
    names = sorted(set(_read_json(index)["weight_map"].values())) if index.is_file() else [WEIGHTS_FILE]
    for name in [*REQUIRED, *names]:
        # An index is read from the model: it may not point out of the folder.
        if Path(name).name != name or not (source / name).is_file():
            raise StorageError("the model lacks a file of the Hugging Face layout", where=str(source / name), fix=FIX)
    return [source / name for name in names]


def _weights(config: dict[str, Any], tensors: list[Tensor], source: Path) -> Weights:
    names = Counter(tensor.name for tensor in tensors)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise StorageError(f"the tensor {twice[0]!r} is there twice", where=str(source), fix=FIX)
    embedding = next((tensor for tensor in tensors if tensor.name == "model.embed_tokens.weight"), None)
    expected = (config.get("vocab_size"), config.get("hidden_size"))
    if embedding is None or embedding.shape != expected:
        raise StorageError(
            f"config.json asks for an embedding of {expected}, the weights hold "
            f"{'none' if embedding is None else embedding.shape}",
            where=str(source / "config.json"),
            fix=FIX,
        )
    return Weights(
        architecture=str((config.get("architectures") or [config.get("model_type")])[0]),
        parameters=sum(tensor.values for tensor in tensors),
        dtypes=tuple(sorted({tensor.dtype for tensor in tensors})),
        bytes=sum(tensor.end - tensor.start for tensor in tensors),
        tensors=len(tensors),
        vocabulary_size=int(config["vocab_size"]),
        context_length=config.get("max_position_embeddings"),
    )


def _refuse_missing_chat_parts(source: Path) -> None:
    tokenizer = _read_json(source / "tokenizer_config.json")
    if not tokenizer.get("chat_template") and not (source / TEMPLATE_FILE).is_file():
        raise StorageError(
            "the tokenizer has no chat template", where=str(source / "tokenizer_config.json"), fix="run tokenizer again"
        )
    if _read_json(source / "generation_config.json").get("eos_token_id") is None:
        raise StorageError(
            "nothing says which token ends an answer (eos_token_id)",
            where=str(source / "generation_config.json"),
            fix=FIX,
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path.name}: {error}", where=str(path), fix=FIX) from error
    if not isinstance(body, dict):
        raise StorageError(f"{path.name} is not a JSON object", where=str(path), fix=FIX)
    return body


def _write_package_file(
    path: Path, digest: str, settings: ReleaseSettings, gate: dict[str, Any], weights: Weights
) -> None:
    body = {
        "digest": digest,
        "registered_model": settings.registered_model,
        "stage": gate["released_stage"],
        "passed": gate["passed"],
        "parameters": weights.parameters,
        "dtypes": list(weights.dtypes),
        "bytes": weights.bytes,
    }
    path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def _outcome(target: Path, digest: str, gate: dict[str, Any], weights: Weights) -> Outcome:
    rows: list[dict[str, Scalar]] = []
    for line in (target / MANIFEST_FILE).read_text(encoding="utf-8").splitlines():
        name = line[66:]
        rows.append({"file": name, "bytes": (target / name).stat().st_size, "sha256": line[:64]})
    return Outcome(
        counts={
            "parameters": weights.parameters,
            "weight_bytes": weights.bytes,
            "tensors": weights.tensors,
            "files": len(rows),
            "package_digest": digest,
            "released_stage": gate["released_stage"],
        },
        checks=[
            Check("weights_are_whole_and_finite", True, "every tensor has its bytes and no NaN or infinity"),
            Check("chat_template_is_present", True, "the tokenizer has a chat template"),
        ],
        tables=[Table.of("Files of the package", rows[:30])],
    )
