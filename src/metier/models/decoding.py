"""The continuation of many prompts at once, token by token: the likeliest, or one that is sampled.

A loop of our own, for what it leaves out: keys and values have room for all tokens from the start (grown by joining,
they are copied whole at every token), and rows that have ended leave the batch.
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

DROP_SHARE = 0.75  # of the rows: when fewer still run, the others are dropped, which copies what is kept


class _Room(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, with room for `n_tokens` of every row."""

    def __init__(self, n_tokens: int) -> None:
        super().__init__()
        self.n_tokens, self.length = n_tokens, 0
        self._room: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """key_states, value_states: (B, H_kv, new tokens, D); returns those of all tokens so far."""
        if not self._room:
            self.lazy_initialization(key_states, value_states)
            self._room = [s.new_empty(*s.shape[:2], self.n_tokens, s.shape[3]) for s in (key_states, value_states)]
        last = self.length + key_states.shape[2]
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, self.length : last] = states
        self.length = last
        self.keys, self.values = (room[:, :, :last] for room in self._room)
        return self.keys, self.values

    def keep(self, rows: Tensor) -> None:
        self._room = [room[rows] for room in self._room]


@torch.no_grad()
def continue_all(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    ends: Collection[int],
    chances: Sequence[torch.Generator | None] = (),
) -> list[list[int]]:
    """Continuations up to and with one of the tokens that end them; prompts are padded on the left and the padding
    masked. chances: for each prompt a generator on the CPU, by which its tokens are sampled at temperature 1, or None,
    and they are the likeliest; without, all are."""
    longest = max(map(len, prompts))
    n_tokens = longest + max_new_tokens
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros(len(prompts), n_tokens, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    ending = torch.tensor(sorted(ends), dtype=torch.long, device=model.device)
    layers = [_Room(n_tokens) for _ in range(model.config.get_text_config().num_hidden_layers)]
    cache = Cache(layers=layers)
    continuations: list[list[int]] = [[] for _ in prompts]
    running = torch.arange(len(prompts), device=model.device)  # the prompt of each row
    open_rows = torch.ones(len(prompts), dtype=torch.bool, device=model.device)
    position_ids = (mask[:, :longest].cumsum(1) - 1).clamp(min=0)
    for length in range(longest, n_tokens):
        logits = model(
            input_ids=ids,
            attention_mask=mask[:, :length],
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        ids = logits.argmax(-1, keepdim=True)
        if chances:
            _sample(ids, logits, [chances[row] for row in running.tolist()])
        for row, token, is_open in zip(running.tolist(), ids[:, 0].tolist(), open_rows.tolist(), strict=True):
            if is_open:
                continuations[row].append(token)
        open_rows &= ~torch.isin(ids[:, 0], ending)
        if not bool(open_rows.any()):
            break
        position_ids = position_ids[:, -1:] + 1
        if int(open_rows.sum()) < DROP_SHARE * len(open_rows):
            kept = open_rows.nonzero()[:, 0]
            for layer in layers:
                layer.keep(kept)
            ids, mask, position_ids, running = ids[kept], mask[kept], position_ids[kept], running[kept]
            open_rows = open_rows[kept]
    return continuations


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
