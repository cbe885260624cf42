"""The panel on terms: its figures, its rows and its words."""

from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, StrictUndefined

import metier
from metier.report import figures
from metier.report.panels.jargon import jargon_panel

REPORT = Path(metier.__file__).parent / "report"


def interval(value: float, half: float = 0.03) -> dict[str, float]:
    return {"value": value, "ci_low": value - half, "ci_high": value + half}


TERM = {"term": "ataxia", "n": 4, "base": 1.5, "adapted": 1.1, "drop": 0.4, "seen": True, "tokens": 3.0}
PART: dict[str, Any] = {
    "decision": "learned",
    "sentence": "It learned terms.",
    "n_terms": 80,
    "n_occurrences": 300,
    "n_controls": 500,
    "same_document": 0.82,
    "term_drop": interval(0.3),
    "control_drop": interval(0.1),
    "beyond": {**interval(0.2), "relative": 0.13, "detectable": 0.05},
    "beyond_by_base": interval(0.17),
    "seen": {"n_terms": 50, "n_occurrences": 200, "beyond": interval(0.3)},
    "unseen": {"n_terms": 30, "n_occurrences": 100, "beyond": interval(0.02)},
    "seen_minus_unseen": interval(0.28, 0.05),
    "pieces": {"rho": 0.4, "p": 0.001, "n_terms": 80},
    "balance": [{"name": "bytes", "terms": 8.0, "controls": 7.5, "gap": 0.2}],
    "best": [TERM],
    "worst": [{**TERM, "term": "<b>", "drop": -0.1, "seen": None}],
    "method": "As it was done.",
}


def panel(**changes: Any) -> dict[str, Any]:
    found = jargon_panel({**PART, **changes})
    assert found is not None
    return found


def rendered(fragment: str, **parts: Any) -> str:
    """A fragment within the macros of the page."""
    macros = (REPORT / "page.html").read_text(encoding="utf-8").partition("<!DOCTYPE html>")[0]
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(macros + (REPORT / "panels" / fragment).read_text(encoding="utf-8")).render(**parts)


def plain(text: str) -> str:
    return text.replace(figures.SPACE, " ")


def test_nothing_measured_is_no_panel() -> None:
    assert jargon_panel(None) is jargon_panel({}) is None
    assert "was not measured" in rendered("jargon.html", jargon=None)


def test_terms_words_like_them_and_the_difference_are_drawn_on_one_axis() -> None:
    rows = panel()["chart"]["rows"]
    assert [row.name for row in rows] == [
        "Terms",
        "Ordinary words like them",
        "Beyond the register",
        "… terms seen in training",
        "… terms never seen",
    ]
    assert [row.value for row in rows] == ["+0.300", "+0.100", "+0.200", "+0.300", "+0.020"]
    assert [("mark kept" in row.picture, "mark unsure" in row.picture) for row in rows[-2:]] == [
        (True, False),
        (False, True),
    ]


def test_rows_without_an_interval_are_left_out() -> None:
    rows = panel(seen={"n_terms": 3, "beyond": None}, unseen={"n_terms": 77, "beyond": None})["chart"]["rows"]
    assert len(rows) == 3
    bare = {"decision": "cannot_tell", "sentence": "Cannot tell.", "n_terms": 3, "n_occurrences": 4, "n_controls": 0}
    found = jargon_panel(bare)
    assert found is not None
    assert found["chart"] is found["figure"] is None
    assert "Cannot tell." in rendered("jargon.html", jargon=found)


@pytest.mark.parametrize(
    ("apart", "said"),
    [
        (interval(0.28, 0.05), "the first gained more by 0.280 bits per byte (95 % interval 0.230 to 0.330)"),
        (interval(-0.28, 0.05), "the first gained less by 0.280 bits per byte"),
        (interval(0.01, 0.05), "no difference can be told from chance (95 % interval −0.040 to 0.060)"),
        (None, "too few on one side"),
    ],
)
def test_seen_and_unseen_terms_are_told_apart_only_where_they_differ(apart: Any, said: str) -> None:
    assert said in plain(panel(seen_minus_unseen=apart)["apart"])


@pytest.mark.parametrize(
    ("rho", "p", "said"), [(0.4, 0.001, "gained more"), (-0.4, 0.001, "less"), (0.4, 0.2, "neither")]
)
def test_a_weak_correlation_is_not_claimed(rho: float, p: float, said: str) -> None:
    assert said in panel(pieces={"rho": rho, "p": p, "n_terms": 80})["pieces"]


def test_the_page_holds_the_figures_the_definitions_and_no_markup_of_the_terms() -> None:
    definitions = [{"term": "ataxia", "base": "A <i>car</i>.", "adapted": "A lack of order."}]
    cloze = {"sentence": "Of 20 questions the adapted model chose right more often."}
    page = plain(rendered("jargon.html", jargon=panel(definitions=definitions, cloze=cloze)))
    for said in (
        "Learned: +0.200</strong> bits per byte beyond ordinary words (95 % interval 0.170 to 0.230; 13 % of the",
        "80 terms, 300 places, 500 ordinary words to compare with; smallest difference this set could have shown 0.050",
        "A lack of order.",
        "82 % of the places are compared with words of their own document",
        "A &lt;i&gt;car&lt;/i&gt;.",
        "&lt;b&gt;",
        "Which term stands here: Of 20 questions",
        "Matched by the base's surprise alone the difference is +0.170 (0.140 to 0.200).".replace("'", "&#39;"),
        "became 0.300 bits per byte easier",
        "As it was done.",
    ):
        assert said in page
    assert page.count("<section") == page.count("</section>") == 1
    assert "<script" not in page
