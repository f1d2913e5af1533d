"""Signatures are datasketch's, and keeping the first seen is a fold over the documents."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from forge_pipeline.corpus import tables
from forge_pipeline.corpus.deduplication import Index, deduplicate, find_matches
from forge_pipeline.corpus.minhash import band_keys, in_collision, permutations, signature
from forge_pipeline.corpus.settings import DeduplicationSettings, SplittingSettings
from forge_pipeline.corpus.shingles import shingle_hashes, word_hashes
from forge_pipeline.corpus.splitting import split_documents
from forge_pipeline.errors import StorageError
from forge_pipeline.reporting import SilentProgress

Part = Callable[..., Path]
Output = Callable[[], Path]
SETTINGS = DeduplicationSettings()


def _words(seed: int, count: int = 200) -> list[str]:
    generator = random.Random(seed)
    return [f"word{generator.randrange(10**6)}" for _ in range(count)]


def _variant(words: Sequence[str], changed: int) -> str:
    """The text with its first words changed: of about 200 shingles, that many differ, and a few more."""
    return " ".join([*(f"other{word}" for word in words[:changed]), *words[changed:]])


@given(st.lists(st.integers(0, 2**32 - 1), max_size=3000), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_signatures_equal_those_of_datasketch(hashes: list[int], seed: int) -> None:
    oracle = MinHash(num_perm=112, seed=seed, hashfunc=lambda value: value, scheme="affine32")
    oracle.update_batch(hashes)
    ours = signature(np.array(hashes, dtype=np.uint32), *permutations(112, seed))
    np.testing.assert_array_equal(ours, oracle.hashvalues)


def test_estimated_similarity_is_near_the_true_one() -> None:
    words = _words(0, 400)
    first, second = " ".join(words), _variant(words, 60)
    sets = [set(shingle_hashes(text, 5, 8).tolist()) for text in (first, second)]
    true = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    factors, summands = permutations(1024, 1)
    signatures = [signature(shingle_hashes(text, 5, 8), factors, summands) for text in (first, second)]
    # Four standard errors of a mean of 1024 draws.
    assert abs((signatures[0] == signatures[1]).mean() - true) < 4 * (true * (1 - true) / 1024) ** 0.5


@given(st.lists(st.lists(st.integers(0, 2), min_size=6, max_size=6), min_size=1, max_size=12))
def test_equal_bands_have_equal_keys_and_others_do_not(values: list[list[int]]) -> None:
    signatures = np.array(values, dtype=np.uint32)
    keys = band_keys(signatures, 3)
    for left in range(len(values)):
        for right in range(len(values)):
            for band in range(3):
                same = values[left][2 * band : 2 * band + 2] == values[right][2 * band : 2 * band + 2]
                assert (keys[left, band] == keys[right, band]) == same
    shares = [
        any((keys[row] == keys[other]).any() for other in range(len(values)) if other != row)
        for row in range(len(values))
    ]
    assert in_collision(keys).tolist() == shares


@given(st.text(min_size=1), st.integers(1, 8), st.integers(1, 8))
def test_any_text_with_something_in_it_has_a_shingle(text: str, words: int, characters: int) -> None:
    assert (len(shingle_hashes(text, words, characters)) > 0) == bool(text.split())


def test_case_does_not_make_another_word() -> None:
    np.testing.assert_array_equal(word_hashes("İstanbul FOO_1, bar"), word_hashes("İSTANBUL foo_1 -- BAR"))


def test_scripts_without_spaces_are_shingled_by_characters() -> None:
    text = "日本語の文章です。これは試験のための文章です。もう一つの文があります。"
    assert len(shingle_hashes(text, 5, 8)) == len(text) - 7


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_matching_in_batches_gives_what_matching_at_once_gives(data: st.DataObject) -> None:
    """Signatures of few values, so that exact, near and chained matches all occur."""
    count = data.draw(st.integers(1, 25))
    rows = st.lists(st.integers(0, 2), min_size=8, max_size=8)
    signatures = np.array(data.draw(st.lists(rows, min_size=count, max_size=count)), dtype=np.uint32)
    digests = [str(data.draw(st.integers(0, 12))) for _ in range(count)]
    cut = data.draw(st.integers(0, count))
    names = [str(row) for row in range(count)]
    whole = find_matches(Index(names, digests, signatures), 0, 4, 0.7)
    first = find_matches(Index(names[:cut], digests[:cut], signatures[:cut]), 0, 4, 0.7)
    kept = [row for row in range(cut) if row not in first]
    order = [*kept, *range(cut, count)]
    second = find_matches(
        Index([names[row] for row in order], [digests[row] for row in order], signatures[order]), len(kept), 4, 0.7
    )
    joined = {row: (match.kind, match.row, match.similarity) for row, match in first.items()}
    joined |= {order[row]: (match.kind, order[match.row], match.similarity) for row, match in second.items()}
    assert joined == {row: (match.kind, match.row, match.similarity) for row, match in whole.items()}
    for row, match in whole.items():
        assert match.row < row
        assert match.row not in whole


def _members(part: Path) -> list[dict[str, object]]:
    return tables.read_table(part, tables.MEMBERSHIP).to_pylist()


def _run(curated: Path, earlier: Sequence[Path], out: Path, workers: int = 1) -> Path:
    deduplicate(SETTINGS, curated, earlier, out, SilentProgress(), workers=workers)
    return out


TEXTS = [
    " ".join(_words(1)),
    " ".join(_words(2)),
    "  ".join(_words(1)) + "\n",
    _variant(_words(2), 6),
    _variant(_words(2), 120),
    " ".join(_words(3)),
    " ".join(_words(2)),
]


def test_the_first_seen_is_kept_and_the_others_name_it(part: Part, output: Output) -> None:
    unique = _run(part(TEXTS), [], output())
    members = _members(unique)
    assert [member["kind"] for member in members] == ["unique", "unique", "exact", "near", "unique", "unique", "exact"]
    assert [member["kept"] for member in members] == [member["kind"] == "unique" for member in members]
    assert members[3]["matched_doc_id"] == members[3]["cluster_id"] == members[1]["doc_id"]
    similarity = members[3]["similarity"]
    assert isinstance(similarity, float)
    assert SETTINGS.threshold <= similarity < 1
    kept = tables.column(tables.read_table(unique, tables.DOCUMENTS), "doc_id")
    assert kept == [member["doc_id"] for member in members if member["kept"]]
    decisions = tables.read_table(unique, tables.DECISIONS).to_pylist()
    assert [(row["rule"], row["action"]) for row in decisions] == [
        ("exact", "drop"),
        ("near", "drop"),
        ("exact", "drop"),
    ]


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_a_batch_cut_in_two_keeps_the_same_documents(cut: int, part: Part, output: Output) -> None:
    rows = [{"text": text, "path": f"{place}.txt"} for place, text in enumerate(TEXTS)]
    whole = _run(part(rows), [], output())
    first = _run(part(rows[:cut]), [], output())
    second = _run(part(rows[cut:]), [first], output())
    assert _members(first) + _members(second) == _members(whole)


def test_the_number_of_workers_changes_no_byte(part: Part, output: Output) -> None:
    curated = part([f"{text} {n}" for n in range(20) for text in TEXTS])
    one, two = _run(curated, [], output(), workers=1), _run(curated, [], output(), workers=2)
    for path in sorted(one.iterdir()):
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_near_duplicates_never_straddle_a_split(part: Part, output: Output) -> None:
    texts = [_variant(_words(seed), changed) for seed in range(40) for changed in (0, 4, 8)]
    unique = _run(part(texts), [], output())
    out = output()
    split_documents(
        SplittingSettings(train=0.5, validation=0.2, test=0.3), unique, [], out, SilentProgress(), workers=1
    )
    clusters = {member["doc_id"]: member["cluster_id"] for member in _members(unique)}
    placed = tables.read_table(out, tables.DOCUMENTS).to_pylist()
    assert len({row["split"] for row in placed}) == 3
    assert len({clusters[row["doc_id"]] for row in placed}) == len(placed)
    assert len({clusters[name] for name in clusters}) == 40


def test_an_index_of_another_width_is_refused(part: Part, output: Output) -> None:
    first = _run(part(TEXTS), [], output())
    with pytest.raises(StorageError, match="signatures of shape"):
        deduplicate(DeduplicationSettings(bands=10), part(TEXTS), [first], output(), SilentProgress(), workers=1)


def test_a_batch_without_documents_passes(part: Part, output: Output) -> None:
    out = output()
    counts = deduplicate(SETTINGS, part([]), [], out, SilentProgress(), workers=1).counts
    assert counts["documents_in"] == counts["documents_kept"] == 0
    assert _members(_run(part(TEXTS[:1]), [out], output()))[0]["kept"]
