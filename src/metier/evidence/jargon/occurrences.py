"""Where the field's terms stand in texts, and the ordinary words around them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from metier.sources.words import forms_of, words_of

Record = Mapping[str, Any]

# An ordinary word is one of the three thousand commonest of general language, and none of the hundred commonest: these
# are grammar, which no field changes.
ORDINARY, GRAMMAR = 3e-5, 1e-3


class Occurrence(NamedTuple):
    """Characters [start, end) of the text of the passage with this number. repeated: not the first in that text."""

    passage: int
    name: str
    start: int
    end: int
    repeated: bool


def occurrences(passages: Sequence[Record], terms: Sequence[str]) -> list[Occurrence]:
    """Every occurrence of a term in the passages' `text`, the longest where several begin at one word, in order.

    Case, possessives and a plural s make no difference; a term never goes over a sign or an empty line.
    """
    known = _by_forms(terms)
    found = []
    for number, passage in enumerate(passages):
        met: set[str] = set()
        for forms, start, end in _cut(passage["text"], known):
            if name := known.get(forms):
                found.append(Occurrence(number, name, start, end, name in met))
                met.add(name)
    return found


def ordinary_words(passages: Sequence[Record], terms: Sequence[str], language: str) -> list[Occurrence]:
    """Every ordinary word of the passages that is no part of a term anywhere; none in a language that wordfreq does
    not know."""
    from wordfreq import available_languages, get_frequency_dict

    if language not in available_languages():
        return []
    frequency = get_frequency_dict(language)
    known = _by_forms(terms)
    in_terms = {form for forms in known for form in forms}
    found = []
    for number, passage in enumerate(passages):
        text, met = passage["text"], set[str]()
        for forms, start, end in _cut(text, known):
            (form, *_) = forms
            if forms in known or form in in_terms:
                continue
            if form and ORDINARY <= frequency.get(text[start:end].lower(), 0.0) < GRAMMAR:
                found.append(Occurrence(number, form, start, end, form in met))
            met.add(form)
    return found


def terms_in(texts: Sequence[str], terms: Sequence[str]) -> set[str]:
    """Those of the terms that stand in one of the texts."""
    known = _by_forms(terms)
    return {known[forms] for text in texts for forms, _, _ in _cut(text, known) if forms in known}


def _by_forms(terms: Sequence[str]) -> dict[tuple[str, ...], str]:
    """The first term of each form; a term that holds a sign or a number stands nowhere as one."""
    found: dict[tuple[str, ...], str] = {}
    for term in terms:
        if (forms := forms_of(term)) and all(forms):
            found.setdefault(forms, term)
    return found


def _cut(text: str, known: Mapping[tuple[str, ...], str]) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """The text as terms and single words, each once, in order: forms, start, end."""
    words = words_of(text)
    longest: dict[str, int] = {}
    for forms in known:
        longest[forms[0]] = max(len(forms), longest.get(forms[0], 1))
    i = 0
    while i < len(words):
        for n in range(min(longest.get(words[i].form, 1), len(words) - i), 0, -1):
            forms = tuple(word.form for word in words[i : i + n])
            if n == 1 or forms in known:
                yield forms, words[i].start, words[i + n - 1].end
                i += n
                break
