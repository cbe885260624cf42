"""The health of generated answers: do they repeat themselves, do they end, how long are they?"""

import re

LOOP_MAX_UNIT = 8  # words in the unit that a loop repeats; longer ones show as repeated 4-grams
LOOP_MIN_COPIES = 3
UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"  # Thai, Lao, kana, Han: no spaces, so a character is a word
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")


def repeated_4gram_share(text: str) -> float:
    """The share of the text's runs of four words that stood in it before; 0 under four words."""
    words = _words(text)
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0


def looped_share(text: str) -> float:
    """The share of the words that repeat the words just before them, when that is how most of the text goes; else 0.

    "vast, vast, vast" has too few words for 4-grams. A unit of up to eight words counts from its third
    copy in a row on, and only when the copies make up more than half of the text: "a very, very, very long night
    fell over the town" is no loop.
    """
    words = _words(text)
    longest = 0
    for unit in range(1, min(LOOP_MAX_UNIT, len(words) // LOOP_MIN_COPIES) + 1):
        run = 0  # words in a row equal to the word one unit before
        for i in range(unit, len(words)):
            run = run + 1 if words[i] == words[i - unit] else 0
            if run >= unit * (LOOP_MIN_COPIES - 1) and 2 * (run + unit) > len(words):
                longest = max(longest, run)
    return longest / len(words) if words else 0.0


def repetition(text: str) -> float:
    """How much of an answer repeats itself, 0 to 1: the larger of its repeated 4-grams and its loop."""
    return max(repeated_4gram_share(text), looped_share(text))


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())
