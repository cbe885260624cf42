"""How long until the held-out bits per byte that TRL reaches after 100 steps of its default batches of 8?

Each seed: TRL's SFTTrainer on the first 800 rows of --train, then `metier adapt` on the same file with 1.19 times the
tokens each time, from 8,192, until its adapter is as good on --held-out. Both adapters are scored by the same code.
Each run is a process of its own; seconds are those of the training steps, and of the whole process in brackets. What
was done is kept in OUT/runs.jsonl, so that the benchmark can be stopped and started again.

The peer needs its own environment, see against_trl.py.
Usage:
    python benchmarks/time_to_quality.py --train FILE.jsonl --held-out FILE.jsonl [--seeds 0 1 2] [--threads 2]
        [--options "--replay 0"] [--out runs/time-to-quality] [--peer-python .peer/bin/python]
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from metier.models.adapters import load_adapter
from metier.models.embedded import embedded_folder
from metier.models.load import load_base
from metier.models.packing import PackReader, packs_of
from metier.runs import read_json, read_jsonl
from metier.settings import DEFAULT_MODEL
from metier.sources.read import read_corpus

PEER_ROWS = 800  # 100 steps of 8
FIRST_TOKENS = 8192
TRIES = 17  # up to 131,072 tokens


def bits_per_byte(adapter: Path | None, held_out: str) -> float:
    """Of the answers of the held-out rows."""
    base = load_base(DEFAULT_MODEL)
    reader = PackReader(load_adapter(base.model, adapter) if adapter else base.model)
    documents = [d for e in read_corpus([held_out]).examples for d in base.encoder.encode(e)]
    nats = sum(float(reader.token_nll(p).sum()) for p in packs_of(documents, 1024, with_end=False))
    return nats / math.log(2) / sum(d.n_bytes for d in documents)


def timed(command: list[str]) -> tuple[str, float]:
    """(what it printed, seconds of the whole process)."""
    started = time.perf_counter()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return done.stdout, time.perf_counter() - started


def peer(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    folder = args.out / f"trl-{seed}"
    command = [args.peer_python, str(Path(__file__).with_name("trl_sft.py")), "--rows", args.train]
    command += ["--model", str(embedded_folder(DEFAULT_MODEL)), "--n", str(PEER_ROWS), "--threads", str(args.threads)]
    printed, whole_s = timed([*command, "--seed", str(seed), "--save", str(folder)])
    result = json.loads(printed.splitlines()[-1])
    bits = bits_per_byte(folder, args.held_out)
    return {"arm": "trl", "seed": seed, "train_s": result["train_s"], "whole_s": whole_s, "bits": bits}


def ours(args: argparse.Namespace, seed: int, tokens: int) -> dict[str, Any]:
    run = args.out / f"metier-{seed}-{tokens}"
    shutil.rmtree(run, ignore_errors=True)
    command = [sys.executable, "-m", "metier", "adapt", args.train, "--out", str(run), "--tokens", str(tokens)]
    command += ["--evidence", "none", "--seed", str(seed), "--threads", str(args.threads)]
    _, whole_s = timed([*command, *args.options.split()])
    train_s = read_json(run / "results.json")["cost"]["train_s"]
    bits = bits_per_byte(run / "adapter", args.held_out)
    return {"arm": "metier", "seed": seed, "tokens": tokens, "train_s": train_s, "whole_s": whole_s, "bits": bits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--held-out", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--options", default="", help="of `metier adapt`")
    parser.add_argument("--out", type=Path, default=Path("runs/time-to-quality"))
    parser.add_argument("--peer-python", default=".peer/bin/python")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    record = args.out / "runs.jsonl"
    done = list(read_jsonl(record)) if record.exists() else []

    def kept(result: dict[str, Any]) -> dict[str, Any]:
        with record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        return result

    def found(**wanted: Any) -> dict[str, Any] | None:
        return next((run for run in done if all(run.get(k) == v for k, v in wanted.items())), None)

    print(f"base: {bits_per_byte(None, args.held_out):.4f} bits per byte")
    print("| seed | TRL, bits per byte | s | metier, tokens | bits per byte | s | times faster |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    ratios = []
    for seed in args.seeds:
        theirs = found(arm="trl", seed=seed) or kept(peer(args, seed))
        for tokens in (round(FIRST_TOKENS * 2 ** (k / 4)) for k in range(TRIES)):
            mine = found(arm="metier", seed=seed, tokens=tokens) or kept(ours(args, seed, tokens))
            if mine["bits"] <= theirs["bits"]:
                break
        else:
            sys.exit(f"seed {seed}: {theirs['bits']:.4f} bits per byte were not reached in {tokens:,} tokens")
        ratios.append(theirs["train_s"] / mine["train_s"])
        print(
            f"| {seed} | {theirs['bits']:.4f} | {theirs['train_s']:.0f} ({theirs['whole_s']:.0f}) | {tokens:,} "
            f"| {mine['bits']:.4f} | {mine['train_s']:.0f} ({mine['whole_s']:.0f}) | {ratios[-1]:.1f} |",
            flush=True,
        )
    print(f"| median | | | | | | **{statistics.median(ratios):.1f}** |")


if __name__ == "__main__":
    main()
