"""What is measured, when: the plan, the base before training, the adapted model after it, on the same items."""

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from peft import PeftModel

from metier.evidence.arms import Arm, ArmName, nll_per_token, score_arm, shown_prompts, write_arm
from metier.evidence.kept import KeptBase, read_base, write_base
from metier.evidence.kept_scores import ScoreCache
from metier.evidence.layers import layer_changes
from metier.evidence.preferences import score_pairs
from metier.evidence.score import Items, Passage, Record, encode_items
from metier.evidence.statistics import bits_per_byte, expected_detectable
from metier.evidence.stored import Facts, write_facts
from metier.evidence.subject import Subject
from metier.evidence.written import ANSWER_TOKENS, answers_of, kept_answers
from metier.models.adapters import disabled
from metier.models.encoding import Encoded, Encoder
from metier.models.generate import Answer, Prompt, prompts_of
from metier.models.packing import PackReader, divide
from metier.ranks import this_rank
from metier.runs import write_jsonl
from metier.sources import general
from metier.sources.examples import Example, Message
from metier.sources.general import Request
from metier.sources.leaks import Leaks, find_leaks
from metier.sources.ledger import Ledger
from metier.sources.shown import leak_lines
from metier.sources.split import Split, Unit
from metier.sources.wheels import cache_folder
from metier.training import parallel
from metier.training.evidence_plan import EvidencePlan
from metier.training.probe import JUDGED_ROWS, Judge
from metier.training.replay import ReplayPlan

SHOWN_FIELD = 4  # held-out rows answered by both models, for the reader
PROBE_TOKENS = 512
HARDLY_ANY = 0.5  # of the bits of the base: no adapter gains as much

Sample = tuple[str, str, str]
"""(request, reference, a model's answer) of a held-out example"""


@dataclass(frozen=True)
class Before:
    """The base, measured before training; the adapted model is measured on the same items."""

    items: Items
    base: Arm
    requests: tuple[Request, ...]
    samples: list[Sample]
    foretold: float | None  # share of the base's bits: the smallest gain that the set was expected to show
    seconds: float
    preferences: list[Record] = field(default_factory=list)

    def field_by_example(self) -> Iterator[tuple[str, list[Encoded]]]:
        """(example id, its windows) of the held-out items that are scored."""
        for example in self.items.field:
            yield example.id, [d for d in self.items.field_documents if d.item == example.id]


def base_arm(subject: Subject, held_out: Sequence[Example], unit: Unit, evidence: EvidencePlan) -> Before:
    """Answer, score and write the base arm, or read back what a run that was killed had written of it whole; say what
    the held-out set can show."""
    started = time.monotonic()
    encoder, settings, say = subject.encoder, subject.settings, subject.say
    requests = general.measured_requests()[: evidence.requests]
    field = subset(read_alike(subject, held_out), evidence.field_items, settings.seed)
    shown = shown_prompts(encoder, field[:SHOWN_FIELD], ANSWER_TOKENS)
    kept = parallel.from_first(read_base(subject.run))
    if kept:
        own = kept.own
    else:
        # Those that a strength is chosen by are kept for then, so that they take no batch of their own.
        asked = [r.request for r in (*requests, *general.probe_requests()[: evidence.choosing.requests])]
        answers = kept_answers(subject, asked, [prompt for prompt, _ in shown])
        own, samples = answers[: len(requests)], _samples_of(shown, answers[len(asked) :])
    items = encode_items(
        encoder,
        field,
        (*general.own_texts(settings.general).measured, *general.measured_texts()[: evidence.texts])
        if evidence.texts
        else (),
        requests[: evidence.scored_requests],
        [a.answer for a in own[: evidence.scored_requests]],
        general.choices()[: evidence.choices],
    )
    if not kept:
        arm, pairs = _score_base(subject, items, _with_good_tokens(encoder, requests, own))
        kept = KeptBase(arm, own, samples, pairs, time.monotonic() - started)
        if this_rank().is_first:
            write_base(subject.run, kept)
    foretold = foretold_detectable(kept.arm)
    if items.field:
        say.say(detectable_line(kept.arm, unit, foretold))
    write_jsonl(subject.run.evidence / "passages.jsonl", [_text_of(passage) for passage in items.passages])
    return Before(items, kept.arm, requests, kept.samples, foretold, kept.seconds, kept.preferences)


def _samples_of(shown: Sequence[tuple[Prompt, str]], answers: Sequence[Answer]) -> list[Sample]:
    return [(p.request, reference, a.answer) for (p, reference), a in zip(shown, answers, strict=True)]


def _text_of(passage: Passage) -> Record:
    return {"item": passage.item, "document": passage.document, "text": passage.text}


def leaks_of(subject: Subject, split: Split, replay: Sequence[Answer], wanted: ReplayPlan) -> Leaks:
    """What of the measured text is trained on; said before the time is spent."""
    settings = subject.settings
    own = general.own_texts(settings.general)
    found = find_leaks(
        (*split.train, *(own.replayed if wanted.yours else ())),
        (*split.select, *split.test),
        [(answer.request, answer.answer) for answer in replay],
        own.measured,
        settings.benchmark,
    )
    for line in leak_lines(found, split.unit):
        subject.say.say(line)
    return found


