"""The best, the median and the worst passage, word by word."""

import math

import pytest

from metier.evidence.passage_view import MOST_WORDS, SHORTEST, passage_view


def arms(saved: list[float], n_words: int = SHORTEST):
    """One passage a saving, in bits of each word; the base needs 4 bits a word."""
    text = " ".join(["word"] * n_words)
    ends = [4 + 5 * i for i in range(n_words)]
    passages = [{"item": f"p{i}", "document": f"d{i}", "text": text} for i in range(len(saved))]
    base, adapted = (
        [{"item": f"p{i}", "ends": ends, "nll": [bits(one) * math.log(2)] * n_words} for i, one in enumerate(saved)]
        for bits in (lambda _: 4.0, lambda one: 4.0 - one)
    )
    return passages, base, adapted


def test_the_best_the_median_and_the_worst_are_shown_in_this_order():
    found = passage_view(*arms([1.0, 3.0, -1.0, 2.0, 0.0]))
    assert [(one["which"], one["item"]) for one in found] == [
        ("largest saving", "p1"),
        ("median", "p0"),
        ("worst", "p2"),
    ]
    first = found[0]
    assert first["words"][0] == {"text": "word ", "before": pytest.approx(4), "after": pytest.approx(1)}
    assert first["words"][-1]["text"] == "word"
    assert first["base"] == pytest.approx(4 * SHORTEST / (5 * SHORTEST - 1))


@pytest.mark.parametrize(("n", "which"), [(0, []), (1, ["largest saving"]), (2, ["largest saving", "worst"])])
def test_fewer_passages_are_shown_once_each(n, which):
    assert [one["which"] for one in passage_view(*arms([1.0] * n))] == which


def test_short_passages_are_passed_over_while_there_are_others():
    passages, base, adapted = arms([1.0, 1.0])
    short = {"item": "s", "document": "s", "text": "word"}
    scores = [{"item": "s", "ends": [4], "nll": [nll]} for nll in (9.0, 0.0)]
    found = passage_view([short, *passages], [scores[0], *base], [scores[1], *adapted])
    assert "s" not in {one["item"] for one in found}
    assert [one["item"] for one in passage_view([short], [scores[0]], [scores[1]])] == ["s"]


def test_words_and_their_bits_add_up_to_the_passage_and_a_long_one_is_cut():
    passages, base, adapted = arms([1.0], n_words=MOST_WORDS + 5)
    (one,) = passage_view(passages, base, adapted)
    assert (len(one["words"]), one["n_words"], one["cut"]) == (MOST_WORDS, MOST_WORDS + 5, True)
    passages, base, adapted = arms([1.0])
    passages[0]["text"] = "  " + passages[0]["text"]
    for record in (*base, *adapted):
        record["ends"] = [end + 2 for end in record["ends"]]
    (one,) = passage_view(passages, base, adapted)
    n_bytes = len(passages[0]["text"])
    assert sum(word["before"] for word in one["words"]) == pytest.approx(one["base"] * n_bytes)
