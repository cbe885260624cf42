"""Memory: tried with the longest pack before the first step, and smaller packs where it runs out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

import torch

from metier.errors import MetierError
from metier.models.encoding import Encoded
from metier.models.packing import Pack, PackReader, packs_of
from metier.training.stream import Step

MOST_STEPS_SEEN = 2000  # looked through for the longest pack: encoding more would itself take minutes

T = TypeVar("T")


def or_none_without_memory(work: Callable[[], T]) -> T | None:
    """What `work` returns; None where it ran out of memory, once what it held is let go."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """torch has a class for it on GPUs; on a CPU its allocator has only words."""
    words = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or ("alloc" in words and "memory" in words)


def smaller_packs(documents: Sequence[Encoded], pack_tokens: int) -> int:
    """Half of `pack_tokens`.

    Raises:
        MetierError: the longest pack is one document, which halves cannot make shorter.
    """
    half = pack_tokens // 2
    longest = max(len(document.ids) for document in documents)
    if half < 1 or _longest(packs_of(documents, half)).n_tokens >= _longest(packs_of(documents, pack_tokens)).n_tokens:
        raise MetierError(
            f"a document of {longest} tokens alone does not fit into memory: choose a smaller --model, shorten the "
            "documents, or use a machine with more."
        )
    return half


def try_longest_pack(
    reader: PackReader, steps: Iterable[Step], n_steps: int, pack_tokens: int, say: Callable[[str], None]
) -> int:
    """Run the longest pack of the planned steps forwards and backwards and forget the gradients, so that memory fails
    now or never; returns `pack_tokens`, halved as often as it took. Weights and random states are left as they were.

    Raises:
        MetierError: one document alone is too much.
    """
    seen = list(islice(steps, min(n_steps, MOST_STEPS_SEEN)))
    if not seen:
        return pack_tokens
    size = pack_tokens
    while True:
        longest = [_longest(packs_of(step.documents, size)) for step in seen]
        at = max(range(len(seen)), key=lambda i: _length(longest[i]))
        if or_none_without_memory(partial(_read, reader, longest[at])):
            break
        reader.model.zero_grad(set_to_none=True)
        size = smaller_packs(seen[at].documents, size)
    if size < pack_tokens:
        say(f"packs of {pack_tokens} tokens do not fit into memory: packs of {size}, the same steps")
    return size


def _longest(packs: Iterator[Pack]) -> Pack:
    return max(packs, key=_length)


def _length(batch: Pack) -> tuple[int, int]:
    """Tokens of the pack, then of its longest document, whose attention is quadratic."""
    return batch.n_tokens, max(map(sum, batch.segments))


def _read(reader: PackReader, batch: Pack) -> bool:
    """Beside what the optimizer will remember of every trained parameter."""
    trained = [p for p in reader.model.parameters() if p.requires_grad]
    was_training = reader.model.training
    reader.model.train()
    try:
        with torch.random.fork_rng():
            moments = [torch.ones_like(p) for p in trained for _ in range(2)]
            reader.row_nll(batch)[0].backward()  # type: ignore[no-untyped-call]
            del moments
    finally:
        reader.model.zero_grad(set_to_none=True)
        reader.model.train(was_training)
    return True
