"""Gain by tokens of training, as a curve that starts at zero: many curves that fit, not one.

    gain(D) = G (1 - (1 + D/D0)^-b)

Three parameters: flat at first, then a power law, ceiling G; the base model is the known point gain(0) = 0. A small b
is growth by the logarithm, without a ceiling in sight; a large one, with D0 in proportion, is exponential saturation.
With three or four sizes many such curves fit about as well, and they part beyond the data. So none is chosen: each
curve of a grid is weighed by how well it fits (least squares, G free, so there is no start to choose), and curves are
drawn by weight. The spread of the draws is the interval, their median the forecast.

How far a training run lands from its own curve is not known before seeds are repeated: the noise is weighed in the
same way, from a few sizes. The grid and the noise were chosen by simulation (benchmarks/forecasts.py): curves of six
families of which one is this one, four sizes, a run 0.5, 1 or 3 % of the gain off its curve. Median errors in % of the
gain, and how many per cent of the 80 % intervals held the truth:

    run off its curve by         the hidden full size           twice the data              four times
                              this  log-linear  last  held   this  log  last  held    this   log  last  held
    0.5 %                      2.1     5.0      13.1   89     2.0  3.9  10.5   78      3.9   8.5  18.3   78
    1 %                        2.8     5.3      13.2   85     2.5  4.1  10.6   79      4.7   8.9  18.2   76
    3 %                        5.6     6.9      13.8   64     4.4  5.6  11.0   75      8.0  10.5  18.8   71

With b from 0.1 to 1.5, G within three times the gain, a known noise of 1 % and an average with the log-linear form by
AIC, half of the intervals or fewer held it: that form can neither saturate nor grow like a logarithm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Parameters of the grid: b, and where the curve bends, D0 = bend * (1 + b), in units of the largest size.
POWERS = np.geomspace(0.02, 30.0, 12)
BENDS = np.geomspace(0.003, 5.0, 20)
NOISES = np.array([0.01, 0.02, 0.04])  # of the gain: how far one run lands from the curve; no form is exact within 1 %


@dataclass(frozen=True)
class Repeats:
    """How often each size was trained, and how far its runs lie apart.

    counts: (k,) runs with different seeds.  squares: (k,) summed squared deviations of their gains from their mean.
    """

    counts: tuple[int, ...]
    squares: tuple[float, ...]

    def without_last(self) -> "Repeats":
        return Repeats(self.counts[:-1], self.squares[:-1])


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves that fit, one a draw: (n,) levels at `tokens`, bends D0, powers b, and noises in the gain's unit."""

    tokens: float
    levels: Floats
    bends: Floats
    powers: Floats
    noises: Floats

    def at(self, tokens: Sequence[float] | Floats) -> Floats:
        """(n draws, len(tokens)) gains."""
        rise = _rise(np.asarray(tokens, dtype=np.float64)[None, :], self.bends[:, None], self.powers[:, None])
        whole = _rise(self.tokens, self.bends, self.powers)
        gains: Floats = self.levels[:, None] * rise / whole[:, None]
        return gains

    @property
    def ceilings(self) -> Floats:
        """(n,) G of each draw: many times the gain where the data show no end of growth."""
        ceilings: Floats = self.levels / _rise(self.tokens, self.bends, self.powers)
        return ceilings


def fit_curves(tokens: Sequence[int], gains: Floats, repeats: Repeats, rng: np.random.Generator) -> Curves:
    """One curve for each row of gains, drawn by how well it fits that row.

    tokens: (k,) sizes, rising, k >= 2.  gains: (n, k), one row a draw of documents (or one row many times).
    Flat priors on the level, log b and log bend; normal noise of the same size at all sizes, less where repeated.
    """
    sizes = np.asarray(tokens, dtype=np.float64)
    scale = float(np.abs(gains).max(axis=1).mean())
    power, bend, noise = (grid.ravel() for grid in np.meshgrid(POWERS, BENDS * sizes[-1], NOISES, indexing="ij"))
    bend = bend * (1 + power)
    shapes = _rise(sizes[:, None], bend, power) / _rise(sizes[-1], bend, power)  # (k, m), 1 at the largest size
    weights = np.asarray(repeats.counts, dtype=np.float64)

    relative = gains / scale
    norms = weights @ shapes**2  # (m,)
    levels = (relative * weights) @ shapes / norms  # (n, m), least squares
    misfits = np.maximum((relative**2 @ weights)[:, None] - levels**2 * norms, 0.0) + sum(repeats.squares) / scale**2
    freedom = sum(repeats.counts) - 1  # of all runs; the level takes one
    log_weights = -misfits / (2 * noise**2) - freedom * np.log(noise) - 0.5 * np.log(norms)
    chosen = _draw(log_weights, rng)

    rows = np.arange(len(gains))
    drawn = levels[rows, chosen] + noise[chosen] / np.sqrt(norms[chosen]) * rng.standard_normal(len(gains))
    return Curves(float(sizes[-1]), scale * drawn, bend[chosen], power[chosen], scale * noise[chosen])


def log_linear(tokens: Sequence[int], gains: Sequence[float], at: float) -> float:
    """The straight line over log tokens through the last three sizes (two where there are no more), at `at` tokens."""
    slope, level = np.polyfit(np.log(tokens[-3:]), np.asarray(gains[-3:]), 1)
    return float(level + slope * np.log(at))


def _rise(tokens: Floats | float, bend: Floats, power: Floats) -> Floats:
    """1 - (1 + tokens/bend)^-power, exact also where it is small."""
    rise: Floats = -np.expm1(-power * np.log1p(tokens / bend))
    return rise


def _draw(log_weights: Floats, rng: np.random.Generator) -> NDArray[np.intp]:
    """One column of each row, with a probability in proportion to exp(log weight)."""
    cumulated = np.exp(log_weights - log_weights.max(axis=1, keepdims=True)).cumsum(axis=1)
    thresholds = rng.random(len(cumulated)) * cumulated[:, -1]
    chosen: NDArray[np.intp] = (cumulated < thresholds[:, None]).sum(axis=1)
    return chosen
