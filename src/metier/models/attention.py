"""Attention that keeps packed documents apart: each document attends to itself and to the stem that it shares with
others; no T x T mask over the pack exists.

Registered with transformers under the name `metier`. Outside `packed(...)` it is transformers' own sdpa attention,
so that one loaded model trains on packs and generates from padded batches.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from metier.errors import ModelError
from metier.models.varlen import attend_rows, is_taken, rows_of

NAME = "metier"
ROWS = 192  # queries of a document that are attended with at once: longer documents skip the keys after their block
TOGETHER = 96  # tokens of short documents behind the same stem that are attended at once
KEPT_ROWS = (
    384  # documents up to this length keep their probabilities for the backward pass; longer ones form them again
)

Segment = tuple[int, ...]
"""Lengths in tokens: (document,) or (stem, branch, branch, ...), where each branch sees the stem and itself only."""


class Block(NamedTuple):
    """Queries first:last, which see the stem's keys and those of their own document up to themselves.

    own      the keys of their documents: from the start of the first document to the last query
    lengths  tokens of the documents in `own`, end to end: several short ones are attended together, for a call costs
             more than the pairs it computes in vain
    """

    stem: slice
    own: slice
    first: int
    lengths: tuple[int, ...]

    @property
    def queries(self) -> slice:
        return slice(self.first, self.own.stop)

    @property
    def n_stem(self) -> int:
        return int(self.stem.stop - self.stem.start)

    @property
    def n_keys(self) -> int:
        return self.n_stem + sum(self.lengths)

    @property
    def is_kept(self) -> bool:
        return self.n_keys <= KEPT_ROWS


def blocks_of(segments: Sequence[Segment]) -> tuple[Block, ...]:
    """The blocks of queries that cover the segments, end to end; every query stands in exactly one."""
    blocks: list[Block] = []
    alone: list[int] = []  # documents without a stem, one behind the other
    start = 0
    for stem, *branches in segments:
        if not branches:
            alone.append(stem)
            continue
        blocks.extend(_blocks_behind(slice(0, 0), start, alone))
        start += sum(alone)
        alone = []
        blocks.extend(_blocks_behind(slice(0, 0), start, [stem]))
        blocks.extend(_blocks_behind(slice(start, start + stem), start + stem, branches))
        start += stem + sum(branches)
    blocks.extend(_blocks_behind(slice(0, 0), start, alone))
    return tuple(blocks)


def _blocks_behind(stem: slice, start: int, lengths: Sequence[int]) -> Iterator[Block]:
    """Blocks of documents that stand end to end from `start` and see the same stem."""
    together: list[int] = []
    for length in lengths:
        if together and sum(together) + length > TOGETHER:
            yield _block(stem, start, together)
            start += sum(together)
            together = []
        if length > TOGETHER:
            yield from _blocks_of_one(stem, start, length)
            start += length
        elif length:
            together.append(length)
    if together:
        yield _block(stem, start, together)


def _block(stem: slice, start: int, lengths: Sequence[int]) -> Block:
    return Block(stem, slice(start, start + sum(lengths)), start, tuple(lengths))


def _blocks_of_one(stem: slice, start: int, length: int) -> Iterator[Block]:
    n_blocks = -(-length // ROWS)
    edges = [start + length * i // n_blocks for i in range(n_blocks + 1)]
    for first, last in pairwise(edges):
        yield Block(stem, slice(start, last), first, (last - start,))


class Layout(NamedTuple):
    """The segments of a pack, and the blocks that cover them."""

    segments: tuple[Segment, ...]
    blocks: tuple[Block, ...]


_layout: ContextVar[Layout | None] = ContextVar("layout", default=None)


@contextmanager
def packed(segments: Sequence[Segment]) -> Iterator[None]:
    """Within it, a batch of one row holds these segments, end to end."""
    with _reading(Layout(tuple(segments), blocks_of(segments))):
        yield


@contextmanager
def _reading(layout: Layout | None) -> Iterator[None]:
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)


def again() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For a layer that runs again in the backward pass, when `packed` is left: contexts of its first and second run."""
    return nullcontext(), _reading(_layout.get())


def current_blocks() -> tuple[Block, ...] | None:
    """The blocks of the pack that is being read, or None outside `packed`."""
    layout = _layout.get()
    return None if layout is None else layout.blocks


def block_mask(block: Block, sliding_window: int | None, groups: int, like: Tensor) -> Tensor:
    """(groups * queries, keys): 0 where a query sees a key, -inf where it does not."""
    window = sliding_window if sliding_window is not None and block.n_keys > sliding_window else 0
    n_queries = block.own.stop - block.first
    return _mask_of(block.n_stem, block.lengths, n_queries, window, groups, like.dtype, like.device)


