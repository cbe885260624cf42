"""From minutes to tokens: what this machine can do in the time given, said before it is spent."""

import math
from dataclasses import dataclass, replace
from typing import Any

from metier.errors import RunError
from metier.runs import RunFolder, read_json
from metier.settings import BY_DATA, Settings
from metier.training.probe import JUDGED_ROWS, MAX_SHARE, ProbePlan, probe_plan
from metier.training.replay import (
    TOKENS_PER_ANSWER,
    Kind,
    ReplayPlan,
    default_share,
    plan_replay,
    share_of_yours,
)
from metier.training.speed import Speed
from metier.training.stream import MINED, OWN_GENERAL, REPLAY
from metier.training.trajectory import EXTRA_STEPS, SHARES

EVIDENCE_SHARE = 0.5  # of the time that is left: evidence may cost as much as training
MARGIN = 0.8  # of the time is planned: shared machines grow slower after they were measured (docs/log.md)
KNOWN_MARGIN = 0.9  # of what is left once the base was measured
SUSTAINED = 1.1  # minutes of evidence take so many times what the measurement of a few seconds promises (docs/log.md)
# What the rest is taken to need of what was planned for it: a base whose scores are kept says nothing of its time.
QUICKEST, SLOWEST = 0.75, 2.0
# Of fewer tokens each in a short run: sixteen steps of 512 did better than eight of 1,024 (docs/log.md).
FEWEST_STEPS = 16
SMALLEST_STEP = 512  # tokens


@dataclass(frozen=True)
class Sizes:
    """Tokens of one item of each kind, and how many there are."""

    field_items: int
    field_tokens: float
    train_tokens: int  # one epoch of the field; in a mix, until a part of it has been read once
    texts: int
    text_tokens: float
    own_text_tokens: int  # of all the user's general texts, which are always measured
    requests: int
    request_tokens: float  # a prompt with two answers
    choices: int
    choice_tokens: float
    answer_tokens: int  # limit of a generated answer that is measured
    replay_requests: int
    probe_tokens: int  # of the general answers that judge a learning rate
    written_tokens: int = 96  # limit of an answer that the base writes for replay
    select_items: int = 0  # of the field, there to choose by, and
    probe_texts: int = 0  # the texts and
    probe_requests: int = 0  # the requests that are
    pairs: int = 0  # of the rows to train on, those that are preferences
    kind: Kind = "answers"  # of the field, and
    own_kind: Kind | None = None  # of the user's general texts that are there to be replayed
    distance: float = 1.0  # the base's bits per byte on the field over those on general text
    document_tokens: int = 0  # of a row to train on, or of a window of a long text
    shown: int = 0  # held-out rows that both models answer for the reader
    looked_at_tokens: int = 0  # read beside all these, to see what training moved


DIVERGENCE_TEXTS = 8  # of each kind whose divergence from the base is read, halfway and at the end


@dataclass(frozen=True)
class Choosing:
    """How many items of the select half are read, by how many versions of the adapter."""

    field_items: int = 0
    texts: int = 0
    requests: int = 0  # scored as those that measure, but not answered anew
    strengths: tuple[float, ...] = ()

    def score_tokens(self, sizes: Sizes) -> float:
        """Tokens read in all: by the base and at every strength; the field at every point of the trajectory, rows that
        were trained on by both models; and some of each kind by both at once, for the divergence."""
        if not self.strengths:
            return 0.0
        field = self.field_items * sizes.field_tokens
        general = self.texts * sizes.text_tokens + self.requests * sizes.request_tokens
        apart = (
            4 * min(self.field_items, DIVERGENCE_TEXTS) * sizes.field_tokens
            + 2 * min(self.texts, DIVERGENCE_TEXTS) * sizes.text_tokens
            + min(self.requests, DIVERGENCE_TEXTS) * sizes.request_tokens
        )
        return (1 + len(self.strengths)) * (field + general) + (len(SHARES) + 2) * field + apart


@dataclass(frozen=True)
class EvidencePlan:
    """How many items of each kind are measured, in both arms."""

    field_items: int
    texts: int
    requests: int  # scored with a good answer and the base's own, and answered anew by both arms
    choices: int
    choosing: Choosing = Choosing()

    def score_tokens(self, sizes: Sizes) -> float:
        """Tokens read in one arm."""
        return (
            self.field_items * sizes.field_tokens
            + self.texts * sizes.text_tokens
            + (sizes.own_text_tokens if self.texts else 0)
            + self.requests * sizes.request_tokens
            + self.choices * sizes.choice_tokens
        )


