"""Which strength, by rule: the smallest whose gain is as good as the best that the budget for forgetting allows.

1. Feasible: a strength at which every slice is shown to stay within its margin, at 5 % with Holm over the slices.
2. Of these the one with the largest gain, or a smaller one whose gain is not told from it: the smallest strength at
   which the gain falls short of the largest by no more than one standard error *of that shortfall*, and by a tenth
   at most. The error of the gain itself would be the wrong one. Both gains are of the same documents, so most of it
   is in both; over twenty documents it is often a quarter of the gain, and would turn the adapter down to half for
   no better reason than that documents differ.
3. Where the bounds cost more than a tenth of the gain that would be had at strengths whose measured losses take no
   more than half of every margin, the texts are too few to tell: the choice is among those, and called undecided. A
   bound that is wide for want of texts says nothing against the adapter, and nothing for it; half, because a measured
   loss just within the margin is beyond it in truth half of the time.
4. Where no strength is feasible: the measured one that loses least, in margins, among those that surely gain.
5. Without a sure gain: strength 1, as trained, undecided. Sure is the lower end of the 95 % interval, as in gain.py:
   the largest of many strengths is above a one-sided bound by chance in 7 % of runs.

Where what is allowed has less than 60 % of the largest gain of all, the frontier is called too poor.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from metier.evidence.dial.frontier import Frontier
from metier.evidence.dial.strengths import quantile
from metier.evidence.statistics import ERROR, Floats
from metier.evidence.verdict import SMALLEST_GAIN

AS_TRAINED = 1.0
KEEP_ALL = 0.95  # strength; turning the dial down by less is not worth a word
POOR = 0.6  # of the largest gain; a budget that allows less asks for another training, not for a dial
COMFORTABLE = 0.5  # of its margin: a measured loss that may be taken for one within it, without a bound to show it
MOST_GIVEN_UP = 0.1  # of the largest gain allowed, for want of documents
BETTER = 2.0  # standard errors by which an earlier step must win
NO_ERROR = 1e-12  # bits per byte: stands in for the error of a change that is the same in every draw
Mask = NDArray[np.bool_]


class Limit(NamedTuple):
    """The slice that stands against a strength."""

    name: str
    alpha: float


class Choice(NamedTuple):
    """alpha: the strength to apply; limit: what stands against full strength, None where nothing does."""

    alpha: float
    decided: bool
    verdict: str
    limit: Limit | None = None


def choose(frontier: Frontier, margins: Mapping[str, float], sure: Mask) -> Choice:
    """margins: bits per byte by slice. sure: (grid,), from `feasible`."""
    gain = frontier.gain
    top = int(gain.values.argmax())
    if gain.values[top] <= quantile(gain.df, ERROR / 2) * gain.se[top]:
        too_small = gain.upper[top] < SMALLEST_GAIN * frontier.gained.base
        return Choice(AS_TRAINED, False, "no gain" if too_small else "undecided")
    losses = [frontier.slices[name].values / margin for name, margin in margins.items()]
    seeming = sure | np.all(np.array(losses) <= COMFORTABLE, axis=0)
    limit = _limit(frontier, margins, sure)
    shown, likely = (_share_allowed(gain.values, mask) for mask in (sure, seeming))
    if shown < (1 - MOST_GIVEN_UP) * likely:
        verdict = "undecided" if likely >= POOR else "frontier too poor"
        return Choice(_smallest_as_good(frontier, seeming), False, verdict, limit)
    if shown >= POOR:
        alpha = _smallest_as_good(frontier, sure)
        return Choice(alpha, True, "keep all" if alpha >= KEEP_ALL else "turned down", limit)
    if shown > 0:
        return Choice(_smallest_as_good(frontier, sure), True, "frontier too poor", limit)
    return Choice(_least_loss(frontier, margins), False, "frontier too poor", limit)


def feasible(frontier: Frontier, margins: Mapping[str, float]) -> Mask:
    """(grid,): every slice is shown to lose no more than its margin, by one-sided t tests at 5 % with Holm over slices.

    Holm's rule rejects all of m hypotheses where the smallest p is under 5 % / m, the next under 5 % / (m - 1), and so
    on to the largest under 5 % (Holm 1979).
    """
    p_values = np.sort([_p_beyond(frontier, name, margin) for name, margin in margins.items()], axis=0)
    thresholds = ERROR / np.arange(len(margins), 0, -1)
    return np.asarray((p_values <= thresholds[:, None]).all(axis=0))


def _p_beyond(frontier: Frontier, name: str, margin: float) -> Floats:
    """(grid,): the probability of a loss as small as the measured one where the true loss is the margin."""
    curve = frontier.slices[name]
    if curve.df is None:
        return np.ones(len(curve.alphas))
    p_values: Floats = stats.t.sf((margin - curve.values) / np.maximum(curve.se, NO_ERROR), curve.df)
    return p_values


def _share_allowed(gains: Floats, mask: Mask) -> float:
    """The largest gain among these strengths as a share of the largest of all, which is positive."""
    return float(gains[mask].max() / gains.max()) if mask.any() else 0.0


def _smallest_as_good(frontier: Frontier, mask: Mask) -> float:
    """The one-standard-error rule among these strengths, of which one has a gain."""
    gain = frontier.gain
    best = int(np.where(mask, gain.values, -np.inf).argmax())
    shortfall = gain.values[best] - gain.values
    error = (gain.drawn[:, [best]] - gain.drawn).std(axis=0)
    as_good = mask & (shortfall <= np.minimum(error, MOST_GIVEN_UP * gain.values[best]))
    as_good[best] = True
    return float(frontier.alphas[as_good].min())


def _least_loss(frontier: Frontier, margins: Mapping[str, float]) -> float:
    """The measured strength whose worst slice loses the fewest margins, among those with a sure gain."""
    at = [frontier.index(point.alpha) for point in frontier.last]
    gaining = [i for i in at if frontier.gain.lower[i] > 0] or at
    worst = np.max([frontier.slices[name].values / margin for name, margin in margins.items()], axis=0)
    return float(frontier.alphas[min(gaining, key=lambda i: worst[i])])


def _limit(frontier: Frontier, margins: Mapping[str, float], sure: Mask) -> Limit | None:
    """The slice least surely within its margin at full strength, or at that of the largest gain where it is lower."""
    top = int(frontier.gain.values.argmax())
    at = top if frontier.alphas[top] < KEEP_ALL else frontier.index(AS_TRAINED)
    if sure[at]:
        return None
    return Limit(
        max(margins, key=lambda name: _p_beyond(frontier, name, margins[name])[at]), float(frontier.alphas[at])
    )


def earlier_point(frontier: Frontier) -> dict[str, Any] | None:
    """The point of an earlier step that beats the last step's curve most surely: more gain than the curve has at no
    more forgetting, by two standard errors over the draws of both. Strength 0 is on every curve."""
    found = []
    for i, point in enumerate(frontier.points):
        if point in frontier.last:
            continue
        on_curve = _gain_at(frontier.forgetting.values[None], frontier.gain.values[None], frontier.forgot.values[[i]])
        drawn = _gain_at(frontier.forgetting.drawn, frontier.gain.drawn, frontier.forgot.drawn[:, i])
        excess = float(frontier.gained.values[i] - on_curve[0])
        error = float((frontier.gained.drawn[:, i] - drawn).std())
        if excess > BETTER * error:
            found.append((excess / max(error, NO_ERROR), i, excess, error))
    if not found:
        return None
    _, i, excess, error = max(found)
    return {
        "step": frontier.points[i].step,
        "alpha": frontier.points[i].alpha,
        "gain": float(frontier.gained.values[i]),
        "forgetting": float(frontier.forgot.values[i]),
        "excess": excess,
        "excess_se": error,
    }


def _gain_at(forgetting: Floats, gain: Floats, most: Floats) -> Floats:
    """(rows,): the largest gain on each row's curve with no more forgetting than `most`. Curves are (rows, grid)."""
    within: Floats = np.where(forgetting <= most[:, None], gain, 0.0).max(axis=1)
    return np.maximum(within, 0.0)
