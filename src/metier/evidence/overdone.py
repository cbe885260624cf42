"""Was the training overdone? Eight detectors, each a fact about figures that are stored: one is amber, two are red.

A detector that rests on scores fires only where the excess is two standard errors, over documents; what was not
measured is said to be so and counts neither way.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from metier.evidence.dial.frontier import fit_gain, general_text, grid
from metier.evidence.dial.rule import AS_TRAINED
from metier.evidence.dial.strengths import Change, Point, read_strengths
from metier.evidence.gain import FIELD_SLICE
from metier.evidence.retention import TEXT_MARGIN
from metier.evidence.statistics import ERROR, Floats, Record
from metier.evidence.verdict import MIN_DOCUMENTS

# Thresholds set by judgement from what the curves of a healthy run look like, not taken from a publication. What a
# quadratic predicts: gain 2a - a², forgetting a² of that at full strength, when training stopped at the best point.
SURELY = 2.0  # standard errors
OVERSHOT = 0.9  # strength of the largest gain; a healthy run has it at 1 or beyond
SETTLED = 0.1  # of the steps: before it, losses jump about whatever follows
LAST_QUARTER = 0.75  # of the steps, where the last quarter begins
LITTLE_GAIN, MUCH_FORGETTING = 0.05, 0.25  # shares of the whole that the last quarter of the steps brought
BASIN = 6.0  # times the forgetting at half strength; a quadratic says 4
HALF_GAIN = 0.5  # of the gain, at half strength; a quadratic says 0.75, a straight line 0.5
HALFWAY = (0.4, 0.6)  # of the steps: what may stand for half of them; 12 of 25 are 0.48
HALVED = 0.5  # gain per nat of divergence, the last step against halfway
TRAIN_GAP = 0.25  # of the held-out bits; 5 to 19 % in runs of one pass, 128 % after eight (docs/log.md)
VERBATIM = 0.01  # share of training prefixes continued word for word, the base's own share taken off
LOST_ENTROPY = 0.1  # of the base's
DOUBLED = 2.0  # times the base's repetition
MEASURED_LEAST = 3  # detectors, for a level

Detector = dict[str, Any]
Figures = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What the dial's records say of gain and forgetting, at the strengths of the last step and over the steps."""

    gained: Change
    forgot: Change
    last: tuple[Point, ...]  # by strength
    full: tuple[Point, ...]  # at strength 1, by step

    def at_last(self, alpha: float) -> Point | None:
        return next((point for point in self.last if point.alpha == alpha), None)


def overdone(
    records: Sequence[Record],
    divergence: Sequence[Figures] = (),
    train_gap: Figures | None = None,
    extraction: Figures | None = None,
    entropy: Figures | None = None,
    repetition: Figures | None = None,
    few_shot: Figures | None = None,
) -> dict[str, Any]:
    """The `overdone` of results.json.

    records: of evidence/dial.jsonl.
    divergence: {step, kl_field}, nats a token on the field between base and adapted.
    train_gap: {value, lower}: what rows that were trained on gained more than held-out ones, as a share of the base's
        bits, and its one-sided 95 % bound (None where it has none).
    extraction: counts {continued_verbatim, continued_verbatim_base, n_prefixes} of training prefixes.
    entropy: mean entropy {base, adapted} of the next token on general text, nats.
    repetition: the slice answers/repetition of `retention`.
    few_shot: accuracy {base, adapted} with examples in the prompt, and the interval {ci_low, ci_high} of the change.

    `level` is "none", "amber" or "red"; None where fewer than three detectors were measured.

    Raises:
        DataError: the strengths do not hold the same items, or an item cannot be scored.
    """
    course = _trajectory(records)
    detectors = [
        overshoot(course),
        overfit(course),
        bad_exchange(course),
        left_basin(course),
        drift(course, divergence),
        memorising(train_gap, extraction),
        collapse(entropy, repetition),
        prompting_lost(course, few_shot),
    ]
    fired = [one["name"] for one in detectors if one["fired"]]
    n_measured = sum(one["fired"] is not None for one in detectors)
    level = None if n_measured < MEASURED_LEAST else ("none", "amber", "red")[min(len(fired), 2)]
    return {
        "sentence": _sentence(level, fired, n_measured, len(detectors)),
        "level": level,
        "n_measured": n_measured,
        "detectors": detectors,
        "method": f"Eight detectors over stored figures; one that fires is amber, two are red, and fewer than "
        f"{MEASURED_LEAST} measured decide nothing. The thresholds were set by judgement.",
    }


