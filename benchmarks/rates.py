"""Does trying learning rates pay? The same rows at every rate from one start, and the table's with the probe's cost.

    python benchmarks/rates.py pack:clinical --tokens 64000 --step-tokens 512

Every row is one adapter: bits per byte of the test half, and of what general answers moved away from the base. The run
that the probe would have begun is that of its rate, to the bit, so it is not trained again.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice

import torch

from metier.evidence.measure import probe_answers
from metier.models.adapters import keep_memory
from metier.models.encoding import Encoded, Encoder
from metier.models.load import load_base
from metier.models.methods import add_method
from metier.models.packing import PackReader
from metier.models.threads import fit_threads
from metier.settings import Settings, learning_rate
from metier.sources.examples import Example
from metier.sources.read import read_corpus
from metier.sources.split import split_corpus
from metier.training.loop import Recipe, train
from metier.training.probe import JUDGED_ROWS, Judge, probe, probe_plan
from metier.training.stream import Step, field_documents, steps

TEST_ROWS = 200


def encoded(encoder: Encoder, examples: Sequence[Example], n: int) -> list[Encoded]:
    return [d for e in examples[:n] for d in encoder.encode(e)[:1]]


def table(data: str, tokens: int, step_tokens: int, seed: int, model: str) -> Iterator[tuple[str, int, float, float]]:
    """(rate, steps, bits per byte of the field, KL in bits per byte) of the base, then of every rate."""
    settings = Settings(data=(data,), model=model, step_tokens=step_tokens, pack_tokens=min(1024, step_tokens))
    base = load_base(settings.model)
    split = split_corpus(read_corpus([data]).examples, seed, settings.held_out)
    general = probe_answers(base.encoder)
    tested = encoded(base.encoder, split.test, TEST_ROWS)
    reader = PackReader(add_method(base.model, "lora", settings.r, settings.alpha, seed))
    judge = Judge(reader, encoded(base.encoder, split.select, JUDGED_ROWS), general, settings.pack_tokens)
    final = Judge(reader, tested, general, settings.pack_tokens)
    lr = learning_rate(base.n_parameters)
    planned = probe_plan(tokens, step_tokens, judge.n_tokens, lr)
    if planned is None:
        raise SystemExit(f"{tokens} tokens in steps of {step_tokens} are too few for a probe")
    start = {n: p.detach().clone() for n, p in reader.model.named_parameters() if p.requires_grad}

    def stream() -> Iterator[Step]:
        return steps(field_documents(split.train, base.encoder.encode, seed), [], 0.0, step_tokens)

    def begin_again() -> None:
        with torch.no_grad():
            for name, p in reader.model.named_parameters():
                if name in start:
                    p.copy_(start[name])

    yield "base", 0, *final()
    n_steps = round(tokens / step_tokens)
    found = probe(reader, stream, planned, Recipe(n_steps, lr, settings.pack_tokens), judge, lambda _: None, say=print)
    print(found.line())
    longer = round((tokens + planned.cost_tokens) / step_tokens)
    for name, rate, n in (*((f"{r:g}", r, n_steps) for r in planned.rates), (f"{lr:g}, longer", lr, longer)):
        begin_again()
        recipe = Recipe(n, rate, settings.pack_tokens)
        done = train(reader, lambda n=n: islice(stream(), n), recipe, lambda _: None)
        yield f"{name}{' (chosen)' if name == f'{found.lr:g}' else ''}", done.n_steps, *final()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--tokens", type=int, default=64_000)
    parser.add_argument("--step-tokens", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    args = parser.parse_args()
    fit_threads(fixed=True)
    keep_memory()
    print("| rate | steps | field | moved |\n| --- | --- | --- | --- |", flush=True)
    for name, n_steps, field, moved in table(args.data, args.tokens, args.step_tokens, args.seed, args.model):
        print(f"| {name} | {n_steps} | {field:.4f} | {moved:.4f} |", flush=True)


if __name__ == "__main__":
    main()
