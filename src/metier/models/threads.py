"""Threads fitted to the cores that are really free: two busy threads on one free core cost a peer six times."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from metier.models.machine import usable_cores
from metier.ranks import this_rank

# One try: about a block of a small model on 256 tokens, forward and backward; 10 ms on a free core.
TOKENS, WIDTH, PRODUCTS = 256, 576, 8
ROUNDS = 6  # the numbers of threads in turn, so that a neighbour who comes and goes meets them all
HOPELESS = 3.0  # times the fastest: not tried again, since a try may take seconds on a crowded core
WORTH = 0.95  # more threads are taken when they need less than this share of the time


@dataclass(frozen=True)
class Threads:
    """The number chosen, of how many that may be used, and the seconds that each number tried took."""

    n: int
    usable: int
    seconds: dict[int, float]

    def line(self) -> str:
        """What a person is told; empty where nothing was tried."""
        if not self.seconds:
            return ""
        tried = ", ".join(f"{n}: {s * 1000:.0f} ms" for n, s in self.seconds.items())
        return f"{self.n} of {self.usable} threads are used ({tried} for the same work)"


def fit_threads(
    given: int = 0,
    fixed: bool = False,
    work: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    usable: int | None = None,
) -> Threads:
    """Set torch's threads to `given`, or to the number from 1 to `usable` that is fastest now.

    fixed: take all that are usable whatever is fastest, since what is computed must not depend on the load. Ranks
    do so too: they wait for one another.
    """
    usable = usable or usable_cores()
    if given or fixed or usable == 1 or this_rank().of > 1:
        torch.set_num_threads(given or usable)
        return Threads(given or usable, usable, {})
    seconds = _tried(candidates(usable), work or _block(), clock)
    n = fastest(seconds)
    torch.set_num_threads(n)
    return Threads(n, usable, seconds)


def candidates(usable: int) -> list[int]:
    """1, 2, 4, … and all; half of all too, since two threads on one core's two lanes can be slower than one."""
    powers = {2**i for i in range(usable.bit_length()) if 2**i <= usable}
    return sorted(powers | {usable, max(1, usable // 2), max(1, usable - 1)})


def fastest(seconds: dict[int, float]) -> int:
    """The number of threads that is fastest by enough to be worth it; fewer ones leave room for others."""
    best = min(seconds)
    for n in sorted(seconds):
        if seconds[n] < WORTH * seconds[best]:
            best = n
    return best


def _tried(numbers: Sequence[int], work: Callable[[], object], clock: Callable[[], float]) -> dict[int, float]:
    """Mean seconds: with a busy neighbour the best of several would be the one time that he was away."""
    taken: dict[int, list[float]] = {n: [] for n in numbers}
    for _ in range(ROUNDS):
        best = min(map(sum, taken.values()))
        for n in [n for n in numbers if sum(taken[n]) <= HOPELESS * best]:
            torch.set_num_threads(n)
            work()  # wakes the threads
            started = clock()
            work()
            taken[n].append(clock() - started)
    return {n: sum(seconds) / len(seconds) for n, seconds in taken.items()}


def _block() -> Callable[[], object]:
    x, up, down = torch.randn(TOKENS, WIDTH), torch.randn(WIDTH, 3 * WIDTH), torch.randn(3 * WIDTH, WIDTH)

    def work() -> None:
        y = x
        for _ in range(PRODUCTS):
            y = torch.nn.functional.silu(y @ up) @ down
            y = y / y.square().mean(-1, keepdim=True).sqrt()

    return work
