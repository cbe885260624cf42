"""What did it forget? A non-inferiority test for each general slice, at a margin named beforehand."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from metier.errors import DataError
from metier.evidence.answers import repetition
from metier.evidence.gain import FIELD_SLICE
from metier.evidence.statistics import (
    ERROR,
    BoundedMean,
    Record,
    bits_difference,
    bits_per_byte,
    mcnemar,
    mean_estimate,
    paired,
    paired_scores,
)
from metier.settings import Settings
from metier.sources.general import REGISTERS

OWN_ANSWERS = "chat/own answers"
ALL_TEXT = "text"  # every register together
# Margins: how much may be lost before it counts as forgetting.
# of the base's bits per byte, all registers together: the forgetting that a user is asked to accept
TEXT_MARGIN = Settings.budget_forgetting
ONE_TEXT_MARGIN = 2.0  # times that for a single register: it has fewer documents, and the whole is bounded already
CHAT_MARGIN = (
    0.02  # of the base's bits per byte: a change of tone costs likelihood and no ability, so twice that of text
)
# bits per byte, absolute: greedy answers sit at the base model's likelihood maximum, so every change costs something,
# and a share of so small a figure would be noise; a healthy run cost 0.01, one that ruined the assistant 0.17
OWN_ANSWERS_MARGIN = 0.05
CHOICES_MARGIN = 0.02  # of probability: two points, the usual margin for benchmark accuracies
REPETITION_MARGIN = 0.10  # share of an answer that repeats: one answer in ten turned into a loop
ENDED_MARGIN = 0.15  # share of answers: the length limit is arbitrary, so running into it is the weakest sign of harm
# doublings away from the length of a good answer, compared with the base: not from the base's own length, because a
# base that runs into the limit in loops is cured, not harmed, by shorter answers
LENGTH_MARGIN = 0.5
ALL_TEXT_SHARE = 0.8
"""Of the probability of calling a loss that is none: what ruins a model moves the other slices by several margins."""


class Loss(Protocol):
    """What was lost; positive is worse. The bounds are one-sided, None where there are too few items."""

    @property
    def value(self) -> float: ...
    @property
    def n_items(self) -> int: ...
    @property
    def n_documents(self) -> int: ...
    def lower(self, error: float = ERROR) -> float | None: ...
    def upper(self, error: float = ERROR) -> float | None: ...


@dataclass(frozen=True)
class Measured:
    """One slice before it is judged."""

    name: str
    unit: str
    base: float
    adapted: float
    loss: Loss
    margin: float
    note: str = ""
    at_chance: bool = False  # the base is not surely better than guessing, so nothing that it could lose would show
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.name.split("/")[0]


def retention(
    base_scores: Sequence[Record],
    adapted_scores: Sequence[Record],
    base_choices: Sequence[Record],
    adapted_choices: Sequence[Record],
    base_answers: Sequence[Record],
    adapted_answers: Sequence[Record],
    text_margin: float = TEXT_MARGIN,
) -> dict[str, Any]:
    """The `retention` of results.json; a slice without records is absent.

    text_margin: the share of the base's bits per byte that general text may lose; a single register may lose twice it.

    A slice passed (true) when the upper bound of its loss lies within the margin, at 5 %. It failed (false) when the
    lower bound lies beyond the margin at the slice's share of 5 %: four fifths of it go to all registers of text
    together, of which the budget speaks, the rest in equal parts to the others, so that a model within every margin is
    called forgetful in at most 5 % of runs however many slices there are (Bonferroni, weighted); passing needs no such
    correction, because the whole passes only if every slice does. Otherwise `passed` is null: too few items to tell. A
    slice on which the base does no better than chance (`at_chance`) is neither, and the others decide.

    Raises:
        DataError: the two arms do not hold the same items, or an item cannot be scored.
    """
    measured = [
        *_measure_scores(base_scores, adapted_scores, text_margin),
        *_measure_choices(base_choices, adapted_choices),
        *_measure_answers(base_answers, adapted_answers),
    ]
    slices = [_judge(one, error) for one, error in zip(measured, _errors(measured), strict=True)]
    outcomes = [one["passed"] for one in slices if not one["at_chance"]]
    passed = False if False in outcomes else True if outcomes and None not in outcomes else None
    return {"margin": text_margin, "passed": passed, "slices": slices}


def _errors(measured: Sequence[Measured]) -> list[float]:
    """For each slice, how probably it may be called lost where it is not."""
    n_others = sum(one.name != ALL_TEXT for one in measured)
    left = ERROR if n_others == len(measured) else ERROR * (1 - ALL_TEXT_SHARE)
    return [ERROR * ALL_TEXT_SHARE if one.name == ALL_TEXT else left / n_others for one in measured]


def _judge(measured: Measured, error: float) -> dict[str, Any]:
    """error: how probably it may be called lost where it is not."""
    loss, margin = measured.loss, measured.margin
    upper, surely_lost = loss.upper(), loss.lower(error)
    passed: bool | None = None
    if measured.at_chance:
        passed = None
    elif upper is not None and upper <= margin:
        passed = True
    elif surely_lost is not None and surely_lost > margin:
        passed = False
    return {
        "name": measured.name,
        "kind": measured.kind,
        "unit": measured.unit,
        "base": measured.base,
        "adapted": measured.adapted,
        "diff": loss.value,
        "margin": margin,
        "lower_95": loss.lower(),
        "upper_95": upper,
        "n_items": loss.n_items,
        "n_documents": loss.n_documents,
        "passed": passed,
        "at_chance": measured.at_chance,
        "note": measured.note,
        **measured.extra,
    }


def _measure_scores(base: Sequence[Record], adapted: Sequence[Record], text_margin: float) -> list[Measured]:
    pairs = paired_scores(_general(base), _general(adapted))
    names = dict.fromkeys(record["slice"] for record, _ in pairs)  # in the order of the file
    ours = {f"text/{register}" for register in REGISTERS}  # a long file of the user's would drown them
    texts = [pair for pair in pairs if pair[0]["slice"] in ours]
    together = [_measure_bits(ALL_TEXT, texts, text_margin)] if len({r["slice"] for r, _ in texts}) > 1 else []
    return together + [_measure_bits(name, [p for p in pairs if p[0]["slice"] == name], text_margin) for name in names]


def _general(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record["slice"] != FIELD_SLICE]


def margin_of(name: str, base: float, text_margin: float) -> float:
    """What a slice of scores may lose, in bits per byte. base: its bits per byte before."""
    if name == OWN_ANSWERS:
        return OWN_ANSWERS_MARGIN
    if name.startswith("chat/"):
        return base * CHAT_MARGIN
    return base * text_margin * (1.0 if name == ALL_TEXT else ONE_TEXT_MARGIN)


def _measure_bits(name: str, pairs: Sequence[tuple[Record, Record]], text_margin: float) -> Measured:
    base = bits_per_byte(record for record, _ in pairs)
    margin = margin_of(name, base, text_margin)
    adapted_first = [(adapted, record) for record, adapted in pairs]  # a loss is adapted - base
    adapted = bits_per_byte(record for record, _ in adapted_first)
    # Every kind has its share of what is read of the pack, however much is (sources/general.py).
    return Measured(name, "bits per byte", base, adapted, bits_difference(adapted_first, by_kind=True), margin)


def choice_probabilities(record: Record) -> list[float]:
    """What the model makes of each choice, summing to 1.

    The log-likelihoods are compared per byte, so that a short choice has no advantage, then scaled by the mean length
    of the item's choices: per byte alone they differ by a few hundredths of a nat, every softmax is nearly flat and no
    model could ever lose two points. For choices of one length this is the model's own probability among them.
    """
    nll, n_bytes = np.asarray(record["nll"], dtype=float), np.asarray(record["bytes"], dtype=float)
    scores = -nll / n_bytes * n_bytes.mean()
    weights = np.exp(scores - scores.max())
    return [float(weight) for weight in weights / weights.sum()]


def _measure_choices(base: Sequence[Record], adapted: Sequence[Record]) -> list[Measured]:
    pairs = paired(base, adapted, equal_fields=("bytes", "label"))
    if not pairs:
        return []
    for pair in pairs:
        for record in pair:
            check_choice(record)
    labels = [record["label"] for record, _ in pairs]
    before, after = ([choice_probabilities(pair[arm]) for pair in pairs] for arm in (0, 1))
    right_before, right_after = ([p[label] for p, label in zip(ps, labels, strict=True)] for ps in (before, after))
    items = [f"{record['slice']} {record['item']}" for record, _ in pairs]
    loss = mean_estimate([b - a for b, a in zip(right_before, right_after, strict=True)], items)
    extra = _accuracies([record["slice"] for record, _ in pairs], labels, before, after)
    note = (
        f"accuracy {100 * extra['accuracy_base']:.1f} % before, {100 * extra['accuracy_adapted']:.1f} % after "
        f"(chance {100 * extra['chance']:.1f} %; exact McNemar p = {extra['mcnemar_p']:.2g})"
    )
    means = float(np.mean(right_before)), float(np.mean(right_after))
    above = mean_estimate([p - 1 / len(ps) for p, ps in zip(right_before, before, strict=True)], items).lower()
    at_chance = above is None or bool(above <= 0)
    note += "; the base does no better than chance here, so a loss could not show" if at_chance else ""
    unit = "probability of the right choice"
    return [Measured("choices", unit, *means, loss, CHOICES_MARGIN, note, at_chance, extra)]


def _accuracies(
    kinds: Sequence[str], labels: Sequence[int], before: Sequence[list[float]], after: Sequence[list[float]]
) -> dict[str, Any]:
    """Shares of items whose likeliest choice is the right one, over all and by kind."""
    hit_before, hit_after = (
        np.array([p.index(max(p)) == label for p, label in zip(arm, labels, strict=True)]) for arm in (before, after)
    )
    by_kind = []
    for name in dict.fromkeys(kinds):
        of_kind = np.array([kind == name for kind in kinds])
        by_kind.append(
            {
                "name": name,
                "n_items": int(of_kind.sum()),
                "accuracy_base": float(hit_before[of_kind].mean()),
                "accuracy_adapted": float(hit_after[of_kind].mean()),
            }
        )
    return {
        "accuracy_base": float(hit_before.mean()),
        "accuracy_adapted": float(hit_after.mean()),
        "chance": float(np.mean([1 / len(p) for p in before])),
        "mcnemar_p": mcnemar(hit_before.tolist(), hit_after.tolist()),
        "kinds": by_kind,
    }


def check_choice(record: Record) -> None:
    """Raises DataError where a choice record cannot be judged."""
    n = len(record["nll"])
    sound = n >= 2 and n == len(record["bytes"]) and 0 <= record["label"] < n and min(record["bytes"]) > 0
    if not (sound and all(math.isfinite(nll) for nll in record["nll"])):
        raise DataError(
            f"Item {record['item']!r} of {record['slice']!r} needs two choices or more, each with bytes and a "
            f"finite nll, and a label among them (it has nll {record['nll']}, bytes {record['bytes']}, "
            f"label {record['label']}): correct the item and score again."
        )


def _measure_answers(base: Sequence[Record], adapted: Sequence[Record]) -> list[Measured]:
    pairs = paired(base, adapted, equal_fields=("request",))  # a good answer is counted in each model's own tokens
    if not pairs:
        return []
    repeated = np.array([[repetition(record["answer"]) for record in pair] for pair in pairs])
    ended = np.array([[float(record["ended"]) for record in pair] for pair in pairs])
    doublings = np.log2([[max(r["tokens"], 1) / r["good_tokens"] for r in pair] for pair in pairs])
    (repeated_base, repeated_adapted), (ended_base, ended_adapted) = _means(repeated), _means(ended)
    off_base, off_adapted = _means(doublings)
    further_off = np.sign(off_adapted) * doublings[:, 1] - np.sign(off_base) * doublings[:, 0]
    return [
        Measured(
            "answers/repetition",
            "share of the answer that repeats itself",
            repeated_base,
            repeated_adapted,
            BoundedMean(repeated[:, 1] - repeated[:, 0]),
            REPETITION_MARGIN,
        ),
        Measured(
            "answers/ended",
            "share of answers",
            ended_base,
            ended_adapted,
            BoundedMean(ended[:, 0] - ended[:, 1]),
            ENDED_MARGIN,
        ),
        Measured(
            "answers/length",
            "times the length of a good answer, geometric mean; the loss in doublings",
            2.0**off_base,
            2.0**off_adapted,
            mean_estimate(further_off.tolist(), [record["item"] for record, _ in pairs]),
            LENGTH_MARGIN,
        ),
    ]


def _means(columns: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    """(items, 2) to the mean of each arm."""
    return float(columns[:, 0].mean()), float(columns[:, 1].mean())
