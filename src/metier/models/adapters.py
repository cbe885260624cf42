"""Adapters as PEFT saves them: loaded, switched off, scaled, measured."""

import ctypes
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.lora import Linear as LoraLinear
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from metier.errors import ModelError
from metier.models.replace import replace_forwards


@contextmanager
def disabled(model: PeftModel | PreTrainedModel) -> Iterator[None]:
    """Within it, the model is its base."""
    if isinstance(model, PeftModel):
        with model.disable_adapter():
            yield
    else:
        yield


def keep_memory() -> bool:
    """Ask glibc not to hand freed activations back to the system at every step; True where it could be asked.

    Each step frees and allocates the same buffers; returned pages must be faulted in and zeroed again. 32 MiB is the
    largest threshold that glibc accepts for M_MMAP_THRESHOLD; -1 and -3 are M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of
    malloc.h.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(-3, 32 * 2**20) and mallopt(-1, 2**31 - 1))


def weights_moved(model: PeftModel) -> float:
    """Size of the update relative to the weights it is added to: sqrt(sum |update|^2 / sum |W|^2) over adapted
    layers."""
    moved = total = 0.0
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LoraLinear):
                moved += _update_squared(module)
                total += float(module.base_layer.weight.square().sum())
    return (moved / total) ** 0.5 if total else 0.0


def _update_squared(layer: LoraLinear) -> float:
    name = next(iter(layer.lora_A))
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    if name not in layer.lora_magnitude_vector:
        # |BA|^2 = trace(B'B AA'), without forming BA
        return float(layer.scaling[name] ** 2 * ((b.T @ b) * (a @ a.T)).sum())
    weight = layer.base_layer.weight.T if layer.fan_in_fan_out else layer.base_layer.weight
    direction = weight + layer.scaling[name] * b @ a
    magnitude = layer.lora_magnitude_vector[name].weight
    return float((direction * (magnitude / direction.norm(dim=1))[:, None] - weight).square().sum())


def set_dial(model: PeftModel, dial: float) -> None:
    """Let the adapter add `dial` times what it was trained to add: 0 is the base, 1 what was trained."""
    for module in model.modules():
        if not isinstance(module, LoraLinear) or dial == 1:
            continue
        for name in module.scaling:
            if name in module.lora_magnitude_vector:  # DoRA divides by a norm that the scaling is part of
                module.register_forward_hook(lambda layer, x, y: torch.lerp(layer.base_layer(*x), y, dial))
            else:
                module.scaling[name] *= dial


def _kind_of_adapter(config: Path) -> str:
    try:
        return str(json.loads(config.read_text(encoding="utf-8")).get("peft_type", "nameless"))
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{config} is not the settings of an adapter ({error}): copy the adapter again.") from None


def load_adapter(model: PreTrainedModel, folder: Path, dial: float = 1.0) -> PeftModel:
    """Load a LoRA adapter as PEFT writes it, its update scaled by `dial`.

    Raises:
        ModelError: the folder holds no adapter, one of another kind, or one for another base.
    """
    if not (folder / "adapter_config.json").exists():
        raise ModelError(f"{folder} holds no adapter_config.json: name a PEFT adapter folder.")
    if not (folder / "adapter_model.safetensors").exists():
        raise ModelError(f"{folder} holds no adapter_model.safetensors: only safetensors are loaded.")
    kind = _kind_of_adapter(folder / "adapter_config.json")
    if kind != "LORA":
        # Prompt learning acts outside the layers that packs are read with: it would seem to change nothing.
        raise ModelError(f"{folder} is a {kind} adapter: only LoRA adapters can be measured.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys")  # an error of ours, below
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
    set_dial(adapted, dial)
    replace_forwards(adapted)
    adapted.eval()
    return adapted
