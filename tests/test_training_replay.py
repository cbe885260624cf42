"""The base model's own answers as training documents."""

from metier.models.encoding import Encoder, Loss
from metier.models.generate import Answer
from metier.training.replay import FEWEST_REQUESTS, TOKENS_PER_ANSWERED_REQUEST, n_requests, replay_documents
from tiny import tiny_tokenizer

ENCODER = Encoder(tiny_tokenizer(), 512)


def test_an_answer_that_ended_teaches_its_end_and_one_that_was_cut_does_not() -> None:
    ended, cut = replay_documents(
        ENCODER, [Answer("why?", "the answer", 3, True), Answer("why?", "the answer", 3, False)]
    )
    assert ended.ids == cut.ids
    assert ended.loss[-1] == Loss.END
    assert Loss.END not in cut.loss
    assert cut.loss.count(Loss.TEXT) == ended.loss.count(Loss.TEXT) == len(ENCODER.text_ids("the answer"))


def test_an_empty_answer_is_left_out_and_the_others_keep_their_numbers() -> None:
    found = replay_documents(ENCODER, [Answer("why?", "", 1, True), Answer("who?", "on", 2, True)])
    assert [d.item for d in found] == ["replay:2"]


def test_requests_are_as_many_as_are_seen_about_once_within_what_there_is() -> None:
    tokens = TOKENS_PER_ANSWERED_REQUEST
    assert n_requests(1000 * tokens, 0.1, available=500) == 100
    assert n_requests(10**9, 0.1, available=500) == 500
    assert n_requests(100, 0.1, available=500) == FEWEST_REQUESTS
    assert n_requests(100, 0.1, available=5) == 5


def test_without_replay_nothing_is_asked() -> None:
    assert n_requests(10**6, 0.0, available=500) == 0
