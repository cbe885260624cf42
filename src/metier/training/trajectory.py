"""The weights on their way: what training had learned after an eighth, a quarter and half of its steps.

RUN/trajectory/step-000012.safetensors holds what is trained, by the names of the parameters. The rate is constant for
most of a run, where single weights stand off their valley by the noise of a step; so each point is the mean of the
weights of its last few steps, which stands in for a decay to zero (arXiv 2405.18392). The files say all, so a run that
was killed goes on with the same ones.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from metier.errors import RunError
from metier.ranks import this_rank

SHARES = (1 / 8, 1 / 4, 1 / 2)  # of the steps
FEWEST_STEPS = 16  # of a run: an eighth of it is two
MOST_AVERAGED = 4  # steps a point: their weights wait on the disk together


def points(n_steps: int) -> dict[int, range]:
    """{step of the point: the steps whose weights are averaged}; none in a run that is too short for it."""
    if n_steps < FEWEST_STEPS:
        return {}
    ends = [round(share * n_steps) for share in SHARES]
    return {end: range(end - min(MOST_AVERAGED, max(1, end // 4)) + 1, end + 1) for end in ends}


class Trajectory:
    """Of a run of `n_steps`, in `folder`; every rank keeps its steps, the first one writes and reads."""

    def __init__(self, folder: Path, n_steps: int) -> None:
        self.folder, self.points = folder, points(n_steps)
        self._wanted = {step for steps in self.points.values() for step in steps}

    def keep(self, step: int, model: nn.Module) -> None:
        """Write what is trained, if this is a step of a point.

        Raises:
            RunError: the disk refuses.
        """
        if step not in self._wanted or not this_rank().is_first:
            return
        path = self._path(step)
        partial = path.with_suffix(".tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({name: p.detach().contiguous() for name, p in trained_of(model).items()}, partial)
            partial.replace(path)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{path} cannot be written ({error}): free some space.") from error

    def weights(self) -> Iterator[tuple[int, Callable[[], dict[str, Tensor]]]]:
        """(step of the point, what reads its weights), the earliest first; a point without files is passed over: its
        steps were taken while rates were tried."""
        for end, steps in self.points.items():
            paths = [path for path in map(self._path, steps) if path.exists()]
            if paths:
                yield end, lambda paths=paths: _mean(paths)  # type: ignore[misc]

    def remove(self) -> None:
        """When all has been measured, the files are only large."""
        if this_rank().is_first:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}.safetensors"


def trained_of(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@contextmanager
def standing_at(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Within it what is trained has other weights; afterwards its own."""
    trained = trained_of(model)
    own = {name: p.detach().clone() for name, p in trained.items()}
    try:
        _put(trained, weights)
        yield
    finally:
        _put(trained, own)


@torch.no_grad()
def _put(trained: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    for name, parameter in trained.items():
        parameter.copy_(weights[name])


def _mean(paths: list[Path]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for path in paths:
        for name, tensor in load_file(path).items():
            total[name] = total[name] + tensor if name in total else tensor
    return {name: tensor / len(paths) for name, tensor in total.items()}
