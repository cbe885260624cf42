"""Floating-point operations that training and scoring cannot do without: the products of the linear layers.

For a linear layer of n_in x n_out with LoRA of rank r, one token costs

    forward                      2 n_in n_out + 2 r (n_in + n_out)
    gradient of its input        2 n_in n_out + 2 r (n_in + n_out)
    gradients of A and B                        2 r (n_in + n_out)
    gradient of its own weight   2 n_in n_out, where that is trained

and the head 2 n_in V forward and as much for the gradient of its input, at supervised positions only. Layers below the
lowest trained block have no backward pass; the layers that read that block's input need no gradient of it unless
embeddings are trained, and save 2 n_in (n_out + r). Attention, norms and activations are left out: what they take
counts against the share of the limit.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

# Projections that read what enters their block.
READ_BLOCK_INPUT = {"q_proj", "k_proj", "v_proj", "qkv_proj", "c_attn", "query_key_value"}


@dataclass(frozen=True)
class Linear:
    """One shape of linear layers and what is computed for it; rank 0 without LoRA."""

    n_in: int
    n_out: int
    rank: int = 0
    has_backward: bool = True
    input_gradient: bool = True
    weight_gradient: bool = False

    def flops(self, training: bool) -> int:
        """Of one token."""
        full, low = 2 * self.n_in * self.n_out, 2 * self.rank * (self.n_in + self.n_out)
        total = full + low
        if training and self.has_backward:
            total += full + 2 * low + (full if self.weight_gradient else 0)
            if not self.input_gradient:
                total -= full + 2 * self.rank * self.n_in
        return total


@dataclass(frozen=True)
class Products:
    """The linear layers of a model, and its head."""

    layers: Mapping[Linear, int]
    head: Linear

    def flops(self, n_tokens: int, n_supervised: int, training: bool) -> int:
        """Of n_tokens that are computed (`Pack.n_tokens`), n_supervised of which predict."""
        body = sum(n * layer.flops(training) for layer, n in self.layers.items())
        return n_tokens * body + n_supervised * self.head.flops(training)


def products(model: Any) -> Products:
    """The products of a causal language model as it stands, PEFT's adapters included."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    head = inner.get_output_embeddings()
    modules = dict(_linear_modules(inner, head))
    trained = {name for name, module in modules.items() if _is_trained(module)}
    lowest = min((_block(name) for name in trained), default=None)
    embeds = inner.get_input_embeddings().weight.requires_grad
    layers: Counter[Linear] = Counter()
    for name, module in modules.items():
        n_in, n_out = _size(module)
        first = _block(name) == lowest and not embeds
        layers[
            Linear(
                n_in,
                n_out,
                rank=_rank(module),
                has_backward=lowest is not None and _block(name) >= lowest,
                input_gradient=not (first and name.rpartition(".")[2] in READ_BLOCK_INPUT),
                weight_gradient=_weight(module).requires_grad,
            )
        ] += 1
    n_in, n_out = _size(head)
    trained_head = head.weight.requires_grad
    return Products(layers, Linear(n_in, n_out, has_backward=lowest is not None, weight_gradient=trained_head))


def _linear_modules(model: nn.Module, head: nn.Module) -> list[tuple[str, Any]]:
    """Linear layers by name, each wrapped one once and without the two matrices of its adapter."""
    found = []
    for name, module in model.named_modules():
        inside_adapter = ".base_layer" in name or ".lora_" in name
        if isinstance(module, (LoraLayer, nn.Linear, Conv1D)) and not inside_adapter and module is not head:
            found.append((name, module))
    return found


def _block(name: str) -> int:
    """The number of the block that a layer stands in; 0 outside the blocks."""
    number = re.search(r"\.(\d+)\.", name)
    return int(number[1]) if number else 0


def _weight(module: Any) -> Any:
    return module.get_base_layer().weight if isinstance(module, LoraLayer) else module.weight


def _rank(module: Any) -> int:
    return int(sum(module.r.values())) if isinstance(module, LoraLayer) else 0


def _is_trained(module: Any) -> bool:
    return any(p.requires_grad for p in module.parameters())


def _size(module: Any) -> tuple[int, int]:
    weight = _weight(module)
    layer = module.get_base_layer() if isinstance(module, LoraLayer) else module
    n_out, n_in = reversed(weight.shape) if isinstance(layer, Conv1D) else weight.shape
    return n_in, n_out
