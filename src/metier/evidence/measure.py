"""What is measured, when: the plan, the base before training, the adapted model after it, on the same items."""

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from metier.errors import DataError
from metier.evidence.arms import Arm, ArmName, field_samples, nll_per_token, score_arm, write_arm
from metier.evidence.kept import KeptBase, read_base, write_base
from metier.evidence.preferences import score_pairs
from metier.evidence.score import Items, Record, encode_items
from metier.evidence.statistics import bits_per_byte, expected_detectable
from metier.models.adapters import disabled
from metier.models.encoding import Encoded, Encoder
from metier.models.generate import Answer, AnswerCache, answer_all
from metier.models.load import BaseModel
from metier.models.packing import PackReader
from metier.models.terms import NewTokens
from metier.progress import Progress
from metier.ranks import this_rank
from metier.runs import RunFolder, write_jsonl
from metier.settings import Settings, learning_rate
from metier.sources import general
from metier.sources.examples import Example, Message
from metier.sources.general import Request
from metier.sources.leaks import Leaks, find_leaks
from metier.sources.ledger import Ledger
from metier.sources.shown import leak_lines
from metier.sources.split import Split, Unit
from metier.sources.wheels import cache_folder
from metier.training import parallel
from metier.training.plan import EvidencePlan, Plan, Sizes, Speed, measure_speed, plan
from metier.training.probe import JUDGED_ROWS, Judge

ANSWER_TOKENS = 96  # limit of a generated answer; most good answers of the general pack are shorter
SAMPLED = 64  # rows encoded to learn how long rows are
SHOWN_FIELD = 4  # held-out rows answered by both models, for the reader
SHOWN_TOKENS = 64  # of their answers
PROBE_ROWS = 16


@dataclass(frozen=True)
class Subject:
    """What a run works on: the base, what reads packs with it and its adapter, and where the evidence goes.

    new_tokens: those that the adapter brings; the base is measured without them, on the same bytes.
    """

    base: BaseModel
    reader: PackReader
    settings: Settings
    run: RunFolder
    say: Progress
    new_tokens: NewTokens | None = None

    @property
    def encoder(self) -> Encoder:
        return self.base.encoder

    @property
    def adapted_encoder(self) -> Encoder:
        return self.new_tokens.encoder if self.new_tokens else self.base.encoder


def make_plan(base: BaseModel, reader: PackReader, split: Split, settings: Settings, started: float) -> Plan:
    """Measure this machine for a few seconds and divide what is left of the minutes since `started` (monotonic, s)."""
    sizes, speed = measure_machine(base.encoder, reader, split.train, split.test, settings)
    seconds = settings.minutes * 60 - (time.monotonic() - started)
    lr = learning_rate(base.n_parameters, settings.method, preferences=bool(sizes.pairs))
    return parallel.from_first(plan(settings, sizes, speed, seconds, lr))


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
    items = encode_items(encoder, [], general.texts(), general.measured_requests(), None, general.choices())
    own_texts = [d for e in general.own_texts(settings.general) for d in encoder.encode(e)]
    sizes = Sizes(
        field_items=len(test),
        field_tokens=test_tokens / max(1, len(test)),
        train_tokens=round(sum(d.n_tokens for d in documents) * len(train) / len(sampled)),
        texts=len(items.texts),
        text_tokens=_mean(len(d.ids) for d in items.text_documents),
        own_text_tokens=sum(len(d.ids) for d in own_texts),
        requests=len(items.requests),
        request_tokens=_mean(b.n_tokens for b in items.request_branches),
        choices=len(items.choices),
        choice_tokens=_mean(b.n_tokens for b in items.choice_branches),
        answer_tokens=ANSWER_TOKENS,
        replay_requests=len(general.replay_requests()),
        probe_tokens=sum(len(d.ids) for d in probe_answers(encoder)),
        pairs=sum(bool(example.rejected) for example in train),
    )
    return sizes, measure_speed(reader, documents, items.text_documents, settings.pack_tokens, ANSWER_TOKENS)


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
        f"{evidence.requests} requests and {evidence.choices} questions of the general pack "
        f"({planned.evidence_s / 60:.1f} min)",
        _rate_line(planned),
        *(f"note: {note}" for note in planned.notes),
    ]


