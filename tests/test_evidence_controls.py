"""Controls: the right text must surely beat the wrong one."""

import math
import random

import pytest

from metier.errors import DataError
from metier.evidence.full.controls import controls


def scores(bits: float, seed: int, n: int = 30, noise: float = 0.02) -> list[dict]:
    hard, own = random.Random(1), random.Random(seed)
    return [
        {
            "item": f"d{i}",
            "slice": "field",
            "document": f"d{i}",
            "bytes": 100,
            "nll": 100 * math.log(2) * (bits * hard.uniform(0.6, 1.4) + own.gauss(0, noise)),
        }
        for i in range(n)
    ]


def judged(adapted: float, placebo: float, shuffled: float, n: int = 30, noise: float = 0.02) -> dict:
    return controls(
        scores(1.0, 0, n, noise),
        scores(adapted, 1, n, noise),
        scores(placebo, 2, n, noise),
        scores(shuffled, 3, n, noise),
        "text of another field (software)",
    )


def test_right_text_that_beats_both_controls_passes() -> None:
    found = judged(0.8, 0.95, 0.9)
    assert found["passed"] is True
    placebo, shuffled = found["controls"]
    assert (placebo["name"], shuffled["name"]) == ("placebo", "shuffled")
    assert placebo["beaten_by"]["diff"] == pytest.approx(0.15, abs=0.03)
    assert placebo["gain"]["diff"] == pytest.approx(0.05, abs=0.02)
    assert placebo["share_of_gain"] == pytest.approx(placebo["gain"]["diff"] / found["adapted"]["diff"])
    assert found["sentence"].startswith("It is the field's text that helped: on 30 held-out documents ")
    assert "than after as many steps on text of another field (software)" in found["sentence"]


def test_a_placebo_that_does_as_well_fails_and_is_named() -> None:
    found = judged(0.9, 0.8, 0.95)
    assert found["passed"] is False
    assert found["sentence"].startswith("It is not the field's text that helped: ")
    assert "text of another field (software) did as well or better (−0." in found["sentence"]


def test_a_difference_that_may_be_zero_is_not_called_either_way() -> None:
    found = judged(0.8, 0.81, 0.9, noise=0.1)
    assert [c["beaten"] for c in found["controls"]] == [None, True]
    assert found["passed"] is None
    assert "may be zero" in found["sentence"]


def test_one_control_that_surely_won_fails_whatever_the_other_says() -> None:
    found = judged(0.9, 0.89, 0.7, noise=0.1)
    assert found["passed"] is False
    assert "the same words in random order did as well" in found["sentence"]


def test_few_documents_decide_nothing() -> None:
    found = judged(0.5, 0.9, 0.9, n=9)
    assert found["passed"] is None
    assert found["sentence"] == "Cannot tell: 9 held-out documents are too few to compare controls on."


def test_a_control_that_was_not_run_is_absent() -> None:
    found = controls(scores(1.0, 0), scores(0.8, 1), [], scores(0.9, 3))
    assert [c["name"] for c in found["controls"]] == ["shuffled"]
    assert found["passed"] is True
    nothing = controls(scores(1.0, 0), scores(0.8, 1), [], [])
    assert (nothing["passed"], nothing["controls"]) == (None, [])
    assert nothing["sentence"].startswith("No control was trained")


def test_without_a_gain_there_is_no_share_of_it() -> None:
    assert judged(1.0, 0.95, 0.99)["controls"][0]["share_of_gain"] is None


def test_controls_of_other_items_are_refused() -> None:
    with pytest.raises(DataError, match="d29"):
        controls(scores(1.0, 0), scores(0.8, 1), scores(0.9, 2)[:-1], [])
