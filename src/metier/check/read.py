"""The part of `metier check` that asks the base model: how it sees the rows, which of them surprise it, and whether
questions help with their answers."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from metier.evidence.score import score_documents
from metier.evidence.statistics import bits_per_byte
from metier.models.encoding import Encoded, Encoder, Loss
from metier.models.load import load_base
from metier.models.packing import PackReader
from metier.sources.examples import Example, Message

N_SHOWN = 3
SAMPLED = 64  # rows that the model reads
CHARACTERS = 1000  # of each: damage shows at the beginning as well as anywhere
MOST_TOKENS = 512
QUESTION_AND_ANSWER = ["user", "assistant"]
FAR = 3.0  # robust standard deviations of the logarithm: what lies further out is flagged


def read_by_model(name: str, examples: Sequence[Example], seed: int) -> dict[str, Any]:
    """Three rows as the model will see them, the learned part between « and »; the rows of a sample that it predicts
    far better than the rest, from which it has nothing to learn, and far worse, which may be damaged; and the answers
    that their questions do not make easier.

    Raises:
        ModelError, DataError: the model cannot be loaded, or its template refuses a row.
    """
    base = load_base(name)
    base.model.requires_grad_(False)
    sample = random.Random(seed).sample(list(examples), min(SAMPLED, len(examples)))
    reader = PackReader(base.model)
    shown = [document for example in sample[:N_SHOWN] for document in base.encoder.encode(example)[:1]]
    return {
        "model": base.name,
        "shown": [as_seen(base.encoder, document) for document in shown],
        "never_end": sum(not _ends(base.encoder, example) for example in sample),
        "surprise": surprise(reader, base.encoder, sample),
        "difficulty": difficulty(reader, base.encoder, sample),
    }


def as_seen(encoder: Encoder, document: Encoded) -> str:
    """The text of the tokens, template and end tokens among them, with « and » around what carries loss."""
    parts, inside = [], False
    start = 0
    for i, kind in enumerate([*document.loss, Loss.NONE]):
        if bool(kind) != inside:
            parts += [encoder.tokenizer.decode(list(document.ids[start:i])), "»" if inside else "«"]
            start, inside = i, bool(kind)
    return "".join([*parts, encoder.tokenizer.decode(list(document.ids[start:]))])


def surprise(reader: PackReader, encoder: Encoder, examples: Sequence[Example]) -> dict[str, Any]:
    """Bits per byte of the beginnings of the rows, and those that lie far from the median at either end."""
    beginnings = [replace(e, text=e.text[:CHARACTERS]) if not e.is_chat else e for e in examples]
    nats = _nats(reader, encoder, beginnings)
    bits = {name: bits_per_byte([{"nll": nll, "bytes": n_bytes}]) for name, (nll, n_bytes) in nats.items() if n_bytes}
    if not bits:
        return {"looked_at": 0, "low": [], "high": []}
    logs = np.log(np.maximum(list(bits.values()), 1e-3))
    center = float(np.median(logs))
    spread = 1.4826 * float(np.median(np.abs(logs - center)))
    distances = dict(zip(bits, (logs - center) / max(spread, 1e-6), strict=True))
    listed = [{"id": name, "bits_per_byte": round(bits[name], 3)} for name in sorted(bits, key=lambda n: bits[n])]
    return {
        "looked_at": len(bits),
        "median": round(float(np.exp(center)), 3),
        "low": [one for one in listed if distances[str(one["id"])] < -FAR],
        "high": [one for one in reversed(listed) if distances[str(one["id"])] > FAR],
    }


def difficulty(reader: PackReader, encoder: Encoder, examples: Sequence[Example]) -> dict[str, Any]:
    """Of rows with one question, the nats of the answer over those behind the same template without the question: the
    instruction-following difficulty (arXiv 2308.12032, with a small model as in 2402.00530). At 1 and above the
    question does not help, and the two may not belong together."""
    rows = [e for e in examples if not e.rejected and _roles(e) == QUESTION_AND_ANSWER]
    asked, bare = (_nats(reader, encoder, some) for some in (rows, map(_without_question, rows)))
    ratios = {name: nll / bare[name][0] for name, (nll, _) in asked.items() if name in bare and bare[name][0]}
    worst = sorted((name for name in ratios if ratios[name] >= 1), key=lambda name: -ratios[name])
    return {
        "looked_at": len(ratios),
        "median": round(float(np.median(list(ratios.values()))), 3) if ratios else None,
        "no_easier": [{"id": name, "ratio": round(ratios[name], 3)} for name in worst],
    }


def _roles(example: Example) -> list[str]:
    return [message.role for message in example.messages if message.role != "system"]


def _without_question(example: Example) -> Example:
    return replace(example, messages=tuple(m if m.role != "user" else Message("user", "") for m in example.messages))


def _nats(reader: PackReader, encoder: Encoder, examples: Iterable[Example]) -> dict[str, tuple[float, int]]:
    """{id: (nats of what is learned, its bytes)} of the rows that are short enough."""
    documents = [d for e in examples for d in encoder.encode(e)[:1] if len(d.ids) <= MOST_TOKENS]
    with torch.no_grad():
        scored = score_documents(reader, documents, MOST_TOKENS, lambda _: None)
    return {d.item: (scored[d.item].nll, d.n_bytes) for d in documents}


def _ends(encoder: Encoder, example: Example) -> bool:
    """Whether the last thing that is learned of a whole row is to end."""
    documents = encoder.encode(example)
    supervised = [kind for kind in documents[-1].loss if kind] if documents else []
    return not supervised or bool(documents[-1].n_cut_bytes) or supervised[-1] == Loss.END
