"""The head's product through oneDNN, which torch's builds for x86 bring along: from 8 rows on it takes half to nine
tenths of the time of MKL's (docs/log.md).

The operator is the one that torch's compiler calls; where a build has none, and for what it would take by a plain loop,
there is torch.mm.
"""

from functools import cache

import torch
from torch import Tensor

FEWEST_ROWS = 8


@cache
def is_there() -> bool:
    """On x86 alone, where it was measured: what oneDNN has no code for it takes by a loop, a thousand times slower."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX") and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def weight_times(weight: Tensor, rows: Tensor) -> Tensor:
    """weight (V, H) times rows (n, H) transposed, (V, n); no gradient is formed of it."""
    if not (_is_taken(weight) and _is_taken(rows) and len(rows) >= FEWEST_ROWS and is_there()):
        return torch.mm(weight, rows.t())
    found: Tensor = torch.ops.mkldnn._linear_pointwise(weight, rows, None, "none", [], "")
    return found


def _is_taken(matrix: Tensor) -> bool:
    is_tracked = matrix.requires_grad and torch.is_grad_enabled()
    return matrix.device.type == "cpu" and matrix.dtype == torch.float32 and matrix.is_contiguous() and not is_tracked
