"""Was the training overdone? Each detector is seen to fire and not to fire, on figures whose truth is known."""

import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from metier.evidence.overdone import collapse, drift, memorising, overdone

Records = list[dict[str, Any]]


def course(sim: ModuleType, **truths: Any) -> Records:
    """step_60=Truth(…) and so on: records of the last step at every strength, of earlier ones at 0.5 and 1."""
    steps = {int(name.removeprefix("step_")): truth for name, truth in truths.items()}
    last = max(steps)
    records = sim.documents(steps.pop(last), 40, seed=1, step=last)
    for step, truth in steps.items():
        records += [r for r in sim.documents(truth, 40, seed=1, strengths=(0.5, 1.0), step=step) if r["alpha"]]
    return records


def detector(name: str, records: Records, **figures: Any) -> dict[str, Any]:
    found = overdone(records, **figures)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return next(one for one in found["detectors"] if one["name"] == name)


def test_the_gain_is_largest_well_below_full_strength(sim: ModuleType) -> None:
    fired = detector("overshoot", course(sim, step_100=sim.Truth(h=0.4 / 0.7)))
    assert fired["fired"] is True
    assert fired["figure"] == pytest.approx(0.7, abs=0.08)
    assert detector("overshoot", course(sim, step_100=sim.Truth()))["fired"] is False
    assert detector("overshoot", course(sim, step_100=sim.Truth(h=0.0)))["figure"] == 1.25


def test_a_small_overshoot_that_chance_explains_does_not_fire(sim: ModuleType) -> None:
    one = detector("overshoot", course(sim, step_100=sim.Truth(g=0.02, h=0.02 / 0.85, spread=2.0)))
    assert one["figure"] < 0.9
    assert one["fired"] is False


def test_a_sure_overshoot_by_less_than_a_tenth_does_not_fire(sim: ModuleType) -> None:
    one = detector("overshoot", course(sim, step_100=sim.Truth(h=0.4 / 0.94, spread=0.02)))
    assert 0.9 < one["figure"] < 1.0
    assert one["fired"] is False


def test_an_earlier_step_predicted_the_field_better(sim: ModuleType) -> None:
    worse = course(sim, step_60=sim.Truth(), step_100=sim.Truth(g=0.3, h=0.4))
    one = detector("overfit", worse)
    assert one["fired"] is True
    assert one["figure"] == pytest.approx(0.1, abs=0.02)
    assert "Step 60 gains 0.0957 bits per byte more than the last step, 100" in one["sentence"]
    better = course(sim, step_60=sim.Truth(g=0.3, h=0.3), step_100=sim.Truth())
    assert detector("overfit", better)["fired"] is False
    assert detector("overfit", course(sim, step_60=sim.Truth(), step_100=sim.Truth()))["fired"] is False


def test_the_first_tenth_of_the_steps_is_not_looked_at(sim: ModuleType) -> None:
    records = course(sim, step_9=sim.Truth(), step_100=sim.Truth(g=0.3, h=0.4))
    assert detector("overfit", records)["fired"] is None


def test_the_last_quarter_brought_little_gain_and_much_forgetting(sim: ModuleType) -> None:
    bad = course(sim, step_75=sim.Truth(k=0.01), step_100=sim.Truth(g=0.405, h=0.405, k=0.03))
    assert detector("bad exchange", bad)["fired"] is True
    gaining = course(sim, step_75=sim.Truth(g=0.3, h=0.3, k=0.01), step_100=sim.Truth(k=0.03))
    assert detector("bad exchange", gaining)["fired"] is False
    cheap = course(sim, step_75=sim.Truth(k=0.028), step_100=sim.Truth(g=0.405, h=0.405, k=0.03))
    assert detector("bad exchange", cheap)["fired"] is False
    harmless = course(sim, step_75=sim.Truth(k=0.0), step_100=sim.Truth(k=0.0))
    one = detector("bad exchange", harmless)
    assert one["fired"] is False
    assert one["sentence"].endswith("no forgetting that is sure.")
    assert detector("bad exchange", course(sim, step_30=sim.Truth(), step_100=sim.Truth()))["fired"] is None


def test_between_two_steps_a_straight_line_stands_in(sim: ModuleType) -> None:
    records = course(sim, step_50=sim.Truth(g=0.32, h=0.32), step_100=sim.Truth())
    assert detector("bad exchange", records)["figure"] == pytest.approx(0.1, abs=0.01)


