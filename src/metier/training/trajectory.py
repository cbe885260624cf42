"""The weights on their way: what a run would have learned had it ended after an eighth, a quarter, half of its steps.

The rate is constant for most of a run, where the weights stand off their valley by the noise of a step, and falls in
its last fifth: a run looked at halfway is no run of half the length. So a fifth before each point training goes on
beside the run with a falling rate, and then from where it was (arXiv 2405.18392 §4); all points together cost 0.175 of
the run. RUN/trajectory/step-000012.safetensors holds what is trained, by the names of the parameters. The files say
all, so a run that was killed goes on with the same ones.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from metier.errors import RunError
from metier.ranks import this_rank
from metier.training import parallel
from metier.training.schedule import DECAY_SHARE

SHARES = (1 / 8, 1 / 4, 1 / 2)  # of the steps
FEWEST_STEPS = 16  # of a run: an eighth of it is two
EXTRA_STEPS = DECAY_SHARE * sum(SHARES)  # of the run's own steps


def points(n_steps: int) -> dict[int, int]:
    """{step of the point: the step from which the rate falls}; none in a run that is too short for it."""
    if n_steps < FEWEST_STEPS:
        return {}
    ends = [round(share * n_steps) for share in SHARES]
    return {end: end - round(DECAY_SHARE * end) for end in ends}


class Trajectory:
    """Of a run of `n_steps`, in `folder`; every rank is asked for its steps, the first one writes and reads."""

    def __init__(self, folder: Path, n_steps: int) -> None:
        self.folder, self.points = folder, points(n_steps)

    def due(self, n_steps: int) -> int | None:
        """The point to which training is to go on beside the run, which has taken `n_steps`; None where there is none.
        One whose step was taken while rates were tried is passed over."""
        for end, falling in self.points.items():
            if n_steps == falling:
                return None if parallel.by_first(self._path(end).exists) else end
        return None

    def keep(self, end: int, model: nn.Module) -> None:
        """Write what is trained as that of the point.

        Raises:
            RunError: the disk refuses.
        """
        if not this_rank().is_first:
            return
        path = self._path(end)
        unfinished = path.with_suffix(".tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({name: p.detach().contiguous() for name, p in trained_of(model).items()}, unfinished)
            unfinished.replace(path)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{path} cannot be written ({error}): free some space.") from error

    def weights(self) -> Iterator[tuple[int, Callable[[], dict[str, Tensor]]]]:
        """(step of the point, what reads its weights), the earliest first; a point without a file is passed over."""
        for end in self.points:
            if (path := self._path(end)).exists():
                yield end, partial(load_file, path)

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