def _trajectory(records: Sequence[Record]) -> Trajectory | None:
    """None where field, general text or the adapter was not scored, or on too few documents to trust an error."""
    names = sorted({record["slice"] for record in records})
    texts = general_text(names)
    if FIELD_SLICE not in names or not texts or not any(record["alpha"] for record in records):
        return None
    strengths = read_strengths(records)
    gained, forgot = strengths.change(FIELD_SLICE).fallen, strengths.change(*texts)
    if min(gained.n_documents, forgot.n_documents) < MIN_DOCUMENTS:
        return None
    full = tuple(point for point in strengths.points if point.alpha == AS_TRAINED)
    return Trajectory(gained, forgot, strengths.last, full)


def _sentence(level: str | None, fired: Sequence[str], n_measured: int, n: int) -> str:
    measured = f"{n_measured} of {n} detectors were measured"
    found = f"{', '.join(fired)} fired" if fired else "none fired"
    if level is None:
        return f"Cannot tell whether it was overdone: {measured}, {MEASURED_LEAST} are needed ({found})."
    said = {
        "none": "No sign that the training was overdone",
        "amber": "One sign that the training was overdone",
        "red": "The training was overdone",
    }
    return f"{said[level]}: {measured}, and {found}."


# the detectors -------------------------------------------------------------------------------------------------------


def overshoot(course: Trajectory | None) -> Detector:
    """O1: the gain is largest well below full strength."""
    if course is None or len(course.last) < 3 or course.at_last(AS_TRAINED) is None:
        return _unmeasured("overshoot", OVERSHOT, "it needs three strengths of the last step, 1 among them")
    curve = fit_gain(course.gained.of(course.last), grid(course.last))
    top, full = int(curve.values.argmax()), int(np.abs(curve.alphas - AS_TRAINED).argmin())
    lost = float(curve.values[top] - curve.values[full])
    error = float((curve.drawn[:, top] - curve.drawn[:, full]).std())
    at = float(curve.alphas[top])
    sentence = (
        f"The gain is largest at strength {at:.2f}, by {lost:.4f} bits per byte over full strength (error {error:.4f})."
    )
    return _measured("overshoot", at < OVERSHOT and lost > SURELY * error, at, OVERSHOT, sentence)


def overfit(course: Trajectory | None) -> Detector:
    """O2: at an earlier step the held-out field was predicted better than at the last."""
    steps = _settled(course)
    if course is None or not steps:
        return _unmeasured("overfit", None, "it needs an earlier step at strength 1")
    gained = course.gained.of(course.full)
    best = max(steps, key=lambda i: gained.values[i])
    excess = float(gained.values[best] - gained.values[-1])
    error = float((gained.drawn[:, best] - gained.drawn[:, -1]).std())
    sentence = (
        f"Step {course.full[best].step} gains {_more(excess)} than the last step, {course.full[-1].step} "
        f"(error {error:.4f})."
    )
    return _measured("overfit", excess > SURELY * error, excess, SURELY * error, sentence)


def _settled(course: Trajectory | None) -> list[int]:
    """Earlier steps at strength 1, the first tenth of the training left out."""
    if course is None or course.at_last(AS_TRAINED) is None:
        return []
    return [i for i, point in enumerate(course.full[:-1]) if point.step >= SETTLED * course.full[-1].step]


