"""The words of a field: far more frequent here than in general language, and in several documents.

Log-likelihood keyness (Dunning 1993) of 15.13 or more (p < 0.0001) and a log ratio of 2 or more (four times as
frequent) against wordfreq's frequencies; single words only.
"""

import re
from collections import Counter
from collections.abc import Sequence
from math import log, log2
from typing import Any

from metier.sources.examples import Example

KEYNESS, LOG_RATIO, MIN_DOCUMENTS = 15.13, 2.0, 3
COMMON = (
    1e-3  # of all words in general language: one of the hundred commonest is no term, however often a law says "or"
)
MOST = 100
MOST_CHARACTERS = 20_000_000  # of text that is read; of a larger corpus evenly spread rows
REFERENCE_WORDS = 1e9  # for which wordfreq's frequencies are taken to stand
SMALLEST_FREQUENCY = 1e-8  # wordfreq's large lists end there
WORD = re.compile(r"[^\W\d_](?:[\w'’-]*[^\W_])?")


def terms(examples: Sequence[Example], language: str) -> list[dict[str, Any]]:
    """The hundred most telling words, each with its count, its documents, its keyness and its log ratio.

    language: code of the texts' main language; nothing is found in one that wordfreq does not know
    """
    from wordfreq import available_languages, get_frequency_dict

    known = available_languages()
    if language not in known:
        return []
    reference = get_frequency_dict(language)
    counts, documents = _count(examples)
    total = counts.total()
    found: list[dict[str, Any]] = []
    for word, n in counts.items():
        if documents[word] < MIN_DOCUMENTS:
            continue
        frequency = max(reference.get(word, 0.0), SMALLEST_FREQUENCY)
        ratio = log2(n / total / frequency)
        score = keyness(n, total, frequency * REFERENCE_WORDS, REFERENCE_WORDS)
        if frequency < COMMON and ratio >= LOG_RATIO and score >= KEYNESS:
            found.append(
                {
                    "term": word,
                    "count": n,
                    "documents": documents[word],
                    "keyness": round(score, 1),
                    "log_ratio": round(ratio, 2),
                }
            )
    return sorted(found, key=lambda term: (-term["keyness"], term["term"]))[:MOST]


def keyness(n: float, total: float, reference_n: float, reference_total: float) -> float:
    """2 (n ln(n / expected) + r ln(r / expected of r)), both expected to share one frequency; 0 when it is rarer."""
    shared = (n + reference_n) / (total + reference_total)
    if n / total <= reference_n / reference_total:
        return 0.0
    return 2 * (n * log(n / (total * shared)) + reference_n * log(reference_n / (reference_total * shared)))


def _count(examples: Sequence[Example]) -> tuple[Counter[str], Counter[str]]:
    """(occurrences, documents) of every word in lower case."""
    n_characters = sum(len(example.learned_text) for example in examples)
    counts: Counter[str] = Counter()
    in_document: dict[str, set[str]] = {}
    for example in examples[:: max(1, -(-n_characters // MOST_CHARACTERS))]:
        words = WORD.findall(example.learned_text.lower())
        counts.update(words)
        in_document.setdefault(example.document, set()).update(words)
    return counts, Counter(word for words in in_document.values() for word in words)
