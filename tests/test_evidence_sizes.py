import numpy as np
import pytest

from metier.evidence.sufficiency.sizes import document_draws, read_trajectory
from test_evidence_sufficiency import FULL, SIZES, grows, trajectory


@pytest.mark.parametrize("n", [5, 60])
def test_drawn_gains_spread_as_far_as_the_documents_allow(n):
    """As the leave-one-out error has it, also where few documents are drawn from few."""
    equal = [{**r, "bytes": 500} for r in trajectory(grows, n=n, varying=0.5)]
    measured = read_trajectory(equal)
    drawn = document_draws(measured, 4000, np.random.default_rng(0))
    assert drawn.mean(axis=0) == pytest.approx([gain.value for gain in measured.gains], rel=0.01)
    assert drawn.std(axis=0) == pytest.approx([gain.se for gain in measured.gains], rel=0.04)


def test_a_document_that_teaches_more_does_so_at_every_size_of_a_draw():
    drawn = document_draws(read_trajectory(trajectory(grows, varying=0.5)), 500, np.random.default_rng(0))
    assert np.corrcoef(drawn.T).min() > 0.99


def test_sizes_come_in_order_with_their_seeds_counted():
    measured = read_trajectory(trajectory(grows, seeds=2)[::-1])
    assert measured.tokens == SIZES
    assert measured.repeats.counts == (2, 2, 2, 2)
    assert min(measured.repeats.squares) > 0
    once = read_trajectory([{**r, "seed": None} for r in trajectory(grows)])
    assert once.repeats.counts == (1, 1, 1, 1)
    assert once.repeats.squares == (0, 0, 0, 0)


def test_what_a_step_must_save_to_be_seen_does_not_depend_on_how_hard_the_texts_are():
    records = trajectory(grows, varying=0.1)
    harder = {f"i{i}": 1 + i % 3 for i in range(40)}  # texts that need up to three times the bits, gains in proportion
    unequal = [{**r, "nll": r["nll"] * harder[r["item"]]} for r in records]
    plain, mixed = read_trajectory(records), read_trajectory(unequal)
    assert mixed.detectable / plain.detectable == pytest.approx(2, rel=0.4)  # as the mean of the bits
    step = plain.growth_from(plain.adapted[-2])
    assert step.value == pytest.approx(plain.gains[-1].value - plain.gains[-2].value)
    assert plain.detectable < step.detectable
    assert plain.tokens[-1] == FULL
