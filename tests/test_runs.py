"""The run folder: written whole or not at all, and never over something that is there."""

import errno
import json
import os
from pathlib import Path

import pytest

from metier import runs
from metier.errors import RunError
from metier.runs import RunFolder, StepLog, environment, read_json, read_jsonl, write_json, write_jsonl, write_text


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("at", ["write", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"old": 1})
    if at == "write":
        monkeypatch.setattr(Path, "write_bytes", no_space)
    else:
        monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(RunError) as caught:
        write_json(path, {"new": 2})
    assert str(caught.value) == (
        f"{path} cannot be written (No space left on device): free some space or choose another --out."
    )
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    for bad in (float("nan"), float("inf"), object()):
        with pytest.raises((ValueError, TypeError)):
            write_json(path, {"new": bad})
        with pytest.raises((ValueError, TypeError)):
            write_jsonl(path, [{"new": 1}, {"new": bad}])
    assert list(tmp_path.iterdir()) == [path]
    assert read_json(path) == {"old": 1}


def test_json_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    value = {"é": ["« 🩺 »", 1.5, None, True, {"a": "line\nline"}]}
    write_json(tmp_path / "deep" / "er" / "a.json", value)
    assert read_json(tmp_path / "deep" / "er" / "a.json") == value
    records = [{"a": "x\ny"}, {"b": "\u2028 é"}]
    write_jsonl(tmp_path / "a.jsonl", records)
    assert list(read_jsonl(tmp_path / "a.jsonl")) == records


def test_a_file_name_that_is_no_utf8_can_be_written_down(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    write_json(tmp_path / "a.json", [name])
    assert read_json(tmp_path / "a.json") == [name]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.json", "x")
    with pytest.raises(RunError, match="cannot be made"):
        RunFolder(tmp_path / "file" / "run").create()


def test_a_file_that_is_missing_or_changed_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a\.json does not exist: name the folder"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{\n"a": ,\n}')
    with pytest.raises(RunError, match=r"a\.json:2 is not JSON"):
        read_json(tmp_path / "a.json")


def test_a_last_line_cut_by_a_crash_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [{"a": 1}, {"a": 2}]


def test_every_step_is_on_the_disk_before_the_next(tmp_path: Path) -> None:
    log = StepLog(tmp_path / "metrics.jsonl")
    for step in (1, 2):
        log.write(step=step, loss=0.5)
        assert [r["step"] for r in read_jsonl(tmp_path / "metrics.jsonl")] == list(range(1, step + 1))
    log.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
def test_a_full_disk_while_logging_is_one_sentence_and_closing_does_not_hide_it() -> None:
    log = StepLog(Path("/dev/full"))
    with pytest.raises(RunError, match=r"/dev/full cannot be written \(No space left on device\): free some space"):
        log.write(step=1)
    log.close()


@pytest.mark.parametrize("there", ["a file in it", "a file"])
def test_what_is_there_is_never_overwritten(there: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    if there == "a file":
        path.write_text("precious")
    else:
        path.mkdir()
        (path / "notes.txt").write_text("precious")
    for attempt in (RunFolder(path).require_free, RunFolder(path).create):
        with pytest.raises(RunError, match="exists already: choose another --out"):
            attempt()
    assert next(p for p in (path, path / "notes.txt") if p.is_file()).read_text() == "precious"


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    RunFolder(tmp_path).create()
    RunFolder(tmp_path / "runs" / "new").create()
    assert (tmp_path / "runs" / "new").is_dir()


def test_making_the_object_touches_nothing(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_the_status_says_the_state_and_why(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.set_status("failed", reason="no data")
    status = read_json(run.status)
    assert (status["state"], status["reason"]) == ("failed", "no data")
    assert status["time"][:2] == "20"


def test_results_are_asked_of_finished_runs_only(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(RunError, match="is not a run folder"):
        run.require_results()
    run.create()
    with pytest.raises(RunError, match=r"has no results\.json \(not a run\)"):
        run.require_results()
    run.set_status("interrupted")
    with pytest.raises(RunError, match=r"has no results\.json \(interrupted\)"):
        run.require_results()
    write_json(run.results, {"schema": 1})
    assert run.require_results() == {"schema": 1}


def test_the_environment_names_the_versions_that_matter() -> None:
    found = environment()
    assert found["packages"]["torch"]
    assert found["cores"] >= 1
    assert runs._version("a-package-that-is-not-there") is None
    json.dumps(found, allow_nan=False)
