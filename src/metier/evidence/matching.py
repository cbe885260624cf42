"""Ordinary words like the field's terms: controls in the same document, as long, as late and as surprising."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEIGHBOURS = 3  # controls of one occurrence at most; their mean is compared with it
LENGTH, POSITION = 1.0, 1.0  # calipers: half to twice as long, half to twice as far into the text
SURPRISE = 0.25  # caliper: standard deviations over the terms' occurrences
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

    Near: in the same document, likewise met before in the text or not, and within every caliper. The closest pairs of
    a document are made first, and no word serves twice.

    As surprising: by the mean of both models' bits, or by the base's alone.
    """
    found: list[list[int]] = [[] for _ in range(len(terms))]
    level = (terms.base if by_base else terms.level).std() if len(terms) else 0.0
    here, there = (_features(words, float(level), by_base) for words in (terms, ordinary))
    of_document: dict[str, list[int]] = {}
    for i, document in enumerate(ordinary.documents):
        of_document.setdefault(document, []).append(i)
    rows_of: dict[str, list[int]] = {}
    for i, document in enumerate(terms.documents):
        rows_of.setdefault(document, []).append(i)
    for document, rows in rows_of.items():
        columns = of_document.get(document, [])
        gaps = np.abs(here[rows][:, None, :] - there[columns][None, :, :])  # (terms, words, features)
        near = (gaps <= 1).all(axis=2) & (terms.repeated[rows][:, None] == ordinary.repeated[columns][None, :])
        places = np.argwhere(near)
        distances = (gaps[near] ** 2).sum(axis=1)
        used: set[int] = set()
        for row, column in places[np.argsort(distances, kind="stable")].tolist():
            term, word = rows[row], columns[column]
            if len(found[term]) < NEIGHBOURS and word not in used:
                found[term].append(word)
                used.add(word)
    return found


def _features(words: Words, spread: float, by_base: bool) -> Floats:
    """(words, 3): length, position and surprise, in calipers. spread: of the terms' surprise, bits per byte."""
    return np.stack(
        [
            np.log2(np.maximum(words.n_bytes, 1)) / LENGTH,
            np.log2(NEAR_START + words.starts) / POSITION,
            (words.base if by_base else words.level) / (SURPRISE * (spread or 1.0)),
        ],
        axis=1,
    )
