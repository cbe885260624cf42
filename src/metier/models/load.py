"""Load a base model: embedded, from a folder, or from a hub; safetensors only, remote code off."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from metier.errors import ModelError
from metier.models import attention
from metier.models.device import ON_CPU, Placement, load_options
from metier.models.embedded import EMBEDDED, embedded_folder
from metier.models.encoding import Encoder

# What a long prompt may take: attention is quadratic in it, and no pack is longer than its longest document.
LONGEST_WINDOW = 2048


@dataclass
class BaseModel:
    """A loaded model with its tokenizer. `sha256` is that of its weights, whatever the folder is called."""

    name: str
    model: PreTrainedModel
    tokenizer: Any
    encoder: Encoder
    sha256: str
    where: Placement = ON_CPU

    @property
    def n_parameters(self) -> int:
        n: int = self.model.num_parameters()
        return n

    @property
    def answers_as(self) -> str:
        """sha256 of what its answers follow from: the weights, and the precision where that is not float32."""
        if self.where.precision == "float32":
            return self.sha256
        return hashlib.sha256(f"{self.sha256} {self.where.precision}".encode()).hexdigest()


def load_base(name: str, where: Placement = ON_CPU) -> BaseModel:
    """Load `name`: an embedded model, a folder with safetensors, or a hub id where a hub answers.

    Raises:
        ModelError: no such model, no safetensors in the folder, or not a causal language model.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    folder = _folder(name)
    with _refused(name):
        model = _load_model(folder, where)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.is_fast:
        raise ModelError(
            f"{name} has a tokenizer without offsets into the text: save a fast one (tokenizer.json) with it."
        )
    model.eval()
    window = min(LONGEST_WINDOW, getattr(model.config.get_text_config(), "max_position_embeddings", LONGEST_WINDOW))
    encoder = Encoder(tokenizer, window, _turn_ends(model))
    return BaseModel(name, model, tokenizer, encoder, _weights_sha256(model, folder), where)


def empty_model(name: str) -> PreTrainedModel:
    """What `load_base` would load, with shapes and without numbers: all of it is on the meta device.

    Raises:
        ModelError: as `load_base`.
    """
    folder = _folder(name)
    with _refused(name), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def _folder(name: str) -> str:
    folder = str(embedded_folder(name)) if name in EMBEDDED else name
    if Path(folder).is_dir():
        _require_model_files(Path(folder))
    elif Path(name).exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"{name} is no model folder: name one, a hub id, or one of {', '.join(EMBEDDED)}.")
    return folder


@contextmanager
def _refused(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{name} cannot be loaded as a causal language model ({reason}): choose another --model."
        ) from error


def _turn_ends(model: PreTrainedModel) -> list[int]:
    """Every token that ends an answer: chat models may have others than the tokenizer's own end."""
    ends = model.generation_config.eos_token_id if model.generation_config else None
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def _load_model(folder: str, where: Placement) -> PreTrainedModel:
    """With our attention where the architecture takes it, else with the one it has."""
    options = {**load_options(where), "use_safetensors": True, "trust_remote_code": False}
    options["output_loading_info"] = True
    model: PreTrainedModel
    try:
        model, found = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention.NAME, **options)
    except ValueError as error:
        if "attn_implementation" not in str(error) and attention.NAME not in str(error):
            raise
        model, found = AutoModelForCausalLM.from_pretrained(folder, **options)
    if missing := sorted(found["missing_keys"]):  # transformers would go on with random numbers
        raise ValueError(f"{len(missing)} weights are missing, {missing[0]} among them")
    if not model._supports_sdpa:  # soft caps or sinks, which our attention would refuse or silently leave out
        model.set_attn_implementation("eager")
    return model if where.in_4bit else model.to(where.device)


def _require_model_files(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder} has no config.json: name the folder of a model.")
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder / 'config.json'} is not JSON ({error}): copy the model again.") from error
    if not any(folder.glob("*.safetensors")):
        others = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".gguf"})
        found = f"only {others[0]}, which is not loaded for safety" if others else "no weights"
        raise ModelError(f"{folder} has no model.safetensors ({found}): save the model with safetensors first.")


def _weights_sha256(model: PreTrainedModel, folder: str) -> str:
    """Of the safetensors files, by name order; for a hub model, of the tensors themselves."""
    digest = hashlib.sha256()
    files = sorted(Path(folder).glob("*.safetensors"))
    for path in files:
        with path.open("rb") as file:
            while block := file.read(2**22):
                digest.update(block)
    if not files:
        for name, tensor in sorted(model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
