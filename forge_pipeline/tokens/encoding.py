"""Documents to token ids, fast, and checked against the reference.

gigatoken encodes some thirty times faster than `tokenizers`. Every run decodes what it encoded and compares it with
the documents, and encodes a sample a second time with `tokenizers`: ids that differ stop the stage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forge_pipeline.errors import StorageError
from forge_pipeline.tokens.chat import TOKENIZER_FILE, load_tokenizer, special_ids
from forge_pipeline.tokens.special_tokens import END_OF_DOCUMENT


@dataclass(frozen=True)
class EncodedDocuments:
    """``ids`` uint32 (N,): document i lies at ``offsets[i] : offsets[i + 1]`` (int64, documents + 1)."""

    ids: NDArray[np.uint32]
    offsets: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def document(self, index: int) -> NDArray[np.uint32]:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]


class DocumentEncoder:
    """Encodes documents; special tokens that stand in a document are ordinary text."""

    def __init__(self, tokenizer_folder: Path) -> None:
        from gigatoken import Tokenizer
        from gigatoken.gigatoken_rs import load_hf_json

        self._path = tokenizer_folder / TOKENIZER_FILE
        self._reference = load_tokenizer(tokenizer_folder)
        data = self._path.read_bytes()
        self.tokenizer_sha256 = hashlib.sha256(data).hexdigest()
        body = json.loads(data)
        # gigatoken finds added tokens in any text. Without them it knows only the bytes and their merges, and the
        # split pattern cuts "<|end|>" so that no merge leads to a special token.
        body["added_tokens"] = []
        self._fast = Tokenizer(load_hf_json(json.dumps(body)))
        self.vocabulary_size: int = self._reference.get_vocab_size()
        self.end_token_id = special_ids(self._reference)[END_OF_DOCUMENT]

    def encode(self, texts: Sequence[str]) -> EncodedDocuments:
        """Ids of each text. Raises StorageError if they do not decode to exactly the texts' bytes."""
        if not texts:
            return EncodedDocuments(np.zeros(0, np.uint32), np.zeros(1, np.int64))
        layout = self._fast.encode_batch(list(texts)).layout.to_ListOffsetArray64(True)
        encoded = EncodedDocuments(
            np.asarray(layout.content.data, dtype=np.uint32), np.asarray(layout.offsets.data, dtype=np.int64)
        )
        if self._fast.decode(encoded.ids) != "".join(texts).encode("utf-8"):
            wrong = next(
                index
                for index, text in enumerate(texts)
                if self._fast.decode(encoded.document(index)) != text.encode("utf-8")
            )
            raise StorageError(
                f"document {wrong} of {len(texts)} does not decode to its own text",
                where=str(self._path),
                fix="report the text with the versions of gigatoken and tokenizers",
            )
        return encoded

    def verify(self, texts: Sequence[str], encoded: EncodedDocuments, sample: Sequence[int]) -> None:
        """Encode the documents numbered in ``sample`` with `tokenizers` too. Raises StorageError if ids differ."""
        for index in sample:
            expected = self._reference.encode(texts[index], add_special_tokens=False).ids
            if encoded.document(index).tolist() != expected:
                raise StorageError(
                    f"gigatoken and tokenizers disagree about a document of {len(texts[index])} characters that "
                    f"begins {texts[index][:40]!r}",
                    where=str(self._path),
                    fix="report the text with the versions of gigatoken and tokenizers",
                )


def drawn(doc_ids: Sequence[str], fraction: float) -> NDArray[np.bool_]:
    """Which documents belong to a sample of about ``fraction`` of all: a function of each doc_id alone."""
    threshold = int(fraction * 2**64)
    return np.fromiter(
        (
            int.from_bytes(hashlib.blake2b(doc_id.encode("utf-8"), digest_size=8).digest()) < threshold
            for doc_id in doc_ids
        ),
        dtype=np.bool_,
        count=len(doc_ids),
    )
