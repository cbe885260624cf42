"""Texts that look wrong: signs, figures, repetition, damage. They are flagged and never left out."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from metier.sources.duplicates import shingles
from metier.sources.examples import Example

SIGNS = 0.25  # of the characters that are not white space: prose has 3 to 6 %, source code 15 to 25 %
FEW_WORDS = 0.6  # of the tokens hold two letters or more (Gopher's filter asks for 80 % with one)
MEAN_WORD = 3.0, 12.0  # characters of a word; outside, it is no prose (Gopher: 3 to 10)
REPEATED = 0.5  # of the 5-grams of words, or of the lines, have been there before (manuals reach 0.49)
MIN_WORDS = 40  # shares of fewer words say nothing
MOST_LISTED = 20
PER_WORD_LANGUAGES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")  # no spaces between words
MOJIBAKE = re.compile(r"[ÃÂâ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|\ufffd")
MIN_DAMAGE = 2  # places in a text

SENTENCE_END = tuple(".!?…:;)\"'”’»`]}>|*。！？")
LONG_ANSWER = 80  # characters; a short answer may be a name
MOSTLY = 0.8  # of the long answers end like a sentence: then the others are cut off


def faults(text: str) -> list[str]:
    """What is odd about a text: signs, few_words, word_length, repeats, damaged; nothing for most."""
    found = []
    if len(MOJIBAKE.findall(text)) >= MIN_DAMAGE:
        found.append("damaged")
    tokens = text.split()
    if len(tokens) < MIN_WORDS or PER_WORD_LANGUAGES.search(text[:1000]):
        return found
    n_characters = sum(map(len, tokens))
    n_alphanumeric = sum(map(str.isalnum, text))
    words = [token for token in tokens if sum(map(str.isalpha, token)) >= 2]
    if n_characters - n_alphanumeric > SIGNS * n_characters:
        found.append("signs")
    if len(words) < FEW_WORDS * len(tokens):
        found.append("few_words")
    elif not MEAN_WORD[0] <= sum(map(len, words)) / len(words) <= MEAN_WORD[1]:
        found.append("word_length")
    if repeated_share(text) > REPEATED:
        found.append("repeats")
    return found


def repeated_share(text: str) -> float:
    """The share of the word 5-grams, or of the lines, whichever is more, that stood in the text before."""
    grams = shingles([text]).numbers
    lines = [line for line in text.split("\n") if line.strip()]
    of_grams = 1 - len(np.unique(grams)) / len(grams) if len(grams) else 0.0
    return max(of_grams, 1 - len(set(lines)) / len(lines) if len(lines) >= 10 else 0.0)


def quality(examples: Iterable[Example]) -> dict[str, Any]:
    """How many texts and answers have each fault, with the first of them."""
    named: dict[str, list[str]] = {}
    n = 0
    for example in examples:
        n += 1
        for fault in faults(example.learned_text):
            named.setdefault(fault, []).append(example.id)
    return {
        "looked_at": n,
        "flagged": len({name for names in named.values() for name in names}),
        "faults": {fault: {"texts": len(names), "listed": names[:MOST_LISTED]} for fault, names in named.items()},
    }


def cut_off(chats: Sequence[Example]) -> list[str]:
    """Ids of long answers that stop within a sentence, where most end with one; nothing where few do, since lists and
    code end otherwise."""
    long = [(e.id, e.learned_text.rstrip()) for e in chats if len(e.learned_text) >= LONG_ANSWER]
    open_ended = [name for name, answer in long if not answer.endswith(SENTENCE_END)]
    return open_ended if len(open_ended) <= (1 - MOSTLY) * len(long) else []


def same_length(chats: Sequence[Example]) -> tuple[int, int]:
    """(length in characters, answers that have it) of the longest answers, which an export may have cut there."""
    lengths = Counter(len(e.learned_text) for e in chats)
    longest = max(lengths, default=0)
    return longest, lengths[longest]
