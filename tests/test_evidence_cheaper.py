"""The rule: training is recommended only where it surely beats the best of what is cheaper."""

import math
import random

import pytest

from metier.errors import DataError
from metier.evidence.full.cheaper import ADAPTED, BASE, NGRAM, NOTHING, cheaper, said

COSTS = {"train_s": 300.0, "score_tokens_per_s": 500.0}
RETRIEVAL, BOTH = "base + retrieval", "adapted + retrieval"


def scores(arm: str, bits: float, n: int = 30, noise: float = 0.02, half: str = "test", read: int = 100) -> list[dict]:
    """n documents of 100 bytes about so many bits per byte; the same document is as hard in every arm."""
    hard, own = random.Random(1), random.Random(f"{arm}/{half}")
    return [
        {
            "item": f"{half} {i}",
            "slice": "field",
            "document": f"{half} {i}",
            "group": "",
            "bytes": 100,
            "tokens": 25,
            "nll": 100 * math.log(2) * (bits * hard.uniform(0.6, 1.4) + own.gauss(0, noise)),
            "arm": arm,
            "half": half,
            "kind": "text",
            "read": read,
            "examples": 0,
            "passages": 3 if "retrieval" in arm else 0,
            "prompt": "",
        }
        for i in range(n)
    ]


def arms(bits: dict[str, float], select: dict[str, float] | None = None, **options: float) -> list[dict]:
    test = [r for arm, b in bits.items() for r in scores(arm, b, read=600 if "retrieval" in arm else 100, **options)]
    chosen = select or {arm: b for arm, b in bits.items() if arm.startswith(ADAPTED)}
    return test + [r for arm, b in chosen.items() for r in scores(arm, b, half="select")]


def test_training_is_recommended_where_it_surely_beats_the_best_cheaper_arm() -> None:
    found = cheaper(arms({NOTHING: 1.5, BASE: 1.2, RETRIEVAL: 1.0, NGRAM: 1.1, ADAPTED: 0.8}), COSTS)
    assert (found["recommended"], found["trained"], found["rival"]) == (ADAPTED, ADAPTED, RETRIEVAL)
    assert found["margin"]["diff"] == pytest.approx(0.2, abs=0.03)
    assert found["margin"]["ci_low"] > 0
    assert found["sentence"].startswith(
        "Training pays: for the second half of held-out documents, given the first, the adapted model needs 0."
    )
    assert "the base model with retrieval (95 % interval 0." in found["sentence"]


def test_a_cheaper_arm_that_does_as_well_is_recommended_instead() -> None:
    found = cheaper(arms({BASE: 1.2, RETRIEVAL: 0.8, ADAPTED: 0.76}, noise=0.1), COSTS)
    assert found["recommended"] == RETRIEVAL
    assert found["margin"]["ci_low"] < 0 < found["margin"]["diff"] < found["margin"]["ci_high"]
    assert found["sentence"].startswith("Use the base model with retrieval: ")
    assert "is not shown to need fewer bits than the base model with retrieval (" in found["sentence"]


def test_a_cheaper_arm_that_does_better_is_recommended_with_its_lead() -> None:
    found = cheaper(arms({BASE: 1.2, RETRIEVAL: 0.7, ADAPTED: 0.8}), COSTS)
    assert found["recommended"] == RETRIEVAL
    assert "needs 0.1" in found["sentence"]
    assert "bits per byte more than the base model with retrieval" in found["sentence"]


def test_where_nothing_beats_the_base_the_base_is_recommended() -> None:
    worse = cheaper(arms({BASE: 1.0, RETRIEVAL: 1.1, NGRAM: 1.05, ADAPTED: 1.0}, noise=0.05), COSTS)
    assert (worse["recommended"], worse["rival"]) == (BASE, BASE)
    by_chance = cheaper(arms({BASE: 1.0, RETRIEVAL: 0.94, ADAPTED: 1.0}, noise=0.2), COSTS)
    assert (by_chance["recommended"], by_chance["rival"]) == (BASE, RETRIEVAL)
    assert by_chance["sentence"].startswith("Use the base model: ")


def test_the_base_that_was_told_nothing_is_no_rival() -> None:
    found = cheaper(arms({NOTHING: 0.5, BASE: 1.2, RETRIEVAL: 1.0, ADAPTED: 0.8}), COSTS)
    assert (found["rival"], found["recommended"]) == (RETRIEVAL, ADAPTED)


def test_which_adapted_arm_speaks_for_training_is_seen_on_the_select_half() -> None:
    bits = {BASE: 1.2, RETRIEVAL: 1.0, ADAPTED: 0.9, BOTH: 0.8}
    assert cheaper(arms(bits, {ADAPTED: 0.7, BOTH: 0.9}), COSTS)["trained"] == ADAPTED
    found = cheaper(arms(bits, {ADAPTED: 0.9, BOTH: 0.7}), COSTS)
    assert (found["trained"], found["recommended"]) == (BOTH, BOTH)
    assert "the adapted model with retrieval needs" in found["sentence"]


def test_every_arm_is_compared_with_the_base_on_the_test_half_alone() -> None:
    found = cheaper(arms({BASE: 1.2, RETRIEVAL: 1.0, ADAPTED: 0.8}), COSTS)
    assert [arm["name"] for arm in found["arms"]] == [BASE, RETRIEVAL, ADAPTED]
    base, retrieval, _ = found["arms"]
    assert (base["diff_to_base"], base["ci_low"], base["ci_high"]) == (0, 0, 0)
    assert retrieval["ci_low"] < retrieval["diff_to_base"] < retrieval["ci_high"]
    assert retrieval["bits"] == pytest.approx(base["bits"] - retrieval["diff_to_base"])
    assert (retrieval["tokens_per_query"], retrieval["passages"], retrieval["n_documents"]) == (600, 3, 30)


def test_training_is_paid_back_by_the_tokens_that_the_rival_reads_more() -> None:
    """300 s at 500 tokens/s are 150,000 tokens; retrieval reads 500 more for a query."""
    found = cheaper(arms({BASE: 1.2, RETRIEVAL: 1.0, ADAPTED: 0.8}), COSTS)
    assert found["break_even_queries"] == 300
    assert cheaper(arms({BASE: 1.0, RETRIEVAL: 1.1, ADAPTED: 0.8}), COSTS)["break_even_queries"] is None


def test_few_documents_decide_nothing() -> None:
    found = cheaper(arms({BASE: 1.2, RETRIEVAL: 1.0, ADAPTED: 0.5}, n=9), COSTS)
    assert found["recommended"] is None
    assert found["sentence"] == (
        "Cannot tell: 9 held-out documents are too few to compare arms on; at least 10 are needed."
    )
    assert cheaper([], COSTS)["recommended"] is None
    assert "was not measured" in cheaper(scores(BASE, 1.0), COSTS)["sentence"]


def test_arms_of_different_items_are_not_compared() -> None:
    records = arms({BASE: 1.2, RETRIEVAL: 1.0, ADAPTED: 0.8})
    with pytest.raises(DataError, match="'test 3'"):
        cheaper([r for r in records if not (r["arm"] == RETRIEVAL and r["item"] == "test 3")], COSTS)


def test_arms_are_named_as_they_are_said() -> None:
    assert said("base + examples + retrieval") == "base model with examples and retrieval"
    assert said(ADAPTED) == "adapted model"
    assert said(NGRAM) == "base model mixed with counted n-grams"