def bad_exchange(course: Trajectory | None) -> Detector:
    """O3: the last quarter of the steps brought little of the gain and much of the forgetting.

    Between two measured steps a straight line stands in. Both figures rise ever more slowly in a healthy run, so the
    line gives the last quarter too much of either.
    """
    if course is None or not any(course.full[i].step >= HALFWAY[0] * course.full[-1].step for i in _settled(course)):
        return _unmeasured("bad exchange", LITTLE_GAIN, "it needs a step from about halfway on at strength 1")
    gained, forgot = (change.of(course.full) for change in (course.gained, course.forgot))
    gain, forgetting = float(gained.values[-1]), float(forgot.values[-1])
    if gain <= SURELY * gained.se[-1]:
        return _unmeasured("bad exchange", LITTLE_GAIN, "there is no sure gain to take a share of")
    gain_share = 1 - _at_last_quarter(course.full, gained.values) / gain
    worse = forgetting > SURELY * float(forgot.se[-1])
    forgetting_share = 1 - _at_last_quarter(course.full, forgot.values) / forgetting if worse else 0.0
    sentence = f"The last quarter of the steps brought {_percent(gain_share)} of the gain and " + (
        f"{_percent(forgetting_share)} of the forgetting." if worse else "no forgetting that is sure."
    )
    fired = gain_share < LITTLE_GAIN and forgetting_share > MUCH_FORGETTING
    return _measured("bad exchange", fired, gain_share, LITTLE_GAIN, sentence)


def _at_last_quarter(points: Sequence[Point], values: Floats) -> float:
    steps = [0.0, *(float(point.step) for point in points)]
    return float(np.interp(LAST_QUARTER * steps[-1], steps, [0.0, *values]))


def left_basin(course: Trajectory | None) -> Detector:
    """O4: half strength is not half way, so strengths in between are not safe.

    Forgetting counts only where at full strength it is beyond the usual margin: under it, its curve is mostly noise.
    """
    half, full = (course.at_last(alpha) for alpha in (0.5, AS_TRAINED)) if course else (None, None)
    if course is None or half is None or full is None:
        return _unmeasured("left the basin", BASIN, "it needs strengths 0.5 and 1 of the last step")
    gained, forgot = course.gained.of([half, full]), course.forgot.of([half, full])
    steep = _surely_positive(forgot, lambda half, full: full - BASIN * half)
    beyond = forgot.values[1] > TEXT_MARGIN * forgot.base
    late = _surely_positive(gained, lambda half, full: HALF_GAIN * full - half)
    ratio = float(forgot.values[1] / forgot.values[0]) if forgot.values[0] > 0 else None
    gain_ratio = float(gained.values[0] / gained.values[1]) if gained.values[1] > 0 else None
    times = "–" if ratio is None else f"{ratio:.1f}"
    sentence = (
        f"Half strength has {_percent(gain_ratio)} of the gain, full strength {times} times the forgetting of half "
        "strength (a quadratic says 75 % and 4)."
    )
    return _measured("left the basin", bool((steep and beyond) or late), ratio, BASIN, sentence)


def _surely_positive(change: Change, contrast: Callable[[Floats, Floats], Floats]) -> bool:
    """Whether a contrast of two points is positive by two standard errors."""
    value, drawn = (contrast(rows[..., 0], rows[..., 1]) for rows in (change.values, change.drawn))
    return bool(value > SURELY * drawn.std())


def drift(course: Trajectory | None, divergence: Sequence[Figures]) -> Detector:
    """O5: a nat of divergence from the base buys half the gain that it bought halfway."""
    kl = {int(one["step"]): float(one["kl_field"]) for one in divergence}
    gains = (
        dict(zip((p.step for p in course.full), course.gained.of(course.full).values, strict=True)) if course else {}
    )
    both = sorted(step for step in gains if kl.get(step, 0.0) > 0)
    halfway = [step for step in both if HALFWAY[0] * both[-1] <= step <= HALFWAY[1] * both[-1]] if len(both) > 1 else []
    if course is None or not halfway or both[-1] != course.full[-1].step or gains[halfway[-1]] <= 0:
        return _unmeasured("drift", HALVED, "it needs gain and divergence of the last step and of one near halfway")
    half = min(halfway, key=lambda step: abs(step / both[-1] - 0.5))
    before, after = (float(gains[step]) / kl[step] for step in (half, both[-1]))
    sentence = (
        f"A nat of divergence on the field buys {after:.2f} bits per byte, at step {half} it bought {before:.2f}."
    )
    return _measured("drift", after <= HALVED * before, after / before, HALVED, sentence)


