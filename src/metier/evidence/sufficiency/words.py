"""What the sufficiency of the data comes to, in words; and the reasons for which it cannot be told."""

from collections.abc import Mapping
from typing import Any

from metier.evidence.verdict import MIN_DOCUMENTS

FEW_SIZES, FEW_DOCUMENTS, FALLING = "few sizes", "few documents", "quality or split problem"
NO_GAIN, OPEN, UNSEEN = "no gain", "open", "too small to see"
READ_WHOLE = 0.95  # of the available tokens: the last rows of a pass may not fill a step
READ_AGAIN = 1.5

QUALITY_METHOD = (
    "Bits per byte of the same held-out documents after equal steps on a random half of the text and on the half that "
    "is closest to the field (--select 0.5), paired; t interval over documents, and the spread of seeds where it was "
    "measured."
)


def sentence(found: Mapping[str, Any]) -> str:
    """`found` is the `sufficiency` of results.json without its words."""
    if found["decision"] == "more_data_pays":
        return f"More data pays. {_doubling(found)} {_where_from(found)} {_revealed(found)}".strip()
    if found["decision"] == "enough":
        return f"Enough. {_doubling(found)} {_enough_of(found)} {_revealed(found)}".strip()
    return f"Cannot tell. {_open(found)}".strip()


def method(found: Mapping[str, Any]) -> str:
    said = (
        "Bits per byte of the held-out documents of the select half, paired with the base, at each size; 95 % t "
        "intervals over documents. For each smaller size training went on beside the run with a falling rate: it is "
        "what a run of that length ends with."
    )
    if not found["forecast"]:
        return said
    return (
        f"{said} Curves G (1 − (1 + D/D0)^−b) through zero, drawn by how well they fit, each to one of 500 resamplings "
        "of the documents, the same at all sizes; one run is taken to land within 1 to 4 % of the gain of its curve, "
        f"sharpened where seeds were repeated ({found['n_runs']} runs for {len(found['sizes'])} sizes). Forecasts are "
        "medians with 80 % intervals; the hidden size is predicted from the smaller ones alone."
    )


def quality_sentence(found: Mapping[str, Any]) -> str:
    interval = "no interval"
    if found["ci_low"] is not None:
        interval = f"95 % interval {_signed(found['ci_low'])} to {_signed(found['ci_high'])}"
    figures = f"({_signed(found['diff'])} bits per byte, {interval}, {_documents(found)})"
    if found["decision"] == "clean":
        return f"Clean before you collect: the filtered half taught more than a random half of the same size {figures}."
    if found["decision"] == "keep":
        return f"Keep what the filter would drop: a random half taught more than the filtered one {figures}."
    luck = "" if found["seed_sd"] else "; a second seed of each would show how much of it is luck"
    return (
        f"Cannot tell whether cleaning or collecting helps more {figures}: more held-out documents would decide it"
        f"{luck}."
    )


def _doubling(found: Mapping[str, Any]) -> str:
    doubling, base = found["per_doubling"], found["base"]
    gain = found["sizes"][-1]["gain"]
    return (
        f"Twice the data would save about {_points(doubling['gain'], base)} of the base's bits more "
        f"(80 % interval {_range(doubling['low'] / base, doubling['high'] / base)}), beside the "
        f"{_points(gain, base)} that it saves now."
    )


def _where_from(found: Mapping[str, Any]) -> str:
    passes = _passes(found)
    if passes < READ_WHOLE:
        return (
            f"The run read only {100 * passes:.0f} % of your own text ({found['trained_tokens']:,} of "
            f"{found['available_tokens']:,} tokens): try a longer run (--minutes) first, before new text."
        )
    if passes < READ_AGAIN:
        return "The run read all of your text once, so more data means new text."
    return f"The run read all of your text {passes:.1f} times, so only new text adds."


