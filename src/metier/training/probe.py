"""A learning rate without a sweep: a few steps at three rates from the same start; the best one goes on as the run."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from metier.errors import DivergedError
from metier.models.encoding import Encoded
from metier.models.packing import PackReader, pack, packs_of
from metier.training import parallel
from metier.training.loop import Begun, Recipe, StepMetrics, Trained, begin, train
from metier.training.stream import Step

# The table's rate first: it is what was trained when the probe is stopped early, and it wins a draw.
FACTORS = (1.0, 2.0, 0.5)
STEPS = 20  # at each rate; nine ranked first the rate that had hardly moved (docs/log.md)
MAX_SHARE = 0.25  # of training, in tokens: what the losers' steps and the judging may cost
READING_COST = 0.5  # of training a token with LoRA: no gradient of the inputs
# Bits per byte of forgetting weigh as much as bits per byte of the field: both are what a text costs more or less.
KL_WEIGHT = 1.0
JUDGED_ROWS = 24  # of the select half
KL_POSITIONS = 24  # of each general answer: its first tokens; 20 answers of a 49,152-word vocabulary are 94 MB


@dataclass(frozen=True)
class ProbePlan:
    """The rates in the order of their turns, the steps at each, and the tokens that this costs beyond the run's own."""

    rates: tuple[float, ...]
    steps: int
    cost_tokens: int


def probe_plan(train_tokens: float, step_tokens: int, judging_tokens: float, lr: float) -> ProbePlan | None:
    """STEPS steps at each rate around `lr`; None where this costs more than MAX_SHARE of training.

    judging_tokens: read without gradients for one judgement. Tokens and not seconds decide, so that the same plan has
    the same probe on every machine.
    """
    judging = (len(FACTORS) + 1) * judging_tokens * READING_COST  # the base is read too
    cost = (len(FACTORS) - 1) * STEPS * step_tokens + judging
    if cost > MAX_SHARE * train_tokens:
        return None
    return ProbePlan(tuple(factor * lr for factor in FACTORS), STEPS, math.ceil(cost))


class Judge:
    """Bits per byte of held-out rows, and how far general answers have moved from the base.

    The model is the base when this is made: nothing is trained yet.
    """

    def __init__(
        self, reader: PackReader, held_out: Sequence[Encoded], general: Sequence[Encoded], pack_tokens: int
    ) -> None:
        """held_out: of the select half. general: what neither measures retention nor is trained."""
        self.reader = reader
        self.packs = list(packs_of(held_out, pack_tokens, with_end=False))
        self.n_bytes = sum(d.n_bytes for d in held_out)
        self.general = general
        self.tokens_per_byte = _ratio(sum(d.n_supervised for d in general), sum(d.n_bytes for d in general))
        self.n_tokens = sum(p.n_tokens for p in self.packs) + sum(len(d.ids) for d in general)
        started = time.perf_counter()
        self.base = [self._log_probabilities(d) for d in general]
        self.base_bits = self._field_bits()
        self.seconds = time.perf_counter() - started
        self.tokens_read = self.n_tokens

    def __call__(self) -> tuple[float, float]:
        """(bits per byte of the held-out rows, KL(base || now) in bits per byte of the general answers); those of the
        first rank, so that all choose the same."""
        started = time.perf_counter()
        kl, n = 0.0, 0
        for document, base in zip(self.general, self.base, strict=True):
            now = self._log_probabilities(document)
            kl += float((base.exp() * (base - now)).sum())
            n += len(base)
        field = self._field_bits()
        self.seconds += time.perf_counter() - started
        self.tokens_read += self.n_tokens
        return parallel.from_first((field, _ratio(kl, n) / math.log(2) * self.tokens_per_byte))

    def _field_bits(self) -> float:
        nats = sum(float(self.reader.token_nll(batch).double().sum()) for batch in self.packs)
        return nats / math.log(2) / self.n_bytes

    @torch.no_grad()
    def _log_probabilities(self, document: Encoded) -> Tensor:
        """(n, V) at the first positions whose next token carries loss; the document runs alone."""
        alone = pack([document])
        logits = self.reader.inner(input_ids=alone.input_ids, use_cache=False).logits[0]
        return torch.log_softmax(logits[alone.predictors[:KL_POSITIONS]].float(), dim=-1)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


