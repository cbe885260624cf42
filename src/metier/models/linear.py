"""A frozen linear layer with its LoRA or without: what it computes, and the gradients of its adapter, as functions that
keep and copy nothing else."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

FEW_ROWS = 128
"""So few, as in a step of generation, are multiplied in the other order: on two AVX2 cores W x' takes two thirds of the
time of x W' at 64 rows, and the same at 512 (docs/log.md)."""


class Layer(NamedTuple):
    """A frozen linear layer, weight (out, in) and bias (out,), with its LoRA a (r, in) and b (out, r) or without."""

    weight: Tensor
    bias: Tensor | None
    a: Tensor | None
    b: Tensor | None
    scaling: float


def is_trained(weight: Tensor) -> bool:
    """Whether its own gradient is wanted, which the fused functions do not form."""
    return weight.requires_grad and torch.is_grad_enabled()


def is_plain(weight: Tensor) -> bool:
    """Whether it holds its numbers itself, all of them: no part of a weight that is divided over several processes."""
    return type(weight) in (Tensor, nn.Parameter)


def plain_layer(module: nn.Module) -> Layer | None:
    """What a linear layer computes, where that is x W' + b + s (x A') B' with W and b frozen; else None."""
    if type(module) is nn.Linear:
        return (
            None
            if is_trained(module.weight) or not is_plain(module.weight)
            else Layer(module.weight, module.bias, None, None, 0.0)
        )
    if not isinstance(module, LoraLinear) or type(module.base_layer) is not nn.Linear:
        return None
    base = module.base_layer
    if not is_plain(base.weight):
        return None
    if module.disable_adapters or module.merged:
        return Layer(base.weight, base.bias, None, None, 0.0)
    if len(module.lora_A) != 1 or is_trained(base.weight):
        return None
    name = next(iter(module.lora_A))
    no_dropout = isinstance(module.lora_dropout[name], nn.Identity)
    if not no_dropout or module.lora_variant or module.lora_bias[name] or module.fan_in_fan_out:
        return None
    a, b = module.lora_A[name].weight, module.lora_B[name].weight
    return Layer(base.weight, base.bias, a, b, module.scaling[name])


def tensors_of(layers: Sequence[Layer]) -> list[Tensor | None]:
    return [tensor for layer in layers for tensor in layer[:4]]


def layers_of(tensors: Sequence[Tensor | None], scalings: Sequence[float]) -> list[Layer]:
    """The layers whose tensors these are, in order."""
    each = iter(tensors)
    return [Layer(*four, s) for four, s in zip(zip(each, each, each, each, strict=True), scalings, strict=True)]  # type: ignore[arg-type]


def linears(x: Tensor, layers: Sequence[Layer], outs: Sequence[Tensor]) -> Tensor | None:
    """Write each layer of x (T, in) into its out (T, out); returns x A' for the gradients, (T, their ranks in turn).

    What is thin is multiplied once for all the layers: a product of 48 columns takes less than two of 16 (docs/log.md).
    """
    for layer, out in zip(layers, outs, strict=True):
        _frozen(x, layer, out)
    down = _joined(layers)
    if down is None:
        return None
    low = x @ down.t()
    for layer, out, part in zip(layers, outs, _ranks(low, layers), strict=True):
        if layer.b is not None:
            out.addmm_(part, layer.b.t(), alpha=layer.scaling)
    return low


def _frozen(x: Tensor, layer: Layer, out: Tensor) -> None:
    """Write x W' + b into out."""
    if len(x) <= FEW_ROWS and x.device.type == "cpu":
        out.copy_(torch.mm(layer.weight, x.t()).t())
        if layer.bias is not None:
            out.add_(layer.bias)
    elif layer.bias is None:
        torch.mm(x, layer.weight.t(), out=out)
    else:
        torch.addmm(layer.bias, x, layer.weight.t(), out=out)


def linears_backward(
    grads: Sequence[Tensor], x: Tensor, layers: Sequence[Layer], low: Tensor | None, grad_x: Tensor | None
) -> list[Tensor | None]:
    """The gradients of `tensors_of(layers)`; that of x is added to grad_x where one is given.

    grads: (T, out) of each layer; x (T, in).
    """
    if grad_x is not None:
        for layer, grad in zip(layers, grads, strict=True):
            grad_x.addmm_(grad, layer.weight)
    down = _joined(layers)
    if low is None or down is None:
        return [None for _ in tensors_of(layers)]
    grad_low = torch.empty_like(low)
    of_b: list[Tensor | None] = []
    for layer, grad, part, into in zip(layers, grads, _ranks(low, layers), _ranks(grad_low, layers), strict=True):
        if layer.b is None:
            of_b.append(None)
            continue
        of_b.append((grad.t() @ part).mul_(layer.scaling))
        torch.mm(grad, layer.b, out=into).mul_(layer.scaling)
    if grad_x is not None:
        grad_x.addmm_(grad_low, down)
    of_a = _ranks(x.t() @ grad_low, layers)
    found: list[Tensor | None] = []
    for a, b in zip(of_a, of_b, strict=True):
        found += [None, None, None if b is None else a.t(), b]
    return found


def _joined(layers: Sequence[Layer]) -> Tensor | None:
    """(their ranks, in): the a of all layers that have one, one below the other."""
    found = [layer.a for layer in layers if layer.a is not None]
    return found[0] if len(found) == 1 else torch.cat(found) if found else None


def _ranks(columns: Tensor, layers: Sequence[Layer]) -> tuple[Tensor, ...]:
    """The columns of each layer's rank, none for a layer without LoRA."""
    return torch.split(columns, [0 if layer.a is None else len(layer.a) for layer in layers], dim=1)
