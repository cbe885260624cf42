"""How fast this machine trains and scores the rows of a file, what share of its matrix-product limit that is, and what
it means in minutes."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from metier.errors import DataError
from metier.evidence.facts import peak_rss_bytes
from metier.evidence.planning import measure_machine, to_choose_by
from metier.models.adapters import keep_memory
from metier.models.encoding import Encoded
from metier.models.fit import sizes_of, training_memory
from metier.models.flops import products
from metier.models.limit import Limit
from metier.models.load import BaseModel, load_base
from metier.models.methods import add_method
from metier.models.packing import Pack, PackReader, packs_of
from metier.models.threads import fit_threads
from metier.progress import Progress, Silent
from metier.settings import DEFAULT_MODEL, Settings, learning_rate
from metier.sources.examples import Example
from metier.sources.read import ReadOptions, read_corpus
from metier.training.evidence_plan import evidence_plan, evidence_seconds
from metier.training.loop import Recipe, begin
from metier.training.stream import Step
from metier.training.update import train_step

LIMITS = 4  # measurements of the limit between the packs of training, and as many between those of scoring
LIMIT_S = 0.5  # seconds each
ESTIMATED_TOKENS = 100_000
# (width, width of the MLP, blocks, heads, key and value heads, vocabulary) of well-known models of each size
MODEL_SIZES = {
    "135M": (576, 1536, 30, 9, 3, 49_152),
    "360M": (960, 2560, 32, 15, 5, 49_152),
    "1B": (2048, 8192, 16, 32, 8, 128_256),
    "3B": (3072, 8192, 28, 24, 8, 128_256),
    "7B": (4096, 14_336, 32, 32, 8, 32_000),
}
TIED = {"135M", "360M", "1B", "3B"}  # the head is the embedding


def bench(
    data: Sequence[str] = ("pack:clinical",),
    model: str = DEFAULT_MODEL,
    rows: int = 48,
    threads: int = 0,
    fields: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train the first `rows` rows of `data` once, in steps of the default size, then score them; a step before that
    warms up, uncounted.

    Rates are per second of the steps alone, by the median of their seconds a token, so that a neighbour who comes and
    goes does not set them; tokens are those of the rows, without padding. `share_of_limit` counts the
    products of the linear layers for the tokens that were computed, and of the head at supervised positions, attention
    left out (models/flops.py), against the fastest products of the same shapes. `your_data` and `models` are estimates.

    Raises:
        MetierError: data or model cannot be read.
    """
    say = progress or Silent()
    settings = Settings(data=tuple(data), model=model)
    if line := fit_threads(threads).line():
        say.say(line)
    keep_memory()
    corpus = read_corpus(data, ReadOptions(dict(fields or {})))
    base = load_base(model)
    documents = [d for e in corpus.examples[:rows] for d in base.encoder.encode(e) if d.n_supervised]
    if not documents:
        raise DataError(f"{data[0]} has no row with supervised tokens in its first {rows}: name other data.")
    reader = PackReader(add_method(base.model, "lora", settings.r, settings.alpha, settings.seed))
    for line in reader.slower_paths():
        say.say(line)
    counted = products(reader.model)
    supervised = sum(d.n_supervised for d in documents) / sum(len(d.ids) for d in documents)
    limit = Limit(counted, settings.pack_tokens, supervised)
    say.begin("training", len(documents))
    training = _training(reader, documents, settings, learning_rate(base.n_parameters), limit, say)
    say.begin("scoring", len(documents))
    scoring = _scoring(reader, documents, settings.pack_tokens, limit)
    limit.measure(LIMIT_S)
    say.end()
    for part, trains in ((training, True), (scoring, False)):
        flops = counted.flops(part["computed_tokens"], part["supervised_tokens"], trains)
        part["share_of_limit"] = flops / part["seconds"] / 1e9 / limit.gflops
    return {
        "model": base.name,
        "rows": min(rows, len(corpus.examples)),
        "threads": torch.get_num_threads(),
        "path": reader.why_plain or "packed",
        "limit_gflops": limit.gflops,
        "training": training,
        "scoring": scoring,
        "your_data": _your_data(base, reader, corpus.examples, settings, training, scoring),
        "models": [
            _estimate(name, settings, training["share_of_limit"] * limit.gflops, supervised) for name in MODEL_SIZES
        ],
    }


