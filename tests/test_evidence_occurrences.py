"""Where terms stand, and which words around them are ordinary."""

from metier.evidence.jargon.occurrences import occurrences, ordinary_words, terms_in

TEXT = "The stem cells grow. Stem cell's wall: a cell (IL-6) and IL-6s; stem. Cell"
PASSAGES = [{"text": TEXT}]


def written(terms: list[str]) -> list[tuple[str, str]]:
    return [(one.name, TEXT[one.start : one.end]) for one in occurrences(PASSAGES, terms)]


def test_the_longest_term_is_found_in_every_form_and_never_over_a_sign() -> None:
    assert written(["cell", "stem cell", "IL-6"]) == [
        ("stem cell", "stem cells"),
        ("stem cell", "Stem cell's"),
        ("cell", "cell"),
        ("IL-6", "IL-6"),
        ("IL-6", "IL-6s"),
        ("cell", "Cell"),
    ]


def test_an_occurrence_knows_whether_its_term_was_met_before_in_the_text() -> None:
    assert [one.repeated for one in occurrences([{"text": "cell cell"}, {"text": "cells"}], ["cell"])] == [
        False,
        True,
        False,
    ]


def test_a_term_without_words_or_with_a_sign_stands_nowhere() -> None:
    assert occurrences([{"text": "a / b 12 PL/pgSQL"}], ["", "/", "12", "PL/pgSQL"]) == []


def test_two_spellings_of_one_term_are_one() -> None:
    assert written(["stem cells", "Stem cell"])[0] == ("stem cells", "stem cells")


def test_ordinary_words_are_common_ones_outside_of_every_term() -> None:
    text = "The kitchen holds the blood disease at home, and a kitchen holds haploinsufficiency."
    found = ordinary_words([{"text": text}], ["blood disease"], "en")
    assert [(text[one.start : one.end], one.repeated) for one in found] == [
        ("kitchen", False),
        ("holds", False),
        ("home", False),
        ("kitchen", True),
        ("holds", True),
    ]


def test_a_word_of_a_term_is_nowhere_an_ordinary_one() -> None:
    assert ordinary_words([{"text": "Blood and home"}], ["blood disease"], "en") == ordinary_words(
        [{"text": "----- and home"}], [], "en"
    )
    assert ordinary_words([{"text": "kitchen holds home"}], [], "xx") == []


def test_terms_of_a_text_are_those_that_stand_in_it() -> None:
    assert terms_in(["one stem cell", "nothing"], ["stem cells", "IL-6"]) == {"stem cells"}