def _rate_line(planned: Plan) -> str:
    if planned.probe:
        rates = ", ".join(f"{rate:g}" for rate in planned.probe.rates)
        share = planned.probe.cost_tokens / planned.train_tokens
        return f"learning rate: {rates} are tried for {planned.probe.steps} steps each, which costs {share:.0%} more"
    return f"learning rate: {planned.lr:g}, {planned.lr_from}"


@dataclass(frozen=True)
class Before:
    """The base, measured before training; the adapted model is measured on the same items."""

    items: Items
    base: Arm
    replay: list[Answer]
    requests: tuple[Request, ...]
    shown: tuple[Example, ...]
    samples: list[tuple[str, str, str]]
    foretold: float | None  # share of the base's bits: the smallest gain that the set was expected to show
    seconds: float
    preferences: list[Record] = field(default_factory=list)

    def field_by_example(self) -> Iterator[tuple[str, list[Encoded]]]:
        """(example id, its windows) of the held-out items that are scored."""
        for example in self.items.field:
            yield example.id, [d for d in self.items.field_documents if d.item == example.id]


def base_arm(
    subject: Subject, held_out: Sequence[Example], unit: Unit, evidence: EvidencePlan, n_replay: int = 0
) -> Before:
    """Answer, score and write the base arm, or read back what a run that was killed had written of it whole; say what
    the held-out set can show. n_replay: requests answered for replay."""
    started = time.monotonic()
    encoder, settings, say = subject.encoder, subject.settings, subject.say
    requests = general.measured_requests()[: evidence.requests]
    kept = parallel.from_first(read_base(subject.run))
    if kept:
        replay, own = kept.replay, kept.own
    else:
        cache = AnswerCache(cache_folder(), subject.base.answers_as, encoder, ANSWER_TOKENS)
        # Two calls, so that the replay, and the adapter with it, does not depend on how much is measured.
        replay = _kept_answers(subject, cache, general.replay_requests()[:n_replay])
        own = _kept_answers(subject, cache, requests)
    items = encode_items(
        encoder,
        _subset(_read_alike(subject, held_out), evidence.field_items, settings.seed),
        (*general.own_texts(settings.general), *general.texts()[: evidence.texts]) if evidence.texts else (),
        requests,
        [a.answer for a in own],
        general.choices()[: evidence.choices],
    )
    shown = items.field[:SHOWN_FIELD]
    if not kept:
        arm, samples, pairs = _score_base(subject, items, _with_good_tokens(encoder, requests, own), shown)
        kept = KeptBase(arm, replay, own, samples, pairs, time.monotonic() - started)
        if this_rank().is_first:
            write_base(subject.run, kept)
    foretold = foretold_detectable(kept.arm)
    if items.field:
        say.say(detectable_line(kept.arm, unit, foretold))
    return Before(items, kept.arm, replay, requests, shown, kept.samples, foretold, kept.seconds, kept.preferences)


def leaks_of(subject: Subject, split: Split, replay: Sequence[Answer]) -> Leaks:
    """What of the measured text is trained on; said before the time is spent."""
    settings = subject.settings
    found = find_leaks(
        split.train,
        (*split.select, *split.test),
        [(answer.request, answer.answer) for answer in replay],
        general.own_texts(settings.general),
        settings.benchmark,
    )
    for line in leak_lines(found, split.unit):
        subject.say.say(line)
    return found


