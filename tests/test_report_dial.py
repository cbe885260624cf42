"""The panels of the dial and of overdone training: their words, tables and pictures."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from jinja2 import Environment, StrictUndefined

import metier.report
from metier.evidence.dial.choose import choose_dial
from metier.evidence.dial.confirm import confirmation
from metier.evidence.overdone import overdone
from metier.report import figures
from metier.report.panels.dial import dial_panel
from metier.report.panels.overdone import overdone_panel

ROOM = Path(metier.report.__file__).parent


@pytest.fixture(scope="module")
def records(sim: ModuleType) -> list[dict[str, Any]]:
    early = sim.documents(sim.Truth(g=0.3, h=0.3, k=0.003), 48, seed=2, strengths=(0.5, 1.0), step=50)
    return sim.documents(sim.TRUTHS["text binds: budget at 0.71"], 48, seed=2) + [r for r in early if r["alpha"]]


@pytest.fixture(scope="module")
def dial(records: list[dict[str, Any]]) -> dict[str, Any]:
    return choose_dial(records, 0.01)


def page(name: str, panel: dict[str, Any] | None) -> str:
    """The fragment of a panel, with the macros of the page in scope."""
    macros = (ROOM / "page.html").read_text(encoding="utf-8").split("<!DOCTYPE")[0]
    fragment = (ROOM / "panels" / f"{name}.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(macros + fragment).render({name: panel})


def plain(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).replace(figures.SPACE, " ").split())


def positions(svg: str, pattern: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(pattern, svg)]


def test_the_panel_says_the_strength_first_and_lists_what_was_measured(dial: dict[str, Any]) -> None:
    panel = dial_panel(dial)
    assert panel is not None
    assert panel["sentence"] == dial["sentence"]
    assert panel["figure"] == figures.fixed(dial["chosen"], 2)
    names = [plain(str(row[0])) for row in panel["rows"]]
    assert names == ["0.25", "0.50", f"{dial['chosen']:.2f} chosen, from the curve", "0.75", "1.00", "1.25"]
    assert [plain(str(row[-1])) for row in panel["rows"]] == ["shown"] * 3 + ["beyond"] * 3


def test_figures_of_the_table_are_per_cent_of_the_bases_bits(dial: dict[str, Any]) -> None:
    panel = dial_panel(dial)
    assert panel is not None
    full = next(row for row in panel["rows"] if row[0] == "1.00")
    assert full[1] == f"{100 * dial['at_full']['gain'] / dial['base']['field']:.1f}"
    assert full[3] == f"{100 * dial['at_full']['forgetting'] / dial['base']['text']:.2f}"


def test_a_strength_within_the_margins_but_not_shown_to_be_is_not_called_beyond(dial: dict[str, Any]) -> None:
    row = dial["curve"][3]
    unsure = {**dial, "curve": [{**row, "measured": True, "feasible": False}]}
    panel = dial_panel(unsure)
    assert panel is not None
    assert plain(str(panel["rows"][0][-1])) == "not shown"


def test_the_picture_holds_the_curve_the_points_and_the_budget(dial: dict[str, Any]) -> None:
    panel = dial_panel(dial)
    assert panel is not None
    svg = str(panel["chart"])
    assert 'role="img" aria-label="Field gained against general text forgotten' in svg
    measured = positions(svg, r'class="mark none" cx="([\d.]+)%" cy="([\d.]+)"')
    assert len(measured) == 5
    assert [x for x, _ in measured] == sorted(x for x, _ in measured)
    assert len(positions(svg, r'class="mark unsure" cx="([\d.]+)%" cy="([\d.]+)"')) == 2
    ring = positions(svg, r'class="interval kept" fill="none" cx="([\d.]+)%" cy="([\d.]+)"')
    assert measured[1] < ring[0] < measured[2]
    budget = float(re.findall(r'class="rule margin" x1="([\d.]+)%"', svg)[0])
    assert ring[0][0] < budget < measured[3][0]
    corners = re.findall(r'class="line"[^>]*points="([^"]+)"', svg)[0].split()
    assert len(corners) == len(dial["curve"])
    for figure in re.findall(r'(?:points|c[xy]|[xy]\d?)="([^"]+)"', svg):
        assert "nan" not in figure


def test_one_step_draws_no_trajectory(sim: ModuleType, dial: dict[str, Any]) -> None:
    alone = dial_panel(choose_dial(sim.documents(sim.Truth(), 24, seed=1), 0.01))
    both = dial_panel(dial)
    assert alone is not None
    assert both is not None
    assert (alone["has_earlier_steps"], both["has_earlier_steps"]) == (False, True)
    assert 'stroke-dasharray="2 3" points=""' in str(alone["chart"])
    assert 'stroke-dasharray="2 3" points=""' not in str(both["chart"])


def test_the_fragment_shows_everything_there_is_to_say(dial: dict[str, Any]) -> None:
    text = {"name": "text", "diff": 0.01, "upper_95": 0.012}
    gain = {"diff": 0.17, "ci_low": 0.15, "ci_high": 0.19, "n_documents": 50}
    confirmed = {
        **dial,
        "confirmation": confirmation(dial, gain, {"passed": True, "slices": [text]}),
        "tilt": {"sentence": "Apply it evenly: <b>."},
    }
    said = plain(page("dial", dial_panel(confirmed)))
    assert "48 documents of the field, 48 of general text" in said
    assert "Confirmed: on 50 documents that chose nothing" in said
    assert "Apply it evenly: &lt;b&gt;." in said
    assert re.search(r"Here half strength has 7\d % of the gain and 2\d % of the forgetting of full strength", said)
    assert "Rings: earlier steps" in said
    assert "for want of a decision" not in said


def test_a_dial_that_was_not_turned_says_why_and_draws_nothing() -> None:
    html = page("dial", dial_panel(choose_dial([], 0.01)))
    assert "The dial was not turned: the held-out field and general text" in html
    assert "for want of a decision" in html
    assert "<svg" not in html
    assert "<table" not in html
    assert dial_panel(None) is None
    assert "measured at full strength only" in page("dial", None)


def test_detectors_are_listed_with_what_fired_and_what_was_not_measured(records: list[dict[str, Any]]) -> None:
    part = overdone(records, entropy={"base": 3.0, "adapted": 2.0})
    panel = overdone_panel(part)
    assert panel is not None
    outcomes = {plain(str(row[0])).split()[0]: plain(str(row[-1])) for row in panel["rows"]}
    assert outcomes["Collapse"] == "fired"
    assert outcomes["Overshoot"] == "quiet"
    assert outcomes["Drift"] == "not measured"
    said = plain(page("overdone", panel))
    assert part["sentence"] in said
    assert "Amber : 1 of 5 measured detectors fired; there are 8." in said
    assert "Here it shows in this: Its entropy on general text fell by 33 %." in said


def test_nothing_measured_is_said_to_be_so() -> None:
    panel = overdone_panel(overdone([]))
    assert panel is not None
    assert panel["figure"] == "Cannot tell"
    assert "None of the 0 signs" not in page("overdone", panel)
    assert overdone_panel(None) is None
    assert "Nothing was measured" in page("overdone", None)
