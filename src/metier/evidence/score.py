"""The one scoring pass that everything reads: per item, the bytes, the tokens and the nats, base and adapted alike."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from metier.evidence.gain import FIELD_SLICE
from metier.models.encoding import Encoded, Encoder
from metier.models.packing import Branches, Pack, pack_branches, packs_of
from metier.sources.examples import Example, Message
from metier.sources.general import Request
from metier.training import parallel

Record = dict[str, object]
Advance = Callable[[int], None]
"""Called with the number of tokens just read, by all ranks together."""


class Reader(Protocol):
    """Gives nats of each supervised token of a pack and, below them, what `figures` names: (1 + figures, N)."""

    @property
    def figures(self) -> tuple[str, ...]: ...
    def per_token(self, batch: Pack) -> torch.Tensor: ...


@dataclass(frozen=True)
class Scored:
    """nats of each scored token, in the order of the text, and the sums of what else was read of them."""

    by_token: tuple[float, ...] = ()
    sums: Mapping[str, float] = field(default_factory=dict)

    @property
    def nll(self) -> float:
        return math.fsum(self.by_token)  # a sum over hundreds of tokens must not depend on their order

    @property
    def tokens(self) -> int:
        return len(self.by_token)

    def __add__(self, other: "Scored") -> "Scored":
        """That of two windows of a text, one after the other."""
        names = self.sums or other.sums
        sums = {name: self.sums.get(name, 0.0) + other.sums.get(name, 0.0) for name in names}
        return Scored(self.by_token + other.by_token, sums)


def score_documents(
    reader: Reader, documents: Sequence[Encoded], pack_tokens: int, advance: Advance
) -> dict[str, Scored]:
    """Nats of each item's text; the windows of one item are joined. End tokens are not scored: they stand for no
    byte."""
    numbered = [replace(document, item=str(i)) for i, document in enumerate(documents)]
    by_length = sorted(numbered, key=lambda d: len(d.ids), reverse=True)
    found = _score(list(packs_of(by_length, pack_tokens, with_end=False)), reader, advance)
    scored: dict[str, Scored] = {}
    for i, document in enumerate(documents):
        scored[document.item] = scored.get(document.item, Scored()) + found[str(i)]
    return scored


def score_branches(
    reader: Reader, documents: Sequence[Branches], pack_tokens: int, advance: Advance
) -> dict[str, Scored]:
    """Nats of every branch after its stem; keys are '<item>#<branch number>'."""
    by_length = sorted(documents, key=lambda d: d.n_tokens, reverse=True)
    packs: list[Pack] = []
    current: list[Branches] = []
    size = 0
    for document in by_length:
        if current and size + document.n_tokens > pack_tokens:
            packs.append(pack_branches(current))
            current, size = [], 0
        current.append(document)
        size += document.n_tokens
    if current:
        packs.append(pack_branches(current))
    return _score(packs, reader, advance)


def _score(packs: Sequence[Pack], reader: Reader, advance: Advance) -> dict[str, Scored]:
    """Each pack is read by one rank; what the others read is zero here until all ranks are added up."""
    read = [torch.zeros(1 + len(reader.figures), len(batch.labels), dtype=torch.float64) for batch in packs]
    n_ranks = parallel.n_ranks()
    for i in parallel.own_part([batch.n_tokens for batch in packs]):
        read[i] = reader.per_token(packs[i]).cpu().double()
        advance(n_ranks * packs[i].n_tokens)
    if not packs:
        return {}
    together = parallel.sum_over_ranks(torch.cat(read, dim=1))
    scored: dict[str, Scored] = {}
    for batch, of_pack in zip(packs, torch.split(together, [r.shape[1] for r in read], dim=1), strict=True):
        lengths = torch.bincount(batch.owners, minlength=len(batch.items)).tolist()  # owners stand in order
        for item, (nats, *others) in zip(batch.items, torch.split(of_pack, lengths, dim=1), strict=True):
            sums = {name: float(other.sum()) for name, other in zip(reader.figures, others, strict=True)}
            scored[item] = Scored(tuple(nats.tolist()), sums)
    return scored


class MultipleChoice(Protocol):
    """A question with its choices, each of which continues the stem; `label` is the index of the right one."""

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def stem(self) -> str: ...
    @property
    def choices(self) -> tuple[str, ...]: ...
    @property
    def label(self) -> int: ...


@dataclass(frozen=True)
class Passage:
    """The scored text of one held-out item, and where each of its tokens ends in it, in characters."""

    item: str
    document: str
    text: str
    ends: tuple[int, ...]


@dataclass(frozen=True)
class Items:
    """What both arms are scored on, encoded once: the same tokens for both, unless one has new tokens of its own."""

    field: tuple[Example, ...]
    field_documents: tuple[Encoded, ...]
    passages: tuple[Passage, ...]  # of the field
    texts: tuple[Example, ...]  # general ones; the group is the slice
    text_documents: tuple[Encoded, ...]
    requests: tuple[Request, ...]
    own_answers: tuple[str, ...]
    request_branches: tuple[Branches, ...]  # the good answer, then the base model's own
    choices: tuple[MultipleChoice, ...]
    choice_branches: tuple[Branches, ...]

    @property
    def n_tokens(self) -> int:
        """Tokens read in one arm."""
        documents = sum(len(d.ids) for d in (*self.field_documents, *self.text_documents))
        return documents + sum(b.n_tokens for b in (*self.request_branches, *self.choice_branches))

    def read_with(self, encoder: Encoder) -> "Items":
        """The same items in the tokens of another encoder."""
        return encode_items(encoder, self.field, self.texts, self.requests, self.own_answers, self.choices)


def encode_items(
    encoder: Encoder,
    field: Sequence[Example],
    texts: Sequence[Example],
    requests: Sequence[Request],
    own_answers: Sequence[str] | None,
    choices: Sequence[MultipleChoice],
) -> Items:
    """own_answers: the base model's own answer to each request, in order; a request it left empty is not scored.

    None before the base has answered: the good answers stand in, for their length.
    """
    pairs = zip(requests, own_answers, strict=True) if own_answers is not None else ((r, r.answer) for r in requests)
    kept = [(r, own) for r, own in pairs if own.strip()]
    of_field = [(example, encoder.encode(example)) for example in field]
    return Items(
        field=tuple(field),
        field_documents=tuple(d for _, documents in of_field for d in documents),
        passages=tuple(
            Passage(example.id, example.document, *encoder.scored_text(documents))
            for example, documents in of_field
            if documents
        ),
        texts=tuple(texts),
        text_documents=tuple(d for text in texts for d in encoder.encode(text)),
        requests=tuple(r for r, _ in kept),
        own_answers=tuple(own for _, own in kept),
        request_branches=tuple(
            Branches(
                r.id,
                tuple(encoder.prompt_ids([Message("user", r.request)])),
                (tuple(encoder.text_ids(r.answer)), tuple(encoder.text_ids(own))),
            )
            for r, own in kept
        ),
        choices=tuple(choices),
        choice_branches=tuple(
            Branches(
                c.id,
                tuple(encoder.opening_ids(c.stem)),
                tuple(tuple(encoder.text_ids(" " + choice)) for choice in c.choices),
            )
            for c in choices
        ),
    )


def score_field(reader: Reader, items: Items, pack_tokens: int, advance: Advance) -> tuple[list[Record], list[Record]]:
    """(records of the slice `field`, records of their tokens); bytes are those of the text that was scored."""
    scored = score_documents(reader, items.field_documents, pack_tokens, advance)
    n_bytes = bytes_by_item(items.field_documents)
    records = [
        score_record(e.id, FIELD_SLICE, e.document, e.group, n_bytes[e.id], scored[e.id])
        for e in items.field
        if e.id in scored and scored[e.id].tokens
    ]
    tokens: list[Record] = [
        {"item": p.item, "ends": list(p.ends), "nll": [round(nats, 4) for nats in scored[p.item].by_token]}
        for p in items.passages
        if scored[p.item].tokens
    ]
    return records, tokens


def bytes_by_item(documents: Sequence[Encoded]) -> dict[str, int]:
    """UTF-8 bytes of each item's scored text, its windows added up."""
    n_bytes: dict[str, int] = {}
    for document in documents:
        n_bytes[document.item] = n_bytes.get(document.item, 0) + document.n_bytes
    return n_bytes


