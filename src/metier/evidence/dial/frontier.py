"""Gain against forgetting over every strength of an adapter: smooth curves through what was measured at a few."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.interpolate import PchipInterpolator

from metier.evidence.dial.strengths import Change, Point, Strengths, quantile, spread
from metier.evidence.gain import FIELD_SLICE
from metier.evidence.retention import ALL_TEXT
from metier.evidence.statistics import ERROR, Floats
from metier.evidence.verdict import MIN_DOCUMENTS
from metier.sources.general import REGISTERS

CUBIC_STRENGTHS = 4  # measured ones that a cubic needs, to have one to spare
POORLY_FITTED = 2.0  # standard errors of a residual; beyond it the curve goes through the measured points instead
EXACT = 1e-12  # bits per byte: no miss at all
LEAST_VARIANCE = 1e-9  # of the largest: a strength that changed nothing must not outweigh all others
HIGHEST = 1.25  # strength; beyond it the adapter is applied to what it never saw
GRID = 0.01


@dataclass(frozen=True, eq=False)
class Curve:
    """A change at every strength of a grid. Shapes: (grid,) and (DRAWS, grid)."""

    alphas: Floats
    values: Floats
    drawn: Floats
    df: float | None
    shape: str  # "quadratic", "cubic" or "interpolated"

    @cached_property
    def se(self) -> Floats:
        return spread(self.drawn, self.df)

    @cached_property
    def upper(self) -> Floats:
        """The one-sided 95 % bound at each strength; infinite for one document."""
        bound: Floats = self.values + quantile(self.df, ERROR) * self.se
        return bound

    @cached_property
    def lower(self) -> Floats:
        bound: Floats = self.values - quantile(self.df, ERROR) * self.se
        return bound


@dataclass(frozen=True, eq=False)
class Frontier:
    """The curves of the last step's weights, and every measured point of theirs and of earlier steps."""

    alphas: Floats  # (grid,)
    points: tuple[Point, ...]
    last: tuple[Point, ...]
    gain: Curve
    forgetting: Curve  # of all general text together
    slices: Mapping[str, Curve]  # every one that a budget holds for, all text together among them
    gained: Change
    forgot: Change
    base: Mapping[str, float]  # bits per byte of each slice at strength 0

    def index(self, alpha: float) -> int:
        return int(np.abs(self.alphas - alpha).argmin())


def draw_frontier(strengths: Strengths) -> Frontier:
    """From three strengths or more of the last step, field and general text among the slices."""
    alphas = grid(strengths.last)
    names = dict.fromkeys(strengths.slices)
    gained = strengths.change(FIELD_SLICE).fallen
    forgot = strengths.change(*general_text(list(names)))
    parts = {name: strengths.change(name) for name in names if name != FIELD_SLICE}
    # A kind of which there are two documents has bounds that no strength could meet; it counts in all text together.
    judged = {ALL_TEXT: forgot, **{n: change for n, change in parts.items() if change.n_documents >= MIN_DOCUMENTS}}
    slices = {name: fit_forgetting(change.of(strengths.last), alphas) for name, change in judged.items()}
    return Frontier(
        alphas=alphas,
        points=strengths.points,
        last=strengths.last,
        gain=fit_gain(gained.of(strengths.last), alphas),
        forgetting=slices[ALL_TEXT],
        slices=slices,
        gained=gained,
        forgot=forgot,
        base={name: change.base for name, change in judged.items()},
    )


def grid(points: Sequence[Point]) -> Floats:
    """Strengths in steps of GRID, and the measured ones, up to the largest measured: never beyond."""
    measured = [point.alpha for point in points]
    highest = min(max(measured), HIGHEST)
    steps = [round(i * GRID, 2) for i in range(1, round(HIGHEST / GRID) + 1)]
    return np.array(sorted({alpha for alpha in (*steps, *measured) if alpha <= highest}))


def general_text(names: Sequence[str]) -> list[str]:
    """The slices that are general text together: our registers, as in retention.py; the user's where those are all."""
    texts = [name for name in names if name.startswith(f"{ALL_TEXT}/")]
    return [name for name in texts if name.removeprefix(f"{ALL_TEXT}/") in REGISTERS] or texts


def fit_gain(change: Change, alphas: Floats) -> Curve:
    """A cubic where a strength is left over to check it by, else a quadratic, at these strengths."""
    return _fit(change, alphas, degree=3 if len(change.points) >= CUBIC_STRENGTHS else 2)


def fit_forgetting(change: Change, alphas: Floats) -> Curve:
    """A quadratic: near a minimum of the loss on general text, leaving it costs the square of the way."""
    return _fit(change, alphas, degree=2)


def _fit(change: Change, alphas: Floats, degree: int) -> Curve:
    """A polynomial without a constant, each measured strength weighed by the inverse of its bootstrap variance.

    Every draw is fitted by itself, with the same weights, so the spread of the curves is that of the whole fit. Where
    the polynomial misses a measured point by more than two standard errors of that residual, a monotone piecewise cubic
    (Fritsch and Carlson 1980) through 0 and the measured points stands in for it.
    """
    measured = np.array([point.alpha for point in change.points])
    powers = np.arange(1, min(degree, len(measured)) + 1)
    design = measured[:, None] ** powers
    variance = change.drawn.var(axis=0)
    weights = 1.0 / np.sqrt(np.maximum(variance, variance.max() * LEAST_VARIANCE or 1.0))
    solve = np.linalg.pinv(design * weights[:, None]) * weights  # (powers, measured): from values to coefficients
    misses, misses_drawn = (rows - rows @ (design @ solve).T for rows in (change.values, change.drawn))
    if (np.abs(misses) > POORLY_FITTED * misses_drawn.std(axis=0) + EXACT).any():
        value, drawn = (_through(measured, rows, alphas) for rows in (change.values[None], change.drawn))
        return Curve(alphas, value[0], drawn, change.df, "interpolated")
    to_grid = (alphas[:, None] ** powers) @ solve
    shape = "cubic" if len(powers) == 3 else "quadratic"
    return Curve(alphas, to_grid @ change.values, change.drawn @ to_grid.T, change.df, shape)


def _through(measured: Floats, rows: Floats, alphas: Floats) -> Floats:
    """(rows, grid) from (rows, points): through 0 and each row's points."""
    with_zero = np.concatenate([np.zeros((len(rows), 1)), rows], axis=1)
    values: Floats = PchipInterpolator([0.0, *measured], with_zero, axis=1)(alphas)
    return values
