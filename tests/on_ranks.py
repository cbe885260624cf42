"""What the tests of several ranks run under torchrun: a job by name, in processes of one thread each."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from metier.cli import main
from metier.errors import DivergedError
from metier.evidence import measure, written
from metier.evidence.score import score_branches, score_documents
from metier.models.encoding import Encoder
from metier.models.generate import prompts_of
from metier.models.methods import add_method
from metier.models.packing import Branches, Pack, PackReader
from metier.progress import Silent
from metier.ranks import this_rank
from metier.runs import RunFolder, StepLog
from metier.sources import general
from metier.training import parallel
from metier.training import sharding as units
from metier.training.journal import Journal
from metier.training.loop import Recipe, StepMetrics, Trained, train
from metier.training.probe import Judge, ProbePlan, probe
from metier.training.sharding import shard, sharded
from metier.training.stream import Step
from tiny import documents, random_ids, tiny_model, tiny_tokenizer

RATE, N_STEPS, PACK_TOKENS = 1e-2, 4, 32
REQUESTS = ("the question", "why?", "the question and the answer in one", "é", "on an error")


def steps() -> list[Step]:
    """Of several documents; the last has one alone, so that the second rank has none of it."""
    rows = [documents(21, 7, 16, 11, 5), documents(30, 40, 9, seed=20), documents(12, 12, 12, 12, seed=40)]
    rows.append(documents(25, seed=60))
    return [Step(tuple(r), {"field": sum(len(d.ids) for d in r)}, 0) for r in rows]


def model_to_train(sharding: str, seed: int = 0) -> Any:
    model = add_method(tiny_model("llama", num_hidden_layers=2), "lora", r=4, alpha=8, seed=seed)
    reader = PackReader(model)
    if sharding == "fsdp":
        units.UNIT_BYTES = 1  # a unit for each layer; under the command all layers of so small a model are one
        shard(model)
    return reader


def session(
    reader: PackReader, run: Path, say: Callable[[str], None] = lambda _: None, stop_after: int = N_STEPS
) -> tuple[Trained, list[StepMetrics], int]:
    """What was done, its steps, and the numbers that this rank held in training; the run goes on from its folder."""
    if this_rank().is_first:
        run.mkdir(exist_ok=True)
    seen: list[StepMetrics] = []
    parallel.any_rank(False)  # the folder is there
    journal = Journal(RunFolder(run), {}, 1e9, 0.0, say)
    recipe = Recipe(N_STEPS, RATE, PACK_TOKENS)
    with closing(journal), sharded(reader.model):
        stop = lambda: seen[-1].step == stop_after  # noqa: E731
        done = train(reader, lambda: iter(steps()), recipe, seen.append, stop, say, journal)
        during = held(reader.model)
    return done, seen, during


def here(folder: Path, name: str) -> Path:
    return folder / f"{name}-{parallel.n_ranks()}"


def held(model: Any) -> int:
    """Numbers of the weights on this rank."""
    return sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in model.parameters())


def weights(model: Any) -> dict[str, list[float]]:
    return {n: p.detach().flatten().tolist() for n, p in model.named_parameters() if "lora_" in n}


def training(folder: Path) -> dict[str, Any]:
    """Losses, norms and weights of the same steps, in one process or in several."""
    found: dict[str, Any] = {}
    for sharding in ("none", "fsdp") if parallel.n_ranks() > 1 else ("none",):
        reader = model_to_train(sharding)
        _, seen, during = session(reader, here(folder, f"run-{sharding}"))
        found[sharding] = {
            "losses": [m.loss for m in seen],
            "norms": [m.grad_norm for m in seen],
            "supervised": [m.supervised_tokens for m in seen],
            "weights": weights(reader.model),
            "held": (during, held(reader.model)),
        }
    return found


def scoring(_: Path) -> dict[str, Any]:
    """Sums of texts with windows and of branches, and answers; what was read by this rank."""
    reader = PackReader(tiny_model())
    own = 0

    def count(n_tokens: int) -> None:
        nonlocal own
        own += n_tokens

    texts = [*documents(30, 9, 22, 14, 17, 5, 28), *documents(30, 9, seed=30)]  # d0 and d1 have two windows
    branches = [
        Branches(f"b{i}", random_ids(4 + i, i), (random_ids(3, 50 + i), random_ids(5, 80 + i))) for i in range(5)
    ]
    scored = score_documents(reader, texts, PACK_TOKENS, count)
    chosen = score_branches(reader, branches, PACK_TOKENS, count)
    encoder = Encoder(tiny_tokenizer(), 512)
    answers = written.answers_of(reader.model, encoder, prompts_of(encoder, REQUESTS), Silent(), 8, {1, 2})
    return {
        "scored": {item: [s.nll, s.tokens] for item, s in (scored | chosen).items()},
        "answers": [[a.request, a.answer, a.tokens] for a in answers],
        "advanced": own,
    }


def stopping(folder: Path) -> dict[str, Any]:
    """Stop after two steps, for others to go on from."""
    for sharding in ("none", "fsdp"):
        reader = model_to_train(sharding)
        with sharded(reader.model):
            session(reader, folder / f"stopped-{sharding}", stop_after=2)
    return {}


def going_on(folder: Path) -> dict[str, Any]:
    """Go on from what two ranks had stopped after two steps, whichever way; each time in a copy of its own."""
    found = {}
    for saved in ("none", "fsdp"):
        for sharding in ("none", "fsdp") if parallel.n_ranks() > 1 else ("none",):
            run = here(folder, f"{saved}-into-{sharding}")
            if this_rank().is_first:
                shutil.copytree(folder / f"stopped-{saved}", run)
            reader = model_to_train(sharding, seed=1)
            _, seen, _ = session(reader, run)
            found[f"{saved} into {sharding}"] = {"steps": [m.step for m in seen], "weights": weights(reader.model)}
    return found


def spoiled(sharding: str, how: Callable[[Pack, int], float]) -> PackReader:
    """On the last rank the loss of a pack is multiplied by what `how` says to the pack and its number, from 1."""
    reader = model_to_train(sharding)
    real, n = reader.row_nll, 0

    def row_nll(batch: Pack) -> tuple[Tensor, Tensor]:
        nonlocal n
        n += 1
        nll, rows = real(batch)
        factor = how(batch, n) if this_rank().number == parallel.n_ranks() - 1 else 1.0
        return nll * factor, rows * factor

    reader.row_nll = row_nll  # type: ignore[method-assign]
    return reader


def failing(folder: Path) -> dict[str, Any]:
    """One rank alone has a number that is not finite, once or always, or no memory for packs of over 20 tokens."""
    found: dict[str, Any] = {}

    def too_large(batch: Pack, _: int) -> float:
        if batch.n_tokens > 20 and len(batch.items) > 1:
            torch.empty(2**55)
        return 1.0

    for name, how in (("once", lambda _, n: math.nan if n == 4 else 1.0), ("memory", too_large)):
        said: list[str] = []
        reader = spoiled("none", how)
        done, seen, _ = session(reader, here(folder, f"run-{name}"), said.append)
        found[name] = {
            "said": said,
            "steps": [m.step for m in seen],
            "rollbacks": [[r.step, r.to_step] for r in done.rollbacks],
            "pack_tokens": done.pack_tokens,
            "losses": [m.loss for m in seen],
            "weights": weights(reader.model),
        }
    try:
        session(spoiled("none", lambda *_: math.nan), here(folder, "run-always"))
    except DivergedError as error:
        found["always"] = str(error)
    return found


def rates(_: Path) -> dict[str, Any]:
    """Three rates tried, and the steps after them; the last of several ranks judges the wrong way round."""
    found: dict[str, Any] = {}
    seen: list[StepMetrics] = []
    for sharding in ("none", "fsdp") if parallel.n_ranks() > 1 else ("none",):
        reader = model_to_train(sharding)
        recipe = Recipe(N_STEPS, RATE, PACK_TOKENS)
        with sharded(reader.model):
            judge = Judge(reader, documents(21, 7, 16), documents(12, seed=80), PACK_TOKENS)
            if this_rank().number:
                judge.n_bytes *= -1
            tried = probe(
                reader, lambda: iter(steps()), ProbePlan((RATE, 3.0, RATE / 9), 2, 0), recipe, judge, seen.append
            )
            train(reader, lambda: iter(steps()), replace(recipe, peak_lr=tried.lr), seen.append, begun=tried.begun)
        judged = [t.judged for t in tried.tried]
        found[sharding] = {"chosen": tried.lr, "judged": judged, "weights": weights(reader.model)}
    return found


JOBS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "training": training,
    "scoring": scoring,
    "stopping": stopping,
    "going on": going_on,
    "failing": failing,
    "rates": rates,
}


def small_pack(patch: pytest.MonkeyPatch) -> None:
    """A general pack of a few items."""
    wanted = {"measured_texts": 6, "probe_texts": 6, "probe_requests": 4, "choices": 10}
    wanted |= {"measured_requests": 8, "replay_requests": 8}
    for name, n in wanted.items():
        items = getattr(general, name)()[:n]
        patch.setattr(general, name, lambda items=items: items)


def hindered(kind: str) -> None:
    """Let the second rank fail, hang or die when it begins to read the evidence, or be interrupted in step 3."""
    if not kind or this_rank().is_first:
        return
    if kind == "interrupt":
        write = StepLog.write

        def write_and_interrupt(self: StepLog, **values: Any) -> None:
            write(self, **values)
            if values["step"] == 3 and "loss" in values:
                os.kill(os.getpid(), signal.SIGINT)

        StepLog.write = write_and_interrupt  # type: ignore[method-assign]
        return

    def hinder(*_: object, **__: object) -> None:
        if kind == "fail":
            raise ValueError("the second rank has a fault")
        if kind == "hang":
            time.sleep(600)
        os.kill(os.getpid(), 9)

    measure.base_arm = hinder  # type: ignore[assignment]


@dataclass(frozen=True)
class Launched:
    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("metier: ")]

    @property
    def exit_codes(self) -> set[int]:
        """Of the ranks, as torchrun reports them."""
        return {int(code) for code in re.findall(r"^ *exitcode *: (-?\d+)", self.err, re.MULTILINE)}


def launch(n_ranks: int, *arguments: str | Path, **environment: str) -> Launched:
    """This file under torchrun: `jobs` and a folder, or `metier` and its arguments, `then` the next command."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_ranks)]
    done = subprocess.run(
        [*command, __file__, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        check=False,
    )
    return Launched(done.returncode, done.stdout, done.stderr)


def results(n_ranks: int, folder: Path) -> list[dict[str, Any]]:
    """What each rank found, job by job."""
    done = launch(n_ranks, "jobs", folder)
    assert done.code == 0, done.err
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(n_ranks)]


def run(arguments: Sequence[str]) -> int:
    torch.set_num_threads(1)
    if arguments[0] == "metier":
        with pytest.MonkeyPatch.context() as patch:
            small_pack(patch)
            hindered(os.environ.get("HINDER", ""))
            for command in " ".join(arguments).split(" then "):
                if code := main(command.split()[1:]):
                    return code
        return 0
    folder = Path(arguments[1])
    parallel.join(60)
    found = {name: job(folder) for name, job in JOBS.items()}
    (folder / f"found-{this_rank().number}.json").write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
