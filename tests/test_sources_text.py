"""Text as it is learned: what is cleaned, and what is no text."""

import pytest

from metier.errors import DataError
from metier.sources.text import clean_text, decode


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("\ufeffOne", "One"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a \t\nb\n", "a\nb"),
        ("\n \n  indented\n\n\nend \n\n", "  indented\n\n\nend"),
        ("a\u2028b  c\td", "a\u2028b  c\td"),
        (" \n", ""),
    ],
)
def test_only_line_ends_and_edges_are_cleaned(raw, clean):
    assert clean_text(raw) == clean
    assert clean_text(clean) == clean


def test_a_byte_order_mark_stays_in_the_decoded_text_to_be_counted():
    assert decode("\ufeffé".encode(), "a.txt") == decode("\ufeffé".encode("utf-16-le"), "a.txt") == "\ufeffé"


def test_utf_16_without_a_mark_is_refused_with_the_remedy():
    with pytest.raises(DataError, match=r"^a\.txt:1 holds NUL bytes, .*: save it as UTF-8 text"):
        decode("plain".encode("utf-16-le"), "a.txt")
