"""The parts of `metier check` that say what is there, as plain values."""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from metier.errors import DataError
from metier.evidence.statistics import Record, bits_per_byte, expected_detectable
from metier.evidence.verdict import MIN_DOCUMENTS
from metier.sources import quality
from metier.sources.closeness import closeness
from metier.sources.examples import Example
from metier.sources.leaks import Leaks, find_leaks
from metier.sources.read import Corpus
from metier.sources.split import Split, split_corpus

CHARACTERS_PER_TOKEN = 4
MOST_LISTED = 20


def share(rows: Mapping[str, int], bucket: str) -> float:
    return rows[bucket] / max(1, rows["total"])


def documents(examples: Sequence[Example]) -> dict[str, Any]:
    sizes: Counter[str] = Counter()
    for example in examples:
        sizes[example.document] += len(example.learned_text)
    name, largest = sizes.most_common(1)[0]
    return {"total": len(sizes), "largest": name, "largest_share": largest / max(1, sizes.total())}


def tokens(examples: Sequence[Example]) -> dict[str, int]:
    learned = sum(len(example.learned_text) for example in examples)
    prompt = sum(len(example.prompt_text) for example in examples)
    return {
        "learned": learned // CHARACTERS_PER_TOKEN,
        "prompt": prompt // CHARACTERS_PER_TOKEN,
        "characters_per_token": CHARACTERS_PER_TOKEN,
    }


def duplicates(corpus: Corpus, rows: Mapping[str, int]) -> dict[str, Any]:
    found = corpus.findings
    listed = [
        {"id": name, "of": first, "jaccard": round(share, 3)}
        for name, (first, share) in [*found.near.items(), *found.tied.items()][:MOST_LISTED]
    ]
    return {
        "rows": rows["duplicate"],
        "share": share(rows, "duplicate"),
        "near": len(found.near),
        "tied": len(found.tied),
        "listed": listed,
        "boilerplate_lines": len(found.lines),
        "boilerplate": [{"line": line, "texts": n} for line, n in list(found.lines.items())[:MOST_LISTED]],
    }


def private(corpus: Corpus, policy: str) -> dict[str, Any]:
    private = corpus.findings.private
    counts: Counter[str] = Counter()
    for kinds in private.values():
        counts.update(kinds)
    listed = [{"id": name, **kinds} for name, kinds in list(private.items())[:MOST_LISTED]]
    return {"policy": policy, "rows": len(private), "identifiers": dict(counts), "listed": listed}


def answers(chats: Sequence[Example]) -> dict[str, Any]:
    cut = quality.cut_off(chats)
    echoes = [e.id for e in chats if e.learned_text.strip().lower() == e.prompt_text.strip().lower()]
    longest, n_longest = quality.same_length(chats)
    return {
        "answers": len(chats),
        "echoes": len(echoes),
        "cut_off": len(cut),
        "longest": longest,
        "as_long_as_the_longest": n_longest,
        "listed": {"echoes": echoes[:MOST_LISTED], "cut_off": cut[:MOST_LISTED]},
    }


def judged(examples: Sequence[Example]) -> dict[str, Any]:
    return {
        **quality.quality(examples),
        "answers": answers([example for example in examples if example.is_chat]),
        "closeness": distances(examples),
    }


def distances(examples: Sequence[Example]) -> dict[str, Any]:
    """In bits a word or word pair; the texts that are least like the rest of the field."""
    weights = closeness([e.learned_text for e in examples])
    order = weights.argsort(kind="stable")[: min(10, len(examples) // 10)]
    least = [{"id": examples[i].id, "bits": round(float(weights[i]), 3)} for i in order]
    return {"median_bits": round(float(median(weights)), 3), "least": least}


def split(corpus: Corpus, seed: int, held_out: float) -> tuple[Split | None, str]:
    """What a run would hold out, or why it could not."""
    try:
        return split_corpus(corpus.examples, seed, held_out), ""
    except DataError as error:
        return None, str(error)


def leaks(split: Split | None, benchmark: Sequence[str]) -> Leaks:
    if split is None:
        return Leaks()
    return find_leaks(split.train, (*split.select, *split.test), benchmark=benchmark)


def power(split: Split | None, why: str) -> dict[str, Any]:
    """What would be held out, whether the verdict could be anything but 'cannot tell', and the smallest gain that could
    be shown, as a share of the base's bits (None for one document)."""
    if split is None:
        none = {"unit": "document", "held_out": 0, "test": 0, "needed": MIN_DOCUMENTS, "can_tell": False}
        return {**none, "detectable": None, "why": why}
    n_test = len({example.document for example in split.test})
    return {
        "unit": split.unit,
        "held_out": len({example.document for example in (*split.select, *split.test)}),
        "test": n_test,
        "needed": MIN_DOCUMENTS,
        "can_tell": n_test >= MIN_DOCUMENTS,
        "detectable": _detectable(split),
    }


def _detectable(split: Split) -> float | None:
    """Foretold as a run does from the base's bits, but from those of a compressor that knows some of the training text:
    what counts is how much they differ between documents."""
    known = "\n".join(example.learned_text for example in split.train[:200]).encode()[:32768]
    records: list[Record] = []
    for example in split.test:
        text = example.learned_text.encode()
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, known)
        size = len(packer.compress(text) + packer.flush())
        records.append({"document": example.document, "bytes": len(text), "nll": 8 * size})
    smallest = expected_detectable(records)
    return None if smallest is None else round(smallest / bits_per_byte(records), 4)
