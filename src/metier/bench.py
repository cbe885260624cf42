"""How fast this machine trains and scores the rows of a file, and what share of its matrix-product limit that is."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from metier.errors import DataError
from metier.evidence.conclude import peak_rss_bytes
from metier.models.adapters import keep_memory
from metier.models.encoding import Encoded
from metier.models.load import load_base
from metier.models.methods import add_method
from metier.models.packing import Pack, PackReader, packs_of
from metier.progress import Progress, Silent
from metier.settings import DEFAULT_MODEL, Settings, learning_rate
from metier.sources.read import ReadOptions, read_corpus
from metier.training.loop import train_step
from metier.training.stream import Step

LIMIT_S = 1.5  # seconds spent on finding the limit


def bench(
    data: Sequence[str] = ("pack:clinical",),
    model: str = DEFAULT_MODEL,
    rows: int = 48,
    threads: int = 0,
    fields: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train the first `rows` rows of `data` once, then score them; one pack before that warms up, uncounted.

    Rates are per second of the steps alone; tokens are without padding. `share_of_limit` counts the products of the
    linear
    layers and of the head at supervised positions, attention left out, against the fastest product of the model's
    shapes.

    Raises:
        MetierError: data or model cannot be read.
    """
    say = progress or Silent()
    settings = Settings(data=tuple(data), model=model)
    if threads:
        torch.set_num_threads(threads)
    keep_memory()
    corpus = read_corpus(data, ReadOptions(dict(fields or {})))
    base = load_base(model)
    documents = [d for e in corpus.examples[:rows] for d in base.encoder.encode(e) if d.n_supervised]
    if not documents:
        raise DataError(f"{data[0]} has no row with supervised tokens in its first {rows}: name other data.")
    limit = limit_gflops(base.model.config.hidden_size, settings.pack_tokens)
    reader = PackReader(add_method(base.model, "lora", settings.r, settings.alpha, settings.seed))
    say.begin("training", len(documents))
    training = _training(reader, documents, settings, learning_rate(base.n_parameters), say)
    say.begin("scoring", len(documents))
    scoring = _scoring(reader, documents, settings.pack_tokens)
    say.end()
    for part, passes in ((training, 2), (scoring, 1)):
        flops = passes * part["tokens"] * 2 * linear_parameters(reader) + passes * part["supervised_tokens"] * 2 * (
            reader.head.weight.numel()
        )
        part["share_of_limit"] = flops / part["seconds"] / 1e9 / limit
    return {
        "model": base.name,
        "rows": min(rows, len(corpus.examples)),
        "threads": torch.get_num_threads(),
        "path": reader.why_plain or "packed",
        "limit_gflops": limit,
        "training": training,
        "scoring": scoring,
    }


def limit_gflops(width: int, n_tokens: int) -> float:
    """The fastest float32 matrix product of the model's shapes that this machine makes, in GFLOP/s."""
    x, w = torch.randn(n_tokens, width), torch.randn(width, 3 * width)
    best = 0.0
    started = time.perf_counter()
    while time.perf_counter() - started < LIMIT_S:
        begun = time.perf_counter()
        for _ in range(5):
            x @ w
        best = max(best, 5 * 2 * n_tokens * width * 3 * width / (time.perf_counter() - begun) / 1e9)
    return best


def linear_parameters(reader: PackReader) -> int:
    """Weights of the linear layers between embedding and head, adapters included: what every token is multiplied
    with."""
    return sum(
        p.numel()
        for name, p in reader.model.named_parameters()
        if p.dim() == 2 and "embed" not in name and (p is not reader.head.weight)
    )


def _training(
    reader: PackReader, documents: list[Encoded], settings: Settings, lr: float, say: Progress
) -> dict[str, Any]:
    optimizer = torch.optim.AdamW([p for p in reader.model.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    reader.model.train()
    groups = list(_steps(documents, settings.pack_tokens))
    train_step(reader, optimizer, groups[0], settings.pack_tokens)
    started = time.perf_counter()
    n_supervised = done = 0
    for step in groups:
        n_supervised += train_step(reader, optimizer, step, settings.pack_tokens).n_supervised
        done += len(step.documents)
        say.advance(done)
    seconds = time.perf_counter() - started
    reader.model.eval()
    return _rates(len(documents), sum(step.n_tokens for step in groups), n_supervised, seconds)


def _steps(documents: list[Encoded], n_tokens: int) -> list[Step]:
    steps: list[Step] = []
    current: list[Encoded] = []
    for document in documents:
        if current and sum(len(d.ids) for d in (*current, document)) > n_tokens:
            steps.append(_step(current))
            current = []
        current.append(document)
    return [*steps, _step(current)]


def _step(documents: list[Encoded]) -> Step:
    return Step(tuple(documents), {"field": sum(len(d.ids) for d in documents)}, 0)


def _scoring(reader: PackReader, documents: list[Encoded], n_tokens: int) -> dict[str, Any]:
    packs: list[Pack] = list(packs_of(documents, n_tokens, with_end=False))
    reader.token_nll(packs[0])
    started = time.perf_counter()
    for batch in packs:
        reader.token_nll(batch)
    seconds = time.perf_counter() - started
    return _rates(len(documents), sum(p.n_tokens for p in packs), sum(len(p.labels) for p in packs), seconds)


def _rates(n_examples: int, n_tokens: int, n_supervised: int, seconds: float) -> dict[str, Any]:
    return {
        "examples": n_examples,
        "tokens": n_tokens,
        "supervised_tokens": n_supervised,
        "seconds": seconds,
        "examples_per_s": n_examples / seconds,
        "tokens_per_s": n_tokens / seconds,
        "supervised_tokens_per_s": n_supervised / seconds,
        "peak_rss_bytes": peak_rss_bytes(),
    }
