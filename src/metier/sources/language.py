"""In which languages the texts are: a sample of them, by the py3langid library."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

SAMPLED = 500  # texts, evenly spread: half a millisecond each
LOOKED_AT = 1000  # characters of each
MIN_LETTERS = 100  # in them: a shorter text, or one of figures, is not judged
MOST_LISTED = 20


def languages(texts: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The main language, how many of the sampled texts are in each, and which are not in the main one.

    texts: (id, text) pairs
    """
    from py3langid import classify

    sample = texts[:: max(1, -(-len(texts) // SAMPLED))]
    found: dict[str, str] = {}
    for name, text in sample:
        head = text[:LOOKED_AT]
        if sum(map(str.isalpha, head)) >= MIN_LETTERS:
            found[name] = classify(head)[0]
    counts = Counter(found.values())
    main = counts.most_common(1)[0][0] if counts else ""
    others = [{"id": name, "language": code} for name, code in found.items() if code != main]
    return {
        "main": main,
        "looked_at": len(found),
        "texts": dict(counts.most_common()),
        "others": len(others),
        "listed": others[:MOST_LISTED],
    }
