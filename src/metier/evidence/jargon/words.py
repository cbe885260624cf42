"""Whether the terms were learned, by rule, and in words."""

import math
from collections.abc import Mapping
from typing import Any

from metier.evidence.verdict import SMALLEST_GAIN

MIN_TERMS, MIN_OCCURRENCES = 20, 50  # with controls; fewer are too much at the mercy of which terms they are
MOST_OF_THE_DROP = 0.5  # of the terms' drop: surely less than this beyond the register is "register only"


def decide(found: Mapping[str, Any], language: str) -> dict[str, str]:
    n_terms, n_occurrences = found["n_terms"], found["n_occurrences"]
    if n_terms < MIN_TERMS or n_occurrences < MIN_OCCURRENCES:
        return {"decision": "cannot_tell", "sentence": _too_few(found, language)}
    drop, beyond = found["term_drop"], found["beyond"]
    if drop["ci_low"] > 0:
        if beyond["ci_low"] > 0:
            return {"decision": "learned", "sentence": _learned(found)}
        if beyond["ci_high"] < MOST_OF_THE_DROP * drop["value"]:
            return {"decision": "register_only", "sentence": _register_only(found)}
        return {"decision": "cannot_tell", "sentence": _too_wide(found)}
    if drop["ci_high"] < SMALLEST_GAIN * found["base"]:
        return {"decision": "no", "sentence": _not_easier(found)}
    return {"decision": "cannot_tell", "sentence": _no_drop_shown(found)}


def _learned(found: Mapping[str, Any]) -> str:
    return (
        f"It learned terms of the field beyond its register: {_drops(found)}, {_beyond(found)} more "
        f"({_range(found['beyond'])})."
    )


def _register_only(found: Mapping[str, Any]) -> str:
    return (
        f"It learned the register of the field, and its terms no more than other words: {_drops(found)}, a difference "
        f"of {_beyond(found)} ({_range(found['beyond'])}), surely less than half of what the terms saved."
    )


def _too_wide(found: Mapping[str, Any]) -> str:
    beyond, drop = found["beyond"], found["term_drop"]
    half_width = (beyond["ci_high"] - beyond["ci_low"]) / 2
    needed = math.ceil(found["n_terms"] * (half_width / (MOST_OF_THE_DROP * drop["value"] / 2)) ** 2)
    more = f": about {needed:,} terms in held-out text would settle it" if needed > found["n_terms"] else ""
    return (
        f"Cannot tell whether the terms were learned beyond the register: {_drops(found)}, and the difference of "
        f"{_beyond(found)} may be nothing or much of it ({_range(beyond)}){more}."
    )


def _not_easier(found: Mapping[str, Any]) -> str:
    drop = found["term_drop"]
    return (
        f"It did not learn the field's terms: on {_counts(found)} the model saves {_bits(drop['value'])} bits per byte "
        f"({_range(drop)})."
    )


def _no_drop_shown(found: Mapping[str, Any]) -> str:
    drop = found["term_drop"]
    return (
        f"Cannot tell whether the field's terms became easier: on {_counts(found)} the model saves "
        f"{_bits(drop['value'])} bits per byte, and the interval holds both nothing and a gain worth having "
        f"({_range(drop)}). More held-out documents would settle it."
    )


def _too_few(found: Mapping[str, Any], language: str) -> str:
    if found["n_unmatched"] and not found["n_controls"]:
        return (
            f"Cannot tell whether the terms were learned: none of their {found['n_unmatched']} held-out occurrences "
            f"has ordinary words of the language {language!r} like it to compare with. Hold out more documents."
        )
    return (
        f"Cannot tell whether the terms were learned: {_counts(found)} can be compared, and {MIN_TERMS} terms with "
        f"{MIN_OCCURRENCES} are needed. Hold out more documents."
    )


def _drops(found: Mapping[str, Any]) -> str:
    return (
        f"{_counts(found)} became {_bits(found['term_drop']['value'])} bits per byte easier, ordinary words like them "
        f"{_bits(found['control_drop']['value'])}"
    )


def _counts(found: Mapping[str, Any]) -> str:
    return f"{found['n_terms']:,} terms in {found['n_occurrences']:,} held-out places"


def _beyond(found: Mapping[str, Any]) -> str:
    return _bits(found["beyond"]["value"])


def _range(estimate: Mapping[str, Any]) -> str:
    return f"95 % interval {_bits(estimate['ci_low'])} to {_bits(estimate['ci_high'])}"


def _bits(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")
