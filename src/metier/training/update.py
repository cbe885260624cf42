"""One update of the weights: the packs of a step forwards and backwards, then the optimizer."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from metier.errors import DataError
from metier.models.encoding import Encoded
from metier.models.packing import Pack, PackReader
from metier.training import parallel
from metier.training.journal import RowLoss
from metier.training.memory import together
from metier.training.preferences import compare, pair_packs_of
from metier.training.stream import Step

MAX_GRAD_NORM = 1.0


class Update(NamedTuple):
    """loss in nats per supervised token · gradient norm before clipping · supervised tokens · every row's loss · the
    margin of every pair."""

    loss: float
    grad_norm: float
    n_supervised: int
    rows: list[RowLoss]
    margins: list[float]

    @property
    def is_finite(self) -> bool:
        """The weights were updated only then."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


def train_step(reader: PackReader, optimizer: torch.optim.Optimizer, step: Step, pack_tokens: int) -> Update:
    """One update of the weights; none where the loss or the gradient norm is not finite.

    The losses of all packs are summed and divided once by the step's supervised tokens, so that the update does not
    depend on how the step is cut into packs, nor on how many ranks share it. A preference stands for the tokens of its
    two answers: each counts with the mean loss of the step's pairs, so that what is trained beside them keeps its
    share.
    """
    pairs = [document for document in step.documents if document.rejected]
    texts = [document for document in step.documents if not document.rejected]
    pair_packs = list(pair_packs_of(pairs, pack_tokens))
    n_pair_tokens = sum(len(p.labels) for p in pair_packs)
    n_supervised = sum(document.n_supervised for document in texts) + n_pair_tokens  # of all ranks
    if n_supervised == 0:
        names = listed([document.item for document in step.documents])
        raise DataError(f"no supervised tokens in a step ({names}): every token is masked; check these rows.")
    read = parallel.from_all(together(reader, partial(_read_own, reader, texts, pack_tokens, n_supervised)))
    pair_nats, margins = _read_pairs(reader, pair_packs, n_pair_tokens / max(1, len(pairs)), n_supervised)
    parameters: list[Any] = [p for group in optimizer.param_groups for p in group["params"]]
    parallel.sum_gradients(parameters)
    grad_norm = parallel.clip_gradients(parameters, MAX_GRAD_NORM)
    rows = [row for _, rows in read for row in rows]
    rows += [RowLoss(d.item, d.window, d.n_supervised, n) for d, n in zip(pairs, pair_nats, strict=True)]
    total = sum(nats for nats, _ in read) + sum(pair_nats)
    update = Update(total / n_supervised, grad_norm, n_supervised, rows, margins)
    if update.is_finite:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return update


def _read_own(
    reader: PackReader, documents: Sequence[Encoded], pack_tokens: int, n_supervised: int
) -> tuple[float, list[RowLoss]]:
    """This rank's packs of a step forwards and backwards; (their nats together, every row's)."""
    total, rows = 0.0, []
    for group, batch in parallel.own_packs(documents, pack_tokens) if documents else ():
        nll, by_item = reader.row_nll(batch)
        (nll / n_supervised).backward()  # type: ignore[no-untyped-call]
        total += nll.item()
        nats = by_item.tolist() if group else []  # without documents of its own a rank reads one for its passes alone
        rows += [RowLoss(d.item, d.window, d.n_supervised, n) for d, n in zip(group, nats, strict=True)]
    return total, rows


def _read_pairs(
    reader: PackReader, packs: Sequence[Pack], tokens_per_pair: float, n_supervised: int
) -> tuple[list[float], list[float]]:
    """The packs of preferences of a step forwards and backwards; (the loss that each pair stands for, its margin)."""
    nats: list[float] = []
    margins: list[float] = []
    for batch in packs:
        compared = compare(reader, batch)
        (compared.loss * tokens_per_pair / n_supervised).backward()  # type: ignore[no-untyped-call]
        nats += (compared.by_pair * tokens_per_pair).tolist()
        margins += compared.margins.tolist()
    return nats, margins


def listed(names: Sequence[str], limit: int = 8) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
