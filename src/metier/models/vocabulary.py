"""Does the tokenizer know the field's words? Bytes a token and tokens a term, against general text.

Extending a vocabulary pays only where the field is cut into far more pieces than general text and there is much data
(AdaptiVocab, arXiv 2503.19693); so it is measured, and no token is added.
"""

import random
import re
from collections.abc import Sequence
from typing import Any

from metier.models.encoding import Encoder

SAMPLED = 200  # texts of each side are tokenised, and of each
CHARACTERS = 4000  # so much at most
MOST_SHOWN = 12
WORD = re.compile(r"[^\W\d_]+")


def vocabulary(
    encoder: Encoder, field: Sequence[str], terms: Sequence[str], general: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """The `vocabulary` of results.json.

    field, general: texts, a seeded sample of which is tokenised. terms: of the field, as they stand in a sentence.
    `fragmentation` is the tokens that the field needs for a byte over those that general text needs; above 1 the field
    is cut into smaller pieces. `tokens_per_word` compares the words of the terms with general words, each once. Terms
    are absent from it where there are none.
    """
    in_field, in_general = (_bytes_per_token(encoder, texts, seed) for texts in (field, general))
    found: dict[str, Any] = {
        "bytes_per_token": {"field": in_field, "general": in_general},
        "fragmentation": in_general / in_field,
    }
    if terms:
        sizes = {term: len(encoder.text_ids(f" {term}")) for term in terms}
        words = sorted({word for term in sizes for word in WORD.findall(term)})
        ordinary = sorted({word for text in general for word in WORD.findall(text)})
        found |= {
            "terms": len(sizes),
            "tokens_per_term": sum(sizes.values()) / len(sizes),
            "tokens_per_word": {
                "terms": _tokens_per_word(encoder, words),
                "general": _tokens_per_word(encoder, ordinary),
            },
            "most_split": sorted(sizes.items(), key=lambda item: (-item[1] / len(item[0].split()), item[0]))[
                :MOST_SHOWN
            ],
        }
    return found


def _bytes_per_token(encoder: Encoder, texts: Sequence[str], seed: int) -> float:
    sampled = random.Random(seed).sample(list(texts), min(SAMPLED, len(texts)))
    kept = [text[:CHARACTERS] for text in sampled]
    return sum(len(t.encode()) for t in kept) / max(1, sum(len(encoder.text_ids(t)) for t in kept))


def _tokens_per_word(encoder: Encoder, words: Sequence[str]) -> float:
    """Within a sentence, so each with the space before it."""
    return sum(len(encoder.text_ids(f" {word}")) for word in words) / max(1, len(words))
