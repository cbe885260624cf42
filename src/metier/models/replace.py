"""Which parts of a model compute through the fused functions, and the proof that must come first.

Every class named here computes what its fused function does; that is still tried on random numbers, value and
gradient, on the first module of the class in each model. What is not named, or does not agree, keeps its own forward.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from metier.models import attention
from metier.models.fused import ACTIVATIONS, Heads, fused_attention, fused_mlp, lora_linear, rms_norm
from metier.models.linear import FEW_ROWS, Layer, is_plain, is_trained, plain_layer
from metier.models.onednn import weight_times

NORM_OFFSETS = {  # what is added to the weight
    "LlamaRMSNorm": 0.0,
    "MistralRMSNorm": 0.0,
    "Qwen2RMSNorm": 0.0,
    "Qwen3RMSNorm": 0.0,
    "Phi3RMSNorm": 0.0,
    "Gemma3RMSNorm": 1.0,
}
MLPS = {"LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP", "Gemma3MLP"}
ATTENTIONS = {"LlamaAttention", "MistralAttention", "Qwen2Attention"}
CLOSE = 1e-5  # of a value, and of the size of all; norms compute in float32 whatever they are given
TRIED_SEGMENTS = ((3, 4, 2), (5,))  # a stem with two branches, and a document


def replace_forwards(model: nn.Module) -> frozenset[str]:
    """Replace what can be replaced, in place; returns the names of the classes that were.

    The fused functions are written for a CPU and float32: elsewhere a model keeps its own, which a compiler can read.
    """
    if not _is_written_for(model):
        return frozenset()
    agreed: dict[type, bool] = {}
    _replace_head(model)
    for module in model.modules():
        fused = _fused_forward(module)
        if fused is None:
            continue
        kind = type(module)
        if kind not in agreed:
            agreed[kind] = _agrees(module, fused)
        if agreed[kind]:
            module.forward = fused.__get__(module)
    return frozenset(kind.__name__ for kind, agrees in agreed.items() if agrees)


def own_forwards(model: nn.Module, replaced: frozenset[str]) -> list[str]:
    """Names of the classes of the parts of `model`'s layers (attention, MLP, norms) that compute through their own
    forward as their weights are now, in order; `replaced` is what `replace_forwards` returned. None where no model has
    another."""
    if not _is_written_for(model):
        return []
    parts = (
        part
        for layers in model.modules()
        if isinstance(layers, nn.ModuleList)
        for layer in layers
        for part in layer.children()
        if any(True for _ in part.parameters())
    )
    with torch.enable_grad():
        found = {type(part).__name__ for part in parts if type(part).__name__ not in replaced or not _can_fuse(part)}
    return sorted(found)


def _is_written_for(model: nn.Module) -> bool:
    return all(p.device.type == "cpu" and p.dtype == torch.float32 for p in model.parameters())


def _can_fuse(module: Any) -> bool:
    """Whether the fused function of a replaced part takes over, or stands back for what its weights are."""
    name = type(module).__name__
    if name in NORM_OFFSETS:
        return is_plain(module.weight) and not is_trained(module.weight)
    if name in MLPS:
        return _plain_layers(module.gate_proj, module.up_proj, module.down_proj) is not None
    if name in ATTENTIONS:
        return _plain_layers(module.q_proj, module.k_proj, module.v_proj, module.o_proj) is not None
    return plain_layer(module) is not None


def _fused_forward(module: nn.Module) -> Callable[..., Any] | None:
    name = type(module).__name__
    if isinstance(module, LoraLinear):
        return _lora_forward if plain_layer(module) is not None else None
    if name in NORM_OFFSETS:
        return _norm_forward
    if name in MLPS:
        return _mlp_forward if type(module.act_fn).__name__ in ACTIVATIONS else None
    if name in ATTENTIONS:
        config: Any = module.config
        return _attention_forward if config._attn_implementation == attention.NAME else None
    return None


def _own(module: nn.Module) -> Callable[..., Any]:
    """The forward of the module's class, which a replaced one falls back on."""
    forward: Callable[..., Any] = type(module).forward.__get__(module)
    return forward


def _plain_layers(*modules: nn.Module) -> list[Layer] | None:
    """The layers of all the modules, or None where one of them computes something else."""
    layers = [layer for layer in map(plain_layer, modules) if layer is not None]
    return layers if len(layers) == len(modules) else None


def _lora_forward(self: LoraLinear, x: Tensor) -> Any:
    layer = plain_layer(self)
    return _own(self)(x) if layer is None else lora_linear(x, layer)


