"""Ordinary words like the field's terms: controls as long, as late and as surprising, in the same document if it has
such."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Pairs = tuple[Ints, Ints, Floats]  # (terms, words, squared distances)

NEIGHBOURS = 3  # controls of one occurrence at most; their mean is compared with it
LENGTH, POSITION = 1.0, 1.0  # calipers: half to twice as long, half to twice as far into the text
SURPRISE = 0.25  # caliper: standard deviations over the terms' occurrences
LOOKED_AT = 64  # words of other documents
NEAR_START = 16  # characters that count as one place, where twice as far would be one word


@dataclass(frozen=True, eq=False)
class Words:
    """Occurrences of words, one entry each. base, adapted: bits per byte. repeated: met before in the same text."""

    documents: Sequence[str]
    n_bytes: Floats
    starts: Floats
    base: Floats
    adapted: Floats
    repeated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.n_bytes)

    @property
    def drop(self) -> Floats:
        """Bits per byte saved."""
        return self.base - self.adapted

    @property
    def level(self) -> Floats:
        return (self.base + self.adapted) / 2


def match(terms: Words, ordinary: Words, by_base: bool = False) -> list[list[int]]:
    """For each occurrence of a term the nearest ordinary words, at most NEIGHBOURS, none where none is near enough.

    Near: likewise met before in the text or not, and within every caliper. Words of the same document come first; an
    occurrence that has none there, as in a short definition, takes those of other documents. The closest pairs are made
    first, and no word serves twice.

    As surprising: by the mean of both models' bits, or by the base's alone.
    """
    if not len(terms) or not len(ordinary):
        return [[] for _ in range(len(terms))]
    spread = float((terms.base if by_base else terms.level).std())
    here, there = (_features(words, spread, by_base) for words in (terms, ordinary))
    found: list[list[int]] = [[] for _ in range(len(terms))]
    used: set[int] = set()
    _take(_within_documents(terms, ordinary, here, there), found, used)
    alone = np.flatnonzero([not chosen for chosen in found])
    _take(_elsewhere(alone, here, there), found, used)
    return found


def _take(pairs: Pairs, found: list[list[int]], used: set[int]) -> None:
    """Make these pairs, the closest first."""
    rows, columns, distances = pairs
    order = np.argsort(distances, kind="stable")
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if len(found[row]) < NEIGHBOURS and column not in used:
            found[row].append(column)
            used.add(column)


def _within_documents(terms: Words, ordinary: Words, here: Floats, there: Floats) -> Pairs:
    """All pairs of one document that are near in everything."""
    names = {name: i for i, name in enumerate(dict.fromkeys([*terms.documents, *ordinary.documents]))}
    rows_of, columns_of = (_by_document(words, names) for words in (terms, ordinary))
    parts = []
    for rows, columns in zip(rows_of, columns_of, strict=True):
        gaps = np.abs(here[rows][:, None, :] - there[columns][None, :, :])  # (terms, words, features)
        near = np.argwhere((gaps <= 1).all(axis=2))
        distances = (gaps[near[:, 0], near[:, 1]] ** 2).sum(axis=1)
        parts.append((rows[near[:, 0]], columns[near[:, 1]], distances))
    rows, columns, distances = (np.concatenate(column) for column in zip(*parts, strict=True))
    return rows, columns, distances


def _by_document(words: Words, names: dict[str, int]) -> list[Ints]:
    """Which words stand in each document."""
    codes = np.array([names[name] for name in words.documents])
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.searchsorted(codes[order], np.arange(1, len(names))))


def _elsewhere(alone: Ints, here: Floats, there: Floats) -> Pairs:
    """The nearest words of any document, LOOKED_AT for each, that are near in everything."""
    if not len(alone):
        return alone, alone, np.zeros(0)
    k = min(LOOKED_AT, len(there))
    distances, columns = cKDTree(there).query(here[alone], k=np.arange(1, k + 1))
    rows = np.repeat(alone, k)
    near = (np.abs(here[rows] - there[columns.ravel()]) <= 1).all(axis=1)
    return rows[near], columns.ravel()[near], distances.ravel()[near]


def _features(words: Words, spread: float, by_base: bool) -> Floats:
    """(words, 4): length, position and surprise, in calipers; whether it was met before, which must be equal.

    spread: of the terms' surprise, bits per byte.
    """
    return np.stack(
        [
            np.log2(np.maximum(words.n_bytes, 1)) / LENGTH,
            np.log2(NEAR_START + words.starts) / POSITION,
            (words.base if by_base else words.level) / (SURPRISE * (spread or 1.0)),
            2.0 * words.repeated,
        ],
        axis=1,
    )
