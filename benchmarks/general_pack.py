"""Does the general pack tell models apart? Score the base model and randomly perturbed copies of it on all of the pack.

Usage:  python benchmarks/general_pack.py [--model smollm2-135m-instruct] [--noise 0.02 0.05 0.1]

Each matrix W of a perturbed copy has Gaussian noise of `noise` times its own root mean square added (seed 0). Prints
one
line a copy: accuracy on the choices in cloze form with its 95 % interval, the probability given to the right choice,
bits per byte of the texts and of the good answers to the requests.
"""

import argparse
import math
from collections.abc import Sequence

import torch

from metier.evidence.retention import choice_probabilities
from metier.evidence.score import Items, Record, encode_items, score_general
from metier.evidence.statistics import bits_per_byte
from metier.models.load import load_base
from metier.models.packing import PackReader
from metier.sources import general


def perturb(model: torch.nn.Module, noise: float) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                size = noise * parameter.square().mean().sqrt()
                parameter.add_(torch.randn(parameter.shape, generator=generator) * size)


def line(name: str, records: Sequence[Record], choices: Sequence[Record]) -> str:
    probabilities = [choice_probabilities(record) for record in choices]
    right = [int(record["label"]) for record in choices]
    hits = sum(p.index(max(p)) == label for p, label in zip(probabilities, right, strict=True))
    accuracy = hits / len(choices)
    half_width = 1.96 * math.sqrt(accuracy * (1 - accuracy) / len(choices))
    certainty = sum(p[label] for p, label in zip(probabilities, right, strict=True)) / len(choices)
    texts = bits_per_byte([r for r in records if str(r["slice"]).startswith("text/")])
    good = bits_per_byte([r for r in records if r["slice"] == "chat/good answers"])
    kinds = sorted({str(record["slice"]) for record in choices})
    by_kind = []
    for kind in kinds:
        of_kind = [(p, n) for p, n, r in zip(probabilities, right, choices, strict=True) if r["slice"] == kind]
        share = sum(p.index(max(p)) == n for p, n in of_kind) / len(of_kind)
        by_kind.append(f"{kind.removeprefix('choices/')} {share:.0%}")
    share = f"{accuracy:.1%} ± {half_width:.1%}"
    return f"| {name} | {share} | {certainty:.3f} | {texts:.3f} | {good:.3f} | {', '.join(by_kind)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--noise", type=float, nargs="*", default=[0.05, 0.1, 0.2])
    args = parser.parse_args()
    print("| model | choices right (chance 25 %) | p(right choice) | texts, bits per byte | good answers | by kind |")
    print("| --- | --- | --- | --- | --- | --- |")
    for noise in (0.0, *args.noise):
        base = load_base(args.model)
        if noise:
            perturb(base.model, noise)
        requests = general.measured_requests()
        items: Items = encode_items(base.encoder, [], general.texts(), requests, None, general.choices())
        records, choices = score_general(PackReader(base.model), items, 1024, lambda _: None)
        print(line(f"noise {noise:g}" if noise else args.model, records, choices), flush=True)


if __name__ == "__main__":
    main()
