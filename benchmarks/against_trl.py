"""`metier bench` and TRL's SFTTrainer on the same rows, in turn, each in its own process; ratios pair by pair.

The peer needs its own environment:
    python -m venv .peer && .peer/bin/pip install torch==2.13.0 trl==1.16.0 peft==0.21.2 datasets
Usage:
    python benchmarks/against_trl.py --rows FILE.jsonl [--n 48] [--pairs 3] [--peer-mode default] [--peer-batch 8]
        [--peer-python .peer/bin/python] [--peer-script benchmarks/trl_sft.py]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from metier.models.embedded import embedded_folder
from metier.settings import DEFAULT_MODEL


def last_json(command: list[str]) -> dict[str, Any]:
    """Run a command and read the JSON that it prints last."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    text = done.stdout
    result: dict[str, Any] = json.loads(text[text.index("{", text.rfind("\n{") + 1 if "\n{" in text else 0) :])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--n", type=int, default=48)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-mode", default="default")
    parser.add_argument("--peer-batch", type=int, default=8)
    parser.add_argument("--peer-python", default=".peer/bin/python")
    parser.add_argument("--peer-script", default=str(Path(__file__).with_name("trl_sft.py")))
    args = parser.parse_args()
    model = str(embedded_folder(DEFAULT_MODEL))
    ours_command = [sys.executable, "-m", "metier", "bench", args.rows, "--rows", str(args.n), "--json"]
    ours_command += ["--threads", str(args.threads)]
    peer_command = [args.peer_python, args.peer_script, "--model", model, "--rows", args.rows, "--n", str(args.n)]
    peer_command += ["--mode", args.peer_mode, "--batch", str(args.peer_batch), "--threads", str(args.threads)]
    speed, memory = [], []
    print("| pair | metier, examples/s | TRL, examples/s | ratio | metier, GB | TRL, GB | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for pair in range(args.pairs):
        ours, peer = last_json(ours_command)["training"], last_json(peer_command)
        ours_gb = ours["peak_rss_bytes"] / 2**30
        speed.append(ours["examples_per_s"] / peer["examples_per_s"])
        memory.append(ours_gb / peer["peak_rss_gb"])
        print(
            f"| {pair + 1} | {ours['examples_per_s']:.2f} | {peer['examples_per_s']:.2f} | {speed[-1]:.2f} "
            f"| {ours_gb:.2f} | {peer['peak_rss_gb']:.2f} | {memory[-1]:.2f} |",
            flush=True,
        )
    print(f"| median | | | **{statistics.median(speed):.2f}** | | | **{statistics.median(memory):.2f}** |")


if __name__ == "__main__":
    main()
