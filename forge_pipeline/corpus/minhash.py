"""MinHash signatures (Broder 1997) by datasketch's "affine32" scheme, many shingles at a time, and LSH bands.

The signature of a set of 32-bit hashes is equal, bit by bit, to that of `datasketch.MinHash` with the same number of
permutations and seed: the permutations are taken from it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Signature = NDArray[np.uint32]

# Shingles permuted at once: with 112 permutations the block stays in the second-level cache.
_BLOCK = 1024


def permutations(count: int, seed: int) -> tuple[Signature, Signature]:
    """Factors and summands of datasketch's permutations, each (count,) uint32."""
    # Imported here: datasketch takes a second, and workers are given the numbers.
    from datasketch import MinHash

    factors, summands = MinHash(num_perm=count, seed=seed, scheme="affine32").permutations
    return np.asarray(factors, dtype=np.uint32), np.asarray(summands, dtype=np.uint32)


def signature(hashes: NDArray[np.uint32], factors: Signature, summands: Signature) -> Signature:
    """The least value of each permutation over ``hashes``: (permutations,) uint32, all ones for no hashes."""
    least = np.full(len(factors), np.iinfo(np.uint32).max, dtype=np.uint32)
    mixed = _mix(np.unique(hashes))
    for start in range(0, len(mixed), _BLOCK):
        block = mixed[start : start + _BLOCK]
        np.minimum(least, (factors[:, None] * block[None, :] + summands[:, None]).min(axis=1), out=least)
    return least


def _mix(hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The 32-bit finalizer of MurmurHash3."""
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    mixed: NDArray[np.uint32] = hashes ^ (hashes >> np.uint32(16))
    return mixed


def band_keys(signatures: NDArray[np.uint32], bands: int) -> NDArray[np.uint64]:
    """One key for each band of each signature: (documents, permutations) uint32 to (documents, bands) uint64.

    Two documents with equal values in a band have equal keys; the reverse holds but for 64-bit collisions, which
    cost a comparison and decide nothing.
    """
    documents, count = signatures.shape
    rows = signatures.reshape(documents, bands, count // bands).astype(np.uint64)
    keys = np.zeros((documents, bands), dtype=np.uint64)
    for row in range(rows.shape[2]):
        keys = (keys ^ (keys >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + rows[:, :, row]
    return keys


def in_collision(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which documents share a band's key with another: (documents,) bool."""
    found = np.zeros(len(keys), dtype=bool)
    for band in range(keys.shape[1]):
        order = np.argsort(keys[:, band], kind="stable")
        same = keys[order[1:], band] == keys[order[:-1], band]
        found[order[1:][same]] = True
        found[order[:-1][same]] = True
    return found
