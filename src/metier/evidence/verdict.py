"""The verdict: one decision, one sentence that can be read aloud, and its reasons.

In this order:
  forgot       a general slice surely lost more than its margin, whatever was gained
  no_gain      the gain is surely smaller than one worth having, or exactly nothing changed
  cannot_tell  too few held-out documents, or the interval of the gain holds both zero and a gain worth having
  cannot_tell  a gain, but a general slice is undecided, or the chat and answer slices are missing
  adapted      a gain, and every slice within its margin
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from metier.evidence.statistics import ERROR, POWER

SMALLEST_GAIN = 0.02  # of the base's bits: a smaller one is not worth a second model to keep
MIN_DOCUMENTS = 10  # held out; fewer are too much at the mercy of which ones they are, whatever their interval says
# a model can keep its bits per byte on plain text and be ruined as an assistant: 'adapted' is not said without these
REQUIRED_SLICES = ("chat/good answers", "chat/own answers", "answers/repetition", "answers/ended", "answers/length")
READABLE = {
    "text": "general text",
    "text/encyclopaedia": "encyclopaedia articles",
    "text/news": "news",
    "text/dialogue": "dialogue",
    "text/narrative": "stories",
    "text/instructions": "written instructions",
    "text/code": "source code",
    "chat/good answers": "good answers to general requests",
    "chat/own answers": "its own answers to general requests",
    "choices": "multiple-choice questions",
    "answers/repetition": "repetition in generated answers",
    "answers/ended": "generated answers that come to an end",
    "answers/length": "the length of generated answers against that of good ones",
}
NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
MORE_REPLAY = "Replay more general examples while training, train for fewer steps, or lower the learning rate."

Slice = Mapping[str, Any]


def decide(gain: Mapping[str, Any], retention: Mapping[str, Any] | None, unit: str = "document") -> dict[str, Any]:
    """The `verdict` of results.json.

    gain, retention: as in results.json; retention is None when it was not measured.
    unit: what was held out, for the words only: "document", "row" or "section".
    """
    measured: Sequence[Slice] = retention["slices"] if retention else []
    slices = [one for one in measured if not one.get("at_chance")]
    found = _decide(gain, slices, unit)
    blind = [one for one in measured if one.get("at_chance")]
    return {**found, "reasons": [*found["reasons"], *map(_cannot_lose, blind)]}


def _cannot_lose(one: Slice) -> str:
    return f"{_upper_first(readable(one['name']))}: the base does no better than chance, so they could not show a loss."


def _decide(gain: Mapping[str, Any], slices: Sequence[Slice], unit: str) -> dict[str, Any]:
    failed = [one for one in slices if one["passed"] is False]
    if failed:
        return _verdict("forgot", *_forgot(gain, failed, unit))
    if _no_gain(gain):
        return _verdict("no_gain", *_no_gain_words(gain, unit))
    if gain["n_documents"] < MIN_DOCUMENTS or gain["relative_ci_low"] is None:
        return _verdict("cannot_tell", *_few_documents(gain, unit))
    if gain["relative_ci_low"] <= 0:
        return _verdict("cannot_tell", *_unsure_gain(gain, unit))
    undecided = [one for one in slices if one["passed"] is None]
    missing = [name for name in REQUIRED_SLICES if name not in {one["name"] for one in slices}]
    if undecided or missing:
        return _verdict("cannot_tell", *_unsure_retention(gain, undecided, missing, unit))
    return _verdict("adapted", *_adapted(gain, slices, unit))


def readable(name: str) -> str:
    """A slice's name as it is said in a sentence."""
    return READABLE.get(name, name.split("/")[-1])


def _verdict(decision: str, sentence: str, reasons: list[str]) -> dict[str, Any]:
    return {"decision": decision, "sentence": sentence, "reasons": reasons}


def _no_gain(gain: Mapping[str, Any]) -> bool:
    if _unchanged(gain):
        return True
    sure = gain["n_documents"] >= MIN_DOCUMENTS and gain["relative_ci_high"] is not None
    return sure and bool(gain["relative_ci_high"] < SMALLEST_GAIN)


def _unchanged(gain: Mapping[str, Any]) -> bool:
    """Both models score every held-out document alike: a fact, not an estimate, so few documents will do."""
    return bool(gain["diff"] == 0 and gain["ci_low"] == 0 and gain["ci_high"] == 0)


