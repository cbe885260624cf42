"""Was the dial right: hidden strengths, the test half, and a tilt over the layers."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from metier.evidence.dial.choose import choose_dial
from metier.evidence.dial.confirm import confirmation, leave_one_out, left_out, tilt_advice

Records = list[dict[str, Any]]


# was it right? -------------------------------------------------------------------------------------------------------


def test_hidden_strengths_are_foretold_from_the_others(sim: ModuleType) -> None:
    rows = leave_one_out(sim.documents(sim.Truth(k=0.02), 60, seed=1))
    assert [(row["alpha"], row["figure"]) for row in rows] == [
        (alpha, figure) for alpha in (0.25, 0.5, 0.75, 1.0) for figure in ("gain", "forgetting")
    ]
    assert all(row["within"] and row["low"] < row["predicted"] < row["high"] for row in rows)
    assert all(row["miss"] < 0.03 for row in rows)


def test_a_strength_that_no_curve_foretells_is_outside_its_band(sim: ModuleType) -> None:
    records = sim.documents(sim.Truth(spread=0.2), 60, seed=1)
    odd = [{**r, "nll": r["nll"] * 1.1} if r["alpha"] == 0.75 and r["slice"] == "field" else r for r in records]
    rows = {(row["alpha"], row["figure"]): row["within"] for row in leave_one_out(odd)}
    assert not rows[0.75, "gain"]
    assert rows[0.75, "forgetting"]


def test_how_many_hidden_strengths_were_foretold_is_said(sim: ModuleType) -> None:
    records = sim.documents(sim.Truth(), 40, seed=1)
    found = left_out(records)
    assert found is not None
    rows = leave_one_out(records)
    assert found["rows"] == rows
    assert (found["within"], found["of"]) == (sum(row["within"] for row in rows), len(rows))
    assert f"{found['within']} of {len(rows)} figures" in found["sentence"]
    assert left_out(sim.documents(sim.Truth(), 40, seed=1, strengths=(0.5, 1.0))) is None


def test_two_strengths_foretell_nothing(sim: ModuleType) -> None:
    assert leave_one_out([r for r in sim.documents(sim.Truth(), 20, seed=1) if r["alpha"] in (0, 0.5, 1)]) == []


@pytest.fixture(scope="module")
def dial(sim: ModuleType) -> dict[str, Any]:
    return choose_dial(sim.documents(sim.Truth(), 60, seed=1), 0.01)


def on_test(
    dial: dict[str, Any], gain: float = 1.0, kept: bool | None = True, half_width: float = 0.02
) -> dict[str, Any]:
    """The confirmation where the test half gains this many times what was foretold."""
    found = dial["at_chosen"]["gain"] * gain
    return confirmation(
        dial,
        {"diff": found, "ci_low": found - half_width, "ci_high": found + half_width, "n_documents": 50},
        {"passed": kept, "slices": [{"name": "text", "diff": 0.001, "upper_95": 0.002}]},
    )


def test_a_gain_within_the_band_and_every_slice_kept_confirm_the_choice(dial: dict[str, Any]) -> None:
    found = on_test(dial)
    assert (found["passed"], found["within"]) == (True, True)
    assert found["predicted"]["low"] < found["measured"]["gain"] < found["predicted"]["high"]
    assert found["predicted"]["high"] - found["predicted"]["gain"] > 0.02
    assert found["sentence"].startswith("Confirmed: on 50 documents that chose nothing, strength ")
    assert found["measured"]["forgetting"] == 0.001


def test_a_gain_below_the_band_or_a_lost_slice_does_not(dial: dict[str, Any]) -> None:
    below, lost, none = on_test(dial, gain=0.5), on_test(dial, kept=False), on_test(dial, gain=0.0)
    assert [one["passed"] for one in (below, lost, none)] == [False, False, False]
    assert (below["within"], lost["within"]) == (False, True)
    assert "below the band" in below["sentence"]
    assert "a general test was lost" in lost["sentence"]


def test_more_gain_than_foretold_confirms_and_is_said(dial: dict[str, Any]) -> None:
    found = on_test(dial, gain=1.6)
    assert (found["passed"], found["within"]) == (True, False)
    assert "above the band" in found["sentence"]


def test_an_open_slice_an_unsure_gain_or_nothing_foretold_leaves_it_open(dial: dict[str, Any]) -> None:
    assert on_test(dial, kept=None)["passed"] is None
    unsure = on_test(dial, half_width=0.3)
    assert (unsure["passed"], unsure["within"]) == (None, True)
    assert unsure["sentence"].startswith("Open: on 50 documents")
    nothing = confirmation(
        choose_dial([], 0.01),
        {"diff": 0.1, "ci_low": None, "ci_high": None, "n_documents": 1},
        {"passed": None, "slices": []},
    )
    assert (nothing["passed"], nothing["within"], nothing["predicted"]["gain"]) == (None, None, None)
    assert nothing["sentence"].startswith("Nothing was foretold")


# the tilt ------------------------------------------------------------------------------------------------------------


def tilted(sim: ModuleType, gain: float, text: float) -> Records:
    """Records, some of them tilted: the field saves `gain` and general text `text` of its bits more than without."""
    records = sim.documents(sim.Truth(), 40, seed=1, strengths=(0.5, 1.0))
    random = np.random.default_rng(0)
    less = {"field": gain, "text": text, "chat": 0.0}
    return records + [
        {**r, "tilt": 0.5, "nll": r["nll"] * (1 - less[r["slice"].split("/")[0]] + random.normal(0, 0.003))}
        for r in records
        if r["alpha"] == 1.0
    ]


@pytest.mark.parametrize(
    ("gain", "text", "adopt"),
    [(0.02, 0.0, True), (0.0, 0.01, True), (0.0, 0.0, False), (0.02, -0.01, False), (-0.02, 0.01, False)],
)
def test_a_tilt_is_adopted_where_it_wins_surely_and_loses_nothing(
    sim: ModuleType, gain: float, text: float, adopt: bool
) -> None:
    found = tilt_advice(tilted(sim, gain, text))
    assert found is not None
    assert found["adopt"] is adopt
    assert (found["alpha"], found["tilt"]) == (1.0, 0.5)
    assert found["gain"] == pytest.approx(gain * 0.83, abs=0.003)
    assert found["sentence"].startswith("Deep layers bear more" if adopt else "No sign that a tilt")


def test_tilted_scores_do_not_move_the_dial_and_without_them_there_is_no_advice(sim: ModuleType) -> None:
    plain = sim.documents(sim.Truth(), 30, seed=1)
    assert tilt_advice(plain) is None
    both = plain + [{**r, "tilt": 0.5, "nll": r["nll"] * 0.5} for r in plain if r["alpha"] == 1.0]
    assert choose_dial(both, 0.01) == choose_dial(plain, 0.01)
