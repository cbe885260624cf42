"""How far an adapted model's next token lies from its base's, whatever the text says comes next."""

import torch
from torch import Tensor

from metier.models.adapters import disabled
from metier.models.loss import chunk_rows
from metier.models.packing import Pack, PackReader


@torch.no_grad()
def divergence(reader: PackReader, batch: Pack) -> Tensor:
    """(3, N) float32 nats at the position before each supervised token: KL(base || adapted) of the next token, its
    entropy under the base, and under the adapted model.

    The base is the model with its adapter switched off; both share the head.
    """
    with disabled(reader.model):
        base = reader.states(batch)
    adapted = reader.states(batch)
    n_rows = chunk_rows(reader.head.weight.shape[0], reader.device.type == "cpu")
    parts = [
        _of_rows(reader.log_probabilities(base[i : i + n_rows]), reader.log_probabilities(adapted[i : i + n_rows]))
        for i in range(0, len(batch.labels), n_rows)
    ]
    return torch.cat(parts, dim=1) if parts else torch.zeros(3, 0)


def _of_rows(base: Tensor, adapted: Tensor) -> Tensor:
    """(3, rows) of log-probabilities (rows, V)."""
    p, q = base.exp(), adapted.exp()
    return torch.stack([(p * (base - adapted)).sum(1), -(p * base).sum(1), -(q * adapted).sum(1)])
