"""What each strength of an adapter changed: bits per byte of every slice, its documents drawn again and again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from metier.errors import DataError
from metier.evidence.statistics import ERROR, Floats, Record, paired_scores

DRAWS = 2000
DRAWS_AT_ONCE = 200  # ten thousand documents are then 16 MB of counts
SEED = 0


class Point(NamedTuple):
    """The weights of a training step, applied at a strength."""

    step: int
    alpha: float


@dataclass(frozen=True, eq=False)
class Change:
    """Of some texts together, against strength 0. Shapes: (points,) and (DRAWS, points).

    The draws spread sqrt(n / (n - 1)) times as far from the values as a bootstrap's do, whose spread is too narrow by
    that in small sets: their standard deviation is then that of `statistics.ratio_estimate`.
    """

    base: float  # bits per byte at strength 0
    points: tuple[Point, ...]
    values: Floats  # bits per byte more than at strength 0; a fall is negative
    drawn: Floats
    df: float | None  # effective documents - 1, as in statistics.py; None for one document
    n_documents: int

    def of(self, points: Sequence[Point]) -> "Change":
        at = [self.points.index(point) for point in points]
        return Change(self.base, tuple(points), self.values[at], self.drawn[:, at], self.df, self.n_documents)

    @property
    def fallen(self) -> "Change":
        """The same with a fall positive: a gain."""
        return Change(self.base, self.points, -self.values, -self.drawn, self.df, self.n_documents)

    @property
    def se(self) -> Floats:
        """(points,); infinite for one document, of which nothing can be said."""
        return spread(self.drawn, self.df)


def spread(drawn: Floats, df: float | None) -> Floats:
    """The standard error of each column of draws; infinite where there is one document."""
    return np.full(drawn.shape[1], np.inf) if df is None else drawn.std(axis=0)


def quantile(df: float | None, error: float = ERROR) -> float:
    """How many standard errors a one-sided bound lies away: of t, as in statistics.py, whose table shows why."""
    return math.inf if df is None else float(stats.t.ppf(1 - error, df))


@dataclass(frozen=True, eq=False)
class Strengths:
    """The records of one training run, joined. Shapes: (items,) and (items, points)."""

    points: tuple[Point, ...]  # strength 0 left out; by step, then by strength
    slices: tuple[str, ...]
    documents: NDArray[np.str_]
    n_bytes: Floats
    base_bits: Floats
    rises: Floats

    @cached_property
    def last(self) -> tuple[Point, ...]:
        """The points of the last step, by strength."""
        last_step = max(point.step for point in self.points)
        return tuple(point for point in self.points if point.step == last_step)

    def change(self, *names: str) -> Change:
        """Of the texts of these slices together."""
        inside = np.isin(self.slices, names)
        _, codes = np.unique(self.documents[inside], return_inverse=True)
        n = int(codes.max()) + 1
        n_bytes = _summed(self.n_bytes[inside], codes)
        rises = np.stack([_summed(column, codes) for column in self.rises[inside].T], axis=1)
        values: Floats = rises.sum(axis=0) / n_bytes.sum()
        random = np.random.default_rng([SEED, *"+".join(names).encode()])  # the same whatever else is asked for
        drawn = np.concatenate([_resampled(random, rises, n_bytes) for _ in range(DRAWS // DRAWS_AT_ONCE)])
        widened: Floats = values + (drawn - values) * math.sqrt(n / max(n - 1, 1))
        df = max(1.0 / float(((n_bytes / n_bytes.sum()) ** 2).sum()) - 1.0, 1.0) if n > 1 else None
        base = float(self.base_bits[inside].sum() / self.n_bytes[inside].sum())
        return Change(base, self.points, values, widened, df, n)


def _summed(column: Floats, codes: NDArray[np.intp]) -> Floats:
    """(documents,) from (items,)."""
    return np.bincount(codes, weights=column).astype(np.float64)


def _resampled(random: np.random.Generator, rises: Floats, n_bytes: Floats) -> Floats:
    """(DRAWS_AT_ONCE, points) from (documents, points) and (documents,)."""
    n = len(n_bytes)
    chosen = random.integers(0, n, size=(DRAWS_AT_ONCE, n)) + n * np.arange(DRAWS_AT_ONCE)[:, None]
    counts = np.bincount(chosen.ravel(), minlength=DRAWS_AT_ONCE * n).reshape(DRAWS_AT_ONCE, n).astype(np.float64)
    drawn: Floats = (counts @ rises) / (counts @ n_bytes)[:, None]
    return drawn


def read_strengths(records: Sequence[Record]) -> Strengths:
    """Join the records of evidence/dial.jsonl, those of a tilted adapter left out. At least one is of strength 0, and
    one is not.

    A strength over 1 at which a text has no finite nll is left out: it is an offer, not what was trained.

    Raises:
        DataError: the strengths do not hold the same items, or an item cannot be scored.
    """
    arms: dict[Point, list[Record]] = {}
    for record in records:
        if not record.get("tilt"):
            arms.setdefault(Point(int(record["step"]), float(record["alpha"])), []).append(_scored(record))
    base = [record for point, arm in arms.items() if point.alpha == 0 for record in arm]
    points = tuple(sorted(at for at, arm in arms.items() if 0 < at.alpha <= 1 or (at.alpha > 1 and _finite(arm))))
    if not base or not points:
        raise DataError("The dial needs scores at strength 0 and at others: score the select half again.")
    pairs = [paired_scores(base, arms[point]) for point in points]
    ln2 = math.log(2)
    return Strengths(
        points,
        tuple(record["slice"] for record, _ in pairs[0]),
        np.array([record["document"] for record, _ in pairs[0]], dtype=str),
        np.array([record["bytes"] for record, _ in pairs[0]], dtype=np.float64),
        np.array([record["nll"] / ln2 for record, _ in pairs[0]], dtype=np.float64),
        np.array([[(there["nll"] - here["nll"]) / ln2 for here, there in arm] for arm in pairs], dtype=np.float64).T,
    )


def _scored(record: Record) -> Record:
    """JSON has no number for what is not finite, so it stands there as null."""
    return {**record, "nll": math.nan} if record["nll"] is None else record


def _finite(arm: Sequence[Record]) -> bool:
    return all(math.isfinite(record["nll"]) for record in arm)
