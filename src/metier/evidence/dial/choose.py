"""How strongly to apply the adapter: the gain on the field against the forgetting of general text, at every strength.

From scores of the select half alone: curves through what was measured (frontier.py), a choice by rule (rule.py),
and one confirmation on the test half, which chose nothing.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metier.evidence.dial import words
from metier.evidence.dial.frontier import Curve, Frontier, draw_frontier, general_text
from metier.evidence.dial.rule import AS_TRAINED, Choice, Limit, Mask, choose, earlier_point, feasible
from metier.evidence.dial.strengths import Change, Strengths, read_strengths
from metier.evidence.gain import FIELD_SLICE
from metier.evidence.retention import margin_of
from metier.evidence.statistics import Record
from metier.evidence.verdict import MIN_DOCUMENTS

MIN_STRENGTHS = 3  # other than 0: two make any quadratic fit
PICTURE_GRID = 0.05


def choose_dial(records: Sequence[Record], budget: float) -> dict[str, Any]:
    """The `dial` of results.json, from the records of evidence/dial.jsonl.

    records: score records of the select half with `step` and `alpha` too, the same items at each; alpha 0 is the base.
    budget: the share of the base's bits per byte that general text may lose.

    `curve` holds the fitted figures every 0.05, at the measured strengths and at the chosen one; `points` what was
    measured, of every step. Gains and forgetting are in bits per byte; bands are 90 %, so that each end is a one-sided
    95 % bound. With too few documents or strengths `curve` is empty, `chosen` is 1 and `decided` is false.

    Raises:
        DataError: the strengths do not hold the same items, or an item cannot be scored.
    """
    names = sorted({record["slice"] for record in records})
    missing = [] if FIELD_SLICE in names else ["the held-out field"]
    missing += [] if general_text(names) else ["general text"]
    missing += [] if any(record["alpha"] for record in records) else ["the adapter"]
    if missing:
        return _too_little(f"{' and '.join(missing)} {'was' if len(missing) == 1 else 'were'} not scored", budget)
    strengths = read_strengths(records)
    gained = strengths.change(FIELD_SLICE).fallen
    forgot = strengths.change(*general_text(names))
    points = _points(gained, forgot)
    counts = {"n_documents": gained.n_documents, "n_general_documents": forgot.n_documents}
    if shortage := _shortage(strengths, gained, forgot):
        return {**_too_little(shortage, budget), "points": points, **counts}
    frontier = draw_frontier(strengths)
    margins = {name: margin_of(name, base, budget) for name, base in frontier.base.items()}
    sure = feasible(frontier, margins)
    choice = choose(frontier, margins, sure)
    part = {**_figures(frontier, margins, sure, choice), "budget": budget, "points": points, **counts}
    return {"sentence": words.sentence(part), **part}


def _shortage(strengths: Strengths, gained: Change, forgot: Change) -> str | None:
    """Why no curve is drawn."""
    if (n := len(strengths.last)) < MIN_STRENGTHS:
        return f"{n} of at least {MIN_STRENGTHS} strengths were measured"
    if AS_TRAINED not in {point.alpha for point in strengths.last}:
        return "full strength was not measured"
    for name, change in (("the field", gained), ("general text", forgot)):
        if change.n_documents < MIN_DOCUMENTS:
            return f"{change.n_documents} of at least {MIN_DOCUMENTS} documents of {name} were measured"
    return None


def _too_little(reason: str, budget: float) -> dict[str, Any]:
    """Nothing to choose by: the adapter stays as it was trained."""
    return {
        "sentence": words.too_little(reason),
        "chosen": AS_TRAINED,
        "decided": False,
        "verdict": "undecided",
        "reason": reason,
        "budget": budget,
        "base": {},
        "at_chosen": None,
        "at_full": None,
        "df": None,
        "limit": None,
        "kept_gain": None,
        "curve": [],
        "points": [],
        "expected": [],
        "earlier": None,
        "n_documents": 0,
        "n_general_documents": 0,
        "method": f"no curve was drawn: {reason}",
    }


def _figures(frontier: Frontier, margins: Mapping[str, float], sure: Mask, choice: Choice) -> dict[str, Any]:
    chosen, full = frontier.index(choice.alpha), frontier.index(AS_TRAINED)
    gains, losses = frontier.gain.values, frontier.forgetting.values
    shown = {
        *(point.alpha for point in frontier.last),
        choice.alpha,
        *(a for a in frontier.alphas if round(a / PICTURE_GRID, 6) % 1 == 0),
    }
    rows = [_row(frontier, margins, sure, i) for i, a in enumerate(frontier.alphas) if a in shown]
    earlier = earlier_point(frontier)
    return {
        "chosen": choice.alpha,
        "decided": choice.decided,
        "verdict": choice.verdict,
        "reason": None if choice.decided else words.reason(choice),
        "base": {FIELD_SLICE: frontier.gained.base, **frontier.base},
        "at_chosen": _row(frontier, margins, sure, chosen),
        "at_full": _row(frontier, margins, sure, full),
        "df": frontier.gain.df,
        "limit": _limit(frontier, margins, choice.limit),
        "kept_gain": float(gains[chosen] / gains[full]) if gains[full] > 0 else None,
        "curve": [_at_zero(margins), *rows],
        "expected": [
            {"alpha": a, "gain": float(gains[full] * a * (2 - a)), "forgetting": float(losses[full] * a * a)}
            for a in (0.0, *(row["alpha"] for row in rows))
        ],
        "earlier": {**earlier, "sentence": words.earlier(earlier)} if earlier else None,
        "method": words.method(frontier),
    }


def _row(frontier: Frontier, margins: Mapping[str, float], sure: Mask, i: int) -> dict[str, Any]:
    """The curves' figures at one strength of the grid."""
    gain, alpha = frontier.gain, float(frontier.alphas[i])
    return {
        "alpha": alpha,
        "gain": float(gain.values[i]),
        "gain_low": float(gain.lower[i]),
        "gain_high": float(gain.upper[i]),
        "gain_se": float(gain.se[i]),
        "forgetting": float(frontier.forgetting.values[i]),
        "forgetting_upper": float(frontier.forgetting.upper[i]),
        "feasible": bool(sure[i]),
        "measured": alpha in {point.alpha for point in frontier.last},
        "slices": {name: _loss(frontier.slices[name], i, margin) for name, margin in margins.items()},
    }