def _score_base(
    subject: Subject, items: Items, answers: Sequence[tuple[str, int, Answer]], shown: Sequence[Example]
) -> tuple[Arm, list[tuple[str, str, str]], list[Record]]:
    """The base's arm, its samples, and its held-out pairs of answers."""
    reader, say = subject.reader, subject.say
    say.begin("base model reads the evidence", items.n_tokens)
    with disabled(reader.model):
        arm = score_arm(reader, items, answers, subject.settings.pack_tokens, say)
        preferences = _preferences(subject, reader, items, "base")
        samples = field_samples(reader.model, subject.encoder, shown, SHOWN_TOKENS)
    say.end()
    return arm, samples, preferences


def _preferences(subject: Subject, reader: PackReader, items: Items, arm: ArmName) -> list[Record]:
    """Score the held-out pairs of answers with one model and write them; nothing is written where there are none."""
    document_of = {example.id: example.document for example in items.field}
    records = score_pairs(reader, items.field_documents, document_of, subject.settings.pack_tokens, lambda _: None)
    if records:
        write_jsonl(subject.run.evidence / f"preferences-{arm}.jsonl", records)
    return records


def _kept_answers(subject: Subject, cache: AnswerCache, requests: Sequence[Request]) -> list[Answer]:
    """From the cache of the first rank, whatever others have kept; what it lacks is answered by all ranks."""
    wanted = [r.request for r in requests]
    model = subject.reader.model
    if missing := parallel.from_first(cache.missing(wanted)):
        subject.say.begin("base model answers general requests (kept for later runs)", len(missing))
        with disabled(model):
            answers = _answers(model, subject.encoder, missing, subject.say)
        if this_rank().is_first:
            cache.keep(answers)
    return parallel.by_first(lambda: cache.answers(model, subject.encoder, wanted))


def _answers(model: Any, encoder: Encoder, requests: Sequence[str], say: Progress) -> list[Answer]:
    """Greedy answers in the order of the requests, which are divided over the ranks by the length of their prompts."""
    own = parallel.own_part([len(request) for request in requests])
    n_ranks = parallel.n_ranks()
    made = answer_all(
        model, encoder, [requests[i] for i in own], ANSWER_TOKENS, lambda done, _: say.advance(n_ranks * done)
    )
    by_request = {answer.request: answer for answers in parallel.from_all(made) for answer in answers}
    return [by_request[request] for request in requests]


def _field_records(arm: Arm) -> list[dict[str, Any]]:
    return [record for record in arm.scores if record["slice"] == "field"]


def foretold_detectable(arm: Arm) -> float | None:
    """The smallest gain that the held-out set can show, as a share of the base's bits; None for under two documents."""
    records = _field_records(arm)
    smallest = expected_detectable(records) if records else None
    return None if smallest is None else smallest / bits_per_byte(records)


def detectable_line(arm: Arm, unit: str, share: float | None) -> str:
    n_documents = len({record["document"] for record in _field_records(arm)})
    if share is None:
        return f"one held-out {unit} cannot show a gain of any size: add documents"
    return f"these {n_documents} held-out {unit}s can show a gain of about {share:.1%} of the base's bits, not less"


@dataclass(frozen=True)
class After:
    """The adapted model, measured on the items of `Before`."""

    adapted: Arm
    samples: list[tuple[str, str, str]]
    seconds: float
    preferences: list[Record] = field(default_factory=list)


def adapted_arm(subject: Subject, reader: PackReader, before: Before) -> After:
    """Measure the adapted model on what the base was measured on. reader: the subject's own, or that of another
    model."""
    started = time.monotonic()
    encoder, say = subject.adapted_encoder, subject.say
    items = before.items if subject.new_tokens is None else before.items.read_with(encoder)
    requests = [r.request for r in before.requests]
    say.begin("adapted model answers the same requests", len(requests))
    answers = _answers(reader.model, encoder, requests, say)
    say.begin("adapted model reads the same evidence", items.n_tokens)
    arm = score_arm(
        reader, items, _with_good_tokens(encoder, before.requests, answers), subject.settings.pack_tokens, say
    )
    preferences = _preferences(subject, reader, items, "adapted")
    samples = field_samples(reader.model, encoder, before.shown, SHOWN_TOKENS)
    say.end()
    write_arm(subject.run, "adapted", arm)
    return After(arm, samples, time.monotonic() - started, preferences)


