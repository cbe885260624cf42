"""Small true changes, made by real short runs: a gain of 3 % on the field, a loss of 2 % on general text.

A short run is trained (for a loss: at several times the usual rate, without replay), and its strength is turned until
many documents together have changed by that share of the base's bits. Their scores are written as a run writes
them, for `python benchmarks/error_rates.py OUT/gain-0 … --as-made`. What is there is not made again.

Usage:
    python benchmarks/small_changes.py [--data pack:clinical] [--seeds 3] [--documents 200] [--out runs/small-changes]
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from metier.evidence.gain import FIELD_SLICE
from metier.evidence.score import Items, encode_items, score_field, score_general
from metier.evidence.statistics import Record, bits_per_byte
from metier.models.adapters import at_strength, disabled, keep_memory
from metier.models.load import BaseModel, load_base
from metier.models.methods import add_method
from metier.models.packing import PackReader
from metier.runs import RunFolder, write_jsonl
from metier.settings import DEFAULT_MODEL, Settings, learning_rate
from metier.sources import general
from metier.sources.examples import Example
from metier.sources.read import read_corpus
from metier.sources.split import split_corpus
from metier.training.loop import Recipe, train
from metier.training.stream import FIELD, Part, Step, field_documents, steps

STEP_TOKENS = 512
TRIES, MOST = 8, 2.0  # strengths tried, and the largest
CLOSE = 0.001  # to the wanted share is near enough


@dataclass(frozen=True)
class Change:
    """share: of the base's bits, negative for a loss; rate: times the usual one."""

    name: str
    share: float
    n_steps: int
    rate: float


CHANGES = (Change("gain", 0.03, 3, 0.2), Change("loss", -0.02, 24, 4.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="pack:clinical")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/small-changes"))
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_memory()
    split = split_corpus(read_corpus([args.data]).examples, 0)
    field = (*split.test, *split.select)[: args.documents]
    for seed in range(args.seeds):
        for change in CHANGES:
            run = RunFolder(args.out / f"{change.name}-{seed}")
            if not (run.evidence / "scores-adapted.jsonl").exists():
                make(change, seed, split.train, field, run)


def make(change: Change, seed: int, train_on: Sequence[Example], field: Sequence[Example], run: RunFolder) -> None:
    base = load_base(DEFAULT_MODEL)
    reader = PackReader(add_method(base.model, "lora", Settings.r, Settings.alpha, seed, 0))
    is_gain = change.share > 0
    items = encode_items(base.encoder, field if is_gain else [], [] if is_gain else general.texts(), [], [], [])
    with disabled(reader.model):
        before = scores(reader, items)
    fit(change, seed, base, reader, train_on)
    strength, after = turned(reader, items, before, change.share)
    run.evidence.mkdir(parents=True, exist_ok=True)
    write_jsonl(run.evidence / "scores-base.jsonl", before)
    write_jsonl(run.evidence / "scores-adapted.jsonl", after)
    print(f"{run.path}: {saved(before, after):+.2%} of the bits at strength {strength:.2f}", flush=True)


def fit(change: Change, seed: int, base: BaseModel, reader: PackReader, train_on: Sequence[Example]) -> None:
    def stream() -> Iterator[Step]:
        return steps([Part(FIELD, 1.0, field_documents(train_on, base.encoder.encode, seed))], STEP_TOKENS)

    torch.manual_seed(seed)
    train(
        reader,
        stream,
        Recipe(change.n_steps, change.rate * learning_rate(base.n_parameters), STEP_TOKENS),
        lambda _: None,
    )


def turned(reader: PackReader, items: Items, before: list[Record], wanted: float) -> tuple[float, list[Record]]:
    """The strength at which that share is saved, and the scores there; found on the line between the nearest strengths
    that save less and more.

    Raises:
        SystemExit: the run changed less, even at twice its strength.
    """
    low, high = (0.0, 0.0), (MOST, 0.0)
    strength = 1.0
    for _ in range(TRIES):
        with at_strength(reader.model, strength):
            after = scores(reader, items)
        found = saved(before, after)
        print(f"    strength {strength:.3f}: {found:+.2%}", flush=True)
        if abs(found - wanted) < CLOSE:
            return strength, after
        if found / wanted < 1:
            low = (strength, found / wanted)
        else:
            high = (strength, found / wanted)
        share = (1 - low[1]) / (high[1] - low[1]) if high[1] else 0.5
        strength = low[0] + share * (high[0] - low[0])
    raise SystemExit(f"no strength up to {MOST:g} changes the bits by {wanted:+.0%}: give the run more steps.")


def scores(reader: PackReader, items: Items) -> list[Record]:
    field, _ = score_field(reader, items, Settings.pack_tokens, lambda _: None)
    texts, _ = score_general(reader, items, Settings.pack_tokens, lambda _: None)
    return [r for r in (*field, *texts) if r["slice"] == FIELD_SLICE or str(r["slice"]).startswith("text/")]


def saved(before: Sequence[Record], after: Sequence[Record]) -> float:
    return 1 - bits_per_byte(after) / bits_per_byte(before)


if __name__ == "__main__":
    main()
