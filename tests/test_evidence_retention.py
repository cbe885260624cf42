import json
import math
from itertools import chain

import numpy as np
import pytest

from metier.errors import DataError
from metier.evidence.retention import choice_probabilities, retention
from metier.evidence.statistics import bits_difference


def scores(name, n=40, lost=0.0, noise=0.004, seed=0, bits=1.0):
    """Paired score records of one slice; `lost` is the share of bits added by the adapted model."""
    rng = np.random.default_rng(seed)
    base, adapted = [], []
    for i in range(n):
        n_bytes = int(rng.integers(200, 900))
        nll = math.log(2) * bits * n_bytes * rng.lognormal(0, 0.2)
        one = {"item": f"{name}-{i}", "slice": name, "document": f"{name}-{i}", "group": name, "bytes": n_bytes}
        base.append({**one, "nll": nll})
        adapted.append({**one, "nll": nll * (1 + lost + noise * rng.standard_normal())})
    return base, adapted


def choices(n=300, lost=0.0, noise=0.1, seed=0):
    """Four choices an item, the first right; `lost` nats come off the right one's lead."""
    rng = np.random.default_rng(seed)
    base, adapted = [], []
    for i in range(n):
        nll = 20 + rng.normal(0, 1, 4) - np.array([1.0, 0, 0, 0])
        one = {
            "item": f"c{i}",
            "slice": f"choices/{'ab'[i % 2]}",
            "bytes": rng.integers(15, 25, 4).tolist(),
            "label": 0,
        }
        base.append({**one, "nll": nll.tolist()})
        adapted.append({**one, "nll": (nll + noise * rng.normal(0, 1, 4) + np.array([lost, 0, 0, 0])).tolist()})
    return base, adapted


def answers(n=40, loops=0, cut=0, longer=1.0):
    text = "The sea is wide and grey and the gulls follow boats home over water"
    record = {"answer": text, "tokens": 16, "good_tokens": 16, "ended": True}
    base = [{"item": f"q{i}", "request": f"ask {i}", **record} for i in range(n)]
    adapted = [
        {
            **record,
            "answer": "vast, " * 30 if i < loops else text,
            "ended": i >= cut,
            "tokens": round(16 * longer) + i % 2,
        }
        for i, record in enumerate(base)
    ]
    return base, adapted


NOTHING = ([], [])


def judge(score_arms=NOTHING, choice_arms=NOTHING, answer_arms=NOTHING):
    found = retention(*score_arms, *choice_arms, *answer_arms)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def only(found, name):
    return next(one for one in found["slices"] if one["name"] == name)


def test_a_loss_surely_within_the_margin_passes():
    found = judge(scores("text/news", lost=0.002))
    one = only(found, "text/news")
    assert found["passed"] is one["passed"] is True
    assert one["margin"] == pytest.approx(0.02 * one["base"])
    assert one["lower_95"] < one["diff"] < one["upper_95"] < one["margin"]


def test_all_registers_together_have_half_the_margin_of_one():
    news, code = scores("text/news", lost=0.014), scores("text/code", lost=0.014)
    found = judge((news[0] + code[0], news[1] + code[1]))
    assert [one["name"] for one in found["slices"]] == ["text", "text/news", "text/code"]
    assert [one["passed"] for one in found["slices"]] == [False, True, True]
    together = only(found, "text")
    assert together["margin"] == pytest.approx(0.01 * together["base"])
    assert together["n_items"] == 2 * only(found, "text/news")["n_items"]


def test_a_loss_surely_beyond_the_margin_fails():
    found = judge(scores("text/news", lost=0.03))
    assert found["passed"] is only(found, "text/news")["passed"] is False


def test_no_significant_loss_is_not_yet_retention():
    found = judge(scores("text/news", n=6, lost=0.0, noise=0.05))
    assert found["passed"] is only(found, "text/news")["passed"] is None


def test_one_document_cannot_tell():
    one = only(judge(scores("text/news", n=1)), "text/news")
    assert one["passed"] is one["upper_95"] is None


def test_identical_arms_lose_exactly_nothing():
    base, _ = scores("text/news", n=3)
    one = only(judge((base, base)), "text/news")
    assert (one["diff"], one["lower_95"], one["upper_95"], one["passed"]) == (0.0, 0.0, 0.0, True)


