import json
import math

import numpy as np
import pytest

from metier.errors import DataError
from metier.evidence.sufficiency.forecast import Doubling, decide, sufficiency
from metier.evidence.sufficiency.quality import quality_against_quantity

FULL = 100_000
SIZES = (12_500, 25_000, 50_000, FULL)


def grows(x):
    return (1 - (1 + 10 * x) ** -0.1) / (1 - 11**-0.1)


def saturates(x):
    return 1 - math.exp(-10 * x)


def falls(x):
    return x * (1.25 - x) / 0.25


def record(i, n_bytes, nll):
    return {"item": f"i{i}", "slice": "field", "document": f"d{i}", "bytes": int(n_bytes), "nll": float(nll)}


def trajectory(curve, n=40, sizes=SIZES, gain=0.2, noise=0.002, varying=0.1, seeds=1, seed=0):
    """Score records: after `size` tokens a document needs gain * curve fewer bits, times a factor of its own that
    varies by `varying`; a run lands `noise` of the gain off its curve."""
    rng = np.random.default_rng(seed)
    n_bytes = rng.integers(200, 900, n)
    nll = math.log(2) * n_bytes * rng.lognormal(0, 0.2, n)
    saved = gain * nll * rng.lognormal(0, varying, n)
    records = []
    for size in (0, *sizes):
        for run in range(seeds if size else 1):
            left = nll - saved * (curve(size / FULL) + noise * rng.standard_normal() if size else 0.0)
            records += [{**record(i, n_bytes[i], left[i]), "tokens_seen": size, "seed": run} for i in range(n)]
    return records


def found_for(records, trained=FULL, available=FULL, **more):
    found = sufficiency(records, trained, available, **more)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def width(found):
    return found["per_doubling"]["share_high"] - found["per_doubling"]["share_low"]


def test_a_curve_that_still_rises_says_that_more_data_pays():
    found = found_for(trajectory(grows))
    assert found["decision"] == "more_data_pays"
    truth = grows(2) - 1
    assert found["per_doubling"]["share_low"] < truth < found["per_doubling"]["share_high"]
    assert found["sentence"].startswith("More data pays. Twice the data would save about")
    assert [size["share"] for size in found["sizes"]] == [0.125, 0.25, 0.5, 1.0]
    assert all(size["ci_low"] < size["gain"] < size["ci_high"] for size in found["sizes"])


def test_a_flat_curve_says_enough():
    found = found_for(trajectory(saturates))
    assert found["decision"] == "enough"
    assert found["sentence"].startswith("Enough.")
    assert found["share_of_ceiling"] == pytest.approx(1, abs=0.03)
    assert found["ceiling"] == pytest.approx(found["sizes"][-1]["gain"], rel=0.05)


def test_a_ceiling_that_is_not_in_sight_is_not_told():
    found = found_for(trajectory(grows))
    assert found["ceiling"] is found["share_of_ceiling"] is None


def test_the_full_size_is_foretold_without_being_looked_at():
    records = trajectory(grows)
    worse = [{**r, "nll": r["nll"] * 1.04} if r["tokens_seen"] == FULL else r for r in records]
    hidden, changed = found_for(records)["hidden"], found_for(worse)["hidden"]
    assert changed["got"] < hidden["got"]
    assert {k: changed[k] for k in ("predicted", "low", "high")} == {k: hidden[k] for k in ("predicted", "low", "high")}
    assert hidden["within"]
    assert not changed["within"]
    assert hidden["error_share"] == pytest.approx(hidden["predicted"] / hidden["got"] - 1)
    assert abs(hidden["error_share"]) < 0.05
    assert hidden["last_value_error"] == pytest.approx(grows(0.5) - 1, abs=0.01)
    assert abs(hidden["log_linear_error"]) < 0.1