def memorising(train_gap: Figures | None, extraction: Figures | None) -> Detector:
    """O6: the training text is known far better than other text of the field, or can be recited."""
    gap, share, surely_recited, said = None, None, False, []
    if train_gap is not None:
        gap = train_gap["value"]
        sure = f", at least {_percent(train_gap['lower'])}" if train_gap["lower"] is not None else ""
        said.append(f"training text gained {_percent(gap)} of its bits more than held-out text did{sure}")
    if extraction is not None and extraction["n_prefixes"]:
        more = extraction["continued_verbatim"] - extraction["continued_verbatim_base"]
        share = more / extraction["n_prefixes"]
        least = stats.binomtest(max(more, 0), extraction["n_prefixes"]).proportion_ci(1 - 2 * ERROR).low
        surely_recited = least > VERBATIM  # one letterhead among sixty texts is no recitation
        said.append(
            f"{more} more of {extraction['n_prefixes']} training prefixes than before are continued word for word"
        )
    if not said:
        return _unmeasured("memorising", TRAIN_GAP, "it needs the bits of training rows, or prefixes to continue")
    surely = train_gap is not None and train_gap["lower"] is not None and train_gap["lower"] > TRAIN_GAP
    fired = surely or surely_recited
    by_share = share is not None and (gap is None or surely_recited)
    figure, threshold = (share, VERBATIM) if by_share else (gap, TRAIN_GAP)
    return _measured("memorising", fired, figure, threshold, _said(said))


def collapse(entropy: Figures | None, repetition: Figures | None) -> Detector:
    """O7: the model is surer of everything, or repeats itself."""
    lost, times, fired, said = None, None, False, []
    if entropy is not None:
        lost = 1 - entropy["adapted"] / entropy["base"]
        fired = lost > LOST_ENTROPY
        said.append(f"its entropy on general text {'fell' if lost > 0 else 'rose'} by {_percent(abs(lost))}")
    if repetition is not None:
        base, adapted = repetition["base"], repetition["adapted"]
        times = adapted / base if base > 0 else None
        repeats = adapted > DOUBLED * base and (repetition["lower_95"] or 0.0) > 0
        said.append(f"its answers repeat {_percent(adapted)} of themselves, the base's {_percent(base)}")
        fired, lost = fired or repeats, None if repeats else lost
    if not said:
        return _unmeasured("collapse", LOST_ENTROPY, "it needs entropy on general text, or answers")
    figure, threshold = (times, DOUBLED) if lost is None else (lost, LOST_ENTROPY)
    return _measured("collapse", fired, figure, threshold, _said(said))


def prompting_lost(course: Trajectory | None, few_shot: Figures | None) -> Detector:
    """O8: examples in the prompt help less than before, though the field is predicted better."""
    last = course.at_last(AS_TRAINED) if course else None
    if course is None or last is None or few_shot is None or few_shot["ci_high"] is None:
        return _unmeasured("prompting lost", 0.0, "it needs accuracies with examples in the prompt, and the gain")
    change = few_shot["adapted"] - few_shot["base"]
    gained = course.gained.of([last])
    fired = few_shot["ci_high"] < 0 and gained.values[0] > SURELY * gained.se[0]
    sentence = (
        f"With examples in the prompt it is right {_percent(few_shot['adapted'])} of the time, before "
        f"{_percent(few_shot['base'])}; form, not knowledge, may be what is lost, so try other examples first."
    )
    return _measured("prompting lost", bool(fired), change, 0.0, sentence)


def _measured(name: str, fired: bool, figure: float | None, threshold: float, sentence: str) -> Detector:
    return {"name": name, "fired": fired, "figure": figure, "threshold": threshold, "sentence": _minus(sentence)}


def _unmeasured(name: str, threshold: float | None, why: str) -> Detector:
    return {"name": name, "fired": None, "figure": None, "threshold": threshold, "sentence": f"Not measured: {why}."}


def _said(parts: Sequence[str]) -> str:
    text = ", and ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _more(excess: float) -> str:
    return f"{abs(excess):.4f} bits per byte {'more' if excess >= 0 else 'less'}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _minus(said: str) -> str:
    """A true minus sign before a number; hyphens stay."""
    return re.sub(r"-(?=\d)", "−", said)
