import re
from importlib import resources
from itertools import pairwise
from xml.dom import minidom

import pytest
from jinja2 import Environment, StrictUndefined

from metier.evidence.full.stability import stability
from metier.evidence.sufficiency.forecast import sufficiency
from metier.report.chart_sufficiency import short_count
from metier.report.panels.stability import stability_panel
from metier.report.panels.sufficiency import sufficiency_panel
from test_evidence_stability import gain
from test_evidence_sufficiency import FULL, SIZES, falls, grows, trajectory


def rendered(name, panel):
    """The fragment with the macros of the page in scope, as it will be included."""
    package = resources.files("metier.report")
    macros = package.joinpath("page.html").read_text(encoding="utf-8").partition("<!DOCTYPE")[0]
    fragment = package.joinpath("panels", f"{name}.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(macros + fragment).render(**{name: panel})


@pytest.fixture(scope="module")
def rising():
    return sufficiency(trajectory(grows), FULL, 2 * FULL)


def test_the_panel_shows_every_size_the_hidden_one_and_the_forecast(rising):
    panel = sufficiency_panel(rising)
    assert [row[0] for row in panel["rows"]] == [
        "12,500",
        "25,000",
        "50,000",
        "100,000",
        "100,000",
        "200,000",
        "400,000",
    ]
    assert [row[2] for row in panel["rows"]][3:] == [
        "measured",
        "hidden, then foretold",
        "foretold",
        "foretold, rough",
    ]
    assert [name for name, _ in panel["hidden"]] == ["this curve", "a line over log tokens", "the last size again"]
    assert panel["hidden"][2][1].startswith("−")  # the last size again is too low on a rising curve
    assert panel["read"] == "100,000 tokens of the field were read, of 200,000 that there are"
    assert panel["reached"] is None


def test_passes_are_told_where_the_text_was_read_more_than_once():
    panel = sufficiency_panel(sufficiency(trajectory(grows), FULL, FULL // 4))
    assert panel["read"].endswith("(4.0 passes)")


def test_the_picture_holds_the_points_the_curve_and_the_fan(rising):
    chart = str(sufficiency_panel(rising)["chart"])
    minidom.parseString(chart)
    assert chart.count('class="mark kept"') == len(SIZES)
    assert chart.count('class="mark unsure"') == 1
    assert chart.count("<polygon") == 1
    assert chart.count("<polyline") == 2
    assert re.findall(r'text-anchor="middle">([^<]*)<', chart) == ["400k", "200k", "100k", "50k", "25k", "12.5k"]
    label = re.search(r'aria-label="([^"]*)"', chart)[1]
    assert "after 12,500" in label
    assert "foretold" in label


def test_points_lie_where_their_gains_are(rising):
    chart = str(sufficiency_panel(rising)["chart"])
    marks = re.findall(r'<svg x="([\d.]+)%" y="([\d.]+)" overflow="visible"><circle class="mark kept"', chart)
    across, down = zip(*((float(x), float(y)) for x, y in marks), strict=True)
    steps = [b - a for a, b in pairwise(across)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.03)  # each doubling is one step
    assert steps[0] > 10
    gains = [size["gain"] for size in rising["sizes"]]
    slopes = [(down[i + 1] - down[i]) / (gains[i + 1] - gains[i]) for i in range(3)]
    assert slopes == pytest.approx([slopes[0]] * 3, rel=0.02)
    assert slopes[0] < 0


def test_where_no_curve_was_drawn_the_points_are_shown_alone():
    for records in (trajectory(falls), trajectory(grows, n=1), trajectory(grows, sizes=SIZES[-1:])):
        panel = sufficiency_panel(sufficiency(records, FULL, FULL))
        assert panel["added"] is None
        assert panel["hidden"] == []
        assert "<polygon" not in panel["chart"]
        assert "Cannot tell" in rendered("sufficiency", panel)


def test_labels_that_would_touch_are_left_out():
    close = sufficiency(trajectory(grows, sizes=(48_000, 50_000, FULL)), FULL, FULL)
    assert re.findall(r'text-anchor="middle">([^<]*)<', sufficiency_panel(close)["chart"])[-1] == "50k"
    assert [short_count(n) for n in (900, 12_500, 3_200_000)] == ["900", "12.5k", "3.2M"]


def test_the_section_reads_as_the_page_needs_it(rising):
    page = rendered("sufficiency", sufficiency_panel(rising))
    minidom.parseString(page.strip().replace("&#39;", "'"))
    assert page.strip().startswith('<section id="sufficiency">')
    assert rising["sentence"].split(".")[0] in page
    assert '<aside class="teach">' in page
    assert "The forecast put to the test" in page


def test_what_was_not_measured_is_said():
    assert sufficiency_panel(None) is sufficiency_panel({}) is None
    assert "was not measured in this run" in rendered("sufficiency", None)
    assert stability_panel(None) is None
    assert "Only one seed was run" in rendered("stability", None)


def test_seeds_are_listed_with_the_smallest_difference_that_means_anything():
    panel = stability_panel(stability({seed: gain(0.2 + 0.01 * seed) for seed in range(3)}))
    assert [row[0] for row in panel["rows"]] == ["0", "1", "2"]
    assert panel["rows"][0][1].startswith("20.00")
    assert panel["smallest"].startswith("7.58")
    page = rendered("stability", panel)
    assert "7.58" in page
    assert panel["elsewhere"] in page


def test_one_seed_has_no_smallest_difference():
    page = rendered("stability", stability_panel(stability({0: gain(0.2)})))
    assert "One run was made" in page
    assert "means anything" not in page
