"""Retrieval finds what shares words with the query, in the training text only."""

import pytest

from metier.errors import DataError
from metier.evidence.full.retrieval import PASSAGE_TOKENS, Passages, pieces, whole_text
from metier.models.encoding import Encoder
from metier.sources.examples import Example, Message
from tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(tiny_tokenizer(), 512)


def text(name: str, content: str) -> Example:
    return Example(name, "f", 1, name, text=content)


HERNIA = text("hernia", "A hernia is tissue that bulges through a gap in the muscles.")
FEVER = text("fever", "Fever is a raised temperature of the body.")
RASH = Example("rash", "f", 1, "rash", messages=(Message("user", "What is a rash?"), Message("assistant", "Red skin.")))
HELD_OUT = text("held", "Scoliosis is a sideways curve of the spine.")


def test_the_passage_that_shares_the_rare_words_comes_first(encoder: Encoder) -> None:
    found = Passages([HERNIA, FEVER, RASH], {"held"}, encoder).top_passages("the TEMPERATURE of a fever", 2)
    assert [p.document for p in found] == ["fever", "hernia"]


def test_a_conversation_is_searched_by_its_question_and_its_answer(encoder: Encoder) -> None:
    passages = Passages([HERNIA, RASH], (), encoder)
    assert [p.text for p in passages.top_passages("skin", 1)] == ["What is a rash?\nRed skin."]
    assert whole_text(RASH) == "What is a rash?\nRed skin."


def test_held_out_text_is_never_found(encoder: Encoder) -> None:
    passages = Passages([HERNIA, FEVER], {"held"}, encoder)
    assert passages.top_passages("scoliosis sideways curve spine", 5) == []
    assert {p.document for p in passages.top_passages(HELD_OUT.text, 5)} <= {"hernia", "fever"}
    with pytest.raises(DataError, match="held is of the held-out document 'held'"):
        Passages([HERNIA, HELD_OUT], {"held"}, encoder)


def test_what_shares_no_word_is_not_filled_up_with_chance(encoder: Encoder) -> None:
    passages = Passages([HERNIA, FEVER, RASH], (), encoder)
    assert [p.document for p in passages.top_passages("rash", 3)] == ["rash"]
    assert passages.top_passages("", 3) == []


def test_passages_are_short_and_add_up_to_the_text(encoder: Encoder) -> None:
    long = "Über die Übelkeit – naïve « café » 🩺 終わり. " * 40
    cut = pieces(long, PASSAGE_TOKENS, encoder)
    assert "".join(cut) == long
    assert len(cut) > 3
    assert all(len(encoder.text_ids(piece)) <= PASSAGE_TOKENS + 2 for piece in cut)  # a letter may be cut in the middle
    passages = Passages([text("long", long), HERNIA], (), encoder)
    assert [p.text for p in passages.passages[:-1]] == cut
    assert passages.examples[passages.top_passages("muscles", 1)[0].example] is HERNIA


def test_text_without_words_cannot_be_searched(encoder: Encoder) -> None:
    with pytest.raises(DataError, match="no words to search for"):
        Passages([text("a", "… – !")], (), encoder)
