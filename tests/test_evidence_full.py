"""Full evidence on a run of a tiny model: what it writes, and that its figures come from the files alone."""

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from metier.adapt import read_data
from metier.evidence import measure, planning
from metier.evidence.full import measured, readers
from metier.evidence.full.compared import compared
from metier.evidence.full.limits import LADDER, Limits, expected_seconds, limits_within
from metier.evidence.full.measured import Adapted, full_evidence
from metier.evidence.full.rivals import closest_half
from metier.evidence.measure import Before
from metier.evidence.subject import Subject
from metier.evidence.written import replay_of
from metier.field import beside_field, train_field
from metier.prepare import prepare
from metier.progress import Silent
from metier.runs import RunFolder, read_jsonl
from metier.settings import Settings
from metier.sources.examples import Example
from metier.sources.split import Split
from metier.training.journal import Journal
from metier.training.plan import Plan
from metier.training.stream import MINED, REPLAY
from small import OPTIONS, small_pack
from tiny import save_tiny

LIMITS = Limits(select=4, test=12, answers=3, shares=(0.5, 1.0), scratch_tokens=1500)


@dataclass(frozen=True)
class Ran:
    subject: Subject
    split: Split
    planned: Plan
    before: Before
    adapted: Adapted
    found: dict[str, Any]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("full")
    rows = folder / "terms.jsonl"
    pairs = [(f"What is the {i}. term?", f"The term {i} is « the answer number {i} ».") for i in range(100)]
    rows.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in pairs), encoding="utf-8")
    with small_pack() as patch:
        patch.setenv("METIER_CACHE", str(folder / "cache"))
        settings = Settings(data=(str(rows),), model=str(save_tiny(folder / "tiny")), held_out=0.3, lr=1e-2, **OPTIONS)
        run = RunFolder(folder / "run")
        _, split = read_data(settings, "", Silent())
        subject = prepare(settings, run, Silent())
        run.create()
        planned, _ = planning.make_plan(subject.base, subject.reader, split, settings, 0.0)
        before = measure.base_arm(subject, split.test, split.unit, planned.evidence)
        beside = beside_field(subject, split, planned, replay_of(subject, planned.replay).answers)
        trained = train_field(subject, split, planned, beside, Journal(run, {}, 60, 0.0, print)).trained
        measure.adapted_arm(subject, subject.reader, before)
        adapted = Adapted(subject.reader, trained, planned.lr, beside)
        full_evidence(subject, split, planned, before, adapted, ["term", "answer number"], LIMITS)
        yield Ran(subject, split, planned, before, adapted, compared(run))


def test_every_part_has_its_sentence_figures_and_method(ran: Ran) -> None:
    parts = {name: part for name, part in ran.found.items() if name != "why_tasks"}
    assert set(parts) == {"arms", "controls", "stability", "quality", "scratch"}
    for part in parts.values():
        assert part["sentence"].endswith(".")
        assert part["method"]
    json.dumps(ran.found, allow_nan=False)
    assert len(ran.found["arms"]["arms"]) == 10
    assert ran.found["arms"]["n_documents"] == 12
    assert [c["name"] for c in ran.found["controls"]["controls"]] == ["placebo", "shuffled"]
    assert [size["arm"] for size in ran.found["scratch"]["sizes"]] == ["scratch 0.5", "scratch 1"]


def test_the_model_that_was_trained_here_beats_what_reads_other_text_or_starts_from_nothing(ran: Ran) -> None:
    """The rows are one sentence with another number in each: training on it is worth most of the bits."""
    assert ran.found["scratch"]["adapted_bits"] < ran.found["scratch"]["base_bits"]
    placebo, shuffled = ran.found["controls"]["controls"]
    assert placebo["beaten_by"]["ci_low"] > 0
    assert shuffled["beaten_by"]["ci_low"] > 0
    assert ran.found["scratch"]["floors"]["ngram"] < ran.found["scratch"]["base_bits"]


def test_other_seeds_end_elsewhere_and_are_measured_on_the_same_documents(ran: Ran) -> None:
    found = ran.found["stability"]
    assert [run["seed"] for run in found["runs"]] == [0, 1, 2]
    assert len({run["gain"] for run in found["runs"]}) == 3
    assert found["n_documents"] == len({r["document"] for r in ran.before.base.scores if r["slice"] == "field"})
    assert 0 < found["smallest_difference"] < 1


def test_halves_take_half_of_the_steps_and_are_scored_on_the_same_documents(ran: Ran) -> None:
    found = ran.found["quality"]
    assert found["decision"] in ("clean", "keep", "cannot_tell")
    assert found["n_documents"] == ran.found["stability"]["n_documents"]
    assert found["seed_sd"] == ran.found["stability"]["sd"]
    records = list(read_jsonl(ran.subject.run.evidence / "halves.jsonl"))
    assert {r["arm"] for r in records} == {"random", "closest to the field"}