def test_one_failed_slice_fails_the_whole_and_an_open_one_leaves_it_open():
    good, open_, bad = scores("text/news"), scores("text/code", n=5, noise=0.05), scores("text/dialogue", lost=0.05)
    assert judge((good[0] + open_[0], good[1] + open_[1]))["passed"] is None
    assert judge((good[0] + open_[0] + bad[0], good[1] + open_[1] + bad[1]))["passed"] is False


def test_without_general_records_nothing_is_claimed():
    assert judge() == {"margin": 0.01, "passed": None, "slices": []}


def test_the_field_is_not_a_general_slice():
    assert judge(scores("field", lost=-0.2))["slices"] == []


def test_failing_is_corrected_for_the_number_of_slices_and_passing_is_not():
    names = [f"text/{i}" for i in range(12)]
    lost = scores("text/x", n=20, lost=0.0246, noise=0.01)
    alone = only(judge(lost), "text/x")
    arms = [scores(name) for name in names]
    base, adapted = (list(chain(lost[arm], *(pair[arm] for pair in arms))) for arm in (0, 1))
    among = judge((base, adapted))
    assert alone["passed"] is False
    assert only(among, "text/x")["passed"] is None
    assert only(among, "text/0")["upper_95"] == only(judge(arms[0]), "text/0")["upper_95"]


def test_half_of_the_error_is_that_of_all_text_together_and_the_others_share_the_rest():
    """However many others there are, what calls the whole lost stays what it is."""
    two = [scores(f"text/{kind}", n=12, lost=0.0205, noise=0.012, seed=0) for kind in ("news", "code")]
    others = [scores(f"your {i}") for i in range(12)]
    few = judge(tuple(list(chain(*(pair[arm] for pair in two))) for arm in (0, 1)))
    many = judge(tuple(list(chain(*(pair[arm] for pair in (*two, *others)))) for arm in (0, 1)))
    assert (only(few, "text")["passed"], only(many, "text")["passed"]) == (False, False)
    loss = bits_difference([(a, b) for b, a in zip(*(two[0][i] + two[1][i] for i in (0, 1)), strict=True)], True)
    assert loss.lower(0.025) > only(few, "text")["margin"] > loss.lower(0.05 / 15)  # an equal share would not call it


UNLIKE = {"code": 0.05, "dialogue": 0.02, "news": 0.006, "narrative": 0.004, "instructions": 0.0}  # by register


def test_registers_that_lose_unlike_shares_are_no_noise_of_the_whole():
    """Text is read register by register: how far they lie apart says nothing of how sure the loss of all is."""
    arms = [scores(f"text/{kind}", n=4, lost=lost, seed=i) for i, (kind, lost) in enumerate(UNLIKE.items())]
    found = judge(tuple(list(chain(*(pair[arm] for pair in arms))) for arm in (0, 1)))
    pairs = [(a, b) for base, adapted in arms for b, a in zip(base, adapted, strict=True)]
    assert bits_difference(pairs).lower(0.04) < only(found, "text")["margin"]
    assert only(found, "text")["passed"] is False


def test_own_answers_have_an_absolute_margin_that_a_ruined_assistant_fails():
    name = "chat/own answers"
    healthy = only(judge(scores(name, n=30, bits=0.29, lost=0.03, noise=0.1)), name)
    ruined = only(judge(scores(name, n=30, bits=0.29, lost=0.58, noise=0.3)), name)
    assert healthy["margin"] == ruined["margin"] == 0.05
    assert healthy["passed"] is True
    assert ruined["passed"] is False


def test_good_answers_may_lose_twice_what_plain_text_may():
    one = only(judge(scores("chat/good answers", lost=0.014)), "chat/good answers")
    assert one["margin"] == pytest.approx(0.02 * one["base"])
    assert one["passed"] is True


def test_choices_of_one_length_get_the_models_own_probabilities():
    record = {"nll": [1.0, 2.0, 3.0, 3.0], "bytes": [7, 7, 7, 7], "label": 0}
    weights = np.exp([-1.0, -2.0, -3.0, -3.0])
    assert choice_probabilities(record) == pytest.approx(weights / weights.sum())


