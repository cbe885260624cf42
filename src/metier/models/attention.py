"""Attention that keeps packed documents apart: each document attends to itself and to the stem that it shares with
others; no T x T mask over the pack exists.

Registered with transformers under the name `metier`. Outside `packed(...)` it is transformers' own sdpa attention,
so that one loaded model trains on packs and generates from padded batches.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from metier.errors import ModelError
from metier.models.blocks import Group, Layout, Segment
from metier.models.varlen import attend_rows, is_taken, rows_of

NAME = "metier"
KEPT_KEYS = 384  # groups of so many keep their probabilities for the backward pass; longer ones form them again

_layout: ContextVar[Layout | None] = ContextVar("layout", default=None)


@contextmanager
def packed(segments: Sequence[Segment]) -> Iterator[None]:
    """Within it, a batch of one row holds these segments, end to end."""
    with _reading(Layout(segments)):
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


def current_layout() -> Layout | None:
    """Of the pack that is being read, or None outside `packed`."""
    return _layout.get()


def group_mask(group: Group, sliding_window: int | None, n_heads: int, like: Tensor) -> Tensor:
    """(queries * n_heads, keys), the rows of a query in a row: 0 where it sees a key, -inf where it does not.

    A document stands right behind the stem, whatever stands between them in the pack: its positions begin there.
    """
    window = sliding_window if sliding_window is not None and group.n_keys > sliding_window else 0
    return _mask_of(group.n_past, group.n_queries, window, n_heads, like.dtype, like.device)


@lru_cache(maxsize=64)  # several packs of a hundred tokens a document
def _mask_of(
    n_past: int, n_queries: int, window: int, n_heads: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    back = torch.arange(n_past, n_past + n_queries)[:, None] - torch.arange(n_past + n_queries)
    hidden = (back < 0) | (back >= window) if window else back < 0
    mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))
    return mask.repeat_interleave(n_heads, 0).to(device)


class _Batches:
    """The queries, keys and values of a pack, as batches of a matrix for each block and key head: the query heads that
    share a key head are rows of one matrix, those of a token one below the other."""

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> None:
        """query (T, H, D), key and value (T, H_kv, D)."""
        _, self.n_kv, self.width = key.shape
        self.n_shared = query.shape[1] // self.n_kv  # query heads to a key head
        self.rows = layout.rows(self.n_kv, query.device)
        self.query = self.of_queries(query)
        self.key, self.value = (states.reshape(-1, self.width) for states in (key, value))

    def of_queries(self, states: Tensor) -> Tensor:
        """(N, n_shared * D) of (T, H, D), group after group; what fills a block up is the last of its rows again."""
        return states.reshape(-1, self.n_shared * self.width).index_select(0, self.rows.queries)

    def of_tokens(self, rows: Tensor) -> Tensor:
        """(T, H, D) of `of_queries`."""
        return rows.index_select(0, self.rows.places).view(-1, self.n_kv * self.n_shared, self.width)

    def matrices(self, group: Group, span: slice, states: Tensor) -> Tensor:
        """(blocks * H_kv, queries * n_shared, D) of a group, as a view of (N, n_shared * D)."""
        return states[span].view(len(group.blocks) * self.n_kv, -1, self.width)

    def seen(self, group: Group, keys: Tensor, states: Tensor) -> Tensor:
        """(blocks * H_kv, keys, D) of the keys or values that a group sees."""
        return states.index_select(0, keys).view(-1, group.n_keys, self.width)

    def probabilities(self, group: Group, query: Tensor, key: Tensor, scaling: float, window: int | None) -> Tensor:
        """(blocks * H_kv, queries * n_shared, keys)"""
        mask = group_mask(group, window, self.n_shared, query)
        return torch.softmax(torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scaling), dim=-1)


def attend(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float, window: int | None
) -> tuple[Tensor, list[Tensor | None]]:
    """The attention of query (T, H, D) to key and value (T, H_kv, D): (T, H, D), and the probabilities of each group,
    None where the backward pass shall form them again."""
    batches = _Batches(query, key, value, layout)
    out = torch.empty_like(batches.query)
    kept: list[Tensor | None] = []
    for group, span, keys in zip(layout.groups, batches.rows.spans, batches.rows.keys, strict=True):
        of_group = batches.matrices(group, span, batches.query)
        seen = batches.seen(group, keys, batches.key)
        probability = batches.probabilities(group, of_group, seen, scaling, window)
        values = batches.seen(group, keys, batches.value)
        torch.bmm(probability, values, out=batches.matrices(group, span, out))
        kept.append(probability if group.n_keys <= KEPT_KEYS else None)
    return batches.of_tokens(out), kept


def attend_backward(
    grad_out: Tensor,
    states: tuple[Tensor, Tensor, Tensor],
    layout: Layout,
    kept: Sequence[Tensor | None],
    scaling: float,
    window: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the (query, key, value) of `attend`, shaped alike, of that of its output (T, H, D)."""
    batches = _Batches(*states, layout)
    grad_rows = batches.of_queries(grad_out).index_fill_(0, batches.rows.filling, 0.0)
    grad_query = torch.empty_like(batches.query)
    grad_key, grad_value = torch.zeros_like(batches.key), torch.zeros_like(batches.value)
    rows = batches.rows
    for group, span, keys, probability in zip(layout.groups, rows.spans, rows.keys, kept, strict=True):
        query, grad = (batches.matrices(group, span, each) for each in (batches.query, grad_rows))
        key, value = (batches.seen(group, keys, each) for each in (batches.key, batches.value))
        p = batches.probabilities(group, query, key, scaling, window) if probability is None else probability
        grad_p = torch.bmm(grad, value.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_p, p, -1, p.dtype).mul_(scaling)
        torch.bmm(grad_scores, key, out=batches.matrices(group, span, grad_query))
        # a key gathers a share from each block that sees it, what fills a block up adds nothing
        grad_key.index_add_(0, keys, torch.bmm(grad_scores.transpose(1, 2), query).view(-1, batches.width))
        grad_value.index_add_(0, keys, torch.bmm(p.transpose(1, 2), grad).view(-1, batches.width))
    return batches.of_tokens(grad_query), grad_key.view(states[1].shape), grad_value.view(states[2].shape)


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float, window: int | None
    ) -> Tensor:
        out, kept = attend(query, key, value, layout, scaling, window)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.options = (layout, scaling, window)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        query, key, value, *kept = ctx.saved_tensors
        layout, scaling, window = ctx.options
        grads = attend_backward(grad_outputs[0], (query, key, value), layout, kept, scaling, window)
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
    if is_taken(query[0]):
        rows = rows_of(layout.segments, query.device)
        return attend_rows(query[0], key[0], value[0], rows, scale, sliding_window)[None], None
    by_token = (states[0].transpose(0, 1) for states in (query, key, value))
    out: Tensor = _PackedAttention.apply(*by_token, layout, scale, sliding_window)  # type: ignore[no-untyped-call]
    return out[None], None


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    return None if _layout.get() is not None else sdpa_mask(*args, **kwargs)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, _mask)
