"""Parts of a decoder layer computed as one function each, forward and backward, with nothing kept or copied that the
gradient of an adapter does not need.

A part is replaced only in classes whose computation is written out here, and only after it has given the same values
and gradients as the model's own code on random numbers; every other module keeps its own forward.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metier.models.attention import attend, attend_backward
from metier.models.blocks import Layout
from metier.models.linear import Layer, adapter_gradients, input_gradient, layers_of, linears, tensors_of

Act = tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]
"""(activation, (gradient of its value, input) → gradient of the input)"""

SILU: Act = (torch.ops.aten.silu, torch.ops.aten.silu_backward)
GELU_TANH: Act = (
    lambda x: torch.ops.aten.gelu(x, approximate="tanh"),
    lambda grad, x: torch.ops.aten.gelu_backward(grad, x, approximate="tanh"),
)
ACTIVATIONS = {"SiLU": SILU, "SiLUActivation": SILU, "GELUTanh": GELU_TANH, "PytorchGELUTanh": GELU_TANH}


class _Linear(torch.autograd.Function):
    """One layer alone: x (..., in) → (..., out)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scaling: float, *tensors: Tensor | None) -> Tensor:
        (layer,) = layers_of(tensors, [scaling])
        rows = x.reshape(-1, x.shape[-1])
        (out,), low = linears(rows, [layer])
        ctx.save_for_backward(rows, low, *tensors)
        ctx.scaling, ctx.shape = scaling, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        rows, low, *tensors = ctx.saved_tensors
        (layer,) = layers_of(tensors, [ctx.scaling])
        grad = grad_outputs[0].reshape(-1, len(layer.weight))
        grads, grad_low = adapter_gradients([grad], rows, [layer], low)
        grad_x = input_gradient([grad], [layer], grad_low).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return grad_x, None, *grads


def lora_linear(x: Tensor, layer: Layer) -> Tensor:
    """A linear layer with its LoRA, x (..., in) → (..., out)."""
    out: Tensor = _Linear.apply(x, layer.scaling, *tensors_of([layer]))  # type: ignore[no-untyped-call]
    return out


class _Mlp(torch.autograd.Function):
    """down(act(gate(x)) * up(x)): x (T, H) → (T, H)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, act: Act, scalings: Sequence[float], *tensors: Tensor | None) -> Tensor:
        gate, up, down = layers_of(tensors, scalings)
        (gated, raised), low = linears(x, [gate, up])
        inner = act[0](gated).mul_(raised)
        (out,), low_down = linears(inner, [down])
        ctx.save_for_backward(x, gated, raised, low, low_down, *tensors)
        ctx.act, ctx.scalings = act, scalings
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        x, gated, raised, low, low_down, *tensors = ctx.saved_tensors
        gate, up, down = layers_of(tensors, ctx.scalings)
        active = ctx.act[0](gated)
        inner = active * raised
        grad = grad_outputs[0].contiguous()
        grads_down, grad_low = adapter_gradients([grad], inner, [down], low_down)
        grad_inner = input_gradient([grad], [down], grad_low)
        grad_up = torch.mul(grad_inner, active, out=inner)
        grad_gate = ctx.act[1](grad_inner.mul_(raised), gated)
        grads, grad_low = adapter_gradients([grad_gate, grad_up], x, [gate, up], low)
        grad_x = input_gradient([grad_gate, grad_up], [gate, up], grad_low) if ctx.needs_input_grad[0] else None
        return grad_x, None, None, *grads, *grads_down


def fused_mlp(x: Tensor, act: Act, layers: Sequence[Layer]) -> Tensor:
    """down(act(gate(x)) * up(x)) of layers (gate, up, down): x (..., H) → (..., H)."""
    scalings = [layer.scaling for layer in layers]
    out: Tensor = _Mlp.apply(x.reshape(-1, x.shape[-1]), act, scalings, *tensors_of(layers))  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], -1)


class Heads(NamedTuple):
    """Width of the heads of an attention, the scale of its scores, its sliding window."""

    width: int
    scaling: float
    window: int | None


class _Attention(torch.autograd.Function):
    """o(attention(rotated q(x), rotated k(x), v(x))) within the documents of a pack: x (T, H) → (T, H).

    cos, sin: (T, width / 2), the rotation of each position.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        rule: tuple[Layout, Heads, Sequence[float]],
        *tensors: Tensor | None,
    ) -> Tensor:
        layout, heads, scalings = rule
        *layers, out_layer = layers_of(tensors, scalings)
        outs, low = linears(x, layers)
        query, key, value = (rows.view(len(x), -1, heads.width) for rows in outs)
        _rotate(query, cos, sin)
        _rotate(key, cos, sin)
        mixed, kept = attend(query, key, value, layout, heads.scaling, heads.window)
        flat = mixed.view(len(x), -1)
        (out,), low_out = linears(flat, [out_layer])
        if not any(ctx.needs_input_grad):
            return out
        ctx.save_for_backward(x, cos, sin, query, key, value, flat, low, low_out, *tensors, *kept)
        ctx.rule, ctx.n_tensors = rule, len(tensors)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        x, cos, sin, query, key, value, flat, low, low_out, *rest = ctx.saved_tensors
        tensors, kept = rest[: ctx.n_tensors], rest[ctx.n_tensors :]
        layout, heads, scalings = ctx.rule
        *layers, out_layer = layers_of(tensors, scalings)
        grad = grad_outputs[0].contiguous()
        grads_out, grad_low = adapter_gradients([grad], flat, [out_layer], low_out)
        grad_mixed = input_gradient([grad], [out_layer], grad_low).view_as(query)
        grad_states = attend_backward(grad_mixed, (query, key, value), layout, kept, heads.scaling, heads.window)
        for rotated in grad_states[:2]:
            _rotate(rotated, cos, -sin)
        of_outs = [states.view(len(x), -1) for states in grad_states]
        grads, grad_low = adapter_gradients(of_outs, x, layers, low)
        grad_x = input_gradient(of_outs, layers, grad_low) if ctx.needs_input_grad[0] else None
        return grad_x, None, None, None, *grads, *grads_out


def fused_attention(
    x: Tensor, cos: Tensor, sin: Tensor, layout: Layout, heads: Heads, layers: Sequence[Layer]
) -> Tensor:
    """The attention of layers (q, k, v, o) within the documents of a pack: x (1, T, H) → (1, T, H)."""
    rule = (layout, heads, [layer.scaling for layer in layers])
    out: Tensor = _Attention.apply(x.reshape(-1, x.shape[-1]), cos, sin, rule, *tensors_of(layers))  # type: ignore[no-untyped-call]
    return out[None]


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotate the two halves of every head's width against each other, in place; -sin rotates back."""
    first, second = states.chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    turned = first * sin
    first.mul_(cos).addcmul_(second, sin, value=-1)
    second.mul_(cos).add_(turned)


class _RmsNorm(torch.autograd.Function):
    """x / sqrt(mean(x²) + eps) * gain over the last dimension; the gain is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, gain, scale)
        normed: Tensor = (x * scale).mul_(gain)
        return normed

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        x, gain, scale = ctx.saved_tensors
        grad = grad_outputs[0] * gain
        along = (grad * x).sum(-1, keepdim=True).mul_(scale.square() / x.shape[-1])
        return grad.addcmul_(x, along, value=-1).mul_(scale), None, None


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) * gain, x (..., H)."""
    out: Tensor = _RmsNorm.apply(x, gain, eps)  # type: ignore[no-untyped-call]
    return out
