"""How strongly to apply the adapter: the gain on the field against the forgetting of general text, at every strength.

From scores of the select half alone: curves through what was measured (frontier.py), a choice by rule (dial_choice.py),
and one confirmation on the test half, which chose nothing.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metier.evidence import dial_words as words
from metier.evidence.dial_choice import AS_TRAINED, BETTER, Choice, Limit, Mask, choose, earlier_point, feasible
from metier.evidence.frontier import Curve, Frontier, draw_frontier, fit_forgetting, fit_gain, general_text
from metier.evidence.gain import FIELD_SLICE
from metier.evidence.retention import ALL_TEXT, margin_of
from metier.evidence.statistics import ERROR, Estimate, Record, bits_difference, paired_scores
from metier.evidence.strengths import Change, Point, Strengths, quantile, read_strengths
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


# was it right? -------------------------------------------------------------------------------------------------------


def confirmation(dial: Mapping[str, Any], gain: Mapping[str, Any], retention: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the test half, read once at the chosen strength, bears the choice out: `dial.confirmation`.

    gain, retention: as in results.json.

    The band is that of the difference between the two halves: the 95 % intervals of both, added as squares. `passed` is
    true when the measured gain is surely above zero and not below the band, and every general slice is kept; false when
    it is below the band or a slice is lost; None where that is open, or nothing was foretold.
    """
    at, measured_text = dial["at_chosen"], next((one for one in retention["slices"] if one["name"] == ALL_TEXT), None)
    predicted = low = high = within = None
    if at and gain["ci_low"] is not None:
        predicted = at["gain"]
        reach = math.hypot(quantile(dial["df"], ERROR / 2) * at["gain_se"], (gain["ci_high"] - gain["ci_low"]) / 2)
        low, high = predicted - reach, predicted + reach
        within = low <= gain["diff"] <= high
    part = {
        "alpha": dial["chosen"],
        "passed": _passed(low, gain, retention),
        "within": within,
        "predicted": {"gain": predicted, "low": low, "high": high, "forgetting": at and at["forgetting"]},
        "measured": {
            "gain": gain["diff"],
            "low": gain["ci_low"],
            "high": gain["ci_high"],
            "forgetting": measured_text and measured_text["diff"],
            "forgetting_upper": measured_text and measured_text["upper_95"],
        },
        "retention": retention["passed"],
        "n_documents": gain["n_documents"],
        "method": "The test half, which chose nothing, was read once; the band holds the error of both halves (95 %).",
    }
    return {"sentence": words.confirmation(part), **part}


def _passed(low: float | None, gain: Mapping[str, Any], retention: Mapping[str, Any]) -> bool | None:
    if low is None:
        return None
    if gain["diff"] < low or retention["passed"] is False:
        return False
    return True if gain["ci_low"] > 0 and retention["passed"] else None


def leave_one_out(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Each measured strength between 0 and the highest foretold from the others: two rows, its gain and its forgetting.

    `within` says whether what was measured lies in the 90 % band of the curve; `miss` is the distance between the two
    as a share of the gain, or the forgetting, at the highest strength. Empty with fewer than three strengths.
    """
    strengths = read_strengths(records)
    texts = general_text(sorted(set(strengths.slices)))
    sides = (("gain", strengths.change(FIELD_SLICE).fallen), ("forgetting", strengths.change(*texts)))
    inner = strengths.last[:-1] if len(strengths.last) >= MIN_STRENGTHS else ()
    return [_foretold(name, change, point, strengths.last) for point in inner for name, change in sides]


def _foretold(name: str, change: Change, hidden: Point, last: Sequence[Point]) -> dict[str, Any]:
    fit = fit_gain if name == "gain" else fit_forgetting
    curve = fit(change.of([point for point in last if point != hidden]), np.array([hidden.alpha]))
    measured, highest = float(change.of([hidden]).values[0]), float(change.of(last[-1:]).values[0])
    low, predicted, high = (float(bound[0]) for bound in (curve.lower, curve.values, curve.upper))
    return {
        "alpha": hidden.alpha,
        "figure": name,
        "predicted": predicted,
        "low": low,
        "high": high,
        "measured": measured,
        "within": low <= measured <= high,
        "miss": abs(predicted - measured) / abs(highest) if highest else None,
    }


def tilt_advice(records: Sequence[Record]) -> dict[str, Any] | None:
    """Whether to apply the adapter more in deep layers than in shallow ones, at the same mean strength.

    records: as for `choose_dial`, some with a `tilt`. Compared at strength 1, or the highest that both have. Adopted
    when the field gains, or general text forgets less, by two standard errors, and the other is not worse by one.
    None where nothing was tilted.
    """
    tilted, plain = ([r for r in records if r["alpha"] and bool(r.get("tilt")) is kind] for kind in (True, False))
    last = max((record["step"] for record in plain), default=0)
    shared = {r["alpha"] for r in tilted if r["step"] == last} & {r["alpha"] for r in plain if r["step"] == last}
    if not shared:
        return None
    alpha = AS_TRAINED if AS_TRAINED in shared else max(shared)
    pairs = paired_scores(*([r for r in arm if (r["step"], r["alpha"]) == (last, alpha)] for arm in (plain, tilted)))
    texts = general_text(sorted({record["slice"] for record, _ in pairs}))
    field, text = (bits_difference([p for p in pairs if p[0]["slice"] in of]) for of in ([FIELD_SLICE], texts))
    adopt = _better(field, text) or _better(text, field)
    part = {
        "alpha": alpha,
        "tilt": tilted[0]["tilt"],
        "adopt": adopt,
        "gain": field.value,
        "gain_se": field.se,
        "forgotten_less": text.value,
        "forgotten_less_se": text.se,
        "n_documents": field.n_documents,
        "n_general_documents": text.n_documents,
    }
    return {"sentence": words.tilt(part), **part}


def _better(one: Estimate, other: Estimate) -> bool:
    if one.se is None or other.se is None:
        return False
    return one.value > BETTER * one.se and other.value >= -other.se
