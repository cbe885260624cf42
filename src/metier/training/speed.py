"""How fast this machine trains, scores and generates: measured for a few seconds before a run is planned."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from metier.models.decoding import continue_all
from metier.models.device import wait_for
from metier.models.encoding import Encoded
from metier.models.packing import PackReader, divide, pack
from metier.training.parallel import any_rank, n_ranks
from metier.training.preferences import compare, pair_packs_of
from metier.training.sharding import sharded

FIRST_PACK = 512  # tokens
SOON = 1.0  # s
GENERATE_ROWS = 60
GENERATE_PROMPT = 26  # tokens read of each: a request and its template; the system prompt is read once for all
GENERATE_STEPS = 6  # timed, after prompts of a token

Timed = tuple[Callable[[], object], int]  # what is timed, and the tokens of its documents, shared ones in each


@dataclass(frozen=True)
class Speed:
    """Measured on this machine, this model and this data; tokens of the documents, without padding."""

    train_tokens_per_s: float  # 0 where nothing is to be trained
    score_tokens_per_s: float
    generate_tokens_per_s: float


def measure_speed(
    reader: PackReader, rows: Sequence[Encoded], texts: Sequence[Encoded], pack_tokens: int, answer_tokens: int
) -> Speed:
    """Train a pack of rows and score a pack of general texts; weights and gradients are left as they were.

    Texts are supervised at every token, rows at some: scoring is timed on what costs most, and so is training where
    some rows are preferences, which are read twice. Every rank does the same at the same time, and their speeds are
    taken to add up.
    """
    reader.model.train()
    train_tokens_per_s = 0.0
    if any(p.requires_grad for p in reader.model.parameters()):
        with sharded(reader.model):
            train_tokens_per_s = _tokens_per_s(partial(_training, reader, rows), pack_tokens)
            reader.model.zero_grad(set_to_none=True)
    reader.model.eval()
    score_tokens_per_s = _tokens_per_s(partial(_scoring, reader, texts), pack_tokens)
    generate_tokens_per_s = _generate_rate(reader, answer_tokens, score_tokens_per_s)
    n = n_ranks()
    return Speed(n * train_tokens_per_s, n * score_tokens_per_s, n * generate_tokens_per_s)


def _training(reader: PackReader, rows: Sequence[Encoded], pack_tokens: int) -> Timed:
    pairs = [row for row in rows if row.rejected]
    if pairs:
        batch = next(pair_packs_of(_repeated(pairs, pack_tokens), pack_tokens))
        n_tokens = batch.n_tokens
    else:
        group = next(divide(_repeated(rows, pack_tokens), pack_tokens))
        batch, n_tokens = pack(group), sum(document.n_tokens for document in group)

    def train() -> None:
        loss = compare(reader, batch).loss if pairs else reader.summed_nll(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        wait_for(reader.device)

    return train, n_tokens


def _scoring(reader: PackReader, texts: Sequence[Encoded], pack_tokens: int) -> Timed:
    group = next(divide(_repeated(texts, pack_tokens), pack_tokens))
    batch = pack(group, with_end=False)
    return lambda: reader.token_nll(batch).cpu(), sum(document.n_tokens for document in group)


def _tokens_per_s(timed: Callable[[int], Timed], pack_tokens: int) -> float:
    """Of a small pack, which says enough where it takes its time; of a whole one where it does not."""
    work, n_tokens = timed(min(FIRST_PACK, pack_tokens))
    seconds = _seconds_of(work)  # the first call also warms up
    if pack_tokens > FIRST_PACK and not any_rank(seconds > SOON):
        work, n_tokens = timed(pack_tokens)
        return n_tokens / _seconds_of(work)
    return n_tokens / min(seconds, _seconds_of(work))


def _generate_rate(reader: PackReader, answer_tokens: int, score_tokens_per_s: float) -> float:
    """Generated tokens a second for a batch of answers of so many tokens, the reading of their prompts included."""
    times = []
    for n in (1, 1 + GENERATE_STEPS):
        started = time.perf_counter()
        continue_all(reader.model, [[1]] * GENERATE_ROWS, n, ends=())
        times.append(time.perf_counter() - started)
    step_s = max(1e-4, (times[1] - times[0]) / GENERATE_STEPS)
    prompts_s = GENERATE_ROWS * GENERATE_PROMPT / score_tokens_per_s
    return GENERATE_ROWS * answer_tokens / (prompts_s + (answer_tokens - 1) * step_s)


def _seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _repeated(documents: Sequence[Encoded], n_tokens: int) -> Iterator[Encoded]:
    size = 0
    while documents and size < n_tokens:
        for document in documents:
            size += document.n_tokens
            yield document