def score_general(
    reader: Reader, items: Items, pack_tokens: int, advance: Advance
) -> tuple[list[Record], list[Record]]:
    """(records of the slices text/… and chat/…, records of the choices)."""
    records: list[Record] = []
    scored = score_documents(reader, items.text_documents, pack_tokens, advance)
    n_bytes = bytes_by_item(items.text_documents)
    for t in items.texts:
        if t.id in scored:
            records.append(score_record(t.id, f"text/{t.group}", t.document, t.group, n_bytes[t.id], scored[t.id]))
    scored = score_branches(reader, items.request_branches, pack_tokens, advance)
    for request, own in zip(items.requests, items.own_answers, strict=True):
        for i, (name, answer) in enumerate((("chat/good answers", request.answer), ("chat/own answers", own))):
            size, branch = len(answer.encode()), scored[f"{request.id}#{i}"]
            records.append(score_record(request.id, name, request.id, request.kind, size, branch))
    scored = score_branches(reader, items.choice_branches, pack_tokens, advance)
    choices: list[Record] = [
        {
            "item": c.id,
            "slice": f"choices/{c.kind}",
            "nll": [scored[f"{c.id}#{i}"].nll for i in range(len(c.choices))],
            "bytes": [len(choice.encode()) for choice in c.choices],
            "label": c.label,
        }
        for c in items.choices
    ]
    return records, choices


def score_record(item: str, name: str, document: str, group: str, n_bytes: int, scored: Scored) -> Record:
    """A line of evidence/scores-*.jsonl, and of dial.jsonl. name: of the slice."""
    return {
        "item": item,
        "slice": name,
        "document": document,
        "group": group,
        "bytes": n_bytes,
        "tokens": scored.tokens,
        "nll": scored.nll,
        **scored.sums,
    }
