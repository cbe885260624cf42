"""Warm-up, constant, decay."""

from itertools import pairwise

import pytest

from metier.training.schedule import lr_at


def rates(n_steps: int, peak: float = 1.0) -> list[float]:
    return [lr_at(step, n_steps, peak) for step in range(n_steps)]


def test_the_rate_rises_over_a_twentieth_stays_and_falls_over_a_fifth() -> None:
    found = rates(100)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert set(found[4:80]) == {1.0}
    assert found[79] > found[80]
    assert found[80] == pytest.approx(1 - (1 / 21) ** 0.5)
    assert all(a > b for a, b in pairwise(found[79:]))


@pytest.mark.parametrize("n_steps", [1, 2, 3, 5, 8, 20, 97])
def test_every_step_of_any_run_learns_and_none_learns_faster_than_the_peak(n_steps: int) -> None:
    found = rates(n_steps, peak=3e-4)
    assert all(0 < rate <= 3e-4 for rate in found)
    assert max(found) == 3e-4