def test_each_half_is_read_for_half_of_the_steps(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[tuple[Any, set[str]]] = []

    def noted(reader: object, examples: Any, encode: object, beside: Any, steps: Any, *rest: object) -> Any:
        del reader, encode, beside, rest
        planned.append((steps, {e.id for e in examples}))
        return ran.adapted.trained

    monkeypatch.setattr(measured, "train_rival", noted)
    train = [e for e in ran.split.train if e.id in ran.adapted.trained.bytes_by_item]
    elsewhere = replace(ran.subject, run=RunFolder(tmp_path))
    measured._measure_halves(elsewhere, ran.planned, ran.before, train, ran.adapted, LIMITS)
    (one, at_random), (other, closest) = planned
    assert one.n_steps == other.n_steps == ran.adapted.trained.n_steps // 2
    assert at_random != closest
    assert at_random | closest <= {e.id for e in train}
    skipped = measured._measure_halves(
        elsewhere, ran.planned, ran.before, train, ran.adapted, replace(LIMITS, halves=False)
    )
    assert "minutes did not allow it" in skipped["why"]


def test_questions_cost_seconds_of_the_plan(ran: Ran) -> None:
    few, many = (expected_seconds(replace(LIMITS, questions=n), ran.planned, ran.before, "answer") for n in (0, 60))
    speed = ran.planned.speed
    assert many - few > 60 * 2 * 500 / speed.score_tokens_per_s


def test_the_closest_half_is_the_half_that_select_would_keep() -> None:
    general = [
        Example(f"g{i}", "d", i, f"g{i}", text=f"They went to the sea on day {i} and came back.") for i in range(3)
    ]
    field = [
        Example(f"f{i}", "d", i, f"f{i}", text=f"Ataxia of limb {i} with dysmetria and nystagmus too.")
        for i in range(30)
    ]
    assert {e.id[0] for e in closest_half([*general, *field])} == {"f"}
    half = sum(len(e.text) for e in closest_half(field)) / sum(len(e.text) for e in field)
    assert 0.4 < half < 0.6


def test_controls_take_the_steps_and_the_replay_of_the_adapted_model(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Any] = []

    def noted(reader: object, examples: Any, encode: object, beside: Any, steps: Any, *rest: object) -> Any:
        del reader, encode, rest
        planned.append((steps, beside, {e.id for e in examples}))
        return ran.adapted.trained

    monkeypatch.setattr(measured, "train_rival", noted)
    limits = replace(LIMITS, controls=("shuffled",), shares=())
    train = [e for e in ran.split.train if e.id in ran.adapted.trained.bytes_by_item]
    elsewhere = replace(ran.subject, run=RunFolder(tmp_path))
    measured._measure_controls(elsewhere, ran.planned, ran.before, train, ran.adapted, limits)
    ((steps, beside, ids),) = planned
    trained = ran.adapted.trained
    assert (steps.n_steps, steps.step_tokens, steps.peak_lr) == (trained.n_steps, ran.planned.step_tokens, 1e-2)
    assert steps.shares[REPLAY] == trained.n_replay_tokens / trained.n_tokens > 0
    assert beside == ran.adapted.beside
    assert ids == {item for item in trained.bytes_by_item if not item.startswith("replay")}


def test_only_other_seeds_are_trained_on_mined_tasks_too(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[float, int, list[Example]]] = []

    def noted(reader: object, examples: Any, encode: object, beside: Any, steps: Any, *rest: object) -> Any:
        del reader, encode, rest
        given.append((steps.shares[MINED], len(beside.mined), examples))
        return ran.adapted.trained

    read_at: list[float] = []

    def at_strength(model: object, strength: float) -> Any:
        del model
        read_at.append(strength)
        return nullcontext()

    monkeypatch.setattr(measured, "train_rival", noted)
    monkeypatch.setattr(measured, "at_strength", at_strength)
    tasks = list(ran.before.items.field[:2])
    adapted = replace(with_tasks(ran, tasks), strength=0.5)
    elsewhere = replace(ran.subject, run=RunFolder(tmp_path))
    limits = replace(LIMITS, controls=("shuffled",), seeds=1)
    measured._measure_seeds(elsewhere, ran.split, ran.planned, ran.before, adapted, limits)
    measured._measure_controls(elsewhere, ran.planned, ran.before, tasks, adapted, limits)
    found = measured._measure_without_tasks(elsewhere, ran.split, ran.planned, ran.before, adapted, limits, tasks)
    assert found == {}
    assert read_at == [0.5, 0.5]  # the seed and the run without tasks, as the adapted model
    assert [share for share, _, _ in given] == pytest.approx([0.25] * 3, abs=0.01)
    assert [n for _, n, _ in given] == [2, 0, 0]
    assert given[-1][2] == ran.split.train  # not only the rows that the adapted run came to
    records = list(read_jsonl(tmp_path / "evidence/without_tasks.jsonl"))
    assert {r["slice"] for r in records} == {"tasks", "field"}
    assert sum(r["slice"] == "tasks" for r in records) == 2


def with_tasks(ran: Ran, tasks: list[Example]) -> Adapted:
    """As if a quarter of its tokens had been these tasks."""
    trained = replace(ran.adapted.trained, tokens_of_part={MINED: ran.adapted.trained.n_tokens // 4})
    return replace(ran.adapted, beside=replace(ran.adapted.beside, mined=tasks), trained=trained)


def test_why_no_run_without_tasks_was_trained_is_said(ran: Ran, tmp_path: Path) -> None:
    tasks = list(ran.before.items.field[:2])
    elsewhere = replace(ran.subject, run=RunFolder(tmp_path))

    def why(limits: Limits = LIMITS, subject: Subject = elsewhere, asked: list[Example] = tasks) -> Any:
        adapted = with_tasks(ran, tasks)
        return measured._measure_without_tasks(subject, ran.split, ran.planned, ran.before, adapted, limits, asked)

    assert why(asked=[]) == {}
    assert "minutes did not allow it" in why(replace(LIMITS, without_tasks=False))["why"]
    whole = replace(elsewhere, settings=replace(elsewhere.settings, method="full"))
    assert "runs without them are not trained of whole models" in why(subject=whole)["why"]
    assert not (tmp_path / "evidence/without_tasks.jsonl").exists()


def test_a_run_without_mined_tasks_costs_its_training_only_where_there_are_some(ran: Ran) -> None:
    none, one = (
        expected_seconds(replace(LIMITS, without_tasks=wanted), ran.planned, ran.before, "answer")
        for wanted in (False, True)
    )
    assert one - none > ran.planned.train_tokens / ran.planned.speed.train_tokens_per_s
    assert limits_within(1e9, ran.planned, ran.before, "answer", has_tasks=True).without_tasks
    assert not limits_within(1e9, ran.planned, ran.before, "answer").without_tasks


def test_a_fresh_reader_is_the_base_whatever_was_trained(ran: Ran) -> None:
    fresh = readers.fresh_reader(ran.subject)
    records = {r["item"]: r["nll"] for r in measured._score(ran.subject, fresh, ran.before)}
    base = {r["item"]: r["nll"] for r in ran.before.base.scores if r["slice"] == "field"}
    assert records == pytest.approx(base, rel=1e-6)


def test_the_figures_come_from_the_files_without_the_model(ran: Ran, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "copy")
    shutil.copytree(ran.subject.run.evidence, copy.evidence)
    assert compared(copy) == ran.found
    scored = list(read_jsonl(copy.evidence / "arms.jsonl"))
    assert {r["half"] for r in scored} == {"select", "test"}
    assert len(list(read_jsonl(copy.evidence / "arm-answers.jsonl"))) == 3 * len(ran.found["arms"]["answers"]["arms"])
    assert compared(RunFolder(tmp_path / "nothing")) == {}


def test_leaked_items_are_not_counted(ran: Ran) -> None:
    leaked = {ran.before.items.field[0].id}
    without = compared(ran.subject.run, leaked)
    assert without["arms"]["n_documents"] == ran.found["arms"]["n_documents"] - 1
    assert without["scratch"]["n_items"] == ran.found["scratch"]["n_items"] - 1
    assert without["controls"]["n_documents"] == ran.found["controls"]["n_documents"] - 1


def test_where_memory_lacks_for_a_second_model_only_the_floors_are_measured(
    ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "free_bytes", lambda: 1000)
    assert not readers.has_room(ran.subject)
    monkeypatch.setattr(readers, "free_bytes", lambda: None)
    assert readers.has_room(ran.subject)


def test_what_is_measured_fits_the_time_or_is_the_smallest_there_is(ran: Ran) -> None:
    needed = [expected_seconds(limits, ran.planned, ran.before, "answer") for limits in LADDER]
    assert needed == sorted(needed, reverse=True)
    for limits, seconds in zip(LADDER, needed, strict=True):
        assert limits_within(seconds, ran.planned, ran.before, "answer", has_tasks=True) == limits
    assert limits_within(needed[-1] / 2, ran.planned, ran.before, "answer") == LADDER[-1]


def test_without_queries_the_arms_say_why(ran: Ran) -> None:
    found = measured._measure_arms(
        ran.subject,
        readers.models_of(ran.subject, ran.adapted.reader),
        replace(ran.split, select=[]),
        ran.split.train,
        measured._ngrams(ran.subject, []),
        LIMITS,
    )
    assert "no question short enough" in found["why"]
