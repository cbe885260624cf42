"""What tests of whole runs share: a general pack of a few items, rows, short runs, somebody to talk to, and a death."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from metier.progress import Silent
from metier.runs import read_json
from metier.sources import general

OPTIONS: dict[str, Any] = {"tokens": 4000, "minutes": 5.0, "step_tokens": 500, "pack_tokens": 250, "threads": 1}


class Told(Silent):
    """Remembers what was said; `at` is called at every advance of the bar of that name."""

    def __init__(self, task: str = "", at: Any = None) -> None:
        self.lines: list[str] = []
        self.task, self.at, self.current = task, at, ""

    def say(self, line: str) -> None:
        self.lines.append(line)

    def begin(self, task: str, total: int) -> None:
        del total
        self.current = task

    def advance(self, done: int, note: str = "") -> None:
        if self.current == self.task:
            self.at(done, note)


@contextmanager
def small_pack(**n_items: int) -> Iterator[pytest.MonkeyPatch]:
    """A general pack of the first few items of each kind; the number of threads is what it was afterwards."""
    wanted = {
        "measured_texts": 6,
        "probe_texts": 6,
        "probe_requests": 4,
        "choices": 10,
        "measured_requests": 8,
        "replay_requests": 8,
        **n_items,
    }
    cut = {name: getattr(general, name)()[:n] for name, n in wanted.items()}
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for name, items in cut.items():
            patch.setattr(general, name, lambda items=items: items)
        yield patch
    torch.set_num_threads(threads)


class KilledError(BaseException):
    """Stands for SIGKILL: nothing that follows is run."""


def kill_in_training(patch: pytest.MonkeyPatch, at: int = 5) -> None:
    """At the `at`th step that is taken, those of a probe among them."""
    from metier.training import loop

    step, n = loop.train_step, 0

    def stepped(*arguments: Any) -> Any:
        nonlocal n
        n += 1
        if n == at:
            raise KilledError
        return step(*arguments)

    patch.setattr(loop, "train_step", stepped)


def write_terms(folder: Path) -> Path:
    """60 rows, one of them twice, one of them answered with more than the window holds."""
    pairs = [(f"What is the {i}. term?", f"The term {i} is « the answer number {i} ».") for i in range(58)]
    pairs += [pairs[3], ("Count, please.", "one two three " * 60)]
    path = folder / "terms.jsonl"
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in pairs), encoding="utf-8")
    return path


def state(path: Path) -> str:
    return str(read_json(path / "status.json")["state"])


def assert_adds_up(path: Path) -> dict[str, int]:
    ledger = read_json(path / "ledger.json")
    for kind in ("bytes", "rows"):
        counts = dict(ledger[kind])
        assert counts.pop("total") == sum(counts.values())
    return dict(ledger["bytes"])
