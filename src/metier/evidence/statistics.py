"""Paired estimates over documents: what changed, how surely, and what could have been seen.

Every figure is a ratio of two sums over documents (bits over bytes, or values over a count), and its error comes from
leaving out one document at a time. The interval is a t interval with (effective documents - 1) degrees of freedom,
where effective documents = 1 / sum(share²) of the denominator: twenty documents of which one holds half the bytes tell
about as much as four. It was chosen by simulation: how often, in per cent, a 95 % interval held the truth.

    documents                                   this              percentile bootstrap       bootstrap-t
                                           10  20  60 200          10  20  60 200         10  20  60 200
    gain that varies with the length       95  95  94  94          88  91  92  94         92  92  93  94
    noise with long tails (t4)             97  96  96  96          87  90  94  94         90  90  94  93
    equal lengths, change very skewed      84  86  91  93          81  86  90  92         90  92  93  94
    unequal lengths, change very skewed    85  85  87  90          78  84  85  91         87  90  90  93

It is the closest to 95 % where the data look like measured ones, needs no draws, and gives a bound at any level.
Where a few documents carry most of a change no method is right: the misses then lie on the side of the long tail.

A set that was drawn kind by kind, a like number of documents of each, varies only within its kinds: there each kind has
a jackknife of its own, and the degrees of freedom are those of the effective documents less the kinds. Where kinds lose
unlike shares the simple interval of such a set is too wide: it held the truth in 99 % (benchmarks/RESULTS.md).
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from metier.errors import DataError

Record = Mapping[str, Any]  # one line of a file in evidence/
Floats = NDArray[np.float64]

FEW_DOCUMENTS = 20  # below this the method says so: the interval leans on the t distribution
POWER = 0.8
ERROR = 0.05  # two-sided for an interval, one-sided for a bound
BASE_ADAPTED_CORRELATION = 0.9  # of the two arms over documents, assumed before training
BOUND_DRAWS = 10_000


@dataclass(frozen=True)
class Estimate:
    """A ratio of sums over documents with its standard error; `se` and `df` are None for fewer than two documents."""

    value: float
    se: float | None
    df: float | None
    n_items: int
    n_documents: int

    def lower(self, error: float = ERROR) -> float | None:
        """The one-sided bound that the truth lies under with probability `error`."""
        return None if self.se is None or self.df is None else self.value - _t(1 - error, self.df) * self.se

    def upper(self, error: float = ERROR) -> float | None:
        """The one-sided bound that the truth lies over with probability `error`."""
        return None if self.se is None or self.df is None else self.value + _t(1 - error, self.df) * self.se

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 %, two-sided."""
        low, high = self.lower(ERROR / 2), self.upper(ERROR / 2)
        return None if low is None or high is None else (low, high)

    @property
    def detectable(self) -> float | None:
        """The smallest true value that this set finds with 80 % power."""
        return None if self.se is None or self.df is None else detectable(self.se, self.df)

    @property
    def method(self) -> str:
        if self.df is None:
            return "no interval: one document"
        few = ", few documents" if self.n_documents < FEW_DOCUMENTS else ""
        return f"t interval over documents, jackknife error, {self.df:.1f} degrees of freedom{few}"


@dataclass(frozen=True, eq=False)
class BoundedMean:
    """The mean of values that lie in [-1, 1], one an item, with bounds that hold when almost all of them are zero.

    Twenty answers without one loop have a variance of zero and still cannot exclude that one in ten loops. The bounds
    are Gaffke's: quantiles of the mean under Dirichlet weights, with one imaginary item as bad (for `lower`: as good)
    as can be; for yes/no values they are the exact binomial ones, so nothing in n items bounds the share by about 3/n.
    """

    values: Floats
    seed: int = 0

    @property
    def value(self) -> float:
        return float(self.values.mean())

    @property
    def n_items(self) -> int:
        return len(self.values)

    @property
    def n_documents(self) -> int:
        return len(self.values)

    def lower(self, error: float = ERROR) -> float | None:
        return None if self.n_items < 2 else float(np.quantile(self._draws(-1.0), error))

    def upper(self, error: float = ERROR) -> float | None:
        return None if self.n_items < 2 else float(np.quantile(self._draws(1.0), 1 - error))

    def _draws(self, imaginary: float) -> Floats:
        values = np.append(self.values, imaginary)
        drawn: Floats = (self._weights @ values) / self._weights.sum(axis=1)
        return drawn

    @cached_property
    def _weights(self) -> Floats:
        """(draws, items + 1) exponentials: Dirichlet weights once divided by their row's sum."""
        return np.random.default_rng(self.seed).standard_exponential((BOUND_DRAWS, self.n_items + 1))


