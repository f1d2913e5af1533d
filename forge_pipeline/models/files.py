"""Models on disk: safetensors in the Hugging Face layout, which transformers loads unchanged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from forge_pipeline.errors import StorageError
from forge_pipeline.models.architecture import CONFIG_FILE, ModelConfig
from forge_pipeline.models.initialisation import initialise
from forge_pipeline.models.mistral import Mistral

WEIGHTS_FILE = "model.safetensors"


def new_model(config: ModelConfig, seed: int) -> Mistral:
    """A model with random weights, float32."""
    model = Mistral(config)
    initialise(model, seed)
    return model


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> Mistral:
    """The model stored in ``folder``. Raises StorageError if a tensor is missing, surplus or misshapen."""
    model = Mistral(ModelConfig.read(folder))
    path = folder / WEIGHTS_FILE
    if not path.exists():
        raise StorageError("the model's weights are missing", where=str(path), fix="run the stage that made it again")
    weights = load_file(path)
    if model.config.tie_embeddings:
        weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise StorageError(f"the weights do not fit {CONFIG_FILE}: {error}", where=str(path)) from error
    return model.to(dtype)


def save_model(model: Mistral, folder: Path, tokenizer_folder: Path) -> None:
    """Write weights (float32), configuration and tokenizer into ``folder``, which is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().float().contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_embeddings:
        # safetensors refuses shared storage, and Hugging Face re-ties on loading.
        del weights["lm_head.weight"]
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    for path in sorted(tokenizer_folder.iterdir()):
        shutil.copyfile(path, folder / path.name)
    end_token = _token_ids(tokenizer_folder)
    config = model.config.to_hugging_face() | {"bos_token_id": None, "eos_token_id": end_token["<|endoftext|>"]}
    _write_json(folder / CONFIG_FILE, config)
    _write_json(
        folder / "generation_config.json",
        {
            # A chat turn ends with <|end|>, a document with <|endoftext|>: generation stops at either.
            "eos_token_id": [end_token["<|end|>"], end_token["<|endoftext|>"]],
            "pad_token_id": end_token["<|endoftext|>"],
            "do_sample": False,
        },
    )


def _token_ids(tokenizer_folder: Path) -> dict[str, int]:
    body = json.loads((tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"))
    return {token["content"]: token["id"] for token in body["added_tokens"]}


def _write_json(path: Path, body: object) -> None:
    path.write_text(json.dumps(body, indent=1, sort_keys=True) + "\n", encoding="utf-8")
