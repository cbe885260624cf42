"""Runs that are stopped, refused or fail: what they leave, and what they say."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from metier import prepare as preparing
from metier.adapt import adapt
from metier.errors import DataError, MetierError, ModelError, RunError
from metier.results import Run
from metier.runs import read_json, read_jsonl
from small import OPTIONS, Told, assert_adds_up, state, write_terms
from tiny import save_tiny

pytestmark = pytest.mark.usefixtures("small_general_pack")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_terms(tmp_path_factory.mktemp("data"))


def assert_stopped_after(path: Path, n_tokens: int) -> None:
    """The step that passed n_tokens is the last that was written."""
    steps = list(read_jsonl(path / "metrics.jsonl"))
    assert [s["step"] for s in steps] == list(range(1, len(steps) + 1))
    tokens = [s["tokens"] for s in steps]
    assert sum(tokens[:-1]) <= n_tokens < sum(tokens)


def test_an_interrupt_while_training_leaves_a_readable_run(model: Path, rows: Path, tmp_path: Path) -> None:
    def interrupt(done: int, note: str) -> None:
        if done > 1000:
            raise KeyboardInterrupt(note)

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        adapt(str(rows), model=str(model), out=out, progress=Told("training", interrupt), **OPTIONS)
    assert state(out) == "interrupted"
    assert_stopped_after(out, 1000)
    assert assert_adds_up(out)["trained"] == 0
    assert not (out / "results.json").exists()
    assert not list(out.glob("*.tmp"))
    with pytest.raises(RunError, match=r"has no results\.json \(interrupted\)"):
        Run(out).results  # noqa: B018


def test_ctrl_c_finishes_the_step_and_saves_what_was_trained(model: Path, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    told = Told("training", lambda done, _: done > 1000 and os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        adapt(str(rows), model=str(model), out=out, progress=told, **OPTIONS)
    assert state(out) == "interrupted"
    assert "Stopping after this step; Ctrl-C again stops at once." in told.lines
    assert_stopped_after(out, 1000)
    counts = assert_adds_up(out)
    assert counts["trained"] > 0
    assert counts["read"] > 0
    assert Run(out).model().generate("why?", 3) != "never"
    assert not list(out.glob("*.tmp"))


def test_a_run_folder_that_exists_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(RunError, match="exists already"):
        adapt("no-such-data", model="no-such-model", out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        ("absent.jsonl", {}, DataError),
        ("", {"model": "no-such-model"}, ModelError),
        ("", {"minutes": -1}, MetierError),
    ],
)
def test_a_mistake_before_training_leaves_no_folder(
    data: str, options: dict[str, Any], error: type[MetierError], model: Path, rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(error):
        adapt(data or str(rows), out=tmp_path / "run", **{"model": str(model), **OPTIONS, **options})
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_the_memory_is_refused_before_it_is_loaded(
    model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "free_bytes", lambda: 1_000_000)
    monkeypatch.setattr(preparing, "load_base", lambda name, _: pytest.fail(f"{name} was loaded"))
    out = tmp_path / "run"
    with pytest.raises(ModelError, match=r"needs about 0\.1 GB to train packs of 250 tokens, and 0\.0 GB are free"):
        adapt(str(rows), model=str(model), out=out, **OPTIONS)
    assert not out.exists()


def test_a_full_disk_while_training_fails_the_run_in_one_sentence(
    model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, folder: Path, **__: object) -> None:
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"half of i")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("peft.PeftModel.save_pretrained", full)
    with pytest.raises(RunError, match=r"adapter cannot be written .*No space left.*: free some space"):
        adapt(str(rows), model=str(model), out=tmp_path / "run", **OPTIONS, evidence="none")
    status = read_json(tmp_path / "run" / "status.json")
    assert status["state"] == "failed"
    assert "cannot be written" in status["reason"]
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_rows_whose_prompts_fill_the_window_are_an_error_and_not_an_empty_run(model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "long.jsonl"
    pairs = [(f"{i} " + "letters " * 200, f"answer {i}") for i in range(30)]
    rows.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in pairs))
    with pytest.raises(DataError, match=r"prompts that fill the model's window of 512 tokens"):
        adapt(str(rows), model=str(model), out=tmp_path / "run", **OPTIONS, evidence="none")
    assert not (tmp_path / "run").exists()
