"""The field by its data, and what is trained beside it, in the shares that were asked for; killed and gone on with."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import metier.adapt  # noqa: F401  # so that sys.modules holds the module
import small
from command_line import valves, write_rows
from metier.adapt import adapt
from metier.errors import DataError
from metier.evidence import written
from metier.evidence.full import limits
from metier.evidence.full.limits import Limits
from metier.results import Run
from metier.runs import read_json, read_jsonl
from metier.settings import Settings
from metier.sources.examples import Example
from metier.sources.read import read_corpus
from metier.sources.wheels import cache_folder
from metier.training.mix import Beside, achieved, by_data, mix_lines, mixed, scarcest
from metier.training.stream import FIELD, MINED, OWN_GENERAL, REPLAY, steps
from small import KilledError, Told, kill_in_training, small_pack
from tiny import document, save_tiny

PROSE = (
    "A valve number {i} is a device that closes line {i} when the pressure in it becomes too high. The operator "
    "of plant {i} keeps a list of all valves and their lines. The pump stops because the valve lets no water through."
)


@pytest.fixture(scope="module", autouse=True)
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("room")
    save_tiny(folder / "model")
    write_rows(folder / "valves.jsonl", valves(60))
    (folder / "notes").mkdir()
    for i in range(60):
        (folder / "notes" / f"{i}.txt").write_text(PROSE.format(i=i))
    talks: list[dict[str, object]] = [{"question": f"Greet guest {i}.", "answer": f"Good day, {i}."} for i in range(20)]
    write_rows(folder / "talks.jsonl", talks)
    with small_pack(measured_texts=4, probe_texts=4, choices=6, measured_requests=4, replay_requests=4) as patch:
        patch.chdir(folder)
        patch.setattr(written, "ANSWER_TOKENS", 8)
        patch.setattr(written, "WRITTEN_TOKENS", 8)
        patch.setenv("METIER_CACHE", str(folder / "cache"))
        yield folder


def mixing(**options: Any) -> Settings:
    return Settings(data=("notes", "valves.jsonl"), **options)


def corpus() -> list[Example]:
    return read_corpus(("notes", "valves.jsonl")).examples


def test_without_weights_the_field_is_one_part() -> None:
    ((name, share, examples),) = by_data(corpus(), mixing())
    assert (name, share, len(examples)) == (FIELD, 1.0, 120)
    assert scarcest(corpus(), mixing()) == 1


def test_with_weights_every_example_belongs_to_the_data_that_it_came_from() -> None:
    parts = by_data(corpus(), mixing(mix=("notes=1", "valves.jsonl=3")))
    assert [(name, share, len(examples)) for name, share, examples in parts] == [
        ("notes", 0.25, 60),
        ("valves.jsonl", 0.75, 60),
    ]
    assert {e.is_chat for e in parts[0][2]} == {False}


def test_files_of_the_same_name_are_told_apart(room: Path) -> None:
    for name in ("a", "b"):
        (room / name).mkdir()
        write_rows(room / name / "rows.jsonl", [{"text": f"A text of the folder {name}, of its own."}])
    examples = read_corpus(("a", "b")).examples
    found = by_data(examples, Settings(data=("a", "b"), mix=("a=1", "b=1")))
    assert [e.text for _, _, (e,) in found] == [f"A text of the folder {name}, of its own." for name in ("a", "b")]


def test_what_lies_in_a_file_belongs_to_the_data_of_that_file() -> None:
    within = [replace(e, source=f"{e.source}/inner.txt") for e in corpus()]
    parts = by_data(within, mixing(mix=("notes=1", "valves.jsonl=1")))
    assert [len(examples) for _, _, examples in parts] == [60, 60]


def test_data_that_leaves_nothing_to_train_on_is_named() -> None:
    with pytest.raises(DataError, match=r"valves\.jsonl leaves nothing to train on"):
        by_data([e for e in corpus() if not e.is_chat], mixing(mix=("notes=1", "valves.jsonl=3")))


def test_an_epoch_of_a_mix_ends_with_the_part_that_is_read_first() -> None:
    examples = corpus()
    sizes = Counter({False: 0, True: 0})
    for e in examples:
        sizes[e.is_chat] += len(e.learned_text) + len(e.prompt_text)
    expected = (sizes[True] / 0.75) / sizes.total()  # the small file at three quarters
    assert scarcest(examples, mixing(mix=("notes=1", "valves.jsonl=3"))) == pytest.approx(expected)
    assert expected < 1


def encode(example: Example) -> list[Any]:
    return [document(range(5 + len(example.text) % 9), example.id)]


def test_what_is_beside_the_field_has_its_share_and_the_field_divides_the_rest() -> None:
    settings = mixing(mix=("notes=1", "valves.jsonl=3"))
    examples = corpus()
    beside = Beside(mined=[replace(e, id=f"mined:{e.id}") for e in examples], written=[document(range(9), "replay:1")])
    shares = {MINED: 0.2, OWN_GENERAL: 0.0, REPLAY: 0.1}
    parts = mixed(examples, encode, beside.documents(encode, 0), shares, settings)
    expected = {"notes": 0.175, "valves.jsonl": 0.525, MINED: 0.2, REPLAY: 0.1}
    assert {part.name: part.share for part in parts} == pytest.approx(expected)
    tokens: Counter[str] = Counter()
    for step in islice(steps(parts, 100), 50):
        tokens.update(step.tokens)
    mix = achieved(parts, tokens)
    assert {m["part"]: m["share"] for m in mix} == pytest.approx(expected, abs=0.01)
    assert sum(m["tokens"] for m in mix) == tokens.total()
    (line,) = mix_lines(mix)
    assert "mined tasks 20" in line
    assert mix_lines(mix[:1]) == []


OPTIONS: dict[str, Any] = {
    **small.OPTIONS,
    "minutes": 0.001,
    "mix": ("notes=1", "valves.jsonl=1"),
    "mined": 0.2,
    "replay": 0.2,
    "general": ("talks.jsonl",),
}


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def whole(room: Path, told: Told) -> Run:
    return adapt("notes", "valves.jsonl", model="model", out=room / "whole", progress=told, **OPTIONS)


def test_a_run_reports_the_mix_that_it_achieved(whole: Run, told: Told) -> None:
    mix = {part["part"]: part for part in whole.results["training"]["mix"]}
    wanted = {
        "notes": 0.3,
        "valves.jsonl": 0.3,
        MINED: 0.2,
        OWN_GENERAL: 0.2,
    }  # conversations of the user's: all replay
    assert {name: part["wanted"] for name, part in mix.items()} == pytest.approx(wanted)
    assert {name: part["share"] for name, part in mix.items()} == pytest.approx(wanted, abs=0.03)
    steps_taken = list(read_jsonl(whole.path / "metrics.jsonl"))
    assert sum(s["replay_tokens"] for s in steps_taken) == mix[OWN_GENERAL]["tokens"]
    assert any(line.startswith("trained mix, in tokens: notes") for line in told.lines)
    assert any("tasks are mined from the plain texts" in line for line in told.lines)
    page = whole.folder.report.read_text(encoding="utf-8")
    assert "… of mined tasks" in page
    assert "bytes a token" in page


def test_what_is_measured_of_the_users_general_text_is_not_trained(whole: Run) -> None:
    measured = {r["item"] for r in read_jsonl(whole.path / "evidence/scores-base.jsonl") if "your" in r["slice"]}
    trained = {row[0] for line in read_jsonl(whole.path / "rows.jsonl") for row in line["rows"]}
    replayed = {item for item in trained if item.startswith("talks.jsonl")}
    assert len(measured) == 10
    assert replayed
    assert not measured & replayed


def test_nothing_is_mined_from_what_is_held_out(whole: Run) -> None:
    held_out = {e.id for e in measure_held_out(whole)}
    trained = {row[0] for line in read_jsonl(whole.path / "rows.jsonl") for row in line["rows"]}
    mined = {item.removeprefix("mined:").split("/")[0] for item in trained if item.startswith("mined:")}
    assert mined
    assert not mined & held_out


def measure_held_out(run: Run) -> list[Example]:
    from metier.runs import read_json

    split = read_json(run.path / "splits.json")
    return [e for e in corpus() if e.id in {*split["select"], *split["test"]}]


def test_base_and_adapted_model_are_asked_tasks_mined_from_what_is_held_out(whole: Run) -> None:
    asked = list(read_jsonl(whole.path / "evidence/tasks.jsonl"))
    held_out = {e.id for e in measure_held_out(whole)}
    assert {record["item"].removeprefix("mined:").split("/")[0] for record in asked} <= held_out
    assert len(asked) == 2 * whole.results["tasks"]["n_items"] > 0
    assert whole.results["tasks"]["sentence"].startswith("Cannot tell whether the mined tasks helped: on ")
    assert "Did the mined tasks help?" in whole.folder.report.read_text(encoding="utf-8")


def test_full_evidence_trains_a_run_without_the_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    least = Limits(select=4, test=4, answers=0, controls=(), shares=(), seeds=0, questions=0, halves=False)
    monkeypatch.setattr(limits, "LADDER", (least,))
    options = {**small.OPTIONS, "minutes": 0.001, "mined": 0.2, "replay": 0.2, "evidence": "full"}
    run = adapt("notes", model="model", out=tmp_path / "run", **options)
    found = run.results["tasks"]
    assert found["helped_by"]["value"] != 0
    assert "one run against one" in found["method"]
    without = list(read_jsonl(run.path / "evidence/without_tasks.jsonl"))
    assert {r["item"] for r in without if r["slice"] == "tasks"} == {
        r["item"] for r in read_jsonl(run.path / "evidence/tasks.jsonl")
    }
    assert "With the tasks, against without" in run.folder.report.read_text(encoding="utf-8")


def test_without_evidence_no_task_is_asked(tmp_path: Path) -> None:
    options = {**small.OPTIONS, "minutes": 0.001, "mined": 0.2, "evidence": "none"}
    run = adapt("notes", model="model", out=tmp_path / "run", **options)
    assert "tasks" not in run.results
    assert not (run.path / "evidence/tasks.jsonl").exists()


def test_the_terms_that_were_mined_are_in_the_run_folder(whole: Run) -> None:
    terms = {record["term"] for record in read_jsonl(whole.path / "terms.jsonl")}
    assert any(term.startswith("valve number") for term in terms)
    assert whole.results["vocabulary"]["terms"] == len(terms)


def test_killed_in_training_it_ends_as_a_run_never_stopped(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_in_training(patch)
        with pytest.raises(KilledError):
            adapt("notes", "valves.jsonl", model="model", out=tmp_path / "run", **OPTIONS)
    assert sys.modules["metier.adapt"].adapt(resume=tmp_path / "run").path == tmp_path / "run"
    for name in ("adapter/adapter_model.safetensors", "rows.jsonl", "ledger.json", "terms.jsonl", "config.toml"):
        assert (tmp_path / "run" / name).read_bytes() == (whole.path / name).read_bytes(), name
    assert Run(tmp_path / "run").results["training"]["mix"] == whole.results["training"]["mix"]


def test_tasks_that_cannot_be_mined_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"valves\.jsonl holds no plain English text to mine tasks from"):
        adapt(
            "valves.jsonl",
            model="no model is loaded for that",
            out=tmp_path / "run",
            mined=0.1,
            **{**small.OPTIONS, "minutes": 0.001},
        )


def test_a_field_of_plain_text_is_replayed_with_sampled_answers_alone(tmp_path: Path) -> None:
    run = adapt("notes", model="model", out=tmp_path / "run", **{**small.OPTIONS, "minutes": 0.001})
    planned = read_json(run.path / "plan.json")["replay"]
    kept = read_json(run.path / "evidence/replay.json")["answers"]
    assert len(kept) == planned["answers"]
    assert (planned["answers"] > 0, planned["likeliest"]) == (True, 0)
    sampled = [path for path in (cache_folder() / "answers").iterdir() if path.stem.endswith("-sampled")]
    known = {one["request"]: one["answer"] for path in sampled for one in read_json(path)}
    assert [known[one["request"]] for one in kept] == [one["answer"] for one in kept]
    assert {part["part"] for part in run.results["training"]["mix"]} == {FIELD, REPLAY}


def test_the_plan_knows_how_long_the_windows_of_long_texts_are(tmp_path: Path) -> None:
    texts = tmp_path / "long"
    texts.mkdir()
    for i in range(12):
        (texts / f"{i}.txt").write_text(" ".join(PROSE.format(i=100 * i + j) for j in range(30)))
    run = adapt(str(texts), model="model", out=tmp_path / "run", **{**small.OPTIONS, "evidence": "none", "replay": 0.0})
    planned = read_json(run.path / "plan.json")
    assert 400 < planned["step_tokens"] < 500  # a window has 512 tokens, but the last of a text
    assert run.results["training"]["tokens"] < 1.2 * planned["train_tokens"]
