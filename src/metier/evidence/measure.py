"""What is measured, when: the plan, the base before training, the adapted model after it, on the same items."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from metier.evidence.arms import Arm, field_samples, nll_per_token, score_arm, write_arm
from metier.evidence.score import Items, encode_items
from metier.evidence.statistics import bits_per_byte, expected_detectable
from metier.models.adapters import disabled
from metier.models.encoding import Encoded, Encoder
from metier.models.generate import Answer, AnswerCache, answer_all
from metier.models.load import BaseModel
from metier.models.packing import PackReader
from metier.progress import Progress
from metier.runs import RunFolder
from metier.settings import Settings, learning_rate
from metier.sources import general
from metier.sources.examples import Example
from metier.sources.general import Request
from metier.sources.split import Split
from metier.sources.wheels import cache_folder
from metier.training.plan import Plan, Sizes, measure_speed, plan

ANSWER_TOKENS = 96  # limit of a generated answer; most good answers of the general pack are shorter
SAMPLED = 64  # rows encoded to learn how long rows are
SHOWN_FIELD = 4  # held-out rows answered by both models, for the reader
PROBE_ROWS = 16


def make_plan(base: BaseModel, reader: PackReader, split: Split, settings: Settings, started: float) -> Plan:
    """Measure this machine for a few seconds and divide what is left of the minutes since `started` (monotonic, s)."""
    encoder = base.encoder
    rng = random.Random(settings.seed)
    sampled = [d for e in rng.sample(split.train, min(SAMPLED, len(split.train))) for d in encoder.encode(e)]
    n_sampled = min(SAMPLED, len(split.train))
    test = [d for e in split.test for d in encoder.encode(e)]
    items = encode_items(encoder, [], general.texts(), general.measured_requests(), None, general.choices())
    sizes = Sizes(
        field_items=len(split.test),
        field_tokens=_mean(len(d.ids) for d in test) * len(test) / max(1, len(split.test)),
        train_tokens=round(sum(len(d.ids) for d in sampled) * len(split.train) / n_sampled),
        texts=len(items.texts),
        text_tokens=_mean(len(d.ids) for d in items.text_documents),
        requests=len(items.requests),
        request_tokens=_mean(b.n_tokens for b in items.request_branches),
        choices=len(items.choices),
        choice_tokens=_mean(b.n_tokens for b in items.choice_branches),
        answer_tokens=ANSWER_TOKENS,
        replay_requests=len(general.replay_requests()),
    )
    speed = measure_speed(reader, sampled, settings.pack_tokens)
    seconds = settings.minutes * 60 - (time.monotonic() - started)
    return plan(settings, sizes, speed, seconds, learning_rate(base.n_parameters))


def _mean(values: Iterator[int]) -> float:
    known = list(values)
    return sum(known) / len(known) if known else 0.0


def plan_lines(planned: Plan) -> list[str]:
    """What a person is told before the time is spent."""
    evidence = planned.evidence
    replay = f", {planned.replay_share:.0%} of them replay" if planned.replay_share else ", no replay"
    return [
        f"plan: {planned.train_tokens:,} tokens in {planned.steps} steps{replay} ({planned.train_s / 60:.1f} min); "
        f"evidence on {evidence.field_items} held-out items of the field and {evidence.texts} texts, "
        f"{evidence.requests} requests and {evidence.choices} questions of the general pack ({planned.evidence_s / 60:.1f} min)",
        *(f"note: {note}" for note in planned.notes),
    ]


@dataclass(frozen=True)
class Before:
    """The base, measured before training; the adapted model is measured on the same items."""

    items: Items
    base: Arm
    replay: list[Answer]
    requests: tuple[Request, ...]
    shown: tuple[Example, ...]
    samples: list[tuple[str, str, str]]
    seconds: float

    def field_by_example(self) -> Iterator[tuple[str, list[Encoded]]]:
        """(example id, its windows) of the held-out items that are scored."""
        for example in self.items.field:
            yield example.id, [d for d in self.items.field_documents if d.item == example.id]


def base_arm(
    base: BaseModel, reader: PackReader, split: Split, planned: Plan, settings: Settings, run: RunFolder, say: Progress
) -> Before:
    """Answer, score and write the base arm; say what the held-out set can show."""
    started = time.monotonic()
    evidence = planned.evidence
    cache = AnswerCache(cache_folder(), base.sha256, ANSWER_TOKENS)
    replay_requests = [r.request for r in general.replay_requests()[: planned.replay_requests]]
    requests = general.measured_requests()[: evidence.requests]
    wanted = [*(r.request for r in requests), *replay_requests]
    with disabled(reader.model):
        if missing := len(cache.missing(wanted)):
            say.begin("base model answers general requests (kept for later runs)", missing)
        answers = cache.answers(reader.model, base.encoder, wanted, lambda done, _: say.advance(done))
        own = answers[: len(requests)]
        items = encode_items(
            base.encoder,
            _subset(split.test, evidence.field_items, settings.seed),
            general.texts()[: evidence.texts],
            requests,
            [a.answer for a in own],
            general.choices()[: evidence.choices],
        )
        say.begin("base model reads the evidence", items.n_tokens)
        arm = score_arm(reader, items, _by_id(requests, own), settings.pack_tokens, say)
        shown = items.field[:SHOWN_FIELD]
        samples = field_samples(reader.model, base.encoder, shown, ANSWER_TOKENS)
    say.end()
    write_arm(run, "base", arm)
    if line := detectable_line(arm, split.unit):
        say.say(line)
    return Before(items, arm, answers[len(requests) :], requests, shown, samples, time.monotonic() - started)


def detectable_line(arm: Arm, unit: str) -> str:
    """The smallest gain that the held-out set can show, foretold from the base's scores."""
    field: list[dict[str, Any]] = [r for r in arm.scores if r["slice"] == "field"]
    if not field:
        return ""
    smallest = expected_detectable(field)
    n_documents = len({r["document"] for r in field})
    if smallest is None:
        return f"one held-out {unit} cannot show a gain of any size: add documents"
    share = smallest / bits_per_byte(field)
    return f"these {n_documents} held-out {unit}s can show a gain of about {share:.1%} of the base's bits, not less"


