"""The order in which documents are trained: shuffled epochs of every part, and the parts by their shares of tokens."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from metier.models.encoding import Encoded
from metier.sources.examples import Example

# Encoded documents waiting, of long texts about a million tokens: a smaller corpus is shuffled as a whole, and one long
# table among files is no more of a short run than of the corpus. Filling it takes about a second.
BUFFER = 1024
# The names of parts; under --mix those of the field are the names of their data.
FIELD, MINED, REPLAY, OWN_GENERAL = "field", "mined tasks", "replay", "your general text"


@dataclass(frozen=True)
class Part:
    """A source of (epoch, document) and the share of all tokens that it is to have; shares of a run add up to 1."""

    name: str
    share: float
    documents: Iterator[tuple[int, Encoded]]


@dataclass(frozen=True)
class Step:
    """The documents of one optimizer step; `tokens` are those of each part that is in it."""

    documents: tuple[Encoded, ...]
    tokens: Mapping[str, int]
    epoch: int

    @property
    def n_tokens(self) -> int:
        return sum(self.tokens.values())

    @property
    def n_replay_tokens(self) -> int:
        return self.tokens.get(REPLAY, 0) + self.tokens.get(OWN_GENERAL, 0)


def field_documents(
    examples: Sequence[Example], encode: Callable[[Example], list[Encoded]], seed: int
) -> Iterator[tuple[int, Encoded]]:
    """(epoch, document) without end: every epoch all documents once, in an order fixed by the seed.

    Examples are encoded as they are needed. The windows of a long text are spread by drawing from a buffer, so that
    neither a step nor a short run is one text, unless that text is longer than the buffer.
    """
    epoch = 0
    while True:
        rng = random.Random(f"{seed}/{epoch}")
        order = list(range(len(examples)))
        rng.shuffle(order)
        buffer: list[Encoded] = []
        n_documents = 0
        for i in order:
            buffer.extend(document for document in encode(examples[i]) if document.n_supervised)
            while len(buffer) > BUFFER:
                n_documents += 1
                yield epoch, buffer.pop(rng.randrange(len(buffer)))
        rng.shuffle(buffer)
        n_documents += len(buffer)
        yield from ((epoch, document) for document in buffer)
        if n_documents == 0:
            return
        epoch += 1


def replayed(documents: Sequence[Encoded]) -> Iterator[tuple[int, Encoded]]:
    """In the given order, again from the first when all were used; they count as no epoch."""
    return ((0, document) for document in cycle(documents))


def steps(parts: Sequence[Part], step_tokens: int) -> Iterator[Step]:
    """Steps of at least one document and about `step_tokens` tokens, until a part has no more documents.

    After each document the part that is furthest behind its share is drawn from, the first of those that are equally
    so: the achieved shares are even over the run, and each is off by a document or two at most.
    """
    drawn = dict.fromkeys((part.name for part in parts), 0)
    n_steps = epoch = n_total = 0
    while True:
        n_steps += 1
        documents: list[Encoded] = []
        tokens: dict[str, int] = {}
        # Counted from the start of the run: what one step takes too much, the next gives back.
        while not documents or n_total < n_steps * step_tokens:
            part = max(parts, key=lambda part: part.share * n_total - drawn[part.name])
            found = next(part.documents, None)
            if found is None:
                return
            document = found[1]
            epoch = max(epoch, found[0])
            documents.append(document)
            drawn[part.name] += document.n_tokens
            tokens[part.name] = tokens.get(part.name, 0) + document.n_tokens
            n_total += document.n_tokens
        yield Step(tuple(documents), tokens, epoch)
