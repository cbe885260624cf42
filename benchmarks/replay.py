"""How much replay, of what; and do mined tasks help? Short runs of a fixed number of tokens.

Usage:
    python benchmarks/replay.py --out replay.jsonl --field clinical=pack:clinical --field manual=FOLDER
        [--shares 0 0.05 0.15 0.25] [--seeds 0 1] [--sources answers likeliest sampled] [--mined 0 0.2]
        [--tokens 8192] [--step-tokens 512]
    python benchmarks/replay.py --out replay.jsonl --table

One JSON line a run. Runs whose line is in the file are left out, so a benchmark that was stopped goes on. The split is
the same for every seed; the seed orders the rows and starts the adapter. The figures do not depend on the speed of the
machine. Where documents are longer than a step, the steps hold more than that: give --step-tokens 1024 for windows of
long texts. Sources, the base's answers to general requests: the first likeliest ones and then sampled ones, or all of
one kind.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from metier.evidence.answers import repetition
from metier.evidence.score import encode_items, score_field, score_general
from metier.evidence.statistics import bits_per_byte
from metier.evidence.written import WRITTEN_TOKENS, is_straight
from metier.models.adapters import disabled, keep_memory
from metier.models.encoding import Encoded
from metier.models.generate import Answer, AnswerCache, answer_all, prompts_of
from metier.models.load import BaseModel, load_base
from metier.models.methods import add_method
from metier.models.packing import PackReader
from metier.settings import DEFAULT_MODEL, Settings, learning_rate
from metier.sources import general
from metier.sources.mine import mined_tasks
from metier.sources.read import read_corpus
from metier.sources.split import Split, split_corpus
from metier.sources.wheels import cache_folder
from metier.training.loop import Recipe, train
from metier.training.mix import Beside, mixed
from metier.training.replay import LIKELIEST, plan_replay, replay_documents
from metier.training.stream import MINED, REPLAY, Step, steps

PACK_TOKENS = 512
N_FIELD, N_TEXTS, N_REQUESTS, N_PROMPTED = 40, 30, 36, 60
MOST_CHARACTERS = 2000  # of a held-out text are scored
HEALTH_TOKENS = 64  # limit of a generated answer


@dataclass(frozen=True)
class Trial:
    """One run: the key of its line."""

    field: str
    source: str
    share: float
    seed: int
    tokens: int
    mined: float = 0.0
    step_tokens: int = 512

    @property
    def key(self) -> list[Any]:
        source = self.source if self.share else "none"
        mined = f" + {self.mined:.0%} mined" if self.mined else ""
        return [self.field, f"{source}{mined}", self.share, self.seed, self.tokens, self.step_tokens]


class Bench:
    """The splits of the fields, and the lines written so far."""

    def __init__(self, out: Path, fields: dict[str, str], model: str) -> None:
        self.out, self.model = out, model
        self.splits: dict[str, Split] = {}
        for name, data in fields.items():
            corpus = read_corpus([data])
            self.splits[name] = split_corpus(corpus.examples, 0)
        self.lines = read_lines(out)

    def known(self, key: list[Any]) -> bool:
        self.lines = read_lines(self.out)  # another process may write it, too
        return any(line["key"] == key for line in self.lines)

    def write(self, key: list[Any], figures: dict[str, Any]) -> None:
        self.lines.append({"key": key, **figures})
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.lines[-1]) + "\n")
        print(json.dumps(self.lines[-1]), flush=True)

    def run(self, trial: Trial) -> None:
        """Measure the base of this field if nobody did, train, measure."""
        if self.known(trial.key):
            return
        base, reader = prepare(self.model, trial)
        cache = AnswerCache(cache_folder(), base.sha256, base.encoder, WRITTEN_TOKENS)
        requests = general.measured_requests()[:N_REQUESTS]
        with disabled(reader.model):
            own = [answer.answer for answer in cache.answers(reader.model, base.encoder, [r.request for r in requests])]
            written = replay_of(trial, base, reader, cache)
        split = self.splits[trial.field]
        held_out = [replace(e, text=e.text[:MOST_CHARACTERS]) for e in split.test[:N_FIELD]]
        prompted = mined_tasks(split.test)[:N_PROMPTED]
        items = encode_items(base.encoder, (*held_out, *prompted), general.texts()[:N_TEXTS], requests, own, [])
        if not self.known([trial.field, "base"]):
            with disabled(reader.model):
                self.write([trial.field, "base"], measure(base, reader, items))
        started = time.monotonic()
        trained = fit(trial, base, reader, split, written)
        seconds = time.monotonic() - started
        self.write(trial.key, {**measure(base, reader, items), **trained, "seconds": round(seconds)})


def prepare(model: str, trial: Trial) -> tuple[BaseModel, PackReader]:
    base = load_base(model)
    return base, PackReader(add_method(base.model, "lora", 16, 32, trial.seed, 0))


def replay_of(trial: Trial, base: BaseModel, reader: PackReader, cache: AnswerCache) -> list[Encoded]:
    n = plan_replay(trial.tokens, trial.share, 0.0, "answers", len(general.replay_requests())).answers
    by_chance = AnswerCache(cache_folder(), base.sha256, base.encoder, WRITTEN_TOKENS, sampled=True)
    requests = general.replay_requests()[:n]

    def likeliest(asked: Sequence[str]) -> list[Answer]:
        return cache.answers(reader.model, base.encoder, asked)

    def sampled(asked: Sequence[str]) -> list[Answer]:
        return by_chance.answers(reader.model, base.encoder, asked)

    def mixture() -> list[Answer]:
        return [a for a in likeliest(requests[:LIKELIEST]) if is_straight(a)] + sampled(requests[LIKELIEST:])

    written = {"likeliest": lambda: likeliest(requests), "sampled": lambda: sampled(requests), "answers": mixture}
    return replay_documents(base.encoder, written[trial.source]())


def fit(trial: Trial, base: BaseModel, reader: PackReader, split: Split, written: Sequence[Encoded]) -> dict[str, Any]:
    torch.manual_seed(trial.seed)
    recipe = Recipe(round(trial.tokens / trial.step_tokens), learning_rate(base.n_parameters), PACK_TOKENS)

    settings = Settings(data=(trial.field,), seed=trial.seed)
    beside = Beside(mined=mined_tasks(split.train) if trial.mined else (), written=written)
    shares = {MINED: trial.mined, REPLAY: trial.share}

    def stream() -> Iterator[Step]:
        others = beside.documents(base.encoder.encode, trial.seed)
        return steps(mixed(split.train, base.encoder.encode, others, shares, settings), trial.step_tokens)

    losses: list[float] = []
    done = train(reader, stream, recipe, lambda metrics: losses.append(metrics.loss))
    return {"steps": done.n_steps, "tokens": done.n_tokens, "replay_tokens": done.n_replay_tokens, "losses": losses}


def measure(base: BaseModel, reader: PackReader, items: Any) -> dict[str, Any]:
    """Bits per byte of the field, of general text, of good answers and of the base's own; the health of new answers."""
    field, _ = score_field(reader, items, PACK_TOKENS, lambda _: None)
    rest, _ = score_general(reader, items, PACK_TOKENS, lambda _: None)
    answers = answer_all(
        reader.model, base.encoder, prompts_of(base.encoder, [r.request for r in items.requests]), HEALTH_TOKENS
    )
    slices = {
        "field": [r for r in field if not str(r["group"]).startswith("mined")],
        "prompted": [r for r in field if str(r["group"]).startswith("mined")],
        "text": [r for r in rest if str(r["slice"]).startswith("text/")],
        "good": [r for r in rest if r["slice"] == "chat/good answers"],
        "own": [r for r in rest if r["slice"] == "chat/own answers"],
    }
    return {
        **{name: bits_per_byte(records) for name, records in slices.items() if records},
        "repetition": statistics.mean(repetition(a.answer) for a in answers),
        "ended": statistics.mean(float(a.ended) for a in answers),
        "length": statistics.mean(a.tokens for a in answers),
        "capital": answers[0].answer,
    }


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Change against the base of the same field, seed by seed; one row a field, source, share and length."""
    bases = {line["key"][0]: line for line in lines if line["key"][1] == "base"}
    runs: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines:
        if line["key"][1] != "base":
            runs.setdefault((*line["key"][:3], *line["key"][4:]), []).append(line)
    head = (
        "| data | replay | share | tokens | field | prompted | text | good answers | own answers | repetition | ended "
        "| length |"
    )
    rows = [head, "|" + " --- |" * 12]
    for (field, source, share, tokens, step_tokens), group in sorted(runs.items()):
        base = bases[field]

        def change(name: str, spec: str, relative: bool = False, group: Any = group, base: Any = base) -> str:
            if name not in base:
                return "–"
            values = [line[name] / base[name] - 1 if relative else line[name] - base[name] for line in group]
            return " / ".join(format(value, spec) for value in values)

        cells = [
            change("field", "+.1%", True),
            change("prompted", "+.1%", True),
            change("text", "+.2%", True),
            change("good", "+.1%", True),
        ]
        cells += [
            change("own", "+.3f"),
            change("repetition", "+.2f"),
            change("ended", "+.2f"),
            change("length", "+.0f"),
        ]
        rows.append(f"| {field} | {source} | {share:.0%} | {tokens:,} in {step_tokens:,} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--field", action="append", default=[], metavar="NAME=DATA")
    parser.add_argument("--shares", type=float, nargs="*", default=[0.0, 0.15, 0.05, 0.25])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--sources", nargs="*", default=["answers"], choices=("answers", "likeliest", "sampled"))
    parser.add_argument("--mined", type=float, nargs="*", default=[0.0])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--step-tokens", type=int, default=512)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    args = parser.parse_args()
    if args.table:
        print(table(read_lines(args.out)))
        return
    torch.set_num_threads(1)
    keep_memory()
    bench = Bench(args.out, dict(given.split("=", 1) for given in args.field), args.model)
    for seed, name, share, source, mined in product(args.seeds, bench.splits, args.shares, args.sources, args.mined):
        bench.run(Trial(name, source, share, seed, args.tokens, mined, args.step_tokens))


if __name__ == "__main__":
    main()