@dataclass(frozen=True)
class Tried:
    """One rate after its steps; the judgement is None where training diverged or was stopped."""

    lr: float
    field_bits_per_byte: float | None
    general_kl_bits_per_byte: float | None
    judged: float | None
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Probed:
    """What the probe found. `begun` is the chosen rate's run so far, whose steps are the first."""

    lr: float
    tried: tuple[Tried, ...]
    begun: Begun
    base_bits_per_byte: float
    judging_tokens: int
    judging_seconds: float

    def as_json(self) -> dict[str, Any]:
        """For results.json: `lost_…` is what the rates that were not chosen cost."""
        lost = [t for t in self.tried if t.lr != self.lr]
        return {
            "chosen": self.lr,
            "steps": self.begun.done.n_steps,
            "kl_weight": KL_WEIGHT,
            "base_bits_per_byte": self.base_bits_per_byte,
            "tried": [asdict(t) for t in self.tried],
            "lost_tokens": sum(t.tokens for t in lost),
            "lost_seconds": sum(t.seconds for t in lost),
            "judging_tokens": self.judging_tokens,
            "judging_seconds": self.judging_seconds,
        }

    def line(self) -> str:
        """What a person is told."""
        judged = ", ".join(f"{t.lr:g}: {_figure(t.judged)}" for t in self.tried)
        cost = sum(t.seconds for t in self.tried if t.lr != self.lr) + self.judging_seconds
        tries = f"trying {len(self.tried)} for {self.begun.done.n_steps} steps"
        return (
            f"learning rate {self.lr:g} by {tries} ({judged} bits per byte of held-out rows and of forgetting; "
            f"base {self.base_bits_per_byte:.3f}); {cost:.0f} s"
        )


def _figure(judged: float | None) -> str:
    return "diverged" if judged is None else f"{judged:.3f}"


def probe(
    reader: PackReader,
    stream: Callable[[], Iterator[Step]],
    planned: ProbePlan,
    recipe: Recipe,
    judge: Judge,
    on_step: Callable[[StepMetrics], None],
    should_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda _: None,
) -> Probed:
    """Train the first steps of `stream` at each rate, from the same start and with an optimizer of its own, as the
    first of the recipe but for its rate; leave the model as the best rate made it, for `train` to go on from `begun`.

    Told to stop, it leaves the best of the rates that were judged, or what the first one has so far.

    Raises:
        DataError: as `train`.
        DivergedError: every rate diverged.
    """
    first = list(islice(stream(), planned.steps))
    parameters = [p for p in reader.model.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in parameters]
    tried: list[Tried] = []
    best: tuple[float, Tried, Begun, list[Tensor]] | None = None
    diverged: DivergedError | None = None
    stopped = False
    for lr in planned.rates:
        _restore(parameters, start)
        tried_recipe = replace(recipe, peak_lr=lr)
        begun = begin(reader, tried_recipe)
        try:
            done = train(reader, lambda: iter(first), tried_recipe, on_step, should_stop, say, begun=begun)
        except DivergedError as error:
            diverged = error
            tried.append(_tried(lr, begun.done, None))
            continue
        stopped = done.interrupted
        result = _tried(lr, done, None if stopped else judge())
        tried.append(result)
        judged = math.inf if result.judged is None else result.judged
        if best is None or judged < best[0]:
            best = judged, result, begun, [p.detach().clone() for p in parameters]
        if stopped:
            break
    if best is None:
        raise diverged or AssertionError("no rate was tried")
    _, winner, begun, weights = best
    _restore(parameters, weights)
    begun.done.interrupted = stopped
    tokens, seconds = judge.tokens_read, judge.seconds
    return Probed(winner.lr, tuple(tried), begun, judge.base_bits, tokens, seconds)


def _tried(lr: float, done: Trained, judged: tuple[float, float] | None) -> Tried:
    if judged is None or not all(map(math.isfinite, judged)):
        return Tried(lr, None, None, None, done.n_tokens, done.seconds)
    field, kl = judged
    return Tried(lr, field, kl, field + KL_WEIGHT * kl, done.n_tokens, done.seconds)


@torch.no_grad()
def _restore(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
