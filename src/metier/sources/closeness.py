"""How close each text is to the field: the importance weight of its hashed words and word pairs (DSIR, Xie et al.
2023).

The field is what all texts together look like, and general language is the general pack. The weight of a text is the
mean over its features of log p(feature | field) - log p(feature | general), in bits.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metier.sources.shingles import Runs, batches, runs_of, words_of

BUCKETS = 1 << 14
SMOOTHING = 1.0  # added to every bucket of both


def closeness(texts: Sequence[str]) -> NDArray[np.float64]:
    """(texts,) weights in bits; 0 for a text without words."""
    from metier.sources import general  # which reads texts, and reading may select them by this

    field, background = _counts(texts), _counts([text.text for text in general.texts()])
    weights = np.log2(field / field.sum()) - np.log2(background / background.sum())
    found = [
        np.array([_mean(weights, runs.of(i)) for i in range(len(batch))])
        for batch in batches(texts)
        for runs in [_features(batch)]
    ]
    return np.concatenate(found) if found else np.zeros(0)


def _features(texts: Sequence[str]) -> Runs:
    """Words and pairs of words of every text, as buckets."""
    words = words_of(texts)
    pairs = runs_of(words, 2)
    numbers = [part for i in range(len(texts)) for part in (words.of(i), pairs.of(i))]
    joined = np.concatenate(numbers) % np.uint64(BUCKETS) if numbers else np.zeros(0, np.uint64)
    return Runs(joined, words.starts + pairs.starts)


def _counts(texts: Sequence[str]) -> NDArray[np.float64]:
    counts = np.full(BUCKETS, SMOOTHING)
    for batch in batches(texts):
        counts += np.bincount(_features(batch).numbers.astype(np.int64), minlength=BUCKETS)
    return counts


def _mean(weights: NDArray[np.float64], buckets: NDArray[np.uint64]) -> float:
    return float(weights[buckets].mean()) if len(buckets) else 0.0
