"""The order in which documents are trained: shuffled epochs of the field, with replay spread evenly among them."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from metier.models.encoding import Encoded
from metier.sources.examples import Example

BUFFER = 64  # documents waiting, encoded


@dataclass(frozen=True)
class Step:
    """The documents of one optimizer step."""

    documents: tuple[Encoded, ...]
    n_tokens: int
    n_replay_tokens: int
    epoch: int


def field_documents(
    examples: Sequence[Example], encode: Callable[[Example], list[Encoded]], seed: int
) -> Iterator[tuple[int, Encoded]]:
    """(epoch, document) without end: every epoch all documents once, in an order fixed by the seed.

    Examples are encoded as they are needed. The windows of a long text are spread by drawing from a buffer, so that
    a step is not one text.
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


def steps(
    field: Iterator[tuple[int, Encoded]], replay: Sequence[Encoded], share: float, step_tokens: int
) -> Iterator[Step]:
    """Steps of at least one document and about `step_tokens` tokens, `share` of all tokens being replay.

    Replay documents come in the given order, again from the first when all were used; after each document the side
    that is
    behind its share is drawn from, so that the achieved share is even over the run and its error is one document at
    most.
    """
    n_replayed = n_total = n_steps = 0
    replayed = epoch = 0
    while True:
        n_steps += 1
        documents: list[Encoded] = []
        size = replay_size = 0
        # Counted from the start of the run: what one step takes too much, the next gives back.
        while not documents or n_total < n_steps * step_tokens:
            if replay and n_replayed < share * n_total:
                document = replay[replayed % len(replay)]
                replayed += 1
                n_replayed += document.n_tokens
                replay_size += document.n_tokens
            else:
                drawn = next(field, None)
                if drawn is None:
                    return
                epoch, document = drawn
            documents.append(document)
            size += document.n_tokens
            n_total += document.n_tokens
        yield Step(tuple(documents), size, replay_size, epoch)
