"""LoRA through PEFT: injected, saved and loaded by PEFT; computed by one fused function where that is provably
equal."""

import ctypes
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import Linear as LoraLinear
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from metier.errors import ModelError
from metier.models.replace import replace_forwards


def add_lora(model: PreTrainedModel, r: int, alpha: int, seed: int) -> PeftModel:
    """Put LoRA on every linear layer but the head.

    Raises:
        ModelError: the architecture has no linear layer that PEFT can adapt.
    """
    torch.manual_seed(seed)
    config = LoraConfig(r=r, lora_alpha=alpha, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(f"{type(model).__name__} cannot take LoRA ({error}): choose another model.") from error
    replace_forwards(adapted)
    return adapted


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
    largest
    threshold that glibc accepts for M_MMAP_THRESHOLD; -1 and -3 are M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(-3, 32 * 2**20) and mallopt(-1, 2**31 - 1))


def weights_moved(model: PeftModel) -> float:
    """Size of the update relative to the weights it is added to: sqrt(sum |sBA|^2 / sum |W|^2) over adapted layers."""
    moved = total = 0.0
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LoraLinear):
                name = next(iter(module.lora_A))
                a, b = module.lora_A[name].weight, module.lora_B[name].weight
                # |BA|^2 = trace(B'B AA'), without forming BA
                moved += module.scaling[name] ** 2 * float(((b.T @ b) * (a @ a.T)).sum())
                total += float(module.base_layer.weight.square().sum())
    return (moved / total) ** 0.5 if total else 0.0


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
    for module in adapted.modules():
        if isinstance(module, LoraLinear):
            for name in module.scaling:
                module.scaling[name] *= dial
    replace_forwards(adapted)
    adapted.eval()
    return adapted