def _replace_head(model: Any) -> None:
    """What makes logits of hidden states, where it is a linear layer and no more."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if type(head) is nn.Linear:
        head.forward = _head_forward.__get__(head)  # type: ignore[method-assign]


def _head_forward(self: Any, x: Tensor) -> Any:
    """As it is, but for the order of the product where rows are few."""
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) > FEW_ROWS or self.bias is not None or not is_plain(self.weight):
        return _own(self)(x)
    return weight_times(self.weight, rows).t().contiguous().view(*x.shape[:-1], -1)


def _norm_forward(self: Any, hidden_states: Tensor) -> Any:
    in_16_bits = hidden_states.dtype.itemsize < 4
    if is_trained(self.weight) or not is_plain(self.weight) or in_16_bits:
        return _own(self)(hidden_states)
    offset = NORM_OFFSETS[type(self).__name__]
    eps = self.eps if hasattr(self, "eps") else self.variance_epsilon
    return rms_norm(hidden_states, self.weight + offset if offset else self.weight, eps)


def _mlp_forward(self: Any, x: Tensor) -> Any:
    layers = _plain_layers(self.gate_proj, self.up_proj, self.down_proj)
    if layers is None:
        return _own(self)(x)
    return fused_mlp(x, ACTIVATIONS[type(self.act_fn).__name__], layers)


def _attention_forward(
    self: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    layout = attention.current_layout()
    layers = _plain_layers(self.q_proj, self.k_proj, self.v_proj, self.o_proj)
    if (
        layout is None
        or layers is None
        or position_embeddings is None
        or position_embeddings[0].shape[-1] != self.head_dim
    ):
        return _own(self)(hidden_states, position_embeddings, *args, **kwargs)
    heads = Heads(self.head_dim, self.scaling, _window(self))
    cos, sin = (turn[0, :, : self.head_dim // 2] for turn in position_embeddings)
    return fused_attention(hidden_states, cos, sin, layout, heads, layers), None


def _window(module: Any) -> int | None:
    """The sliding window, which the classes of ATTENTIONS keep in two places."""
    window: int | None = (
        module.sliding_window if hasattr(module, "sliding_window") else getattr(module.config, "sliding_window", None)
    )
    return window


def _agrees(module: nn.Module, fused: Callable[..., Any]) -> bool:
    """Whether value and gradients on random numbers are those of the module's own forward.

    In float64: in float32 the softmax of a first layer, whose scores on random numbers are in the thousands, differs in
    its fourth digit by rounding alone, and whether that passed depended on the processor (docs/log.md).
    """
    tried = _in_float64(module)
    generator = torch.Generator().manual_seed(0)
    n_tokens = sum(map(sum, TRIED_SEGMENTS))
    x = torch.randn(1, n_tokens, _width(tried), generator=generator, dtype=torch.float64)
    arguments: tuple[Any, ...] = ()
    if type(module).__name__ in ATTENTIONS:
        angle = torch.randn(1, n_tokens, tried.head_dim // 2, generator=generator, dtype=torch.float64).repeat(1, 1, 2)
        arguments = ((angle.cos(), angle.sin()), None)
    with torch.enable_grad(), attention.packed(TRIED_SEGMENTS):
        found, expected = (
            list(_value_and_gradients(forward, tried, x, arguments)) for forward in (fused.__get__(tried), _own(tried))
        )
    return all(_is_close(a, b) for a, b in zip(found, expected, strict=True))


def _in_float64(module: Any) -> Any:
    """A copy of which only LoRA asks for gradients, as a fused function stands back where its weights do; with a B that
    is not zero, as it is before training: the gradient of A would be zero as well, whatever computed it."""
    copied = deepcopy(module).double()
    for name, parameter in copied.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and "lora_" in name)
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
    return copied


def _is_close(found: Tensor, expected: Tensor) -> bool:
    """Beside the root mean square of the values: a model's MLP may make thousands of random numbers of unit size."""
    size = float(expected.square().mean().sqrt())
    return torch.allclose(found, expected, rtol=CLOSE, atol=CLOSE * size)


def _width(module: Any) -> int:
    if isinstance(module, LoraLinear):
        return int(module.in_features)
    linear = getattr(module, "q_proj", None) or getattr(module, "gate_proj", None)
    return int(linear.in_features if linear is not None else len(module.weight))


def _value_and_gradients(
    forward: Callable[..., Any], module: nn.Module, x: Tensor, arguments: tuple[Any, ...]
) -> Iterator[Tensor]:
    """The gradients are those along a random direction, the same whatever the value: its rounding stays small."""
    x = x.clone().requires_grad_()
    out = forward(x, *arguments)
    value = out[0] if isinstance(out, tuple) else out
    direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(1)).to(value)
    trained = [p for p in module.parameters() if p.requires_grad]
    yield value.detach()
    yield from torch.autograd.grad(value, [x, *trained], direction)
