"""Where a model computes, and in which numbers: float32 on a CPU, bfloat16 under float32 adapters on a CUDA GPU."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from metier.errors import ModelError
from metier.ranks import this_rank

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Placement:
    """dtype: of the base's weights. in_4bit: its linear layers are quantised to 4 bits and compute in `dtype`."""

    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    in_4bit: bool = False

    @property
    def precision(self) -> str:
        """What the weights are computed as: the same weights answer otherwise in another precision."""
        return "4bit" if self.in_4bit else str(self.dtype).removeprefix("torch.")

    @property
    def weight_bytes(self) -> float:
        """Of one weight of the base's linear layers."""
        return 0.5 if self.in_4bit else float(self.dtype.itemsize)

    def free_bytes(self) -> int | None:
        """Memory of a CUDA GPU that nobody has taken; None elsewhere."""
        return torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else None


ON_CPU = Placement()


def placement(device: str, method: str, in_4bit: bool) -> Placement:
    """Of `--device`, `--method` and `--load-in-4bit`. Full fine-tuning keeps float32: steps are lost in bfloat16.

    Raises:
        ModelError: there is no such device here, or nothing that reads 4-bit weights.
    """
    if in_4bit and find_spec("bitsandbytes") is None:
        raise ModelError("--load-in-4bit needs bitsandbytes: pip install 'metier[4bit]'.")
    found = chosen(device)
    dtype = torch.bfloat16 if found.type == "cuda" and method != "full" else torch.float32
    return Placement(found, dtype, in_4bit)


def chosen(name: str) -> torch.device:
    """The device called auto, cpu, cuda, cuda:N or mps; auto is a CUDA GPU where there is one, else the CPU.

    Of several ranks on a node each takes the GPU of its own number.

    Raises:
        ModelError: it is not here.
    """
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    rank = this_rank()
    if name == "auto":
        name = "cuda" if n_gpus else "cpu"
    if name == "mps" and not torch.backends.mps.is_available():
        raise ModelError("--device mps: torch finds no Apple GPU here; use --device cpu.")
    if name.startswith("cuda"):
        if not n_gpus:
            raise ModelError("--device cuda: torch finds no CUDA GPU here; use --device cpu.")
        if rank.of > 1 and name != "cuda":
            raise ModelError(f"--device {name}: every rank takes a GPU of its own; use --device cuda.")
        number = int(name.removeprefix("cuda").lstrip(":") or rank.number_on_node)
        if number >= n_gpus:
            raise ModelError(f"--device cuda:{number}: there are {n_gpus} CUDA GPUs here, numbered from 0.")
        return torch.device("cuda", number)
    return torch.device(name)


def wait_for(device: torch.device) -> None:
    """Until what was asked of it is done: a GPU works on while the clock is read."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def load_options(where: Placement) -> dict[str, Any]:
    """What transformers must be told to load a model there; 4-bit weights are made on their device."""
    options: dict[str, Any] = {"dtype": where.dtype}
    if where.in_4bit:
        options["device_map"] = {"": where.device}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=where.dtype,
        )
    return options
