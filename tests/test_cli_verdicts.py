import errno
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import Outcome, metier, valves, write_rows
from metier.cli.panel import chosen_samples, moved
from metier.results import Run
from metier.runs import read_json

pytestmark = pytest.mark.usefixtures("room")

ADAPT = ("--tokens", "2000", "--minutes", "0.001", "--replay", "0", "--threads", "1", "--pack-tokens", "512")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tiny model and data; what is measured is cut to a few items of each kind."""
    from metier.evidence import written
    from metier.training import evidence_plan
    from tiny import save_tiny

    folder = tmp_path_factory.mktemp("room")
    save_tiny(folder / "model", max_position_embeddings=2048)
    write_rows(folder / "valves.jsonl", valves())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("METIER_CACHE", str(folder / "cache"))
        patch.setattr(evidence_plan, "SMALLEST", evidence_plan.EvidencePlan(12, 6, 4, 4))
        patch.setattr(written, "ANSWER_TOKENS", 8)
        patch.setattr(written, "WRITTEN_TOKENS", 8)
        yield folder


def adapt(*arguments: str | Path, data: str | Path = "valves.jsonl", model: str = "model") -> Outcome:
    return metier("adapt", data, "--model", model, *ADAPT, *arguments)


@pytest.fixture(scope="module")
def adapted(room: Path) -> Outcome:
    shown = adapt("--out", "run")
    assert (room / "run").is_dir()
    return shown


def test_what_was_detected_and_the_plan_are_shown_before_training(adapted: Outcome) -> None:
    lines = adapted.err.splitlines()
    assert lines[0] == "valves.jsonl: 80 rows of question/answer (fields: question, answer)"
    assert lines[1].strip() == "user: When does valve 0 close? | assistant: Valve 0 closes line 0 below 3 bar."
    assert sum("| assistant:" in line for line in lines) == 3
    assert lines.index(next(s for s in lines if s.startswith("plan: "))) < lines.index("training …")


def test_a_run_ends_with_its_verdict_what_moved_and_what_to_type_next(room: Path, adapted: Outcome) -> None:
    assert adapted.code == 0
    results = read_json(room / "run" / "results.json")
    assert adapted.out.startswith(results["verdict"]["sentence"] + "\n")
    assert all(f"  - {reason}" in adapted.out for reason in results["verdict"]["reasons"])
    probe = results["training"]["probe"]
    assert f"{probe['nll_before']:.3f} → {probe['nll_after']:.3f} nats per token" in adapted.out
    assert "> What is the capital of France?" in adapted.out
    assert "run/report.html" in adapted.out
    for command in ("metier chat run\n", "metier report run\n", "metier prove --base model --adapter run/adapter"):
        assert f"  {command}" in adapted.out


def test_json_is_one_object_and_nothing_else(room: Path) -> None:
    shown = adapt("--out", "run-json", "--json")
    found = json.loads(shown.out)
    assert found == {"run": "run-json", **read_json(room / "run-json" / "results.json")}


@pytest.mark.usefixtures("adapted")
def test_the_gate_fails_a_run_that_is_not_adapted(room: Path) -> None:
    decision = read_json(room / "run" / "results.json")["verdict"]["decision"]
    assert decision != "adapted"  # random weights, two steps
    assert adapt("--out", "run-gate", "--gate", "--json").code == 3


def test_a_run_without_evidence_says_that_nothing_was_measured_and_mines_no_terms(room: Path) -> None:
    shown = adapt("--out", "run-none", "--evidence", "none")
    assert shown.code == 0
    assert shown.out.startswith("Cannot tell. Nothing was measured")
    assert not (room / "run-none" / "evidence" / "terms.jsonl").exists()


@pytest.mark.usefixtures("adapted")
def test_an_adapter_is_proved_on_texts_it_has_not_seen(room: Path) -> None:
    write_rows(room / "other.jsonl", [{**row, "question": f"Tell me: {row['question']}"} for row in valves(30)])
    shown = metier(
        *("prove", "--base", "model", "--adapter", "run/adapter", "--domain", "other.jsonl", "--out", "proof"),
        *("--minutes", "0.001", "--threads", "1", "--json"),
    )
    assert shown.code == 0
    assert json.loads(shown.out)["run"] == "proof"
    assert json.loads(shown.out)["gain"]["n_documents"] > 2


@pytest.mark.usefixtures("adapted")
def test_an_adapter_of_another_base_is_refused_or_said_to_be_one(room: Path, tmp_path: Path) -> None:
    """A base with more layers of the same shapes would take it: only the lower ones were adapted."""
    from tiny import save_tiny

    other = save_tiny(tmp_path / "other", num_hidden_layers=3, max_position_embeddings=2048)
    proving = ("--domain", "valves.jsonl", "--minutes", "0.001", "--threads", "1")
    shown = metier("prove", "--base", other, "--adapter", "run/adapter", "--out", "refused", *proving)
    assert shown.code == 2
    assert "run/adapter was trained on model, whose weights are not those of" in shown.complaint
    assert not (room / "refused").exists()

    alone = shutil.copytree(room / "run" / "adapter", tmp_path / "adapter")  # without the run that it came from
    shown = metier("prove", "--base", other, "--adapter", alone, "--out", "said", *proving)
    assert shown.code == 0
    assert "note: the adapter says that it was trained on model; it is measured on " in shown.err


def test_prove_needs_an_adapter_or_a_model(room: Path) -> None:
    shown = metier("prove", "--base", "model", "--domain", "valves.jsonl", "--out", "proof-of-nothing")
    assert (shown.code, shown.out) == (2, "")
    assert "--adapter or a --model" in shown.complaint
    assert not (room / "proof-of-nothing").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("unknown.jsonl", b'{"foo": "a", "bar": "b"}\n', "its fields are foo, bar; say which to learn with --question"),
        ("empty.jsonl", b"", "is empty"),
        ("binary.jsonl", b"\x00\x01\xff\xfe\x00PK", "binary.jsonl:1 is binary, not text"),
        (
            "null.jsonl",
            b'{"question": "a", "answer": "b"}\n{"question": "c", "answer": null}\n',
            "null.jsonl:2 has a null",
        ),
        ("broken.csv", b'question,answer\na,b\nc,"d\ne,f\n', "broken.csv:3 has a quote that is never closed"),
        ("columns.csv", b"question,answer\na,b\nc,d,e\n", "columns.csv:3 has 3 columns where the header has 2"),
        ("picture.png", b"\x89PNG", "a kind of file that is not read"),
    ],
)
def test_bad_data_is_one_line_and_no_run_folder(room: Path, name: str, content: bytes, said: str) -> None:
    (room / name).write_bytes(content)
    shown = adapt("--out", "run-bad", data=name)
    assert (shown.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert said in shown.complaint
    assert not (room / "run-bad").exists()


def test_a_model_without_weights_is_one_line_and_no_run_folder(room: Path) -> None:
    shutil.copytree(room / "model", room / "hollow", ignore=shutil.ignore_patterns("*.safetensors"))
    shown = adapt("--out", "run-hollow", model="hollow")
    assert (shown.code, shown.out) == (2, "")
    assert "hollow has no model.safetensors" in shown.complaint
    assert not (room / "run-hollow").exists()


def test_an_output_folder_that_exists_is_left_as_it_is(room: Path) -> None:
    (room / "mine").mkdir()
    (room / "mine" / "thesis.txt").write_text("years of work", encoding="utf-8")
    shown = adapt("--out", "mine")
    assert (shown.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert "choose another --out" in shown.complaint
    assert [path.name for path in (room / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("file", ["results.json", "splits.json", "scores-base.jsonl"])
def test_a_full_disk_is_one_line_and_a_run_that_says_it_failed(
    room: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    replace = os.replace

    def refuse(source: str | Path, target: str | Path) -> None:
        if Path(target).name == file:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    out = f"run-full-{file}"
    shown = adapt("--out", out)
    assert (shown.code, shown.out) == (2, "")
    assert "No space left on device" in shown.complaint
    assert read_json(room / out / "status.json")["state"] == "failed"
    assert not list((room / out).rglob("*.tmp"))
    assert not list((room / out).rglob(file))


def test_ctrl_c_while_training_keeps_the_adapter_and_says_how_to_go_on(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metier.training import loop

    step = loop.train_step

    def stepped(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    monkeypatch.setattr(loop, "train_step", stepped)
    shown = adapt("--out", "run-stopped")
    assert (shown.code, shown.out) == (130, "")
    assert "Stopping after this step" in shown.err
    assert "run-stopped holds everything up to step 1, and the adapter as it was then" in shown.complaint
    assert shown.complaint.endswith("go on with `metier adapt --resume run-stopped`.")
    assert read_json(room / "run-stopped" / "status.json")["state"] == "interrupted"


def test_ctrl_c_before_training_says_that_nothing_was_trained_and_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from metier import evidence

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evidence.measure, "base_arm", interrupt)
    shown = adapt("--out", "run-early")
    assert shown.code == 130
    assert "run-early holds nothing that was trained yet" in shown.complaint
    assert shown.complaint.endswith("go on with `metier adapt --resume run-early`.")


@pytest.mark.usefixtures("adapted")
def test_a_conversation_asks_both_models_each_line_of_a_pipe() -> None:
    shown = metier("chat", "run", stdin="What is a valve?\n\nAnd a pump?\n")
    assert shown.code == 0
    assert [line[:9] for line in shown.out.splitlines() if line.startswith(("base", "adapted"))] == [
        *("base:    ", "adapted: "),
        *("base:    ", "adapted: "),
    ]
    assert "> And a pump?" in shown.out


@pytest.mark.usefixtures("adapted")
def test_at_strength_0_the_adapted_model_answers_as_the_base() -> None:
    shown = metier("chat", "run", "--dial", "0", "--request", "When does valve 3 close?")
    base, answered = (line.partition(":")[2].strip() for line in shown.out.splitlines()[1:3])
    assert base == answered


@pytest.mark.usefixtures("adapted")
def test_a_report_is_made_again_and_its_path_printed(room: Path) -> None:
    (room / "run" / "report.html").unlink()
    shown = metier("report", "run")
    assert (shown.code, shown.out) == (0, "run/report.html\n")
    assert (room / "run" / "report.html").exists()


def test_the_speed_of_the_machine_is_a_table_or_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metier.bench.LIMIT_S", 0.01)
    arguments = ("bench", "valves.jsonl", "--model", "model", "--rows", "8", "--threads", "1")
    found = json.loads(metier(*arguments, "--json").out)
    assert found["rows"] == 8
    assert {"examples_per_s", "tokens_per_s", "supervised_tokens_per_s", "share_of_limit", "peak_rss_bytes"} <= set(
        found["training"]
    )
    assert [row["size"] for row in found["models"]] == ["135M", "360M", "1B", "3B", "7B"]
    assert all(0 < found[part]["share_of_limit"] < 1 for part in ("training", "scoring"))
    shown = metier(*arguments).out
    assert "training" in shown
    assert "Your 80 examples: " in shown
    assert "for the quick evidence" in shown


def results(before: float, after: float, weights: float) -> dict[str, Any]:
    probe = {"n_rows": 16, "nll_before": before, "nll_after": after}
    return {"training": {"probe": probe, "lr": 0.001, "steps": 9}, "model": {"weights_moved": weights}}


@pytest.mark.parametrize(
    ("measured", "warning"),
    [
        (results(2.5, 1.9, 0.03), ""),
        (results(2.5, 2.49, 0.03), "hardly changed in 9 steps"),
        (results(2.5, 1.9, 0.0009), "--lr 0.002"),
        (results(2.5, 2.8, 0.03), "became harder"),
    ],
)
def test_a_model_that_hardly_moved_or_got_worse_is_a_warning(measured: dict[str, Any], warning: str) -> None:
    lines = [line for line in moved(measured) if line.startswith("Warning")]
    assert [warning in line for line in lines] == ([True] if warning else [])


def test_three_requests_of_the_field_and_every_general_one_are_shown() -> None:
    kinds = ["field"] * 5 + ["general"] * 3
    samples = [{"kind": kind, "request": str(i)} for i, kind in enumerate(kinds)]
    assert [s["request"] for s in chosen_samples({"samples": samples})] == ["0", "1", "2", "5", "6", "7"]


@pytest.mark.usefixtures("adapted")
def test_the_end_of_a_run_is_drawn_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from metier.cli import panel

    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    panel.show(Run("run"))
    shown = capsys.readouterr().out
    assert "╭──" in shown
    assert all(column in shown for column in ("asked", "base", "adapted"))
    assert "metier chat run" in shown