def test_the_forecast_goes_to_four_times_the_data_and_calls_that_rough():
    found = found_for(trajectory(grows))
    assert [(one["times"], one["tokens"], one["rough"]) for one in found["forecast"]] == [
        (2, 2 * FULL, False),
        (4, 4 * FULL, True),
    ]
    for one in found["forecast"]:
        assert one["low"] < one["gain"] < one["high"]
    assert found["curve"][-1]["tokens"] == pytest.approx(4 * FULL)
    assert found["curve"][-1]["gain"] == pytest.approx(found["forecast"][-1]["gain"])


def test_documents_are_drawn_once_for_all_sizes():
    """What twice the data adds is a share of the same documents' gain: how much they differ from each other cancels."""
    alike, unlike = (found_for(trajectory(grows, varying=v)) for v in (0.01, 1.0))
    spread = [found["sizes"][-1]["ci_high"] - found["sizes"][-1]["ci_low"] for found in (alike, unlike)]
    assert spread[1] > 2 * spread[0]
    assert width(unlike) < 1.3 * width(alike)


def test_few_documents_widen_the_forecast():
    few, many = (found_for(trajectory(grows, n=n, varying=0.5))["forecast"][0] for n in (12, 200))
    assert few["high"] - few["low"] > 1.5 * (many["high"] - many["low"])


def test_repeated_seeds_are_averaged_and_sharpen_the_forecast():
    once, thrice = (found_for(trajectory(grows, seeds=seeds)) for seeds in (1, 3))
    assert width(thrice) < 0.8 * width(once)
    assert (once["n_runs"], thrice["n_runs"]) == (4, 12)
    both = trajectory(grows, seeds=2, noise=0.05)
    alone = [found_for([r for r in both if r["tokens_seen"] == 0 or r["seed"] == s])["sizes"] for s in (0, 1)]
    mean = [(a["gain"] + b["gain"]) / 2 for a, b in zip(*alone, strict=True)]
    assert [size["gain"] for size in found_for(both)["sizes"]] == pytest.approx(mean)


def test_when_part_of_the_text_was_read_a_longer_run_comes_before_new_text():
    sentence = found_for(trajectory(grows), FULL, 4 * FULL)["sentence"]
    assert "read only 25 % of your own text (100,000 of 400,000 tokens)" in sentence
    assert "a longer run (--minutes) first" in sentence
    assert "only 25 % of your text was read" in found_for(trajectory(saturates), FULL, 4 * FULL)["sentence"]


