"""What stands in texts often enough to be a term: words and sequences of up to four, counted with numpy."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from metier.sources.words import TOKEN, form_of

Ints = NDArray[np.int64]

LONGEST = 4  # words
MIN_DOCUMENTS = 3
MOST_LOOKED_AT = 500  # occurrences of a term, to learn how it is mostly written


@dataclass(frozen=True)
class Candidate:
    """n words in a row; `inside` is the number of its occurrences in longer ones, summed over these (see `nested`).

    n_longer: these longer ones; largest: the count of the commonest of them.
    """

    forms: tuple[str, ...]
    count: int
    documents: int
    inside: int = 0
    n_longer: int = 0
    largest: int = 0

    @property
    def on_its_own(self) -> float:
        """C-value without the weight of the length (Frantzi and Ananiadou): the count less the mean count of the
        longer ones that hold it."""
        return self.count - (self.inside / self.n_longer if self.n_longer else 0.0)


class Counted:
    """Texts as numbers: a form a word, 0 for what parts terms, and the document that each stands in."""

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        """texts: (document, text)"""
        self._numbers = _Numbers()
        parts, owners, documents = [], [], dict[str, int]()
        for document, text in texts:
            part = [*map(self._numbers.__getitem__, TOKEN.findall(text)), 0]  # no term goes from a text into the next
            parts.append(np.array(part, dtype=np.int64))
            owners.append(np.full(len(part), documents.setdefault(document, len(documents)), dtype=np.int64))
        self._tokens: Ints = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        self._documents: Ints = np.concatenate(owners) if owners else np.zeros(0, dtype=np.int64)
        self.forms = self._numbers.forms
        self._words: Ints = np.array(self._numbers.form_numbers, dtype=np.int64)[self._tokens]
        self.words_per_document: Ints = np.bincount(self._documents[self._words > 0], minlength=len(documents))

    @property
    def total(self) -> int:
        """Words in all."""
        return int(self.words_per_document.sum())

    @cached_property
    def lengths(self) -> tuple[Ints, Ints]:
        """(words of a document, how many documents have so many)"""
        lengths, n_documents = np.unique(self.words_per_document, return_counts=True)
        return lengths, n_documents.astype(np.int64)

    def written(self, form: str) -> frozenset[str]:
        """All spellings of a form, in lower case."""
        return frozenset(self._numbers.spellings[form])

    def share_after(self, cues: Collection[str]) -> dict[str, float]:
        """How much of each form's occurrences stands directly after one of these forms."""
        is_cue = np.array([form in cues for form in self.forms])
        before = np.concatenate([[0], self._words[:-1]]) if len(self._words) else self._words
        n = len(self.forms)
        after = np.bincount(self._words, weights=is_cue[before], minlength=n)
        shares = after / np.maximum(1, np.bincount(self._words, minlength=n))
        return dict(zip(self.forms, shares.tolist(), strict=True))

    def candidates(self, bounds: Collection[str], within: Collection[str]) -> list[Candidate]:
        """Words and sequences of words that stand in MIN_DOCUMENTS documents or more.

        bounds: forms that no candidate begins or ends with; nor holds, but for those that are also in `within`
        """
        found = []
        for names, counts, documents, _ in self._levels():
            for name, count, n_documents in zip(names, counts.tolist(), documents.tolist(), strict=True):
                inner = (form for form in name[1:-1] if form not in within)
                if name[0] not in bounds and name[-1] not in bounds and not any(form in bounds for form in inner):
                    found.append(Candidate(name, count, n_documents))
        return found

    def spelling(self, wanted: Collection[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
        """How each sequence of forms is mostly written."""
        found: dict[tuple[str, ...], str] = {}
        for names, _, _, starts in self._levels():
            for i, name in enumerate(names):
                if name in wanted:
                    places = np.flatnonzero(starts == i + 1)[:MOST_LOOKED_AT, None] + np.arange(len(name))
                    written = Counter(map(tuple, self._tokens[places].tolist()))
                    most = written.most_common(1)[0][0]
                    found[name] = " ".join(self._numbers.tokens[token].strip("_") for token in most)
        return found

    def _levels(self) -> Iterable[tuple[list[tuple[str, ...]], Ints, Ints, Ints]]:
        """For one word, two, … : (forms, counts, documents of each; at every place the number of the sequence that
        begins there, from 1, or 0).

        A sequence in three documents begins with one in three documents, so all others are left behind at once.
        """
        starts, names = self._words, list[tuple[str, ...]]((form,) for form in self.forms)
        for n in range(1, LONGEST + 1):
            if n > 1:
                following = np.zeros_like(self._words)
                following[: -(n - 1)] = self._words[n - 1 :]
                starts = np.where((starts > 0) & (following > 0), starts * len(self.forms) + following, 0)
            keys, places, counts = np.unique(starts, return_inverse=True, return_counts=True)
            pairs = np.unique(places * len(self.words_per_document) + self._documents)
            documents = np.bincount(pairs // max(1, len(self.words_per_document)), minlength=len(keys))
            kept = (documents >= MIN_DOCUMENTS) & (keys > 0)
            if n > 1:
                before, last = keys[kept] // len(self.forms), keys[kept] % len(self.forms)
                names = [(*names[b - 1], self.forms[w]) for b, w in zip(before.tolist(), last.tolist(), strict=True)]
            else:
                names = [names[key] for key in keys[kept].tolist()]
            numbers = np.zeros(len(keys), dtype=np.int64)
            numbers[kept] = np.arange(1, int(kept.sum()) + 1)
            starts = numbers[places]
            yield names, counts[kept].astype(np.int64), documents[kept].astype(np.int64), starts
            if not names:
                return


class _Numbers(dict[str, int]):
    """The number of each token as it is written, given when it is first met."""

    def __init__(self) -> None:
        super().__init__()
        self.forms = [""]
        self.tokens: list[str] = []
        self.form_numbers: list[int] = []
        self.spellings: dict[str, set[str]] = {}
        self._form_number = {"": 0}
        self[""]  # is number 0

    def __missing__(self, token: str) -> int:
        form = form_of(token) if token else ""
        if form not in self._form_number:
            self._form_number[form] = len(self.forms)
            self.forms.append(form)
        self.spellings.setdefault(form, set()).add(token.lower())
        self[token] = len(self.tokens)
        self.tokens.append(token)
        self.form_numbers.append(self._form_number[form])
        return self[token]


def nested(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The same candidates, each with what longer ones of them hold of it."""
    found = {one.forms: one for one in candidates}
    inside, n_longer, largest = Counter[tuple[str, ...]](), Counter[tuple[str, ...]](), dict[tuple[str, ...], int]()
    for forms, longer in found.items():
        parts = {forms[i : i + n] for n in range(1, len(forms)) for i in range(len(forms) - n + 1)}
        for part in parts & found.keys():
            inside[part] += longer.count
            n_longer[part] += 1
            largest[part] = max(largest.get(part, 0), longer.count)
    return [
        replace(one, inside=inside[forms], n_longer=n_longer[forms], largest=largest.get(forms, 0))
        for forms, one in found.items()
    ]
