"""How finely the tokenizer cuts a field, against general text."""

import pytest

from metier.models.encoding import Encoder
from metier.models.vocabulary import MOST_SHOWN, vocabulary
from tiny import tiny_tokenizer

ENCODER = Encoder(tiny_tokenizer(), 512)
GENERAL = ["the question and the answer"] * 3
RARE = "xyloquartz zymbox"


def test_a_field_of_unknown_words_has_fewer_bytes_a_token_and_is_more_fragmented() -> None:
    found = vocabulary(ENCODER, [RARE], [], GENERAL)
    of_field, of_general = found["bytes_per_token"]["field"], found["bytes_per_token"]["general"]
    assert of_field == len(RARE) / len(ENCODER.text_ids(RARE))
    assert of_field < of_general
    assert found["fragmentation"] == pytest.approx(of_general / of_field)
    assert vocabulary(ENCODER, GENERAL, [], GENERAL)["fragmentation"] == pytest.approx(1)


def test_terms_are_counted_once_in_tokens_as_they_stand_in_a_sentence() -> None:
    found = vocabulary(ENCODER, [RARE], ["zymbox", "the answer", "zymbox"], GENERAL)
    sizes = [len(ENCODER.text_ids(f" {term}")) for term in ("zymbox", "the answer")]
    assert found["terms"] == 2
    assert found["tokens_per_term"] == sum(sizes) / 2
    assert found["most_split"][0] == ("zymbox", sizes[0])
    assert found["tokens_per_word"]["terms"] > found["tokens_per_word"]["general"]


def test_without_terms_nothing_is_said_of_terms_and_of_many_the_most_split_are_shown() -> None:
    assert set(vocabulary(ENCODER, [RARE], [], GENERAL)) == {"bytes_per_token", "fragmentation"}
    many = [f"zym{letter}box" for letter in "abcdefghijklmnopqrstuvwxyz"]
    assert len(vocabulary(ENCODER, [RARE], many, GENERAL)["most_split"]) == MOST_SHOWN