def test_when_the_text_was_read_several_times_only_new_text_adds():
    sentence = found_for(trajectory(grows), FULL, FULL // 3)["sentence"]
    assert "read all of your text 3.0 times, so only new text adds" in sentence
    assert "--minutes" not in sentence
    assert "all of your text once" in found_for(trajectory(grows), FULL, FULL)["sentence"]


def test_a_doubling_too_small_for_these_documents_to_show_is_not_called_worth_it():
    found = found_for(trajectory(grows), detectable=1.0)
    assert (found["decision"], found["reason"]) == ("cannot_tell", "too small to see")
    assert "hold out more documents" in found["sentence"]
    assert found_for(trajectory(grows))["detectable"] < found["per_doubling"]["gain"]


def test_a_doubling_between_not_worth_it_and_worth_it_is_left_open():
    found = found_for(trajectory(lambda x: x**0.06))
    assert (found["decision"], found["reason"]) == ("cannot_tell", "open")
    assert found["sentence"].startswith("Cannot tell. Twice the data would add")
    assert "other seeds" in found["sentence"]
    assert "--minutes" in found_for(trajectory(lambda x: x**0.06), FULL, 4 * FULL)["sentence"]


def test_a_gain_that_falls_with_the_data_is_a_problem_of_quality_or_split():
    found = found_for(trajectory(falls))
    assert (found["decision"], found["reason"]) == ("cannot_tell", "quality or split problem")
    assert found["forecast"] == []
    assert found["hidden"] is found["per_doubling"] is None
    assert "than after 50 % of the run" in found["sentence"]


def test_a_slip_as_small_as_the_luck_of_a_run_is_not_called_falling():
    assert found_for(trajectory(lambda x: 1 if x < 1 else 0.98))["reason"] != "quality or split problem"


def test_a_model_that_is_worse_than_the_base_is_a_problem_of_quality_or_split():
    found = found_for(trajectory(lambda x: -x))
    assert found["reason"] == "quality or split problem"
    assert "than before training" in found["sentence"]


@pytest.mark.parametrize("gain", [0.0, 0.01, -0.01])
def test_without_a_gain_worth_having_there_is_no_curve(gain):
    found = found_for(trajectory(grows, gain=gain))
    assert (found["decision"], found["reason"]) == ("cannot_tell", "no gain")
    assert found["forecast"] == found["curve"] == []


def test_a_gain_that_may_be_chance_has_no_curve():
    records = trajectory(grows, n=12)
    rng = np.random.default_rng(1)
    shaken = {f"i{i}": 1 + 0.6 * rng.standard_normal() for i in range(12)}
    noisy = [{**r, "nll": r["nll"] * max(0.1, shaken[r["item"]])} if r["tokens_seen"] else r for r in records]
    assert found_for(noisy)["reason"] == "no gain"


def test_two_documents_give_the_gains_and_no_forecast():
    found = found_for(trajectory(grows, n=2))
    assert (found["decision"], found["reason"]) == ("cannot_tell", "few documents")
    assert found["n_documents"] == 2
    assert found["sizes"][-1]["gain"] > 0
    assert found["forecast"] == []
    assert "2 held-out documents; 10 or more" in found["sentence"]


def test_one_document_has_no_interval():
    found = found_for(trajectory(grows, n=1))
    assert found["sizes"][0]["ci_low"] is found["detectable"] is None
    assert found["reason"] == "few documents"


@pytest.mark.parametrize("sizes", [SIZES[-1:], SIZES[-2:]])
def test_two_sizes_make_no_curve(sizes):
    found = found_for(trajectory(grows, sizes=sizes))
    assert (found["decision"], found["reason"]) == ("cannot_tell", "few sizes")
    assert "needs three sizes" in found["sentence"]


def test_three_sizes_are_enough_for_a_hidden_one_and_a_forecast():
    found = found_for(trajectory(grows, sizes=SIZES[1:]))
    assert found["hidden"]["within"]
    assert len(found["forecast"]) == 2


def test_a_gain_that_only_comes_at_the_end_is_not_foretold_from_nothing():
    found = found_for(trajectory(lambda x: 1.0 if x == 1 else -0.01))
    assert found["hidden"] is None
    assert len(found["forecast"]) == 2


def test_a_size_scored_on_other_items_is_refused():
    records = [r for r in trajectory(grows) if not (r["tokens_seen"] == FULL and r["item"] == "i3")]
    with pytest.raises(DataError, match=r"'i3'.*score both models on the same items again"):
        sufficiency(records, FULL, FULL)
    renamed = [{**r, "document": "other"} if r["tokens_seen"] == FULL else r for r in trajectory(grows)]
    with pytest.raises(DataError, match="'document'"):
        sufficiency(renamed, FULL, FULL)


def test_a_trajectory_without_the_base_or_without_training_is_refused():
    records = trajectory(grows)
    with pytest.raises(DataError, match="no score of the base model"):
        sufficiency([r for r in records if r["tokens_seen"]], FULL, FULL)
    with pytest.raises(DataError, match="no score of the adapted one"):
        sufficiency([r for r in records if not r["tokens_seen"]], FULL, FULL)
    with pytest.raises(DataError, match="no score of the base model"):
        sufficiency([], FULL, FULL)


@pytest.mark.parametrize("size", [None, -1, "many", 1.5])
def test_a_size_that_is_no_number_of_tokens_is_refused(size):
    records = trajectory(grows)
    with pytest.raises(DataError, match="no number of tokens"):
        sufficiency([{**records[0], "tokens_seen": size}, *records[1:]], FULL, FULL)


def test_only_the_field_counts():
    records = trajectory(grows)
    other = [{**r, "slice": "text/news", "nll": 1.0} for r in records]
    assert found_for(records + other) == found_for(records)


def test_the_same_scores_give_the_same_figures_in_any_order():
    records = trajectory(grows)
    assert found_for(records[::-1])["decision"] == found_for(records)["decision"]
    assert found_for(records) == found_for(records)


@pytest.mark.parametrize(
    ("share", "decision"),
    [
        ((0.021, 0.051, 0.09), "more_data_pays"),
        ((0.019, 0.06, 0.09), "cannot_tell"),  # may add as little as what is called enough
        ((0.021, 0.049, 0.09), "cannot_tell"),
        ((0.0, 0.01, 0.019), "enough"),
        ((0.0, 0.01, 0.021), "cannot_tell"),
    ],
)
def test_a_doubling_must_be_worth_having_and_surely_more_than_nothing(share, decision):
    assert decide(Doubling((0.01, 0.02, 0.03), share), 0.015)[0] == decision


def test_decisions_are_right_on_clear_curves_and_seldom_wrong_on_noisy_ones():
    rng = np.random.default_rng(2)
    said = {"rising": [], "flat": []}
    for seed in range(12):
        power = rng.uniform(0.2, 0.6)
        rising = trajectory(lambda x, p=power: x**p, noise=0.01, seed=seed)
        flat = trajectory(saturates, noise=0.01, seed=seed)
        said["rising"].append(found_for(rising)["decision"])
        said["flat"].append(found_for(flat)["decision"])
    assert said["rising"].count("more_data_pays") >= 11
    assert said["flat"].count("enough") >= 6
    assert "enough" not in said["rising"]
    assert "more_data_pays" not in said["flat"]


def halves(better, n=40, noise=0.02, seed=0):
    """Scores after a random and a filtered half; the filtered one needs `better` fewer bits."""
    rng = np.random.default_rng(seed)
    n_bytes = rng.integers(200, 900, n)
    nll = math.log(2) * n_bytes * rng.lognormal(0, 0.2, n)
    left = nll * (1 - better + noise * rng.standard_normal(n))
    return tuple([record(i, n_bytes[i], bits[i]) for i in range(n)] for bits in (nll, left))


@pytest.mark.parametrize(
    ("better", "decision", "said"),
    [(0.03, "clean", "Clean before"), (-0.03, "keep", "Keep what"), (0.0, "cannot_tell", "Cannot tell")],
)
def test_a_filtered_half_is_compared_with_a_random_one(better, decision, said):
    found = quality_against_quantity(*halves(better))
    assert found["decision"] == decision
    assert found["sentence"].startswith(said)
    assert found["diff"] == pytest.approx(found["random"] - found["filtered"])
    assert found["ci_low"] < found["diff"] < found["ci_high"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_luck_of_training_counts_against_a_difference_between_halves():
    alone = quality_against_quantity(*halves(0.03))
    few = quality_against_quantity(*halves(0.03), seed_sd=0.008, n_seeds=3)
    many = quality_against_quantity(*halves(0.03), seed_sd=0.008, n_seeds=100)
    assert (alone["decision"], many["decision"], few["decision"]) == ("clean", "clean", "cannot_tell")
    assert few["ci_high"] - few["ci_low"] > 1.5 * (many["ci_high"] - many["ci_low"])


def test_few_documents_decide_nothing_about_quality():
    assert quality_against_quantity(*halves(0.3, n=9))["decision"] == "cannot_tell"
    found = quality_against_quantity(*halves(0.3, n=1))
    assert (found["decision"], found["ci_low"]) == ("cannot_tell", None)
    assert "no interval" in found["sentence"]


def test_halves_without_scores_of_the_field_are_refused():
    with pytest.raises(DataError, match="no score of a held-out document"):
        quality_against_quantity([], [])
