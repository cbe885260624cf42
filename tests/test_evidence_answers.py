import pytest

from metier.evidence.answers import looped_share, repeated_4gram_share, repetition


def test_a_text_that_says_everything_once_repeats_nothing():
    assert repetition("The sea lay grey and still, and the boats came home before the rain.") == 0.0


def test_runs_of_four_words_that_return_are_counted():
    # nine runs of four words, four of them for the second time: "a b c d", ... with case and commas ignored
    assert repeated_4gram_share("A b c d e f, a B c d e f.") == pytest.approx(3 / 9)


@pytest.mark.parametrize("text", ["", "vast", "vast vast vast"])
def test_texts_under_four_words_have_no_repeated_run(text):
    assert repeated_4gram_share(text) == 0.0


def test_a_loop_in_a_short_text_is_seen():
    assert looped_share("vast, vast, vast") == pytest.approx(2 / 3)
    assert repetition("vast, vast, vast") == pytest.approx(2 / 3)


def test_a_loop_of_several_words_is_seen_after_an_opening():
    assert looped_share("The sea is vast and deep, vast and deep, vast and deep, vast and deep") > 0.5


@pytest.mark.parametrize(
    "text",
    [
        "A very, very, very long night fell over the town.",
        "One two three. One two three.",
        "Paris is the capital. Rome is the capital. Bern is the capital.",
    ],
)
def test_emphasis_and_parallel_sentences_are_no_loops(text):
    assert looped_share(text) == 0.0


def test_characters_are_the_words_of_a_script_without_spaces():
    assert repetition("大海大海大海大海大海") > 0.5
    assert repetition("今天天气很好我们去海边走走") == 0.0
