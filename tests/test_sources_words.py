"""One form a word, and nothing over a sign or an empty line."""

import pytest

from metier.sources.words import form_of, forms_of, words_of


@pytest.mark.parametrize(
    ("token", "form"),
    [
        ("Seizures", "seizure"),
        ("seizure's", "seizure"),
        ("patients’", "patient"),
        ("Alzheimer’s", "alzheimer"),
        ("virus", "virus"),
        ("analysis", "analysis"),
        ("gas", "gas"),
        ("IL-6", "il-6"),
        ("pg_dump", "pg_dump"),
        ("5-HT", "5-ht"),
        ("12", ""),
        ("21st", ""),
        ("(", ""),
        ("Übelkeit", "übelkeit"),
    ],
)
def test_a_word_has_one_form(token: str, form: str) -> None:
    assert forms_of(token)[0] == form


def test_forms_stand_where_they_are_written_and_signs_part_them() -> None:
    text = "Stem cells\ndivide, 12 of them.\n \nNext"
    words = words_of(text)
    assert [word.form for word in words] == ["stem", "cell", "divide", "", "", "of", "them", "", "", "next"]
    assert [text[w.start : w.end] for w in words if w.form] == ["Stem", "cells", "divide", "of", "them", "Next"]


def test_a_form_never_depends_on_what_is_beside_it() -> None:
    assert forms_of("Stem cell's") == (form_of("Stem"), form_of("cell's")) == ("stem", "cell")
