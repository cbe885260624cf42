"""Two ranks of one thread each against one process of two threads: the same steps, in turn; ratios pair by pair.

Usage:
    python benchmarks/ranks.py [--pairs 3] [--steps 8] [--data pack:clinical] [--sharding none fsdp]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from metier.models.adapters import keep_memory
from metier.models.load import load_base
from metier.models.methods import add_method
from metier.models.packing import PackReader
from metier.models.threads import fit_threads
from metier.ranks import this_rank
from metier.settings import Settings, learning_rate
from metier.sources.read import read_corpus
from metier.training import parallel
from metier.training.loop import Recipe, StepMetrics, train
from metier.training.sharding import shard, sharded
from metier.training.stream import field_documents, steps

N_RANKS = 2


def worker(data: str, n_steps: int, sharding: str, out: Path) -> None:
    """Train one step that is not counted and `n_steps` that are; the first rank writes rates and losses."""
    settings = Settings(data=(data,))
    fit_threads(fixed=True)
    keep_memory()
    parallel.join(settings.rank_timeout)
    base = load_base(settings.model)
    reader = PackReader(add_method(base.model, "lora", settings.r, settings.alpha, settings.seed))
    if sharding == "fsdp":
        shard(reader.model)
    field = field_documents(read_corpus([data]).examples, base.encoder.encode, settings.seed)
    recipe = Recipe(n_steps + 1, learning_rate(base.n_parameters), settings.pack_tokens)
    seen: list[StepMetrics] = []
    with sharded(reader.model):
        train(reader, lambda: steps(field, [], 0.0, settings.step_tokens), recipe, seen.append)
    if this_rank().is_first:
        counted = seen[1:]
        rate = sum(m.tokens for m in counted) / sum(m.seconds for m in counted)
        out.write_text(json.dumps({"tokens_per_s": rate, "losses": [m.loss for m in seen]}))


def measured(command: list[str], arguments: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        subprocess.run([*command, __file__, *arguments, "--worker", str(out)], check=True, env=dict(os.environ))
        found: dict[str, Any] = json.loads(out.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--data", default="pack:clinical")
    parser.add_argument("--sharding", nargs="+", default=["none", "fsdp"])
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.data, args.steps, args.sharding[0], args.worker)
        return
    given = ["--data", args.data, "--steps", str(args.steps), "--sharding"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(N_RANKS)]
    print("| pair | sharding | one process, tokens/s | two ranks, tokens/s | ratio | losses differ by |")
    print("| --- | --- | --- | --- | --- | --- |")
    ratios: dict[str, list[float]] = {name: [] for name in args.sharding}
    for pair in range(args.pairs):
        for name in args.sharding:
            one, two = measured([sys.executable], [*given, "none"]), measured(torchrun, [*given, name])
            apart = max(abs(a - b) / a for a, b in zip(one["losses"], two["losses"], strict=True))
            ratios[name].append(two["tokens_per_s"] / one["tokens_per_s"])
            print(
                f"| {pair + 1} | {name} | {one['tokens_per_s']:.0f} | {two['tokens_per_s']:.0f} | "
                f"{ratios[name][-1]:.2f} | {apart:.1e} |",
                flush=True,
            )
    for name, found in ratios.items():
        print(f"| median | {name} | | | **{statistics.median(found):.2f}** | |")


if __name__ == "__main__":
    main()
