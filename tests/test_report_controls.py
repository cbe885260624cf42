"""The panel of the controls."""

from metier.evidence.full.controls import controls
from metier.report import figures
from metier.report.panels.controls import controls_panel
from panels import rendered
from test_evidence_controls import judged, scores


def plain(text: str) -> str:
    return text.replace(figures.SPACE, " ")


def test_the_adapted_model_and_its_controls_are_drawn_on_one_axis() -> None:
    panel = controls_panel(judged(0.8, 0.95, 1.1))
    assert panel is not None
    rows = panel["chart"]["rows"]
    assert [row.name for row in rows] == ["Adapted model", "Control: placebo", "Control: shuffled"]
    assert rows[1].note == "text of another field (software)"
    assert 'class="interval kept"' in rows[0].picture
    assert 'class="interval lost"' in rows[2].picture
    assert panel["figure"] == "2 of 2"
    assert plain(panel["documents"]) == "30 held-out documents"


def test_each_control_has_its_gain_its_share_and_its_outcome() -> None:
    panel = controls_panel(judged(0.9, 0.8, 0.95))
    assert panel is not None
    placebo, shuffled = panel["controls"]
    assert placebo[0] == "Placebo"
    assert placebo[-1] == "not beaten"
    assert shuffled[-1] == "beaten"
    assert placebo[4].startswith(figures.MINUS)
    assert plain(panel["teach"]).split("Here ")[1].startswith("text of another field (software) alone gave 2")


def test_the_fragment_shows_sentence_chart_and_method_or_says_that_nothing_was_run() -> None:
    panel = controls_panel(judged(0.8, 0.95, 0.9))
    assert panel is not None
    structure = rendered("controls", panel)
    for part in (panel["sentence"], panel["method"], panel["teach"]):
        assert part in structure.text
    assert ("section", {"id": "controls"}) in structure.tags
    assert "No control was trained in this run" in rendered("controls", None).text
    assert controls_panel(None) is None


def test_what_could_not_be_decided_is_shown_without_a_picture_that_needs_intervals() -> None:
    one = controls_panel(judged(0.8, 0.95, 0.9, n=1))
    assert one is not None
    assert one["chart"] is None
    assert "too few" in rendered("controls", one).text
    none = controls_panel(controls(scores(1.0, 0), scores(0.8, 1), [], []))
    assert none is not None
    assert none["figure"] is None
    assert "No control was trained" in rendered("controls", none).text
    refused = controls_panel({"controls": [], "passed": None, "sentence": "No control was trained: why."})
    assert "No control was trained: why." in rendered("controls", refused).text
