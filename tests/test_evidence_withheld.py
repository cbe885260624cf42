"""A leak takes its items out of the gain, and the claim of its slice; a loss that is sure stays a loss."""

import json

import pytest

from metier.evidence.gain import gain
from metier.evidence.verdict import decide
from metier.evidence.withheld import clean_items, leak_reasons, withhold
from metier.sources.leaks import Leak, Leaks
from test_evidence_gain import arms
from test_evidence_verdict import general, held_out


def test_the_gain_is_computed_on_the_items_that_do_not_leak():
    base, adapted = arms(saved=0.1)
    flattered = [{**r, "nll": r["nll"] / 10} if i < 10 else r for i, r in enumerate(adapted)]
    found = [Leak(str(r["item"]), "field", 1.0, "t") for r in base[:10]]
    leaks = Leaks(held_out=found, measured={"held_out": len(base)})
    dirty = gain(base, flattered)
    clean = gain(clean_items(base, leaks), clean_items(flattered, leaks))
    assert dirty["relative"] > 1.3 * clean["relative"]
    assert clean == gain(base[10:], adapted[10:])
    assert leak_reasons(leaks, 10) == [
        "The gain leaves out 10 held-out items, whose texts stand in the training text as well."
    ]


@pytest.mark.parametrize(
    ("leak", "withheld"),
    [
        ("text/news", {"text", "text/news"}),
        ("chat", {"chat/good answers", "chat/own answers", "answers/repetition", "answers/ended", "answers/length"}),
        ("choices", {"choices"}),
    ],
)
@pytest.mark.parametrize("how", ["general", "replay"])
def test_a_slice_that_was_trained_on_is_not_called_kept(leak, withheld, how):
    leaks = Leaks(**{how: [Leak("x", leak, 1.0, "t")]})
    kept = general()
    found = withhold(kept, leaks, {"x"})
    assert {one["name"] for one in found["slices"] if one["passed"] is None} == withheld
    assert found["passed"] is None
    verdict = decide(held_out(saved=0.2), found)
    assert verdict["decision"] == "cannot_tell"
    assert "was trained on" in verdict["sentence"]
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict
    assert withhold(kept, leaks, {"other items"}) == kept


def test_a_sure_loss_of_a_leaked_slice_is_still_a_loss():
    found = withhold(general({"text/news": 0.05}), Leaks(general=[Leak("x", "text/news", 1.0, "t")]), {"x"})
    assert decide(held_out(saved=0.2), found)["decision"] == "forgot"


def test_a_benchmark_that_was_trained_on_is_named():
    found = [Leak(f"exam.jsonl:{line}", "exam.jsonl", 1.0, "t") for line in (1, 2)]
    leaks = Leaks(benchmarks=found, measured={"benchmarks": 5})
    assert leak_reasons(leaks, 0) == [
        "2 of the rows of exam.jsonl stand in the training text: a score on it is no evidence."
    ]
