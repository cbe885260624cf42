"""What choices are made on: the select half of the field, with general texts and requests of its own, read at several
strengths of the adapter and at several moments of its training; no claim is made on any of it."""

import time
from collections.abc import Sequence
from contextlib import nullcontext

from metier.evidence.gain import FIELD_SLICE
from metier.evidence.kept_scores import General, ScoreCache
from metier.evidence.measure import Subject, kept_answers, read_alike, score_cache, subset
from metier.evidence.score import Items, Record, encode_items, score_field, score_general
from metier.models.adapters import at_strength, disabled
from metier.runs import RunFolder, read_jsonl, write_jsonl
from metier.settings import Settings
from metier.sources import general
from metier.sources.examples import Example
from metier.training.plan import Choosing
from metier.training.trajectory import Trajectory, standing_at

DIAL, WAY, TRAINED = "dial.jsonl", "trajectory.jsonl", "trained.jsonl"


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

    dial: score records with `step` and `alpha`, the strength; the base has alpha 0 and the step of the last weights.
    trajectory: score records of the field with `tokens_seen`, the field's tokens that had been trained on by then; not
    there for an adapter that was trained elsewhere. trained: records of some rows that were trained on, by `arm`, for
    the gap between these and what was held out.
    """
    started = time.monotonic()
    if not planned.strengths:
        return 0.0
    items = _items(subject, select, planned)
    points = list(trajectory.weights()) if trajectory else []
    n_readings = 1 + len(planned.strengths) + len(points)
    subject.say.begin(f"{n_readings} strengths and stages of the adapter read what choices are made on", n_readings)
    seen = tokens_seen(subject.run) if trajectory else {}
    with disabled(subject.reader.model):
        base = _read(subject, items, cache=score_cache(subject))
    dial = _of(base, step=n_steps, alpha=0.0)
    way = _of(_field(base), tokens_seen=0)
    # An adapter with tokens of its own cuts the same texts in another way.
    items = items if subject.new_tokens is None else items.read_with(subject.adapted_encoder)
    done = 1
    for strength in planned.strengths:
        subject.say.advance(done)
        with at_strength(subject.reader.model, strength):
            found = _read(subject, items)
        dial += _of(found, step=n_steps, alpha=strength)
        way += _of(_field(found), tokens_seen=seen[n_steps]) if trajectory and strength == 1 else []
        done += 1
    for step, weights in points:
        subject.say.advance(done)
        with standing_at(subject.reader.model, weights()):
            found = _read(subject, items, general_too=step == points[-1][0])
        way += _of(_field(found), tokens_seen=seen[step])
        done += 1
    if points:
        dial += _of(found, step=points[-1][0], alpha=1.0)
    if trained:
        write_jsonl(subject.run.evidence / TRAINED, _trained(subject, subset(trained, planned.field_items, 0)))
    subject.say.end()
    write_jsonl(subject.run.evidence / DIAL, dial)
    if trajectory:
        write_jsonl(subject.run.evidence / WAY, sorted(way, key=lambda record: int(str(record["tokens_seen"]))))
    return time.monotonic() - started


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


def _read(subject: Subject, items: Items, general_too: bool = True, cache: ScoreCache | None = None) -> list[Record]:
    pack_tokens = subject.settings.pack_tokens

    def read_general() -> General:
        return score_general(subject.reader, items, pack_tokens, lambda _: None)

    records, _ = score_field(subject.reader, items, pack_tokens, lambda _: None)
    if general_too:
        records += (cache.general(items, read_general) if cache else read_general())[0]
    return records


def _field(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record["slice"] == FIELD_SLICE]


def _of(records: Sequence[Record], **what: float) -> list[Record]:
    return [{**what, **record} for record in records]
