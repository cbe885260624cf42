"""The same held-out documents, scored by the base and after each size of the data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from metier.errors import DataError
from metier.evidence.gain import FIELD_SLICE
from metier.evidence.statistics import (
    Estimate,
    Record,
    bits_difference,
    bits_per_byte,
    paired_scores,
    relative_difference,
)
from metier.evidence.sufficiency.learning_curve import Floats, Repeats


@dataclass(frozen=True)
class Trajectory:
    """Scores of the same documents by the base and after each size, rising; where seeds were repeated, their mean."""

    tokens: tuple[int, ...]
    base: tuple[Record, ...]
    adapted: tuple[tuple[Record, ...], ...]  # one a size, in the base's order
    repeats: Repeats

    @property
    def gains(self) -> list[Estimate]:
        return [bits_difference(list(zip(self.base, records, strict=True))) for records in self.adapted]

    def growth_from(self, before: Sequence[Record]) -> Estimate:
        """What the largest size saves beyond an earlier one or the base, paired."""
        return bits_difference(list(zip(before, self.adapted[-1], strict=True)))

    @property
    def detectable(self) -> float | None:
        """Bits per byte that a step between two sizes must save to be seen, from the last one (its relative error: the
        absolute one also holds the spread of the texts' own bits)."""
        before = self.adapted[-2] if len(self.adapted) > 1 else self.base
        step = relative_difference(list(zip(before, self.adapted[-1], strict=True)))
        return None if step.detectable is None else step.detectable * bits_per_byte(before)


def read_trajectory(records: Sequence[Record]) -> Trajectory:
    """From score records with "tokens_seen" (0 is the base) and, where seeds were repeated, "seed".

    Raises:
        DataError: no base or no adapted score, a size on other items than the base, or a score that cannot be summed.
    """
    scores = of_field(records)
    for record in scores:
        if not isinstance(record.get("tokens_seen"), int) or record["tokens_seen"] < 0:
            raise DataError(
                f"Item {record['item']!r} has the size {record.get('tokens_seen')!r}, which is no number of tokens: "
                "the trajectory was changed; run again."
            )
    runs = {key: list(run) for key, run in groupby(sorted(scores, key=_run_of), key=_run_of)}
    bases = [run for (tokens, _), run in runs.items() if tokens == 0]
    sizes = sorted({tokens for tokens, _ in runs if tokens})
    if not bases or not sizes:
        lacking = "base model" if sizes or not bases else "adapted one"
        raise DataError(f"The trajectory has no score of the {lacking}: score both on the same held-out documents.")
    base = bases[0]  # the base has no seed: every one is the same model
    adapted, counts, squares = [], [], []
    for size in sizes:
        pairs = [paired_scores(base, run) for (tokens, _), run in runs.items() if tokens == size]
        gains = np.array([bits_difference(run).value for run in pairs])
        counts.append(len(pairs))
        squares.append(float(((gains - gains.mean()) ** 2).sum()))
        adapted.append(tuple(_mean_of([run[i][1] for run in pairs]) for i in range(len(base))))
    return Trajectory(tuple(sizes), tuple(base), tuple(adapted), Repeats(tuple(counts), tuple(squares)))


def document_draws(measured: Trajectory, n_draws: int, rng: np.random.Generator) -> Floats:
    """(n_draws, k) gains: the same resampled documents at every size, since the sizes share them."""
    documents = np.array([record["document"] for record in measured.base])
    _, codes = np.unique(documents, return_inverse=True)
    n_bytes = np.bincount(codes, weights=[record["bytes"] for record in measured.base])
    base_nll = np.array([record["nll"] for record in measured.base])
    saved = np.stack(
        [
            np.bincount(codes, weights=(base_nll - [record["nll"] for record in records]) / math.log(2))
            for records in measured.adapted
        ],
        axis=1,
    )  # (documents, k) bits
    n = len(n_bytes)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=n_draws)
    drawn = counts @ saved / (counts @ n_bytes)[:, None]
    gains = saved.sum(axis=0) / n_bytes.sum()
    # n documents drawn from n vary less than n from all there are
    widened: Floats = gains + math.sqrt(n / (n - 1)) * (drawn - gains)
    return widened


def of_field(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record["slice"] == FIELD_SLICE]


def _run_of(record: Record) -> tuple[int, int]:
    return record["tokens_seen"], record.get("seed") or 0


def _mean_of(seeds: Sequence[Record]) -> Record:
    return {**seeds[0], "nll": sum(record["nll"] for record in seeds) / len(seeds)}
