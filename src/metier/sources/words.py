"""The words of a text as terms are made of them: where each stands, and the one form under which it is counted."""

import re
from typing import NamedTuple

# A word, or a sign or an empty line, over which no term goes.
TOKEN = re.compile(r"\w(?:[\w'’-]*\w)?|\n[^\S\n]*\n|[^\w\s]")
CODE_WITH_DIGIT_FIRST = re.compile(r"\d+-?[A-Z]{2,}")  # 5-HT; any other token that begins with a digit is a number
POSSESSIVE = ("'s", "’s")
NO_PLURAL = ("ss", "us", "is")
SHORTEST_PLURAL = 4


class Word(NamedTuple):
    """`form` is '' for what parts terms: a sign, a number, an empty line."""

    form: str
    start: int
    end: int


def words_of(text: str) -> list[Word]:
    return [Word(form_of(m[0]), m.start(), m.end()) for m in TOKEN.finditer(text)]


def form_of(token: str) -> str:
    """In lower case, without a possessive or a plural s: seizure, Seizures and seizure's are one word.

    The plural is a rule of letters, so a form need not be a word ("diabetes" is counted as "diabete"): it is for
    comparing, not for showing.
    """
    if token[0].isdigit() and not CODE_WITH_DIGIT_FIRST.fullmatch(token):
        return ""
    form = token.strip("_").lower()
    for ending in POSSESSIVE:
        form = form.removesuffix(ending)
    if len(form) >= SHORTEST_PLURAL and form.endswith("s") and not form.endswith(NO_PLURAL):
        form = form[:-1]
    return form if any(letter.isalpha() for letter in form) else ""


def forms_of(term: str) -> tuple[str, ...]:
    """The forms of a term's words, by which it is found in a text."""
    return tuple(form_of(token) for token in TOKEN.findall(term))