def _with_good_tokens(
    encoder: Encoder, requests: Sequence[Request], answers: Sequence[Answer]
) -> list[tuple[str, int, Answer]]:
    """(id, tokens of the good answer, the answer given), since a length is healthy or not against a good answer's."""
    return [(r.id, len(encoder.text_ids(r.answer)), a) for r, a in zip(requests, answers, strict=True)]


def _read_alike(subject: Subject, examples: Sequence[Example]) -> Sequence[Example]:
    """Those of which base and adapted model read the same bytes: not what only fits a window in the new tokens."""
    if subject.new_tokens is None:
        return examples
    encoders = (subject.encoder, subject.adapted_encoder)
    kept = [e for e in examples if len({sum(d.n_bytes for d in encoder.encode(e)) for encoder in encoders}) == 1]
    if n_left := len(examples) - len(kept):
        subject.say.say(f"{n_left} held-out items fit the window with the new tokens alone and are left out")
    return kept


def _subset(examples: Sequence[Example], n: int, seed: int) -> list[Example]:
    """n examples, the same for the same seed whatever n: a larger plan adds to a smaller one."""
    order = list(examples)
    random.Random(f"{seed}/held out").shuffle(order)
    return order[:n]


def cut_bytes(ledger: Ledger, encoded: Iterable[tuple[str, Sequence[Encoded]]]) -> dict[str, int]:
    """{id: learned bytes that no window holds} of what was cut; all of them where the prompt alone fills the window."""
    cut = {i: sum(d.n_cut_bytes for d in ds) if ds else ledger.sizes(i)[2] for i, ds in encoded}
    return {i: n for i, n in cut.items() if n}


def require_renderable(encoder: Encoder, examples: Sequence[Example]) -> None:
    """Try the model's template on one conversation of every order of roles, before any time is spent.

    Raises:
        DataError: the template refuses one; the message names the row.
    """
    tried: set[tuple[str, ...]] = set()
    for example in examples:
        roles = tuple(message.role for message in example.messages)
        if roles not in tried:
            tried.add(roles)
            encoder.encode(example)


class Probe:
    """Rows of the select half, read before and after training: what moved, on the same rows."""

    def __init__(self, encoder: Encoder, examples: Sequence[Example]) -> None:
        chosen = examples[:PROBE_ROWS]
        self.n_rows = len(chosen)
        self.documents = [d for e in chosen for d in encoder.encode(e)[:1]]

    def nll_per_token(self, reader: PackReader, pack_tokens: int) -> float:
        """Nats per scored token."""
        return nll_per_token(reader, self.documents, pack_tokens)


def probe_answers(encoder: Encoder) -> list[Encoded]:
    """General requests with good answers, which neither measure retention nor are trained: they judge a rate."""
    examples = (
        Example(r.id, "general", 1, r.id, messages=(Message("user", r.request), Message("assistant", r.answer)))
        for r in general.probe_requests()
    )
    return [d for e in examples for d in encoder.encode(e)]


def probe_judge(subject: Subject, select: Sequence[Example]) -> Judge | None:
    """What judges a learning rate: rows of the select half, never of the test half; None where it holds none."""
    rows = _subset(select, JUDGED_ROWS, subject.settings.seed)
    documents = [d for e in rows for d in subject.encoder.encode(e)[:1] if d.n_bytes]
    if not documents:
        return None
    return Judge(subject.reader, documents, probe_answers(subject.encoder), subject.settings.pack_tokens)


def answers_as_samples(before: Before, after: After) -> list[dict[str, str]]:
    """The samples of results.json: held-out rows of the field, then the general requests that every run shows."""
    of_field = [
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
    return of_field + general_ones
