"""The training loop: from documents to optimizer steps, readable without leaving the file."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice

import torch

from metier.errors import DivergedError, RunError
from metier.models.packing import PackReader
from metier.training.checkpoint import Checkpoint, kept_within, restore, training_tensors
from metier.training.journal import Journal, RowLoss
from metier.training.memory import or_none_without_memory, smaller_packs
from metier.training.schedule import lr_at
from metier.training.stream import Step
from metier.training.trajectory import Trajectory
from metier.training.update import Update, listed, train_step

FEWEST_STEPS_APART = 4  # two anchors
ANCHORS = 10  # in a run


@dataclass(frozen=True)
class Recipe:
    """Steps planned, peak learning rate, and tokens in one forward pass."""

    n_steps: int
    peak_lr: float
    pack_tokens: int


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step; a line of metrics.jsonl.

    loss is in nats per supervised token; tokens and seconds are those of the step. After a rollback, steps that come
    again have one more `rollbacks` than the lines that they replace. Of a step with preferences: preference_accuracy is
    the share of pairs whose chosen answer gained on the rejected one, beside the base, and preference_margin the mean
    of beta times the nats that it gained.
    """

    step: int
    epoch: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    supervised_tokens: int
    replay_tokens: int
    tokens_per_s: float
    seconds: float
    rollbacks: int = 0
    preference_accuracy: float | None = None
    preference_margin: float | None = None


@dataclass(frozen=True)
class Rollback:
    """The step whose loss or gradient norm was not finite, the step gone back to, and the rows that it had."""

    step: int
    to_step: int
    why: str
    rows: list[str]


@dataclass
class Trained:
    """What a run of the loop did, also when it was interrupted."""

    n_steps: int = 0
    n_tokens: int = 0
    n_supervised: int = 0
    n_replay_tokens: int = 0
    tokens_of_part: dict[str, int] = field(default_factory=dict)
    n_documents: int = 0
    seconds: float = 0.0
    early_seconds: float = 0.0  # of ending early, for the trajectory
    interrupted: bool = False
    pack_tokens: int = 0  # of the recipe, or fewer where memory asked for it
    rollbacks: list[Rollback] = field(default_factory=list)
    windows: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def lr_factor(self) -> float:
        """Every rollback halves the rate."""
        return 0.5 ** len(self.rollbacks)

    @property
    def bytes_by_item(self) -> dict[str, int]:
        """Learned bytes of each item, every window once however many epochs there were."""
        total: Counter[str] = Counter()
        for (item, _), n_bytes in self.windows.items():
            total[item] += n_bytes
        return dict(total)


@dataclass
class Begun:
    """A run that the loop takes over: its optimizer, what it has done, and the steps that no journal holds yet."""

    optimizer: torch.optim.Optimizer
    done: Trained
    steps: list[tuple[StepMetrics, list[RowLoss]]] = field(default_factory=list)


def begin(reader: PackReader, recipe: Recipe) -> Begun:
    """A run before its first step, over the parameters of `reader.model` that require a gradient."""
    parameters = [p for p in reader.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.peak_lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True
    )
    return Begun(optimizer, Trained(pack_tokens=recipe.pack_tokens))


