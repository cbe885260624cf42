"""A run killed at any moment goes on and ends as one that never stopped; what changed since is refused by name."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import metier.adapt  # noqa: F401  # so that sys.modules holds the module
import small
from command_line import metier as command
from command_line import valves, write_rows
from metier import field, origin
from metier.adapt import adapt
from metier.errors import MetierError, RunError
from metier.evidence import measure, planning, select_half, written
from metier.evidence.kept import read_replay
from metier.results import Run
from metier.runs import RunFolder, read_json, read_jsonl
from metier.sources import general
from metier.training import probe as probing
from small import KilledError, kill_in_training, small_pack
from tiny import save_tiny

main_path = sys.modules["metier.adapt"]
OPTIONS = small.OPTIONS


@pytest.fixture(scope="module", autouse=True)
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny model and data, a general pack of a few items, and a cache that is kept from test to test."""
    folder = tmp_path_factory.mktemp("room")
    save_tiny(folder / "model")
    write_rows(folder / "valves.jsonl", valves(60))
    with small_pack(measured_texts=4, probe_texts=4, choices=6, measured_requests=4, replay_requests=4) as patch:
        patch.chdir(folder)
        patch.setattr(written, "ANSWER_TOKENS", 8)
        patch.setattr(written, "WRITTEN_TOKENS", 8)
        yield folder


