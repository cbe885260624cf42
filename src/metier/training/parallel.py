"""One run on several processes: every rank reads the same stream and takes its part of each step.

In a process that torchrun did not start, or started alone, nothing here touches torch.distributed: sums are then what
they were, and the first rank is the only one.
"""

import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cache
from types import FrameType
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from metier.errors import RankError
from metier.models.device import CPU
from metier.models.encoding import Encoded
from metier.models.packing import Pack, divide, pack
from metier.ranks import this_rank
from metier.training.stream import Step

GRACE_S = 5.0  # in which ranks whose run broke tell one another what they know
TOLD = "metier/told"
WAITING = "metier/waiting/"
T = TypeVar("T")


def join(timeout_s: float, device: torch.device = CPU) -> None:
    """Meet the other ranks that torchrun started; nothing to do for a process that is alone, or that has joined.

    timeout_s: how long ranks wait for one another, here and later. device: where this rank's model computes.

    Raises:
        RankError: a rank did not come in time; the message names it.
    """
    rank = this_rank()
    if rank.of == 1 or dist.is_initialized():
        return
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"  # each tensor takes the way of its device
    with naming_the_missing():
        group = PrefixStore("metier/group", _store())
        limit = timedelta(seconds=timeout_s)
        dist.init_process_group(backend, store=group, rank=rank.number, world_size=rank.of, timeout=limit)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _on_sigterm)


def n_ranks() -> int:
    """1 before `join`, and always without torchrun."""
    return dist.get_world_size() if this_rank().of > 1 and dist.is_initialized() else 1


# What ranks tell one another


def from_first(value: T) -> T:
    """The value that the first rank has: what depends on a clock or on one machine's cache must be the same on all."""
    if n_ranks() == 1:
        return value
    box = [value]
    with naming_the_missing():
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def by_first(work: Callable[[], T]) -> T:
    """What `work` returns on the first rank, where alone it is done."""
    return from_first(work() if this_rank().is_first else cast(T, None))


def from_all(value: T) -> list[T]:
    """The values of all ranks, in the order of the ranks."""
    if n_ranks() == 1:
        return [value]
    values: list[T] = [value] * n_ranks()
    with naming_the_missing():
        dist.all_gather_object(values, value)
    return values


def sum_over_ranks(values: Tensor) -> Tensor:
    """`values` in place: the sum over all ranks."""
    if n_ranks() > 1:
        with naming_the_missing():
            dist.all_reduce(values)
    return values


def any_rank(flag: bool) -> bool:
    """Whether it holds on at least one rank: a signal does not reach all of them within the same step."""
    return bool(sum_over_ranks(torch.tensor(float(flag))))


def require_alike(what: str, parts: Iterable[str]) -> None:
    """Raises RankError when a rank has other `parts` than the first: it would train on steps of its own."""
    if n_ranks() == 1:
        return
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "backslashreplace") + b"\0")
    digests = from_all(digest.hexdigest())
    others = [str(number) for number, found in enumerate(digests) if found != digests[0]]
    if others:
        raise RankError(f"rank {', '.join(others)} has {what} other than rank 0: give every node the same files.")


@contextmanager
def first_of_a_node_first() -> Iterator[None]:
    """The first rank of every node goes before the others of its node: what it fetches, they find."""
    waits = n_ranks() > 1 and this_rank().number_on_node > 0
    if waits:
        sum_over_ranks(torch.zeros(1))
    yield
    if n_ranks() > 1 and not waits:
        sum_over_ranks(torch.zeros(1))


# The division of work


def require_rows(n_rows: int, n_preferences: int) -> None:
    """Raises RankError when there are more ranks than rows to train on, or rows that one process alone learns."""
    if n_ranks() > 1 and n_preferences:
        raise RankError(f"{n_preferences} of the rows are preferences, which one process learns: run without torchrun.")
    if n_ranks() > n_rows:
        raise RankError(f"{n_ranks()} ranks for {n_rows} rows to train on: start {n_rows} at most (--nproc-per-node).")


def require_documents(first_steps: Iterable[Step]) -> None:
    """Raises RankError when a rank would have nothing to do in any of these steps."""
    if n_ranks() == 1:
        return
    most = max((len(step.documents) for step in first_steps), default=0)
    if n_ranks() > most:
        raise RankError(
            f"{n_ranks()} ranks, and steps of {most} documents at most: start {most} at most (--nproc-per-node), or "
            "give more --step-tokens."
        )


def divided(sizes: Sequence[int], n_parts: int) -> list[list[int]]:
    """Indices of `sizes` in `n_parts` parts of about the same sum: the largest first, each to the part that has least.

    Within a part the order is that of `sizes`; with fewer sizes than parts the last parts are empty.
    """
    parts: list[list[int]] = [[] for _ in range(n_parts)]
    sums = [0] * n_parts
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        least = sums.index(min(sums))
        parts[least].append(i)
        sums[least] += sizes[i]
    return [sorted(part) for part in parts]


def own_part(sizes: Sequence[int]) -> list[int]:
    """Indices of what this rank does; all of them when it is alone."""
    return divided(sizes, n_ranks())[this_rank().number if n_ranks() > 1 else 0]


