"""A package is whole, loads elsewhere, and its card says only what the data says."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from forge_pipeline.errors import StorageError
from forge_pipeline.release.manifest import verify_manifest
from forge_pipeline.release.package import package_model
from forge_pipeline.release.weights import read_header
from forge_pipeline.reporting import SilentProgress
from forge_pipeline_tests.release.conftest import FACTS, SETTINGS, MakeRelease


def card(package: Path) -> str:
    return (package / "model" / "README.md").read_text(encoding="utf-8")


def test_the_package_holds_the_model_and_nothing_else(make_release: MakeRelease, tiny_model: Path) -> None:
    release = make_release("first")
    packaged = release.package / "model"
    assert {path.name for path in packaged.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "README.md", "SHA256SUMS"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    }
    assert (packaged / "model.safetensors").read_bytes() == (tiny_model / "model" / "model.safetensors").read_bytes()


def test_sha256sum_accepts_the_list_of_files(make_release: MakeRelease) -> None:
    folder = make_release("first").package / "model"
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)


def test_the_same_inputs_make_the_same_package(make_release: MakeRelease) -> None:
    first, second = make_release("first").package, make_release("second").package
    assert verify_manifest(first / "model") == verify_manifest(second / "model")
    assert (first / "package.json").read_bytes() == (second / "package.json").read_bytes()


@pytest.mark.parametrize("change", ["altered", "missing", "added"])
def test_an_altered_package_is_refused_and_the_file_named(make_release: MakeRelease, change: str) -> None:
    folder = make_release("first").package / "model"
    if change == "altered":
        (folder / "config.json").write_bytes((folder / "config.json").read_bytes() + b" ")
    elif change == "missing":
        (folder / "config.json").unlink()
    else:
        (folder / "modeling.py").write_text("print('surprise')")
    name = "modeling.py" if change == "added" else "config.json"
    with pytest.raises(StorageError, match=name):
        verify_manifest(folder)


def test_the_card_states_lineage_evaluation_and_gate(make_release: MakeRelease) -> None:
    text = card(make_release("first").package)
    assert "1,234 documents in 2 batches" in text
    assert "56,789, of which pre-training saw 99,999" in text
    assert "| accuracy | sft\\_model | 0.7 | 0.6 to 0.8 | 100 | questions |" in text
    assert "The release gate passed" in text
    assert "Its owner has stated none." in text
    assert "a" * 64 in text


def test_the_card_of_a_failed_gate_says_so(make_release: MakeRelease) -> None:
    text = card(make_release("first", accuracy=0.3).package)
    assert "The release gate **did not pass**" in text
    assert "The thresholds that its recipe sets for a release are not met." in text


def test_the_cards_front_matter_is_yaml(make_release: MakeRelease) -> None:
    front = card(make_release("first").package).split("---\n")[1]
    assert yaml.safe_load(front)["library_name"] == "transformers"


def test_text_from_documents_is_no_markup_in_the_card(make_release: MakeRelease) -> None:
    text = card(make_release("first").package)
    assert "<script>" not in text
    assert "lib \\| \\<script\\>alert(1)\\</script\\>" in text


Spoil = Callable[[Path], Any]


def write_header(path: Path, header: dict[str, Any], data: bytes) -> None:
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def spoil_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = np.full_like(weights["model.norm.weight"], np.nan)
    save_file(weights, folder / "model.safetensors")


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def edit(name: str, **changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        body = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(body | changes))

    return spoil


def overlap(folder: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    write_header(folder / "model.safetensors", {"a": entry, "b": entry}, b"\0" * 8)


def point_outside(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (spoil_weight, "'model.norm.weight' holds a value that is not a finite number"),
        (cut_off, "bytes behind the last tensor|does not fit"),
        (overlap, "does not fit"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 64), "not a safetensors file"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "not a safetensors file"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "lacks a file"),
        (point_outside, "lacks a file"),
        (edit("config.json", vocab_size=301), "asks for an embedding of"),
        (edit("tokenizer_config.json", chat_template=""), "no chat template"),
        (edit("generation_config.json", eos_token_id=None), "eos_token_id"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot read config.json"),
    ],
    ids=["nan", "cut_off", "overlap", "no_header", "empty", "no_tokenizer", "outside", "shape", "chat", "end", "json"],
)
def test_a_spoiled_model_is_not_packaged(make_release: MakeRelease, tmp_path: Path, spoil: Spoil, problem: str) -> None:
    release = make_release("first")
    spoiled = tmp_path / "spoiled"
    shutil.copytree(release.model, spoiled)
    spoil(spoiled / "model")
    (tmp_path / "output").mkdir()
    with pytest.raises(StorageError, match=problem):
        package_model(SETTINGS, spoiled, release.decision, FACTS, tmp_path / "output", SilentProgress())


def test_headers_are_read_as_safetensors_itself_reads_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    arrays = {f"t{size}": rng.standard_normal((size, 3)).astype(np.float16) for size in (0, 1, 5)}
    arrays["scalar"] = np.array(2.0)
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "np"})
    tensors = {tensor.name: tensor for tensor in read_header(tmp_path / "x.safetensors")}
    data = (tmp_path / "x.safetensors").read_bytes()
    assert set(tensors) == set(arrays)
    for name, array in arrays.items():
        assert tensors[name].shape == array.shape
        assert data[tensors[name].start : tensors[name].end] == array.tobytes()
