"""From scratch: the law's figures, and what is said where pretraining paid, did not, or cannot be told."""

import math
import random

import pytest

from metier.evidence.full.scratch import data_multiple, scratch

FACTS = {"compressor_bits": 2.1, "train_characters": 1_000_000, "body_parameters": 106e6}
SIZES = [{"arm": f"scratch {s:g}", "tokens": round(s * 8000), "steps": 8} for s in (0.25, 0.5, 1)]


def scores(arm: str, bits: float, n: int = 20) -> list[dict]:
    hard, own = random.Random(1), random.Random(arm)
    return [
        {
            "item": f"d{i}",
            "slice": "field",
            "document": f"d{i}",
            "bytes": 100,
            "nll": 100 * math.log(2) * (bits * hard.uniform(0.6, 1.4) + own.gauss(0, 0.02)),
            "arm": arm,
        }
        for i in range(n)
    ]


def records(largest: float, adapted: float, n: int = 20, ngram: float = 1.9) -> list[dict]:
    bits = {"base": 1.0, "adapted": adapted, "n-grams": ngram}
    bits |= {"scratch 0.25": largest + 0.6, "scratch 0.5": largest + 0.3, "scratch 1": largest}
    return [r for arm, value in bits.items() for r in scores(arm, value, n)]


def test_the_law_gives_its_published_figures() -> None:
    """At 106 million weights a megabyte is worth about 256 more, 100 kB about 1,700 times, 10 MB about 40 times."""
    assert data_multiple(1e6, 106e6) == pytest.approx(257, rel=0.02)
    assert data_multiple(1e5, 106e6) == pytest.approx(1700, rel=0.02)
    assert data_multiple(1e7, 106e6) == pytest.approx(40, rel=0.02)


def test_pretraining_that_paid_is_said_with_all_figures() -> None:
    found = scratch(records(2.5, 0.8), SIZES, FACTS)
    assert [size["bits"] for size in found["sizes"]] == pytest.approx([3.1, 2.8, 2.5], rel=0.1)
    assert [size["tokens"] for size in found["sizes"]] == [2000, 4000, 8000]
    assert found["floors"] == {"ngram": pytest.approx(1.9, rel=0.1), "compressor": 2.1}
    assert found["ahead"]["ci_low"] > 0
    assert found["ahead"]["diff"] == pytest.approx(found["sizes"][-1]["bits"] - found["adapted_bits"])
    assert found["data_multiple"]["extrapolated"] is True
    assert found["sentence"].startswith("Pretraining paid: on 20 held-out documents the same architecture from random")
    assert "8,000 tokens of the same text" in found["sentence"]
    assert "do not even reach counting or compressing" in found["sentence"]
    assert "extrapolated, it would take about 260 MB of such text" in found["sentence"]


def test_a_floor_that_was_passed_is_not_called_out_of_reach() -> None:
    assert "counting" not in scratch(records(1.5, 0.8), SIZES, FACTS)["sentence"]


def test_pretraining_that_did_not_pay_is_said_as_plainly() -> None:
    found = scratch(records(0.7, 0.9), SIZES, FACTS)
    assert found["sentence"].startswith("Pretraining did not pay: ")
    assert "extrapolated" not in found["sentence"]


def test_a_difference_that_may_be_zero_decides_nothing() -> None:
    assert scratch(records(0.8, 0.8), SIZES, FACTS)["sentence"].startswith("Cannot tell whether pretraining paid: ")


def test_few_documents_and_no_model_decide_nothing() -> None:
    assert "too few" in scratch(records(2.5, 0.8, n=9), SIZES, FACTS)["sentence"]
    none = scratch(records(2.5, 0.8), [], FACTS)
    assert (none["sizes"], none["ahead"]) == ([], None)
    assert none["floors"]["ngram"] == pytest.approx(1.9, rel=0.1)
    assert "no held-out text was scored" in scratch([], SIZES, FACTS)["sentence"]