def train(
    reader: PackReader,
    stream: Callable[[], Iterator[Step]],
    recipe: Recipe,
    on_step: Callable[[StepMetrics], None],
    should_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda _: None,
    journal: Journal | None = None,
    begun: Begun | None = None,
) -> Trained:
    """Train the parameters of `reader.model` that require a gradient to the end of the recipe or of the data.

    stream: makes the steps, from the first, the same every time. `should_stop` is asked after each step; the weights
    are always those of a whole step. With a `journal` the run goes on from the checkpoint found there, writes new
    ones, and rolls back once from a number that is not finite; without one it keeps nothing and stops at the first.

    With `begun`, its steps are the first of the recipe and of the `stream`; a new journal gets them, too.

    Raises:
        DataError: a step without a supervised token.
        DivergedError: a loss or a gradient norm that is not finite, and no second try left; the message names the rows.
        RunError: the disk refuses, or the checkpoint is of another run.
    """
    begun = begun or begin(reader, recipe)
    optimizer, done = begun.optimizer, begun.done
    is_new = journal is None or journal.found is None
    if journal is not None and journal.found is not None:
        done = _go_on(reader, optimizer, journal.found, recipe)
    upcoming = _after(stream(), done)
    reader.model.train()
    try:
        if journal is not None:
            for metrics, rows in begun.steps if is_new else ():
                journal.write_rows(metrics.step, metrics.rollbacks, rows)
                journal.metrics.write(**asdict(metrics))
            _save(reader, optimizer, journal, recipe, done, is_first=is_new)
        while done.n_steps < recipe.n_steps and (step := next(upcoming, None)) is not None:
            if journal is not None and journal.trajectory is not None:
                done.interrupted = _end_early(
                    reader, optimizer, journal.trajectory, stream, recipe, done, should_stop, say
                )
                if done.interrupted:
                    break
            started = time.perf_counter()
            lr, update = _update(reader, optimizer, step, done, recipe, say)
            seconds = time.perf_counter() - started
            if journal is not None:
                journal.write_rows(done.n_steps + 1, len(done.rollbacks), update.rows)
            if not update.is_finite:
                why = _why_not_finite(done.n_steps + 1, update)
                if journal is None or done.rollbacks:
                    raise DivergedError(f"{why}: lower --lr or inspect these rows.")
                done = _roll_back(reader, optimizer, journal, recipe, done, why, update)
                say(f"{why}: going back to step {done.n_steps} and on from there at half the learning rate")
                upcoming = _after(stream(), done)
                continue
            _count(done, step, update.n_supervised, seconds)
            margins = update.margins
            metrics = StepMetrics(
                step=done.n_steps,
                epoch=step.epoch,
                loss=update.loss,
                lr=lr,
                grad_norm=update.grad_norm,
                tokens=step.n_tokens,
                supervised_tokens=update.n_supervised,
                replay_tokens=step.n_replay_tokens,
                tokens_per_s=step.n_tokens / seconds,
                seconds=seconds,
                rollbacks=len(done.rollbacks),
                preference_accuracy=sum(m > 0 for m in margins) / len(margins) if margins else None,
                preference_margin=sum(margins) / len(margins) if margins else None,
            )
            if journal is not None:
                journal.metrics.write(**asdict(metrics))
            else:
                begun.steps.append((metrics, update.rows))
            on_step(metrics)
            if should_stop():
                done.interrupted = True
                break
            if journal is not None and (journal.is_due() or _is_anchor(done.n_steps, recipe)):
                _save(reader, optimizer, journal, recipe, done)
        if journal is not None:
            _save(reader, optimizer, journal, recipe, done)
    finally:
        reader.model.eval()
    return done


def _update(
    reader: PackReader,
    optimizer: torch.optim.Optimizer,
    step: Step,
    done: Trained,
    recipe: Recipe,
    say: Callable[[str], None],
) -> tuple[float, Update]:
    """The next step of the recipe, not counted, in smaller packs where memory runs out; (its learning rate, the
    update)."""
    lr = lr_at(done.n_steps, recipe.n_steps, recipe.peak_lr) * done.lr_factor
    for group in optimizer.param_groups:
        group["lr"] = lr
    while True:
        update = or_none_without_memory(lambda: train_step(reader, optimizer, step, done.pack_tokens))
        if update is not None:
            return lr, update
        optimizer.zero_grad(set_to_none=True)
        done.pack_tokens = smaller_packs(step.documents, done.pack_tokens)
        say(f"memory ran out at step {done.n_steps + 1}: packs of {done.pack_tokens} tokens from here, the same steps")


