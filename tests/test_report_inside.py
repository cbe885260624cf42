"""The panel on what changed inside: tints, their meaning, and bars."""

import re
from typing import Any

from metier.report import figures
from metier.report.panels.inside import inside_panel
from test_report_jargon import REPORT, rendered


def word(text: str, before: float, after: float) -> dict[str, Any]:
    return {"text": text, "before": before, "after": after}


PASSAGE = {
    "which": "largest saving",
    "item": "rows:1",
    "document": "d",
    "base": 2.0,
    "adapted": 1.5,
    "words": [
        word("The ", 1.0, 1.2),
        word("ataxia ", 9.0, 4.5),
        word("<of>\n", 3.0, 2.4),
        word("Bern", 1.0, 3.0),
    ],
    "n_words": 6,
    "cut": True,
}
LAYERS = [
    {"layer": 0, "weights": 0.001, "field": 0.01, "general": 0.005},
    {"layer": 1, "weights": 0.004, "field": 0.2, "general": 0.05},
    {"layer": 2, "weights": None, "field": 0.3, "general": None},
]


def panel(**part: Any) -> dict[str, Any]:
    found = inside_panel(part)
    assert found is not None
    return found


def test_nothing_measured_is_no_panel() -> None:
    assert inside_panel(None) is inside_panel({"passages": [], "layers": []}) is None
    assert "was not measured" in rendered("inside.html", inside=None)


def test_words_are_tinted_by_how_much_their_surprise_changed_and_escaped() -> None:
    (passage,) = panel(passages=[PASSAGE])["passages"]
    assert passage["words"] == (
        'The <span class="easier-4" title="9.0 → 4.5 bits">ataxia</span> '
        '<span class="easier-1" title="3.0 → 2.4 bits">&lt;of&gt;</span>\n'
        '<span class="harder-3" title="1.0 → 3.0 bits">Bern</span>'
    )
    assert passage["rest"] == 2


def test_the_sentence_counts_what_became_easier_and_harder_and_names_the_largest() -> None:
    said = panel(passages=[PASSAGE])["sentence"].replace(figures.SPACE, " ")
    assert said.startswith(
        "Of 4 words in 1 held-out passage, 2 became easier for the model by half a bit or more and 1"
    )
    assert "the largest savings are on “ataxia” and “<of>”" in said


def test_bars_share_one_scale_and_only_whole_layers_are_drawn() -> None:
    found = panel(layers=LAYERS)
    assert [row.name for row in found["activations"]["rows"]] == ["Layer 0", "Layer 1"]
    widths = re.findall(r'width="([\d.]+)%" height', found["activations"]["rows"][1].picture)
    assert widths == ["100", "100.00", "25.00"]
    assert [row.value.replace(figures.SPACE, " ") for row in found["weights"]["rows"]] == ["0.10 %", "0.40 %"]
    assert "changed most in layer 2, by 30" in found["sentence"]
    assert "the weights changed most in layer 1" in found["sentence"]


def test_layers_that_did_not_move_have_no_bars() -> None:
    still = [{"layer": 0, "weights": 0.0, "field": 0.0, "general": 0.0}]
    found = panel(layers=still)
    assert found["activations"] is found["weights"] is None
    rendered("inside.html", inside=found)


def test_every_tint_has_a_colour_in_the_style_and_a_place_in_the_legend() -> None:
    style = (REPORT / "page.css").read_text(encoding="utf-8")
    tints = {tint for tint, _ in panel(passages=[PASSAGE])["legend"]}
    assert len(tints) == 8
    assert all(f".{tint} {{" in style for tint in tints)


def test_the_page_shows_passages_legend_and_bars_without_a_script() -> None:
    page = rendered("inside.html", inside=panel(passages=[PASSAGE], layers=LAYERS)).replace(figures.SPACE, " ")
    for said in (
        'class="easier-4"',
        "harder by 0.5 bits or more",
        "Largest saving",
        "2 more words are not shown",
        "Layer 1",
    ):
        assert said in page
    assert page.count("<section") == page.count("</section>") == 1
    assert "<script" not in page