def _score_base(subject: Subject, items: Items, answers: Sequence[tuple[str, int, Answer]]) -> tuple[Arm, list[Record]]:
    """The base's arm, and its held-out pairs of answers."""
    reader, say = subject.reader, subject.say
    say.begin("base model reads the evidence", items.n_tokens)
    with disabled(reader.model):
        arm = score_arm(reader, items, answers, subject.settings.pack_tokens, say, score_cache(subject))
        preferences = _preferences(subject, reader, items, "base")
    say.end()
    return arm, preferences


def score_cache(subject: Subject) -> ScoreCache:
    """Of the base's scores of the general pack."""
    return ScoreCache(cache_folder(), subject.base.answers_as, subject.reader.device, subject.settings.pack_tokens)


def _preferences(subject: Subject, reader: PackReader, items: Items, arm: ArmName) -> list[Record]:
    """Score the held-out pairs of answers with one model and write them; nothing is written where there are none."""
    document_of = {example.id: example.document for example in items.field}
    records = score_pairs(reader, items.field_documents, document_of, subject.settings.pack_tokens, lambda _: None)
    if records:
        write_jsonl(subject.run.evidence / f"preferences-{arm}.jsonl", records)
    return records


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
    if share > HARDLY_ANY:
        size = f"{share:.0%}" if share < 1 else "all"
        return (
            f"these {n_documents} held-out {unit}s are too few, or too unlike one another, to show a gain that is not "
            f"{size} of the base's bits: add documents"
        )
    return f"these {n_documents} held-out {unit}s can show a gain of about {share:.1%} of the base's bits, not less"


@dataclass(frozen=True)
class After:
    """The adapted model, measured on the items of `Before`."""

    adapted: Arm
    samples: list[Sample]
    seconds: float
    preferences: list[Record] = field(default_factory=list)


def adapted_arm(subject: Subject, reader: PackReader, before: Before) -> After:
    """Measure the adapted model on what the base was measured on. reader: the subject's own, or that of another
    model."""
    started = time.monotonic()
    encoder, say = subject.adapted_encoder, subject.say
    items = before.items if subject.new_tokens is None else before.items.read_with(encoder)
    n_requests = len(before.requests)
    shown = shown_prompts(encoder, before.items.field[:SHOWN_FIELD], ANSWER_TOKENS)
    prompts = [*prompts_of(encoder, [r.request for r in before.requests]), *(prompt for prompt, _ in shown)]
    say.begin("adapted model answers the same requests", len(prompts))
    answers = answers_of(reader.model, encoder, prompts, say)
    say.begin("adapted model reads the same evidence", items.n_tokens)
    arm = score_arm(
        reader,
        items,
        _with_good_tokens(encoder, before.requests, answers[:n_requests]),
        subject.settings.pack_tokens,
        say,
    )
    preferences = _preferences(subject, reader, items, "adapted")
    say.end()
    write_arm(subject.run, "adapted", arm)
    if isinstance(reader.model, PeftModel) and items.field_documents and items.text_documents:
        changes = layer_changes(reader, items.field_documents, items.text_documents)
        write_jsonl(subject.run.evidence / "layers.jsonl", changes)
    return After(arm, _samples_of(shown, answers[n_requests:]), time.monotonic() - started, preferences)


def _with_good_tokens(
    encoder: Encoder, requests: Sequence[Request], answers: Sequence[Answer]
) -> list[tuple[str, int, Answer]]:
    """(id, tokens of the good answer, the answer given), since a length is healthy or not against a good answer's."""
    return [(r.id, len(encoder.text_ids(r.answer)), a) for r, a in zip(requests, answers, strict=True)]


def read_alike(subject: Subject, examples: Sequence[Example]) -> Sequence[Example]:
    """Those of which base and adapted model read the same bytes: not what only fits a window in the new tokens."""
    if subject.new_tokens is None:
        return examples
    encoders = (subject.encoder, subject.adapted_encoder)
    kept = [e for e in examples if len({sum(d.n_bytes for d in encoder.encode(e)) for encoder in encoders}) == 1]
    if n_left := len(examples) - len(kept):
        subject.say.say(f"{n_left} held-out items fit the window with the new tokens alone and are left out")
    return kept


def subset(examples: Sequence[Example], n: int, seed: int) -> list[Example]:
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
    """A few rows of the select half, read before and after training: what moved, on the same rows."""

    def __init__(self, encoder: Encoder, examples: Iterable[Example]) -> None:
        self.documents = next(divide((d for e in examples for d in encoder.encode(e)[:1]), PROBE_TOKENS), [])
        self.n_rows = len(self.documents)

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
    rows = subset(select, JUDGED_ROWS, subject.settings.seed)
    documents = [d for e in rows for d in subject.encoder.encode(e)[:1] if d.n_bytes]
    if not documents:
        return None
    return Judge(subject.reader, documents, probe_answers(subject.encoder), subject.settings.pack_tokens)


def write_measured(
    subject: Subject,
    before: Before,
    after: After,
    unit: Unit,
    leaks: Leaks,
    dial: float = 1.0,
    available: int = 0,
    language: str = "en",
) -> None:
    """What the evidence is concluded from, beside the records that both arms have written; nothing where nothing was
    measured. dial, available, language: as in `stored.Facts`."""
    if before.items.field:
        write_jsonl(subject.run.evidence / "samples.jsonl", _samples(before, after))
        facts = Facts(unit, subject.settings.budget_forgetting, before.foretold, dial, available, language)
        write_facts(subject.run, facts, leaks)


def _samples(before: Before, after: After) -> list[dict[str, str]]:
    """Held-out rows of the field, then the general requests that every run shows."""
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
