"""Every method through the main path, on a model of two layers: what is saved is what was measured."""

import json
from pathlib import Path
from typing import Any

import pytest

from metier import field
from metier.adapt import adapt
from metier.errors import DataError, ModelError
from metier.evidence.score import score_documents
from metier.models.encoding import Encoded
from metier.models.frozen import LowerOutputs
from metier.models.packing import PackReader
from metier.prove import prove
from metier.results import Run, Talker
from metier.runs import read_json, read_jsonl
from metier.settings import METHODS as ALL
from metier.sources.read import read_corpus
from small import OPTIONS, KilledError, Told, kill_in_training
from tiny import save_tiny

METHODS = [method for method in ALL if method != "tokens"]  # tests/test_adapt_new_tokens.py


pytestmark = pytest.mark.usefixtures("small_general_pack")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), tie_word_embeddings=True)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = [(f"What is the {i}. term?", f"The term {i} is the answer number {i}.") for i in range(60)]
    path = tmp_path_factory.mktemp("data") / "terms.jsonl"
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in pairs), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {m: adapt(str(rows), model=str(model), out=folder / m, method=m, lr=3e-3, **OPTIONS) for m in METHODS}


def field_nll(run: Run, talker: Talker, found: Any) -> dict[str, float]:
    """Nats of the held-out rows that the run measured."""
    items = {r["item"] for r in read_jsonl(run.path / "evidence" / "scores-base.jsonl") if r["slice"] == "field"}
    examples = [e for e in read_corpus(run.settings.data).examples if e.id in items]
    documents: list[Encoded] = [d for e in examples for d in talker.base.encoder.encode(e)]
    scored = score_documents(PackReader(found), documents, 250, lambda _: None)
    return {item: s.nll for item, s in scored.items()}


def measured_nll(run: Run, arm: str) -> dict[str, float]:
    records = read_jsonl(run.path / "evidence" / f"scores-{arm}.jsonl")
    return {r["item"]: r["nll"] for r in records if r["slice"] == "field"}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_gains_and_what_it_saves_scores_what_the_evidence_says(method: str, finished: dict[str, Run]) -> None:
    run = finished[method]
    assert run.results["gain"]["diff"] > 0
    assert (run.folder.model.is_dir(), run.folder.adapter.is_dir()) == ((method == "full"), (method != "full"))
    talker = run.model()
    assert field_nll(run, talker, talker.model) == pytest.approx(measured_nll(run, "adapted"), rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_dial_of_a_run_is_the_base_at_zero(method: str, finished: dict[str, Run]) -> None:
    run = finished[method]
    off = run.model(dial=0.0)
    base = measured_nll(run, "base")
    assert field_nll(run, off, off.model) == pytest.approx(base, rel=1e-4)
    assert field_nll(run, off, off.model) != pytest.approx(measured_nll(run, "adapted"), rel=1e-4)
    asked = "What is the 3. term?"
    assert run.model().generate(asked, 8, adapted=False) == off.generate(asked, 8)


def killed_and_resumed(data: Path, model: Path, out: Path, **options: Any) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        kill_in_training(patch)
        with pytest.raises(KilledError):
            adapt(str(data), model=str(model), out=out, **options)
    assert read_json(out / "status.json")["state"] == "failed"
    return adapt(resume=out)


@pytest.mark.parametrize("method", ["dora", "pissa", "full"])
def test_a_killed_run_of_any_method_ends_with_the_weights_of_one_never_stopped(
    method: str, model: Path, rows: Path, finished: dict[str, Run], tmp_path: Path
) -> None:
    again = killed_and_resumed(rows, model, tmp_path / "run", method=method, lr=3e-3, **OPTIONS)
    whole = finished[method]
    (name,) = [p.name for p in whole.folder.trained.glob("*.safetensors")]
    assert (again.folder.trained / name).read_bytes() == (whole.folder.trained / name).read_bytes()
    assert (again.path / "rows.jsonl").read_bytes() == (whole.path / "rows.jsonl").read_bytes()


def test_a_fully_trained_model_is_proved_as_any_model_is(model: Path, finished: dict[str, Run], tmp_path: Path) -> None:
    rows = tmp_path / "other.jsonl"
    pairs = [(f"Which is the {i}. term?", f"The term {i} is the answer number {i}.") for i in range(70, 100)]
    rows.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in pairs))
    proved = prove(
        str(model), str(rows), model=str(finished["full"].folder.model), out=tmp_path / "proved", minutes=0.1, threads=1
    )
    assert proved.results["gain"]["diff"] > 0
    assert proved.results["model"]["trainable_parameters"] == 0
    assert {p.suffix for p in finished["full"].folder.model.iterdir()} <= {".json", ".safetensors", ".jinja"}


def test_the_trained_numbers_of_each_method_are_counted(finished: dict[str, Run]) -> None:
    counted = {m: finished[m].results["model"]["trainable_parameters"] for m in METHODS}
    assert counted["lora"] == counted["rslora"] == counted["pissa"] < counted["dora"] < counted["full"]
    assert counted["full"] == finished["full"].results["model"]["parameters"]
    assert len({finished[m].results["model"]["parameters"] for m in METHODS}) == 1


def test_every_method_has_a_rate_of_its_own(model: Path, rows: Path, tmp_path: Path) -> None:
    short = {**OPTIONS, "tokens": 500, "evidence": "none", "replay": 0.0}
    rates = {}
    for method in METHODS:
        adapt(str(rows), model=str(model), out=tmp_path / method, method=method, **short)
        rates[method] = read_json(tmp_path / method / "plan.json")["lr"]
    assert rates == pytest.approx({"lora": 1e-3, "rslora": 2.5e-4, "dora": 1e-3, "pissa": 1e-4, "full": 1e-4})


