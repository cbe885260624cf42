"""Where in a text the model learned: held-out passages word by word, with each word's bits before and after."""

import re
from collections.abc import Sequence
from typing import Any

from metier.evidence.jargon.spans import Passage, Record, scored_passages

SHORTEST = 20  # words; of a shorter passage the saving is mostly chance
MOST_WORDS = 120  # of one passage are shown
WORD = re.compile(r"\S+\s*")


def passage_view(
    passages: Sequence[Record], base_tokens: Sequence[Record], adapted_tokens: Sequence[Record]
) -> list[dict[str, Any]]:
    """Three held-out passages: the one with the largest saving in bits per byte, the median, the worst; fewer where
    there are fewer.

    Each: {"which", "item", "document", "base", "adapted" (bits per byte of what was scored), "words": [{"text",
    "before", "after"} in bits, with the space that follows], "n_words", "cut" (whether the text goes on)}.

    Raises:
        DataError: as `spans.scored_passages`.
    """
    read = scored_passages(passages, base_tokens, adapted_tokens)
    usable = [passage for passage in read if passage.scored > 0]
    long_enough = [passage for passage in usable if len(passage.text[: passage.scored].split()) >= SHORTEST]
    ordered = sorted(long_enough or usable, key=lambda passage: (-_saved(passage), passage.item))
    if not ordered:
        return []
    places = {0: "largest saving", len(ordered) - 1: "worst", (len(ordered) - 1) // 2: "median"}
    places[0] = "largest saving"  # of one or two passages too
    return [_shown(places[i], ordered[i]) for i in sorted(places)]


def _saved(passage: Passage) -> float:
    base, adapted = _bits_per_byte(passage)
    return base - adapted


def _bits_per_byte(passage: Passage) -> tuple[float, float]:
    n_bytes = len(passage.text[: passage.scored].encode())
    base, adapted = (float(arm.over([0], [passage.scored])[0]) / n_bytes for arm in (passage.base, passage.adapted))
    return base, adapted


def _shown(which: str, passage: Passage) -> dict[str, Any]:
    """A word has the bits of its characters and of the space before it: that is how models write."""
    scored = passage.text[: passage.scored]
    words = [(m.start(), m.end(), m[0]) for m in WORD.finditer(scored)]
    n_words = len(words)
    shown = words[:MOST_WORDS]
    ends = [start + len(text.rstrip()) for start, _, text in shown]
    starts = [0, *ends[:-1]]
    before, after = (arm.over(starts, ends).tolist() for arm in (passage.base, passage.adapted))
    base, adapted = _bits_per_byte(passage)
    return {
        "which": which,
        "item": passage.item,
        "document": passage.document,
        "base": base,
        "adapted": adapted,
        "words": [
            {"text": text, "before": b, "after": a} for (_, _, text), b, a in zip(shown, before, after, strict=True)
        ],
        "n_words": n_words,
        "cut": n_words > MOST_WORDS,
    }
