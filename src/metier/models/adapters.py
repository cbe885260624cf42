"""Adapters as PEFT saves them: loaded, switched off, scaled, measured."""

import ctypes
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from metier.errors import ModelError
from metier.models.replace import replace_forwards
from metier.models.token_rows import TIED, Pieces, make_room, rows_moved, start_rows, turn_rows

LAYER_NUMBER = re.compile(r"\.(\d+)\.")
PRODUCTS_KEPT = 64  # compiled by oneDNN: those of two packs, about


@contextmanager
def disabled(model: PeftModel | PreTrainedModel) -> Iterator[None]:
    """Within it, the model is its base."""
    if isinstance(model, PeftModel):
        with model.disable_adapter():
            yield
    else:
        yield


def keep_memory() -> bool:
    """Ask glibc not to hand freed activations back to the system at every step, and oneDNN, which compiles a product
    for every shape, to keep few of them; True where glibc could be asked. To be called before the first product.

    Each step frees and allocates the same buffers; returned pages must be faulted in and zeroed again. 32 MiB is the
    largest threshold that glibc accepts for M_MMAP_THRESHOLD; -1 and -3 are M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of
    malloc.h. Packs are all of other lengths: the 1,024 products that oneDNN keeps by itself took 0.2 GB (docs/log.md).
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(PRODUCTS_KEPT))
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(-3, 32 * 2**20) and mallopt(-1, 2**31 - 1))


def weights_moved(model: PeftModel) -> float:
    """Size of the update relative to the weights it is added to: sqrt(sum |update|^2 / sum |W|^2) over adapted
    layers and trained rows."""
    moved, total = rows_moved(model)
    for _, update, weight in layer_sizes(model):
        moved, total = moved + update, total + weight
    return (moved / total) ** 0.5 if total else 0.0


@torch.no_grad()
def layer_sizes(model: PeftModel) -> Iterator[tuple[str, float, float]]:
    """(name, sum |update|^2, sum |W|^2) of every adapted layer."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            weight = dequantize_module_weight(module.base_layer).float()
            yield name, _update_squared(module, weight), float(weight.square().sum())


def _update_squared(layer: LoraLayer, weight: Tensor) -> float:
    name = next(iter(layer.lora_A))
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    if name not in layer.lora_magnitude_vector:
        # |BA|^2 = trace(B'B AA'), without forming BA
        return float(layer.scaling[name] ** 2 * ((b.T @ b) * (a @ a.T)).sum())
    weight = weight.T if layer.fan_in_fan_out else weight
    direction = weight + layer.scaling[name] * b @ a
    magnitude = layer.lora_magnitude_vector[name].weight
    return float((direction * (magnitude / direction.norm(dim=1))[:, None] - weight).square().sum())


def set_dial(model: PeftModel, dial: float) -> None:
    """Let the adapter add `dial` times what it was trained to add, for good: 0 is the base, 1 what was trained. The
    rows of new tokens go from the mean of their pieces, at 0, to what they were trained to."""
    _turn(model, dial, 0.0, ExitStack())


@contextmanager
def at_strength(model: PeftModel, dial: float, tilt: float = 0.0) -> Iterator[None]:
    """As `set_dial`, within it; afterwards every number is what it was.

    tilt: of the layers that are adapted the last is turned to dial (1 + tilt), the first to dial (1 - tilt), those
    between in even steps, so that their mean is `dial`.
    """
    with ExitStack() as undo:
        _turn(model, dial, tilt, undo)
        yield


def _turn(model: PeftModel, dial: float, tilt: float, undo: ExitStack) -> None:
    """Turn the adapter, and let `undo` know how to turn it back."""
    if dial == 1 and not tilt:
        return
    undo.callback(turn_rows(model, dial))
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    adapted = sorted({depth for path in layers if (depth := layer_of(path)) is not None})
    for path, module in layers.items():
        depth = layer_of(path)
        place = 0.5 if depth is None or len(adapted) < 2 else adapted.index(depth) / (len(adapted) - 1)
        strength = dial * (1 + tilt * (2 * place - 1))
        undo.callback(module.scaling.update, dict(module.scaling))
        for name in module.scaling:
            if name in module.lora_magnitude_vector:  # DoRA divides by a norm that the scaling is part of
                hook = module.register_forward_hook(_between(strength))
                undo.callback(hook.remove)
            else:
                module.scaling[name] *= strength


def layer_of(module: str) -> int | None:
    """The number of the decoder layer that a module of this name belongs to; None outside of all."""
    found = LAYER_NUMBER.search(module)
    return int(found[1]) if found else None


def _between(strength: float) -> Callable[..., Tensor]:
    """A forward hook that goes only so far from what the layer without its adapter would give."""
    return lambda layer, x, y: torch.lerp(layer.base_layer(*x), y, strength)


def _settings_of(config: Path) -> dict[str, object]:
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
        return dict(found.items())
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{config} is not the settings of an adapter ({error}): copy the adapter again.") from None


def base_named_in(folder: Path) -> str:
    """The base that an adapter says it was trained on, '' where it does not."""
    config = folder / "adapter_config.json"
    if not config.exists():
        return ""
    return str(_settings_of(config).get("base_model_name_or_path") or "")


def load_adapter(
    model: PreTrainedModel, folder: Path, dial: float = 1.0, new_tokens: Pieces | None = None
) -> PeftModel:
    """Load a LoRA adapter, or the trained rows of tokens, as PEFT writes them, the update scaled by `dial`.

    new_tokens: those that the adapter brings (`terms.tokens_of_adapter`).

    Raises:
        ModelError: the folder holds no adapter, one of another kind, or one for another base.
    """
    if not (folder / "adapter_config.json").exists():
        raise ModelError(f"{folder} holds no adapter_config.json: name a PEFT adapter folder.")
    if not (folder / "adapter_model.safetensors").exists():
        raise ModelError(f"{folder} holds no adapter_model.safetensors: only safetensors are loaded.")
    kind = _settings_of(folder / "adapter_config.json").get("peft_type", "nameless")
    if kind not in ("LORA", "TRAINABLE_TOKENS"):
        # Prompt learning acts outside the layers that packs are read with: it would seem to change nothing.
        raise ModelError(f"{folder} is a {kind} adapter: only LoRA adapters and trained tokens can be measured.")
    n_base_rows = make_room(model, new_tokens) if new_tokens else 0
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys")  # an error of ours, below
            warnings.filterwarnings("ignore", TIED)
            adapted = PeftModel.from_pretrained(model, folder)
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            saved = set(file.keys())
    except (RuntimeError, ValueError, SafetensorError) as error:
        detail = str(error).splitlines()[0].rstrip(":. ")
        raise ModelError(
            f"{folder} does not fit this base model ({detail}): name the base it was trained on."
        ) from error
    # PEFT passes over layers that only one side has, and such an adapter would do nothing there.
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if others := sorted(saved ^ wanted):
        raise ModelError(
            f"{folder} does not fit this base model ({len(others)} adapted layers of one are not in the other, "
            f"{others[0]} among them): name the base it was trained on."
        )
    if new_tokens:
        start_rows(adapted, new_tokens, n_base_rows, trained=True)
    set_dial(adapted, dial)
    replace_forwards(adapted)
    adapted.eval()
    return adapted
