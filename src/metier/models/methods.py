"""The methods of training: which weights are trained, where they start, and a fully trained model at a dial."""

import warnings
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from transformers import PreTrainedModel

from metier.errors import ModelError
from metier.models.token_rows import TIED, Pieces, lora_options, make_room, start_rows, tokens_config

SVD_ROUNDS = 16  # of subspace iteration for PiSSA, as its authors use


def add_method(
    model: PreTrainedModel,
    method: str,
    r: int,
    alpha: int,
    seed: int,
    top_layers: int = 0,
    new_tokens: Pieces | None = None,
) -> PeftModel | PreTrainedModel:
    """Make the weights of `method` trainable: all of the model for 'full', else an adapter's, in float32, and the base
    left as it is.

    top_layers: adapters on that many of the uppermost layers only; 0 for all. new_tokens: their rows are trained too,
    or alone with 'tokens'.

    Raises:
        ModelError: the architecture cannot take the method, or has fewer layers.
    """
    if method == "full":
        return model.requires_grad_(True)
    torch.manual_seed(seed)
    n_base_rows = make_room(model, new_tokens) if new_tokens else 0
    config: PeftConfig
    if method == "tokens":
        config = tokens_config(model, new_tokens or {})
    else:
        n_ranks = 2 if method == "pissa" else 1
        config = LoraConfig(
            r=n_ranks * r,
            lora_alpha=n_ranks * alpha,
            use_rslora=method == "rslora",
            use_dora=method == "dora",
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
            **_targets(model, top_layers),
            **(lora_options(model, new_tokens) if new_tokens else {}),
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", TIED)
            adapted = get_peft_model(model, config)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"{type(model).__name__} cannot take {method} ({error}): choose another --method or model."
        ) from error
    if method == "pissa":
        for module in adapted.modules():
            if isinstance(module, LoraLinear):
                _start_from_principal_components(module, r)
    if new_tokens:
        start_rows(adapted, new_tokens, n_base_rows)
    return adapted


def _targets(model: PreTrainedModel, top_layers: int) -> dict[str, Any]:
    if not top_layers:
        return {"target_modules": "all-linear"}
    name, layers = decoder_layers(model)
    linear = {
        path.rpartition(".")[2]
        for path, module in layers.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    }
    n_lower = n_frozen_layers(model, top_layers)
    return {
        "target_modules": sorted(linear),
        "layers_to_transform": list(range(n_lower, len(layers))),
        "layers_pattern": name.rpartition(".")[2],
    }


def decoder_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """(name, layers) of the stack of decoder layers, the lowest first.

    Raises:
        ModelError: the model keeps them in some other way.
    """
    wanted = model.config.get_text_config().num_hidden_layers  # type: ignore[union-attr, operator]
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return name, module
    raise ModelError(f"{type(model).__name__} has no list of layers to choose from: leave out --top-layers.")


def n_frozen_layers(model: nn.Module, top_layers: int) -> int:
    """How many layers lie below the adapted ones.

    Raises:
        ModelError: more layers are asked for than there are.
    """
    n_layers = len(decoder_layers(model)[1])
    if top_layers > n_layers:
        raise ModelError(f"--top-layers {top_layers}: {type(model).__name__} has {n_layers} layers here, name fewer.")
    return n_layers - top_layers


def _start_from_principal_components(layer: LoraLinear, r: int) -> None:
    """PiSSA within a plain LoRA of twice the rank: W + s (B A - B0 A0).

    The first r ranks start from the largest singular values of W and are trained; the others hold the same start,
    negated, and get no gradient. So W itself is never touched: switched off the model is its base, the dial is linear,
    and what PEFT saves is a LoRA for the original base.
    """
    (name,) = layer.lora_A
    weight = layer.base_layer.weight
    if not weight.is_floating_point():
        raise ModelError(f"PiSSA needs weights that are floating-point numbers, not {weight.dtype}: use --method lora.")
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    with torch.no_grad():
        matrix = (weight.T if layer.fan_in_fan_out else weight).float()
        r = min(r, *matrix.shape)
        # More columns than are kept, or those near the cut would not be told from the next ones.
        u, s, v = torch.svd_lowrank(matrix, q=min(2 * r + 16, *matrix.shape), niter=SVD_ROUNDS)
        root = torch.sqrt(s[:r] / layer.scaling[name])
        half = len(a) // 2
        a.zero_()
        b.zero_()
        a[:r] = a[half : half + r] = root[:, None] * v[:, :r].T
        b[:, :r] = u[:, :r] * root
        b[:, half : half + r] = -b[:, :r]
    a.register_hook(lambda grad: _first(grad, half, dim=0))
    b.register_hook(lambda grad: _first(grad, half, dim=1))


def _first(grad: Tensor, n: int, dim: int) -> Tensor:
    kept = grad.clone()
    kept.narrow(dim, n, grad.shape[dim] - n).zero_()
    return kept


def n_trained(model: nn.Module, method: str) -> int:
    """How many numbers are trained."""
    n = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    n_kept = sum(size for name, size in n.items() if "lora_" in name) // 2 if method == "pissa" else 0
    return sum(n.values()) - n_kept  # half of PiSSA's is the start, which stays


@torch.no_grad()
def turn(trained: PreTrainedModel, base: PreTrainedModel, dial: float) -> None:
    """Move every weight of `trained` to base + dial (trained - base), norms and embeddings too."""
    if dial == 1:
        return
    originals = dict(base.named_parameters())  # tied weights are there once
    for name, parameter in trained.named_parameters():
        parameter.copy_(torch.lerp(originals[name].to(parameter.dtype), parameter, dial))
