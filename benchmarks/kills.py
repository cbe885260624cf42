"""SIGKILL `metier adapt` at random moments, resume it, and compare the adapter with that of a run never killed.

Usage:
    python benchmarks/kills.py [--kills 50] [--model tiny] [--tokens 12000] [--evidence quick] [--out runs/kills]
        [--seed 0]

The tiny model and its rows are made by the script. Another --model takes --data. What was done is kept in
OUT/kills.jsonl, so that the benchmark itself can be stopped and started again. Every run is a process of its own: the
interpreter is started once and forked, since importing torch a hundred times would take longer than the runs.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import metier.adapt  # noqa: F401  # imported before the forks
from metier.cli import main as metier_main
from metier.runs import RunFolder, read_jsonl

TESTS = Path(__file__).parent.parent / "tests"


def forked(arguments: list[str], log: Path, kill_after_s: float | None = None) -> tuple[int | None, float]:
    """(exit code, or None if it was killed; seconds) of `metier ARGUMENTS` in a process of its own."""
    started = time.monotonic()
    child = os.fork()
    if not child:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os._exit(metier_main(arguments))
    ended, status = 0, 0
    while kill_after_s is not None and not ended and time.monotonic() - started < kill_after_s:
        time.sleep(0.001)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        if kill_after_s is not None:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    code = None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
    return code, time.monotonic() - started


def tiny(folder: Path) -> tuple[str, str]:
    """(model folder, rows), made in a process of its own so that no thread of torch is started before the forks."""
    model, rows = folder / "model", folder / "rows.jsonl"
    if not rows.exists():
        child = os.fork()
        if not child:
            sys.path.insert(0, str(TESTS))
            from command_line import valves
            from tiny import save_tiny

            save_tiny(model, max_position_embeddings=2048)
            rows.write_text("".join(json.dumps(row) + "\n" for row in valves(400)), encoding="utf-8")
            os._exit(0)
        os.waitpid(child, 0)
    return str(model), str(rows)


def adapter_sha256(run: Path) -> str:
    return hashlib.sha256((run / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def where(run: RunFolder) -> str:
    """What the run was doing when it was killed."""
    steps = sorted(run.checkpoints.glob("step-*"))
    after = (run.evidence / "scores-adapted.jsonl", run.adapter, steps[-1] if steps else run.checkpoints)
    names = (("report", run.results), ("writing results", after[0]), ("adapted arm", after[1]), ("training", after[2]))
    earlier = (("before training", run.evidence / "base.json"), ("base arm", run.plan), ("planning", run.origin))
    return next((name for name, path in (*names, *earlier) if path.exists()), "reading")


def kill_and_resume(number: int, command: list[str], out: Path, whole_s: float, seed: int) -> dict[str, object]:
    """One kill at a random moment of the run, one resume."""
    rng = random.Random(f"{seed}/{number}")
    run = out / f"kill-{number:03d}"
    log = out / f"kill-{number:03d}.log"
    while True:
        shutil.rmtree(run, ignore_errors=True)
        at_s = rng.uniform(0, whole_s)
        code, seconds = forked([*command, "--out", str(run)], log, at_s)
        if code is None:
            break
        whole_s = min(whole_s, seconds)  # the machine is less busy now than it was when the whole run was timed
    found = where(RunFolder(run))
    resumable = RunFolder(run).origin.exists()
    code, seconds = forked(["adapt", "--resume", str(run)] if resumable else [*command, "--out", str(run)], log)
    sha256 = adapter_sha256(run) if code == 0 else f"exit {code}"
    if code == 0:
        shutil.rmtree(run)
    return {"kill": number, "at_s": round(at_s, 3), "while": found, "resumed_s": round(seconds, 2), "sha256": sha256}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--data")
    parser.add_argument("--tokens", type=int, default=12000)
    parser.add_argument("--evidence", default="quick", help="none: more of the kills fall into training")
    parser.add_argument("--out", type=Path, default=Path("runs/kills"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.model == "tiny":
        os.environ["METIER_CACHE"] = str(args.out / "cache")
    elif not args.data:
        parser.error("--model takes --data")
    model, data = tiny(args.out) if args.model == "tiny" else (args.model, args.data)
    command = ["adapt", data, "--model", model, "--tokens", str(args.tokens), "--minutes", "0.01", "--threads", "1"]
    command += ["--evidence", args.evidence, "--checkpoint-s", "0.2", "--step-tokens", "512", "--pack-tokens", "512"]
    whole, timed = whole_run(args.out, command)
    record = args.out / "kills.jsonl"
    done = list(read_jsonl(record)) if record.exists() else []
    for number in range(len(done), args.kills):
        done.append(kill_and_resume(number, command, args.out, timed, args.seed))
        with record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print(json.dumps(done[-1]), file=sys.stderr, flush=True)
    same = sum(kill["sha256"] == whole for kill in done)
    moments = ", ".join(f"{name} {n}" for name, n in Counter(str(kill["while"]) for kill in done).most_common())
    print("| model | tokens | a run, s | kills | identical adapters | killed while |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(f"| {args.model} | {args.tokens:,} | {timed:.1f} | {len(done)} | **{same} of {len(done)}** | {moments} |")
    sys.exit(same != len(done))


def whole_run(out: Path, command: list[str]) -> tuple[str, float]:
    """(sha256 of the adapter, seconds) of the run that is never killed; the second of two, which finds the answers of
    the base kept as the killed runs do."""
    kept = out / "whole.json"
    if not kept.exists():
        for name in ("whole-first", "whole"):
            shutil.rmtree(out / name, ignore_errors=True)
            code, seconds = forked([*command, "--out", str(out / name)], out / "whole.log")
            if code != 0:
                sys.exit(f"the run that is not killed ended with {code}: see {out / 'whole.log'}")
        kept.write_text(json.dumps([adapter_sha256(out / "whole"), seconds]), encoding="utf-8")
    sha256, seconds = json.loads(kept.read_text(encoding="utf-8"))
    return sha256, seconds


if __name__ == "__main__":
    main()
