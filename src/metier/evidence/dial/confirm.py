"""Was the dial right? The test half against what was foretold, each measured strength against the others, and a
strength that differs by layer against one that does not."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metier.evidence.dial import words
from metier.evidence.dial.choose import MIN_STRENGTHS
from metier.evidence.dial.frontier import fit_forgetting, fit_gain, general_text
from metier.evidence.dial.rule import AS_TRAINED, BETTER
from metier.evidence.dial.strengths import Change, Point, quantile, read_strengths
from metier.evidence.gain import FIELD_SLICE
from metier.evidence.retention import ALL_TEXT
from metier.evidence.statistics import ERROR, Estimate, Record, bits_difference, paired_scores


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


def left_out(records: Sequence[Record]) -> dict[str, Any] | None:
    """How many of the figures of `leave_one_out` lie in their bands; None where there are none."""
    rows = leave_one_out(records)
    if not rows:
        return None
    within = sum(row["within"] for row in rows)
    return {"sentence": words.left_out(rows), "within": within, "of": len(rows), "rows": rows}


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
