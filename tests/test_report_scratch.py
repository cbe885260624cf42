"""The panel of the model from scratch, and its picture."""

import re

import pytest

from metier.evidence.full.scratch import scratch
from metier.report import chart_scratch, figures
from metier.report.panels.scratch import scratch_panel
from panels import rendered
from test_evidence_scratch import FACTS, SIZES, records


def plain(text: str) -> str:
    return text.replace(figures.SPACE, " ")


def test_every_model_and_floor_has_its_row() -> None:
    panel = scratch_panel(scratch(records(2.5, 0.8), SIZES, FACTS))
    assert panel is not None
    assert [row[0] for row in panel["rows"]] == [
        "From random weights, 2,000 tokens",
        "From random weights, 4,000 tokens",
        "From random weights, 8,000 tokens",
        "Counted n-grams",
        "Compressor",
        "Base",
        "Adapted",
    ]
    assert panel["rows"][4][2] == "2.100"


def test_the_multiple_is_marked_as_extrapolated() -> None:
    panel = scratch_panel(scratch(records(2.5, 0.8), SIZES, FACTS))
    assert panel is not None
    assert plain(panel["multiple"]).startswith("Extrapolated, not measured: by D_T = 1.9e4")
    assert "would need about 260 MB of such text, 260 times the 1 MB it had." in plain(panel["multiple"])


def test_dots_lie_at_their_tokens_and_bits_and_the_lines_are_named() -> None:
    sizes = [{"tokens": 1000, "bits": 3.0}, {"tokens": 2000, "bits": 2.0}]
    svg = str(chart_scratch.sizes_chart(sizes, [("base", 1.0), ("adapted", 0.95)]))
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle[^>]*cx="([\d.]+)%" cy="([\d.]+)"', svg)]
    assert dots[0][0] < dots[1][0]
    assert dots[0][1] < dots[1][1]  # more bits stand higher
    zero, first, second = (x for x in (0.08 / 1.16 * 100, *(x for x, _ in dots)))
    assert second - zero == pytest.approx(2 * (first - zero), abs=0.05)
    labels = [float(y) for y in re.findall(r'x="100%" y="([\d.]+)"', svg)]
    assert labels[1] - labels[0] == pytest.approx(chart_scratch.LABEL_HEIGHT)  # set apart, close as the lines are
    assert "From random weights: 3.00 after 1,000 tokens, 2.00 after 2,000 tokens" in svg


def test_the_fragment_shows_all_parts_or_says_that_nothing_was_run() -> None:
    panel = scratch_panel(scratch(records(2.5, 0.8), SIZES, FACTS))
    assert panel is not None
    structure = rendered("scratch", panel)
    for part in (panel["sentence"], panel["multiple"], panel["method"], panel["teach"], panel["figure"]["interval"]):
        assert part in structure.text
    assert ("section", {"id": "scratch"}) in structure.tags
    assert "No model was trained from random weights in this run" in rendered("scratch", None).text
    assert scratch_panel(None) is None


def test_floors_alone_are_shown_without_a_picture() -> None:
    for part in (scratch(records(2.5, 0.8), [], FACTS), scratch([], SIZES, FACTS)):
        panel = scratch_panel(part)
        assert panel is not None
        assert panel["chart"] is None
        assert panel["sentence"] in rendered("scratch", panel).text