def _loss(curve: Curve, i: int, margin: float) -> dict[str, float | None]:
    """upper is None for a slice of one document."""
    return {"loss": float(curve.values[i]), "upper": _finite(curve.upper[i]), "margin": margin}


def _limit(frontier: Frontier, margins: Mapping[str, float], limit: Limit | None) -> dict[str, Any] | None:
    if limit is None:
        return None
    loss = _loss(frontier.slices[limit.name], frontier.index(limit.alpha), margins[limit.name])
    return {"slice": limit.name, "alpha": limit.alpha, **loss}


def _at_zero(margins: Mapping[str, float]) -> dict[str, Any]:
    """The base, of which everything is known."""
    figures = ("alpha", "gain", "gain_low", "gain_high", "gain_se", "forgetting", "forgetting_upper")
    slices = {name: {"loss": 0.0, "upper": 0.0, "margin": margin} for name, margin in margins.items()}
    return {**dict.fromkeys(figures, 0.0), "feasible": True, "measured": True, "slices": slices}


def _points(gained: Change, forgot: Change) -> list[dict[str, Any]]:
    """What was measured at every step and strength. `pareto`: no other point gains as much and forgets as little."""
    pairs = list(zip(gained.values, forgot.values, strict=True))
    return [
        {
            "step": point.step,
            "alpha": point.alpha,
            "gain": float(gain),
            "gain_se": _finite(gain_se),
            "forgetting": float(forgetting),
            "forgetting_se": _finite(forgetting_se),
            "pareto": not any(g >= gain and f <= forgetting and (g, f) != (gain, forgetting) for g, f in pairs),
        }
        for point, (gain, forgetting), gain_se, forgetting_se in zip(
            gained.points, pairs, gained.se, forgot.se, strict=True
        )
    ]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
