"""Attention that keeps packed documents apart: each document attends to itself, and no T x T mask over the pack exists.

Registered with transformers under the name `metier`. Outside `packed(...)` it is transformers' own sdpa attention,
so that one loaded model trains on packs and generates from padded batches.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from metier.errors import ModelError

NAME = "metier"

Segment = tuple[int, ...]
"""Lengths in tokens: (document,) or (stem, branch, branch, ...), where each branch sees the stem and itself only."""

_segments: ContextVar[tuple[tuple[Segment, Tensor | None], ...] | None] = ContextVar("segments", default=None)


@contextmanager
def packed(segments: Sequence[Segment]) -> Iterator[None]:
    """Within it, a batch of one row holds these segments, end to end."""
    token = _segments.set(tuple((s, branch_mask(s) if len(s) > 1 else None) for s in segments))
    try:
        yield
    finally:
        _segments.reset(token)


def branch_mask(segment: Segment) -> Tensor:
    """(T, T) booleans: position i attends to j when j is not later and j is in i's branch or in the stem."""
    branch = torch.repeat_interleave(torch.arange(len(segment)), torch.tensor(segment))
    allowed = (branch[:, None] == branch[None, :]) | (branch[None, :] == 0)
    return allowed.tril()


def window_mask(segment: Segment, sliding_window: int) -> Tensor:
    """(T, T) booleans: position i is less than the window after j; a branch stands right after the stem."""
    stem, *branches = segment
    positions = torch.cat([torch.arange(stem), *(torch.arange(stem, stem + length) for length in branches)])
    return (positions[:, None] - positions[None, :]) < sliding_window


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
        ModelError: the architecture asks for something that this path does not compute (soft caps, sinks).
    """
    segments = _segments.get()
    if segments is None:
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
        return result
    if any(kwargs.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
        raise ModelError(f"{type(module).__name__} needs an attention that packed documents do not have here.")
    lengths = [sum(segment) for segment, _ in segments]
    grouped = query.shape[1] != key.shape[1]
    outputs = []
    parts = (torch.split(states, lengths, dim=2) for states in (query, key, value))
    for (segment, mask), q, k, v in zip(segments, *parts, strict=True):
        if sliding_window is not None and sum(segment) > sliding_window:
            seen = branch_mask(segment) if mask is None else mask
            mask = (seen & window_mask(segment, sliding_window)).to(q.device)
        outputs.append(
            nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    return None if _segments.get() is not None else sdpa_mask(*args, **kwargs)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, _mask)
