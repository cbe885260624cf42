"""The weights on their way: a point is what a shorter run would have learned, and the run does not notice."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metier.models.methods import add_method
from metier.models.packing import PackReader
from metier.runs import RunFolder
from metier.training import loop
from metier.training.checkpoint import kept_within
from metier.training.journal import Journal
from metier.training.loop import Recipe, StepMetrics, Trained, train
from metier.training.stream import Step
from metier.training.trajectory import EXTRA_STEPS, Trajectory, points, standing_at, trained_of
from metier.training.update import Update
from small import KilledError, kill_in_training
from tiny import documents, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = documents(21, 7, 16, 11, 5, 30, seed=2)
N_STEPS = 16


def stream() -> Iterator[Step]:
    for i in range(N_STEPS):
        rows = (ROWS[i % 6], ROWS[(5 * i + 2) % 6])
        yield Step(rows, {"field": sum(len(r.ids) for r in rows)}, i // 6)


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trained_of(model).items()}


def trained_for(n_steps: int) -> dict[str, Tensor]:
    """A plain run of its own."""
    reader = PackReader(add_method(tiny_model(), "lora", r=4, alpha=8, seed=0))
    train(reader, stream, Recipe(n_steps, 1e-2, 40), lambda _: None)
    return weights(reader.model)


def session(
    run: RunFolder,
    on_step: Callable[[StepMetrics], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    every_s: float = 1e9,
) -> tuple[Trained, dict[str, Tensor], Trajectory]:
    """One process of a run whose way is kept."""
    run.path.mkdir(exist_ok=True)
    reader = PackReader(add_method(tiny_model(), "lora", r=4, alpha=8, seed=0))
    journal = Journal(run, {"code": "c"}, every_s, 0.0, lambda _: None)
    journal.trajectory = Trajectory(run.trajectory, N_STEPS)
    try:
        recipe = Recipe(N_STEPS, 1e-2, 40)
        done = train(reader, stream, recipe, on_step, should_stop, lambda _: None, journal)
    finally:
        journal.close()
    return done, weights(reader.model), journal.trajectory


def points_of(trajectory: Trajectory) -> dict[int, dict[str, Tensor]]:
    return {step: read() for step, read in trajectory.weights()}


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_point_is_an_eighth_a_quarter_and_half_of_the_steps_and_the_rate_falls_in_the_last_fifth_before_it() -> None:
    assert points(64) == {8: 6, 16: 13, 32: 26}
    assert points(16) == {2: 2, 4: 3, 8: 6}
    assert sum(end - falling for end, falling in points(4000).items()) == pytest.approx(EXTRA_STEPS * 4000)


def test_a_run_that_is_too_short_has_none() -> None:
    assert points(15) == {}


def test_a_point_is_the_end_of_a_run_of_so_many_steps_and_the_run_does_not_notice(tmp_path: Path) -> None:
    done, found, trajectory = session(RunFolder(tmp_path / "run"))
    assert_same(found, trained_for(N_STEPS))
    at = points_of(trajectory)
    assert list(at) == [2, 4, 8]
    for n_steps in (4, 8):
        assert_same(at[n_steps], trained_for(n_steps))
    assert done.n_steps == N_STEPS
    assert done.early_seconds > 0
    trajectory.remove()
    assert not (tmp_path / "run" / "trajectory").exists()


@pytest.mark.parametrize("dies_at", [5, 8])
def test_a_run_that_dies_beside_its_way_goes_on_to_the_same_points(
    dies_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the updates, two of which lead to the point at step 8: the fifth is the first run's own, the eighth is not."""
    whole = RunFolder(tmp_path / "whole")
    _, expected, way = session(whole)
    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        kill_in_training(patch, dies_at)
        with pytest.raises(KilledError):
            session(run, every_s=0.0)
    _, found, again = session(run)
    assert_same(found, expected)
    points_whole, points_again = points_of(way), points_of(again)
    assert list(points_again) == list(points_whole)
    for step, tensors in points_whole.items():
        assert_same(points_again[step], tensors)
    assert whole.rows.read_bytes() == run.rows.read_bytes()