@dataclass(frozen=True)
class Plan:
    """What will be done; plan.json, with the threads beside it. Times are estimates in seconds."""

    train_tokens: int
    steps: int
    step_tokens: int
    epochs: float
    field_tokens: int  # of one epoch of the field
    lr: float
    lr_from: str  # where the rate comes from, for a person; with a probe it is the middle of what is tried
    probe: ProbePlan | None
    distance: float  # of the field, as in Sizes
    replay: ReplayPlan
    evidence: EvidencePlan
    speed: Speed
    train_s: float
    base_s: float  # of evidence_s, before training; and
    after_s: float  # after it
    evidence_s: float  # with what the trajectory takes beside training
    notes: tuple[str, ...]

    def shares(self, mined: float) -> dict[str, float]:
        """Of all tokens, by the part that is trained beside the field."""
        yours = self.replay.share * self.replay.yours
        return {MINED: mined, OWN_GENERAL: yours, REPLAY: self.replay.share - yours}


def read_plan(run: RunFolder) -> Plan | None:
    """The plan of a run that goes on: it is measured once. None where none was made yet.

    Raises:
        RunError: plan.json was changed into something else.
    """
    if not run.plan.exists():
        return None
    try:
        values = dict(read_json(run.plan))
        del values["threads"]
        probe = values["probe"]
        values["probe"] = ProbePlan(**{**probe, "rates": tuple(probe["rates"])}) if probe else None
        evidence = dict(values["evidence"])
        choosing = evidence.pop("choosing")
        choosing["strengths"] = tuple(choosing["strengths"])
        values |= {
            "evidence": EvidencePlan(**evidence, choosing=Choosing(**choosing)),
            "speed": Speed(**values["speed"]),
        }
        values["replay"] = ReplayPlan(**values["replay"])
        return Plan(**{**values, "notes": tuple(values["notes"])})
    except (KeyError, TypeError, ValueError):
        raise RunError(f"{run.plan} is no plan: put the file back, or begin a new run.") from None


SMALLEST = EvidencePlan(
    field_items=40, texts=24, requests=48, choices=60, choosing=Choosing(14, 12, 10, (0.5, 1.0, 1.25))
)
"""Below it retention is rarely shown: with 40 answers, two ordinary loops leave a share of 10 % open. A strength is
chosen on ten documents of each kind or more."""

SURER = replace(SMALLEST, texts=40, requests=72)
"""What time is spent on first: of 40 texts a loss of 2 % is called lost five times in six, of 24 two times in three
(benchmarks/RESULTS.md), and with 48 answers a few that loop or go on leave the verdict of a sound run open."""

LARGEST_QUICK = EvidencePlan(
    field_items=200, texts=120, requests=90, choices=240, choosing=Choosing(100, 36, 20, (0.5, 1.0, 1.25))
)
# From SURER to the largest: few, so that the base's scores are met again.
SHARES_OF_THE_WAY = (0.0, 0.25, 0.5, 0.75, 1.0)
FULL_STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25)


def evidence_plan(mode: str, sizes: Sizes, speed: Speed, seconds: float, limit: float = math.inf) -> EvidencePlan:
    """The largest evidence that fits `seconds`, SMALLEST at least: `quick` up to LARGEST_QUICK, `full` up to everything
    that there is, at more strengths. Where SMALLEST takes longer than `limit` seconds, no strength is chosen."""
    if mode == "none":
        return EvidencePlan(0, 0, 0, 0)
    largest = LARGEST_QUICK
    if mode == "full":
        choosing = Choosing(sizes.select_items, sizes.probe_texts, sizes.probe_requests, FULL_STRENGTHS)
        largest = EvidencePlan(sizes.field_items, sizes.texts, sizes.requests, sizes.choices, choosing)
    planned = [
        _between(SMALLEST, largest, 0.0, sizes),
        *(_between(SURER, largest, share, sizes) for share in SHARES_OF_THE_WAY),
    ]
    fitting = [one for one in planned if evidence_seconds(one, sizes, speed) <= seconds]
    if fitting:
        return fitting[-1]
    in_time = SUSTAINED * evidence_seconds(planned[0], sizes, speed) <= limit
    return planned[0] if in_time else replace(planned[0], choosing=Choosing())


def _between(small: EvidencePlan, large: EvidencePlan, share: float, sizes: Sizes) -> EvidencePlan:
    """The small one at 0, the large one at 1, at the strengths of the large one; never more than there is."""

    def between(small: int, large: int, there: int) -> int:
        return min(there, round(small + share * (max(small, large) - small)))

    chosen_on = Choosing(
        between(small.choosing.field_items, large.choosing.field_items, sizes.select_items),
        between(small.choosing.texts, large.choosing.texts, sizes.probe_texts),
        between(small.choosing.requests, large.choosing.requests, sizes.probe_requests),
        large.choosing.strengths,
    )
    return EvidencePlan(
        between(small.field_items, large.field_items, sizes.field_items),
        between(small.texts, large.texts, sizes.texts),
        between(small.requests, large.requests, sizes.requests),
        between(small.choices, large.choices, sizes.choices),
        chosen_on if sizes.select_items else Choosing(),
    )


