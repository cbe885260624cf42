"""Products through oneDNN, which torch's builds for x86 bring along: where they are faster than torch's own, which go
to MKL (docs/log.md). That is decided by the processor and the shape alone, so that no bit depends on a race.

The operator is the one that torch's compiler calls; where a build has none, and for what it would take by a plain loop,
there is torch.mm.
"""

import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

FEWEST_ROWS = 8
FEWEST_MULTIPLICATIONS = 4_000_000
"""A call takes 0.1 ms whatever it multiplies, and the first of every shape ten times that: smaller ones cost a batch of
answers what its large ones gain it (docs/log.md)."""


@cache
def is_there() -> bool:
    """On x86 alone, where it was measured: what oneDNN has no code for it takes by a loop, a thousand times slower."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX") and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@cache
def is_for_layers() -> bool:
    """Whether products of many rows gain, a layer's and the head's for a pack: with AVX-512 of other makers than Intel.
    With AVX2 a layer loses a tenth, and for its own processors MKL keeps its best code."""
    return is_there() and torch.backends.cpu.get_cpu_capability() == "AVX512" and not is_intel()


@cache
def is_intel() -> bool:
    """Whether the processor is one of those that MKL is written for."""
    listed = Path("/proc/cpuinfo")
    return "GenuineIntel" in (listed.read_text() if listed.exists() else platform.processor())


def takes(rows: Tensor, weight: Tensor) -> bool:
    """Whether `linear` is written for them: of a slice of either, transposed, it would make a plain loop."""
    is_large = len(rows) >= FEWEST_ROWS and rows.numel() * len(weight) >= FEWEST_MULTIPLICATIONS
    return is_large and rows.is_contiguous() and all(map(_is_whole, (rows, weight)))


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None, added: Tensor | None = None) -> Tensor:
    """rows (n, in) times weight (out, in) transposed, plus bias (out,) or plus added (n, out): (n, out), without a
    gradient."""
    out: Tensor
    if added is None:
        out = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    else:
        out = torch.ops.mkldnn._linear_pointwise.binary(rows, added, weight, bias, "add")
    return out


def weight_times(weight: Tensor, rows: Tensor) -> Tensor:
    """weight (V, H) times rows (n, H) transposed, (V, n); no gradient is formed of it where oneDNN takes it."""
    if len(rows) >= FEWEST_ROWS and rows.is_contiguous() and is_there() and takes(weight, rows):
        return linear(weight, rows)
    return torch.mm(weight, rows.t())


def _is_whole(matrix: Tensor) -> bool:
    """float32 on a CPU, all of its memory in order or transposed, and no gradient is wanted."""
    is_tracked = matrix.requires_grad and torch.is_grad_enabled()
    in_order = matrix.is_contiguous() or matrix.t().is_contiguous()
    return matrix.device.type == "cpu" and matrix.dtype == torch.float32 and in_order and not is_tracked
