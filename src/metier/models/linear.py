"""A frozen linear layer with its LoRA or without: what it computes, and the gradients of its adapter, as functions that
keep and copy nothing else."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from metier.models import onednn

FEW_ROWS = 128
"""So few, as in a step of generation, MKL multiplies in the other order, but on Intel's own processors: on two AVX2
cores of AMD W x' takes two thirds of the time of x W' at 64 rows, and the same at 512 (docs/log.md)."""


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


def linears(x: Tensor, layers: Sequence[Layer]) -> tuple[list[Tensor], Tensor | None]:
    """(each layer of x (T, in): (T, out); x A' for the gradients: (T, their ranks in turn)).

    What is thin is multiplied once for all the layers: a product of 48 columns takes less than two of 16 (docs/log.md).
    """
    outs = [product(x, layer.weight, layer.bias) for layer in layers]
    down = _joined(layers)
    if down is None:
        return outs, None
    low = product(x, down)
    for layer, out, part in zip(layers, outs, _ranks(low, layers), strict=True):
        if layer.b is not None:
            out.addmm_(part, layer.b.t(), alpha=layer.scaling)
    return outs, low


def adapter_gradients(
    grads: Sequence[Tensor], x: Tensor, layers: Sequence[Layer], low: Tensor | None
) -> tuple[list[Tensor | None], Tensor | None]:
    """(the gradients of `tensors_of(layers)`, that of the x A' of all layers: (T, their ranks in turn)).

    grads: (T, out) of each layer; x (T, in).
    """
    if low is None:
        return [None for _ in tensors_of(layers)], None
    of_b: list[Tensor | None] = []
    parts: list[Tensor] = []
    for layer, grad, part in zip(layers, grads, _ranks(low, layers), strict=True):
        if layer.b is None:
            of_b.append(None)
            continue
        of_b.append(_summed_over_rows(part, grad).mul_(layer.scaling).t())
        parts.append(product(grad, layer.b.t()).mul_(layer.scaling))
    grad_low = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    of_a = _ranks(_summed_over_rows(grad_low, x).t(), layers)
    found: list[Tensor | None] = []
    for a, b in zip(of_a, of_b, strict=True):
        found += [None, None, None if b is None else a.t(), b]
    return found, grad_low


def input_gradient(grads: Sequence[Tensor], layers: Sequence[Layer], grad_low: Tensor | None) -> Tensor:
    """The gradient of the x (T, in) of layers; grads, grad_low as of `adapter_gradients`."""
    total = product(grads[0], layers[0].weight.t())
    for layer, grad in zip(layers[1:], grads[1:], strict=True):
        total = product(grad, layer.weight.t(), added=total)
    down = _joined(layers)
    return total if down is None or grad_low is None else total.addmm_(grad_low, down)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, added: Tensor | None = None) -> Tensor:
    """x (T, in) times weight (out, in) transposed, plus bias (out,) or plus added (T, out), whose memory it may take:
    (T, out)."""
    if onednn.is_for_layers() and onednn.takes(x, weight):
        return onednn.linear(x, weight, bias, added)
    if added is not None:
        return added.addmm_(x, weight.t())
    if len(x) > FEW_ROWS or onednn.is_intel():
        return nn.functional.linear(x, weight, bias)
    out = torch.mm(weight, x.t()).t().contiguous()
    return out if bias is None else out.add_(bias)


def _summed_over_rows(low: Tensor, rows: Tensor) -> Tensor:
    """low' (r, T) times rows (T, n): (r, n)."""
    if onednn.is_for_layers() and onednn.takes(turned := low.t().contiguous(), rows.t()):
        return onednn.linear(turned, rows.t())
    return torch.mm(low.t(), rows)  # the other order takes MKL twice the time (docs/log.md)


def _joined(layers: Sequence[Layer]) -> Tensor | None:
    """(their ranks, in): the a of all layers that have one, one below the other."""
    found = [layer.a for layer in layers if layer.a is not None]
    return found[0] if len(found) == 1 else torch.cat(found) if found else None


def _ranks(columns: Tensor, layers: Sequence[Layer]) -> tuple[Tensor, ...]:
    """The columns of each layer's rank, none for a layer without LoRA."""
    return torch.split(columns, [0 if layer.a is None else len(layer.a) for layer in layers], dim=1)