def test_full_strength_forgets_far_more_than_a_quadratic_says(sim: ModuleType) -> None:
    records = course(sim, step_100=sim.Truth(k=0.03))
    assert detector("left the basin", records)["fired"] is False
    half = {r["item"]: r["nll"] for r in records if r["alpha"] == 0.5}
    cliff = [
        {**r, "nll": half[r["item"]] * 1.08} if r["alpha"] == 1 and r["slice"].startswith("text/") else r
        for r in records
    ]
    one = detector("left the basin", cliff)
    assert one["fired"] is True
    assert one["figure"] > 6


def test_forgetting_within_the_margin_does_not_leave_the_basin(sim: ModuleType) -> None:
    """At half strength a hair better than the base: the ratio means nothing."""
    records = course(sim, step_100=sim.Truth(k=0.0, spread=0.1))
    base = {r["item"]: r["nll"] for r in records if r["alpha"] == 0}
    share = {0.5: -0.001, 1.0: 0.004}
    dipped = [
        {**r, "nll": base[r["item"]] * (1 + share[r["alpha"]])}
        if r["alpha"] in share and r["slice"].startswith("text/")
        else r
        for r in records
    ]
    assert detector("left the basin", dipped)["fired"] is False


def test_half_strength_without_half_the_gain_leaves_the_basin(sim: ModuleType) -> None:
    one = detector("left the basin", course(sim, step_100=sim.Truth(g=0.05, h=-0.4)))
    assert one["fired"] is True
    assert detector("left the basin", course(sim, step_100=sim.Truth(g=0.3, h=0.0)))["fired"] is False


def test_a_nat_of_divergence_buys_half_of_what_it_bought(sim: ModuleType) -> None:
    records = course(sim, step_50=sim.Truth(g=0.3, h=0.3), step_100=sim.Truth())
    wasteful = [{"step": 50, "kl_field": 0.1, "kl_general": 0.02}, {"step": 100, "kl_field": 0.3, "kl_general": 0.1}]
    one = detector("drift", records, divergence=wasteful)
    assert (one["fired"], one["figure"]) == (True, pytest.approx(4 / 9, abs=0.03))
    fair = [{**wasteful[0], "kl_field": 0.2}, wasteful[1]]
    assert detector("drift", records, divergence=fair)["fired"] is False
    assert detector("drift", records, divergence=wasteful[1:])["fired"] is None
    assert detector("drift", records)["fired"] is None
    assert drift(None, wasteful)["fired"] is None


def test_training_text_that_surely_gained_far_more_than_other_text_is_memorised() -> None:
    surely, perhaps = {"value": 0.4, "lower": 0.3}, {"value": 0.4, "lower": 0.1}
    one = memorising(surely, None)
    assert (one["fired"], one["figure"]) == (True, 0.4)
    assert "at least 30 %" in one["sentence"]
    assert memorising(perhaps, None)["fired"] is False
    assert memorising({"value": 0.4, "lower": None}, None)["fired"] is False


def test_training_text_that_can_be_recited_is_memorised() -> None:
    recited = {"continued_verbatim": 8, "continued_verbatim_base": 3, "n_prefixes": 100}
    one = memorising(None, recited)
    assert (one["fired"], one["figure"], one["threshold"]) == (True, 0.05, 0.01)
    assert memorising(None, {**recited, "continued_verbatim": 5})["fired"] is False  # two more can be two letterheads
    assert memorising({"value": 0.0, "lower": -0.1}, recited)["fired"] is True
    assert memorising(None, {**recited, "n_prefixes": 0})["fired"] is None
    assert memorising(None, None)["fired"] is None


def test_an_adapter_of_which_no_step_is_known_has_no_drift(sim: ModuleType) -> None:
    """As `metier prove` reads one that was trained elsewhere."""
    found = overdone(sim.documents(sim.Truth(), 40, seed=1, step=0), [{"step": 0, "kl_field": 0.2}])
    assert next(one for one in found["detectors"] if one["name"] == "drift")["fired"] is None


