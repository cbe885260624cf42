"""As many threads as help now, and never more than the process may use."""

from collections.abc import Iterator

import pytest
import torch

from metier.models import threads
from metier.models.threads import candidates, fastest, fit_threads


@pytest.fixture(autouse=True)
def _threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Machine:
    """Work takes the given seconds at each number of torch's threads, by its own clock."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = {int(name[1:]): value for name, value in seconds.items()}
        self.now = 0.0

    def work(self) -> None:
        self.now += self.seconds[torch.get_num_threads()]

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"n1": 10.0, "n2": 5.5, "n3": 4.0, "n4": 3.0}, 4),  # all cores are free
        ({"n1": 10.0, "n2": 5.5, "n3": 60.0, "n4": 80.0}, 2),  # two are
        ({"n1": 10.0, "n2": 60.0, "n3": 60.0, "n4": 80.0}, 1),  # one is
        ({"n1": 10.0, "n2": 9.8, "n3": 9.7, "n4": 9.6}, 1),  # more threads help too little
    ],
)
def test_the_fastest_number_of_threads_is_set(seconds: dict[str, float], expected: int) -> None:
    machine = Machine(**seconds)
    found = fit_threads(work=machine.work, clock=machine.clock, usable=4)
    assert found.n == torch.get_num_threads() == expected
    assert found.seconds == pytest.approx(machine.seconds)
    assert found.line().startswith(f"{expected} of 4 threads are used (1: 10000 ms, 2: ")


def test_a_neighbour_who_comes_and_goes_counts_by_how_long_he_stays() -> None:
    """Three of four times two threads are slow: their best time would have chosen them."""
    machine = Machine(n1=10.0)
    n_calls = 0

    def work() -> None:
        nonlocal n_calls
        if torch.get_num_threads() == 2:
            n_calls += 1
            machine.now += 5.0 if n_calls % 4 == 0 else 30.0
        else:
            machine.work()

    assert fit_threads(work=work, clock=machine.clock, usable=2).n == 1


def test_a_number_that_is_hopeless_is_tried_once() -> None:
    machine, tried = Machine(n1=1.0, n2=100.0), list[int]()

    def work() -> None:
        tried.append(torch.get_num_threads())
        machine.work()

    assert fit_threads(work=work, clock=machine.clock, usable=2).n == 1
    assert tried.count(2) == 2  # once to wake the threads
    assert tried.count(1) == 2 * threads.ROUNDS


def test_a_number_that_is_given_is_set_without_a_try() -> None:
    found = fit_threads(given=1, usable=8, work=lambda: pytest.fail("tried"))
    assert (found.n, torch.get_num_threads(), found.line()) == (1, 1, "")


def test_where_the_result_must_not_depend_on_the_load_all_usable_cores_are_taken() -> None:
    found = fit_threads(fixed=True, usable=2, work=lambda: pytest.fail("tried"))
    assert (found.n, torch.get_num_threads()) == (2, 2)


def test_what_is_usable_bounds_what_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    machine = Machine(n1=10.0, n2=5.0)
    assert fit_threads(work=machine.work, clock=machine.clock).seconds.keys() == {1, 2}
    monkeypatch.setattr(threads, "usable_cores", lambda: 1)
    assert fit_threads(work=machine.work, clock=machine.clock).n == 1


@pytest.mark.parametrize(
    ("usable", "expected"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (6, [1, 2, 3, 4, 5, 6]), (16, [1, 2, 4, 8, 15, 16])]
)
def test_few_numbers_are_tried(usable: int, expected: list[int]) -> None:
    assert candidates(usable) == expected


def test_a_tie_goes_to_fewer_threads() -> None:
    assert fastest({4: 1.0, 1: 1.0, 2: 1.0}) == 1


def test_the_real_work_runs_on_every_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WIDTH", 16)
    monkeypatch.setattr(threads, "HOPELESS", 1e9)
    found = fit_threads(usable=2)
    assert set(found.seconds) == {1, 2}
    assert min(found.seconds.values()) > 0
