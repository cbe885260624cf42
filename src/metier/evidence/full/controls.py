"""Was it this field's text that helped? The adapted model against two of equal steps: one trained on text of another
field, one on the field's own words in random order.

Any training moves a model towards short rows, a form of address, an end token; a placebo gets that too. What only the
right text gives is what the controls lack.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from metier.evidence.gain import FIELD_SLICE
from metier.evidence.statistics import Estimate, Record, bits_difference, paired_scores, relative_difference
from metier.evidence.verdict import MIN_DOCUMENTS

PLACEBO, SHUFFLED = "placebo", "shuffled"
SAID = {PLACEBO: "text of another field", SHUFFLED: "the same words in random order"}
METHOD = (
    "Every control starts from the same base with a fresh adapter and takes as many steps of as many tokens at the "
    "same learning rate, with the same share of replay; only the field's text is replaced. All are scored on the same "
    "held-out items, and differences are paired by item, with t intervals over documents."
)


def controls(
    base: Sequence[Record],
    adapted: Sequence[Record],
    placebo: Sequence[Record],
    shuffled: Sequence[Record],
    placebo_text: str = "",
) -> dict[str, Any]:
    """The `controls` of results.json, from score records of the same items; other slices than 'field' are passed over.

    placebo_text: what the placebo was trained on, in words. A control that was not run is an empty list. `gain` of a
    model is base - model in bits per byte; `beaten_by` is control - adapted: positive where the right text did better.
    `passed`: True if every control is surely beaten, False if one surely is not, None where it cannot be told.

    Raises:
        DataError: the arms do not hold the same items.
    """
    of = {"base": base, "adapted": adapted, PLACEBO: placebo, SHUFFLED: shuffled}
    field = {name: [r for r in records if r["slice"] == FIELD_SLICE] for name, records in of.items()}
    run = [name for name in (PLACEBO, SHUFFLED) if field[name]]
    n_documents = len({record["document"] for record in field["base"]})
    found = {name: _control(name, field, placebo_text) for name in run}
    outcomes = [control["beaten"] for control in found.values()]
    passed = None if not outcomes or None in outcomes else all(outcomes)
    if False in outcomes:
        passed = False
    return {
        "unit": "bits per byte",
        "adapted": _gain(field["base"], field["adapted"]) if run else None,
        "controls": list(found.values()),
        "passed": passed,
        "n_documents": n_documents,
        "sentence": _sentence(list(found.values()), passed, n_documents),
        "method": METHOD,
    }


def _control(name: str, field: Mapping[str, Sequence[Record]], placebo_text: str) -> dict[str, Any]:
    pairs = paired_scores(field[name], field["adapted"])
    diff = bits_difference(pairs)
    low, high = diff.interval or (None, None)
    gain, of_adapted = _gain(field["base"], field[name]), _gain(field["base"], field["adapted"])
    share = gain["diff"] / of_adapted["diff"] if of_adapted["ci_low"] is not None and of_adapted["ci_low"] > 0 else None
    return {
        "name": name,
        "text": placebo_text or SAID[name] if name == PLACEBO else SAID[name],
        "gain": gain,
        "share_of_gain": share,
        "beaten_by": {
            "diff": diff.value,
            "ci_low": low,
            "ci_high": high,
            "relative": relative_difference(pairs).value,
            "n_items": diff.n_items,
            "n_documents": diff.n_documents,
        },
        "beaten": _beaten(diff),
    }


def _gain(base: Sequence[Record], other: Sequence[Record]) -> dict[str, Any]:
    diff = bits_difference(paired_scores(base, other))
    low, high = diff.interval or (None, None)
    return {"diff": diff.value, "ci_low": low, "ci_high": high}


def _beaten(diff: Estimate) -> bool | None:
    if diff.interval is None or diff.n_documents < MIN_DOCUMENTS:
        return None
    low, high = diff.interval
    return True if low > 0 else False if high <= 0 else None


def _sentence(found: Sequence[Mapping[str, Any]], passed: bool | None, n_documents: int) -> str:
    if not found:
        return "No control was trained, so it is not known whether any other text would have helped as much."
    if n_documents < MIN_DOCUMENTS:
        return f"Cannot tell: {n_documents} held-out documents are too few to compare controls on."
    where = f"{n_documents} held-out documents"
    if passed:
        beaten = " and ".join(f"{_bits(c)} than after as many steps on {c['text']}" for c in found)
        return f"It is the field's text that helped: on {where} the adapted model needs fewer bits per byte, {beaten}."
    first = next(c for c in found if c["beaten"] is passed)
    if first["beaten"] is False:
        return (
            f"It is not the field's text that helped: on {where} as many steps on {first['text']} did as well or "
            f"better ({_bits(first)})."
        )
    return (
        f"Cannot tell whether it is the field's text that helped: on {where} the difference to as many steps on "
        f"{first['text']} may be zero ({_bits(first)}); more held-out documents would decide."
    )


def _bits(control: Mapping[str, Any]) -> str:
    diff = control["beaten_by"]
    return f"{diff['diff']:.3f} ({diff['ci_low']:.3f} to {diff['ci_high']:.3f})".replace("-", "−")
