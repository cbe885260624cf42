"""Near-duplicates: texts whose sets of word 5-grams have a Jaccard similarity of 0.8 or more.

MinHash (Broder 1997) over bands proposes pairs, and the sets themselves decide: what is called a near-duplicate is one.
A pair at 0.8 shares one of 20 bands of 6 with probability 1 - (1 - 0.8^6)^20 = 0.998.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier.sources.shingles import Numbers, Runs, batches, mixed, runs_of, words_of

WORDS = 5
JACCARD = 0.8
BANDS, ROWS = 20, 6
CHUNK = 1000  # texts whose sets are held at once while pairs are verified

Bands = NDArray[np.uint32]
TextOf = Callable[[int], str]


@dataclass(frozen=True)
class Near:
    """The earlier text that a text repeats, and how much of it."""

    first: int
    jaccard: float


class NearDuplicates:
    """Texts are added in any portions and numbered from 0; 80 bytes are kept of each."""

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self._factors = random.integers(0, 1 << 32, BANDS * ROWS, np.uint32) | np.uint32(1)
        self._bands: list[Bands] = []

    def add(self, texts: Sequence[str]) -> None:
        for batch in batches(texts):
            self._bands.append(_bands(_signatures(shingles(batch), self._factors)))

    def find(self, text_of: TextOf, kept: Callable[[int], bool] = lambda _: False) -> dict[int, Near]:
        """{text: the earlier one that it nearly repeats}; a text that stands here is nobody's first, unless it is kept.

        text_of  the text of a number, as it was added
        kept     texts that stay whatever they repeat, so that later ones may be compared with them
        """
        if not self._bands:
            return {}
        bands = np.concatenate(self._bands)
        found: dict[int, Near] = {}
        for candidates in _chunks(_pairs(bands)):
            wanted = sorted({*candidates, *(i for earlier in candidates.values() for i in earlier)})
            sets = dict(zip(wanted, _sets([text_of(i) for i in wanted]), strict=True))
            for later, earlier in candidates.items():
                near = _nearest(later, earlier, sets, found, text_of, kept)
                if near is not None:
                    found[later] = near
        return found


def shingles(texts: Sequence[str]) -> Runs:
    """The word 5-grams of every text, as often as they occur; all of a text that has fewer words."""
    return runs_of(words_of(texts), WORDS, whole_if_short=True)


def jaccard(one: Numbers, other: Numbers) -> float:
    """The share of two sets (sorted, each number once) that they have in common."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def _nearest(
    later: int,
    earlier: Sequence[int],
    sets: dict[int, Numbers],
    found: dict[int, Near],
    text_of: TextOf,
    kept: Callable[[int], bool],
) -> Near | None:
    """The first of the candidates that is near enough; what a candidate itself repeats takes its place."""
    tried = {found[i].first if i in found and not kept(i) else i for i in earlier}
    for first in sorted(tried - {later}):
        if first not in sets:
            sets[first] = next(_sets([text_of(first)]))
        similarity = jaccard(sets[first], sets[later])
        if similarity >= JACCARD:
            return Near(first, similarity)
    return None


def _sets(texts: Sequence[str]) -> Iterator[Numbers]:
    for batch in batches(texts):
        runs = shingles(batch)
        for i in range(len(batch)):
            yield np.unique(runs.of(i))


def _signatures(runs: Runs, factors: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """(texts, BANDS x ROWS) smallest values under as many permutations; a text without words has the largest value."""
    signatures = np.full((len(factors), len(runs.starts) - 1), np.iinfo(np.uint32).max, np.uint32)
    filled = np.flatnonzero(np.diff(runs.starts))
    if filled.size:
        starts = runs.starts[:-1][filled]
        numbers = (runs.numbers >> np.uint64(32)).astype(np.uint32)
        permuted = np.empty_like(numbers)
        for row, factor in zip(signatures, factors, strict=True):
            np.multiply(numbers, factor, out=permuted)
            row[filled] = np.minimum.reduceat(permuted, starts)
    return signatures.T


def _bands(signatures: NDArray[np.uint32]) -> Bands:
    """(texts, BANDS): one number for the values of each band; 0 stands for a text without words."""
    parts = signatures.reshape(len(signatures), BANDS, ROWS).astype(np.uint64)
    numbers = np.zeros(parts.shape[:2], np.uint64)
    for row in range(ROWS):
        numbers = mixed(numbers + parts[:, :, row] + np.uint64(row + 1))
    bands = (numbers >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
    bands[(signatures == np.iinfo(np.uint32).max).all(axis=1)] = 0
    return bands


def _pairs(bands: Bands) -> NDArray[np.int64]:
    """(pairs, 2): (later, earlier), sorted. Of the texts that share a band each is paired with the first and with the
    one before it, so that a thousand copies make two thousand pairs and not half a million."""
    n = len(bands)
    pairs = np.zeros(0, np.int64)
    for column in bands.T:
        order = np.argsort(column, kind="stable")
        values = column[order]
        new = np.concatenate(([True], values[1:] != values[:-1]))
        first = order[np.maximum.accumulate(np.where(new, np.arange(n), 0))]
        follows = ~new & (values != 0)
        later = order[follows]
        before = np.roll(order, 1)[follows]
        pairs = np.unique(np.concatenate((pairs, later * n + first[follows], later * n + before)))
    return np.stack((pairs // n, pairs % n), axis=1)


def _chunks(pairs: NDArray[np.int64]) -> Iterator[dict[int, list[int]]]:
    """{later: the earlier ones to compare it with}, in order, CHUNK later ones at a time."""
    candidates: dict[int, list[int]] = {}
    for later, earlier in pairs.tolist():
        if later not in candidates and len(candidates) == CHUNK:
            yield candidates
            candidates = {}
        candidates.setdefault(later, []).append(earlier)
    if candidates:
        yield candidates
