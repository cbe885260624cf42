"""Runs of words: the same words give the same numbers, wherever they stand and however they are written."""

import numpy as np
import pytest

from metier.sources import shingles
from metier.sources.shingles import runs_of, words_of


@pytest.mark.parametrize(
    ("text", "n_words"),
    [
        ("", 0),
        ("…!? --", 0),
        ("The cat", 2),
        ("don’t “stop” now", 4),
        ("§ 32-1010 of 5\u00a0km", 5),
        ("straße über", 2),
        ("中国人abc", 4),
        ("日本。語", 3),
    ],
)
def test_words_are_letters_and_digits_and_single_cjk_characters(text, n_words):
    assert len(words_of([text]).of(0)) == n_words


def test_case_and_punctuation_are_not_seen_and_order_is():
    words = words_of(["The cat, sat", "the CAT-sat!", "sat the cat"])
    assert words.of(0).tolist() == words.of(1).tolist()
    assert sorted(words.of(0)) == sorted(words.of(2))
    assert words.of(0).tolist() != words.of(2).tolist()
    runs = runs_of(words, 3)
    assert runs.of(0) == runs.of(1) != runs.of(2)


def test_runs_stay_within_their_text_and_are_the_same_in_any_place():
    texts = ["a b c d e f", "x", "", "b c d e f", "q a b c d e"]
    runs = runs_of(words_of(texts), 5)
    assert np.diff(runs.starts).tolist() == [2, 0, 0, 1, 2]
    assert runs.of(0)[1] == runs.of(3)[0]
    assert runs.of(4)[1] == runs.of(0)[0]
    whole = runs_of(words_of(texts), 5, whole_if_short=True)
    assert np.diff(whole.starts).tolist() == [2, 1, 0, 1, 2]
    assert whole.of(0).tolist() == runs.of(0).tolist()
    assert whole.of(1) == runs_of(words_of(["x"]), 5, whole_if_short=True).of(0)


def test_a_long_text_read_in_pieces_has_the_numbers_of_one_read_whole(monkeypatch):
    texts = ["one two three " * 50, "four", "five six " * 40]
    whole = words_of(texts)
    monkeypatch.setattr(shingles, "PIECE_BYTES", 64)
    pieces = words_of(texts)
    assert pieces.starts.tolist() == whole.starts.tolist()
    assert pieces.numbers.tolist() == whole.numbers.tolist()


def test_different_words_have_different_numbers():
    words = [f"{a}{b}" for a in "abcdefghij0123" for b in range(3000)]
    assert len(np.unique(words_of([" ".join(words)]).numbers)) == len(words)
