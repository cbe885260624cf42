"""From minutes to tokens: what this machine can do in the time given, said before it is spent."""

from dataclasses import dataclass, replace
from typing import Any

from metier.errors import RunError
from metier.runs import RunFolder, read_json
from metier.settings import BY_DATA, Settings
from metier.training.evidence_plan import (
    Choosing,
    EvidencePlan,
    Sizes,
    after_seconds,
    base_seconds,
    evidence_plan,
    evidence_plans,
    evidence_seconds,
)
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
from metier.training.trajectory import EXTRA_STEPS

EVIDENCE_SHARE = 0.5  # of the time that is left: evidence may cost as much as training
# Of the same, evidence without what its trajectory takes beside training: beyond it no strength is chosen.
CHOOSING_SHARE = EVIDENCE_SHARE * (1 - EXTRA_STEPS)
MARGIN = 0.8  # of the time is planned: shared machines grow slower after they were measured (docs/log.md)
KNOWN_MARGIN = 0.9  # of what is left once the base was measured
# What the rest is taken to need of what was planned for it: a base whose scores are kept says nothing of its time.
QUICKEST, SLOWEST = 0.75, 2.0
# Of fewer tokens each in a short run: sixteen steps of 512 did better than eight of 1,024 (docs/log.md).
FEWEST_STEPS = 16
SMALLEST_STEP = 512  # tokens


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


def plan(settings: Settings, sizes: Sizes, speed: Speed, seconds: float, lr: float) -> Plan:
    """Divide `seconds` between training and evidence, or take the tokens that the settings name."""
    limit = CHOOSING_SHARE * max(0.0, seconds)
    seconds = MARGIN * max(0.0, seconds)
    share = default_share(_kind(settings, sizes), sizes.distance) if settings.replay == BY_DATA else settings.replay
    _, most = _bounds(settings, sizes, share)
    if settings.tokens:
        wanted = settings.tokens
        probe = _probe(settings, sizes, min(wanted, most), lr)
        left = max(0.0, seconds - ((1 + EXTRA_STEPS) * wanted + _cost(probe)) / speed.train_tokens_per_s)
        evidence = evidence_plan(settings.evidence, sizes, speed, left, limit=left)
    else:
        for_evidence = 0.0 if settings.evidence == "none" else EVIDENCE_SHARE * seconds
        evidence = evidence_plan(settings.evidence, sizes, speed, for_evidence, limit)
        left = seconds - evidence_seconds(evidence, sizes, speed)
        per_token = _seconds_per_token(evidence, sizes, speed, share)
        # The probe's time is taken from the run's own: planned for what is left then, it stays within its share.
        probe = _probe(settings, sizes, min(left / per_token / (1 + MAX_SHARE), most), lr)
        left -= _cost(probe) / speed.train_tokens_per_s
        wanted = int(max(left, 0) / per_token)
    return Plan(
        **_of_tokens(wanted, settings, sizes, share, evidence, speed, probe, seconds),
        field_tokens=sizes.train_tokens,
        lr=settings.lr or lr,
        lr_from=_lr_from(settings, sizes, probe),
        probe=probe,
        distance=round(sizes.distance, 3),
        evidence=evidence,
        speed=speed,
    )


def replan(planned: Plan, settings: Settings, sizes: Sizes, seconds: float, base_s: float) -> Plan:
    """The plan with as many tokens as fit into `seconds`, now that the base was measured, in base_s: what is left of
    the evidence takes as much longer or shorter than planned, and a strength is chosen where that leaves the time.
    Tokens that the settings name stay what they are, and so does their evidence."""
    if settings.tokens or not planned.base_s:
        return planned
    pace = min(SLOWEST, max(QUICKEST, base_s / planned.base_s))
    seconds = KNOWN_MARGIN * max(0.0, seconds)
    evidence = _affordable(planned, settings, sizes, seconds, base_s, pace)
    speed, share = planned.speed, planned.replay.share
    per_token = _seconds_per_token(evidence, sizes, speed, share) * max(1.0, pace)
    left = seconds - pace * after_seconds(evidence, sizes, speed) - _cost(planned.probe) / speed.train_tokens_per_s
    wanted = int(max(left, 0) / per_token)
    of_tokens = _of_tokens(wanted, settings, sizes, share, evidence, speed, planned.probe, seconds)
    return replace(planned, **of_tokens, evidence=evidence)


def _affordable(
    planned: Plan, settings: Settings, sizes: Sizes, seconds: float, base_s: float, pace: float
) -> EvidencePlan:
    """The planned evidence with a strength chosen on as much as was planned, or on less, down to the least, where all
    of it then costs no more than the training that fits beside it; without one where it would."""
    evidence = planned.evidence
    least, *larger = (one.choosing for one in evidence_plans(settings.evidence, sizes))
    for choosing in (*(one for one in reversed(larger) if one.field_items <= evidence.choosing.field_items), least):
        one = replace(evidence, choosing=choosing)
        after_s = pace * after_seconds(one, sizes, planned.speed)
        trained_s = (seconds - after_s) / (1 + EXTRA_STEPS)
        if choosing.strengths and base_s + after_s + EXTRA_STEPS * trained_s <= trained_s:
            return one
    return replace(evidence, choosing=Choosing())


def _of_tokens(
    wanted: int,
    settings: Settings,
    sizes: Sizes,
    share: float,
    evidence: EvidencePlan,
    speed: Speed,
    probe: ProbePlan | None,
    seconds: float,
) -> dict[str, Any]:
    """What of the plan follows from the tokens that are wanted. share: of the replay. seconds: that there are."""
    train_tokens, notes = _held(wanted, settings, _bounds(settings, sizes, share), seconds)
    step_tokens = step_size(train_tokens, settings, smallest_step(settings, sizes.document_tokens))
    base_s, after_s = base_seconds(evidence, sizes, speed), after_seconds(evidence, sizes, speed)
    beside_s = _beside(evidence) * train_tokens / speed.train_tokens_per_s
    kind, yours = _kind(settings, sizes), share_of_yours(sizes.own_kind)
    return {
        "train_tokens": train_tokens,
        "steps": max(1, round(train_tokens / step_tokens)),
        "step_tokens": step_tokens,
        "epochs": round(train_tokens * (1 - share - settings.mined) / max(1, sizes.train_tokens), 3),
        "replay": plan_replay(train_tokens, share, yours, kind, sizes.replay_requests),
        "train_s": round((train_tokens + _cost(probe)) / speed.train_tokens_per_s, 1),
        "base_s": base_s,
        "after_s": after_s,
        "evidence_s": round(base_s + after_s + beside_s, 1),
        "notes": (*_without_strengths(settings, sizes, evidence), *notes),
    }


def _held(wanted: int, settings: Settings, bounds: tuple[int, int], seconds: float) -> tuple[int, list[str]]:
    """(the tokens within their bounds, what a person is told of that)"""
    fewest, most = bounds
    if wanted > most:
        times = f"{settings.max_epochs} times over" if settings.max_epochs > 1 else "once"
        return most, [f"the field is trained {times}, no more: {most:,} tokens suffice"]
    if wanted < fewest and not settings.tokens:
        return fewest, [f"{seconds:.0f} s may be too few for {FEWEST_STEPS} steps, which are made anyway"]
    return wanted, []


def _without_strengths(settings: Settings, sizes: Sizes, evidence: EvidencePlan) -> list[str]:
    if not sizes.select_items or settings.evidence == "none" or evidence.choosing.strengths:
        return []
    return ["the time is too short to choose a strength: the adapter is measured as it is trained"]


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
