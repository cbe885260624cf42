"""How far the adapted model's expectations lie from the base's: no loss, but the first sign of one.

KL(base || adapted) of the next token is far less noisy than a difference of losses, for it does not depend on which
word the text happens to go on with; and forgetting follows the divergence on the *new* text (arXiv 2509.04259).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from operator import itemgetter
from typing import Any

from metier.evidence.gain import FIELD_SLICE
from metier.evidence.retention import OWN_ANSWERS
from metier.evidence.score import Items, Record
from metier.evidence.statistics import Estimate, ratio_estimate
from metier.evidence.subject import Subject
from metier.models.divergence import divergence
from metier.models.encoding import Encoded
from metier.models.packing import packs_of
from metier.sources.examples import Example, Message
from metier.sources.general import Request
from metier.training import parallel
from metier.training.evidence_plan import DIVERGENCE_TEXTS

TEXT = "text"


def read_divergence(subject: Subject, items: Items, step: int, field_only: bool = False) -> list[Record]:
    """Records of {item, slice, step, document, tokens} and the sums over these tokens, in nats, of `kl`,
    `entropy_base` and `entropy_adapted`; of the field, of general text, and of the base's own answers to requests, the
    first window of each of the first texts.

    Empty where the adapter brings tokens of its own, for there is no next token in common.
    """
    if subject.new_tokens:
        return []
    kinds = {FIELD_SLICE: _first_windows(items.field, items.field_documents)}
    if not field_only:
        own = [_as_said(*asked) for asked in zip(items.requests, items.own_answers, strict=True)]
        answers = own[:DIVERGENCE_TEXTS]
        windows = [d for answer in answers for d in subject.encoder.encode(answer)]
        kinds |= {TEXT: _first_windows(items.texts, items.text_documents), OWN_ANSWERS: _first_windows(own, windows)}
    return [
        {"item": item, "slice": name, "step": step, "document": document, **sums}
        for name, texts in kinds.items()
        for (item, document), sums in zip(texts, _sums(subject, list(texts.values())), strict=True)
    ]


def _first_windows(texts: Sequence[Example], windows: Sequence[Encoded]) -> dict[tuple[str, str], Encoded]:
    """{(item, document): the first window} of the first texts that have one."""
    first: dict[str, Encoded] = {}
    for window in windows:
        first.setdefault(window.item, window)
    found = {(text.id, text.document): first[text.id] for text in texts if text.id in first}
    return dict(islice(found.items(), DIVERGENCE_TEXTS))


def _as_said(request: Request, own: str) -> Example:
    turns = (Message("user", request.request), Message("assistant", own))
    return Example(request.id, "general", 1, request.id, messages=turns)


def _sums(subject: Subject, documents: Sequence[Encoded]) -> list[dict[str, float]]:
    """Of each document, in their order; each pack is read by one rank."""
    numbered = [replace(document, item=str(i)) for i, document in enumerate(documents)]
    packs = list(packs_of(numbered, subject.settings.pack_tokens, with_end=False))
    own: list[tuple[int, dict[str, float]]] = []
    for i in parallel.own_part([batch.n_tokens for batch in packs]):
        batch = packs[i]
        nats = divergence(subject.reader, batch).cpu().double()
        for number, item in enumerate(batch.items):
            of_item = nats[:, batch.owners == number]
            kl, base, adapted = of_item.sum(1).tolist()
            sums = {"tokens": of_item.shape[1], "kl": kl, "entropy_base": base, "entropy_adapted": adapted}
            own.append((int(item), sums))
    return [sums for _, sums in sorted((one for part in parallel.from_all(own) for one in part), key=itemgetter(0))]


# what it comes to ----------------------------------------------------------------------------------------------------


def divergence_part(records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The `retention.divergence` of results.json: nats a token after the last step; None where nothing was read."""
    if not records:
        return None
    last = max(record["step"] for record in records)
    slices = {
        name: _slice([r for r in records if r["slice"] == name and r["step"] == last])
        for name in (FIELD_SLICE, TEXT, OWN_ANSWERS)
        if any(r["slice"] == name and r["step"] == last for r in records)
    }
    return {
        "unit": "nats a token",
        "slices": slices,
        "sentence": _sentence(slices),
        "method": f"KL(base || adapted at full strength) of the next token, mean over tokens of up to "
        f"{DIVERGENCE_TEXTS} texts of each kind, of those that choices are made on; 95 % t intervals over documents.",
    }


def _slice(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    kl = _mean(records, "kl")
    low, high = kl.interval or (None, None)
    entropies = {name: _mean(records, name).value for name in ("entropy_base", "entropy_adapted")}
    return {"kl": kl.value, "ci_low": low, "ci_high": high, **entropies, "n_items": len(records)}


def _mean(records: Sequence[Mapping[str, Any]], name: str) -> Estimate:
    return ratio_estimate([r[name] for r in records], [r["tokens"] for r in records], [r["document"] for r in records])


def _sentence(slices: Mapping[str, Mapping[str, Any]]) -> str:
    named = {FIELD_SLICE: "on the field", TEXT: "on general text", OWN_ANSWERS: "on the base's own answers"}
    said = [f"{slices[name]['kl']:.3f} {where}" for name, where in named.items() if name in slices]
    listed = ", ".join(said[:-1]) + (" and " if said[1:] else "") + said[-1]
    return f"Its next token differs from the base's by {listed} (nats a token; 0 is the same model)."


def divergence_by_step(records: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """[{step, kl_field}], in order of the steps, of the field."""
    field = [r for r in records if r["slice"] == FIELD_SLICE]
    return [
        {"step": step, "kl_field": _mean([r for r in field if r["step"] == step], "kl").value}
        for step in sorted({r["step"] for r in field})
    ]


def entropy_on_text(records: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """{base, adapted}: mean entropy of the next token on general text, nats, after the last step."""
    part = divergence_part(records)
    text = part and part["slices"].get(TEXT)
    return {"base": text["entropy_base"], "adapted": text["entropy_adapted"]} if text else None
