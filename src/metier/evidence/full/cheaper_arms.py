"""The arms of 'would something cheaper have done?': the same held-out queries, foretold by the base and by the adapted
model, with examples, with retrieved passages, with counted n-grams.

How many examples and passages an arm gets, and which instruction, is chosen on the select half, for each arm by itself;
what is claimed is measured on the test half.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from metier.evidence.full.cheaper import ADAPTED, BASE, NGRAM, NOTHING
from metier.evidence.full.floors import fit_mixture, mixed_nll, token_nll
from metier.evidence.full.ngrams import NgramModel
from metier.evidence.full.queries import PROMPTS, Context, Kind, Query, encode_query, is_pair, showable
from metier.evidence.full.readers import Models, Which
from metier.evidence.full.retrieval import Passages
from metier.evidence.gain import FIELD_SLICE
from metier.evidence.score import Record, Scored, score_documents, score_record
from metier.evidence.statistics import bits_per_byte
from metier.models.decoding import continue_all
from metier.models.encoding import Encoded, Encoder
from metier.progress import Progress
from metier.sources.examples import Example

EXAMPLES = (1, 2, 4)  # how many are tried
PASSAGES = (1, 3)
BOTH = ((1, 1), (4, 1), (1, 3))
NEAR = 32  # passages among which the examples most like a query are looked for
ARM_PACK_TOKENS = 2048  # read at once, at least: examples that all queries share are read once a pack
ANSWER_TOKENS = 96
ANSWERED_AT_ONCE = 16


@dataclass(frozen=True)
class Way:
    """An arm: which model, and what it is told. picked: the examples are those most like the query."""

    name: str
    model: Which
    examples: Literal["none", "random", "picked"] = "none"
    passages: bool = False


WITH_NOTHING, PLAIN = Way(NOTHING, "base"), Way(BASE, "base")
WAYS: dict[Kind, tuple[Way, ...]] = {
    "text": (
        PLAIN,
        Way("base + examples", "base", "random"),
        Way("base + retrieval", "base", passages=True),
        Way("base + examples + retrieval", "base", "random", True),
        Way(ADAPTED, "adapted"),
        Way("adapted + retrieval", "adapted", passages=True),
    ),
    "answer": (
        PLAIN,
        Way("base + examples", "base", "random"),
        Way("base + picked examples", "base", "picked"),
        Way("base + retrieval", "base", passages=True),
        Way("base + picked examples + retrieval", "base", "picked", True),
        Way(ADAPTED, "adapted"),
        Way("adapted + picked examples", "adapted", "picked"),
        Way("adapted + retrieval", "adapted", passages=True),
    ),
}
"""For a text, the examples that are most like it are the passages that are retrieved: it has no picked ones."""


@dataclass(frozen=True)
class Setting:
    """What is chosen for an arm; `prompt` numbers the instructions of queries.PROMPTS."""

    examples: int = 0
    passages: int = 0
    prompt: int = 0


@dataclass(frozen=True)
class Sources:
    """What contexts are made from: random examples in the order in which they are shown, and what can be searched."""

    shown: tuple[Example, ...]
    passages: Passages


@dataclass(frozen=True)
class Arms:
    """records: of evidence/arms.jsonl. chosen: the setting of each arm, by its name."""

    records: list[Record]
    chosen: dict[str, Setting]
    ngram_shares: tuple[float, ...]


@dataclass(frozen=True)
class Asked:
    """The queries of both halves, with all that it takes to ask them."""

    kind: Kind
    select: Sequence[Query]
    test: Sequence[Query]
    models: Models
    sources: Sources
    pack_tokens: int


def sources_of(
    train: Sequence[Example], held_out: Sequence[Example], kind: Kind, seed: int, encoder: Encoder
) -> Sources:
    """Raises DataError where nothing can be searched (`retrieval.Passages`)."""
    shown = showable(train, kind, max(EXAMPLES), seed, encoder)
    return Sources(shown, Passages(train, {e.document for e in held_out}, encoder))


def expected_tokens(kind: Kind, n_select: int, n_test: int, query_tokens: float, told_tokens: float) -> float:
    """About how many tokens all arms read. told_tokens: of one example or passage; examples that all queries share are
    counted for each, so it is rather too many."""
    total = 0.0
    for way in WAYS[kind]:
        fewest, *more = (query_tokens + (s.examples + s.passages) * told_tokens for s in _numbers(way))
        total += n_select * (len(PROMPTS[kind]) * fewest + sum(more)) + n_test * max(fewest, *more, 0.0)
    return total + 2 * (n_select + n_test) * query_tokens  # told nothing; mixed with n-grams


def measure_arms(asked: Asked, ngrams: NgramModel, progress: Progress) -> Arms:
    """Choose on the select half, then score the test half, arm by arm.

    ngrams: counted on the training text, in the tokens of the base.
    """
    records = [
        *_scored(asked, WITH_NOTHING, Setting(), asked.select, "select"),
        *_scored(asked, WITH_NOTHING, Setting(), asked.test, "test"),
    ]
    chosen: dict[str, Setting] = {}
    ways = [way for way in WAYS[asked.kind] if way.examples != "random" or asked.sources.shown]
    progress.begin("arms: the same queries with examples and with retrieved passages", len(ways))
    for n_done, way in enumerate(ways, 1):
        tried = _tried(asked, way)
        best = min(tried, key=lambda setting: bits_per_byte(tried[setting]))
        chosen[way.name] = best
        records += [*tried[best], *_scored(asked, way, best, asked.test, "test")]
        progress.advance(n_done, way.name)
    mixed, shares = _mixture(asked, chosen[BASE], ngrams)
    progress.end()
    return Arms([*records, *mixed], chosen, shares)


def _tried(asked: Asked, way: Way) -> dict[Setting, list[Record]]:
    """The select half with each instruction at the smallest numbers of examples and passages, and at the other numbers
    with the best of these."""
    fewest, *more = _numbers(way)
    prompts = [replace(fewest, prompt=prompt) for prompt in range(len(PROMPTS[asked.kind]))]
    tried = {s: _scored(asked, way, s, asked.select, "select") for s in prompts}
    best = min(tried, key=lambda setting: bits_per_byte(tried[setting]))
    more = [replace(setting, prompt=best.prompt) for setting in more]
    return tried | {s: _scored(asked, way, s, asked.select, "select") for s in more}


def _numbers(way: Way) -> list[Setting]:
    if way.examples != "none" and way.passages:
        return [Setting(examples, passages) for examples, passages in BOTH]
    if way.passages:
        return [Setting(passages=n) for n in PASSAGES]
    return [Setting(examples=n) for n in EXAMPLES] if way.examples != "none" else [Setting()]


def context_of(asked: Asked, way: Way, setting: Setting, query: Query) -> Context:
    """What the arm is told before this query; what is nearest to it stands last."""
    sources = asked.sources
    found = sources.passages.top_passages(query.before, setting.passages) if way.passages else []
    if way.examples == "picked":
        near = sources.passages.top_passages(query.before, NEAR)
        pairs = dict.fromkeys(
            e for p in near if is_pair(e := sources.passages.examples[p.example], asked.models.encoder)
        )
        examples = tuple(reversed(list(pairs)[: setting.examples]))
    else:
        examples = sources.shown[: setting.examples]
    return Context(PROMPTS[asked.kind][setting.prompt], examples, tuple(p.text for p in reversed(found)))


def _encode(asked: Asked, way: Way, setting: Setting, query: Query) -> Encoded:
    context = None if way is WITH_NOTHING else context_of(asked, way, setting, query)
    return encode_query(query, context, asked.models.encoder_of(way.model))


def _scored(asked: Asked, way: Way, setting: Setting, queries: Sequence[Query], half: str) -> list[Record]:
    documents = [_encode(asked, way, setting, query) for query in queries]
    with asked.models.reading(way.model) as reader:
        scored = score_documents(reader, documents, max(asked.pack_tokens, ARM_PACK_TOKENS), lambda _: None)
    return [
        _record(way.name, setting, query, half, document, scored[query.id])
        for query, document in zip(queries, documents, strict=True)
    ]


def _record(arm: str, setting: Setting, query: Query, half: str, document: Encoded, scored: Scored) -> Record:
    kind: Kind = "answer" if query.messages else "text"
    return {
        **score_record(query.id, FIELD_SLICE, query.document, query.group, document.n_bytes, scored),
        "arm": arm,
        "half": half,
        "kind": kind,
        "read": len(document.ids),
        "examples": setting.examples,
        "passages": setting.passages,
        "prompt": PROMPTS[kind][setting.prompt].strip(),
    }


def _mixture(asked: Asked, setting: Setting, ngrams: NgramModel) -> tuple[list[Record], tuple[float, ...]]:
    """The base as it is best prompted, mixed token by token with the n-grams of the training text."""
    halves = {"select": asked.select, "test": asked.test}
    documents = {half: [_encode(asked, PLAIN, setting, q) for q in queries] for half, queries in halves.items()}
    with asked.models.reading(PLAIN.model) as reader:
        base = {half: token_nll(reader, documents[half], asked.pack_tokens) for half in halves}
    counted = {half: [ngrams.foretell(d) for d in documents[half]] for half in halves}
    shares = fit_mixture(base["select"], counted["select"])
    records = []
    for half, queries in halves.items():
        for query, document, nats, grams in zip(queries, documents[half], base[half], counted[half], strict=True):
            scored = Scored(tuple(mixed_nll(nats, grams, shares).tolist()))
            records.append(_record(NGRAM, setting, query, half, document, scored))
    return records, shares


def answer_arms(asked: Asked, chosen: dict[str, Setting], names: Sequence[str], n: int) -> list[Record]:
    """Greedy answers of these arms to the first n queries of the test half: records of evidence/arm-answers.jsonl."""
    ways = [way for way in WAYS[asked.kind] if way.name in names]
    return [record for way in ways for record in _answered(asked, way, chosen[way.name], asked.test[:n])]


def _answered(asked: Asked, way: Way, setting: Setting, queries: Sequence[Query]) -> Iterator[Record]:
    encoder = asked.models.encoder_of(way.model)
    prompts: dict[str, list[int]] = {}
    for query in queries:
        document = _encode(asked, way, setting, query)
        prompts[query.id] = list(document.ids[: document.n_before_loss][-(encoder.window - ANSWER_TOKENS) :])
    order = sorted(queries, key=lambda q: len(prompts[q.id]))
    for first in range(0, len(order), ANSWERED_AT_ONCE):
        group = order[first : first + ANSWERED_AT_ONCE]
        with asked.models.reading(way.model) as reader:
            answers = continue_all(reader.model, [prompts[q.id] for q in group], ANSWER_TOKENS, encoder.ends)
        for query, ids in zip(group, answers, strict=True):
            yield {
                "arm": way.name,
                "item": query.id,
                "document": query.document,
                "group": query.group,
                "request": query.before,
                "reference": query.target,
                "answer": encoder.tokenizer.decode(ids, skip_special_tokens=True).strip(),
                "tokens": len(ids),
                "ended": bool(ids) and ids[-1] in encoder.ends,
            }
