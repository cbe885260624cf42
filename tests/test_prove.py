"""An adapter of anybody's: what it was trained on is not known, or is named and searched for what is measured."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from metier.models.load import load_base
from metier.models.methods import add_method
from metier.prove import prove
from metier.results import Run
from metier.runs import read_json, read_jsonl
from metier.sources import general
from small import Told
from small_files import pdf
from tiny import save_tiny

WORDS = ["axle", "bolt", "crank", "drum", "flange", "gear", "hub", "joint", "key", "lever", "motor", "nut", "shaft"]


def text_of(i: int) -> str:
    return " ".join(random.Random(i).choices(WORDS, k=40)) + f" number {i}."


def write_texts(path: Path, texts: Sequence[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


pytestmark = pytest.mark.usefixtures("small_general_pack")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), tie_word_embeddings=True)


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapter")
    add_method(load_base(str(model)).model, "lora", 4, 8, 0, 0).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def known(model: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained on three of the texts that are measured, and on an item of the general pack."""
    folder = tmp_path_factory.mktemp("known")
    domain = write_texts(folder / "domain.jsonl", [text_of(i) for i in range(24)])
    trained = [*(text_of(i) for i in (3, 4, 5, 100, 101)), general.measured_texts()[0].text]
    trained_on = write_texts(folder / "trained.jsonl", trained)
    return prove(str(model), domain, adapter, out=folder / "run", trained_on=trained_on, minutes=0.1, threads=1)


def test_measured_texts_that_were_trained_on_are_left_out_of_the_gain(known: Run) -> None:
    leaks, measured = known.results["leaks"], known.results["gain"]["n_documents"]
    assert leaks["held_out"]["leaked"] == 3
    assert {leak["where"] for leak in leaks["held_out"]["listed"]} == {f"trained.jsonl:{line}" for line in (1, 2, 3)}
    items = {r["item"] for r in read_jsonl(known.path / "evidence" / "scores-base.jsonl") if r["slice"] == "field"}
    assert measured == len(items - {leak["item"] for leak in leaks["held_out"]["listed"]}) < len(items)
    assert any("leaves out" in reason for reason in known.verdict["reasons"])


def test_a_general_slice_that_was_trained_on_does_not_pass(known: Run) -> None:
    leaked = known.results["leaks"]["general"]
    assert leaked["leaked"] == 1
    slices = {one["name"]: one for one in known.results["retention"]["slices"]}
    assert slices[leaked["slices"][0]]["passed"] is not True
    assert slices[leaked["slices"][0]]["leaked"] == 1


def test_no_strength_is_advised_by_texts_that_were_trained_on(model: Path, adapter: Path, tmp_path: Path) -> None:
    texts = [text_of(i) for i in range(60)]
    domain, trained_on = write_texts(tmp_path / "domain.jsonl", texts), write_texts(tmp_path / "seen.jsonl", texts[::2])
    run = prove(
        str(model), domain, adapter, out=tmp_path / "run", trained_on=trained_on, evidence="full", minutes=5, threads=1
    )
    select, leaked = set(read_json(run.path / "splits.json")["select"]), {f"domain.jsonl:{i}" for i in range(1, 61, 2)}
    read = {r["item"] for r in read_jsonl(run.path / "evidence" / "dial.jsonl") if r["slice"] == "field"}
    assert select & leaked
    assert read == select - leaked


def test_what_it_was_trained_on_is_kept_in_the_results(known: Run) -> None:
    assert [Path(name).name for name in known.results["model"]["trained_on"]] == ["trained.jsonl"]
    assert (known.results["data"]["examples"], known.results["data"]["documents"]) == (24, 24)
    assert all("seen" in record for record in read_jsonl(known.path / "evidence" / "terms.jsonl"))
    assert read_json(known.path / "splits.json")["train"] == []


def test_the_report_names_what_was_proved_and_claims_nothing_of_what_it_learned_from(known: Run, adapter: Path) -> None:
    page = (known.path / "report.html").read_text(encoding="utf-8")
    assert f"{known.results['model']['trained_on'][0]}, and of the held-out ones 3 stand in there as well." in page
    assert str(adapter) in page
    assert f"A text is a leak with {known.results['leaks']['rule']}." in page
    assert "kept aside" not in page.split('<section id="field">')[1].split("<h3>")[0]


def test_training_files_that_cannot_be_read_are_a_doubt(model: Path, adapter: Path, tmp_path: Path) -> None:
    domain, trained_on = write_texts(tmp_path / "domain.jsonl", [text_of(i) for i in range(12)]), tmp_path / "trained"
    trained_on.mkdir()
    write_texts(trained_on / "texts.jsonl", [text_of(i) for i in range(30, 40)])
    (trained_on / "scan.pdf").write_bytes(pdf([[]]))
    (trained_on / "README.md").write_text("What these texts are.", encoding="utf-8")
    run = prove(str(model), domain, adapter, out=tmp_path / "run", trained_on=str(trained_on), minutes=0.1, threads=1)
    assert (
        "1 file of what it was trained on could not be read whole, so leaks may have been missed."
        in (run.verdict["reasons"])
    )


def test_where_it_is_not_known_no_leak_is_denied(model: Path, adapter: Path, tmp_path: Path) -> None:
    """And a locked file opens with its password, and what was read is said."""
    domain, told = tmp_path / "domain", Told()
    domain.mkdir()
    write_texts(domain / "texts.jsonl", [text_of(i) for i in range(24)])
    (domain / "locked.pdf").write_bytes(pdf([[(72, 700, text_of(50))]], password="tower"))
    run = prove(
        str(model), str(domain), adapter, out=tmp_path / "run", minutes=0.1, threads=1, password="tower", progress=told
    )
    assert any("No leaks were looked for" in reason for reason in run.verdict["reasons"])
    assert run.results["leaks"]["held_out"]["measured"] == 0
    assert "was not named, so it may have learned from them" in (run.path / "report.html").read_text(encoding="utf-8")
    assert run.results["data"]["examples"] == 25
    assert any(line.startswith("texts.jsonl: 24 rows") for line in told.lines)
    assert not any("seen" in record for record in read_jsonl(run.path / "evidence" / "terms.jsonl"))
