"""The continuation of many prompts at once, token by token: the likeliest, or one that is sampled.

A loop of our own, for what it leaves out: what all prompts begin with (system prompt, template) is read once, and the
rest in groups of like length, so that little of it is padding; keys and values have room for all tokens from the start
(grown by joining, they are copied whole at every token); and rows that have ended leave the batch, by eights.
"""

from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

DROP_SHARE = 0.75  # of the rows: when fewer still run, the others are dropped, which copies what is kept
READ_AT_ONCE = 8  # prompts; the shortest of them is padded to the longest
ROW_MULTIPLE = 8
"""A batch of more than a few rows has a multiple of so many, the last of them copies: a product of 15 rows takes as
long as one of 32 (docs/log.md)."""


class _Room(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, with room for `n_tokens` of each of `n_rows`. The model reads and writes some rows,
    behind a number of tokens that they are taken to have (`stand`)."""

    def __init__(self, n_rows: int, n_tokens: int) -> None:
        super().__init__()
        self.n_rows, self.n_tokens = n_rows, n_tokens
        self._room: list[Tensor] = []

    def stand(self, rows: slice, length: int) -> None:
        """The next tokens are those of these rows, behind `length` others; 0 before any was read."""
        self.rows, self.length = rows, length
        if self._room:
            self.keys, self.values = (room[rows, :, :length] for room in self._room)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """key_states, value_states: (rows, H_kv, new tokens, D); returns those of all tokens so far."""
        if not self._room:
            self.lazy_initialization(key_states, value_states)
            # Zeros: what stands between the beginning and a short prompt is masked, and must be a number all the same.
            self._room = [
                s.new_zeros(self.n_rows, s.shape[1], self.n_tokens, s.shape[3]) for s in (key_states, value_states)
            ]
        last = self.length + key_states.shape[2]
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[self.rows, :, self.length : last] = states
        self.stand(self.rows, last)
        return self.keys, self.values

    def spread(self) -> None:
        """The tokens of the first row become those of all."""
        for room in self._room:
            room[1:, :, : self.length] = room[:1, :, : self.length]

    def keep(self, rows: Tensor) -> None:
        self._room = [room[rows] for room in self._room]
        self.stand(slice(None), self.length)


@torch.no_grad()
def continue_all(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    ends: Collection[int],
    chances: Sequence[torch.Generator | None] = (),
) -> list[list[int]]:
    """Continuations up to and with one of the tokens that end them. chances: for each prompt a generator on the CPU, by
    which its tokens are sampled at temperature 1, or None, and they are the likeliest; without, all are."""
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    n_copies = _n_rows(len(prompts)) - len(prompts)
    order += order[-1:] * n_copies  # of the shortest prompt
    longest = len(prompts[order[0]])
    n_tokens = longest + max_new_tokens
    ending = torch.tensor(sorted(ends), dtype=torch.long, device=model.device)
    layers = [_Room(len(order), n_tokens) for _ in range(model.config.get_text_config().num_hidden_layers)]
    cache = Cache(layers=layers)
    logits, mask, position_ids = _read(model, [prompts[row] for row in order], n_tokens, cache)
    continuations: list[list[int]] = [[] for _ in prompts]
    running = torch.tensor(order, device=model.device)  # the prompt of each row
    open_rows = torch.arange(len(order), device=model.device) < len(prompts)
    for length in range(longest + 1, n_tokens + 1):
        ids = logits.argmax(-1, keepdim=True)
        if chances:
            rows = zip(running.tolist(), open_rows.tolist(), strict=True)
            _sample(ids, logits, [chances[row] if is_open else None for row, is_open in rows])
        for row, token, is_open in zip(running.tolist(), ids[:, 0].tolist(), open_rows.tolist(), strict=True):
            if is_open:
                continuations[row].append(token)
        open_rows &= ~torch.isin(ids[:, 0], ending)
        if length == n_tokens or not bool(open_rows.any()):
            break
        position_ids = position_ids + 1
        n_kept = _n_rows(int(open_rows.sum()))
        if n_kept < DROP_SHARE * len(open_rows):
            kept = (~open_rows).int().sort(stable=True).indices[:n_kept]  # those that run, and some that have ended
            for layer in layers:
                layer.keep(kept)
            ids, mask, position_ids, running = ids[kept], mask[kept], position_ids[kept], running[kept]
            open_rows = open_rows[kept]
        logits = _logits(model, ids, mask[:, :length], position_ids, cache)
    return continuations


def _n_rows(n_running: int) -> int:
    """How many rows a batch has of which so many run."""
    return n_running if n_running <= ROW_MULTIPLE // 2 else -(-n_running // ROW_MULTIPLE) * ROW_MULTIPLE


def _read(model: Any, prompts: Sequence[Sequence[int]], n_tokens: int, cache: Cache) -> tuple[Tensor, Tensor, Tensor]:
    """Read the prompts, the longest first, into the cache, where all of them end at the same place; return the logits
    (B, V) behind them, the mask (B, n_tokens) and the position (B, 1) of their last token."""
    longest = len(prompts[0])
    n_stem = _n_stem(prompts, n_tokens, model.config.get_text_config())
    ids, mask = (torch.zeros(len(prompts), n, dtype=torch.long) for n in (longest, n_tokens))
    for row, prompt in enumerate(prompts):
        start = longest - len(prompt) + n_stem
        ids[row, :n_stem], ids[row, start:] = torch.tensor(prompt[:n_stem]), torch.tensor(prompt[n_stem:])
        mask[row, :n_stem] = mask[row, start:] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    positions = (mask[:, :longest].cumsum(1) - 1).clamp(min=0)

    def read(rows: slice, start: int, end: int) -> Tensor:
        for layer in cache.layers:
            layer.stand(rows, start)
        return _logits(model, ids[rows, start:end], mask[rows, :end], positions[rows, start:end], cache)

    if n_stem:
        read(slice(0, 1), 0, n_stem)
        for layer in cache.layers:
            layer.spread()
    logits = []
    for first in range(0, len(prompts), READ_AT_ONCE):
        start = longest - len(prompts[first]) + n_stem
        logits.append(read(slice(first, first + READ_AT_ONCE), start, longest))
    for layer in cache.layers:
        layer.stand(slice(None), longest)
    return torch.cat(logits), mask, positions[:, -1:]


def _n_stem(prompts: Sequence[Sequence[int]], n_tokens: int, config: Any) -> int:
    """How many tokens all prompts begin with, one of each left to read; none where a token may slide out of sight,
    which is counted by places, and padding behind the stem moves them."""
    window = getattr(config, "sliding_window", None)
    if len(prompts) == 1 or (window and window < n_tokens):
        return 0
    beginnings = zip(*(prompt[:-1] for prompt in prompts), strict=False)  # as far as the shortest goes
    return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, beginnings))


def _logits(model: Any, ids: Tensor, mask: Tensor, position_ids: Tensor, cache: Cache) -> Tensor:
    """(B, V), behind the last of the tokens."""
    logits: Tensor = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position_ids,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return logits


def _sample(ids: Tensor, logits: Tensor, chances: Sequence[torch.Generator | None]) -> None:
    """Put into `ids` (B, 1) what is sampled by logits (B, V), each row by its own generator, so that no prompt's answer
    depends on its neighbours'; a row without one stays."""
    rows = [row for row, own in enumerate(chances) if own is not None]
    if not rows:
        return
    probabilities = torch.softmax(logits[rows].float(), dim=-1).cpu()
    drawn = [
        torch.multinomial(likely, 1, generator=chances[row]) for row, likely in zip(rows, probabilities, strict=True)
    ]
    ids[rows] = torch.stack(drawn).to(ids.device)