@dataclass(frozen=True)
class After:
    """The adapted model, measured on the items of `Before`."""

    adapted: Arm
    samples: list[tuple[str, str, str]]
    seconds: float


def adapted_arm(
    reader: PackReader, encoder: Encoder, before: Before, settings: Settings, run: RunFolder, say: Progress
) -> After:
    started = time.monotonic()
    requests = [r.request for r in before.requests]
    say.begin("adapted model answers the same requests", len(requests))
    answers = answer_all(reader.model, encoder, requests, ANSWER_TOKENS, lambda done, _: say.advance(done))
    say.begin("adapted model reads the same evidence", before.items.n_tokens)
    arm = score_arm(reader, before.items, _by_id(before.requests, answers), settings.pack_tokens, say)
    samples = field_samples(reader.model, encoder, before.shown, ANSWER_TOKENS)
    say.end()
    write_arm(run, "adapted", arm)
    return After(arm, samples, time.monotonic() - started)


def _by_id(requests: Sequence[Request], answers: Sequence[Answer]) -> list[tuple[str, Answer]]:
    return [(r.id, a) for r, a in zip(requests, answers, strict=True)]


def _subset(examples: Sequence[Example], n: int, seed: int) -> list[Example]:
    """n examples, the same for the same seed whatever n: a larger plan adds to a smaller one."""
    order = list(examples)
    random.Random(f"{seed}/held out").shuffle(order)
    return order[:n]


class Probe:
    """Rows of the select half, read before and after training: what moved, on the same rows."""

    def __init__(self, encoder: Encoder, examples: Sequence[Example]) -> None:
        chosen = examples[:PROBE_ROWS]
        self.n_rows = len(chosen)
        self.documents = [d for e in chosen for d in encoder.encode(e)[:1]]

    def nll_per_token(self, reader: PackReader, pack_tokens: int) -> float:
        """Nats per scored token."""
        return nll_per_token(reader, self.documents, pack_tokens)


def answers_as_samples(before: Before, after: After) -> list[dict[str, str]]:
    """The samples of results.json: held-out rows of the field, then the general requests that every run shows."""
    field = [
        {"kind": "field", "request": request, "reference": reference, "base": base, "adapted": adapted}
        for (request, reference, base), (_, _, adapted) in zip(before.samples, after.samples, strict=True)
    ]
    general_ones = [
        {
            "kind": "general",
            "request": request.request,
            "reference": request.answer,
            "base": str(base["answer"]),
            "adapted": str(adapted["answer"]),
        }
        for request, base, adapted in zip(before.requests, before.base.answers, after.adapted.answers, strict=True)
        if request.request in general.SHOWN
    ]
    return field + general_ones

