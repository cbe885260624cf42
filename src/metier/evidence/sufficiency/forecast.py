"""Was there enough data? The gain at several sizes of the data, the curve through them, and what more would add.

The largest size is always hidden from a first fit, predicted and revealed; the forecast beyond the data comes from a
second fit to all sizes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from metier.evidence.statistics import (
    Estimate,
    Record,
    bits_per_byte,
)
from metier.evidence.sufficiency.learning_curve import NOISES, Curves, Floats, fit_curves, log_linear
from metier.evidence.sufficiency.sizes import Trajectory, document_draws, read_trajectory
from metier.evidence.sufficiency.words import (
    FALLING,
    FEW_DOCUMENTS,
    FEW_SIZES,
    NO_GAIN,
    OPEN,
    UNSEEN,
    method,
    sentence,
)
from metier.evidence.verdict import MIN_DOCUMENTS, SMALLEST_GAIN

MIN_SIZES = 3  # beside the base: with two, any curve fits
WORTH_HAVING = 0.05  # of the gain so far, from the next doubling
NOT_WORTH_HAVING = 0.02
TIMES = (2, 4)  # of the data; beyond it curves that fit alike say anything
ROUGH_BEYOND = 2
DRAWS = 500
QUANTILES = (0.1, 0.5, 0.9)  # low, forecast, high of an 80 % interval
SPREAD = float(NOISES[1])  # of the gain: the usual distance of one run from the curve
PICTURE_POINTS = 33


@dataclass(frozen=True)
class Doubling:
    """What twice the data would add, low, middle and high of 80 %: in bits per byte, and as a share of the gain."""

    added: tuple[float, float, float]
    share: tuple[float, float, float]


def sufficiency(
    records: Sequence[Record], trained_tokens: int, available_tokens: int, detectable: float | None = None
) -> dict[str, Any]:
    """The `sufficiency` of results.json, from score records of the field's select half at several sizes.

    records: score records with "tokens_seen", the field tokens that the weights had learned from (0 is the base), and
    optionally "seed"; other slices than 'field' are passed over.
    trained_tokens, available_tokens: field tokens that the run learned from, repeats counted, and that the data hold.
    detectable: bits per byte that further data must add to be seen; None takes what these documents can show of the
    last step between two sizes.

    `decision` is 'more_data_pays' when the next doubling is worth 5 % of the gain (and surely 2 %: the lower end of the
    80 % interval) and can be seen, 'enough' when the upper end lies below 2 %, else 'cannot_tell' with its `reason`.

    Raises:
        DataError: no base score, a size scored on other items than the base, or a score that cannot be summed.
    """
    measured = read_trajectory(records)
    gains = measured.gains
    found: dict[str, Any] = {
        "sizes": _sizes(measured.tokens, gains),
        "base": bits_per_byte(measured.base),
        "hidden": None,
        "forecast": [],
        "per_doubling": None,
        "curve": [],
        "ceiling": None,
        "share_of_ceiling": None,
        "detectable": measured.detectable if detectable is None else detectable,
        "trained_tokens": trained_tokens,
        "available_tokens": available_tokens,
        "n_documents": gains[-1].n_documents,
        "n_runs": sum(measured.repeats.counts),
    }
    reason = _nothing_to_fit(measured, gains)
    decision = "cannot_tell"
    if reason is None:
        rng = np.random.default_rng(0)
        found["hidden"] = _hide_largest(measured, [gain.value for gain in gains], rng)
        curves = fit_curves(measured.tokens, document_draws(measured, DRAWS, rng), measured.repeats, rng)
        doubling = _doubling(curves)
        found |= _forecast(curves, doubling, measured.tokens)
        decision, reason = decide(doubling, found["detectable"])
    found |= {"decision": decision, "reason": reason}
    return {**found, "sentence": sentence(found), "method": method(found)}


def _sizes(tokens: Sequence[int], gains: Sequence[Estimate]) -> list[dict[str, Any]]:
    sizes = []
    for size, gain in zip(tokens, gains, strict=True):
        low, high = gain.interval or (None, None)
        sizes.append({"tokens": size, "share": size / tokens[-1], "gain": gain.value, "ci_low": low, "ci_high": high})
    return sizes


def _nothing_to_fit(measured: Trajectory, gains: Sequence[Estimate]) -> str | None:
    """Why no curve can be drawn through these sizes; None where one can."""
    if len(measured.tokens) < MIN_SIZES:
        return FEW_SIZES
    if gains[-1].n_documents < MIN_DOCUMENTS:
        return FEW_DOCUMENTS
    if max(abs(gain.value) for gain in gains) < SMALLEST_GAIN * bits_per_byte(measured.base):
        return NO_GAIN  # a curve through gains that small follows the luck of training
    if _falls(measured, [gain.value for gain in gains]):
        return FALLING
    interval = gains[-1].interval
    return NO_GAIN if interval is None or interval[0] <= 0 else None


def _falls(measured: Trajectory, gains: Sequence[float]) -> bool:
    """The largest size is surely worse than an earlier one or the base, at 5 %, the luck of two runs counted."""
    earlier = [(0.0, measured.base), *zip(gains[:-1], measured.adapted[:-1], strict=True)]
    _, best = max(earlier, key=lambda size: size[0])
    growth = measured.growth_from(best)
    luck = math.sqrt(2) * SPREAD * max(abs(gain) for gain in gains)
    upper = replace(growth, se=math.hypot(growth.se or 0.0, luck)).upper()
    return upper is not None and upper < 0


def _hide_largest(measured: Trajectory, gains: Sequence[float], rng: np.random.Generator) -> dict[str, Any] | None:
    """The largest size predicted from the others, then revealed. Both are of the same documents, so which documents
    they are adds nothing to the error, and what is predicted is one more run with the luck of a run. Errors are shares
    of what it got."""
    *visible, got = gains
    if max(visible) <= 0:
        return None  # nothing was gained yet at the smaller sizes: there is no curve to go on
    tokens = measured.tokens
    repeats = measured.repeats
    curves = fit_curves(tokens[:-1], np.tile(visible, (DRAWS, 1)), repeats.without_last(), rng)
    drawn = curves.at([tokens[-1]])[:, 0]
    landed = drawn + curves.noises / math.sqrt(repeats.counts[-1]) * rng.standard_normal(DRAWS)
    low, predicted, high = _quantiles(landed)
    return {
        "tokens": tokens[-1],
        "predicted": predicted,
        "low": low,
        "high": high,
        "got": got,
        "error_share": (predicted - got) / got,
        "last_value_error": (visible[-1] - got) / got,
        "log_linear_error": (log_linear(tokens[:-1], visible, tokens[-1]) - got) / got,
        "within": low <= got <= high,
    }


def _doubling(curves: Curves) -> Doubling:
    now, twice = curves.at([curves.tokens, 2 * curves.tokens]).T
    added = twice - now
    gained = now > 0  # a draw without a gain has no share of it; there are few, the gain's interval lies above zero
    return Doubling(_quantiles(added), _quantiles(added[gained] / now[gained]))


def _forecast(curves: Curves, doubling: Doubling, tokens: Sequence[int]) -> dict[str, Any]:
    full = tokens[-1]
    forecast = []
    for times in TIMES:
        low, gain, high = _quantiles(curves.at([times * full])[:, 0])
        forecast.append(
            {
                "times": times,
                "tokens": times * full,
                "gain": gain,
                "low": low,
                "high": high,
                "rough": times > ROUGH_BEYOND,
            }
        )
    reached = curves.at([full])[:, 0] / curves.ceilings
    surely_reached, share, _ = _quantiles(reached)
    in_sight = surely_reached >= 1 / 3  # else the ceiling is a number of the grid, not of the data
    points = np.geomspace(tokens[0] / 4, TIMES[-1] * full, PICTURE_POINTS)
    lows, middles, highs = np.quantile(curves.at(points), QUANTILES, axis=0).tolist()
    return {
        "forecast": forecast,
        "per_doubling": {
            **dict(zip(("low", "gain", "high"), doubling.added, strict=True)),
            **dict(zip(("share_low", "share", "share_high"), doubling.share, strict=True)),
        },
        "ceiling": _quantiles(curves.ceilings)[1] if in_sight else None,
        "share_of_ceiling": share if in_sight else None,
        "curve": [
            {"tokens": at, "low": low, "gain": gain, "high": high}
            for at, low, gain, high in zip(points.tolist(), lows, middles, highs, strict=True)
        ],
    }


def decide(doubling: Doubling, detectable: float | None) -> tuple[str, str | None]:
    """(decision, reason). The lower end must exclude 'enough': with the middle alone one call in four of 'pays' is made
    where a doubling adds 2 to 5 % (benchmarks/forecasts.py)."""
    low, middle, high = doubling.share
    if high < NOT_WORTH_HAVING:
        return "enough", None
    if middle < WORTH_HAVING or low < NOT_WORTH_HAVING:
        return "cannot_tell", OPEN
    if detectable is not None and doubling.added[1] < detectable:
        return "cannot_tell", UNSEEN
    return "more_data_pays", None


def _quantiles(values: Floats) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, QUANTILES).tolist()
    return low, middle, high
