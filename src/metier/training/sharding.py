"""A model whose weights, gradients and optimizer states are divided over the ranks while it trains (torch's FSDP2)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from metier.errors import ModelError
from metier.training.parallel import n_ranks, naming_the_missing


def shard(model: Any) -> None:
    """Make every decoder layer of `model` a unit of FSDP2; outside `sharded` all weights stay whole on every rank.

    Embedding, last norm and head are left whole: the loss reads the head's weights outside of any module's forward.

    Raises:
        ModelError: the architecture does not say what its decoder layers are.
    """
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    names = set(inner._no_split_modules or ())
    layers = [module for module in inner.base_model.modules() if type(module).__name__ in names]
    if not layers:
        raise ModelError(f"{type(inner).__name__} does not name its decoder layers: use --sharding none.")
    mesh = init_device_mesh(next(inner.parameters()).device.type, (n_ranks(),))
    inside = {id(p) for layer in layers for p in layer.parameters()}
    for layer in layers:
        unit: FSDPModule = fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        unit.set_gradient_divide_factor(1.0)  # the loss is divided by the tokens of all ranks already
        unit.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    # The trunk itself holds nothing; it makes one run of its layers, in which the next is gathered ahead.
    outside = {p for p in inner.base_model.parameters() if id(p) not in inside}
    fully_shard(inner.base_model, mesh=mesh, ignored_params=outside)
    _make_whole(model)


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
