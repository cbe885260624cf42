import json
from itertools import chain

import numpy as np
import pytest

from metier.evidence.gain import gain
from metier.evidence.retention import retention
from metier.evidence.verdict import REQUIRED_SLICES, decide
from test_evidence_gain import arms
from test_evidence_retention import answers, choices, scores

TEXTS = ("text/encyclopaedia", "text/news", "text/dialogue", "text/narrative", "text/instructions", "text/code")


def general(lost=None, without=(), n=40, noise=0.004, seed=0, **answer_changes):
    """The retention of a model that lost `lost[name]` of each slice."""
    lost = lost or {}
    names = [name for name in (*TEXTS, "chat/good answers", "chat/own answers") if name not in without]
    pairs = [scores(name, n=n, lost=lost.get(name, 0.0), noise=noise, seed=seed + i) for i, name in enumerate(names)]
    base, adapted = (list(chain.from_iterable(pair[arm] for pair in pairs)) for arm in (0, 1))
    answer_arms = ([], []) if "answers" in without else answers(**answer_changes)
    return retention(base, adapted, *choices(lost=lost.get("choices", 0.0), seed=seed), *answer_arms)


def held_out(**how):
    return gain(*arms(**how))


def test_a_gain_with_every_slice_kept_is_adapted():
    verdict = decide(held_out(saved=0.21), general({"text/code": 0.005}))
    assert verdict["decision"] == "adapted"
    assert verdict["sentence"].startswith(
        "Adapted. On 60 held-out documents of the field the model needs 21 % fewer bits (95 % "
    )
    assert "six kinds of general text" in verdict["sentence"]
    assert "worst: source code, +0.4" in verdict["sentence"]
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict


def test_a_model_ruined_as_an_assistant_forgot_although_its_plain_text_improved():
    verdict = decide(held_out(saved=0.25), general({**dict.fromkeys(TEXTS, -0.01), "chat/own answers": 0.3}))
    assert verdict["decision"] == "forgot"
    assert "its own answers to general requests" in verdict["sentence"]
    assert "25 % fewer bits" in verdict["sentence"]


def test_no_gain_and_forgotten_is_forgot():
    assert decide(held_out(saved=0.0), general({"text/news": 0.05}))["decision"] == "forgot"


@pytest.mark.parametrize("name", REQUIRED_SLICES)
def test_without_chat_or_answers_no_model_is_adapted(name):
    kept = general()
    kept["slices"] = [one for one in kept["slices"] if one["name"] != name]
    verdict = decide(held_out(), kept)
    assert verdict["decision"] == "cannot_tell"
    assert "not measured" in verdict["sentence"]


def test_a_gain_without_any_retention_cannot_be_judged():
    assert decide(held_out(), None)["decision"] == "cannot_tell"


def test_an_undecided_slice_cannot_tell_and_says_how_many_items_would():
    kept = general()
    open_ = only_slice(retention(*scores("text/legal", n=6, noise=0.04), [], [], [], []))
    verdict = decide(held_out(), {**kept, "slices": [*kept["slices"], open_]})
    assert verdict["decision"] == "cannot_tell"
    assert "the items cannot settle legal" in verdict["sentence"]
    needed = int(verdict["reasons"][0].split(" items instead of 6")[0].split()[-1])
    again = [
        retention(*scores("text/legal", n=needed, lost=lost(open_), noise=0.04, seed=s), [], [], [], [])
        for s in range(60)
    ]
    assert 0.6 < np.mean([found["passed"] is True for found in again]) < 0.97


def lost(one):
    return one["diff"] / one["base"]


def only_slice(found):
    assert found["slices"][0]["passed"] is None
    return found["slices"][0]


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        (0.0, "no better than before"),
        (-0.1, "worse than before (−9.8 %"),
        (0.012, "better by less than the 2 % worth having"),
    ],
)
def test_a_gain_surely_smaller_than_one_worth_having_is_none(saved, words):
    verdict = decide(held_out(saved=saved, noise=0.01), general())
    assert verdict["decision"] == "no_gain"
    assert words in verdict["sentence"]
    assert verdict["sentence"].count("95 % interval") == 1


def test_an_open_slice_does_not_hide_that_nothing_was_gained():
    assert decide(held_out(saved=0.0), general(n=4, noise=0.1))["decision"] == "no_gain"


def test_a_training_that_changed_nothing_is_no_gain_however_few_the_documents():
    base, _ = arms(4)
    verdict = decide(gain(base, base), None)
    assert verdict["decision"] == "no_gain"
    assert "the training changed nothing" in verdict["sentence"]


