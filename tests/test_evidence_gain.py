import json
import math

import numpy as np
import pytest

from metier.errors import DataError
from metier.evidence.gain import gain


def arms(n=60, saved=0.2, noise=0.02, seed=7, groups=("",)):
    """Score records of n documents of skewed length; the adapted arm needs `saved` fewer bits, give or take `noise`."""
    rng = np.random.default_rng(seed)
    base, adapted = [], []
    for i in range(n):
        n_bytes = int(rng.lognormal(5.5, 0.6)) + 20
        nll = math.log(2) * n_bytes * rng.lognormal(0, 0.2)
        one = {
            "item": f"r:{i}",
            "slice": "field",
            "document": f"d{i}",
            "group": groups[i % len(groups)],
            "bytes": n_bytes,
        }
        base.append({**one, "nll": nll})
        adapted.append({**one, "nll": nll * (1 - saved + noise * rng.standard_normal())})
    return base, adapted


def test_a_gain_is_the_bits_saved_and_its_interval_holds_the_truth():
    found = gain(*arms(saved=0.2))
    assert found["diff"] == pytest.approx(found["base"] - found["adapted"])
    assert found["relative"] == pytest.approx(found["diff"] / found["base"])
    assert found["relative_ci_low"] < 0.2 < found["relative_ci_high"]
    assert found["ci_low"] < 0.2 * found["base"] < found["ci_high"]
    assert found["n_documents"] == found["n_items"] == 60
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_only_the_field_counts():
    base, adapted = arms(20)
    other = [{**record, "slice": "text/news", "nll": 1.0} for record in base]
    assert gain(base + other, adapted + other) == gain(base, adapted)


def test_groups_of_under_three_documents_have_no_interval():
    base, adapted = arms(8, groups=("rare", "common", "common"))
    base[3]["group"] = adapted[3]["group"] = base[6]["group"] = adapted[6]["group"] = ""
    base[7]["group"] = adapted[7]["group"] = "rare"
    groups = {group["name"]: group for group in gain(base, adapted)["groups"]}
    assert list(groups) == ["common", "(no group)", "rare"]
    assert groups["rare"]["n_documents"] == 2
    assert groups["rare"]["ci_low"] is None
    assert groups["rare"]["diff"] > 0
    assert groups["common"]["ci_low"] < groups["common"]["diff"] < groups["common"]["ci_high"]


def test_a_corpus_without_groups_reports_none():
    assert gain(*arms(5))["groups"] == []


def test_one_document_gives_a_difference_and_no_interval():
    found = gain(*arms(1))
    assert found["diff"] > 0
    assert found["ci_low"] is found["relative_ci_high"] is found["detectable"] is None


def test_a_run_that_held_nothing_out_is_refused():
    with pytest.raises(DataError, match="hold out at least one document"):
        gain([], [])