# the sentences -------------------------------------------------------------------------------------------------------


def _adapted(gain: Mapping[str, Any], slices: Sequence[Slice], unit: str) -> tuple[str, list[str]]:
    worst = _worst(slices)
    sentence = (
        f"Adapted. {_gain_sentence(gain, unit)} "
        f"On {_kinds(slices)} it lost nothing beyond the margins (worst: {readable(worst['name'])}, {_loss(worst)})."
    )
    reasons = [
        f"The interval of the gain lies above zero on {_count(gain['n_documents'], unit)}.",
        f"All {len(slices)} general slices lie within their margins at their 95 % upper bounds.",
        "A loss that shows in none of these slices, or in use longer than an answer, is not excluded.",
    ]
    return sentence, reasons


def _forgot(gain: Mapping[str, Any], failed: Sequence[Slice], unit: str) -> tuple[str, list[str]]:
    worst = _worst(failed)
    others = [readable(one["name"]) for one in failed if one is not worst]
    too = f", and for {_listed(others)}" if others else ""
    sentence = (
        f"Forgot. The loss goes beyond the margin for {readable(worst['name'])} ({_sure_loss(worst)}){too}. "
        f"{_gain_sentence(gain, unit)}"
    )
    reasons = [
        f"{_upper_first(readable(one['name']))}: {_sure_loss(one)}, on {_count(one['n_items'], 'item')}."
        for one in failed
    ]
    return sentence, [*reasons, MORE_REPLAY]


def _no_gain_words(gain: Mapping[str, Any], unit: str) -> tuple[str, list[str]]:
    held_out = f"held-out {_plural(unit)}"
    advice = (
        "If the need is facts rather than manner, look them up in the documents at answering time; otherwise train on "
        "more or other texts of the field, for longer or at a higher learning rate."
    )
    if _unchanged(gain):
        return (
            f"No gain. Every one of the {_count(gain['n_documents'], f'held-out {unit}')} is scored exactly as before: "
            "the training changed nothing.",
            ["The difference is exactly zero everywhere: see that the adapter is loaded and that training moved it."],
        )
    figures = f"({_signed(gain['relative'])}, {_interval(gain)}; {_could_show(gain)})"
    if gain["relative_ci_high"] < 0:
        sentence = f"No gain. The {held_out} are predicted worse than before {figures}."
        advice = (
            "Lower the learning rate, or see that the training texts are of the field and form of the held-out ones."
        )
    elif gain["ci_low"] > 0:
        too_small = f"better by less than the {_percent(SMALLEST_GAIN)} worth having"
        sentence = f"No gain. The {held_out} are predicted {too_small} {figures}."
    else:
        sentence = f"No gain. The {held_out} are predicted no better than before {figures}."
    reason = f"The upper end of the interval lies below {_percent(SMALLEST_GAIN)}, the smallest gain worth having."
    return sentence, [reason, advice]


def _few_documents(gain: Mapping[str, Any], unit: str) -> tuple[str, list[str]]:
    n = gain["n_documents"]
    more = f"Add {_plural(unit)}, or let it use a larger share of yours for testing."
    if gain["relative_detectable"] is None:
        return (
            f"Cannot tell. One held-out {unit} has no interval. {more}",
            [f"An interval needs two held-out {_plural(unit)}, a verdict {MIN_DOCUMENTS} or more."],
        )
    shown = f"could have shown {_detectable(gain)}"
    sentence = (
        f"Cannot tell. {_upper_first(_count(n, f'held-out {unit}'))} are too few for a verdict, though they {shown} "
        f"(measured {_signed(gain['relative'])}, {_interval(gain)}). {more}"
        if gain["relative_detectable"] < SMALLEST_GAIN
        else f"Cannot tell. {_upper_first(_count(n, f'held-out {unit}'))} cannot show a gain under {_detectable(gain)} "
        f"(measured {_signed(gain['relative'])}, {_interval(gain)}). {more}"
    )
    needed = max(MIN_DOCUMENTS, _documents_needed(gain, SMALLEST_GAIN))
    return sentence, [
        f"A verdict needs {MIN_DOCUMENTS} held-out {_plural(unit)} or more.",
        f"About {needed:,} would show a gain of {_percent(SMALLEST_GAIN)}, if they vary as these do.",
    ]


