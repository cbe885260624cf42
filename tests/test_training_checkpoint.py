"""A checkpoint is whole or not there; a run that goes on from it takes the steps that a run never stopped takes."""

import errno
import json
import os
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor

from metier.errors import DivergedError, MetierError, RunError
from metier.models.methods import add_method
from metier.models.packing import Pack, PackReader
from metier.runs import RunFolder, read_json, read_jsonl
from metier.training import checkpoint as checkpoint_module
from metier.training.checkpoint import STATE, TENSORS, Checkpoints
from metier.training.journal import Journal
from metier.training.loop import Recipe, Trained, begin, train
from metier.training.memory import is_out_of_memory, try_longest_pack
from metier.training.stream import Step
from small import KilledError
from tiny import documents, tiny_model

N_STEPS = 12
ORIGIN = {"config": "c", "data": "d", "base model": "b", "code": "e"}
ROWS = documents(21, 7, 16, 11, 5, 30, seed=2)


pytestmark = pytest.mark.usefixtures("one_thread")


def stream() -> Iterator[Step]:
    for i in range(N_STEPS + 3):
        rows = (ROWS[i % 6], ROWS[(i + 1) % 6], ROWS[(5 * i + 2) % 6])
        yield Step(rows, sum(len(r.ids) for r in rows), 0, i // 6)


def lora() -> PeftModel:
    return add_method(tiny_model(), "lora", r=4, alpha=8, seed=0)


def weights(model: PeftModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


def session(
    run: RunFolder,
    die_after: int | None = None,
    stop_after: int | None = None,
    every_s: float = 1e9,
    reader: object = None,
) -> tuple[Trained, dict[str, Tensor], list[str]]:
    """One process of a run: it trains from where the run folder stands to its end, its stop or its death."""
    said: list[str] = []
    run.path.mkdir(exist_ok=True)
    reader = reader or PackReader(lora())
    assert isinstance(reader, PackReader)
    journal = Journal(run, ORIGIN, every_s, 0.0, said.append)
    last = 0

    def on_step(metrics: object) -> None:
        nonlocal last
        last = metrics.step  # type: ignore[attr-defined]
        if last == die_after:
            raise KilledError

    recipe = Recipe(N_STEPS, 1e-2, 40)
    try:
        done = train(reader, stream, recipe, on_step, lambda: last == stop_after, said.append, journal)
    finally:
        journal.close()
    return done, weights(reader.model), said


def without_times(path: Path) -> list[dict[str, object]]:
    return [{k: v for k, v in r.items() if k not in ("seconds", "tokens_per_s")} for r in read_jsonl(path)]


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def steps_kept(run: RunFolder) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


@pytest.mark.parametrize("die_after", [1, 3, 4, 7, 11, 12])
@pytest.mark.parametrize("every_s", [0.0, 1e9], ids=["a checkpoint every step", "at anchors only"])
def test_a_run_that_dies_and_goes_on_ends_as_one_that_never_stopped(
    die_after: int, every_s: float, tmp_path: Path
) -> None:
    whole = RunFolder(tmp_path / "whole")
    done, expected, _ = session(whole)
    run = RunFolder(tmp_path / "killed")
    with pytest.raises(KilledError):
        session(run, die_after, every_s=every_s)
    again, found, _ = session(run)
    assert_same(found, expected)
    assert without_times(run.metrics) == without_times(whole.metrics)
    assert run.rows.read_bytes() == whole.rows.read_bytes()
    assert (again.n_tokens, again.n_supervised, again.windows) == (done.n_tokens, done.n_supervised, done.windows)
    assert again.n_steps == N_STEPS


def test_a_stop_writes_the_step_that_was_finished_and_three_stops_change_nothing(tmp_path: Path) -> None:
    whole, run = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    _, expected, _ = session(whole)
    for stop_after in (2, 5, 9):
        done, _, _ = session(run, stop_after=stop_after)
        assert done.interrupted
        assert f"step-{stop_after:06d}" in steps_kept(run)
    done, found, _ = session(run)
    assert not done.interrupted
    assert_same(found, expected)


def test_the_random_states_go_on_where_they_were(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    torch.manual_seed(7)
    random.seed(7)
    session(run, stop_after=2)
    expected = torch.rand(3).tolist(), random.random()
    torch.manual_seed(1)
    random.seed(1)
    with pytest.raises(KilledError):
        session(run, die_after=3)
    assert (torch.rand(3).tolist(), random.random()) == expected


def test_two_newest_and_two_newest_anchors_are_kept_and_nothing_half_written(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    session(run, stop_after=11, every_s=0.0)
    assert steps_kept(run) == ["step-000004", "step-000008", "step-000010", "step-000011"]
    assert sorted(p.name for p in (run.checkpoints / "step-000011").iterdir()) == ["SHA256SUMS", STATE, TENSORS]
    state = read_json(run.checkpoints / "step-000011" / STATE)
    assert state["origin"] == ORIGIN
    assert state["facts"]["schedule"] == {"n_steps": N_STEPS, "peak_lr": 1e-2, "lr_factor": 1.0}


@pytest.mark.parametrize("name", [TENSORS, STATE, "SHA256SUMS"])
def test_a_changed_byte_is_found_and_the_checkpoint_before_it_is_gone_on_from(name: str, tmp_path: Path) -> None:
    whole, run = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    _, expected, _ = session(whole)
    session(run, stop_after=6)
    flip(run.checkpoints / "step-000006" / name)
    _, found, said = session(run)
    assert "step-000006" in said[0]
    assert "is damaged" in said[0]
    assert said[0].endswith("going on from step-000004, the one before")
    assert_same(found, expected)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def test_when_no_checkpoint_is_whole_one_sentence_says_so_and_nothing_is_removed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    session(run, stop_after=6)
    kept = steps_kept(run)
    for path in run.checkpoints.iterdir():
        flip(path / TENSORS)
    with pytest.raises(
        RunError, match=r"step-000006.*is damaged \(its sha256.*no other checkpoint of the run is whole"
    ):
        session(run)
    assert steps_kept(run) == kept
    assert len(list(read_jsonl(run.metrics))) == 6


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    session(run, stop_after=2)
    with pytest.raises(RunError, match=r"belongs to another run \(its data had another sha256\)"):
        Checkpoints(run.checkpoints, {**ORIGIN, "data": "x"}, 1.0, lambda _: None).newest()


def test_a_log_that_lost_lines_is_an_error_and_one_with_more_is_cut(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    session(run, stop_after=6)
    lines = run.metrics.read_bytes()
    run.metrics.write_bytes(lines + b'{"step": 7}\n{"half')
    journal = Journal(run, ORIGIN, 1.0, 0.0, lambda _: None)
    journal.close()
    assert run.metrics.read_bytes() == lines
    run.metrics.write_bytes(lines[:-9])
    with pytest.raises(RunError, match=r"metrics\.jsonl lost lines since the run stopped: put the file back"):
        Journal(run, ORIGIN, 1.0, 0.0, lambda _: None)


@pytest.mark.parametrize("at", ["tensors", "rename"])
def test_a_full_disk_is_one_sentence_and_the_checkpoint_before_stays_whole(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run")
    session(run, stop_after=6)

    def full(tensors: object, path: Path) -> None:
        del tensors
        path.write_bytes(b"half of")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if at == "tensors":
            patch.setattr(checkpoint_module, "save_file", full)
        else:
            patch.setattr(Path, "rename", lambda *_: full({}, tmp_path / "x"))
        with pytest.raises(
            RunError, match=r"step-000008 cannot be written .*No space left.*: free some space and resume"
        ):
            session(run)
    assert steps_kept(run) == ["step-000000", "step-000004", "step-000006"]
    _, found, said = session(run)
    assert said == []
    _, expected, _ = session(RunFolder(tmp_path / "whole"))
    assert_same(found, expected)


def poisoned(at: set[int]) -> PackReader:
    """A reader whose first row of a pack is not a number at these calls, counted from 1."""
    reader = PackReader(lora())
    real, n = reader.row_nll, 0

    def row_nll(batch: Pack) -> tuple[Tensor, Tensor]:
        nonlocal n
        n += 1
        nll, rows = real(batch)
        if n in at:
            rows[0] = float("nan")
            return nll * float("nan"), rows
        return nll, rows

    reader.row_nll = row_nll  # type: ignore[method-assign]
    return reader


def calls_before(step: int) -> int:
    """Packs of the steps before this one."""
    from metier.models.packing import packs_of

    return sum(len(list(packs_of(s.documents, 40))) for _, s in zip(range(step - 1), stream(), strict=False))


def test_a_number_that_is_not_finite_rolls_back_once_halves_the_rate_and_goes_on(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    done, _, said = session(run, reader=poisoned({calls_before(7) + 1}))
    row = next(s for i, s in enumerate(stream()) if i == 6).documents[0].item
    assert done.n_steps == N_STEPS
    (rollback,) = done.rollbacks
    assert (rollback.step, rollback.to_step) == (7, 4)
    assert row in rollback.rows
    assert "step 7 has loss nan, gradient norm" in said[0]
    assert f"at rows {row}: going back to step 4 and on from there at half the learning rate" in said[0]
    lines = list(read_jsonl(run.metrics))
    assert [(r["step"], r["rollbacks"]) for r in lines] == [(i, 0) for i in range(1, 7)] + [
        (i, 1) for i in range(5, 13)
    ]
    first, second = ([r["lr"] for r in lines if r["step"] == 6 and r["rollbacks"] == n] for n in (0, 1))
    assert second == [pytest.approx(first[0] / 2)]
    (spike,) = [r for r in read_jsonl(run.rows) if r["step"] == 7 and not r["rollbacks"]]
    assert [name for name, _, _, nats in spike["rows"] if nats is None] == [row]


def test_just_after_an_anchor_it_rolls_back_to_the_one_before(tmp_path: Path) -> None:
    """At the weights of the anchor the same rows would fail again, whatever the rate."""
    done, _, _ = session(RunFolder(tmp_path / "run"), reader=poisoned({calls_before(9) + 1}))
    assert (done.rollbacks[0].step, done.rollbacks[0].to_step) == (9, 4)


@pytest.mark.parametrize("fails_at", [6, 7])
def test_a_run_that_was_begun_rolls_back_to_where_its_journal_begins(fails_at: int, tmp_path: Path) -> None:
    """Its first five steps are in the logs, and step 5 is an anchor though the plan has none there."""
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    reader, recipe = poisoned({calls_before(fails_at) + 1}), Recipe(N_STEPS, 1e-2, 40)
    begun = begin(reader, recipe)
    train(reader, lambda: islice(stream(), 5), recipe, lambda _: None, begun=begun)
    journal = Journal(run, ORIGIN, 1e9, 0.0, lambda _: None)
    done = train(reader, stream, recipe, lambda _: None, journal=journal, begun=begun)
    journal.close()
    assert [(r.step, r.to_step) for r in done.rollbacks] == [(fails_at, 5)]
    assert done.n_steps == N_STEPS
    for path in (run.metrics, run.rows):
        lines = [r["step"] for r in read_jsonl(path) if r["rollbacks"] == 0]
        assert lines[:5] == [1, 2, 3, 4, 5]


def test_the_second_time_it_stops_and_names_the_rows(tmp_path: Path) -> None:
    fails = calls_before(7) + 1
    again = fails + calls_before(9) - calls_before(5)
    with pytest.raises(
        DivergedError, match=r"has loss nan, gradient norm .* at rows d\d: lower --lr or inspect these rows"
    ):
        session(RunFolder(tmp_path / "run"), reader=poisoned({fails, again}))


@pytest.mark.parametrize(("die_after", "every_s"), [(2, 0.0), (5, 0.0), (6, 0.0), (6, 1e9), (10, 0.0)])
def test_a_rollback_is_the_same_in_a_run_that_was_killed(die_after: int, every_s: float, tmp_path: Path) -> None:
    """The step fails whenever it is taken at the full rate."""

    def diverging() -> PackReader:
        reader = PackReader(lora())
        real = reader.row_nll
        bad = calls_tokens(7)

        def row_nll(batch: Pack) -> tuple[Tensor, Tensor]:
            nll, rows = real(batch)
            full_rate = norm(reader.model) in bad_norms
            return (nll * float("nan"), rows) if full_rate and batch.n_tokens == bad else (nll, rows)

        reader.row_nll = row_nll  # type: ignore[method-assign]
        return reader

    def norm(model: PeftModel) -> float:
        return sum(float(p.detach().double().square().sum()) for n, p in model.named_parameters() if "lora_" in n)

    def calls_tokens(step: int) -> int:
        from metier.models.packing import packs_of

        s = next(s for i, s in enumerate(stream()) if i == step - 1)
        return next(packs_of(s.documents, 40)).n_tokens

    bad_norms: set[float] = set()
    probe = PackReader(lora())
    session(RunFolder(tmp_path / "probe"), stop_after=6, reader=probe)
    bad_norms.add(norm(probe.model))
    whole, run = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    done, expected, _ = session(whole, reader=diverging())
    assert [(r.step, r.to_step) for r in done.rollbacks] == [(7, 4)]
    died = False

    class Dying(KilledError):
        pass

    try:
        session(run, die_after, every_s=every_s, reader=diverging())
    except KilledError:
        died = True
    assert died
    again, found, _ = session(run, every_s=every_s, reader=diverging())
    assert again.rollbacks == done.rollbacks
    assert_same(found, expected)
    assert without_times(run.metrics) == without_times(whole.metrics)


def out_of_memory_over(n_tokens: int, first_call: int = 0) -> PackReader:
    """A reader for which torch's own allocator refuses packs of more tokens than this."""
    reader = PackReader(lora())
    real, calls = reader.row_nll, 0

    def row_nll(batch: Pack) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        if batch.n_tokens > n_tokens and calls > first_call:
            torch.empty(2**55)
        return real(batch)

    reader.row_nll = row_nll  # type: ignore[method-assign]
    return reader


def test_the_longest_pack_is_tried_and_leaves_no_trace() -> None:
    reader = PackReader(lora())
    seen: list[int] = []
    real = reader.row_nll
    reader.row_nll = lambda batch: seen.append(batch.n_tokens) or real(batch)  # type: ignore[func-returns-value,method-assign]
    before, state, was_training = weights(reader.model), torch.get_rng_state(), reader.model.training
    said: list[str] = []
    assert try_longest_pack(reader, stream(), N_STEPS, 40, said.append) == 40
    assert seen == [max(sizes(40))]
    assert said == []
    assert_same(weights(reader.model), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in reader.model.parameters())
    assert reader.model.training == was_training


def sizes(pack_tokens: int) -> list[int]:
    from metier.models.packing import packs_of

    steps = [s for _, s in zip(range(N_STEPS), stream(), strict=False)]
    return [p.n_tokens for s in steps for p in packs_of(s.documents, pack_tokens)]


def test_without_memory_packs_are_halved_and_it_is_said_once() -> None:
    said: list[str] = []
    assert try_longest_pack(out_of_memory_over(31), stream(), N_STEPS, 80, said.append) == 20
    assert said == ["packs of 80 tokens do not fit into memory: packs of 20, the same steps"]


def test_a_document_that_alone_does_not_fit_is_one_sentence() -> None:
    with pytest.raises(MetierError, match="a document of 30 tokens alone does not fit into memory: choose a smaller"):
        try_longest_pack(out_of_memory_over(3), stream(), N_STEPS, 40, lambda _: None)


def test_memory_that_runs_out_in_the_middle_halves_the_packs_and_keeps_the_step(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    done, found, said = session(run, reader=out_of_memory_over(30, first_call=5))
    assert done.pack_tokens == 20
    assert said[0].startswith("memory ran out at step ")
    whole, expected, _ = session(RunFolder(tmp_path / "whole"))
    assert done.n_tokens == whole.n_tokens
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=1e-3), name
    state = read_json(sorted(run.checkpoints.iterdir())[-1] / STATE)
    assert state["facts"]["trained"]["pack_tokens"] == 20


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**55)
    assert is_out_of_memory(refused.value)


def test_a_spike_can_be_traced_to_its_rows(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    session(run)
    lines = {r["step"]: r for r in read_jsonl(run.rows)}
    for step, metrics in zip(stream(), read_jsonl(run.metrics), strict=False):
        rows = lines[metrics["step"]]["rows"]
        assert [name for name, *_ in rows] == [d.item for d in step.documents]
        assert sum(tokens for _, _, tokens, _ in rows) == metrics["supervised_tokens"]
        assert sum(nats for *_, nats in rows) == pytest.approx(metrics["loss"] * metrics["supervised_tokens"], rel=1e-4)


def test_a_plan_that_changed_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    session(run, stop_after=2)
    journal = Journal(run, ORIGIN, 1.0, 0.0, lambda _: None)
    with pytest.raises(
        RunError, match=r"is of 12 steps at a rate of 0\.01, the plan of 13 at 0\.01: put plan\.json back"
    ):
        train(PackReader(lora()), stream, Recipe(13, 1e-2, 40), lambda _: None, journal=journal)
    journal.close()


def test_steps_that_are_not_those_that_were_taken_are_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    session(run, stop_after=2)
    journal = Journal(run, ORIGIN, 1.0, 0.0, lambda _: None)
    other = [Step((ROWS[0],), len(ROWS[0].ids), 0, 0)] * 20
    with pytest.raises(RunError, match=r"the first 2 steps held \d+ tokens and hold 42 now"):
        train(PackReader(lora()), lambda: iter(other), Recipe(N_STEPS, 1e-2, 40), lambda _: None, journal=journal)
    journal.close()


def test_a_checkpoint_of_other_parameters_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    session(run, stop_after=2)
    journal = Journal(run, ORIGIN, 1.0, 0.0, lambda _: None)
    other = PackReader(add_method(tiny_model(), "lora", r=8, alpha=8, seed=0))
    with pytest.raises(RunError, match="checkpoint of step 2 is of another model"):
        train(other, stream, Recipe(N_STEPS, 1e-2, 40), lambda _: None, journal=journal)
    journal.close()


def test_the_sums_are_those_that_sha256sum_reads(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, ORIGIN, 1.0, lambda _: None)
    path = checkpoints.save(3, {"weights/a": torch.ones(2)}, {}, (), anchor=True)
    lines = (path / "SHA256SUMS").read_text().splitlines()
    assert [line[64:] for line in lines] == [f"  {TENSORS}", f"  {STATE}"]
    assert not json.loads((path / STATE).read_text())["logs"]
    found = checkpoints.newest()
    assert found is not None
    assert torch.equal(found.tensors["weights/a"], torch.ones(2))
    save_file({"weights/a": torch.zeros(2)}, path / TENSORS)
    with pytest.raises(RunError, match="is damaged"):
        checkpoints.newest()