def evidence_seconds(evidence: EvidencePlan, sizes: Sizes, speed: Speed) -> float:
    """Both arms: scoring, and the answers that are generated; what is read to choose, and the base's answers there."""
    return base_seconds(evidence, sizes, speed) + after_seconds(evidence, sizes, speed)


def base_seconds(evidence: EvidencePlan, sizes: Sizes, speed: Speed) -> float:
    """Of them, those of the base's arm, which is measured before training."""
    generated = _answered(evidence, sizes) + evidence.choosing.requests * sizes.answer_tokens
    return evidence.score_tokens(sizes) / speed.score_tokens_per_s + generated / speed.generate_tokens_per_s


def after_seconds(evidence: EvidencePlan, sizes: Sizes, speed: Speed) -> float:
    read = evidence.score_tokens(sizes) + evidence.choosing.score_tokens(sizes)
    read += sizes.looked_at_tokens if evidence.field_items else 0
    return read / speed.score_tokens_per_s + _answered(evidence, sizes) / speed.generate_tokens_per_s


def _answered(evidence: EvidencePlan, sizes: Sizes) -> int:
    """Tokens that one model writes."""
    return (evidence.requests + min(sizes.shown, evidence.field_items)) * sizes.answer_tokens


def plan(settings: Settings, sizes: Sizes, speed: Speed, seconds: float, lr: float) -> Plan:
    """Divide `seconds` between training and evidence, or take the tokens that the settings name."""
    seconds = MARGIN * max(0.0, seconds)
    share = default_share(_kind(settings, sizes), sizes.distance) if settings.replay == BY_DATA else settings.replay
    fewest, most = _bounds(settings, sizes, share)
    if settings.tokens:
        train_tokens = settings.tokens
        probe = _probe(settings, sizes, min(train_tokens, most), lr)
        left = max(0.0, seconds - ((1 + EXTRA_STEPS) * train_tokens + _cost(probe)) / speed.train_tokens_per_s)
        evidence = evidence_plan(settings.evidence, sizes, speed, left, limit=left)
    else:
        wanted = 0.0 if settings.evidence == "none" else EVIDENCE_SHARE
        shortest = (1 + EXTRA_STEPS) * fewest / speed.train_tokens_per_s
        evidence = evidence_plan(settings.evidence, sizes, speed, seconds * wanted, limit=seconds - shortest)
        left = seconds - evidence_seconds(evidence, sizes, speed)
        per_token = _seconds_per_token(evidence, sizes, speed, share)
        # The probe's time is taken from the run's own: planned for what is left then, it stays within its share.
        probe = _probe(settings, sizes, min(left / per_token / (1 + MAX_SHARE), most), lr)
        left -= _cost(probe) / speed.train_tokens_per_s
        train_tokens = int(max(left, 0) / per_token)
    notes: list[str] = []
    if sizes.select_items and settings.evidence != "none" and not evidence.choosing.strengths:
        notes.append("the time is too short to choose a strength: the adapter is measured as it is trained")
    if train_tokens > most:
        notes.append(f"the field is trained {settings.max_epochs} times over, no more: {most:,} tokens suffice")
        train_tokens = most
    if train_tokens < fewest and not settings.tokens:
        notes.append(f"{seconds:.0f} s are too few for {FEWEST_STEPS} steps; it will take longer")
        train_tokens = fewest
    planned = Plan(
        **_of_tokens(train_tokens, settings, sizes, share),
        field_tokens=sizes.train_tokens,
        lr=settings.lr or lr,
        lr_from=_lr_from(settings, sizes, probe),
        probe=probe,
        distance=round(sizes.distance, 3),
        evidence=evidence,
        speed=speed,
        train_s=0.0,
        base_s=base_seconds(evidence, sizes, speed),
        after_s=after_seconds(evidence, sizes, speed),
        evidence_s=0.0,
        notes=tuple(notes),
    )
    return _timed(planned)