def groups_by_rank(documents: Sequence[Encoded], n: int, pack_tokens: int) -> list[list[list[Encoded]]]:
    """[rank][pack] → documents of a step; as many packs on every rank, the last ones empty if it must be.

    Ranks are balanced by tokens; the packs of each are those of `divide`.
    """
    parts = divided([len(d.ids) for d in documents], n)
    by_rank = [list(divide([documents[i] for i in part], pack_tokens)) for part in parts]
    n_packs = max(map(len, by_rank))
    return [groups + [[]] * (n_packs - len(groups)) for groups in by_rank]


def own_packs(documents: Sequence[Encoded], pack_tokens: int) -> list[tuple[list[Encoded], Pack]]:
    """This rank's packs of a step, each with its documents in the order of its items.

    A rank that has no document where others have one reads the shortest without its labels, so that all ranks
    make the same passes: sharded weights are gathered by all ranks together.
    """
    n = n_ranks()
    groups = groups_by_rank(documents, n, pack_tokens)[this_rank().number if n > 1 else 0]
    shortest = min(documents, key=lambda d: len(d.ids))
    return [(group, pack(group) if group else _unlabelled(pack([shortest]))) for group in groups]


def _unlabelled(batch: Pack) -> Pack:
    return replace(batch, predictors=batch.predictors[:0], labels=batch.labels[:0], owners=batch.owners[:0])


# Gradients


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Let every rank hold the sum over ranks, in one all-reduce; sharded ones were summed in the backward pass."""
    if n_ranks() == 1:
        return
    plain = [p for p in parameters if not isinstance(p, DTensor)]
    if not plain:
        return
    with torch.no_grad():
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in plain])
        sum_over_ranks(flat)
        for p, part in zip(plain, torch.split(flat, [p.numel() for p in plain]), strict=True):
            p.grad = part.view_as(p)


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> float:
    """Scale the gradients so that their norm is at most `limit`; returns the norm before, that of the whole model."""
    sharded = [p.grad.to_local() for p in parameters if isinstance(p.grad, DTensor)]
    if not sharded:
        return float(nn.utils.clip_grad_norm_(parameters, limit))
    plain = [p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
    square = sum_over_ranks(nn.utils.get_total_norm(sharded).double() ** 2)
    norm = float((square + nn.utils.get_total_norm(plain) ** 2) ** 0.5)
    for gradient in (*sharded, *plain):
        gradient.mul_(min(1.0, limit / (norm + 1e-6)))  # as torch's clip_grad_norm_ does
    return norm


# When a rank fails


@cache
def _store() -> Store:
    """torchrun's own, which outlives the ranks; every attempt of a restarted run has its own keys in it."""
    store: Store = next(rendezvous("env://"))[0]
    return store


@contextmanager
def naming_the_missing() -> Iterator[None]:
    """Say what a broken collective means: which rank is missing, or what it said before it ended.

    Raises:
        RankError: a collective within failed.
    """
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        if isinstance(error, RankError) or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise RankError(_missing(str(error))) from error


def _missing(reason: str) -> str:
    """What a rank that has told the user why it ended said; else a sentence that names those that do not answer."""
    try:
        silent = _silent_ranks()
        if _store().check([TOLD]):
            return str(_store().get(TOLD).decode())
    except dist.DistError as error:
        return f"the node of rank 0 cannot be reached ({_first_line(error)}): look at it, and run again."
    if not silent:
        return f"the ranks cannot reach one another ({_first_line(reason)}): look at the network between them."
    happened = "did not answer in time (--rank-timeout)" if "imed out" in reason else "ended without a word"
    numbers = ", ".join(map(str, silent))
    return f"rank {numbers} {happened}: look at its output and at the memory and load of its machine."


def _silent_ranks() -> list[int]:
    """Say that this rank is here, wait a moment, and find those that did not say so."""
    me, store = this_rank(), _store()
    store.set(f"{WAITING}{me.number}", "")
    until = time.monotonic() + GRACE_S
    while not store.check([TOLD]) and time.monotonic() < until:
        time.sleep(0.1)
    return [i for i in range(me.of) if not store.check([f"{WAITING}{i}"])]


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    """torchrun stops the ranks of a run when one has ended, and when it is stopped itself.

    Raises:
        RankError: a rank has ended.
        KeyboardInterrupt: they are all there.
    """
    del number, frame
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if _silent_ranks() or _store().check([TOLD]):
        raise RankError(_missing("ended"))
    raise KeyboardInterrupt


def _first_line(reason: object) -> str:
    return str(reason).splitlines()[0][:200]


def is_to_tell(sentence: str) -> bool:
    """Whether this rank tells the user what went wrong: one rank does, the first unless it has nothing to tell.

    The others wait a moment for it, since torchrun stops all ranks as soon as one has ended.
    """
    rank = this_rank()
    if rank.of == 1:
        return True
    told = f"rank {rank.number}: {sentence}"
    try:
        store = _store()
        until = time.monotonic() + (0 if rank.is_first else GRACE_S)
        while not store.check([TOLD]) and time.monotonic() < until:
            time.sleep(0.1)
        return bool(store.compare_set(TOLD, "", told).decode() == told)
    except dist.DistError:
        return True