def test_a_stop_on_the_way_to_a_point_leaves_none_and_the_run_that_goes_on_has_it(tmp_path: Path) -> None:
    run, last = RunFolder(tmp_path / "run"), 0

    def on_step(metrics: StepMetrics) -> None:
        nonlocal last
        last = metrics.step

    asked = 0

    def should_stop() -> bool:
        """After step 6 of the run, when it has gone a step beside it; and from then on."""
        nonlocal asked
        asked += last == 6
        return asked > 1

    done, _, trajectory = session(run, on_step, should_stop)
    assert done.interrupted
    assert list(points_of(trajectory)) == [2, 4]
    _, found, trajectory = session(run)
    assert_same(found, trained_for(N_STEPS))
    assert_same(points_of(trajectory)[8], trained_for(8))


def test_what_is_not_finite_beside_the_run_leaves_no_point_and_the_run_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The eighth update of all is the first towards the point at step 8."""
    step, n = loop.train_step, 0

    def spoilt(*given: Any) -> Update:
        nonlocal n
        n += 1
        return Update(float("nan"), 1.0, 3, [], []) if n == 8 else step(*given)

    monkeypatch.setattr(loop, "train_step", spoilt)
    done, found, trajectory = session(RunFolder(tmp_path / "run"))
    monkeypatch.undo()
    assert list(points_of(trajectory)) == [2, 4]
    assert done.rollbacks == []
    assert_same(found, trained_for(N_STEPS))


def test_packs_that_did_not_fit_beside_the_run_are_smaller_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, n, sizes = loop.train_step, 0, []

    def tight(*given: Any) -> Update:
        nonlocal n
        n += 1
        sizes.append(given[3])
        if n == 8:
            raise MemoryError
        return step(*given)

    monkeypatch.setattr(loop, "train_step", tight)
    done, _, trajectory = session(RunFolder(tmp_path / "run"))
    assert list(points_of(trajectory)) == [2, 4, 8]
    assert sizes[:8] == [40] * 8
    assert set(sizes[8:]) == {done.pack_tokens}
    assert done.pack_tokens < 40


def test_what_is_drawn_beside_the_run_changes_no_draw_of_its_own() -> None:
    model = add_method(tiny_model(), "lora", r=2, alpha=4, seed=0)
    optimizer = torch.optim.AdamW(trained_of(model).values())
    torch.manual_seed(5)
    random.seed(5)
    with kept_within(model, optimizer):
        drawn = torch.rand(3), random.random()
    assert torch.equal(torch.rand(3), drawn[0])
    assert random.random() == drawn[1]


def test_a_point_whose_steps_were_taken_while_rates_were_tried_is_passed_over(tmp_path: Path) -> None:
    trajectory = Trajectory(tmp_path, 64)
    assert [trajectory.due(n) for n in (5, 6, 7, 8, 13, 14, 26, 27)] == [None, 8, None, None, 16, None, 32, None]
    trajectory.keep(16, add_method(tiny_model(), "lora", r=2, alpha=4, seed=0))
    assert trajectory.due(13) is None
    assert [step for step, _ in trajectory.weights()] == [16]


def test_other_weights_stand_in_only_within_and_come_back_whatever_happens() -> None:
    model = add_method(tiny_model(), "lora", r=2, alpha=4, seed=0)
    before = weights(model)
    others = {name: p + 1 for name, p in before.items()}

    def fail_within() -> None:
        with standing_at(model, others):
            assert all(torch.equal(p, others[name]) for name, p in trained_of(model).items())
            raise KeyError

    with pytest.raises(KeyError):
        fail_within()
    assert all(torch.equal(p, before[name]) for name, p in trained_of(model).items())
