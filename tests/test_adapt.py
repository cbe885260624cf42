"""The main path, end to end, on a model of two layers."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from peft.tuners.lora import LoraLayer

from metier import proof
from metier.adapt import adapt, settle
from metier.errors import RunError
from metier.evidence import measure, planning
from metier.evidence.arms import Arm
from metier.evidence.full.limits import Limits
from metier.evidence.measure import Before
from metier.evidence.score import encode_items
from metier.evidence.subject import Subject
from metier.field import Training
from metier.models.encoding import Encoder
from metier.models.load import load_base
from metier.models.packing import PackReader
from metier.results import Run
from metier.runs import RunFolder, default_folder, read_json, read_jsonl, write_json
from metier.settings import Settings, from_toml
from metier.sources import general
from metier.sources.examples import Example
from metier.sources.leaks import Leak, Leaks
from metier.sources.ledger import FileRead, Ledger
from metier.sources.split import Split
from metier.training import probe as probing
from metier.training.evidence_plan import Sizes
from metier.training.loop import Trained
from metier.training.plan import Plan
from small import OPTIONS, Told, assert_adds_up, state, write_terms
from tiny import save_tiny, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("small_general_pack")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_terms(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def finished(model: Path, rows: Path, told: Told, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "first"
    return adapt(str(rows), model=str(model), out=out, progress=told, **OPTIONS)


def test_the_run_folder_is_complete(finished: Run) -> None:
    names = {str(p.relative_to(finished.path)) for p in finished.path.rglob("*") if p.is_file()}
    arms = {f"evidence/{kind}-{arm}.jsonl" for kind in ("scores", "choices", "answers") for arm in ("base", "adapted")}
    arms |= {f"evidence/{name}.jsonl" for name in ("dial", "trajectory", "trained", "layers", "terms")}
    expected = {
        "config.toml",
        "plan.json",
        "ledger.json",
        "splits.json",
        "metrics.jsonl",
        "results.json",
        "report.html",
    }
    expected |= {"environment.json", "status.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    assert expected | arms <= names
    assert not [name for name in names if "tmp" in name or name.endswith((".bin", ".pt", ".pkl"))]
    assert state(finished.path) == "done"


def test_the_results_have_the_keys_that_other_programs_rely_on(finished: Run) -> None:
    results = read_json(finished.path / "results.json")
    assert results["schema"] == 1
    wanted = {
        "verdict": "decision sentence reasons",
        "model": "base sha256 parameters trainable_parameters weights_moved",
        "data": "files_read files_rejected documents examples train_tokens held_out_documents held_out_unit formats",
        "gain": "unit base adapted diff ci_low ci_high relative relative_ci_low relative_ci_high n_items n_documents "
        "detectable groups",
        "retention": "margin passed slices",
        "training": "steps epochs lr tokens supervised_tokens replay_share replay_tokens mix seconds interrupted probe",
        "vocabulary": "bytes_per_token fragmentation terms tokens_per_term tokens_per_word most_split",
        "cost": "train_s evidence_s total_s train_tokens_per_s examples_per_s peak_rss_bytes",
    }
    for part, keys in wanted.items():
        assert set(keys.split()) <= set(results[part]), part
    assert results["verdict"]["decision"] in {"adapted", "no_gain", "forgot", "cannot_tell"}
    slices = results["retention"]["slices"]
    assert {
        "name",
        "kind",
        "unit",
        "base",
        "adapted",
        "diff",
        "margin",
        "lower_95",
        "upper_95",
        "n_items",
        "passed",
    } <= set(slices[0])
    assert {s["kind"] for s in slices} == {"text", "chat", "choices", "answers"}
    assert {s["kind"] for s in results["samples"]} == {"field", "general"}
    assert set(results["samples"][0]) >= {"kind", "request", "reference", "base", "adapted"}
    assert finished.results == results


def test_the_numbers_of_the_results_agree_with_the_files_beside_them(finished: Run, model: Path) -> None:
    results = finished.results
    steps = list(read_jsonl(finished.path / "metrics.jsonl"))
    planned = read_json(finished.path / "plan.json")
    assert results["training"]["steps"] == len(steps) == planned["steps"]
    assert planned["threads"]["n"] == from_toml((finished.path / "config.toml").read_text()).threads == 1
    assert results["training"]["tokens"] == sum(s["tokens"] for s in steps) == results["data"]["train_tokens"]
    assert results["training"]["replay_tokens"] == sum(s["replay_tokens"] for s in steps) > 0
    assert {"step", "loss", "lr", "grad_norm", "tokens", "supervised_tokens", "tokens_per_s", "seconds"} <= set(
        steps[0]
    )
    split = read_json(finished.path / "splits.json")
    assert results["data"]["held_out_documents"] == len(split["select"]) + len(split["test"])
    assert results["data"]["examples"] == sum(len(split[part]) for part in ("train", "select", "test")) == 59
    scored = [r["item"] for r in read_jsonl(finished.path / "evidence" / "scores-base.jsonl") if r["slice"] == "field"]
    assert set(scored) <= set(split["test"])
    assert results["gain"]["n_items"] == len(scored)
    base = load_base(str(model))
    assert results["model"]["sha256"] == base.sha256
    assert results["model"]["parameters"] == base.n_parameters


def test_it_learned_the_rows(finished: Run) -> None:
    probe = finished.results["training"]["probe"]
    assert probe["nll_after"] < probe["nll_before"] - 0.3
    assert finished.results["gain"]["diff"] > 0
    assert finished.results["model"]["weights_moved"] > 0


def test_the_ledger_accounts_for_every_byte(finished: Run, rows: Path) -> None:
    counts = assert_adds_up(finished.path)
    assert counts["total"] == len(rows.read_bytes())
    assert counts["duplicate"] > 0
    assert counts["cut"] > 0
    assert counts["trained"] > counts["held_out"] > 0


def test_leaks_take_from_the_claim_and_masks_keep_the_ledger_whole(model: Path, tmp_path: Path) -> None:
    """Forty answers stand in a longer one each, a request of the general pack is trained on, a row names a person."""
    words = [" ".join(f"w{n}x{i}" for i in range(14)) for n in range(80)]
    rows = [(f"What is {n}?", f"{words[n]}.") for n in range(40)]
    rows += [(f"Tell me more of {n}.", f"{words[n]} and {words[40 + n]}.") for n in range(40)]
    rows += [
        (general.measured_requests()[0].request, "I do not know."),
        ("Who?", "Ask ann.smith@example.org, she knows."),
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows), encoding="utf-8")
    run = adapt(str(data), model=str(model), out=tmp_path / "run", privacy="mask", **OPTIONS)
    leaks, results = run.results["leaks"], run.results
    scored = {r["item"] for r in read_jsonl(run.path / "evidence" / "scores-base.jsonl") if r["slice"] == "field"}
    leaked = {one["item"] for one in leaks["held_out"]["listed"]} & scored
    assert leaked
    assert results["gain"]["n_items"] == len(scored) - len(leaked)
    assert leaks["gain_with_leaks"]["n_items"] == len(scored)
    assert leaks["general"]["slices"] == ["chat"]
    withheld = [one for one in results["retention"]["slices"] if one.get("leaked")]
    assert {one["kind"] for one in withheld} >= {"chat", "answers"}
    assert not any(one["passed"] for one in withheld)
    assert run.verdict["decision"] != "adapted"
    assert f"leaves out {len(leaked)} held-out item" in run.verdict["reasons"][0]
    assert assert_adds_up(run.path)["private"] == len("ann.smith@example.org")


def test_the_windows_of_a_text_that_the_budget_did_not_reach_count_as_read_only() -> None:
    encoder = Encoder(tiny_tokenizer(), 64)
    text = "the question and the answer, " * 30
    example = Example("a.txt", "a.txt", 1, "a.txt", text=text)
    first, *others = encoder.encode(example)
    assert others
    ledger = Ledger()
    ledger.add_file(FileRead("a.txt", "ok", "", len(text), len(text), 1))
    ledger.add("a.txt", len(text), 0, len(text))
    trained = Trained(windows={("a.txt", 0): first.n_bytes})
    nothing = Before(encode_items(encoder, [], [], [], [], []), Arm([], [], [], []), (), [], None, 0.0)
    settle(ledger, Split([example], [], [], "document", 0), Training(trained, {}, frozenset(), []), nothing, encoder)
    counts = ledger.as_json()["bytes"]
    assert counts["trained"] == first.n_bytes
    assert counts["read"] == sum(d.n_bytes for d in others)


def test_both_arms_hold_the_same_items_in_the_same_order(finished: Run) -> None:
    for kind in ("scores", "choices", "answers"):
        base, adapted = (
            list(read_jsonl(finished.path / "evidence" / f"{kind}-{arm}.jsonl")) for arm in ("base", "adapted")
        )
        assert [(r["item"], r.get("slice")) for r in base] == [(r["item"], r.get("slice")) for r in adapted]
        assert len(base) > 5
        assert base != adapted
    planned = read_json(finished.path / "plan.json")["evidence"]
    slices = {one["name"]: one["n_items"] for one in finished.results["retention"]["slices"]}
    assert slices["answers/length"] == planned["requests"]
    assert slices["chat/good answers"] == slices["chat/own answers"] == (planned["requests"] + 1) // 2


def test_choices_are_made_on_the_select_half_and_claims_on_the_test_half(finished: Run) -> None:
    split = read_json(finished.path / "splits.json")
    dial = list(read_jsonl(finished.path / "evidence" / "dial.jsonl"))
    of_field = {r["item"] for r in dial if r["slice"] == "field"}
    assert of_field
    assert of_field <= set(split["select"])
    last = finished.results["training"]["steps"]
    assert {(r["step"], r["alpha"]) for r in dial} == {*((last, a) for a in (0, 0.5, 1, 1.25)), (last // 2, 1)}
    measured = {t.id for t in general.measured_texts()} | {r.id for r in general.measured_requests()}
    assert not measured & {r["item"] for r in dial}
    way = list(read_jsonl(finished.path / "evidence" / "trajectory.jsonl"))
    assert len({r["tokens_seen"] for r in way}) == 5
    assert max(r["tokens_seen"] for r in way) == sum(
        s["tokens"] - s["replay_tokens"] for s in read_jsonl(finished.path / "metrics.jsonl")
    )
    assert not (finished.path / "trajectory").exists()
    assert {"dial", "sufficiency", "jargon", "overdone", "inside"} <= set(finished.results)
    assert all(finished.results[part]["sentence"] for part in ("dial", "sufficiency", "jargon", "overdone"))
    assert {(r["step"], r["alpha"]) for r in dial if "kl" in r} == {(last, 1), (last // 2, 1)}
    assert all("kl" in r for r in dial if r["alpha"] == 1)
    assert set(finished.results["retention"]["divergence"]["slices"]) == {"field", "text", "chat/own answers"}
    said = {one["name"]: one["sentence"] for one in finished.results["overdone"]["detectors"]}
    assert "its entropy on general text " in said["collapse"].lower()


def test_full_evidence_compares_and_is_concluded_again_from_its_files(model: Path, rows: Path, tmp_path: Path) -> None:
    told = Told()
    run = adapt(str(rows), model=str(model), out=tmp_path / "full", progress=told, evidence="full", **OPTIONS)
    assert any(line.startswith("full evidence: cheaper ways and rivals are compared, about ") for line in told.lines)
    assert {"arms", "controls", "stability", "scratch"} <= set(run.results)
    assert run.results["sufficiency"]["quality"]["sentence"].endswith(".")
    said = {one["name"]: one["sentence"] for one in run.results["overdone"]["detectors"]}
    assert "training prefixes than before are continued word for word" in said["memorising"]
    assert {"definition"} <= {r["slice"].split("/")[1] for r in read_jsonl(run.path / "evidence" / "questions.jsonl")}
    assert {r["tilt"] for r in read_jsonl(run.path / "evidence" / "dial.jsonl") if "tilt" in r} == {0.5}
    before = read_json(run.folder.results)
    write_json(run.folder.results, {name: part for name, part in before.items() if name not in ("arms", "scratch")})
    again = Run(run.path)
    again.conclude()
    assert read_json(run.folder.results) == before


def test_claims_are_measured_at_the_strength_and_recitation_at_full_strength(
    model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[str, float] = {}

    def scaling(subject: Subject) -> float:
        layers = [m for m in subject.reader.model.modules() if isinstance(m, LoraLayer)]
        return float(layers[0].scaling["default"])

    def compared(subject: Subject, *rest: Any) -> Limits:
        heard["compared"] = scaling(subject)
        heard["seconds"] = rest[-1]
        return Limits(questions=3)

    monkeypatch.setattr(proof, "choose", lambda *_: (0.0, 0.5))
    monkeypatch.setattr(proof, "compare", compared)
    monkeypatch.setattr(proof, "ask_as_trained", lambda subject, *_: heard.update(recited=scaling(subject)))
    run = adapt(str(rows), model=str(model), out=tmp_path / "half", **OPTIONS)
    assert read_json(run.path / "evidence" / "facts.json")["dial"] == 0.5
    assert heard["compared"] == 0.5 * heard["recited"]
    assert 30 * OPTIONS["minutes"] <= heard["seconds"] < 60 * OPTIONS["minutes"]


def test_comparisons_may_take_all_that_is_left_or_half_of_the_minutes_besides() -> None:
    assert proof.comparing_seconds(100, elapsed_s=600) == 5400
    assert proof.comparing_seconds(100, elapsed_s=5400) == 3000
    assert proof.comparing_seconds(100, elapsed_s=9000) == 3000


def test_held_out_items_that_leak_are_left_out_of_both_halves() -> None:
    examples = [Example(f"e{i}", "d", i, f"d{i}", text="Words.") for i in range(6)]
    split = Split(examples[:2], examples[2:4], examples[4:], "row", 0)
    leaks = Leaks(held_out=[Leak(i, "field", 1.0, "d") for i in ("e3", "e4")])
    clean = proof.without_leaks(split, leaks)
    assert [[e.id for e in part] for part in (clean.train, clean.select, clean.test)] == [["e0", "e1"], ["e2"], ["e5"]]


def test_the_verdict_is_concluded_again_from_the_evidence_without_any_model(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Run(shutil.copytree(finished.path, tmp_path / "copy"))
    shutil.rmtree(copy.path / "adapter")
    before = read_json(copy.folder.results)
    write_json(copy.folder.results, {name: part for name, part in before.items() if name != "verdict"} | {"gain": {}})
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    copy.conclude()
    assert read_json(copy.folder.results) == before


def test_a_score_that_was_changed_by_hand_is_not_concluded_from(finished: Run, tmp_path: Path) -> None:
    copy = Run(shutil.copytree(finished.path, tmp_path / "copy"))
    scores = copy.folder.evidence / "scores-adapted.jsonl"
    scores.write_text(scores.read_text().replace('"nll": ', '"nll": 0', 1))
    with pytest.raises(RunError, match=r"scores-adapted\.jsonl is not what the run wrote"):
        copy.conclude()
    scores.unlink()
    with pytest.raises(RunError, match=r"scores-adapted\.jsonl is not what the run wrote"):
        copy.conclude()


def test_the_strength_that_was_chosen_is_the_one_that_is_measured_and_talked_to(finished: Run, tmp_path: Path) -> None:
    assert finished.dial == finished.results["dial"]["chosen"]
    assert read_json(finished.path / "evidence" / "facts.json")["dial"] == finished.dial
    copy = Run(shutil.copytree(finished.path, tmp_path / "copy"))
    write_json(copy.folder.results, {**finished.results, "dial": {"chosen": 0.0}})
    request = "What is the 3. term?"
    assert copy.model().generate(request, 12) == copy.model().generate(request, 12, adapted=False)


def test_the_config_is_the_resolved_settings(finished: Run, rows: Path, model: Path) -> None:
    found = from_toml((finished.path / "config.toml").read_text())
    assert found.lr > 0
    assert found.replay == 0.15  # of questions and answers
    given = Settings(data=(str(rows),), model=str(model), **OPTIONS)
    assert replace(found, lr=0.0, threads=0, replay=given.replay) == replace(given, threads=0)


def test_the_plan_is_said_before_and_what_the_set_can_show(told: Told, finished: Run) -> None:
    assert finished
    assert any(line.startswith("plan: 4,000 tokens in 16 steps, 15% of them replay") for line in told.lines)
    assert any("held out, half of them for the verdict" in line for line in told.lines)
    assert any("can show a gain of about" in line for line in told.lines)


def test_what_the_reader_is_shown_is_what_each_model_answers_to_that_request(finished: Run) -> None:
    talker = finished.model()
    plan = read_json(finished.folder.plan)["evidence"]
    assert min(plan["requests"], plan["choosing"]["requests"]) > 0  # which are answered in the same batch
    shown = [sample for sample in finished.results["samples"] if sample["kind"] == "field"]
    assert len(shown) == measure.SHOWN_FIELD
    for sample in shown:
        for arm in ("base", "adapted"):
            said = talker.generate(sample["request"], measure.ANSWER_TOKENS, adapted=arm == "adapted")
            assert sample[arm] == said, (arm, sample["request"])
    assert len({sample["adapted"] for sample in shown}) > 1


def test_a_run_by_minutes_trains_what_is_planned_once_the_base_was_measured(
    model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, seen = Told(), []

    def fewer(first: Plan, settings: Settings, sizes: Sizes, seconds: float, base_s: float) -> Plan:
        seen.append((first.train_tokens, sizes.kind, settings.minutes * 60 - seconds, base_s))
        return replace(first, train_tokens=1536, steps=3, step_tokens=512, replay=replace(first.replay, answers=2))

    monkeypatch.setattr(planning, "replan", fewer)
    run = adapt(str(rows), model=str(model), out=tmp_path / "run", progress=told, **{**OPTIONS, "tokens": 0})
    ((first_tokens, kind, elapsed, base_s),) = seen
    assert kind == "answers"
    assert 0 < base_s < elapsed < run.results["cost"]["total_s"]
    assert any(line.startswith(f"plan: {first_tokens:,} tokens in ") for line in told.lines)
    assert any(line.endswith("1,536 tokens in 3 steps fit the time that is left") for line in told.lines)
    assert read_json(run.folder.plan)["train_tokens"] == 1536
    assert run.results["training"]["steps"] == 3
    assert len(read_json(run.folder.evidence / "replay.json")["answers"]) <= 2


def test_the_model_of_a_run_talks_as_base_and_as_adapted(finished: Run) -> None:
    talker = finished.model()
    adapted, base = (talker.generate("What is the 3. term?", 12, adapted=which) for which in (True, False))
    assert adapted != base
    assert finished.model(dial=0.0).generate("What is the 3. term?", 12) == base


def test_the_saved_adapter_scores_what_the_evidence_says(finished: Run) -> None:
    """The file that is shipped is the model that was measured."""
    from metier.evidence.score import score_documents
    from metier.sources.read import read_corpus

    talker = finished.model()
    records = read_jsonl(finished.path / "evidence" / "scores-adapted.jsonl")
    expected = {r["item"]: r["nll"] for r in records if r["slice"] == "field"}
    examples = [e for e in read_corpus(finished.settings.data).examples if e.id in expected]
    documents = [d for e in examples for d in talker.base.encoder.encode(e)]
    found = score_documents(PackReader(talker.model), documents, 250, lambda _: None)
    assert {item: s.nll for item, s in found.items()} == pytest.approx(expected, rel=1e-5)


def test_the_same_seed_and_tokens_give_a_byte_identical_adapter(
    finished: Run, model: Path, rows: Path, tmp_path: Path
) -> None:
    """Also with other minutes, without evidence and without the answers of the first run."""
    again = adapt(
        str(rows), model=str(model), out=tmp_path / "again", **{**OPTIONS, "minutes": 5.0, "evidence": "none"}
    )
    name = "adapter/adapter_model.safetensors"
    assert (again.path / name).read_bytes() == (finished.path / name).read_bytes()
    assert again.verdict["decision"] == "cannot_tell"
    assert "gain" not in again.results
    assert state(again.path) == "done"


def test_a_run_that_looked_for_its_rate_is_the_run_at_that_rate(
    model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged on the select half only; what it chose is in config.toml, and costs and choice are in the report."""
    monkeypatch.setattr(probing, "STEPS", 2)
    monkeypatch.setattr(probing, "MAX_SHARE", 9.0)
    judged: list[str] = []
    real = measure.Judge

    def watched(reader: Any, held_out: Any, *others: Any) -> Any:
        judged.extend(document.item for document in held_out)
        return real(reader, held_out, *others)

    monkeypatch.setattr(measure, "Judge", watched)
    told = Told()
    options = OPTIONS | {"step_tokens": 250}
    run = adapt(str(rows), model=str(model), out=tmp_path / "looked", progress=told, **options)
    facts = run.results["training"]
    assert len(facts["lr_probe"]["tried"]) == 3
    tried_s = facts["lr_probe"]["lost_seconds"] + facts["lr_probe"]["judging_seconds"]
    assert run.results["cost"]["train_s"] == pytest.approx(facts["replay_seconds"] + facts["seconds"] + tried_s)
    assert facts["lr_probe"]["chosen"] == facts["lr"] == from_toml((run.path / "config.toml").read_text()).lr
    assert [s["step"] for s in read_jsonl(run.path / "metrics.jsonl")] == list(range(1, facts["steps"] + 1))
    assert set(judged) == set(read_json(run.path / "splits.json")["select"])
    assert read_json(run.path / "plan.json")["probe"]["steps"] == 2
    assert [line for line in told.lines if line.startswith(f"learning rate {facts['lr']:g} by trying 3 for 2 steps")]
    assert "3 rates tried for 2 steps" in re.sub(r"\s", " ", (run.path / "report.html").read_text(encoding="utf-8"))
    given = adapt(str(rows), model=str(model), out=tmp_path / "given", lr=facts["lr"], **options)
    assert "lr_probe" not in given.results["training"]
    one, two = (r.path / "adapter" / "adapter_model.safetensors" for r in (run, given))
    assert one.read_bytes() == two.read_bytes()


def test_a_run_without_a_name_is_called_after_its_data_and_the_time() -> None:
    assert default_folder("pack:clinical").parent == Path("runs")
    assert default_folder("pack:clinical").name.startswith("clinical-20")
    assert default_folder("some/docs/").name.startswith("docs-20")


def test_a_run_that_is_not_one_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has no config\.toml"):
        Run(tmp_path).settings  # noqa: B018
    assert repr(Run(tmp_path)) == f"Run({str(tmp_path)!r})"
    assert RunFolder(tmp_path).path == tmp_path