def ratio_estimate(
    numerators: Sequence[float], denominators: Sequence[float], documents: Sequence[str], kinds: Sequence[str] = ()
) -> Estimate:
    """sum(numerators) / sum(denominators), items clustered by document; denominators are positive. kinds: of each item,
    where the documents were drawn kind by kind; a document is of one kind, and kinds of one document are taken
    together."""
    _, first, codes = np.unique(np.asarray(documents, dtype=str), return_index=True, return_inverse=True)
    tops = np.bincount(codes, weights=np.asarray(numerators, dtype=np.float64))
    bottoms = np.bincount(codes, weights=np.asarray(denominators, dtype=np.float64))
    top, bottom, n = float(tops.sum()), float(bottoms.sum()), len(tops)
    value = top / bottom
    if n < 2:
        return Estimate(value, None, None, len(documents), n)
    strata = _strata([kinds[i] for i in first] if kinds else [""] * n)
    variance = 0.0
    for stratum in strata:
        own, size = (tops[stratum], bottoms[stratum]), len(stratum)
        # Without one document, the others of its kind stand for it.
        tops_left, bottoms_left = (
            all_ + (of.sum() - size * of) / (size - 1) for all_, of in zip((top, bottom), own, strict=True)
        )
        left_out = tops_left / bottoms_left - value  # exactly zero where nothing changed anywhere
        variance += (size - 1) / size * float(left_out @ left_out)
    effective = 1.0 / float(((bottoms / bottom) ** 2).sum())
    return Estimate(value, math.sqrt(variance), max(effective - len(strata), 1.0), len(documents), n)


def _strata(kinds: Sequence[str]) -> list[NDArray[np.intp]]:
    """The documents of each kind; those of kinds that have one alone together, or with another kind."""
    _, codes = np.unique(np.asarray(kinds, dtype=str), return_inverse=True)
    n_of = np.bincount(codes)
    strata = [np.flatnonzero(codes == code) for code in np.flatnonzero(n_of > 1)]
    alone = np.flatnonzero(n_of[codes] == 1)
    if len(alone) == 1 and strata:
        return [np.append(strata[0], alone), *strata[1:]]
    return [*strata, alone] if len(alone) else strata


def mean_estimate(values: Sequence[float], documents: Sequence[str]) -> Estimate:
    """The mean over items, clustered by document: paired when the values are differences."""
    return ratio_estimate(values, np.ones(len(values)).tolist(), documents)


def bits_per_byte(records: Iterable[Record]) -> float:
    """Total nll over total bytes: a long text counts for more than a short one."""
    nll = n_bytes = 0.0
    for record in records:
        nll += record["nll"]
        n_bytes += record["bytes"]
    return nll / (math.log(2) * n_bytes)


def bits_difference(pairs: Sequence[tuple[Record, Record]], by_kind: bool = False) -> Estimate:
    """Bits per byte, base - adapted, over paired score records. by_kind: the documents were drawn group by group."""
    bits = [(base["nll"] - adapted["nll"]) / math.log(2) for base, adapted in pairs]
    kinds = [base["group"] for base, _ in pairs] if by_kind else ()
    return ratio_estimate(bits, [base["bytes"] for base, _ in pairs], [base["document"] for base, _ in pairs], kinds)


def relative_difference(pairs: Sequence[tuple[Record, Record]]) -> Estimate:
    """The share of the base model's bits that the adapted one saves, over paired score records."""
    saved = [base["nll"] - adapted["nll"] for base, adapted in pairs]
    return ratio_estimate(saved, [base["nll"] for base, _ in pairs], [base["document"] for base, _ in pairs])


