"""What there is to measure, how fast this machine is, and the plan that follows."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from metier.errors import DataError
from metier.evidence.layers import READ_TOKENS
from metier.evidence.measure import PROBE_TOKENS, SHOWN_FIELD, probe_answers
from metier.evidence.score import encode_items
from metier.evidence.select_half import has_dial
from metier.evidence.written import ANSWER_TOKENS, WRITTEN_TOKENS
from metier.models.adapters import disabled
from metier.models.encoding import Encoded, Encoder
from metier.models.load import BaseModel
from metier.models.packing import PackReader, divide, pack
from metier.settings import Settings, learning_rate
from metier.sources import general
from metier.sources.examples import Example
from metier.sources.split import Split
from metier.training import parallel
from metier.training.evidence_plan import Sizes
from metier.training.mix import scarcest
from metier.training.plan import Plan, plan, replan
from metier.training.replay import kind_of
from metier.training.speed import Speed, measure_speed

SAMPLED = 64  # rows encoded to learn how long rows are
DISTANCE_TOKENS = 512  # read of the field, and of general texts, to learn how far apart they are


def make_plan(
    base: BaseModel, reader: PackReader, split: Split, settings: Settings, started: float
) -> tuple[Plan, Sizes]:
    """Measure this machine for a few seconds and divide what is left of the minutes since `started` (monotonic, s)."""
    sizes, speed = measure_machine(base.encoder, reader, split.train, split.test, settings)
    if has_dial(settings):
        sizes = to_choose_by(sizes, len(split.select))
    lr = learning_rate(base.n_parameters, settings.method, preferences=bool(sizes.pairs))
    return parallel.from_first((plan(settings, sizes, speed, seconds_left(settings, started), lr), sizes))


def seconds_left(settings: Settings, started: float) -> float:
    return settings.minutes * 60 - (time.monotonic() - started)


def after_base(planned: Plan, sizes: Sizes, settings: Settings, started: float, base_s: float) -> Plan:
    """The plan with the tokens that fit what is left of the minutes, now that the base was measured in base_s."""
    return parallel.from_first(replan(planned, settings, sizes, seconds_left(settings, started), base_s))


def to_choose_by(sizes: Sizes, n_select: int) -> Sizes:
    """With what there is to choose a strength by, n_select rows of the field among it."""
    n_texts, n_requests = len(general.probe_texts()), len(general.probe_requests())
    return replace(sizes, select_items=n_select, probe_texts=n_texts, probe_requests=n_requests)


def measure_machine(
    encoder: Encoder, reader: PackReader, train: Sequence[Example], test: Sequence[Example], settings: Settings
) -> tuple[Sizes, Speed]:
    """How long the rows and the evidence are in tokens, and how fast this machine reads them."""
    sampled = random.Random(settings.seed).sample(list(train), min(SAMPLED, len(train)))
    documents = [d for e in sampled for d in encoder.encode(e)]
    if not documents:
        raise DataError(
            f"{sampled[0].id} and {len(sampled) - 1} other rows have prompts that fill the model's window of "
            f"{encoder.window} tokens: shorten them, or choose another --model."
        )
    test_tokens = sum(len(d.ids) for e in test for d in encoder.encode(e))
    items = encode_items(encoder, [], general.measured_texts(), general.measured_requests(), None, general.choices())
    own = general.own_texts(settings.general)
    own_texts = [d for e in own.measured for d in encoder.encode(e)]
    n_tokens = sum(d.n_tokens for d in documents) * len(train) / len(sampled)
    sizes = Sizes(
        field_items=len(test),
        field_tokens=test_tokens / max(1, len(test)),
        train_tokens=round(n_tokens * scarcest(train, settings)),
        texts=len(items.texts),
        text_tokens=_mean(len(d.ids) for d in items.text_documents),
        own_text_tokens=sum(len(d.ids) for d in own_texts),
        requests=len(items.requests),
        request_tokens=_mean(b.n_tokens for b in items.request_branches),
        choices=len(items.choices),
        choice_tokens=_mean(b.n_tokens for b in items.choice_branches),
        answer_tokens=ANSWER_TOKENS,
        written_tokens=WRITTEN_TOKENS,
        replay_requests=len(general.replay_requests()),
        kind=kind_of(train),
        own_kind=kind_of(own.replayed) if own.replayed else None,
        distance=distance(reader, documents, items.text_documents),
        probe_tokens=sum(len(d.ids) for d in probe_answers(encoder)),
        pairs=sum(bool(example.rejected) for example in train),
        document_tokens=round(_mean(d.n_tokens for d in documents)),
        shown=min(SHOWN_FIELD, len(test)),
        looked_at_tokens=2 * PROBE_TOKENS + 4 * READ_TOKENS,  # of two kinds of text, by two models
    )
    return sizes, measure_speed(reader, documents, items.text_documents, settings.pack_tokens, ANSWER_TOKENS)


def distance(reader: PackReader, field: Sequence[Encoded], texts: Sequence[Encoded]) -> float:
    """The base's bits per byte on a few rows of the field over those on a few general texts.

    Every rank reads them all: FSDP's ranks must have read the same when the first backward pass comes.
    """
    bits = []
    with disabled(reader.model):
        for documents in (field, texts):
            few = next(divide((replace(d, item=str(i), rejected=()) for i, d in enumerate(documents)), DISTANCE_TOKENS))
            nats = float(reader.token_nll(pack(few, with_end=False)).double().sum())
            bits.append(nats / max(1, sum(d.n_bytes for d in few)))
    return bits[0] / bits[1]


def _mean(values: Iterator[int]) -> float:
    known = list(values)
    return sum(known) / len(known) if known else 0.0


def plan_lines(planned: Plan) -> list[str]:
    """What a person is told before the time is spent."""
    evidence = planned.evidence
    replay = f", {planned.replay.share:.0%} of them replay" if planned.replay.share else ", no replay"
    return [
        f"plan: {planned.train_tokens:,} tokens in {planned.steps} steps{replay} ({planned.train_s / 60:.1f} min); "
        f"evidence on {evidence.field_items} held-out items of the field and {evidence.texts} texts, "
        f"{evidence.requests} requests and {evidence.choices} questions of the general pack "
        f"({planned.evidence_s / 60:.1f} min)",
        *_choosing_lines(planned),
        _rate_line(planned),
        *(f"note: {note}" for note in planned.notes),
    ]


def after_base_lines(first: Plan, planned: Plan, base_s: float) -> list[str]:
    """What a person is told of a plan that is another than the first."""
    return [
        f"the base was measured in {base_s:.0f} s, planned {first.base_s:.0f}: {planned.train_tokens:,} tokens in "
        f"{planned.steps} steps fit the time that is left",
        *(_choosing_lines(planned) if planned.evidence.choosing != first.evidence.choosing else ()),
        *(f"note: {note}" for note in planned.notes if note not in first.notes),
    ]


def _choosing_lines(planned: Plan) -> list[str]:
    choosing = planned.evidence.choosing
    if not choosing.strengths:
        return []
    strengths = ", ".join(f"{strength:g}" for strength in choosing.strengths)
    return [
        f"its strength is chosen among {strengths} on {choosing.field_items} other held-out items, {choosing.texts} "
        f"texts and {choosing.requests} requests"
    ]


def _rate_line(planned: Plan) -> str:
    if planned.probe:
        rates = ", ".join(f"{rate:g}" for rate in planned.probe.rates)
        share = planned.probe.cost_tokens / planned.train_tokens
        return f"learning rate: {rates} are tried for {planned.probe.steps} steps each, which costs {share:.0%} more"
    return f"learning rate: {planned.lr:g}, {planned.lr_from}"