def _enough_of(found: Mapping[str, Any]) -> str:
    high = found["per_doubling"]["share_high"]
    passes = _passes(found)
    left = f", though only {100 * passes:.0f} % of your text was read" if passes < READ_WHOLE else ""
    return f"That is at most {100 * max(high, 0.0):.1f} % of the gain{left}."


def _revealed(found: Mapping[str, Any]) -> str:
    hidden = found["hidden"]
    if hidden is None:
        return ""
    error = f"{100 * abs(hidden['error_share']):.1f} % of the gain"
    if hidden["within"]:
        return f"The full size, hidden from the curve at first, was foretold with an error of {error}."
    return f"Take it with care: the full size, hidden from the curve at first, was missed by {error}."


def _open(found: Mapping[str, Any]) -> str:
    sizes, n_sizes, base = found["sizes"], len(found["sizes"]), found["base"]
    reason = found["reason"]
    if reason == FEW_SIZES:
        measured = f"{n_sizes} {'was' if n_sizes == 1 else 'were'} measured"
        return f"A curve needs three sizes of the data and {measured}: let the run score more of them."
    if reason == FEW_DOCUMENTS:
        return f"The sizes were scored on {_documents(found)}; {MIN_DOCUMENTS} or more would show a curve."
    if reason == FALLING:
        best = max([{"share": 0.0, "gain": 0.0}, *sizes[:-1]], key=lambda size: size["gain"])
        before = f"after {100 * best['share']:.0f} % of the run" if best["gain"] > 0 else "before training"
        return (
            f"The held-out documents are predicted worse at the end ({_points(sizes[-1]['gain'], base)} of the base's "
            f"bits saved) than {before} ({_points(best['gain'], base)}): a matter of quality, of the split or of too "
            "much training, not of the amount of data. See that the training texts are of the field and form of the "
            "held-out ones, and train less or at a lower rate."
        )
    if reason == NO_GAIN:
        low, gain, high = (sizes[-1][key] for key in ("ci_low", "gain", "ci_high"))
        return (
            f"There is no gain to follow on {_documents(found)}: {_points(gain, base)} of the base's bits "
            f"(95 % interval {_range(low / base, high / base)}). {_what_shows_a_gain(found)}"
        )
    if reason == UNSEEN:
        return (
            f"{_doubling(found)} These {_documents(found)} cannot show a difference under "
            f"{_points(found['detectable'], base)}: hold out more documents to see it."
        )
    doubling = found["per_doubling"]
    added = _range(doubling["share_low"], doubling["share_high"])
    return (
        f"Twice the data would add {added} of the gain (80 % interval): "
        "neither surely worth having, which is 5 %, nor surely not, which is under 2 %. "
        f"{_what_narrows(found)} {_revealed(found)}"
    )


def _what_narrows(found: Mapping[str, Any]) -> str:
    if _passes(found) < READ_WHOLE:
        return _where_from(found)
    return "Repeating the sizes with other seeds would narrow it."


def _what_shows_a_gain(found: Mapping[str, Any]) -> str:
    if _passes(found) < READ_WHOLE:
        return _where_from(found)
    return "A higher learning rate, more passes, or texts closer to the held-out ones would have to show one first."


def _passes(found: Mapping[str, Any]) -> float:
    return float(found["trained_tokens"] / found["available_tokens"])


def _documents(found: Mapping[str, Any]) -> str:
    n = found["n_documents"]
    return f"{n:,} held-out document{'' if n == 1 else 's'}"


def _points(bits: float, base: float) -> str:
    return f"{_one_place(bits / base)} %"


def _range(low: float, high: float) -> str:
    joined = "–" if low >= 0 else " to "
    return f"{_one_place(low)}{joined}{_one_place(high)} %"


def _one_place(share: float) -> str:
    return f"{100 * share:.1f}".replace("-0.0", "0.0").replace("-", "−")


def _signed(bits: float) -> str:
    return f"{bits:+.4f}".replace("-", "−")
