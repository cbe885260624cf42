import json
import math

import numpy as np
import pytest

from metier.errors import DataError
from metier.evidence.full.stability import stability


def gain(diff, base=1.0, detectable=0.01, n=60):
    return {
        "diff": diff,
        "base": base,
        "ci_low": diff - 0.02,
        "ci_high": diff + 0.02,
        "detectable": detectable,
        "n_documents": n,
    }


def found_for(gains, **more):
    found = stability({seed: gain(diff, **more) for seed, diff in enumerate(gains)})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_the_spread_of_the_seeds_and_what_it_hides_are_told():
    found = found_for([0.20, 0.21, 0.22])
    assert found["mean"] == pytest.approx(0.21)
    assert found["sd"] == pytest.approx(0.01)
    assert found["sd_low"] < found["sd"] < found["sd_high"]
    # t with two degrees of freedom: 4.303 + 1.061
    assert found["smallest_difference"] == pytest.approx((4.3027 + 1.0607) * math.sqrt(2) * 0.01, rel=1e-4)
    assert found["sentence"].startswith("3 runs that differ in their seed alone saved 20.0 to 22.0 %")
    assert "a difference under 7.6 points means nothing." in found["sentence"]


def test_many_seeds_need_two_point_eight_root_two_standard_deviations():
    rng = np.random.default_rng(0)
    found = found_for((0.2 + 0.01 * rng.standard_normal(2000)).tolist())
    assert found["smallest_difference"] / found["sd"] == pytest.approx(2.8 * math.sqrt(2), rel=0.002)


def test_two_runs_that_differ_by_luck_alone_seldom_reach_it_and_a_true_difference_of_that_size_often_does():
    rng = np.random.default_rng(1)
    sd, alarms, finds, n = 0.01, 0, 0, 4000
    known = found_for((0.2 + sd * rng.standard_normal(200)).tolist())
    smallest = known["smallest_difference"]
    critical = smallest * 1.96 / 2.8
    for _ in range(n):
        one, other = sd * rng.standard_normal(2)
        alarms += abs(one - other) > smallest
        finds += abs(one + smallest - other) > critical
    assert alarms / n < 0.02
    assert 0.75 < finds / n < 0.86


def test_other_documents_add_their_own_luck():
    found = found_for([0.20, 0.21, 0.22], detectable=0.03)
    expected = math.sqrt(found["smallest_difference"] ** 2 + 2 * 0.03**2)
    assert found["smallest_difference_elsewhere"] == pytest.approx(expected)
    assert found_for([0.20, 0.21], detectable=None)["smallest_difference_elsewhere"] is None


def test_one_seed_tells_nothing_of_luck():
    found = found_for([0.2])
    assert found["sd"] is found["smallest_difference"] is None
    assert found["n_seeds"] == 1
    assert found["sentence"].startswith("Cannot tell. One run was made")


def test_two_seeds_are_said_to_be_few():
    assert "2 seeds say little of that" in found_for([0.20, 0.21])["sentence"]
    assert "say little" not in found_for([0.20, 0.21, 0.22])["sentence"]


def test_seeds_that_change_nothing_are_doubted():
    found = found_for([0.2, 0.2, 0.2])
    assert found["smallest_difference"] is None
    assert "see that their seeds differ" in found["sentence"]


def test_runs_on_different_documents_are_not_compared():
    with pytest.raises(DataError, match=r"seeds 0 and 3 were not measured on the same documents.*score both"):
        stability({0: gain(0.2), 3: gain(0.2, base=1.01)})
    with pytest.raises(DataError, match="same documents"):
        stability({0: gain(0.2), 3: gain(0.2, n=61)})


def test_no_run_is_refused():
    with pytest.raises(DataError, match="no run"):
        stability({})
