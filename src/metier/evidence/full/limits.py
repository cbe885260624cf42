"""How much full evidence measures, within the minutes that there are."""

from dataclasses import dataclass, replace

from metier.evidence.full import controls, scratch
from metier.evidence.full.cheaper_arms import ANSWER_TOKENS, expected_tokens
from metier.evidence.full.queries import HALF_TOKENS, Kind
from metier.evidence.full.questions import DEFINED, DEFINITION_TOKENS, PREFIX
from metier.evidence.full.retrieval import PASSAGE_TOKENS
from metier.evidence.measure import Before
from metier.training.plan import Plan


@dataclass(frozen=True)
class Limits:
    """How much is measured. select, test: queries of each half · answers: queries that are answered in words ·
    controls: which are trained · shares: of the training text that models from scratch get · scratch_tokens: that the
    largest of them reads at most · seeds: other runs that differ in their seed alone · questions: of each kind that
    both models are asked · halves: whether half of the text is set against its better half ·
    without_tasks: whether a run without mined tasks is trained, where there are any."""

    select: int = 16
    test: int = 60
    answers: int = 24
    controls: tuple[str, ...] = (controls.PLACEBO, controls.SHUFFLED)
    shares: tuple[float, ...] = scratch.SHARES
    scratch_tokens: int = 25_000
    seeds: int = 2
    questions: int = 60
    halves: bool = True
    without_tasks: bool = True


LADDER = (
    Limits(),
    Limits(select=12, test=40, answers=16, shares=(0.25, 1.0), scratch_tokens=12_000, questions=40, halves=False),
    Limits(
        select=8,
        test=30,
        answers=0,
        controls=(controls.PLACEBO,),
        shares=(1.0,),
        scratch_tokens=6_000,
        seeds=0,
        questions=30,
        halves=False,
    ),
    Limits(
        select=8, test=20, answers=0, controls=(), shares=(), seeds=0, questions=0, halves=False, without_tasks=False
    ),
)
"""From everything to the cheaper arms alone: controls and seeds take as long as the training, each."""
FULL_COST = 1.8  # of a LoRA token, on a CPU: the gradients of the weights, and Adam on all of them
ANSWERING_ARMS = 4  # at most
QUESTION_TOKENS = 600  # that a model reads of one of each kind: sentences, four choices each, examples, a prompt


def limits_within(seconds: float, planned: Plan, before: Before, kind: Kind, has_tasks: bool = False) -> Limits:
    """The largest of LADDER that fits into these seconds; the smallest where none does. kind: of the field. has_tasks:
    whether some were mined."""
    ladder = [limits if has_tasks else replace(limits, without_tasks=False) for limits in LADDER]
    return next((limits for limits in ladder if expected_seconds(limits, planned, before, kind) <= seconds), ladder[-1])


def expected_seconds(limits: Limits, planned: Plan, before: Before, kind: Kind) -> float:
    """How long full evidence takes at the speeds of the plan."""
    speed, documents = planned.speed, before.items.field_documents
    field_tokens = sum(len(d.ids) for d in documents)
    query_tokens = min(2 * HALF_TOKENS, field_tokens / max(1, len(documents)))
    told_tokens = PASSAGE_TOKENS if kind == "text" else min(PASSAGE_TOKENS, query_tokens)
    read = expected_tokens(kind, limits.select, limits.test, query_tokens, told_tokens)
    rivals = len(limits.controls) + limits.seeds + limits.halves + limits.without_tasks  # two halves are one
    read += (rivals + limits.halves + len(limits.shares)) * field_tokens + 2 * limits.questions * QUESTION_TOKENS
    written = ANSWERING_ARMS * limits.answers * ANSWER_TOKENS if kind == "answer" else 0
    written += 2 * (limits.questions * PREFIX + min(DEFINED, limits.questions) * DEFINITION_TOKENS)
    scratch_tokens = min(limits.scratch_tokens, planned.train_tokens) * sum(limits.shares)
    trained = rivals * planned.train_tokens + FULL_COST * scratch_tokens
    return read / speed.score_tokens_per_s + written / speed.generate_tokens_per_s + trained / speed.train_tokens_per_s
