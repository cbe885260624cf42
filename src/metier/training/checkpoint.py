"""Checkpoints: all that training needs to go on as if it had never stopped; whole on the disk, or not there.

RUN/checkpoints/step-000120/
    tensors.safetensors   weights/NAME · optimizer/NAME/KEY · random/torch
    state.json            step, counters, schedule, data position, python's random state, lengths of the logs, hashes
    SHA256SUMS            of both files, as `sha256sum -c` reads it

A folder is written beside its place and renamed, so a kill or a full disk leaves those before it as they were.
"""

import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from metier.errors import RunError
from metier.runs import Json, StepLog
from metier.training.sharding import divided_as, whole

KEPT = 2  # newest checkpoints, and as many newest anchors
TENSORS, STATE, SUMS = "tensors.safetensors", "state.json", "SHA256SUMS"


@dataclass(frozen=True)
class Checkpoint:
    """One that was read back and is whole. facts: what the loop asked to keep; log_bytes: {file name: length}."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Json]
    log_bytes: dict[str, int]
    python_random: Json


class Checkpoints:
    """The checkpoints of one run. `say` hears of damaged ones.

    Anchors are those written at steps that the plan fixes: only they may be rolled back to, so that a run that was
    killed and went on rolls back to where the run that was never stopped does.
    """

    def __init__(self, folder: Path, origin: Mapping[str, str], every_s: float, say: Callable[[str], None]) -> None:
        """origin: {part: hash} of what the run is made from, kept in each checkpoint. every_s: seconds."""
        self.folder, self.origin, self.say = folder, dict(origin), say
        self._every_s = every_s
        self._written = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self._written >= self._every_s

    def save(
        self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Json], logs: Sequence[StepLog], anchor: bool
    ) -> Path:
        """Write one, unless that step has one already, and remove those that are no longer wanted.

        Raises:
            RunError: the disk refuses; the checkpoints before it stay as they were.
        """
        target = self._path(step)
        if not target.exists():
            state = {
                "step": step,
                "anchor": anchor,
                "facts": dict(facts),
                "logs": {log.path.name: log.settle() for log in logs},
                "origin": self.origin,
                "python_random": random.getstate(),
            }
            self._write(target, {**tensors, "random/torch": torch.get_rng_state()}, state)
            self._remove_old()
        self._written = time.monotonic()
        return target

    def newest(self) -> Checkpoint | None:
        """The newest whole one; damaged ones after it are named and removed. None where none was ever written.

        Raises:
            RunError: there are some, and none is whole.
        """
        paths = self._paths()
        reasons: list[str] = []
        for path in reversed(paths):
            checkpoint, reason = self._read(path)
            if checkpoint is not None:
                for said in reasons:
                    self.say(f"{said}: going on from {path.name}, the one before")
                self.discard_after(checkpoint.step)
                return checkpoint
            reasons.append(reason)
        if paths:
            raise RunError(f"{reasons[0]}, and no other checkpoint of the run is whole: begin a new run.")
        return None

    def anchor_before(self, step: int) -> Checkpoint:
        """The newest anchor under `step`, or the first of all; those after it are removed, for they belong to what is
        rolled back.

        Raises:
            RunError: it is not whole, or there is none.
        """
        anchors = [path for path in self._paths() if _is_anchor(path)]
        under = [path for path in anchors if _step_of(path) < step]
        for path in under[-1:] or anchors[:1]:
            checkpoint, reason = self._read(path)
            if checkpoint is None:
                raise RunError(f"{reason}, and there is nothing to roll back to: begin a new run.")
            self.discard_after(checkpoint.step)
            return checkpoint
        raise RunError(f"{self.folder} holds no checkpoint before step {step} to roll back to: begin a new run.")

    def discard_after(self, step: int) -> None:
        for path in self._paths():
            if _step_of(path) > step:
                self._remove(path)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def _paths(self) -> list[Path]:
        """By step; what a kill left half-written has another name."""
        found = [path for path in self.folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]
        return sorted(found, key=_step_of)

    def _write(self, target: Path, tensors: Mapping[str, Tensor], state: Json) -> None:
        partial = target.with_name("partial.tmp")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_file({name: t.detach().contiguous() for name, t in tensors.items()}, partial / TENSORS)
            (partial / STATE).write_text(json.dumps(state, allow_nan=False) + "\n", encoding="utf-8")
            sums = "".join(f"{_sha256(partial / name)}  {name}\n" for name in (TENSORS, STATE))
            (partial / SUMS).write_text(sums, encoding="utf-8")
            for path in (*partial.iterdir(), partial):
                _sync(path)
            partial.rename(target)
            _sync(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise RunError(
                f"{target} cannot be written ({error}): free some space and resume; the checkpoint before it is whole."
            ) from error

    def _remove_old(self) -> None:
        paths = self._paths()
        kept = {*paths[-KEPT:], *[path for path in paths if _is_anchor(path)][-KEPT:]}
        for path in paths:
            if path not in kept:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        """Under another name first, so that a kill leaves no half of one."""
        removed = self.folder / "removed.tmp"
        shutil.rmtree(removed, ignore_errors=True)
        path.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)

    def _read(self, path: Path) -> tuple[Checkpoint | None, str]:
        """(the checkpoint, ''), or (None, why it is not one that can be gone on from)."""
        try:
            lines = (path / SUMS).read_text("utf-8").splitlines()
            sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
            for name in (TENSORS, STATE):
                if sums.get(name) != _sha256(path / name):
                    return None, f"{path / name} is damaged (its sha256 is not the one it was written with)"
            state = json.loads((path / STATE).read_text(encoding="utf-8"))
            tensors = load_file(path / TENSORS)
        except (OSError, ValueError, SafetensorError) as error:
            return None, f"{path} is damaged ({' '.join(str(error).split())})"
        if other := [part for part, digest in self.origin.items() if state["origin"].get(part) != digest]:
            return None, f"{path} belongs to another run (its {' and '.join(other)} had another sha256)"
        facts, logs = state["facts"], state["logs"]
        return Checkpoint(state["step"], tensors, facts, logs, state["python_random"]), ""


def training_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What is trained and what the optimizer remembers of it, by the names of the parameters; whole also where it is
    divided over the ranks, which call it together."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    tensors: dict[str, Tensor] = {f"weights/{name}": whole(p) for name, p in trained.items()}
    for name, p in trained.items():
        tensors |= {f"optimizer/{name}/{key}": whole(value) for key, value in optimizer.state.get(p, {}).items()}
    return tensors


@torch.no_grad()
def restore(model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Put weights, optimizer and random states back as they were.

    Raises:
        RunError: the checkpoint is of other parameters than these.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    shapes = {name: p.shape for name, p in trained.items()}
    prefix = "weights/"
    saved = {n.removeprefix(prefix): t.shape for n, t in checkpoint.tensors.items() if n.startswith(prefix)}
    if saved != shapes:
        raise RunError(f"the checkpoint of step {checkpoint.step} is of another model: resume with the model it is of.")
    optimizer.state.clear()
    for name, tensor in checkpoint.tensors.items():
        part, _, rest = name.partition("/")
        if part == "weights":
            trained[rest].copy_(divided_as(trained[rest], tensor))
        elif part == "optimizer":
            parameter, _, key = rest.rpartition("/")
            own = tensor if key == "step" else divided_as(trained[parameter], tensor)
            optimizer.state[trained[parameter]][key] = own
    torch.set_rng_state(checkpoint.tensors["random/torch"])
    version, numbers, gauss = checkpoint.python_random
    random.setstate((version, tuple(numbers), gauss))


@contextmanager
def kept_within(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Whatever is trained within it is afterwards as it was, and so are the optimizer and the random states."""
    tensors = {name: tensor.detach().clone() for name, tensor in training_tensors(model, optimizer).items()}
    tensors["random/torch"] = torch.get_rng_state()
    kept = Checkpoint(0, tensors, {}, {}, random.getstate())
    try:
        yield
    finally:
        restore(model, optimizer, kept)


def _is_anchor(path: Path) -> bool:
    with suppress(OSError, ValueError, KeyError):
        return bool(json.loads((path / STATE).read_text(encoding="utf-8"))["anchor"])
    return False


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """From the system's memory to the disk; folders, too, where the system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
