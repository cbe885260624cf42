"""The terms of a field: far more frequent here than in general language, in several documents, and not only verbs of
its register.

Words, codes, acronyms and sequences of two to four words. Two keynesses must reach 15.13 (p < 0.0001): the
log-likelihood of the count (Dunning 1993) against wordfreq's frequencies, and that of the number of documents, which
one long document full of a word cannot raise. The log ratio must reach 2 (four times as frequent). There is no list
of how frequent phrases are in general language; one is taken to make up a tenth of the uses of its rarest word.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from math import log, log2
from typing import Any

import numpy as np

from metier.sources.candidates import MIN_DOCUMENTS, Candidate, Counted, Ints, nested
from metier.sources.examples import Example
from metier.sources.mine import STOP_WORDS, acronyms_of
from metier.sources.words import form_of

KEYNESS, LOG_RATIO = 15.13, 2.0
COMMON = 1e-3  # of all words in general language: one of the hundred commonest bounds a term, and is none
MOST_FREQUENT = 1e-4  # one of the thousand commonest is no term alone, however often a law says "person"
PHRASE = 0.1  # of the uses of its rarest word, in general language
NESTED = 0.8  # of its occurrences in one longer term: then that one is the term
VERB = 0.25  # of its occurrences after a word that a verb follows
MOST = 300
MOST_CHARACTERS = 20_000_000  # of text that is read; of a larger corpus evenly spread rows
REFERENCE_WORDS = 1e9  # for which wordfreq's frequencies are taken to stand
SMALLEST_FREQUENCY = 1e-8  # wordfreq's large lists end there
SPACELESS = {"ja", "zh"}  # words are not told apart by spaces
WITHIN = {"of"}  # the one function word that a term may hold: court of law, shortness of breath
# fmt: off
FUNCTION_WORDS = STOP_WORDS | {
    "shall", "must", "should", "could", "would", "under", "upon", "before", "after", "during", "through", "between",
    "without", "within", "against", "including", "include", "includes", "does", "being", "each", "any", "every", "both",
    "either", "neither", "since", "until", "while", "although", "because", "where", "whether", "otherwise", "above",
    "below", "except", "however", "therefore", "thus", "given", "used", "using", "et", "al", "i.e", "e.g", "etc",
}
BEFORE_VERBS = {
    "to", "may", "can", "will", "must", "shall", "should", "could", "would", "does", "do", "did", "not", "who",
    "which", "they", "it", "he", "she", "we", "you", "also", "is", "are", "be", "been", "was", "were", "cannot",
}
# fmt: on
BRACKETED = re.compile(r"\([A-Z][A-Za-z]*[A-Z]s?\)")
BEFORE_BRACKET = 100  # characters, in which what an acronym stands for is looked for


def terms(examples: Sequence[Example], language: str) -> list[dict[str, Any]]:
    """The most telling terms, at most 300: each as it is mostly written, its kind (word, phrase, code, acronym), its
    count, its documents, both keynesses and the log ratio; an acronym that the texts resolve also has its `expansion`.

    The order is by keyness times 1 + log2(words): the weight that C-value gives to length, moved so that single words
    have one. language: code of the texts' main language; nothing is found in one that wordfreq does not know, or that
    is written without spaces
    """
    from wordfreq import available_languages, get_frequency_dict

    if language not in available_languages() or language in SPACELESS:
        return []
    texts = [(example.document, example.learned_text) for example in _spread(examples)]
    counted = Counted(texts)
    frequency = _frequency(counted, get_frequency_dict(language))
    candidates = counted.candidates(_bounds(counted, frequency, language), WITHIN)
    participles = _participles(counted) if language == "en" else set()
    entries = {
        one.forms: entry
        for one in candidates
        if one.forms[-1] not in participles and (entry := _entry(one, counted, frequency))
    }
    found = [
        (one.forms, entries[one.forms])
        for one in nested(one for one in candidates if one.forms in entries)
        if one.largest < NESTED * one.count and one.on_its_own >= MIN_DOCUMENTS
    ]
    found.sort(key=lambda pair: (-pair[1]["keyness"] * (1 + log2(len(pair[0]))), pair[0]))
    spelling = counted.spelling({forms for forms, _ in found[: 2 * MOST]})
    expansions = _expansions(text for _, text in texts)
    named = [_named(entry, spelling[forms], expansions) for forms, entry in found[: 2 * MOST]]
    return [entry for entry in named if len(entry["term"]) > 2 or entry["term"].isupper()][:MOST]


def keyness(n: float, total: float, reference_n: float, reference_total: float) -> float:
    """2 (n ln(n / expected) + r ln(r / expected of r)), both expected to share one frequency; 0 when it is rarer."""
    shared = (n + reference_n) / (total + reference_total)
    if n / total <= reference_n / reference_total:
        return 0.0
    return 2 * (n * log(n / (total * shared)) + reference_n * log(reference_n / (reference_total * shared)))


def document_keyness(documents: int, frequency: float, lengths: tuple[Ints, Ints]) -> float:
    """2 (d ln(d / e) + (D - d) ln((D - d) / (D - e))) for d of D documents that hold a term; 0 when d <= e.

    e is expected at this frequency per word: the sum over documents of 1 - exp(-frequency * words).
    lengths: (words of a document, how many documents have so many)
    """
    words, n_documents = lengths
    n = int(n_documents.sum())
    expected = float(-np.expm1(-frequency * words) @ n_documents)
    if documents <= expected:
        return 0.0
    without = n - documents
    return 2 * (documents * log(documents / expected) + (without * log(without / (n - expected)) if without else 0.0))


def _spread(examples: Sequence[Example]) -> Sequence[Example]:
    n_characters = sum(len(example.learned_text) for example in examples)
    return examples[:: max(1, -(-n_characters // MOST_CHARACTERS))]


def _frequency(counted: Counted, reference: dict[str, float]) -> Callable[[tuple[str, ...]], float]:
    """How frequent these forms in a row are in general language, per word."""

    def of_spelling(word: str) -> float:
        parts = [part for part in re.split(r"[-_]", word) if part]
        if word in reference or len(parts) < 2:
            return reference.get(word, 0.0)
        return PHRASE * min(reference.get(part, 0.0) for part in parts)

    alone = {form: sum(map(of_spelling, counted.written(form))) for form in counted.forms}
    return lambda forms: max(
        SMALLEST_FREQUENCY, min(alone[form] for form in forms) * (PHRASE if len(forms) > 1 else 1.0)
    )


def _bounds(counted: Counted, frequency: Callable[[tuple[str, ...]], float], language: str) -> set[str]:
    """The forms that no term begins or ends with: the commonest words, and in English all function words, adverbs and
    words that stand mostly where verbs do."""
    bounds = {form for form in counted.forms if frequency((form,)) >= COMMON}
    if language == "en":
        after = counted.share_after({form_of(word) for word in BEFORE_VERBS})
        known = set(counted.forms)
        for form in counted.forms:
            adverb = form.endswith("ly") and (form[:-2] in known or f"{form[:-1]}e" in known)
            if adverb or after[form] > VERB or counted.written(form) & FUNCTION_WORDS:
                bounds.add(form)
    return bounds


def _participles(counted: Counted) -> set[str]:
    """Forms that end no English term: "reduced", where "reduce" stands in the texts too; they may begin one."""
    known = set(counted.forms)
    return {
        form for form in known if form.endswith("ed") and len(form) > 5 and {form[:-1], form[:-2], form[:-3]} & known
    }


def _entry(one: Candidate, counted: Counted, frequency: Callable[[tuple[str, ...]], float]) -> dict[str, Any] | None:
    """The figures of a candidate, where they make it a term."""
    general = frequency(one.forms)
    ratio = log2(one.count / counted.total / general)
    score = keyness(one.count, counted.total, general * REFERENCE_WORDS, REFERENCE_WORDS)
    if general >= MOST_FREQUENT or ratio < LOG_RATIO or score < KEYNESS:
        return None
    by_document = document_keyness(one.documents, general, counted.lengths)
    if by_document < KEYNESS:
        return None
    return {
        "count": one.count,
        "documents": one.documents,
        "keyness": round(score, 1),
        "document_keyness": round(by_document, 1),
        "log_ratio": round(ratio, 2),
    }


def _expansions(texts: Iterable[str]) -> dict[str, str]:
    """What acronyms stand for, as first said."""
    found: dict[str, str] = {}
    for text in texts:
        for match in BRACKETED.finditer(text):
            before = " ".join(text[max(0, match.start() - BEFORE_BRACKET) : match.end()].split())
            for acronym, expansion in acronyms_of([[before]]):
                found.setdefault(acronym, expansion)
    return found


def _named(entry: dict[str, Any], term: str, expansions: dict[str, str]) -> dict[str, Any]:
    if term in expansions:
        return {"term": term, "kind": "acronym", "expansion": expansions[term], **entry}
    kind = "phrase" if " " in term else "code" if re.search(r"[\d_]", term) else "word"
    return {"term": term, "kind": kind, **entry}
