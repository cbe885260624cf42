"""A language model that is counted, not trained: what the words of the training text foretell of the words after them.

Interpolated n-grams with modified Kneser-Ney discounts (Chen & Goodman 1998): an n-gram's count is lowered by a
discount, and what that frees goes to the next shorter context; below the single tokens stands a uniform guess. Shorter
contexts are counted by how many different tokens stand before them, not by how often they occur.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metier.models.encoding import Encoded, Loss

ORDER = 5  # tokens, the foretold one included
MOST_TOKENS = 4_000_000  # are counted: some 700 MB while they are sorted
WITHOUT_COUNTS = (0.5, 1.0, 1.5)  # discounts where a text is too small to estimate them

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Foretold(NamedTuple):
    """Of each scored token: nats, and the number of tokens before it that the training text holds as a context."""

    nll: Floats
    matched: Ints


@dataclass(frozen=True)
class _Level:
    """The n-grams of one length. keys: context id * vocabulary + token, sorted; an n-gram's id is its place there.

    counts (n-grams,) · totals (contexts,): their sum · freed (contexts,): what the discounts free, as a share of it
    """

    keys: Ints
    counts: Ints
    discounts: tuple[float, float, float]
    totals: Ints
    freed: Floats


class NgramModel:
    """Probabilities of tokens after up to `order` - 1 others; they add up to 1 over the vocabulary."""

    def __init__(self, documents: Sequence[Encoded], vocabulary: int, order: int = ORDER) -> None:
        """documents: of the training text; tokens with loss are foretold, all are context. What lies beyond MOST_TOKENS
        is not counted."""
        self.vocabulary = vocabulary
        tokens, places, counted = _joined(documents)
        self.n_tokens = int(counted.sum())
        grams = _gram_ids(tokens, places, vocabulary, order)
        n_contexts = 1
        self.levels: list[_Level] = []
        for n, (keys, _) in enumerate(grams):
            counts = _counts(grams, n, places, counted)
            self.levels.append(_level(keys, counts, n_contexts, vocabulary))
            n_contexts = len(keys)

    def foretell(self, document: Encoded) -> Foretold:
        """The tokens of Loss.TEXT, in order, each from those before it in the document."""
        tokens = np.asarray(document.ids, dtype=np.int64)
        probability = np.full(len(tokens), 1 / self.vocabulary)
        matched = np.zeros(len(tokens), dtype=np.int64)
        context: Ints = np.zeros(len(tokens), dtype=np.int64)
        for n, level in enumerate(self.levels):
            in_text = np.flatnonzero(context >= 0)
            gram = np.full(len(tokens), -1, dtype=np.int64)
            gram[in_text] = _find(level.keys, context[in_text] * self.vocabulary + tokens[in_text])
            known = in_text[level.totals[context[in_text]] > 0]
            total = level.totals[context[known]]
            probability[known] = (
                _discounted(level, gram[known]) / total + level.freed[context[known]] * probability[known]
            )
            matched[known] = n
            context = np.concatenate([[-1], gram[:-1]])
        scored = np.asarray([kind == Loss.TEXT for kind in document.loss])
        return Foretold(-np.log(probability[scored]), matched[scored])


def _joined(documents: Sequence[Encoded]) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """(tokens, their places in their documents, whether they carry loss) of all documents, end to end."""
    kept: list[Encoded] = []
    n_tokens = 0
    for document in documents:
        n_tokens += len(document.ids)
        if kept and n_tokens > MOST_TOKENS:
            break
        kept.append(document)
    tokens = np.asarray([token for d in kept for token in d.ids], dtype=np.int64)
    places = np.asarray([i for d in kept for i in range(len(d.ids))], dtype=np.int64)
    counted = np.asarray([kind != Loss.NONE for d in kept for kind in d.loss], dtype=np.bool_)
    return tokens, places, counted


def _gram_ids(tokens: Ints, places: Ints, vocabulary: int, order: int) -> list[tuple[Ints, Ints]]:
    """For n = 1 … order: (sorted keys of the n-grams, (tokens,) the id of the one that ends here, -1 for none)."""
    found = []
    context: Ints = np.zeros(len(tokens), dtype=np.int64)
    for n in range(order):
        ends_here = places >= n
        keys, inverse = np.unique(context[ends_here] * vocabulary + tokens[ends_here], return_inverse=True)
        ids = np.full(len(tokens), -1, dtype=np.int64)
        ids[ends_here] = inverse
        found.append((keys, ids))
        context = np.concatenate([[-1], ids[:-1]]) if len(ids) else ids
    return found


def _counts(grams: Sequence[tuple[Ints, Ints]], n: int, places: Ints, counted: NDArray[np.bool_]) -> Ints:
    """Of the n-grams of level n: how often the longest occur; of the others, how many tokens stand before them.

    An n-gram with which a document begins has nothing before it: there its occurrences count.
    """
    keys, ids = grams[n]
    if n == len(grams) - 1:
        return np.bincount(ids[counted & (places >= n)], minlength=len(keys)).astype(np.int64)
    begins = np.bincount(ids[counted & (places == n)], minlength=len(keys))
    longer = np.flatnonzero(counted & (places > n))
    _, first = np.unique(grams[n + 1][1][longer], return_index=True)
    return (begins + np.bincount(ids[longer[first]], minlength=len(keys))).astype(np.int64)


def _level(keys: Ints, counts: Ints, n_contexts: int, vocabulary: int) -> _Level:
    discounts = _discounts(counts)
    contexts = keys // vocabulary
    totals = np.bincount(contexts, weights=counts, minlength=n_contexts)
    freed = np.bincount(contexts, weights=_discount_of(counts, discounts), minlength=n_contexts)
    shares = np.divide(freed, totals, out=np.zeros(n_contexts), where=totals > 0)
    return _Level(keys, counts, discounts, totals.astype(np.int64), shares)


def _discounts(counts: Ints) -> tuple[float, float, float]:
    """For counts of 1, of 2, and of 3 or more, from how many n-grams have the counts 1 to 4."""
    n1, n2, n3, n4 = (int((counts == i).sum()) for i in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return WITHOUT_COUNTS
    y = n1 / (n1 + 2 * n2)
    found = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
    return found if min(found) > 0 else WITHOUT_COUNTS  # without a discount nothing is left for what was never seen


def _discount_of(counts: Ints, discounts: tuple[float, float, float]) -> Floats:
    taken: Floats = np.asarray([0.0, *discounts])[np.minimum(counts, 3)]
    return taken


def _discounted(level: _Level, grams: Ints) -> Floats:
    """What is left of each n-gram's count; 0 for -1."""
    counts = np.where(grams >= 0, level.counts[np.maximum(grams, 0)], 0)
    left: Floats = counts - _discount_of(counts, level.discounts)
    return left


def _find(keys: Ints, wanted: Ints) -> Ints:
    """The place of each wanted key, -1 for one that is not there."""
    if not len(keys):
        return np.full(len(wanted), -1, dtype=np.int64)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)
