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
KEPT_ROWS = (
    384  # documents up to this length keep their probabilities for the backward pass; longer ones form them again
)

Segment = tuple[int, ...]
"""Lengths in tokens: (document,) or (stem, branch, branch, ...), where each branch sees the stem and itself only."""


class Block(NamedTuple):
    """Queries first:last attend to the stem's keys and to their own document's keys from `document` to their own."""

    stem: slice
    document: int
    first: int
    last: int

    @property
    def own(self) -> slice:
        return slice(self.document, self.last)

    @property
    def n_keys(self) -> int:
        return int(self.stem.stop - self.stem.start) + self.last - self.document

    @property
    def is_kept(self) -> bool:
        return self.n_keys <= KEPT_ROWS


def blocks_of(segments: Sequence[Segment]) -> tuple[Block, ...]:
    """The blocks of queries that cover the segments, end to end; every query stands in exactly one."""
    blocks: list[Block] = []
    start = 0
    for stem, *branches in segments:
        blocks.extend(_document_blocks(slice(0, 0), start, stem))
        seen = slice(start, start + stem)
        start += stem
        for length in branches:
            blocks.extend(_document_blocks(seen, start, length))
            start += length
    return tuple(blocks)


def _document_blocks(stem: slice, start: int, length: int) -> Iterator[Block]:
    n_blocks = -(-length // ROWS)
    edges = [start + length * i // n_blocks for i in range(n_blocks + 1)] if n_blocks else []
    for first, last in pairwise(edges):
        yield Block(stem, start, first, last)


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


def block_mask(block: Block, sliding_window: int | None, like: Tensor) -> Tensor:
    """(queries, keys): 0 where a query sees a key, -inf where it does not. A branch stands right behind its stem, so
    the positions of the keys are 0, 1, … and those of the queries the last of them."""
    n_keys = block.n_keys
    size = 1 << max(8, (n_keys - 1).bit_length())
    window = sliding_window if sliding_window is not None and n_keys > sliding_window else 0
    return _causal(size, window, like.dtype, like.device)[n_keys - (block.last - block.first) : n_keys, :n_keys]


@lru_cache(maxsize=8)
def _causal(size: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    back = torch.arange(size, device=device)[:, None] - torch.arange(size, device=device)[None, :]
    hidden = back < 0
    if window:
        hidden |= back >= window
    return torch.zeros(size, size, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))


def _seen(states: Tensor, block: Block, groups: int) -> Tensor:
    """(heads, keys, D) of the keys or values (kv heads, T, D) that a block sees, repeated for its groups of queries."""
    own = states[:, block.own]
    if block.stem.stop > block.stem.start:
        own = torch.cat((states[:, block.stem], own), dim=1)
    if groups == 1:
        return own
    return own[:, None].expand(-1, groups, -1, -1).reshape(-1, *own.shape[1:])


def attend(
    query: Tensor, key: Tensor, value: Tensor, blocks: Sequence[Block], scaling: float, window: int | None, out: Tensor
) -> list[Tensor | None]:
    """Write the attention of query (H, T, D) to key and value (H_kv, T, D) into out (T, H, D).

    Returns the probabilities of each block (H, queries, keys), None where the backward pass shall form them again.
    """
    groups = query.shape[0] // key.shape[0]
    kept: list[Tensor | None] = []
    for block in blocks:
        probability = _probabilities(query, key, block, scaling, window)
        rows = torch.bmm(probability, _seen(value, block, groups))
        out[block.first : block.last] = rows.transpose(0, 1)
        kept.append(probability if block.is_kept else None)
    return kept


def _probabilities(query: Tensor, key: Tensor, block: Block, scaling: float, window: int | None) -> Tensor:
    keys = _seen(key, block, query.shape[0] // key.shape[0])
    mask = block_mask(block, window, query)
    scores = torch.baddbmm(mask, query[:, block.first : block.last], keys.transpose(1, 2), alpha=scaling)
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

    grads[1] and grads[2] must be zeros: the stem's keys gather a share from every branch.
    """
    query, key, value = states
    grad_query, grad_key, grad_value = grads
    n_kv, _, width = key.shape
    groups = query.shape[0] // n_kv
    for block, probability in zip(blocks, kept, strict=True):
        rows = slice(block.first, block.last)
        p = _probabilities(query, key, block, scaling, window) if probability is None else probability
        grad_rows = grad_out[rows].transpose(0, 1)
        grad_p = torch.bmm(grad_rows, _seen(value, block, groups).transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_p, p, -1, p.dtype).mul_(scaling)
        grad_query[:, rows] = torch.bmm(grad_scores, _seen(key, block, groups))
        for grad, all_heads in (
            (grad_key, torch.bmm(grad_scores.transpose(1, 2), query[:, rows])),
            (grad_value, torch.bmm(p.transpose(1, 2), grad_rows)),
        ):
            seen = all_heads.view(n_kv, groups, -1, width).sum(1) if groups > 1 else all_heads
            n_stem = block.stem.stop - block.stem.start
            if n_stem:
                grad[:, block.stem] += seen[:, :n_stem]
            grad[:, block.own] += seen[:, n_stem:]


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
