"""How far an adapted model's next token lies from its base's, whatever the text says comes next: read beside the nats
of the same packs, of which the base's hidden states are kept."""

from collections.abc import Hashable

import torch
from torch import Tensor

from metier.models.adapters import disabled
from metier.models.loss import chunk_rows
from metier.models.packing import Pack, PackReader


class KeepingBase:
    """Reads packs with the base, and keeps what it made of them."""

    figures: tuple[str, ...] = ()

    def __init__(self, reader: PackReader) -> None:
        """reader: of an adapted model, whose adapter is switched off while packs are read."""
        self.reader = reader
        self._kept: dict[Hashable, Tensor] = {}

    def per_token(self, batch: Pack) -> Tensor:
        """(1, N): nats of each supervised token."""
        states = self.reader.states(batch)
        if not self.reader.why_plain:  # those would be whole logits
            self._kept[_key(batch)] = states
        return self.reader.nll_of(states, batch)[None]

    def states(self, batch: Pack) -> Tensor:
        """As `PackReader.states`, by the base; read again where they were not kept."""
        if (kept := self._kept.get(_key(batch))) is not None:
            return kept
        with disabled(self.reader.model):
            return self.reader.states(batch)


def _key(batch: Pack) -> Hashable:
    return batch.items, batch.segments, tuple(batch.input_ids[0].tolist())


class BesideBase:
    """Reads packs with the adapted model, and says how far its expectations lie from the base's: KL(base || adapted) of
    the next token, its entropy under the base, and under the adapted model.

    The base is the model with its adapter switched off; both share the head.
    """

    figures = ("kl", "entropy_base", "entropy_adapted")

    def __init__(self, base: KeepingBase) -> None:
        self._base, self._reader = base, base.reader

    @torch.no_grad()
    def per_token(self, batch: Pack) -> Tensor:
        """(4, N) float32 nats: of each supervised token, then the figures at the position before it."""
        reader, labels = self._reader, batch.labels.to(self._reader.device)
        before, after = self._base.states(batch), reader.states(batch)
        n_rows = chunk_rows(reader.head.weight.shape[0], reader.device.type == "cpu")
        parts = []
        for i in range(0, len(labels), n_rows):
            base, adapted = (reader.log_probabilities(states[i : i + n_rows]) for states in (before, after))
            parts.append(_of_rows(base, adapted, labels[i : i + n_rows]))
        return torch.cat(parts, dim=1) if parts else torch.zeros(1 + len(self.figures), 0)


def _of_rows(base: Tensor, adapted: Tensor, labels: Tensor) -> Tensor:
    """(4, rows) of log-probabilities (rows, V)."""
    nll = -adapted.gather(1, labels[:, None])[:, 0]
    p, q = base.exp(), adapted.exp()
    return torch.stack([nll, (p * (base - adapted)).sum(1), -(p * base).sum(1), -(q * adapted).sum(1)])
