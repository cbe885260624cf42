"""Counted n-grams: the probabilities of a hand computation, and all of them together one."""

import math

import numpy as np
import pytest

from metier.evidence.full import ngrams
from metier.evidence.full.ngrams import NgramModel
from metier.models.encoding import Encoded, Loss
from tiny import document, random_ids

VOCABULARY = 4  # 0 opens a text


def counted(*texts: tuple[int, ...], order: int = 2, vocabulary: int = VOCABULARY) -> NgramModel:
    return NgramModel([document(ids) for ids in texts], vocabulary, order)


def probabilities(model: NgramModel, *ids: int) -> list[float]:
    return np.exp(-model.foretell(document(ids)).nll).tolist()


def test_two_orders_by_hand() -> None:
    """0 1 2 1 3. Before 1 stand two different tokens, before 2 and 3 one each: (2 - 1) / 4, (1 - 0.5) / 4, and half of
    all is freed for the uniform guess of 1/4. After 1 come 2 and 3, once each, so half is freed for those."""
    model = counted((0, 1, 2, 1, 3))
    one, two, three = 0.25 + 0.5 / 4, 0.125 + 0.5 / 4, 0.125 + 0.5 / 4
    assert probabilities(model, 0, 1, 2, 3) == pytest.approx([0.5 + 0.5 * one, 0.25 + 0.5 * two, 0.5 * three])
    assert probabilities(model, 0, 1, 1) == pytest.approx([0.5 + 0.5 * one, 0.5 * one])


def test_shorter_contexts_are_counted_by_what_stands_before_them_and_not_by_how_often_they_occur() -> None:
    """0 1 2 1 2 3: 2 comes twice and always after 1, so alone it is as likely as 3; 3 is the context of nothing."""
    model = counted((0, 1, 2, 1, 2, 3))
    assert probabilities(model, 0, 3, 1)[1] == pytest.approx((2 - 1) / 4 + 0.5 / 4)
    assert probabilities(model, 0, 3, 2)[1] == pytest.approx((1 - 0.5) / 4 + 0.5 / 4)
    assert probabilities(model, 0, 3, 3)[1] == pytest.approx((1 - 0.5) / 4 + 0.5 / 4)


def test_discounts_are_those_of_the_counts_of_counts() -> None:
    """Chen & Goodman: with 4, 2, 1 and 1 n-grams of the counts 1 to 4, Y = 4 / 8."""
    counts = np.asarray([1, 1, 1, 1, 2, 2, 3, 4])
    assert ngrams._discounts(counts) == pytest.approx((1 - 2 * 0.5 * 2 / 4, 2 - 3 * 0.5 * 1 / 2, 3 - 4 * 0.5 * 1 / 1))
    assert ngrams._discounts(np.asarray([1, 1, 2])) == ngrams.WITHOUT_COUNTS
    assert ngrams._discounts(np.asarray([1, 2, 3, 3, 3, 4])) == ngrams.WITHOUT_COUNTS  # 2 - 3 (1 / 3) 3 is negative


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_probabilities_after_any_context_add_up_to_one(order: int) -> None:
    model = counted(
        *((0, *(int(i) % 7 + 1 for i in random_ids(60, seed))) for seed in range(8)), order=order, vocabulary=9
    )
    for context in [(0,), (0, 1), (0, 1, 2, 3), (0, 8, 8), (0, 3, 1, 4, 1, 5, 2, 6)]:
        after = [probabilities(model, *context, token)[-1] for token in range(9)]
        assert sum(after) == pytest.approx(1)
        assert min(after) > 0


def test_what_was_read_is_foretold_better_than_by_a_uniform_guess_and_better_the_longer_the_context() -> None:
    text = (0, 1, 2, 3, 1, 3, 2, 1, 2, 3, 3, 1, 2, 3, 1, 3)
    nats = [counted(text, text, order=order).foretell(document(text)).nll.mean() for order in (1, 2, 4)]
    assert math.log(VOCABULARY) > nats[0] > nats[1] > nats[2]


def test_a_token_says_how_much_of_its_context_the_training_text_holds() -> None:
    model = counted((0, 1, 2, 3, 1), order=4, vocabulary=5)
    assert model.foretell(document((0, 1, 2, 1, 4, 2))).matched.tolist() == [1, 2, 3, 1, 0]


def test_tokens_without_loss_are_context_and_are_not_counted() -> None:
    asked = document((0, 1, 2, 3), n_prompt=3)  # 3 alone carries loss
    model = NgramModel([asked], VOCABULARY, 3)
    assert model.n_tokens == 1
    after_two, after_one = (
        np.exp(-model.foretell(d).nll)[-1] for d in (document((0, 1, 2, 3)), document((0, 3, 1, 3)))
    )
    assert after_two > after_one
    assert np.exp(-model.foretell(document((0, 3, 3, 1))).nll)[-1] < 1 / VOCABULARY
    assert np.exp(-model.foretell(document((0, 1, 2))).nll)[-1] < 1 / VOCABULARY


def test_the_end_token_is_counted_but_not_scored() -> None:
    ends = Encoded("d", (0, 1, 2), (Loss.NONE, Loss.TEXT, Loss.END), 1)
    assert NgramModel([ends], VOCABULARY).n_tokens == 2
    assert len(NgramModel([ends], VOCABULARY).foretell(ends).nll) == 1


def test_texts_beyond_the_bound_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngrams, "MOST_TOKENS", 9)
    assert counted((0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3)).n_tokens == 6


def test_without_any_text_every_token_is_as_likely() -> None:
    assert probabilities(NgramModel([], VOCABULARY), 0, 1, 2) == pytest.approx([1 / VOCABULARY] * 2)
