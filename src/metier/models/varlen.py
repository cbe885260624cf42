"""Attention over the documents of a pack in one kernel of a CUDA GPU: torch's variable-length attention.

A branch attends to the stem before it and to itself. The kernel takes for each row of queries a row of keys and lets
the last query see the last key, so the keys of a branch are those of its stem followed by its own.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST_CAPABILITY = (8, 0)  # of the GPU, for flash attention in bfloat16
LARGEST_HEAD = 256


class Rows(NamedTuple):
    """keys (K,): positions of the keys in the pack, row after row; None where they are the pack itself.
    query_ends, key_ends (rows + 1,) int32: where each row ends, from 0. longest: tokens of a row."""

    keys: Tensor | None
    query_ends: Tensor
    key_ends: Tensor
    longest_query: int
    longest_key: int


@lru_cache(maxsize=4)
def rows_of(segments: tuple[tuple[int, ...], ...], device: torch.device) -> Rows:
    """The rows of a pack's segments, as in `attention`: (document,) or (stem, branch, …)."""
    keys: list[int] = []
    query_sizes: list[int] = []
    key_sizes: list[int] = []
    start = 0
    for stem, *branches in segments:
        seen = range(start, start + stem)
        for before, length in ((range(0), stem), *((seen, length) for length in branches)):
            keys += [*before, *range(start, start + length)]
            query_sizes.append(length)
            key_sizes.append(len(before) + length)
            start += length
    has_stems = any(len(segment) > 1 for segment in segments)
    return Rows(
        torch.tensor(keys, device=device) if has_stems else None,
        _ends(query_sizes, device),
        _ends(key_sizes, device),
        max(query_sizes),
        max(key_sizes),
    )


def _ends(sizes: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *sizes], device=device).cumsum(0).to(torch.int32)


def is_taken(query: Tensor) -> bool:
    """Whether the kernel takes queries (H, T, D) of this device, precision and width."""
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    fits = query.shape[-1] % 8 == 0 and query.shape[-1] <= LARGEST_HEAD
    return fits and torch.cuda.get_device_capability(query.device) >= SMALLEST_CAPABILITY


def attend_rows(query: Tensor, key: Tensor, value: Tensor, rows: Rows, scaling: float, window: int | None) -> Tensor:
    """query (H, T, D), key and value (H_kv, T, D) of a pack → (T, H, D)."""
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (states.transpose(0, 1).contiguous() for states in (query, key, value))
    if rows.keys is not None:
        key, value = key.index_select(0, rows.keys), value.index_select(0, rows.keys)
    mixed = varlen_attn(
        query,
        key,
        value,
        rows.query_ends,
        rows.key_ends,
        rows.longest_query,
        rows.longest_key,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(mixed, Tensor)  # a tuple only where more was asked for
    return mixed
