"""The base model's own answers as training documents."""

from metier.models.encoding import Encoder, Loss
from metier.models.generate import Answer
from metier.sources.examples import Example, Message
from metier.training.replay import (
    FAR,
    FAR_SHARE,
    FEWEST_ANSWERS,
    LIKELIEST,
    SHARES,
    TOKENS_PER_ANSWER,
    Kind,
    default_share,
    kind_of,
    plan_replay,
    replay_documents,
    share_of_yours,
)
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


def written(tokens: int, share: float, kind: Kind = "answers", yours: float = 0.0, available: int = 500) -> list[int]:
    found = plan_replay(tokens, share, yours, kind, available)
    return [found.answers, found.likeliest]


def test_as_much_is_written_as_is_seen_about_once_within_what_there_is() -> None:
    tokens = TOKENS_PER_ANSWER
    assert written(1000 * tokens, 0.1) == [100, LIKELIEST]
    assert written(10**9, 0.1) == [500, LIKELIEST]
    assert written(100, 0.1) == [FEWEST_ANSWERS, FEWEST_ANSWERS]
    assert written(100, 0.1, available=5) == [5, 5]


def test_without_replay_nothing_is_written() -> None:
    assert written(10**6, 0.0) == [0, 0]


def test_a_field_of_plain_text_replays_few_answers_and_none_of_the_likeliest() -> None:
    assert written(1000 * TOKENS_PER_ANSWER, 0.1, "text") == [100, 0]
    assert default_share("text", 1.0) < default_share("answers", 1.0)


def test_the_users_own_conversations_take_the_place_of_what_the_base_writes_and_texts_half_of_it() -> None:
    assert [share_of_yours(kind) for kind in (None, "text", "answers", "chat")] == [0.0, 0.5, 1.0, 1.0]
    assert written(1000 * TOKENS_PER_ANSWER, 0.1, yours=1.0) == [0, 0]
    assert written(1000 * TOKENS_PER_ANSWER, 0.1, "text", yours=0.5) == [50, 0]


def turns(n: int, text: str = "word") -> Example:
    messages = [m for _ in range(n) for m in (Message("user", "why?"), Message("assistant", text))]
    return Example("e", "f", 1, "e", messages=tuple(messages))


def test_the_kind_of_the_data_is_that_of_most_of_its_learned_text() -> None:
    text = Example("t", "f", 1, "t", text="x" * 100)
    assert kind_of([text, turns(1)]) == "text"
    assert kind_of([text, turns(1, "y" * 101)]) == "answers"
    assert kind_of([text, turns(1), turns(2, "y" * 60)]) == "chat"


def test_a_far_field_has_the_largest_share() -> None:
    for kind, share in SHARES.items():
        assert default_share(kind, 0.8) == share
        assert default_share(kind, FAR + 0.1) == FAR_SHARE
