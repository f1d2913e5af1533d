"""The model is Mistral as transformers knows it, and packed documents cannot see each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from forge_pipeline.errors import StorageError
from forge_pipeline.models.architecture import ArchitectureSettings, ModelConfig
from forge_pipeline.models.files import load_model, new_model, save_model

SETTINGS = ArchitectureSettings(
    hidden_size=64, layers=3, heads=4, key_value_heads=2, intermediate_size=96, context_length=64
)


def scrambled(tie: bool = True) -> torch.nn.Module:
    """A model none of whose parts is the identity."""
    config = ModelConfig.build(SETTINGS.model_copy(update={"tie_embeddings": tie}), vocabulary_size=128)
    model = new_model(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    tokens = [{"content": "<|endoftext|>", "id": 0}, {"content": "<|end|>", "id": 6}]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    return folder


@pytest.mark.parametrize("tie", [True, False])
def test_transformers_loads_a_saved_model_and_computes_the_same_logits(
    tie: bool, tmp_path: Path, tokenizer_folder: Path
) -> None:
    from transformers import MistralForCausalLM

    model = scrambled(tie)
    save_model(model, tmp_path / "model", tokenizer_folder)
    theirs, report = MistralForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    token_ids = torch.randint(0, 128, (3, 40), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(model(token_ids), theirs(token_ids).logits, atol=1e-5, rtol=1e-4)


def test_a_loaded_model_equals_the_saved_one(tmp_path: Path, tokenizer_folder: Path) -> None:
    model = scrambled()
    save_model(model, tmp_path / "model", tokenizer_folder)
    loaded = load_model(tmp_path / "model")
    for (name, before), (_, after) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(before, after), name


def test_packed_documents_cannot_see_each_other() -> None:
    model = scrambled()
    generator = torch.Generator().manual_seed(4)
    first, second = (torch.randint(0, 128, (1, 20), generator=generator) for _ in range(2))
    positions = torch.cat([torch.arange(20), torch.arange(20)])[None]
    with torch.no_grad():
        packed = model(torch.cat([first, second], 1), positions)
        alone = model(second)
        disturbed = model(torch.cat([(first + 1) % 128, second], 1), positions)
    assert torch.equal(packed[:, 20:], disturbed[:, 20:])
    torch.testing.assert_close(packed[:, 20:], alone, atol=1e-5, rtol=1e-4)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    token_ids = torch.randint(0, 128, (2, 16), generator=torch.Generator().manual_seed(5))
    gradients = []
    for checkpointing in (False, True):
        model = scrambled()
        model.gradient_checkpointing = checkpointing
        model(token_ids).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_the_parameter_count_is_the_formula() -> None:
    for tie in (True, False):
        model = scrambled(tie)
        assert model.config.parameters() == sum(parameter.numel() for parameter in model.parameters())


def test_initialisation_is_a_function_of_the_seed() -> None:
    config = ModelConfig.build(SETTINGS, vocabulary_size=128)
    first, again, other = (new_model(config, seed).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_weights_that_do_not_fit_are_refused_with_the_file_named(tmp_path: Path, tokenizer_folder: Path) -> None:
    save_model(scrambled(), tmp_path / "model", tokenizer_folder)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"hidden_size": 128, "head_dim": 32}))
    with pytest.raises(StorageError, match=r"model\.safetensors"):
        load_model(tmp_path / "model")
