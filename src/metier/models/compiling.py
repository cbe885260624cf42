"""Decoder layers compiled for a GPU, and layers whose activations are made again in the backward pass."""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

from metier.models import attention
from metier.models.methods import decoder_layers
from metier.models.packing import PackReader, tried_packs

ROOM = 0.9  # of the free memory is planned with: allocators lose some between their blocks


def wants_recomputing(bytes_needed: int, bytes_free: int | None) -> bool:
    """Whether activations should be made again in the backward pass; bytes_needed: of training where all are kept;
    bytes_free: None where nobody knows."""
    return bytes_free is not None and bytes_needed > ROOM * bytes_free


def recompute_layers(model: Any) -> None:
    """Keep only what enters each decoder layer, while training: the same gradients for a third more arithmetic.

    model: a transformers model, without the wrapper of PEFT.
    """
    model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": attention.again})


def compile_layers(reader: PackReader, n_frozen: int = 0, backend: str = "inductor") -> str:
    """Compile the decoder layers above the lowest `n_frozen` and try them on a pack; returns why it could not be done,
    '' if it was. Where it could not, they are as before.

    Attention stays outside of what is compiled: the lengths of its documents change with every pack.
    """
    layers: list[nn.Module] = list(decoder_layers(reader.inner)[1])[n_frozen:]
    outside = torch.compiler.disable(attention.attention)  # type: ignore[no-untyped-call]
    AttentionInterface.register(attention.NAME, outside)
    for layer in layers:
        layer.compile(backend=backend, dynamic=True)
    try:
        _try(reader)
    except RuntimeError as error:
        for layer in layers:
            layer._compiled_call_impl = None
        AttentionInterface.register(attention.NAME, attention.attention)
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def _try(reader: PackReader) -> None:
    """Forwards and backwards as in training, or forwards alone where nothing is trained."""
    was_training = reader.model.training
    reader.model.train(any(p.requires_grad for p in reader.model.parameters()))
    try:
        for batch in tried_packs(reader.inner):
            total = reader.summed_nll(batch)
            if total.requires_grad:
                total.backward()  # type: ignore[no-untyped-call]
    finally:
        reader.model.zero_grad(set_to_none=True)
        reader.model.train(was_training)
