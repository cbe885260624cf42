"""Whether training fits the memory that is free, estimated from the config and said before the model is loaded."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from metier.errors import ModelError
from metier.models.flops import Products, products
from metier.models.loss import CHUNK_BYTES

RUNTIME_BYTES = 420_000_000  # Python, torch, transformers and peft, before any model
TRAINED_BYTES = 12  # beside each trained weight: its gradient and Adam's two moments
# Floats kept for the backward pass, for each input and output of a linear layer and each token: norms, attention and
# the gate keep theirs too. Measured on the embedded model at 1,024 tokens a pack.
KEPT_PER_FEATURE = 0.9
LOGITS_ALIVE = 2  # chunks of logits at one time: themselves and their probabilities
SMALLEST_PACK = 128


@dataclass(frozen=True)
class Memory:
    """Bytes of one training process, by what they are for."""

    runtime: int
    weights: int
    trained: int  # adapters, gradients, optimizer
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return sum(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True)
class Sizes:
    """What memory follows from, counted without loading the model."""

    n_parameters: int
    products: Products
    n_blocks: int
    width: int

    @property
    def adapter_parameters(self) -> int:
        return sum(n * layer.rank * (layer.n_in + layer.n_out) for layer, n in self.products.layers.items())

    @property
    def features(self) -> int:
        """Inputs and outputs of all linear layers but the head."""
        return sum(n * (layer.n_in + layer.n_out) for layer, n in self.products.layers.items())


def sizes_of(config: PreTrainedConfig, rank: int) -> Sizes:
    """Of a model with LoRA of this rank on every linear layer, from its config alone."""
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    n_parameters = sum(p.numel() for p in model.parameters())
    return Sizes(n_parameters, products(model, planned_rank=rank), text.num_hidden_layers, text.hidden_size)


def training_memory(
    sizes: Sizes, pack_tokens: int, method: str = "lora", weight_bytes: float = 4, checkpointing: bool = False
) -> Memory:
    """What training one pack of `pack_tokens` at a time takes.

    method: `full` trains every weight, any other the adapters. weight_bytes: of one weight of the base; what is
    trained has 4, and quantised weights compute in bfloat16. With `checkpointing` one block's activations are alive at
    a time, and the input of each.
    """
    n_trained = sizes.n_parameters if method == "full" else sizes.adapter_parameters
    kept = KEPT_PER_FEATURE * sizes.features
    if checkpointing:
        kept = kept / sizes.n_blocks + sizes.n_blocks * sizes.width
    return Memory(
        runtime=RUNTIME_BYTES,
        weights=round(sizes.n_parameters * (4 if method == "full" else weight_bytes)),
        trained=n_trained * (TRAINED_BYTES if method == "full" else 4 + TRAINED_BYTES),
        activations=round(kept * max(2.0, weight_bytes) * pack_tokens),
        logits=LOGITS_ALIVE * CHUNK_BYTES,
    )


def require_room(name: str, sizes: Sizes, pack_tokens: int, method: str, free: int | None) -> None:
    """free: bytes that this process, which has the runtime already, may still take; None when nobody knows.

    Raises:
        ModelError: training will not fit; the sentence names packs or a size of model that would.
    """
    needed = training_memory(sizes, pack_tokens, method)
    if free is None or needed.total - needed.runtime <= free:
        return
    problem = (
        f"{name} needs about {_gigabytes(needed.total - needed.runtime)} to train packs of {pack_tokens:,} tokens, "
        f"and {_gigabytes(free)} are free"
    )
    fixed = training_memory(sizes, 0, method)
    per_token = (needed.activations - fixed.activations) / pack_tokens
    fitting = int((free - (fixed.total - fixed.runtime)) / per_token) // SMALLEST_PACK * SMALLEST_PACK
    if fitting >= SMALLEST_PACK:
        raise ModelError(f"{problem}: give --pack-tokens {fitting}.")
    smallest = training_memory(sizes, SMALLEST_PACK, method)
    share = max(0.0, free - smallest.logits) / (smallest.total - smallest.runtime - smallest.logits)
    raise ModelError(
        f"{problem}, too few for any pack: choose a --model of at most {share * sizes.n_parameters / 1e6:.0f} million "
        "parameters."
    )


def _gigabytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