@pytest.fixture(autouse=True)
def _kept_answers(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METIER_CACHE", str(room / "cache"))


@pytest.fixture(scope="module")
def whole(room: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METIER_CACHE", str(room / "cache"))
        return adapt("valves.jsonl", model="model", out=room / "whole", **OPTIONS).path


@pytest.fixture(scope="module")
def stopped(room: Path, whole: Path) -> Path:
    """A run that was killed in the middle of its training; tests copy it."""
    assert whole.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METIER_CACHE", str(room / "cache"))
        kill_in_training(patch)
        with pytest.raises(KilledError):
            adapt("valves.jsonl", model="model", out="stopped", **OPTIONS)
    return room / "stopped"


def kill_at(patch: pytest.MonkeyPatch, holder: object, name: str) -> None:
    def kill(*_: object, **__: object) -> None:
        raise KilledError

    patch.setattr(holder, name, kill)


def assert_identical(run: Path, whole: Path) -> None:
    name = "adapter/adapter_model.safetensors"
    assert (run / name).read_bytes() == (whole / name).read_bytes()
    for name in ("ledger.json", "rows.jsonl", "splits.json", "config.toml"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    for kind in ("scores", "choices", "answers"):
        for arm in ("base", "adapted"):
            name = f"evidence/{kind}-{arm}.jsonl"
            assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    steps = [
        [{k: v for k, v in r.items() if k not in ("seconds", "tokens_per_s")} for r in read_jsonl(p / "metrics.jsonl")]
        for p in (run, whole)
    ]
    assert steps[0] == steps[1]
    results = [read_json(p / "results.json") for p in (run, whole)]
    for part in ("verdict", "gain", "retention", "dial", "sufficiency", "inside", "samples", "data", "model"):
        assert results[0][part] == results[1][part], part
    assert results[0]["training"]["probe"] == results[1]["training"]["probe"]
    assert read_json(run / "status.json")["state"] == "done"
    assert (run / "report.html").exists()


MOMENTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "planning": lambda patch: kill_at(patch, planning, "make_plan"),
    "answering": lambda patch: kill_at(patch, measure, "encode_items"),
    "the base arm": lambda patch: kill_at(patch, measure, "score_arm"),
    "the replay": lambda patch: kill_at(patch, written, "written_for_replay"),
    "between": lambda patch: kill_at(patch, main_path, "Journal"),
    "the longest pack": lambda patch: kill_at(patch, field, "try_longest_pack"),
    "training": kill_in_training,
    "the adapter": lambda patch: kill_at(patch, main_path, "save_trained"),
    "the strengths": lambda patch: kill_at(patch, select_half, "_trained"),
    "the adapted arm": lambda patch: kill_at(patch, measure, "adapted_arm"),
    "the report": lambda patch: kill_at(patch, Run, "report"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_it_ends_as_a_run_never_stopped(
    moment: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        if moment == "answering":  # the plan encodes items, too
            patch.setattr(main_path, "read_plan", lambda _: read_whole_plan(whole))
        MOMENTS[moment](patch)
        with pytest.raises(KilledError):
            adapt("valves.jsonl", model="model", out=run, **OPTIONS)
    assert adapt(resume=run).path == run
    assert_identical(run, whole)


@pytest.fixture(scope="module")
def looked(room: Path) -> Path:
    """A run never stopped that tried three rates for two steps each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METIER_CACHE", str(room / "cache"))
        try_rates(patch)
        return adapt("valves.jsonl", model="model", out=room / "looked", **PROBED).path


PROBED = OPTIONS | {"step_tokens": 250}
IN_PROBE, AFTER_PROBE = "in the probe", "before the first checkpoint"
PROBE_MOMENTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    IN_PROBE: lambda patch: kill_in_training(patch, at=4),
    AFTER_PROBE: lambda patch: kill_at(patch, field, "train"),
    "after the first checkpoint": lambda patch: kill_in_training(patch, at=7),
    "after an anchor": lambda patch: kill_in_training(patch, at=10),
    "the adapter": lambda patch: kill_at(patch, main_path, "save_trained"),
}


def try_rates(patch: pytest.MonkeyPatch) -> None:
    for name, value in (("STEPS", 2), ("MAX_SHARE", 9.0)):
        patch.setattr(probing, name, value)


def assert_same_choice(run: Path, whole: Path) -> None:
    facts = [read_json(p / "results.json")["training"] for p in (run, whole)]
    judged = [[(t["lr"], t["judged"]) for t in f["lr_probe"]["tried"]] for f in facts]
    assert judged[0] == judged[1]
    assert len(judged[0]) == 3
    assert facts[0]["lr"] == facts[1]["lr"] == facts[0]["lr_probe"]["chosen"]


@pytest.mark.parametrize("moment", PROBE_MOMENTS)
def test_killed_in_or_after_the_probe_it_ends_as_a_run_never_stopped_and_tries_no_rate_twice(
    moment: str, looked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    try_rates(monkeypatch)
    with monkeypatch.context() as patch:
        PROBE_MOMENTS[moment](patch)
        with pytest.raises(KilledError):
            adapt("valves.jsonl", model="model", out=run, **PROBED)
    if moment in (IN_PROBE, AFTER_PROBE):
        assert not list(run.glob("checkpoints/*"))
    else:
        kill_at(monkeypatch, field, "probe")
    adapt(resume=run)
    assert_identical(run, looked)
    assert_same_choice(run, looked)


def test_the_rates_are_tried_anew_after_ctrl_c_in_the_probe(
    looked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metier.training import loop

    run, step = tmp_path / "run", loop.train_step
    try_rates(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", lambda *a: signal.raise_signal(signal.SIGINT) or step(*a))
        with pytest.raises(KeyboardInterrupt):
            adapt("valves.jsonl", model="model", out=run, **PROBED)
    assert read_json(run / "status.json")["state"] == "interrupted"
    assert not list(run.glob("checkpoints/*"))
    adapt(resume=run)
    assert_identical(run, looked)
    assert_same_choice(run, looked)


def read_whole_plan(whole: Path) -> object:
    from metier.runs import RunFolder
    from metier.training.plan import read_plan

    return read_plan(RunFolder(whole))


def test_the_plan_is_read_back_and_the_base_is_not_measured_again(
    whole: Path, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    kill_at(monkeypatch, planning, "make_plan")
    kill_at(monkeypatch, measure, "_score_base")
    plan = (run / "plan.json").read_bytes()
    adapt(resume=run)
    assert (run / "plan.json").read_bytes() == plan
    assert_identical(run, whole)


def test_a_replay_that_was_changed_is_written_again(whole: Path, stopped: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    path = run / "evidence" / "replay.json"
    kept = read_json(path)
    assert kept["answers"]
    changed = {**kept, "answers": [{**kept["answers"][0], "answer": "Something else."}, *kept["answers"][1:]]}
    for content in (json.dumps([kept]), "{", json.dumps(changed)):
        path.write_text(content, encoding="utf-8")
        assert read_replay(RunFolder(run)) is None
    adapt(resume=run)
    assert_identical(run, whole)


@pytest.mark.parametrize("name", ["base.json", "scores-base.jsonl"])
def test_a_base_arm_that_is_not_whole_is_measured_again(name: str, whole: Path, stopped: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    path = run / "evidence" / name
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    adapt(resume=run)
    assert_identical(run, whole)


def test_sigkill_to_a_real_process(room: Path, whole: Path) -> None:
    """The process has the whole general pack, so it is compared with a run of its own kind: a resume against itself."""
    assert whole.exists()
    program = "import test_resume, sys; test_resume.in_a_process(sys.argv[1:])"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((*filter(None, sys.path), str(Path(__file__).parent)))}
    arguments = [sys.executable, "-c", program, "adapt", "valves.jsonl", "--model", "model", "--out", "run-killed"]
    options = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
    process = subprocess.Popen([*arguments, *options], cwd=room, env=env, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (room / "run-killed/checkpoints/step-000004").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert read_json(room / "run-killed" / "status.json")["state"] == "running"
    shown = command("adapt", "--resume", "run-killed", "--json")
    assert shown.code == 0, shown.err
    assert json.loads(shown.out)["run"] == "run-killed"
    assert_identical(room / "run-killed", whole)


def in_a_process(arguments: list[str]) -> None:
    """`metier` with the general pack of these tests."""
    from metier.cli import main

    parts = {"measured_texts": 4, "probe_texts": 4, "choices": 6, "measured_requests": 4, "replay_requests": 4}
    cut = {name: getattr(general, name)()[:n] for name, n in parts.items()}
    for name, items in cut.items():
        setattr(general, name, lambda items=items: items)
    written.ANSWER_TOKENS = written.WRITTEN_TOKENS = 8
    sys.exit(main(arguments))


def test_ctrl_c_and_then_resume(room: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metier.training import loop

    step = loop.train_step
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", lambda *a: signal.raise_signal(signal.SIGTERM) or step(*a))
        options = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
        shown = command("adapt", "valves.jsonl", "--model", "model", "--out", "run-term", *options)
    assert shown.code == 130
    assert shown.complaint.endswith("go on with `metier adapt --resume run-term`.")
    assert (room / "run-term/checkpoints/step-000001").exists()
    assert command("adapt", "--resume", "run-term").code == 0
    assert_identical(room / "run-term", whole)


def test_sigterm_outside_the_training_is_as_ctrl_c(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    monkeypatch.setattr(measure, "base_arm", lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        adapt(resume=run)
    assert read_json(run / "status.json")["state"] == "interrupted"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_refused(run: Path, said: str) -> None:
    """In one sentence, and nothing in the folder is touched."""
    before = contents(run)
    with pytest.raises(RunError, match=said):
        adapt(resume=run)
    assert contents(run) == before


def test_a_finished_run_is_not_resumed(whole: Path) -> None:
    assert_refused(whole, "is finished: `metier report")


def test_a_folder_that_is_no_run_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    assert_refused(tmp_path, "is no run of `metier adapt` that can go on")
    with pytest.raises(RunError, match="is no run folder"):
        adapt(resume=tmp_path / "absent")


def test_changed_data_is_named(stopped: Path, room: Path, tmp_path: Path) -> None:
    run, data = Path(shutil.copytree(stopped, tmp_path / "run")), room / "valves.jsonl"
    was = data.read_bytes()
    try:
        data.write_bytes(was.replace(b"Valve 3 ", b"Valve 4 "))
        assert_refused(run, r"valves\.jsonl changed since .* began \(sha256: was [0-9a-f]{12}…, is [0-9a-f]{12}…\)")
    finally:
        data.write_bytes(was)


def test_a_changed_config_is_named(stopped: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("seed = 0", "seed = 1"))
    assert_refused(run, r"seed is 1 in .*config\.toml and was 0: put it back")


def test_another_model_is_named(stopped: Path, room: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    (room / "model").rename(room / "model-kept")
    try:
        save_tiny(room / "model", seed=1)
        assert_refused(run, r"the weights of model changed since .* began")
    finally:
        shutil.rmtree(room / "model")
        (room / "model-kept").rename(room / "model")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda o: o["packages"].update(torch="1.0"), r"was begun with torch 1\.0, and this is"),
        (lambda o: o.update(code="0" * 64), r"the code of metier changed since .* \(sha256: was 000000000000…"),
        (lambda o: o.update(surprise=1), r"origin\.json was changed"),
    ],
    ids=["a package", "the code", "the file itself"],
)
def test_another_origin_is_named(change: Any, said: str, stopped: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    found = read_json(run / "origin.json")
    change(found)
    (run / "origin.json").write_text(json.dumps(found))
    assert_refused(run, said)


def test_another_processor_is_said_and_not_refused(stopped: Path) -> None:
    from dataclasses import replace

    from metier.runs import RunFolder

    run = RunFolder(stopped)
    then = origin.Origin(**read_json(run.origin))
    notes = origin.require_same(run, replace(then, processor="abacus", settings={**then.settings, "threads": 7}))
    assert notes[0].startswith("7 threads instead of 1: the result may differ")
    assert notes[1].startswith("another processor (abacus; it was ")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["valves.jsonl"], "DATA"), (["--minutes", "10"], "--minutes"), (["--out", "x"], "--out")],
    ids=["data", "a setting at its default", "out"],
)
def test_nothing_else_can_be_given_with_resume(arguments: list[str], named: str) -> None:
    shown = command("adapt", "--resume", "stopped", *arguments)
    assert (shown.code, shown.out) == (2, "")
    assert shown.complaint.startswith(f"metier: {named} cannot be given with --resume: `metier adapt --resume stopped`")


def test_nothing_else_can_be_given_in_python() -> None:
    with pytest.raises(MetierError, match="minutes cannot be given when a run goes on"):
        adapt(resume="stopped", minutes=3)
    with pytest.raises(MetierError, match=r"valves\.jsonl cannot be given"):
        adapt("valves.jsonl", resume="stopped")


def test_a_run_killed_before_its_folder_held_anything_can_be_begun_again(tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "origin.json.tmp").write_text('{"half')
    adapt("valves.jsonl", model="model", out=run, **OPTIONS)
    assert_identical(run, whole)
