"""Adapters that learned nothing: how often is one called adapted, or forgetful?

Each is noise of the size of a real update: of every adapted layer two random matrices whose product has the norm of
what an adapter of a real run adds there. All are measured as a run measures, on fewer items, against the same base.
Beside the verdict: the claims that it rests on, and the rule that is used without statistics ('forgot' when accuracy
falls by over 5 points on 26 questions). What was done is kept in OUT/adapters.jsonl, so that it can be stopped.

Usage:
    python benchmarks/false_alarms.py --like RUN [--adapters 100] [--size 1.0] [--data pack:clinical]
        [--out runs/false-alarms]
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from metier.evidence.arms import Arm, score_arm
from metier.evidence.gain import gain
from metier.evidence.retention import choice_probabilities, retention
from metier.evidence.score import Items, encode_items
from metier.evidence.verdict import decide
from metier.models.adapters import disabled, keep_memory, load_adapter
from metier.models.generate import answer_all, prompts_of
from metier.models.load import BaseModel, load_base
from metier.models.packing import PackReader
from metier.models.threads import fit_threads
from metier.progress import Silent
from metier.runs import RunFolder, read_json, read_jsonl
from metier.settings import Settings
from metier.sources import general
from metier.sources.read import read_corpus

FIELD, TEXTS, REQUESTS, QUESTIONS = 24, 12, 12, 26
ANSWER_TOKENS = 48
POINTS = 0.05


def layers(model: Any) -> Iterator[tuple[LoraLayer, str]]:
    for module in model.modules():
        if isinstance(module, LoraLayer):
            yield module, next(iter(module.lora_A))


def norms(model: Any) -> list[float]:
    """Of the product of each adapted layer's two matrices."""
    return [
        float((m.lora_B[name].weight.detach() @ m.lora_A[name].weight.detach()).norm()) for m, name in layers(model)
    ]


@torch.no_grad()
def fill_with_noise(model: Any, sizes: list[float], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for (module, name), size in zip(layers(model), sizes, strict=True):
        a, b = module.lora_A[name].weight, module.lora_B[name].weight
        a.copy_(torch.randn(a.shape, generator=generator))
        b.copy_(torch.randn(b.shape, generator=generator))
        b.mul_(size / (b @ a).norm())


def measured_items(base: BaseModel, data: str, held_out: set[str], own: list[str]) -> Items:
    field = [e for e in read_corpus([data]).examples if e.id in held_out][:FIELD]
    requests = general.measured_requests()[:REQUESTS]
    texts, questions = general.measured_texts()[:TEXTS], general.choices()[:QUESTIONS]
    return encode_items(base.encoder, field, texts, requests, own, questions)


def arm(reader: PackReader, base: BaseModel, items: Items) -> Arm:
    requests = general.measured_requests()[:REQUESTS]
    answers = answer_all(
        reader.model, base.encoder, prompts_of(base.encoder, [r.request for r in requests]), ANSWER_TOKENS
    )
    with_length = [(r.id, len(base.encoder.text_ids(r.answer)), a) for r, a in zip(requests, answers, strict=True)]
    return score_arm(reader, items, with_length, Settings.pack_tokens, Silent())


def n_right(found: Arm) -> int:
    records: list[Any] = found.choices
    probabilities = [(choice_probabilities(r), r["label"]) for r in records]
    return sum(p.index(max(p)) == label for p, label in probabilities)


def outcome(before: Arm, after: Arm) -> dict[str, Any]:
    gained = gain(before.scores, after.scores)
    kept = retention(before.scores, after.scores, before.choices, after.choices, before.answers, after.answers)
    return {
        "decision": decide(gained, kept)["decision"],
        "relative": gained["relative"],
        "gain_shown": gained["relative_ci_low"] > 0,
        "loss_shown": gained["relative_ci_high"] < 0,
        "failed": [one["name"] for one in kept["slices"] if one["passed"] is False],
        "text": next(one["diff"] / one["base"] for one in kept["slices"] if one["name"] == "text"),
        "raw_rule": (n_right(before) - n_right(after)) / len(before.choices) > POINTS,
    }


def table(rows: list[dict[str, Any]]) -> None:
    n = len(rows)
    counts = {
        "called adapted": sum(r["decision"] == "adapted" for r in rows),
        "called forgetful": sum(r["decision"] == "forgot" for r in rows),
        "called no gain": sum(r["decision"] == "no_gain" for r in rows),
        "a gain shown": sum(r["gain_shown"] for r in rows),
        "the field shown to be worse": sum(r["loss_shown"] for r in rows),
        "forgot by the raw rule": sum(r["raw_rule"] for r in rows),
    }
    print(f"| of {n} adapters of noise | |\n| --- | ---: |")
    for name, count in counts.items():
        print(f"| {name} | {count} |")
    mean = sum(r["relative"] for r in rows) / n, sum(r["text"] for r in rows) / n
    print(f"mean change of the field's bits {-mean[0]:+.3%}, of general text {mean[1]:+.3%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--like", required=True, help="a finished run of metier adapt")
    parser.add_argument("--adapters", type=int, default=100)
    parser.add_argument("--size", type=float, default=1.0, help="times the real update")
    parser.add_argument("--data", default="pack:clinical")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", default="runs/false-alarms")
    args = parser.parse_args()
    run, out = RunFolder(Path(args.like)), Path(args.out) / "adapters.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = [row for row in read_jsonl(out) if row["size"] == args.size] if out.exists() else []
    keep_memory()
    fit_threads(args.threads)
    base = load_base(read_json(run.results)["model"]["base"])
    reader = PackReader(load_adapter(base.model, run.adapter))
    sizes = [args.size * norm for norm in norms(reader.model)]
    requests = [r.request for r in general.measured_requests()[:REQUESTS]]
    with disabled(reader.model):
        own = [
            a.answer for a in answer_all(reader.model, base.encoder, prompts_of(base.encoder, requests), ANSWER_TOKENS)
        ]
        items = measured_items(base, args.data, set(read_json(run.splits)["test"]), own)
        before = arm(reader, base, items)
    for seed in range(len(rows), args.adapters):
        fill_with_noise(reader.model, sizes, seed)
        rows.append({"size": args.size, "seed": seed, **outcome(before, arm(reader, base, items))})
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    table(rows)


if __name__ == "__main__":
    main()