def detectable(se: float, df: float = math.inf) -> float:
    """The smallest true difference found with 80 % power at two-sided 5 %; 2.8 standard errors of many documents."""
    return (_t(1 - ERROR / 2, df) + _t(POWER, df)) * se


def expected_detectable(base_records: Sequence[Record], rho: float = BASE_ADAPTED_CORRELATION) -> float | None:
    """What a set could show, in bits per byte, foretold from the base model's scores; None for one document.

    rho: the correlation of the two arms over documents; the difference has the error se(base) * sqrt(2 (1 - rho)).
    """
    base = ratio_estimate(
        [record["nll"] / math.log(2) for record in base_records],
        [record["bytes"] for record in base_records],
        [record["document"] for record in base_records],
    )
    if base.se is None or base.df is None:
        return None
    return detectable(base.se * math.sqrt(2 * (1 - rho)), base.df)


def mcnemar(base_right: Sequence[bool], adapted_right: Sequence[bool]) -> float:
    """Exact two-sided p that right answers turn wrong as often as wrong ones turn right; 1.0 when none turned."""
    lost = sum(b and not a for b, a in zip(base_right, adapted_right, strict=True))
    won = sum(a and not b for b, a in zip(base_right, adapted_right, strict=True))
    return float(stats.binomtest(lost, lost + won).pvalue) if lost + won else 1.0


def paired(
    base: Iterable[Record], adapted: Iterable[Record], equal_fields: Sequence[str]
) -> list[tuple[Record, Record]]:
    """Records of the two arms joined by slice and item, in the base's order.

    Raises:
        DataError: an item is there twice or in one arm only, or one of `equal_fields` differs between the arms.
    """
    base_of, adapted_of = _keyed(base, "base"), _keyed(adapted, "adapted")
    for here, there, arm in ((base_of, adapted_of, "adapted"), (adapted_of, base_of, "base")):
        if missing := [key for key in here if key not in there]:
            raise DataError(
                f"{_name(missing[0])} has no score from the {arm} model ({len(missing)} such): "
                "score both models on the same items again."
            )
    for key, record in base_of.items():
        for field in equal_fields:
            if record[field] != adapted_of[key][field]:
                raise DataError(
                    f"{_name(key)} differs between the models in {field!r} ({str(record[field])[:40]!r} and "
                    f"{str(adapted_of[key][field])[:40]!r}): score both models on the same items again."
                )
    return [(record, adapted_of[key]) for key, record in base_of.items()]


def paired_scores(base: Iterable[Record], adapted: Iterable[Record]) -> list[tuple[Record, Record]]:
    """Score records joined, and fit to be summed.

    Raises:
        DataError: as `paired`; or an item has no bytes, or an nll that is not finite or, for the base, not positive.
    """
    pairs = paired(base, adapted, equal_fields=("bytes", "document"))
    for base_record, adapted_record in pairs:
        name = _name((base_record["slice"], base_record["item"]))
        if base_record["bytes"] <= 0:
            raise DataError(f"{name} has no bytes: leave empty texts out and score again.")
        if not (math.isfinite(adapted_record["nll"]) and 0 < base_record["nll"] < math.inf):
            raise DataError(
                f"{name} has the nll {base_record['nll']} from the base model and {adapted_record['nll']} from the "
                "adapted one, which must be finite and positive: lower the learning rate and train again."
            )
    return pairs


def _keyed(records: Iterable[Record], arm: str) -> dict[tuple[str, str], Record]:
    listed = list(records)
    keys = [(record.get("slice", "answers"), record["item"]) for record in listed]
    if twice := [key for key, count in Counter(keys).items() if count > 1]:
        raise DataError(f"{_name(twice[0])} is scored twice by the {arm} model: give every item its own id.")
    return dict(zip(keys, listed, strict=True))


def _name(key: tuple[str, str]) -> str:
    return f"Item {key[1]!r} of {key[0]!r}"


def _t(probability: float, df: float) -> float:
    return float(stats.t.ppf(probability, df))
