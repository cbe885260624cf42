"""What choices are made on: the select half of the field, with general texts and requests of its own, read at several
strengths of the adapter and at several moments of its training; no claim is made on any of it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from peft import PeftModel
from torch import Tensor

from metier.evidence.gain import FIELD_SLICE
from metier.evidence.kept_scores import General, ScoreCache
from metier.evidence.measure import read_alike, score_cache, subset
from metier.evidence.score import Items, Reader, Record, encode_items, score_field, score_general
from metier.evidence.subject import Subject
from metier.evidence.written import kept_answers
from metier.models.adapters import at_strength, disabled
from metier.models.divergence import BesideBase, KeepingBase
from metier.runs import RunFolder, read_jsonl, write_jsonl
from metier.settings import Settings
from metier.sources import general
from metier.sources.examples import Example
from metier.training.evidence_plan import Choosing
from metier.training.trajectory import Trajectory, standing_at

DIAL, WAY, TRAINED = "dial.jsonl", "trajectory.jsonl", "trained.jsonl"
TILT = 0.5  # of the last layer's strength above the mean, and of the first one's below it


def has_dial(settings: Settings) -> bool:
    """Whether what is trained can be turned while the base stands beside it, whole on every rank."""
    return settings.method != "full" and settings.sharding == "none"


def read_strengths(
    subject: Subject,
    select: Sequence[Example],
    planned: Choosing,
    trajectory: Trajectory | None = None,
    n_steps: int = 0,
    trained: Sequence[Example] = (),
) -> float:
    """Write evidence/dial.jsonl, trajectory.jsonl and trained.jsonl; return the seconds it took.

    dial: score records with `step` and `alpha`, the strength; the base has alpha 0 and the step of the last weights. At
    full strength, halfway and at the end, with the figures of `BesideBase`, unless the adapter brings tokens of its
    own: there is no next token in common.
    trajectory: score records of the field with `tokens_seen`, the field's tokens that had been trained on by then; not
    there for an adapter that was trained elsewhere. trained: records of some rows that were trained on, by `arm`, for
    the gap between these and what was held out.
    """
    started = time.monotonic()
    if not planned.strengths:
        return 0.0
    items = _items(subject, select, planned)
    # An adapter with tokens of its own cuts the same texts in another way.
    as_adapted = items if subject.new_tokens is None else items.read_with(subject.adapted_encoder)
    stages = _stages(subject, planned, trajectory, n_steps)
    base = KeepingBase(subject.reader)
    beside = subject.reader if subject.new_tokens else BesideBase(base)
    seen = {0: 0, **(tokens_seen(subject.run) if trajectory else {})}
    subject.say.begin(f"{len(stages)} strengths and stages of the adapter read what choices are made on", len(stages))
    dial: list[Record] = []
    way: list[Record] = []
    for i, stage in enumerate(stages):
        subject.say.advance(i)
        with stage.within():
            if stage.alpha == 0:
                found = _read(subject, base, items, cache=score_cache(subject))
            else:
                found = _read(subject, beside if stage.is_full else subject.reader, as_adapted, stage.with_general)
        if stage.with_general:
            dial += [{"step": stage.step, "alpha": stage.alpha, **stage.tilted, **record} for record in found]
        if trajectory and stage.alpha in (0, 1) and not stage.tilt:
            field = [record for record in found if record["slice"] == FIELD_SLICE]
            way += [{"tokens_seen": seen[stage.step if stage.alpha else 0], **record} for record in field]
    if trained:
        write_jsonl(subject.run.evidence / TRAINED, _trained(subject, subset(trained, planned.field_items, 0)))
    subject.say.end()
    write_jsonl(subject.run.evidence / DIAL, dial)
    if trajectory:
        write_jsonl(subject.run.evidence / WAY, sorted(way, key=lambda record: int(str(record["tokens_seen"]))))
    return time.monotonic() - started


@dataclass(frozen=True)
class Stage:
    """One reading of what choices are made on. within: brings the model there and back. with_general: whether general
    text is read too, for the dial."""

    step: int
    alpha: float
    within: Callable[[], AbstractContextManager[None]]
    tilt: float = 0.0
    with_general: bool = True

    @property
    def is_full(self) -> bool:
        """Whether it is a point of the dial at full strength."""
        return self.alpha == 1 and not self.tilt and self.with_general

    @property
    def tilted(self) -> dict[str, float]:
        return {"tilt": self.tilt} if self.tilt else {}


def _stages(subject: Subject, planned: Choosing, trajectory: Trajectory | None, n_steps: int) -> list[Stage]:
    """The base, the strengths of the last weights, with full evidence a tilt of them, and the weights on the way."""
    model = subject.reader.model
    strengths = [Stage(n_steps, a, partial(at_strength, model, a)) for a in planned.strengths]
    tilts = [Stage(n_steps, 1.0, partial(at_strength, model, 1.0, TILT), TILT)]
    points = list(trajectory.weights()) if trajectory else []
    halfway = points[-1][0] if points else None
    way = [Stage(step, 1.0, partial(_standing_at, model, read), 0.0, step == halfway) for step, read in points]
    full = subject.settings.evidence == "full"
    return [Stage(n_steps, 0.0, partial(disabled, model)), *strengths, *(tilts if full else ()), *way]


@contextmanager
def _standing_at(model: PeftModel, read: Callable[[], dict[str, Tensor]]) -> Iterator[None]:
    """As `standing_at`; the weights are read from the disk only now."""
    with standing_at(model, read()):
        yield


def _trained(subject: Subject, rows: Sequence[Example]) -> list[Record]:
    found: list[Record] = []
    for arm, encoder in (("base", subject.encoder), ("adapted", subject.adapted_encoder)):
        items = encode_items(encoder, rows, (), (), (), ())
        with disabled(subject.reader.model) if arm == "base" else nullcontext():
            records, _ = score_field(subject.reader, items, subject.settings.pack_tokens, lambda _: None)
        found += [{"arm": arm, **record} for record in records]
    return found


def tokens_seen(run: RunFolder) -> dict[int, int]:
    """{step: tokens of the field that had been trained on after it}."""
    seen, total = {}, 0
    for metrics in read_jsonl(run.metrics):
        total += metrics["tokens"] - metrics["replay_tokens"]
        seen[int(metrics["step"])] = total
    return seen


def _items(subject: Subject, select: Sequence[Example], planned: Choosing) -> Items:
    requests = general.probe_requests()[: planned.requests]
    own = kept_answers(subject, [r.request for r in requests])
    field = subset(read_alike(subject, select), planned.field_items, subject.settings.seed)
    return encode_items(
        subject.encoder, field, general.probe_texts()[: planned.texts], requests, [a.answer for a in own], []
    )


def _read(
    subject: Subject, reader: Reader, items: Items, general_too: bool = True, cache: ScoreCache | None = None
) -> list[Record]:
    pack_tokens = subject.settings.pack_tokens

    def read_general() -> General:
        return score_general(reader, items, pack_tokens, lambda _: None)

    records, _ = score_field(reader, items, pack_tokens, lambda _: None)
    if general_too:
        records += (cache.general(items, read_general) if cache else read_general())[0]
    return records
