"""How the queries of a pack are cut into blocks, and which blocks are multiplied as one batch."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK_QUERIES = 64  # of a document, about: a block skips the keys after its last query
MOST_PADDED = 1.05  # pairs computed of a batch, beside those of its blocks each alone

Segment = tuple[int, ...]
"""Lengths in tokens: (document,) or (stem, branch, branch, ...), where each branch sees the stem and itself only."""


class Block(NamedTuple):
    """The last n_queries tokens of `own`, which see the stem's keys and those of their document up to themselves.

    stem: of the pack, empty where there is none · own: from the start of the document to the last query
    """

    stem: range
    own: range
    n_queries: int

    @property
    def queries(self) -> range:
        return self.own[len(self.own) - self.n_queries :]

    @property
    def n_past(self) -> int:
        """Keys before the first query."""
        return len(self.stem) + len(self.own) - self.n_queries


class Group(NamedTuple):
    """Blocks with as many keys before their first query, so that one mask serves all, longest first.

    Shorter ones are filled up with their last token: those queries are dropped, and no other sees those keys.
    """

    blocks: tuple[Block, ...]

    @property
    def n_queries(self) -> int:
        return self.blocks[0].n_queries

    @property
    def n_past(self) -> int:
        return self.blocks[0].n_past

    @property
    def n_keys(self) -> int:
        return self.n_past + self.n_queries

    @property
    def n_pairs(self) -> int:
        return len(self.blocks) * self.n_queries * self.n_keys


class BatchRows(NamedTuple):
    """Where the batches' rows stand in a matrix of n_kv rows a token, those of one token one below the other.

    queries  (N,): of every group, block, head and query in turn
    spans    where each group stands among the N
    filling  those of N that only fill a block up
    places   (T * n_kv,): where each row of the matrix stands among the N
    keys     of each group: of every block, head and key in turn
    """

    queries: Tensor
    spans: tuple[slice, ...]
    filling: Tensor
    places: Tensor
    keys: tuple[Tensor, ...]


class Layout:
    """The segments of a pack and the groups of blocks that cover them: every query stands in exactly one block."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        self.groups = groups_of(blocks_of(segments))
        self._rows: dict[tuple[int, torch.device], BatchRows] = {}

    def rows(self, n_kv: int, device: torch.device) -> BatchRows:
        """Made once for all layers that have so many key heads."""
        key = (n_kv, device)
        if key not in self._rows:
            self._rows[key] = _batch_rows(self.groups, sum(map(sum, self.segments)), n_kv, device)
        return self._rows[key]


def blocks_of(segments: Sequence[Segment]) -> Iterator[Block]:
    start = 0
    for n_stem, *branches in segments:
        stem = range(start, start + n_stem)
        yield from _blocks_behind(range(0), start, n_stem)
        start += n_stem
        for length in branches:
            yield from _blocks_behind(stem, start, length)
            start += length


def _blocks_behind(stem: range, start: int, length: int) -> Iterator[Block]:
    """Cut at the same places in every document, so that blocks of several can be one group; the last one takes the rest
    of the document where that is less than half of a block."""
    n_blocks = max(1, (length + BLOCK_QUERIES // 2) // BLOCK_QUERIES) if length else 0
    edges = [*(BLOCK_QUERIES * i for i in range(n_blocks)), length]
    for first, last in pairwise(edges):
        yield Block(stem, range(start, start + last), last - first)


def groups_of(blocks: Iterable[Block]) -> tuple[Group, ...]:
    """Each takes the longest blocks that are left, for as long as filling the shorter ones up costs little."""
    groups: list[Group] = []
    n_needed = 0  # pairs of the last group's blocks, each alone
    for block in sorted(blocks, key=lambda b: (b.n_past, -b.n_queries)):
        alone = Group((block,))
        if groups and groups[-1].n_past == block.n_past:
            joined = Group((*groups[-1].blocks, block))
            if joined.n_pairs <= MOST_PADDED * (n_needed + alone.n_pairs):
                groups[-1] = joined
                n_needed += alone.n_pairs
                continue
        groups.append(alone)
        n_needed = alone.n_pairs
    return tuple(groups)


def _batch_rows(groups: Sequence[Group], n_tokens: int, n_kv: int, device: torch.device) -> BatchRows:
    heads = torch.arange(n_kv)[:, None]
    queries, is_filling, keys, spans = [], [], [], []
    start = 0
    for group in groups:
        of_keys = []
        for block in group.blocks:
            n_filling = group.n_queries - block.n_queries
            own = torch.arange(block.own.start, block.own.stop + n_filling).clamp_(max=block.own.stop - 1)
            queries.append((own[-group.n_queries :] * n_kv + heads).flatten())
            is_filling.append((torch.arange(group.n_queries) >= block.n_queries).repeat(n_kv))
            seen = torch.cat((torch.arange(block.stem.start, block.stem.stop), own))
            of_keys.append((seen * n_kv + heads).flatten())
        keys.append(torch.cat(of_keys).to(device))
        end = start + len(group.blocks) * n_kv * group.n_queries
        spans.append(slice(start, end))
        start = end
    all_queries, filling = torch.cat(queries), torch.cat(is_filling)
    places = torch.empty(n_tokens * n_kv, dtype=torch.int64)
    places[all_queries[~filling]] = torch.nonzero(~filling).flatten()
    filled = torch.nonzero(filling).flatten().to(device)
    return BatchRows(all_queries.to(device), tuple(spans), filled, places.to(device), tuple(keys))
