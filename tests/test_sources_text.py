"""Text as it is learned: what is cleaned."""

import pytest

from metier.sources.text import clean_text


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
