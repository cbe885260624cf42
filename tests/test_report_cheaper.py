"""The panels of the cheaper arms, of the controls and of the model from scratch."""

from typing import Any

import pytest

from metier.evidence.full.answer_quality import answer_quality
from metier.evidence.full.cheaper import cheaper
from metier.report import figures
from metier.report.panels.cheaper import cheaper_panel
from panels import rendered
from test_evidence_cheaper import ADAPTED, BASE, COSTS, NGRAM, NOTHING, RETRIEVAL, arms, scores

BITS = {NOTHING: 1.5, BASE: 1.2, RETRIEVAL: 1.0, NGRAM: 1.1, ADAPTED: 0.8}


def plain(text: str) -> str:
    return text.replace(figures.SPACE, " ")


def panel_of(**bits: float) -> dict[str, Any]:
    panel = cheaper_panel(cheaper(arms({**BITS, **bits}), COSTS))
    assert panel is not None
    return panel


def test_arms_are_drawn_from_the_best_down_without_the_base_they_are_compared_with() -> None:
    panel = panel_of()
    assert [row.name for row in panel["chart"]["rows"]] == [
        "Adapted model",
        "Base model with retrieval",
        "Base model mixed with counted n-grams",
        "Base model, told nothing",
    ]
    assert [row.emphasis for row in panel["chart"]["rows"]] == [True, False, False, False]
    assert plain(panel["chart"]["rows"][1].note) == "600 tokens a query"
    assert 'class="interval lost"' in panel["chart"]["rows"][3].picture


def test_the_table_says_what_each_arm_was_told_and_which_is_recommended() -> None:
    rows = {row[0]: row for row in panel_of()["arms"]}
    assert "Adapted model (recommended)" in rows
    assert plain(rows["Base model with retrieval"][1]) == "3 passages"
    assert rows["Base model"][1] == figures.MISSING
    assert rows["Base model"][3] == "0.000"


def test_the_figure_is_the_lead_over_the_best_cheaper_arm() -> None:
    found = panel_of()["figure"]
    assert found["ahead"].startswith("+0.")
    assert (found["trained"], found["rival"]) == ("adapted model", "base model with retrieval")
    assert plain(found["documents"]) == "30 documents"


def test_break_even_is_said_where_training_saves_tokens() -> None:
    assert "after about 300 queries" in panel_of()["break_even"]
    assert panel_of(**{RETRIEVAL: 1.4, NGRAM: 1.3})["break_even"] is None


def test_the_side_note_has_the_figures_of_the_run() -> None:
    panel = panel_of()
    base, told = (
        next(row for row in panel["arms"] if row[0] == name)[2] for name in ("Base model", "Base model with retrieval")
    )
    assert (
        f"{float(base):.2f} as it is normally asked and {float(told):.2f} as the base model with retrieval"
        in panel["teach"]
    )


def test_answers_in_words_have_a_table_of_their_own() -> None:
    records = [
        {"arm": arm, "item": f"q{i}", "document": f"d{i}", "reference": "red skin", "answer": answer}
        for arm, answer in ((BASE, "red"), (ADAPTED, "red skin"))
        for i in range(4)
    ]
    part = {**cheaper(arms(BITS), COSTS), "answers": answer_quality(records, BASE)}
    panel = cheaper_panel(part)
    assert panel is not None
    assert plain(panel["answers"]["n"]) == "4 questions"
    assert plain(" | ".join(panel["answers"]["rows"][1][:4])) == "Adapted model | 100 % | 1.00 | +0.33"
    text = rendered("cheaper", panel).text
    assert "Answers in words, 4" in text
    assert "McNemar" in text


def test_the_fragment_shows_sentence_figure_table_and_method() -> None:
    panel = panel_of()
    structure = rendered("cheaper", panel)
    for part in (panel["sentence"], panel["method"], panel["teach"], panel["break_even"], panel["figure"]["interval"]):
        assert part in structure.text
    assert ("section", {"id": "cheaper"}) in structure.tags
    assert ("aside", {"class": "teach"}) in structure.tags


@pytest.mark.parametrize("n", [0, 1, 9])
def test_what_could_not_be_decided_has_a_sentence_and_no_figure(n: int) -> None:
    panel = cheaper_panel(cheaper([r for r in arms(BITS) if int(r["item"].split()[1]) < n], COSTS))
    assert panel is not None
    assert panel["figure"] is None
    assert "Cannot tell" in rendered("cheaper", panel).text
    refused = cheaper_panel({"arms": [], "recommended": None, "sentence": "Cannot tell: no text."})
    assert "Cannot tell: no text." in rendered("cheaper", refused).text


def test_without_measurement_the_fragment_says_so() -> None:
    assert cheaper_panel(None) is None
    assert "not measured in this run" in rendered("cheaper", None).text


def test_an_arm_that_nobody_measured_changes_nothing() -> None:
    only_base = cheaper_panel(cheaper(scores(BASE, 1.0), COSTS))
    assert only_base is not None
    assert only_base["chart"] is None
    rendered("cheaper", only_base)
