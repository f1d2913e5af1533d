"""Texts as sequences of hashed words, and as sets of hashed shingles."""

from __future__ import annotations

import re

import numpy as np
import xxhash
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

WORD = re.compile(r"\w+")
# Chinese, Japanese, Thai, Lao, Tibetan, Burmese, Khmer: a run of them is no word but a sentence.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003134f]"
)
_UNSPACED_SHARE = 0.3
# An odd multiplier makes each step of the polynomial a bijection modulo 2^64.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SPREAD = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53), np.uint64(33))
# Words that were hashed before; emptied when it holds this many.
_MOST_WORDS = 500_000
_known_words: dict[str, int] = {}


def word_hashes(text: str) -> Hashes:
    """xxh3-64 of each match of WORD (letters, digits and _) in lower case, in order: (words,) uint64."""
    if len(_known_words) > _MOST_WORDS:
        _known_words.clear()
    words = WORD.findall(text)
    known = _known_words
    # Each word is lowered by itself: the lower case of some letters is longer, and places must agree.
    for word in set(words).difference(known):
        known[word] = xxhash.xxh3_64_intdigest(word.lower().encode("utf-8", "surrogatepass"))
    return np.fromiter(map(known.__getitem__, words), dtype=np.uint64, count=len(words))


def ngram_hashes(hashes: Hashes, length: int) -> Hashes:
    """One hash for every ``length`` consecutive elements: (n - length + 1,) uint64; none if there are fewer.

    A polynomial in the elements, then the finalizer of MurmurHash3, so that every bit depends on every element.
    """
    count = len(hashes) - length + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    combined = np.zeros(count, dtype=np.uint64)
    for offset in range(length):
        combined = combined * _MULTIPLIER + hashes[offset : offset + count]
    first, second, shift = _SPREAD
    combined = (combined ^ (combined >> shift)) * first
    combined = (combined ^ (combined >> shift)) * second
    mixed: Hashes = combined ^ (combined >> shift)
    return mixed


def shingle_hashes(text: str, words: int, characters: int) -> NDArray[np.uint32]:
    """Hashes of the text's shingles: of ``words`` words, or of ``characters`` characters in scripts without spaces.

    A shorter text is one shingle. Repeated shingles are repeated.
    """
    if _is_unspaced(text):
        units, length = character_hashes(text), characters
    else:
        units, length = word_hashes(text), words
        if not len(units):
            # Nothing but punctuation.
            units, length = character_hashes(text), characters
    hashes = ngram_hashes(units, max(1, min(length, len(units))))
    return (hashes >> np.uint64(32)).astype(np.uint32)


def character_hashes(text: str) -> Hashes:
    """The code points of the text without white space, as (characters,) uint64."""
    points = np.frombuffer("".join(text.lower().split()).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return points.astype(np.uint64)


def _is_unspaced(text: str) -> bool:
    if text.isascii():
        return False
    letters = sum(map(len, WORD.findall(text)))
    return len(_UNSPACED.findall(text)) > _UNSPACED_SHARE * letters
