import json
from pathlib import Path

import pytest

from command_line import metier
from metier.models import embedded
from metier.settings import Settings, to_toml
from metier.sources import packs


def test_models_are_listed_with_their_licence_and_whether_they_are_here() -> None:
    line = metier("models").out.splitlines()[1]
    assert line.startswith("smollm2-135m-instruct")
    assert "Apache-2.0" in line
    assert "135 million" in line
    assert "  no  " in line


def test_a_cached_model_is_listed_with_its_size_and_removed() -> None:
    folder = embedded.model_folder("smollm2-135m-instruct")
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"x" * 2_500_000)
    assert "2.5 MB" in metier("models").out
    assert metier("models", "--remove", "smollm2-135m-instruct").err == (
        "metier: smollm2-135m-instruct is removed from the cache.\n"
    )
    assert not folder.exists()
    assert "was not in the cache" in metier("models", "--remove", "smollm2-135m-instruct").complaint


@pytest.mark.parametrize("flag", ["--fetch", "--remove"])
def test_only_embedded_models_can_be_fetched_or_removed(flag: str) -> None:
    shown = metier("models", flag, "../../elsewhere")
    assert (shown.code, shown.out) == (2, "")
    assert "no embedded model called '../../elsewhere'" in shown.complaint


def test_packs_are_listed_and_an_unknown_one_names_those_there_are() -> None:
    assert "pack:clinical" in metier("packs").out
    shown = metier("packs", "--fetch", "cooking")
    assert (shown.code, shown.out) == (2, "")
    assert "choose from clinical, security" in shown.complaint


def test_a_fetched_pack_prints_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packs, "pack_path", lambda name: tmp_path / f"{name}.jsonl")
    assert metier("packs", "--fetch", "clinical").out == f"{tmp_path / 'clinical.jsonl'}\n"


def _run(folder: Path, time: str, state: str, gain: float | None) -> None:
    folder.mkdir()
    (folder / "status.json").write_text(json.dumps({"state": state, "time": time}), encoding="utf-8")
    (folder / "config.toml").write_text(to_toml(Settings(data=("notes.txt",))), encoding="utf-8")
    if gain is not None:
        found = {"relative": gain, "relative_ci_low": gain - 0.02, "relative_ci_high": gain + 0.02}
        verdict = {"decision": "no_gain"}
        (folder / "results.json").write_text(json.dumps({"verdict": verdict, "gain": found}), encoding="utf-8")


def test_runs_are_listed_the_newest_first(tmp_path: Path) -> None:
    _run(tmp_path / "old", "2026-01-01T10:00:00+0000", "done", 0.21)
    _run(tmp_path / "new", "2026-01-02T10:00:00+0000", "interrupted", None)
    (tmp_path / "no-run").mkdir()
    _, first, second = metier("runs", tmp_path).out.splitlines()
    assert first.split() == [str(tmp_path / "new"), "2026-01-02", "10:00", "interrupted", "notes.txt", "–", "–"]
    assert second.endswith("done         notes.txt  no gain   +21.0% (+19.0% to +23.0%)")


def test_a_damaged_run_is_listed_as_damaged(tmp_path: Path) -> None:
    _run(tmp_path / "cut", "2026-01-01T10:00:00+0000", "done", 0.2)
    (tmp_path / "cut" / "results.json").write_text('{"verdict": {', encoding="utf-8")
    assert "damaged" in metier("runs", tmp_path).out


def test_no_runs_are_said_and_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    shown = metier("runs", tmp_path)
    assert (shown.code, shown.out) == (0, "")
    assert "there are no runs" in shown.complaint
    assert metier("runs", tmp_path / "nowhere").code == 2


@pytest.mark.parametrize("command", ["report", "chat"])
def test_a_folder_that_is_no_run_is_one_line_and_exit_code_2(command: str, tmp_path: Path) -> None:
    shown = metier(command, tmp_path)
    assert (shown.code, shown.out, shown.err.count("\n")) == (2, "", 1)