def replan(planned: Plan, settings: Settings, sizes: Sizes, seconds: float, base_s: float) -> Plan:
    """The plan with as many tokens as fit into `seconds`, now that the base was measured, in base_s: what is left of
    the evidence takes as much longer or shorter than planned. Tokens that the settings name stay what they are."""
    if settings.tokens or not planned.base_s:
        return planned
    pace = min(SLOWEST, max(QUICKEST, base_s / planned.base_s))
    share = planned.replay.share
    per_token = _seconds_per_token(planned.evidence, sizes, planned.speed, share) * max(1.0, pace)
    left = KNOWN_MARGIN * seconds - pace * planned.after_s - _cost(planned.probe) / planned.speed.train_tokens_per_s
    fewest, most = _bounds(settings, sizes, share)
    train_tokens = min(most, max(fewest, int(left / per_token)))
    return _timed(replace(planned, **_of_tokens(train_tokens, settings, sizes, share)))


def _kind(settings: Settings, sizes: Sizes) -> Kind:
    """Tasks mined from texts are conversations: trained on them, a model forgets as on answers (docs/log.md)."""
    return "answers" if settings.mined and sizes.kind == "text" else sizes.kind


def _bounds(settings: Settings, sizes: Sizes, share: float) -> tuple[int, int]:
    """(fewest tokens that make enough steps, most that the epochs allow). share: of the replay."""
    most = int(sizes.train_tokens * settings.max_epochs / (1 - share - settings.mined))
    return min(FEWEST_STEPS * smallest_step(settings, sizes.document_tokens), most), most


def _seconds_per_token(evidence: EvidencePlan, sizes: Sizes, speed: Speed, share: float) -> float:
    """Of training, with its trajectory and the writing of its replay."""
    replay_s = share * sizes.written_tokens / TOKENS_PER_ANSWER / speed.generate_tokens_per_s
    return (1 + _beside(evidence)) / speed.train_tokens_per_s + replay_s


def _of_tokens(train_tokens: int, settings: Settings, sizes: Sizes, share: float) -> dict[str, Any]:
    """What of the plan follows from the tokens to train. share: of the replay."""
    step_tokens = step_size(train_tokens, settings, smallest_step(settings, sizes.document_tokens))
    of_field = train_tokens * (1 - share - settings.mined)
    kind, yours = _kind(settings, sizes), share_of_yours(sizes.own_kind)
    return {
        "train_tokens": train_tokens,
        "steps": max(1, round(train_tokens / step_tokens)),
        "step_tokens": step_tokens,
        "epochs": round(of_field / max(1, sizes.train_tokens), 3),
        "replay": plan_replay(train_tokens, share, yours, kind, sizes.replay_requests),
    }


def _timed(planned: Plan) -> Plan:
    """With the seconds that training and evidence are expected to take."""
    rate = planned.speed.train_tokens_per_s
    evidence_s = planned.base_s + planned.after_s + _beside(planned.evidence) * planned.train_tokens / rate
    train_s = (planned.train_tokens + _cost(planned.probe)) / rate
    return replace(planned, train_s=round(train_s, 1), evidence_s=round(evidence_s, 1))


def _probe(settings: Settings, sizes: Sizes, train_tokens: float, lr: float) -> ProbePlan | None:
    """None where a rate is given, nothing could judge it, or the run is too short to bear it."""
    if settings.lr or _why_not_judged(settings, sizes):
        return None
    judging = min(JUDGED_ROWS, sizes.field_items) * sizes.field_tokens + sizes.probe_tokens
    return probe_plan(train_tokens, settings.step_tokens, judging, lr)


def _why_not_judged(settings: Settings, sizes: Sizes) -> str:
    if settings.method == "full":
        return "no others are tried with --method full, for want of memory for a second set of weights"
    if sizes.pairs:
        return "no others are tried where rows are preferences, which bits per byte do not judge"
    return "" if sizes.field_items else "nothing is held out to judge others by"


def _lr_from(settings: Settings, sizes: Sizes, probe: ProbePlan | None) -> str:
    if settings.lr:
        return "as given"
    if probe:
        return "the middle of those tried"
    return f"by the size of the model; {_why_not_judged(settings, sizes) or 'the run is too short to try others'}"


def _beside(evidence: EvidencePlan) -> float:
    """Of the run's steps, those beside it that the trajectory takes: it is read where a strength is chosen."""
    return EXTRA_STEPS if evidence.choosing.strengths else 0.0


def _cost(probe: ProbePlan | None) -> int:
    return probe.cost_tokens if probe else 0


def step_size(train_tokens: int, settings: Settings, smallest: int) -> int:
    """Tokens a step: those of the settings, fewer when that would make fewer than 16 steps (small batches train
    well)."""
    return max(smallest, min(settings.step_tokens, train_tokens // FEWEST_STEPS))


def smallest_step(settings: Settings, document_tokens: int) -> int:
    """A step holds a document at least: where those are windows of long texts, smaller steps would train more than was
    planned."""
    return max(min(SMALLEST_STEP, settings.pack_tokens), min(document_tokens, settings.step_tokens))
