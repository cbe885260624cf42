"""Retrieval over exactly the text that was trained on: what a search would have put into the prompt instead of into the
weights. Ranked by BM25 (Robertson et al. 1994) as bm25s computes it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import bm25s

from metier.errors import DataError
from metier.evidence.answers import WORD
from metier.models.encoding import Encoder
from metier.sources.examples import Example

PASSAGE_TOKENS = 256  # of the base's tokenizer, at most


@dataclass(frozen=True)
class Passage:
    """A piece of one training example; `example` is its place among those that were indexed."""

    text: str
    example: int
    document: str


class Passages:
    """The passages of training examples, to be searched."""

    def __init__(self, train: Sequence[Example], held_out: Collection[str], encoder: Encoder) -> None:
        """held_out: names of the documents that must never be found.

        Raises:
            DataError: one of them is among the training examples, or these hold no words.
        """
        self.examples = tuple(train)
        if shared := [e for e in train if e.document in held_out]:
            raise DataError(
                f"{shared[0].id} is of the held-out document {shared[0].document!r} and cannot be searched: "
                "leave it out of the training text."
            )
        found = (
            Passage(piece, i, example.document)
            for i, example in enumerate(train)
            for piece in pieces(whole_text(example), PASSAGE_TOKENS, encoder)
        )
        worded = [(passage, words) for passage in found if (words := _words(passage.text))]
        if not worded:
            raise DataError("The training text holds no words to search for: retrieval has nothing to find.")
        self.passages = tuple(passage for passage, _ in worded)
        self._index = bm25s.BM25()
        self._index.index([words for _, words in worded], show_progress=False)

    def top_passages(self, query: str, k: int) -> list[Passage]:
        """The k best, the best first; fewer where no more share a word with the query."""
        words = _words(query)
        scores = self._index.get_scores(words) if words else []
        order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
        return [self.passages[i] for i in order[:k] if scores[i] > 0]


def whole_text(example: Example) -> str:
    """All that an example says, the questions of a conversation too."""
    return "\n".join(m.content for m in example.messages) if example.is_chat else example.text


def pieces(text: str, n_tokens: int, encoder: Encoder) -> list[str]:
    """The text cut into pieces of at most `n_tokens` tokens each, which add up to it."""
    starts = [
        start
        for start, _ in encoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ]
    cuts = sorted({0, *starts[n_tokens::n_tokens]})
    return [text[first:last] for first, last in zip(cuts, [*cuts[1:], len(text)], strict=True)]


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())
