"""The weights on their way: which steps are kept, what their mean is, and that the model is left as it was."""

from pathlib import Path

import pytest
import torch

from metier.models.methods import add_method
from metier.training.trajectory import Trajectory, points, standing_at, trained_of
from tiny import tiny_model


def test_a_point_is_an_eighth_a_quarter_and_half_of_the_steps_and_the_mean_of_its_last_few() -> None:
    assert points(64) == {8: range(7, 9), 16: range(13, 17), 32: range(29, 33)}
    assert points(16) == {2: range(2, 3), 4: range(4, 5), 8: range(7, 9)}


def test_a_run_that_is_too_short_has_none() -> None:
    assert points(15) == {}


def test_the_weights_of_a_point_are_the_mean_of_its_steps(tmp_path: Path) -> None:
    model = add_method(tiny_model(), "lora", r=2, alpha=4, seed=0)
    trajectory = Trajectory(tmp_path / "way", 16)
    for step in range(1, 17):
        with torch.no_grad():
            for parameter in trained_of(model).values():
                parameter.fill_(float(step))
        trajectory.keep(step, model)
    found = {step: read() for step, read in trajectory.weights()}
    values = {step: {float(tensor.mean()) for tensor in tensors.values()} for step, tensors in found.items()}
    assert values == {2: {2.0}, 4: {4.0}, 8: {7.5}}
    assert set(found[8]) == set(trained_of(model))
    trajectory.remove()
    assert not (tmp_path / "way").exists()


def test_a_point_whose_steps_were_taken_while_rates_were_tried_is_passed_over(tmp_path: Path) -> None:
    model = add_method(tiny_model(), "lora", r=2, alpha=4, seed=0)
    trajectory = Trajectory(tmp_path, 64)
    for step in range(15, 65):
        trajectory.keep(step, model)
    assert [step for step, _ in trajectory.weights()] == [16, 32]


def test_other_weights_stand_in_only_within_and_come_back_whatever_happens() -> None:
    model = add_method(tiny_model(), "lora", r=2, alpha=4, seed=0)
    before = {name: p.detach().clone() for name, p in trained_of(model).items()}
    others = {name: p + 1 for name, p in before.items()}

    def fail_within() -> None:
        with standing_at(model, others):
            assert all(torch.equal(p, others[name]) for name, p in trained_of(model).items())
            raise KeyError

    with pytest.raises(KeyError):
        fail_within()
    assert all(torch.equal(p, before[name]) for name, p in trained_of(model).items())