def _end_early(
    reader: PackReader,
    optimizer: torch.optim.Optimizer,
    trajectory: Trajectory,
    stream: Callable[[], Iterator[Step]],
    recipe: Recipe,
    done: Trained,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> bool:
    """Where a point of the trajectory is due: to it on the rows that come next, the rate falling as at the end of a run
    of so many steps, and back. What is not finite leaves no point, nor does what is asked to stop: True then."""
    end = trajectory.due(done.n_steps)
    if end is None:
        return False
    started = time.perf_counter()
    early, shorter = replace(done), replace(recipe, n_steps=end)
    with kept_within(reader.model, optimizer):
        for step in islice(_after(stream(), done), end - done.n_steps):
            _, update = _update(reader, optimizer, step, early, shorter, say)
            if not update.is_finite:
                break
            early.n_steps += 1
            if early.n_steps < end and should_stop():
                early.interrupted = True
                break
        if early.n_steps == end:
            trajectory.keep(end, reader.model)
    done.pack_tokens = early.pack_tokens
    done.early_seconds += time.perf_counter() - started
    return early.interrupted


def _count(done: Trained, step: Step, n_supervised: int, seconds: float) -> None:
    done.n_steps += 1
    done.n_tokens += step.n_tokens
    done.n_supervised += n_supervised
    done.n_replay_tokens += step.n_replay_tokens
    for part, n_tokens in step.tokens.items():
        done.tokens_of_part[part] = done.tokens_of_part.get(part, 0) + n_tokens
    done.n_documents += len(step.documents)
    done.seconds += seconds
    _count_windows(done, step)


def _count_windows(done: Trained, step: Step) -> None:
    done.windows.update({(document.item, document.window): document.n_bytes for document in step.documents})


def _is_anchor(step: int, recipe: Recipe) -> bool:
    return step % max(FEWEST_STEPS_APART, math.ceil(recipe.n_steps / ANCHORS)) == 0


def _save(
    reader: PackReader,
    optimizer: torch.optim.Optimizer,
    journal: Journal,
    recipe: Recipe,
    done: Trained,
    is_first: bool = False,
) -> None:
    """The first one of a run is an anchor at whatever step it begins.

    windows are left out: they come back when the steps that were taken are passed over."""
    counters = {name: value for name, value in asdict(done).items() if name not in ("windows", "interrupted")}
    schedule = {"n_steps": recipe.n_steps, "peak_lr": recipe.peak_lr, "lr_factor": done.lr_factor}
    facts = {"trained": counters, "schedule": schedule}
    tensors = training_tensors(reader.model, optimizer)
    journal.save(done.n_steps, tensors, facts, is_first or _is_anchor(done.n_steps, recipe))


def _go_on(reader: PackReader, optimizer: torch.optim.Optimizer, found: Checkpoint, recipe: Recipe) -> Trained:
    """Everything as it was at a checkpoint, but for `windows`."""
    schedule = found.facts["schedule"]
    if (schedule["n_steps"], schedule["peak_lr"]) != (recipe.n_steps, recipe.peak_lr):
        raise RunError(
            f"the checkpoint of step {found.step} is of {schedule['n_steps']} steps at a rate of "
            f"{schedule['peak_lr']:g}, the plan of {recipe.n_steps} at {recipe.peak_lr:g}: put plan.json back."
        )
    restore(reader.model, optimizer, found)
    counters = found.facts["trained"]
    done = Trained(**{**counters, "rollbacks": [Rollback(**r) for r in counters["rollbacks"]]})
    done.pack_tokens = min(done.pack_tokens, recipe.pack_tokens)
    return done


def _after(stream: Iterator[Step], done: Trained) -> Iterator[Step]:
    """The steps that are still to be taken; those that were are encoded again, which is cheap, and not trained."""
    n_tokens = 0
    for step in islice(stream, done.n_steps):
        n_tokens += step.n_tokens
        _count_windows(done, step)
    if n_tokens != done.n_tokens:
        raise RunError(
            f"the first {done.n_steps} steps held {done.n_tokens} tokens and hold {n_tokens} now: the data or the "
            "general answers changed; begin a new run."
        )
    return stream


def _roll_back(
    reader: PackReader,
    optimizer: torch.optim.Optimizer,
    journal: Journal,
    recipe: Recipe,
    done: Trained,
    why: str,
    failed: Update,
) -> Trained:
    """To the newest anchor with a step after it that went well, if there is one: at the very weights that failed, a
    smaller rate would change nothing."""
    anchor = journal.anchor_before(done.n_steps)
    back = _go_on(reader, optimizer, anchor, recipe)
    rows = [row.item for row in failed.rows]
    back.rollbacks = [*done.rollbacks, Rollback(done.n_steps + 1, back.n_steps, why, rows)]
    back.seconds, back.early_seconds, back.pack_tokens = done.seconds, done.early_seconds, done.pack_tokens
    return back


def _why_not_finite(number: int, update: Update) -> str:
    """The rows whose own loss is not finite are the ones to look at, if there are such."""
    odd = [row.item for row in update.rows if not math.isfinite(row.nats)]
    names = listed(odd or [row.item for row in update.rows])
    return f"step {number} has loss {update.loss:g}, gradient norm {update.grad_norm:g} at rows {names}"