@lru_cache(maxsize=256)
def _mask_of(
    n_stem: int,
    lengths: tuple[int, ...],
    n_queries: int,
    window: int,
    groups: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """A document stands right behind the stem, whatever stands between them in the pack: its positions begin there."""
    positions = torch.cat([torch.arange(n_stem), *(torch.arange(n_stem, n_stem + n) for n in lengths)])
    owners = torch.repeat_interleave(torch.arange(len(lengths) + 1), torch.tensor([n_stem, *lengths]))
    back = positions[-n_queries:, None] - positions[None, :]
    hidden = (back < 0) | ((owners[None, :] != owners[-n_queries:, None]) & (owners[None, :] > 0))
    if window:
        hidden |= back >= window
    mask = torch.zeros(n_queries, len(positions), dtype=dtype).masked_fill_(hidden, float("-inf"))
    return mask.repeat(groups, 1).to(device)


def _seen(states: Tensor, block: Block) -> Tensor:
    """(kv heads, keys, D) of the keys or values (kv heads, T, D) that a block sees."""
    own = states[:, block.own]
    return torch.cat((states[:, block.stem], own), dim=1) if block.n_stem else own


def _rows(states: Tensor, block: Block, n_kv: int) -> Tensor:
    """(kv heads, groups * queries, D) of (heads, T, D): the query heads that share a key head, one below the other."""
    return states[:, block.queries].reshape(n_kv, -1, states.shape[-1])


def attend(
    query: Tensor, key: Tensor, value: Tensor, blocks: Sequence[Block], scaling: float, window: int | None, out: Tensor
) -> list[Tensor | None]:
    """Write the attention of query (H, T, D) to key and value (H_kv, T, D) into out (T, H, D).

    Returns the probabilities of each block (H_kv, groups * queries, keys), None where the backward pass shall form
    them again.
    """
    kept: list[Tensor | None] = []
    for block in blocks:
        probability = _probabilities(_rows(query, block, len(key)), key, block, scaling, window)
        rows = torch.bmm(probability, _seen(value, block))
        out[block.queries] = rows.view(len(query), -1, rows.shape[-1]).transpose(0, 1)
        kept.append(probability if block.is_kept else None)
    return kept


def _probabilities(rows: Tensor, key: Tensor, block: Block, scaling: float, window: int | None) -> Tensor:
    groups = rows.shape[1] // (block.own.stop - block.first)
    mask = block_mask(block, window, groups, rows)
    scores = torch.baddbmm(mask, rows, _seen(key, block).transpose(1, 2), alpha=scaling)
    return torch.softmax(scores, dim=-1)


def attend_backward(
    grad_out: Tensor,
    states: tuple[Tensor, Tensor, Tensor],
    grads: tuple[Tensor, Tensor, Tensor],
    blocks: Sequence[Block],
    kept: Sequence[Tensor | None],
    scaling: float,
    window: int | None,
) -> None:
    """Write the gradients of `attend`: grad_out (T, H, D); states and grads are (query, key, value), shaped alike.

    grads[1] and grads[2] must be zeros: the keys of a stem, and of a document of several blocks, gather a share from
    each.
    """
    query, key, value = states
    grad_query, grad_key, grad_value = grads
    n_kv, _, width = key.shape
    for block, probability in zip(blocks, kept, strict=True):
        rows = _rows(query, block, n_kv)
        p = _probabilities(rows, key, block, scaling, window) if probability is None else probability
        grad_rows = _rows(grad_out.transpose(0, 1), block, n_kv)
        grad_p = torch.bmm(grad_rows, _seen(value, block).transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_p, p, -1, p.dtype).mul_(scaling)
        grad_query[:, block.queries] = torch.bmm(grad_scores, _seen(key, block)).view(len(query), -1, width)
        for grad, seen in (
            (grad_key, torch.bmm(grad_scores.transpose(1, 2), rows)),
            (grad_value, torch.bmm(p.transpose(1, 2), grad_rows)),
        ):
            if block.n_stem:
                grad[:, block.stem] += seen[:, : block.n_stem]
            grad[:, block.own] += seen[:, block.n_stem :]


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: Sequence[Block], scaling: float, window: int | None
    ) -> Tensor:
        out = query.new_empty(query.shape[1], query.shape[0], query.shape[2])
        kept = attend(query, key, value, blocks, scaling, window, out)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.options = (blocks, scaling, window)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        query, key, value, *kept = ctx.saved_tensors
        grads = (torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value))
        blocks, scaling, window = ctx.options
        attend_backward(grad_outputs[0], (query, key, value), grads, blocks, kept, scaling, window)
        return *grads, None, None, None


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query (1, H, T, D), key and value (1, H_kv, T, D), segments end to end along T; returns (1, T, H, D).

    Raises:
        ModelError: the architecture asks for something that this path does not compute (soft caps, sinks, dropout).
    """
    layout = _layout.get()
    if layout is None:
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
        return result
    if dropout or any(kwargs.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
        raise ModelError(f"{type(module).__name__} needs an attention that packed documents do not have here.")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    states = (query[0], key[0], value[0])
    if is_taken(states[0]):
        rows = rows_of(layout.segments, query.device)
        return attend_rows(*states, rows, scale, sliding_window)[None], None
    out: Tensor = _PackedAttention.apply(*states, layout.blocks, scale, sliding_window)  # type: ignore[no-untyped-call]
    return out[None], None


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    return None if _layout.get() is not None else sdpa_mask(*args, **kwargs)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, _mask)
