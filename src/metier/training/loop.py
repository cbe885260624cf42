"""The training loop: from documents to optimizer steps, readable without leaving the file."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from metier.errors import DataError, DivergedError
from metier.models.packing import Pack, PackReader, packs_of
from metier.training.schedule import lr_at
from metier.training.stream import Step

MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step; a line of metrics.jsonl.

    loss is in nats per supervised token; tokens and seconds are those of the step.
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


@dataclass
class Trained:
    """What a run of the loop did, also when it was interrupted."""

    n_steps: int = 0
    n_tokens: int = 0
    n_supervised: int = 0
    n_replay_tokens: int = 0
    n_documents: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    windows: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def bytes_by_item(self) -> dict[str, int]:
        """Learned bytes of each item, every window once however many epochs there were."""
        total: Counter[str] = Counter()
        for (item, _), n_bytes in self.windows.items():
            total[item] += n_bytes
        return dict(total)


@dataclass
class Begun:
    """A run that the loop takes over: its optimizer, and what it has done so far."""

    optimizer: torch.optim.Optimizer
    done: Trained


def begin(reader: PackReader, peak_lr: float) -> Begun:
    """A run before its first step, over the parameters of `reader.model` that require a gradient."""
    parameters = [p for p in reader.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=peak_lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    return Begun(optimizer, Trained())


def train(
    reader: PackReader,
    steps: Iterator[Step],
    n_steps: int,
    peak_lr: float,
    pack_tokens: int,
    on_step: Callable[[StepMetrics], None],
    should_stop: Callable[[], bool] = lambda: False,
    begun: Begun | None = None,
) -> Trained:
    """Train the parameters of `reader.model` that require a gradient for `n_steps` steps, or until the data ends.

    With `begun`, its steps are the first of the `n_steps` and `steps` brings the others; one that was interrupted
    stays as it is. `should_stop` is asked after each step; the weights are always those of a whole step.

    Raises:
        DataError: a step without a supervised token.
        DivergedError: a loss or a gradient norm that is not finite; the message names the rows.
    """
    begun = begun or begin(reader, peak_lr)
    optimizer, done = begun.optimizer, begun.done
    n_left = 0 if done.interrupted else n_steps - done.n_steps
    reader.model.train()
    try:
        for number, step in enumerate(islice(steps, n_left), done.n_steps):
            started = time.perf_counter()
            lr = lr_at(number, n_steps, peak_lr)
            for group in optimizer.param_groups:
                group["lr"] = lr
            loss, grad_norm, n_supervised = train_step(reader, optimizer, step, pack_tokens)
            seconds = time.perf_counter() - started
            _count(done, step, n_supervised, seconds)
            on_step(
                StepMetrics(
                    step=number + 1,
                    epoch=step.epoch,
                    loss=loss,
                    lr=lr,
                    grad_norm=grad_norm,
                    tokens=step.n_tokens,
                    supervised_tokens=n_supervised,
                    replay_tokens=step.n_replay_tokens,
                    tokens_per_s=step.n_tokens / seconds,
                    seconds=seconds,
                )
            )
            if should_stop():
                done.interrupted = True
                break
    finally:
        reader.model.eval()
    return done


def train_step(
    reader: PackReader, optimizer: torch.optim.Optimizer, step: Step, pack_tokens: int
) -> tuple[float, float, int]:
    """One update; returns (loss in nats per supervised token, gradient norm before clipping, supervised tokens).

    The losses of all packs are summed and divided once by the step's supervised tokens, so that the update does not
    depend on how the step is cut into packs.
    """
    packs = list(packs_of(step.documents, pack_tokens))
    n_supervised = sum(len(p.labels) for p in packs)
    if n_supervised == 0:
        raise DataError(f"no supervised tokens in a step ({_rows(packs)}): every token is masked; check these rows.")
    total = 0.0
    for batch in packs:
        nll = reader.summed_nll(batch)
        (nll / n_supervised).backward()  # type: ignore[no-untyped-call]
        total += nll.item()
    loss = total / n_supervised
    parameters: list[Any] = [p for group in optimizer.param_groups for p in group["params"]]
    grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM))
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        optimizer.zero_grad(set_to_none=True)
        raise DivergedError(
            f"loss {loss:g}, gradient norm {grad_norm:g} at rows {_rows(packs)}: lower --lr or inspect these rows."
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss, grad_norm, n_supervised


def _count(done: Trained, step: Step, n_supervised: int, seconds: float) -> None:
    done.n_steps += 1
    done.n_tokens += step.n_tokens
    done.n_supervised += n_supervised
    done.n_replay_tokens += step.n_replay_tokens
    done.n_documents += len(step.documents)
    done.seconds += seconds
    done.windows.update({(document.item, document.window): document.n_bytes for document in step.documents})


def _rows(packs: list[Pack], limit: int = 8) -> str:
    names = [item for batch in packs for item in batch.items]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
