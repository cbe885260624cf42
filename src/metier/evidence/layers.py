"""What changed inside: the weights of every decoder layer, and what leaves it on the field and on general text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from metier.evidence.score import Record
from metier.models.adapters import disabled, layer_of, layer_sizes
from metier.models.encoding import Encoded
from metier.models.methods import decoder_layers
from metier.models.packing import Pack, PackReader, divide, pack

READ_TOKENS = 256  # of each kind of text


def layer_changes(reader: PackReader, field: Sequence[Encoded], texts: Sequence[Encoded]) -> list[Record]:
    """One record a layer, the lowest first, for a model with an adapter: all three are sizes of a change relative to
    what was changed. weights: sqrt(sum |update|^2 / sum |W|^2) of the adapted layers within it; field, general: mean
    over tokens of |h' - h| / |h|, h the hidden state that leaves the layer."""
    moved = _weights_moved(reader.model, len(decoder_layers(reader.inner)[1]))
    of_field, of_texts = (_states_moved(reader, documents) for documents in (field, texts))
    return [
        {"layer": i + 1, "weights": weights, "field": on_field, "general": on_texts}
        for i, (weights, on_field, on_texts) in enumerate(zip(moved, of_field, of_texts, strict=True))
    ]


def _weights_moved(model: PeftModel, n_layers: int) -> list[float]:
    moved, total = [0.0] * n_layers, [0.0] * n_layers
    for name, update, weight in layer_sizes(model):
        number = layer_of(name)
        if number is not None:  # what is adapted outside of the layers has no place here
            moved[number] += update
            total[number] += weight
    return [(m / t) ** 0.5 if t else 0.0 for m, t in zip(moved, total, strict=True)]


@torch.no_grad()
def _states_moved(reader: PackReader, documents: Sequence[Encoded]) -> list[float]:
    numbered = (replace(d, item=str(i), rejected=()) for i, d in enumerate(documents))
    batch = pack(next(divide(numbered, READ_TOKENS)), with_end=False)
    with disabled(reader.model):
        before = _states(reader, batch)
    after = _states(reader, batch)
    return [float(((b - a).norm(dim=-1) / a.norm(dim=-1)).mean()) for a, b in zip(before, after, strict=True)]


def _states(reader: PackReader, batch: Pack) -> list[Tensor]:
    """(T, H) that leaves each decoder layer when the pack is read."""
    states: list[Tensor] = []
    with _heard(decoder_layers(reader.inner)[1], states):
        reader.states(batch)
    return states


@contextmanager
def _heard(layers: nn.ModuleList, states: list[Tensor]) -> Iterator[None]:
    def hear(_: nn.Module, __: Any, out: Any) -> None:
        states.append((out[0] if isinstance(out, tuple) else out)[0].float().cpu())

    hooks = [layer.register_forward_hook(hear) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