def test_nine_documents_cannot_tell_and_the_reason_says_how_many_could():
    verdict = decide(held_out(n=9, noise=0.15), general())
    assert verdict["decision"] == "cannot_tell"
    assert verdict["sentence"].startswith("Cannot tell. Nine held-out documents cannot show a gain under ")
    assert "would show a gain of 2 %" in verdict["reasons"][1]


def test_one_document_cannot_tell():
    assert decide(held_out(n=1), general())["decision"] == "cannot_tell"


def test_an_interval_from_nothing_to_worth_having_cannot_tell():
    verdict = decide(held_out(n=20, saved=0.0, noise=0.08), general())
    assert verdict["decision"] == "cannot_tell"
    assert "may be nothing or worth having" in verdict["sentence"]


def test_the_number_of_documents_asked_for_would_decide():
    few = held_out(n=30, saved=0.02, noise=0.08, seed=2)
    assert decide(few, general())["decision"] == "cannot_tell"
    needed = int(decide(few, general())["reasons"][1].split()[1])
    decided = [decide(held_out(n=needed, saved=0.02, noise=0.08, seed=s), None) for s in range(40)]
    assert np.mean(["needs" in verdict["sentence"] for verdict in decided]) > 0.7


def test_rows_are_called_rows():
    assert "On 60 held-out rows" in decide(held_out(), general(), unit="row")["sentence"]


def test_no_sentence_holds_a_raw_number_or_a_slices_code_name():
    for kept in (general(), general({"choices": 1.0}), general(loops=30, cut=30, longer=5.0), None):
        sentence = decide(held_out(), kept)["sentence"]
        assert "/" not in sentence
        assert "None" not in sentence
        assert "-" not in sentence.replace("held-out", "").replace("multiple-choice", "")


def noisy_retention(seed):
    """Two arms of the same ability: every score, choice and answer differs by noise alone."""
    rng = np.random.default_rng(1000 + seed)
    base_answers, adapted_answers = answers(40)
    for record in base_answers + adapted_answers:
        record["ended"] = bool(rng.random() < 0.9)
        record["tokens"] = int(rng.lognormal(3, 0.4))
        record["answer"] = "vast, " * 20 if rng.random() < 0.03 else record["answer"]
    names = (*TEXTS, "chat/good answers", "chat/own answers")
    pairs = [scores(name, n=30, noise=0.02, seed=100 * seed + i) for i, name in enumerate(names)]
    base, adapted = (list(chain.from_iterable(pair[arm] for pair in pairs)) for arm in (0, 1))
    return retention(base, adapted, *choices(100, noise=0.3, seed=seed), base_answers, adapted_answers)


def test_noise_alone_is_seldom_called_adapted_or_forgetful():
    n = 100
    kept = general()
    forgot = sum(decide(held_out(seed=seed), noisy_retention(seed))["decision"] == "forgot" for seed in range(n))
    adapted = sum(
        decide(held_out(n=30, saved=0.0, noise=0.08, seed=seed), kept)["decision"] == "adapted" for seed in range(n)
    )
    assert forgot <= 0.05 * n
    assert adapted <= 0.05 * n


def test_losses_that_reach_the_margin_everywhere_are_seldom_called_forgotten():
    n = 60
    at_margin = {**dict.fromkeys(TEXTS, 0.01), "chat/good answers": 0.02, "chat/own answers": 0.05}
    found = [general(at_margin, n=30, noise=0.01, seed=50 * seed)["passed"] for seed in range(n)]
    assert sum(passed is False for passed in found) <= 0.1 * n  # 5 % and the luck of sixty
    assert sum(passed is True for passed in found) == 0


def test_a_true_gain_of_three_percent_is_found_in_two_hundred_documents():
    kept = general()
    found = [decide(held_out(n=200, saved=0.03, noise=0.08, seed=s), kept)["decision"] for s in range(40)]
    assert found.count("adapted") >= 36


def test_a_slice_that_the_base_only_guesses_is_named_and_does_not_decide():
    kept = general()
    blind = [{**one, "at_chance": True, "passed": None} if one["name"] == "choices" else one for one in kept["slices"]]
    verdict = decide(held_out(saved=0.21), {**kept, "slices": blind})
    assert verdict["decision"] == "adapted"
    assert verdict["reasons"][-1].startswith("Multiple-choice questions: the base does no better than chance")
    assert "multiple-choice" not in verdict["sentence"]
