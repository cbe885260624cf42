"""Frozen lower layers: what they make of a document is the same in every epoch, so it is kept from the first one on."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metier.models.methods import decoder_layers

LIMIT_BYTES = 2**30  # of kept outputs: 466,000 tokens of a model of width 576 in float32


class Piece(NamedTuple):
    """The end of a document in a pack. tokens: all of the document's; stem: where its start stands that others share,
    empty where none is shared; own: where the rest stands."""

    tokens: bytes
    stem: slice
    own: slice


class LowerOutputs:
    """The hidden states that enter the first trained layer, by the tokens that they stand for.

    A pack is answered from here when all of it is known; one with a piece that is not known, which after `limit_bytes`
    is every new one, is computed as ever.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.n_bytes = 0
        self.hits = self.misses = 0
        self.replayed: Tensor | None = None
        self._kept: dict[bytes, Tensor] = {}
        self._pieces: list[Piece] = []

    def begin(self, input_ids: Tensor, position_ids: Tensor | None) -> None:
        """A forward pass of (1, T) tokens begins; `replayed` is (1, T, H) if all of it is known, else None."""
        self._pieces = list(pieces(input_ids[0], position_ids))
        known = [(self._kept.get(piece.tokens), piece) for piece in self._pieces]
        found = [kept[piece.stem.stop - piece.stem.start :] for kept, piece in known if kept is not None]
        self.replayed = torch.cat(found)[None] if len(found) == len(known) else None
        self.hits += self.replayed is not None
        self.misses += self.replayed is None

    def keep(self, output: Tensor) -> None:
        """output (1, T, H): what the uppermost frozen layer made of the pass that began.

        Of every document all of it is kept, for it shares another start, or none, in the next epoch's packs.
        """
        for piece in self._pieces:
            if piece.tokens in self._kept:
                continue
            rows = torch.cat((output[0, piece.stem], output[0, piece.own])).detach()
            size = rows.numel() * rows.element_size()
            if self.n_bytes + size <= self.limit_bytes:
                self._kept[piece.tokens] = rows
                self.n_bytes += size


def pieces(input_ids: Tensor, position_ids: Tensor | None) -> Iterator[Piece]:
    """The documents of a pack, read off its positions (1, T): one starts wherever they do not go on by one.

    A piece that starts at position p > 0 follows the first p tokens of the last piece that started at 0: a branch and
    its stem, or a document and the prefix that it shares.
    """
    ids = input_ids.to(torch.int64).cpu().numpy()
    n_tokens = len(ids)
    positions = torch.arange(n_tokens) if position_ids is None else position_ids[0].cpu()
    starts = [0, *(torch.nonzero(positions[1:] != positions[:-1] + 1).flatten() + 1).tolist(), n_tokens]
    stem = 0
    for start, end in itertools.pairwise(starts):
        offset = int(positions[start])
        if offset == 0:
            stem = start
        shared, own = slice(stem, stem + offset), slice(start, end)
        yield Piece(ids[shared].tobytes() + ids[own].tobytes(), shared, own)


@contextmanager
def lower_outputs_kept(inner: Any, n_frozen: int, limit_bytes: int = LIMIT_BYTES) -> Iterator[LowerOutputs]:
    """Within it the lowest `n_frozen` decoder layers run once a document; with none frozen nothing is kept.

    inner: a causal language model without the wrapper of PEFT. Its lower layers must not change in the meantime, and
    every pass must be of one row, as those of packs are.
    """
    kept = LowerOutputs(limit_bytes)
    if not n_frozen:
        yield kept
        return
    layers = list(decoder_layers(inner)[1])[:n_frozen]

    def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept.begin(kwargs["input_ids"] if "input_ids" in kwargs else args[0], kwargs.get("position_ids"))

    handle = inner.base_model.register_forward_pre_hook(begin, with_kwargs=True)
    originals = [layer.forward for layer in layers]
    for i, layer in enumerate(layers):
        layer.forward = partial(_forward, kept, originals[i], i == n_frozen - 1)
    try:
        yield kept
    finally:
        handle.remove()
        for layer in layers:
            del layer.forward


def _forward(
    kept: LowerOutputs, original: Callable[..., Tensor], is_uppermost: bool, hidden: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    if kept.replayed is not None:
        return kept.replayed
    output = original(hidden, *args, **kwargs)
    if is_uppermost:
        kept.keep(output)
    return output
