"""One document's digest and signature, inside a worker (see `deduplication` for the stage)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from forge_pipeline.corpus.minhash import signature
from forge_pipeline.corpus.shingles import shingle_hashes


def signer(settings: Mapping[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function from {text} to {digest, signature}: hex of SHA-256 and of the signature's little-endian bytes."""
    factors = np.array(settings["factors"], dtype=np.uint32)
    summands = np.array(settings["summands"], dtype=np.uint32)
    words, characters = settings["shingle_words"], settings["shingle_characters"]

    def sign(item: dict[str, Any]) -> dict[str, Any]:
        values = signature(shingle_hashes(item["text"], words, characters), factors, summands)
        return {"digest": exact_digest(item["text"]), "signature": values.astype("<u4").tobytes().hex()}

    return sign


def exact_digest(text: str) -> str:
    """SHA-256 of the text with every run of white space as one space."""
    return hashlib.sha256(" ".join(text.split()).encode("utf-8")).hexdigest()