def test_a_short_choice_has_no_advantage():
    record = {"nll": [10.0, 20.0], "bytes": [5, 10], "label": 0}
    assert choice_probabilities(record) == pytest.approx([0.5, 0.5])


def test_choices_are_pooled_over_kinds_with_accuracies_beside_them():
    found = judge(choice_arms=choices())
    one = only(found, "choices")
    assert len(found["slices"]) == 1
    assert one["passed"] is True
    assert one["chance"] == 0.25
    assert [kind["n_items"] for kind in one["kinds"]] == [150, 150]
    assert 0.3 < one["accuracy_base"] < 0.4
    assert "McNemar" in one["note"]


def test_a_model_that_unlearned_the_right_choices_fails():
    one = only(judge(choice_arms=choices(lost=1.0)), "choices")
    assert one["passed"] is False
    assert one["accuracy_adapted"] < one["accuracy_base"]
    assert one["mcnemar_p"] < 0.001


def test_a_model_that_makes_no_difference_between_choices_is_not_right_by_ties():
    base, _ = choices(100)
    flat = [{**record, "nll": [float(b) for b in record["bytes"]], "label": 3} for record in base]
    assert only(judge(choice_arms=(flat, flat)), "choices")["accuracy_adapted"] == 0.0


def test_a_choice_item_without_its_label_is_refused():
    base, adapted = choices(3)
    base[1]["label"] = adapted[1]["label"] = 4
    with pytest.raises(DataError, match="'c1'"):
        retention([], [], base, adapted, [], [])


def test_healthy_answers_pass():
    found = judge(answer_arms=answers())
    assert [one["name"] for one in found["slices"]] == ["answers/repetition", "answers/ended", "answers/length"]
    assert found["passed"] is True


def test_answers_that_loop_fail():
    one = only(judge(answer_arms=answers(loops=20)), "answers/repetition")
    assert one["passed"] is False
    assert one["adapted"] > 0.4


def test_a_dozen_healthy_answers_are_too_few_to_exclude_loops():
    assert only(judge(answer_arms=answers(n=12)), "answers/repetition")["passed"] is None


def test_answers_that_no_longer_end_fail():
    assert only(judge(answer_arms=answers(cut=20)), "answers/ended")["passed"] is False


@pytest.mark.parametrize("longer", [0.25, 4.0])
def test_answers_far_from_a_good_ones_length_fail_either_way(longer):
    one = only(judge(answer_arms=answers(longer=longer)), "answers/length")
    assert one["passed"] is False
    assert one["diff"] == pytest.approx(2.0, abs=0.2)
    assert one["adapted"] == pytest.approx(longer, rel=0.15)


def test_shorter_answers_are_no_harm_where_the_base_ran_into_the_limit():
    base, adapted = answers(longer=1.0)
    base = [{**record, "tokens": 64} for record in base]
    one = only(judge(answer_arms=(base, adapted)), "answers/length")
    assert one["passed"] is True
    assert one["diff"] == pytest.approx(-2.0, abs=0.1)


def test_each_model_is_as_long_as_a_good_answer_in_its_own_tokens():
    """With new tokens the same good answer has fewer, and so has one that is as long."""
    base, adapted = answers()
    adapted = [{**record, "tokens": 8, "good_tokens": 8} for record in adapted]
    one = only(judge(answer_arms=(base, adapted)), "answers/length")
    assert one["diff"] == 0
    assert one["passed"] is True


def test_answers_to_other_requests_are_not_compared():
    base, adapted = answers(3)
    adapted[0]["request"] = "another"
    with pytest.raises(DataError, match="request"):
        retention([], [], [], [], base, adapted)


def test_questions_that_the_base_only_guesses_cannot_show_a_loss_and_do_not_decide():
    base, adapted = choices(n=200, noise=0.1)
    for arm in (base, adapted):
        for i, record in enumerate(arm):
            record["label"] = i % 4  # the lead is the first choice's still
    found = judge(scores("text/news", lost=0.002), (base, adapted))
    one = only(found, "choices")
    assert (one["at_chance"], one["passed"]) == (True, None)
    assert "no better than chance" in one["note"]
    assert found["passed"] is True
    assert only(judge(choice_arms=choices(n=200)), "choices")["at_chance"] is False
