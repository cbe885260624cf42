"""report.html as a browser and a reader meet it."""

import json
import math
import re
from pathlib import Path

import pytest

from metier.report import write_report
from metier.runs import Json, RunFolder, write_json, write_text
from test_report_runs import SENTENCES, make_run, page_of, parsed


def change_results(run: RunFolder, **parts: Json) -> None:
    results = json.loads(run.results.read_text(encoding="utf-8"))
    run.results.write_text(json.dumps({**results, **parts}), encoding="utf-8")  # NaN passes, as from a stranger


@pytest.mark.parametrize(
    ("decision", "word"),
    [("adapted", "Adapted"), ("no_gain", "No gain"), ("forgot", "Forgot"), ("cannot_tell", "Cannot tell")],
)
def test_the_verdict_is_one_word_then_its_sentence_and_its_reasons(tmp_path: Path, decision: str, word: str) -> None:
    text = parsed(page_of(make_run(tmp_path, decision))).text
    sentence = SENTENCES[decision].removeprefix(f"{word}. ")
    assert sentence in text
    assert f"{word}. " not in text  # the word is the headline and is not said twice
    assert text.index(f" {word}\n") < text.index(sentence) < text.index("retention: 9 slices at a margin of 1 %")


def test_every_tag_is_closed_in_turn(tmp_path: Path) -> None:
    for decision in SENTENCES:
        structure = parsed(page_of(make_run(tmp_path, decision)))
        assert structure.open == []
        assert [tag for tag, _ in structure.tags].count("h1") == 1


def test_the_page_asks_for_nothing_beyond_itself(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path))
    tags = parsed(page).tags
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & {tag for tag, _ in tags}
    assert not [
        (tag, name)
        for tag, attributes in tags
        for name in attributes
        if name in ("src", "href", "xlink:href", "srcset")
    ]
    assert not re.search(r"https?://|url\(|@import|//", page)
    assert "default-src 'none'" in page


def test_text_of_models_and_of_data_is_never_markup(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    run = make_run(tmp_path)
    results = json.loads(run.results.read_text(encoding="utf-8"))
    results["gain"]["groups"][0]["name"] = attack
    results["retention"]["slices"][0]["name"] = results["retention"]["slices"][0]["note"] = attack
    results["data"]["formats"][0]["source"] = attack
    results["verdict"]["sentence"] = attack
    results["samples"] = [{"kind": "field", "request": attack, "reference": attack, "base": attack, "adapted": attack}]
    write_json(run.results, results)
    write_json(run.ledger, {"bytes": {attack: 5, "trained": 5}, "rejected": [{"where": attack, "why": attack}]})
    write_text(run.config, attack)
    structure = parsed(page_of(run))
    assert "script" not in {tag for tag, _ in structure.tags}
    assert "img" not in {tag for tag, _ in structure.tags}
    assert not [name for _, attributes in structure.tags for name in attributes if name.startswith("on")]
    assert structure.text.count(attack) >= 9


def test_numbers_that_are_not_finite_are_shown_as_not_measured(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    results = json.loads(run.results.read_text(encoding="utf-8"))
    results["gain"].update(ci_low=math.nan, detectable=math.inf)
    results["retention"]["slices"][0].update(lower_95=-math.inf, upper_95=None, passed=None)
    change_results(
        run, gain=results["gain"], retention=results["retention"], model={"base": "m", "weights_moved": math.nan}
    )
    run.metrics.write_text(
        '{"step": 1, "loss": NaN, "lr": 0.1}\n{"step": 2, "loss": 2.0, "lr": 0.1}\n', encoding="utf-8"
    )
    page = page_of(run)
    assert not re.search(r"\b(nan|inf|infinity)\b", page, re.IGNORECASE)
    assert "None" not in page
    assert "no interval was computed" in page
    assert "1 without bounds or margin is in the table only" in parsed(page).text


def test_characters_that_a_page_cannot_hold_are_replaced(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    change_results(run, samples=[{"kind": "general", "request": "r", "base": "a\x00b\ud800c", "adapted": "א"}])
    assert "a\ufffdb\ufffdc" in page_of(run)


def test_a_folded_answer_is_whole(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    answer = " ".join(f"word{i}" for i in range(400))
    change_results(run, samples=[{"kind": "field", "request": "r", "base": answer, "adapted": answer}])
    structure = parsed(page_of(run))
    assert re.sub(r"[\s…]|The rest, [\d,]+ characters", "", structure.text).count(answer.replace(" ", "")) == 2
    assert "Adapted, the same words" in structure.text


def test_samples_of_the_field_come_first_and_the_rest_is_folded(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    kinds = ["general"] * 9 + ["field"] * 2
    change_results(
        run,
        samples=[{"kind": kind, "request": f"{kind} {i}", "base": "x", "adapted": "y"} for i, kind in enumerate(kinds)],
    )
    text = parsed(page_of(run)).text
    assert text.index("field 9") < text.index("general 0") < text.index("3 more") < text.index("general 8")


def test_the_page_replaces_an_older_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    before = {path.name for path in run.path.iterdir()}
    write_text(run.report, "old")
    assert write_report(run) == run.report
    assert run.report.read_text(encoding="utf-8") != "old"
    assert {path.name for path in run.path.iterdir()} == before | {"report.html"}
