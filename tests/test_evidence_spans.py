"""The bits of a span are those of its characters, however a tokenizer cuts them."""

import math

import pytest

from metier.errors import DataError
from metier.evidence.jargon.spans import Surprise, scored_passages, span_bits

TEXT = "a seizure"
NATS = math.log(2)


def record(ends: list[int], bits: list[float], item: str = "i") -> dict[str, object]:
    return {"item": item, "ends": ends, "nll": [b * NATS for b in bits]}


def test_a_token_that_straddles_gives_the_share_of_its_characters() -> None:
    tokens = record([1, 5, 9], [2.0, 8.0, 4.0])  # "a", " sei", "zure"
    assert span_bits(tokens, 2, 9) == pytest.approx(8 * 3 / 4 + 4)
    assert span_bits(tokens, 0, 9) == pytest.approx(14)
    assert span_bits(tokens, 3, 4) == pytest.approx(2)


def test_an_empty_span_has_no_bits() -> None:
    assert span_bits(record([1, 9], [2.0, 8.0]), 4, 4) == 0


def test_spans_side_by_side_add_up() -> None:
    tokens = record([2, 3, 7, 9], [1.0, 5.0, 0.25, 3.0])
    whole = span_bits(tokens, 0, 9)
    assert sum(span_bits(tokens, i, i + 1) for i in range(9)) == pytest.approx(whole) == pytest.approx(9.25)


def test_the_tokens_of_one_character_count_as_one() -> None:
    """Three tokens for the bytes of 終 end at the same character; none of their bits goes to a neighbour."""
    tokens = record([1, 2, 2, 2, 3], [1.0, 2.0, 3.0, 4.0, 7.0])
    assert [span_bits(tokens, i, i + 1) for i in range(3)] == pytest.approx([1.0, 9.0, 7.0])


def test_a_token_without_characters_at_the_start_belongs_to_the_first_character() -> None:
    assert span_bits(record([0, 1, 2], [5.0, 1.0, 1.0]), 0, 1) == pytest.approx(6)


def test_two_tokenizers_that_cut_differently_are_compared_over_the_same_characters() -> None:
    whole, pieces = record([9], [9.0]), record(list(range(1, 10)), [1.0] * 9)
    assert span_bits(whole, 2, 6) == pytest.approx(span_bits(pieces, 2, 6)) == pytest.approx(4)


def test_tokens_that_touch_a_span_are_counted() -> None:
    surprise = Surprise.of(record([1, 5, 9], [1.0, 1.0, 1.0]))
    assert [surprise.pieces(*span) for span in ((2, 9), (0, 1), (5, 9), (4, 6))] == [2, 1, 1, 2]


def test_text_that_was_not_scored_is_not_measured() -> None:
    surprise = Surprise.of(record([1, 5], [1.0, 1.0]))
    assert surprise.scored == 5
    assert Surprise.of(record([], [])).scored == 0


@pytest.mark.parametrize(
    ("ends", "bits"),
    [([1, 5], [1.0]), ([5, 1], [1.0, 1.0]), ([1, 10], [1.0, 1.0]), ([1, 5], [1.0, math.nan]), ([-1, 5], [1.0, 1.0])],
)
def test_scores_that_do_not_fit_the_text_are_refused(ends: list[int], bits: list[float]) -> None:
    passages = [{"item": "i", "document": "d", "text": TEXT}]
    with pytest.raises(DataError, match="Item 'i' has token scores that do not fit"):
        scored_passages(passages, [record(ends, bits)], [record([9], [1.0])])


def test_a_passage_without_scores_of_one_model_is_refused() -> None:
    passages = [{"item": "i", "document": "d", "text": TEXT}]
    with pytest.raises(DataError, match="no token scores of the adapted model"):
        scored_passages(passages, [record([9], [1.0])], [record([9], [1.0], "other")])


def test_what_both_models_were_scored_on_is_the_shorter_of_the_two() -> None:
    passages = [{"item": "i", "document": "d", "text": TEXT}]
    (read,) = scored_passages(passages, [record([9], [1.0])], [record([1, 5], [1.0, 1.0])])
    assert read.scored == 5