def test_kept_outputs_of_the_lower_layers_change_no_loss(
    model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three epochs, replay among them."""
    made: list[LowerOutputs] = []
    real = LowerOutputs.__init__

    def kept(self: LowerOutputs, limit_bytes: int) -> None:
        real(self, limit_bytes)
        made.append(self)

    monkeypatch.setattr(LowerOutputs, "__init__", kept)
    options = {**OPTIONS, "tokens": 8000, "evidence": "none", "top_layers": 1}
    adapt(str(rows), model=str(model), out=tmp_path / "kept", **options)
    monkeypatch.setattr(field, "n_frozen_layers", lambda *_: 0)
    adapt(str(rows), model=str(model), out=tmp_path / "plain", **options)
    found, expected = (
        [step["loss"] for step in read_jsonl(tmp_path / name / "metrics.jsonl")] for name in ("kept", "plain")
    )
    assert found == pytest.approx(expected, rel=1e-5)
    assert made[0].hits > made[0].misses > 0
    assert made[1].hits == 0


def test_a_model_with_fewer_layers_leaves_no_folder(model: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--top-layers 3: LlamaForCausalLM has 2 layers"):
        adapt(str(rows), model=str(model), out=tmp_path / "run", top_layers=3, **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_plain_texts_and_questions_are_trained_in_one_run(model: Path, rows: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"The term {i} is an answer. " * 3}) + "\n" for i in range(40)))
    run = adapt(str(rows), str(texts), model=str(model), out=tmp_path / "run", **{**OPTIONS, "evidence": "full"})
    assert {f["format"] for f in run.results["data"]["formats"]} == {"text", "question/answer"}
    assert read_json(run.path / "ledger.json")["bytes"]["trained"] > 0
    items = set(measured_nll(run, "base"))
    assert {item.split(":")[0] for item in items} == {"terms.jsonl", "texts.jsonl"}
    before, after = (measured_nll(run, arm) for arm in ("base", "adapted"))
    for name in ("terms", "texts"):
        assert sum(after[i] for i in items if i.startswith(name)) < sum(before[i] for i in items if i.startswith(name))


@pytest.fixture(scope="module")
def preferred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 preferences, one of them twice, one with another rejected answer, and one with an answer that does not fit."""
    rows = [
        {"prompt": f"What is the {i}. term?", "chosen": f"The term {i} is an answer.", "rejected": f"No {i}, an error."}
        for i in range(60)
    ]
    rows += [
        rows[3],
        {**rows[5], "rejected": "Never."},
        {"prompt": "Count.", "chosen": "one", "rejected": "the other " * 300},
    ]
    path = tmp_path_factory.mktemp("preferences") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_preferences_are_trained_measured_and_counted(model: Path, preferred: Path, tmp_path: Path) -> None:
    told = Told()
    run = adapt(str(preferred), model=str(model), out=tmp_path / "run", lr=3e-3, progress=told, **OPTIONS)
    assert any("| assistant: The term 0 is an answer. | rejected: No 0, an error." in line for line in told.lines)
    found = run.results["preferences"]
    assert found["n_items"] == run.results["gain"]["n_items"] > 5
    assert found["moved"] > 0.8
    assert found["margin"] > 1
    assert found["diff"] == pytest.approx(found["adapted"] - found["base"])
    base, adapted = (
        list(read_jsonl(run.path / "evidence" / f"preferences-{arm}.jsonl")) for arm in ("base", "adapted")
    )
    assert [r["item"] for r in base] == [r["item"] for r in adapted]
    ahead = [r["rejected_nll"] - r["chosen_nll"] for r in adapted]
    assert found["adapted"] == sum(a > 0 for a in ahead) / len(ahead)
    steps = list(read_jsonl(run.path / "metrics.jsonl"))
    assert steps[-1]["preference_accuracy"] > 0.9
    assert sum(step["replay_tokens"] for step in steps) > 0
    ledger = read_json(run.path / "ledger.json")
    for kind in ("bytes", "rows"):
        counts = dict(ledger[kind])
        assert counts.pop("total") == sum(counts.values())
    assert ledger["rows"]["duplicate"] == 1
    assert ledger["rows"]["cut"] == 1
    assert ledger["bytes"]["trained"] > 40 * len("The term 0 is an answer.No 0, an error.")


def test_a_killed_run_on_preferences_ends_as_one_never_stopped(model: Path, preferred: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "lr": 3e-3, "evidence": "full"}
    whole = adapt(str(preferred), model=str(model), out=tmp_path / "whole", **options)
    again = killed_and_resumed(preferred, model, tmp_path / "again", **options)
    assert again.results["preferences"] == whole.results["preferences"]
    for name in ("rows.jsonl", "ledger.json", "evidence/preferences-base.jsonl", "evidence/preferences-adapted.jsonl"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def test_preferences_have_a_gentler_rate_and_no_full_fine_tuning(model: Path, preferred: Path, tmp_path: Path) -> None:
    short = {**OPTIONS, "tokens": 500, "evidence": "none", "replay": 0.0}
    run = adapt(str(preferred), model=str(model), out=tmp_path / "run", **short)
    assert read_json(run.path / "plan.json")["lr"] == pytest.approx(1e-4)
    assert "preferences" not in run.results
    with pytest.raises(DataError, match=r"--method full has none: choose an adapter\.$"):
        adapt(str(preferred), model=str(model), out=tmp_path / "full", method="full", **OPTIONS)
    assert not (tmp_path / "full").exists()