def _your_data(
    base: BaseModel,
    reader: PackReader,
    examples: Sequence[Example],
    settings: Settings,
    training: Mapping[str, Any],
    scoring: Mapping[str, Any],
) -> dict[str, Any]:
    """Seconds for one epoch of all rows, for scoring them once, and for the evidence of a run, least and most."""
    n_test = max(1, round(len(examples) * settings.held_out / 2))
    sizes, speed = measure_machine(base.encoder, reader, examples, examples[:n_test], settings)
    sizes = to_choose_by(sizes, n_test)
    return {
        "examples": len(examples),
        "train_epoch_s": len(examples) / training["examples_per_s"],
        "score_s": len(examples) / scoring["examples_per_s"],
        "quick_evidence_s": [
            evidence_seconds(evidence_plan("quick", sizes, speed, seconds), sizes, speed) for seconds in (0.0, math.inf)
        ],
    }


def _estimate(name: str, settings: Settings, gflops: float, supervised: float) -> dict[str, Any]:
    """A model of another size at the rate that this one reached, by its FLOPs a token."""
    width, inner, blocks, heads, kv_heads, vocabulary = MODEL_SIZES[name]
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=name in TIED,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    sizes = sizes_of(model, "lora", settings.r, settings.alpha, settings.seed)
    per_token = sizes.products.flops(ESTIMATED_TOKENS, round(supervised * ESTIMATED_TOKENS), True) / ESTIMATED_TOKENS
    rate = gflops * 1e9 / per_token
    return {
        "size": name,
        "estimated": True,
        "parameters": sizes.n_parameters,
        "train_tokens_per_s": rate,
        "minutes_per_100k_tokens": ESTIMATED_TOKENS / rate / 60,
        "memory_bytes": training_memory(sizes, settings.pack_tokens).total,
    }


def _training(
    reader: PackReader, documents: list[Encoded], settings: Settings, lr: float, limit: Limit, say: Progress
) -> dict[str, Any]:
    groups = list(_steps(documents, settings.step_tokens))
    optimizer = begin(reader, Recipe(len(groups), lr, settings.pack_tokens)).optimizer
    reader.model.train()
    computed = sum(_computed(step, settings.pack_tokens) for step in groups)
    train_step(reader, optimizer, groups[0], settings.pack_tokens)
    seconds_a_token: list[float] = []
    n_supervised = done = 0
    for number, step in enumerate(groups):
        if number % math.ceil(len(groups) / LIMITS) == 0:
            limit.measure(LIMIT_S)
        started = time.perf_counter()
        n_supervised += train_step(reader, optimizer, step, settings.pack_tokens).n_supervised
        seconds_a_token.append((time.perf_counter() - started) / _computed(step, settings.pack_tokens))
        done += len(step.documents)
        say.advance(done)
    reader.model.eval()
    n_tokens = sum(step.n_tokens for step in groups)
    seconds = statistics.median(seconds_a_token) * computed
    return _rates(len(documents), n_tokens, n_supervised, seconds) | {"computed_tokens": computed}


def _computed(step: Step, pack_tokens: int) -> int:
    """Tokens of the packs that a step runs, what documents share once."""
    return sum(p.n_tokens for p in packs_of(step.documents, pack_tokens))


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


def _scoring(reader: PackReader, documents: list[Encoded], n_tokens: int, limit: Limit) -> dict[str, Any]:
    packs: list[Pack] = list(packs_of(documents, n_tokens, with_end=False))
    reader.token_nll(packs[0])
    seconds_a_token: list[float] = []
    for number, batch in enumerate(packs):
        if number % math.ceil(len(packs) / LIMITS) == 0:
            limit.measure(LIMIT_S)
        started = time.perf_counter()
        reader.token_nll(batch)
        seconds_a_token.append((time.perf_counter() - started) / batch.n_tokens)
    n_tokens, computed = sum(len(d.ids) for d in documents), sum(p.n_tokens for p in packs)
    seconds = statistics.median(seconds_a_token) * computed
    return _rates(len(documents), n_tokens, sum(len(p.labels) for p in packs), seconds) | {"computed_tokens": computed}


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