def _unsure_gain(gain: Mapping[str, Any], unit: str) -> tuple[str, list[str]]:
    sentence = (
        f"Cannot tell. On {_count(gain['n_documents'], f'held-out {unit}')} of the field the gain may be nothing or "
        f"worth having ({_signed(gain['relative'])}, {_interval(gain)}; {_could_show(gain)})."
    )
    # a set fine enough and still undecided: the truth lies between the two, half the way from either at worst
    wanted = SMALLEST_GAIN if gain["relative_detectable"] > SMALLEST_GAIN else SMALLEST_GAIN / 2
    needed = max(_documents_needed(gain, wanted), 2 * gain["n_documents"])
    return sentence, [
        f"The interval holds zero and reaches {_percent(SMALLEST_GAIN)}, the smallest gain worth having.",
        f"About {needed:,} held-out {_plural(unit)} would decide it, if they vary as these do.",
    ]


def _unsure_retention(
    gain: Mapping[str, Any], undecided: Sequence[Slice], missing: Sequence[str], unit: str
) -> tuple[str, list[str]]:
    doubts = []
    if leaked := [one for one in undecided if one.get("leaked")]:
        undecided = [one for one in undecided if one not in leaked]
        doubts.append(f"what measures {_listed([readable(one['name']) for one in leaked])} was trained on")
    if undecided:
        worst = _worst(undecided)
        others = f" and {_count(len(undecided) - 1, 'other slice')}" if len(undecided) > 1 else ""
        doubts.append(f"the items cannot settle {readable(worst['name'])} ({_loss(worst)}){others}")
    if missing:
        said = _listed([readable(name) for name in missing])
        if len(missing) == len(REQUIRED_SLICES):
            said = "general requests and the answers to them"
        doubts.append(f"{said} {'was' if len(missing) == 1 else 'were'} not measured")
    sentence = f"Cannot tell. {_gain_sentence(gain, unit)} Whether it forgot is open: {'; '.join(doubts)}."
    reasons = [_what_would_settle(one) for one in undecided]
    if leaked:
        reasons.append("Leave the texts and questions of the general pack out of the data; results.json lists them.")
    if missing:
        reasons.append(
            "Measure the model as it is used, by general requests in the chat template: "
            "without that no model is called adapted."
        )
    return sentence, reasons


def _what_would_settle(one: Slice) -> str:
    name, n = _upper_first(readable(one["name"])), one["n_items"]
    if one["upper_95"] is None:
        return f"{name}: {_count(n, 'item')} of one document cannot be judged; add items from others."
    if one["diff"] >= one["margin"]:
        return f"{name}: the measured loss is itself beyond the margin ({_loss(one)}). {MORE_REPLAY}"
    # the error shrinks with the root of n: passing with 80 % power needs the margin this many standard errors away
    se = (one["upper_95"] - one["diff"]) / _z(1 - ERROR)
    needed = math.ceil(n * ((_z(1 - ERROR) + _z(POWER)) * se / (one["margin"] - one["diff"])) ** 2)
    return f"{name}: {_loss(one)}; if that is the true loss, about {needed:,} items instead of {n} would settle it."


# the words -----------------------------------------------------------------------------------------------------------


def _gain_sentence(gain: Mapping[str, Any], unit: str) -> str:
    if _unchanged(gain):
        return f"The held-out {_plural(unit)} of the field are scored exactly as before."
    where = f"On {_count(gain['n_documents'], f'held-out {unit}')} of the field the model needs"
    size = f"{_percent(abs(gain['relative']))} {'fewer' if gain['relative'] >= 0 else 'more'} bits"
    if gain["ci_low"] is None:
        return f"{where} {size} (no interval: one {unit})."
    low, high = gain["relative_ci_low"], gain["relative_ci_high"]
    if gain["relative"] < 0:
        low, high = -high, -low
    return f"{where} {size} (95 % interval {_range(low, high)}; {_could_show(gain)})."


def _interval(gain: Mapping[str, Any]) -> str:
    return f"95 % interval {_range(gain['relative_ci_low'], gain['relative_ci_high'])}"


