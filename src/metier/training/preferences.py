"""Preferences: of two answers to one conversation the chosen one is made likelier than the rejected one (DPO)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metier.models.adapters import disabled
from metier.models.encoding import Encoded
from metier.models.packing import Branches, Pack, PackReader, pack_branches, packs_of

BETA = 0.1  # how little the model may move away from its base for a preference (arXiv 2305.18290)


@dataclass(frozen=True)
class Compared:
    """loss: scalar, -log sigmoid(margin) summed over the pairs of a pack. margins: (pairs,), beta times the nats by
    which training moved the chosen answer ahead of the rejected one, beside the base."""

    loss: Tensor
    margins: Tensor

    @property
    def by_pair(self) -> Tensor:
        """(pairs,) float64 without gradient: the loss of each."""
        return -torch.nn.functional.logsigmoid(self.margins.cpu().double())


def branches_of(document: Encoded) -> Branches:
    """The prompt once, then the chosen and the rejected answer."""
    first = next(i for i, kind in enumerate(document.loss) if kind)
    return Branches(document.item, document.ids[:first], (document.ids[first:], document.rejected))


def pair_packs_of(documents: Iterable[Encoded], n_tokens: int) -> Iterator[Pack]:
    """Packs of preferences in the order given, of `n_tokens` at most unless one pair is longer."""
    current: list[Branches] = []
    size = 0
    for document in documents:
        if current and size + document.n_tokens > n_tokens:
            yield pack_branches(current)
            current, size = [], 0
        current.append(branches_of(document))
        size += document.n_tokens
    if current:
        yield pack_branches(current)


def step_packs_of(documents: Sequence[Encoded], n_tokens: int) -> Iterator[Pack]:
    """All that a step of these documents reads: packs of texts, then packs of preferences."""
    yield from packs_of((document for document in documents if not document.rejected), n_tokens)
    yield from pair_packs_of((document for document in documents if document.rejected), n_tokens)


def compare(reader: PackReader, batch: Pack) -> Compared:
    """DPO on a pack of pairs. The reference is the adapter switched off, so `reader.model` must have one."""
    with disabled(reader.model):
        reference = _nll_of_branches(batch, reader.token_nll(batch))
    moved = reference - _nll_of_branches(batch, reader.label_nll(batch))  # nats by which each answer became likelier
    chosen, rejected = moved.view(-1, 2).unbind(dim=1)
    margins = BETA * (chosen - rejected)
    return Compared(-torch.nn.functional.logsigmoid(margins).sum(), margins.detach())


def _nll_of_branches(batch: Pack, nll: Tensor) -> Tensor:
    return nll.new_zeros(len(batch.items)).index_add(0, batch.owners.to(nll.device), nll)
