"""How much is measured, and what that takes: the sizes of a plan's evidence, from the smallest to everything."""

import math
from dataclasses import dataclass, replace

from metier.training.replay import Kind
from metier.training.speed import Speed
from metier.training.trajectory import SHARES

SUSTAINED = 1.1  # minutes of evidence take so many times what the measurement of a few seconds promises (docs/log.md)


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


@dataclass(frozen=True)
class Choosing:
    """How many items of the select half are read, by how many versions of the adapter."""

    field_items: int = 0
    texts: int = 0
    requests: int = 0  # scored as those that measure, but not answered anew
    strengths: tuple[float, ...] = ()

    def score_tokens(self, sizes: Sizes) -> float:
        """Tokens read in all: by the base, at every strength and halfway; the field at the other points of the
        trajectory, and rows that were trained on by both models."""
        if not self.strengths:
            return 0.0
        field = self.field_items * sizes.field_tokens
        general = self.texts * sizes.text_tokens + self.requests * sizes.request_tokens
        return (2 + len(self.strengths)) * (field + general) + (len(SHARES) - 1 + 2) * field


@dataclass(frozen=True)
class EvidencePlan:
    """How many items of each kind are measured, in both arms."""

    field_items: int
    texts: int
    requests: int  # answered anew by both arms
    choices: int
    choosing: Choosing = Choosing()

    @property
    def scored_requests(self) -> int:
        """The first of the requests, scored with a good answer and the base's own: half of them, for likelihoods need
        fewer than shares of answers do, and they are the dearest items."""
        return (self.requests + 1) // 2

    def score_tokens(self, sizes: Sizes) -> float:
        """Tokens read in one arm."""
        return (
            self.field_items * sizes.field_tokens
            + self.texts * sizes.text_tokens
            + (sizes.own_text_tokens if self.texts else 0)
            + self.scored_requests * sizes.request_tokens
            + self.choices * sizes.choice_tokens
        )


SMALLEST = EvidencePlan(
    field_items=40, texts=24, requests=48, choices=60, choosing=Choosing(14, 12, 10, (0.5, 1.0, 1.25))
)
"""Below it retention is rarely shown: with 40 answers, two ordinary loops leave a share of 10 % open. A strength is
chosen on ten documents of each kind or more."""

SURER = replace(SMALLEST, requests=72)
"""What time is spent on first: with 48 answers a few that loop or go on leave the verdict of a sound run open. 24 texts
call a loss of 2 % lost four times in five (benchmarks/RESULTS.md)."""

LARGEST_QUICK = EvidencePlan(
    field_items=200, texts=120, requests=90, choices=240, choosing=Choosing(100, 36, 20, (0.5, 1.0, 1.25))
)
# From SURER to the largest: few, so that the base's scores are met again.
SHARES_OF_THE_WAY = (0.0, 0.25, 0.5, 0.75, 1.0)
FULL_STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25)


def evidence_plan(mode: str, sizes: Sizes, speed: Speed, seconds: float, limit: float = math.inf) -> EvidencePlan:
    """The largest evidence that fits `seconds`, SMALLEST at least. Where SMALLEST takes longer than `limit` seconds, no
    strength is chosen, and the largest of what is left is measured."""
    if mode == "none":
        return EvidencePlan(0, 0, 0, 0)
    planned = evidence_plans(mode, sizes)
    if SUSTAINED * evidence_seconds(planned[0], sizes, speed) > limit:
        planned = [replace(one, choosing=Choosing()) for one in planned]
    fitting = [one for one in planned if evidence_seconds(one, sizes, speed) <= seconds]
    return fitting[-1] if fitting else planned[0]


def evidence_plans(mode: str, sizes: Sizes) -> list[EvidencePlan]:
    """What there is to choose among, the smallest first: `quick` up to LARGEST_QUICK, `full` up to everything that
    there is, at more strengths."""
    largest = LARGEST_QUICK
    if mode == "full":
        choosing = Choosing(sizes.select_items, sizes.probe_texts, sizes.probe_requests, FULL_STRENGTHS)
        largest = EvidencePlan(sizes.field_items, sizes.texts, sizes.requests, sizes.choices, choosing)
    return [
        _between(SMALLEST, largest, 0.0, sizes),
        *(_between(SURER, largest, share, sizes) for share in SHARES_OF_THE_WAY),
    ]


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
