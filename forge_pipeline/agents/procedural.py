"""Made-up modules and names, in the manner of real ones.

A small model that meets a fixed set of names learns them by heart and cannot copy a new one. Names that are
never the same twice leave it nothing but to copy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from forge_pipeline.agents.index import Entity

_WORD = re.compile(r"(?<![A-Za-z])[a-z]{3,6}(?![a-z])|[A-Z][a-z]{2,5}(?![a-z])")
_ONSETS = ("b", "br", "d", "dr", "f", "g", "gl", "h", "k", "kr", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v")
_VOWELS = ("a", "e", "i", "o", "u")
_ENDS = ("", "", "l", "m", "n", "r", "s", "t", "x")
# Of a module's own names, beside those that it shares with two neighbours.
NAMES_PER_CONTAINER = 3
MADE_UP_WORDS = 0.1
COMMON_WORDS = 300
RESULT_WORDS = ("function", "class", "method", "section", "return", "args")


def common_words(names: Iterable[str]) -> list[str]:
    """The lower-case words that names are made of, the commonest first, at most COMMON_WORDS.

    Common, short words are one or two tokens, so that a made-up name is a few tokens long.
    """
    counts = Counter(word.lower() for name in names for word in _WORD.findall(name))
    return sorted(counts, key=lambda word: (-counts[word], word))[:COMMON_WORDS]


@dataclass
class NameMaker:
    """Draws names from real words and made-up syllables, never one that is ``taken``."""

    words: list[str]
    generator: np.random.Generator
    taken: set[str] = field(default_factory=set)
    # Words that tool results use for other things: no name may look like one.
    ordinary: set[str] = field(default_factory=lambda: set(RESULT_WORDS))

    def word(self) -> str:
        if self.words and self.generator.random() >= MADE_UP_WORDS:
            return self.words[int(self.generator.integers(len(self.words)))]
        syllables = int(self.generator.integers(1, 3))
        return "".join(self._pick(_ONSETS) + self._pick(_VOWELS) + self._pick(_ENDS) for _ in range(syllables))

    def container(self) -> str:
        return self._fresh(lambda: self._pick((".", "_", ".")).join(self._words(1, 3)))

    def function(self) -> str:
        return self._fresh(lambda: "_".join(self._words(1, 3)))

    def type_name(self) -> str:
        return self._fresh(lambda: "".join(word.capitalize() for word in self._words(1, 3)))

    def parameters(self) -> tuple[str, ...]:
        """One to three words, none of which is a name; they may come again."""
        words: dict[str, None] = {}
        count = int(self.generator.integers(1, 4))
        while len(words) < count:
            word = self.word()
            if word not in self.taken:
                words[word] = None
        self.ordinary.update(words)
        return tuple(words)

    def _words(self, fewest: int, below: int) -> list[str]:
        return [self.word() for _ in range(int(self.generator.integers(fewest, below)))]

    def _pick(self, choices: tuple[str, ...]) -> str:
        return choices[int(self.generator.integers(len(choices)))]

    def _fresh(self, make: Callable[[], str]) -> str:
        while True:
            name = make()
            # Short ones are real words too often.
            if len(name) > 3 and name not in self.taken and name not in self.ordinary:
                self.taken.add(name)
                return name


def make_world(maker: NameMaker, containers: int, split: str) -> list[Entity]:
    """``containers`` made-up modules of ``split``. Each has names of its own and shares one with each of its two
    neighbours in a ring, so that a pair of shared names singles out one module."""
    modules = [maker.container() for _ in range(containers)]
    shared = [maker.function() for _ in range(containers)]
    entities: list[Entity] = []
    for index, module in enumerate(modules):
        names = [maker.function() for _ in range(NAMES_PER_CONTAINER)]
        if containers > 2:
            names += [shared[index], shared[(index + 1) % containers]]
        order = maker.generator.permutation(len(names))
        entities.extend(
            Entity(
                entry_id=f"procedural/{split}/{index:06}/{place}",
                name=names[choice],
                kind="function",
                container=module,
                place=place,
                parameters=maker.parameters(),
                returns=maker.type_name(),
                summary="",
                doc_id=None,
                split=split,
                procedural=True,
            )
            for place, choice in enumerate(order.tolist())
        )
    return entities
