"""A model whose weights, gradients and optimizer states are divided over the ranks while it trains (torch's FSDP2)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from metier.errors import ModelError
from metier.training.parallel import n_ranks, naming_the_missing

UNIT_BYTES = 32 * 2**20
"""At most so many bytes are gathered at a time, or one layer: small layers go with their neighbours, since the ranks
wait for one another at every unit; above, glibc would take fresh pages from the system at every gathering."""


def shard(model: Any) -> None:
    """Make the decoder layers of `model` units of FSDP2; outside `sharded` all weights stay whole on every rank.

    Embedding, last norm and head are left whole: the loss reads the head's weights outside of any module's forward.

    Raises:
        ModelError: the architecture does not say what its decoder layers are.
    """
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    names = set(inner._no_split_modules or ())
    layers = [module for module in inner.base_model.modules() if type(module).__name__ in names]
    if not layers:
        raise ModelError(f"{type(inner).__name__} does not name its decoder layers: use --sharding none.")
    device = next(inner.parameters()).device.type
    mesh = init_device_mesh(device, (n_ranks(),))
    inside = {id(p) for layer in layers for p in layer.parameters()}
    units = _of_size(layers)
    for unit in units:
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    firsts: list[Any] = [unit[0] for unit in units]  # a unit is addressed by its first layer
    for first in firsts:
        first.set_gradient_divide_factor(1.0)  # the loss is divided by the tokens of all ranks already
        first.set_force_sum_reduction_for_comms(True)  # gloo knows no other
        if device == "cpu":
            first.set_custom_all_gather(_DirectGather())
    for first, following in pairwise(firsts):
        first.set_modules_to_forward_prefetch([following])
    # The trunk itself holds nothing; it makes one run of its layers, in which the next is gathered ahead.
    outside = {p for p in inner.base_model.parameters() if id(p) not in inside}
    fully_shard(inner.base_model, mesh=mesh, ignored_params=outside)
    _make_whole(model)


def _of_size(layers: Sequence[nn.Module]) -> list[list[nn.Module]]:
    """The layers in runs of at most UNIT_BYTES, or of one layer."""
    units: list[list[nn.Module]] = []
    room = 0
    for layer in layers:
        size = sum(p.numel() * p.element_size() for p in layer.parameters())
        if size > room:
            units.append([])
            room = UNIT_BYTES
        units[-1].append(layer)
        room -= size
    return units


class _DirectGather:
    """Every rank's part straight to its place, while the ranks go on computing; for CPUs.

    gloo's own gathering copies all parts twice more and takes twice as long (docs/log.md), and FSDP2, which leaves the
    order of work to a GPU's streams, would wait for it at once.
    """

    def allocate(self, size: Sequence[int | torch.SymInt], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, async_op: bool = False
    ) -> dist.Work:
        """output_tensor: all parts, end to end, of which input_tensor is this rank's and stands in its place."""
        del async_op
        parts = output_tensor.chunk(group.size())
        others = [i for i in range(group.size()) if i != group.rank()]
        sent = [dist.isend(input_tensor, group=group, group_dst=i) for i in others]
        return _All(
            [work for work in (*sent, *(dist.irecv(parts[i], group=group, group_src=i) for i in others)) if work]
        )


class _All(dist.Work):
    """Done when each of several transfers is."""

    def __init__(self, transfers: Sequence[dist.Work]) -> None:
        super().__init__()
        self._transfers = transfers

    def wait(self, timeout: timedelta = timedelta(0)) -> bool:
        for transfer in self._transfers:
            transfer.wait(timeout)
        return True


@contextmanager
def sharded(model: Any) -> Iterator[None]:
    """Within it each rank holds its part of the weights, and a layer's weights are gathered when it runs.

    Does nothing for a model that `shard` was not given. All ranks must make the same passes within.
    """
    units = _units(model)
    for unit in units:
        unit.set_reshard_after_forward(True, recurse=False)
        unit.reshard()
    with naming_the_missing():
        yield
        _make_whole(model)


def _make_whole(model: Any) -> None:
    for unit in _units(model):
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()


def _units(model: Any) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def is_divided(model: Any) -> bool:
    """Whether `shard` was given it."""
    return bool(_units(model))


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that is divided over the ranks, which call it together; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def divided_as(like: Tensor, tensor: Tensor) -> Tensor:
    """This rank's part of a whole `tensor`, where `like` is divided over the ranks; else all of it, on its device."""
    found = tensor.to(like.device)
    if isinstance(like, DTensor):
        return distribute_tensor(found, like.device_mesh, like.placements, src_data_rank=None)
    return found


def whole_state(model: Any) -> dict[str, Tensor] | None:
    """The weights by name, for saving; None for a model that `shard` was not given, whose own state will do."""
    return {name: p.detach() for name, p in model.named_parameters()} if is_divided(model) else None