def _could_show(gain: Mapping[str, Any]) -> str:
    return f"this set could have shown {_detectable(gain)}"


def _detectable(gain: Mapping[str, Any]) -> str:
    return _percent(gain["relative_detectable"])


def _documents_needed(gain: Mapping[str, Any], wanted: float) -> int:
    """Held-out documents that would show a relative gain of `wanted`: their number goes as 1/detectable²."""
    n, seen = int(gain["n_documents"]), float(gain["relative_detectable"])
    return math.ceil(n * (seen / wanted) ** 2)


def _worst(slices: Sequence[Slice]) -> Slice:
    return max(slices, key=lambda one: one["diff"] / one["margin"])


def _loss(one: Slice) -> str:
    """+0.4 %, upper bound 0.8 %, margin 1 %: what the upper bound says of a slice that has not failed."""
    bound = "no bound" if one["upper_95"] is None else f"upper bound {_amount(one, one['upper_95'])}"
    return f"{_measured(one)}, {bound}, margin {_amount(one, one['margin'])}"


def _sure_loss(one: Slice) -> str:
    """+3.1 %, at least 2.6 %, margin 1 %: what the lower bound says of a slice that failed."""
    return f"{_measured(one)}, at least {_amount(one, one['lower_95'])}, margin {_amount(one, one['margin'])}"


def _measured(one: Slice) -> str:
    """The measured loss with its sign and its unit; the bounds after it leave the unit out where it is long."""
    unit = " points" if one["kind"] in ("choices", "answers") else ""
    unit = {"chat/own answers": " bits per byte", "answers/length": " doublings"}.get(one["name"], unit)
    return f"{'−' if one['diff'] < 0 else '+'}{_amount(one, abs(one['diff']))}{unit}"


def _amount(one: Slice, loss: float) -> str:
    """A loss as its slice is read: a share of the base's bits, points of a hundred, doublings, or bits per byte."""
    if one["name"] == "answers/length":
        return _minus(f"{loss:.2f}")
    if one["kind"] in ("choices", "answers"):
        return _number(100 * loss)
    if one["name"] == "chat/own answers":
        return _minus(f"{loss:.3f}")
    return _percent(loss / one["base"])


def _kinds(slices: Sequence[Slice]) -> str:
    """ "six kinds of general text, chat answers, multiple-choice questions and the health of what it writes" """
    kinds = [one["kind"] for one in slices if one["name"] != "text"]  # which is the other text slices together
    said = []
    if n := kinds.count("text"):
        said.append(f"{NUMBERS[n] if n < len(NUMBERS) else n} kind{'s' if n > 1 else ''} of general text")
    if "chat" in kinds:
        said.append("general requests")
    if "choices" in kinds:
        said.append("multiple-choice questions")
    if "answers" in kinds:
        said.append("the health of its answers")
    return _listed(said)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _count(n: int, noun: str) -> str:
    return f"{NUMBERS[n] if n < len(NUMBERS) else n} {noun if n == 1 else _plural(noun)}"


def _plural(noun: str) -> str:
    return f"{noun}s"


def _upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _range(low: float, high: float) -> str:
    """Both ends with the same decimals, as many as the width needs."""
    wide = high - low >= 0.02 and max(abs(low), abs(high)) >= 0.1
    decimals = 0 if wide else 1 if high - low >= 0.002 else 2
    if low < 0:
        return _minus(f"{100 * low:+.{decimals}f} to {100 * high:+.{decimals}f} %")
    return f"{100 * low:.{decimals}f}–{100 * high:.{decimals}f} %"


def _percent(share: float) -> str:
    return f"{_number(100 * share)} %"


def _signed(share: float) -> str:
    return f"{'+' if share > 0 else ''}{_percent(share)}"


def _number(value: float) -> str:
    """Two figures: 21, 2.1, 0.35; a bare 2 where it is exact."""
    if abs(value) >= 9.95:
        said = f"{value:.0f}"
    else:
        said = f"{value:.1f}" if abs(value) >= 0.095 or value == 0 else f"{value:.2f}"
    return _minus(said.removesuffix(".0") if float(said) else "0")


def _minus(said: str) -> str:
    return said.replace("-", "−")


def _z(probability: float) -> float:
    return float(stats.norm.ppf(probability))
