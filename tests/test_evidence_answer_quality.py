"""Answers against references: values worked out by hand, and comparisons paired by question."""

import pytest

from metier.errors import DataError
from metier.evidence.full.answer_quality import answer_quality, chrf, exact_match, token_f1
from metier.evidence.statistics import mcnemar


def test_the_same_words_match_whatever_their_case_and_punctuation() -> None:
    assert exact_match("Red skin.", "red   skin")
    assert not exact_match("skin red", "red skin")
    assert not exact_match("", "red skin")


def test_f1_by_hand() -> None:
    """Two of three words given are among the four wanted: 2 * 2 / (3 + 4)."""
    assert token_f1("red red spots", "red spots on skin") == pytest.approx(4 / 7)
    assert token_f1("the the the", "the skin") == pytest.approx(2 / 5)  # a word counts as often as both have it
    assert token_f1("the the", "the the skin") == pytest.approx(4 / 5)
    assert token_f1("a b", "c d") == 0
    assert token_f1("", "") == 1
    assert token_f1("", "c") == 0


def test_chrf_by_hand() -> None:
    """'abcd' for 'abd': letters 3 of 4 and 3 of 3, pairs 1 (ab) of 3 and of 2, threes 0; mean precision
    (3/4 + 1/3 + 0) / 3 = 13/36, mean recall (1 + 1/2 + 0) / 3 = 1/2, F2 = 5 P R / (4 P + R)."""
    precision, recall = 13 / 36, 1 / 2
    assert chrf("ab cd", "a bd") == pytest.approx(5 * precision * recall / (4 * precision + recall))
    assert chrf("skin", "skin") == 1
    assert chrf("xyz", "skin") == 0
    assert chrf("", "skin") == 0
    assert chrf(" ", "") == 1


def test_recall_weighs_more_than_precision() -> None:
    assert chrf("red skin and more", "red skin") > chrf("red", "red skin")


def record(arm: str, item: int, answer: str, reference: str = "red skin") -> dict[str, object]:
    return {"arm": arm, "item": f"q{item}", "document": f"d{item}", "reference": reference, "answer": answer}


def test_arms_are_compared_question_by_question() -> None:
    base = [record("base", i, "red skin" if i < 2 else "my") for i in range(8)]
    adapted = [record("adapted", i, "red skin" if i != 0 else "my") for i in range(8)]
    found = answer_quality([*base, *reversed(adapted)], "base")
    of_base, of_adapted = found["arms"]
    assert (of_base["name"], of_base["exact"], of_base["exact_p"], of_base["f1_diff"]) == ("base", 0.25, 1.0, 0.0)
    assert (of_adapted["exact"], of_adapted["f1"], of_adapted["chrf"]) == (7 / 8, 7 / 8, 7 / 8)
    lost, won = [True, *[False] * 6], [False, *[True] * 6]
    assert of_adapted["exact_p"] == pytest.approx(mcnemar(lost, won))
    assert of_adapted["f1_diff"] == pytest.approx(5 / 8)
    assert of_adapted["f1_ci_low"] < 5 / 8 < of_adapted["f1_ci_high"]
    assert (found["n_items"], found["n_documents"], found["compared_with"]) == (8, 8, "base")


def test_arms_of_different_questions_are_not_compared() -> None:
    with pytest.raises(DataError, match="q1"):
        answer_quality([record("base", 0, "a"), record("base", 1, "a"), record("adapted", 0, "a")], "base")