def test_a_step_just_before_half_of_the_steps_stands_for_it(sim: ModuleType) -> None:
    records = course(sim, step_12=sim.Truth(g=0.3, h=0.15, k=0.001), step_25=sim.Truth(g=0.3, h=0.15, k=0.004))
    assert detector("bad exchange", records)["fired"] is not None
    early = course(sim, step_9=sim.Truth(g=0.3, h=0.15, k=0.001), step_25=sim.Truth(g=0.3, h=0.15, k=0.004))
    assert detector("bad exchange", early)["fired"] is None


def test_entropy_that_fell_by_a_tenth_is_collapse() -> None:
    assert collapse({"base": 3.0, "adapted": 2.6}, None)["fired"] is True
    assert collapse({"base": 3.0, "adapted": 2.8}, None)["fired"] is False
    assert "rose by 10 %" in collapse({"base": 3.0, "adapted": 3.3}, None)["sentence"]
    assert collapse(None, None)["fired"] is None


def test_repetition_that_surely_doubled_is_collapse() -> None:
    doubled = {"base": 0.05, "adapted": 0.2, "lower_95": 0.02}
    one = collapse({"base": 3.0, "adapted": 3.0}, doubled)
    assert (one["fired"], one["figure"], one["threshold"]) == (True, pytest.approx(4.0), 2.0)
    assert collapse(None, {**doubled, "lower_95": -0.01})["fired"] is False
    assert collapse(None, {**doubled, "lower_95": None})["fired"] is False
    assert collapse(None, {**doubled, "adapted": 0.09})["fired"] is False
    assert collapse(None, {**doubled, "base": 0.0})["fired"] is True


def test_examples_in_the_prompt_help_less_than_before(sim: ModuleType) -> None:
    records = course(sim, step_100=sim.Truth())
    down = {"base": 0.5, "adapted": 0.42, "ci_low": -0.13, "ci_high": -0.03}
    assert detector("prompting lost", records, few_shot=down)["fired"] is True
    assert detector("prompting lost", records, few_shot={**down, "ci_high": 0.01})["fired"] is False
    no_gain = course(sim, step_100=sim.Truth(g=0.0, h=0.0))
    assert detector("prompting lost", no_gain, few_shot=down)["fired"] is False
    assert detector("prompting lost", records)["fired"] is None


def test_one_sign_is_amber_two_are_red_and_few_measured_decide_nothing(sim: ModuleType) -> None:
    healthy = course(sim, step_60=sim.Truth(g=0.35, h=0.35), step_100=sim.Truth())
    fell = {"base": 3.0, "adapted": 2.0}
    recited = {"continued_verbatim": 9, "continued_verbatim_base": 0, "n_prefixes": 100}
    none, amber, red = (
        overdone(healthy),
        overdone(healthy, entropy=fell),
        overdone(healthy, entropy=fell, extraction=recited),
    )
    assert [one["level"] for one in (none, amber, red)] == ["none", "amber", "red"]
    assert none["sentence"] == (
        "No sign that the training was overdone: 4 of 8 detectors were measured, and none fired."
    )
    assert red["sentence"].startswith("The training was overdone: 6 of 8 detectors were measured, and memorising, ")
    unsure = overdone([], entropy=fell, extraction=recited)
    assert (unsure["level"], unsure["n_measured"]) == (None, 2)
    assert "Cannot tell" in unsure["sentence"]
    assert "memorising, collapse fired" in unsure["sentence"]


def test_few_documents_or_no_general_text_measure_nothing_of_the_course(sim: ModuleType) -> None:
    records = course(sim, step_60=sim.Truth(), step_100=sim.Truth())
    few = [r for r in records if int(r["item"].split("-")[1]) < 9]
    without = [r for r in records if not r["slice"].startswith("text/")]
    for given in (few, without, [r for r in records if r["alpha"] == 0], []):
        assert overdone(given)["n_measured"] == 0


def test_a_healthy_run_sets_off_no_detector_of_the_course(sim: ModuleType) -> None:
    """Truths on the usual path: gain levels off, forgetting rises with the square root of the steps."""
    steps = {
        step: sim.Truth(g=0.4 * share, h=0.4 * share, k=0.006 * share)
        for step, share in zip((12, 25, 50, 100), np.sqrt([0.12, 0.25, 0.5, 1.0]), strict=True)
    }
    found = overdone(course(sim, **{f"step_{step}": truth for step, truth in steps.items()}))
    assert (found["level"], found["n_measured"]) == ("none", 4)
