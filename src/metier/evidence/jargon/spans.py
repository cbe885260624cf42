"""Bits over parts of a text, from the scores of its tokens.

A token that lies partly in a span gives it the share of its bits that its characters there are of all its characters:
the token " seizures" gives eight ninths to the word. So two tokenizers that cut a text differently can be compared
over the same characters.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.errors import DataError

Floats = NDArray[np.float64]
Record = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Surprise:
    """ends: where tokens end, in characters from 0, increasing; bits: summed up to there, both beginning with 0.

    Tokens that end where another ends (the bytes of one character) are one here.
    """

    ends: Floats
    bits: Floats
    token_ends: Floats  # of every token, as they were scored

    @classmethod
    def of(cls, record: Record, length: int | None = None) -> "Surprise":
        """record: {"item", "ends": [int…], "nll": [nats…]}; length: of its text in characters, where it is known.

        Raises:
            DataError: ends and nll do not belong together, or the ends do not go on, or go beyond the text.
        """
        ends, nll = np.asarray(record["ends"], dtype=np.float64), np.asarray(record["nll"], dtype=np.float64)
        sound = ends.shape == nll.shape and ends.ndim == 1 and bool(np.isfinite(nll).all())
        if not sound or (len(ends) and (ends[0] < 0 or (np.diff(ends) < 0).any() or ends[-1] > (length or math.inf))):
            raise DataError(
                f"Item {record['item']!r} has token scores that do not fit its text (each token needs a finite nll and "
                "an end no smaller than the one before, within the text): score both models again."
            )
        summed = np.cumsum(nll) / math.log(2)
        last = np.append(np.diff(ends) > 0, True) if len(ends) else np.zeros(0, dtype=bool)
        last &= ends > 0  # bits of a token without characters at the very start go to the first that has some
        return cls(np.append(0.0, ends[last]), np.append(0.0, summed[last]), ends)

    @property
    def scored(self) -> float:
        """Characters that were scored."""
        return float(self.ends[-1])

    def over(self, starts: Sequence[int] | Floats, ends: Sequence[int] | Floats) -> Floats:
        """Bits of each span [start, end) in characters."""
        found: Floats = np.interp(ends, self.ends, self.bits) - np.interp(starts, self.ends, self.bits)
        return found

    def pieces(self, start: int, end: int) -> int:
        """Tokens that lie in a span, wholly or in part."""
        begins = np.append(0.0, self.token_ends[:-1])
        return int(((self.token_ends > start) & (begins < end)).sum())


def span_bits(tokens: Record, start: int, end: int) -> float:
    """Bits of the characters [start, end) of one token record; 0 for an empty span."""
    return float(Surprise.of(tokens).over([start], [end])[0])


@dataclass(frozen=True, eq=False)
class Passage:
    """A held-out text with what each model made of it."""

    item: str
    document: str
    text: str
    base: Surprise
    adapted: Surprise

    @property
    def scored(self) -> int:
        """Characters that both models were scored on."""
        return int(min(self.base.scored, self.adapted.scored))


def scored_passages(
    passages: Sequence[Record], base_tokens: Sequence[Record], adapted_tokens: Sequence[Record]
) -> list[Passage]:
    """The records of evidence/passages.jsonl, tokens-base.jsonl and tokens-adapted.jsonl, joined by item.

    Raises:
        DataError: an item has no scores of one model, or scores that do not fit its text.
    """
    arms = [{record["item"]: record for record in arm} for arm in (base_tokens, adapted_tokens)]
    found = []
    for passage in passages:
        item, text = passage["item"], passage["text"]
        for name, arm in zip(("base", "adapted"), arms, strict=True):
            if item not in arm:
                raise DataError(f"Item {item!r} has no token scores of the {name} model: score both models again.")
        base, adapted = (Surprise.of(arm[item], len(text)) for arm in arms)
        found.append(Passage(item, passage["document"], text, base, adapted))
    return found
