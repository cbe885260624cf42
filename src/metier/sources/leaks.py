"""Leaks: measured text that stands in what is trained on, so that a score of it is no evidence.

The rule: a text leaks when half of its words or more lie in runs of 13 words that stand in training text. A text of
under 13 words, such as a question, leaks when it is, word for word, a whole text, turn or field of the training data.
(GPT-3 called any shared 13-gram a leak, Llama 2 a share of the tokens. One shared run is no leak in a field that has
standing phrases, and a share is what a score can be flattered by.)
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.errors import DataError
from metier.sources import general
from metier.sources.decoding import decode
from metier.sources.examples import Example
from metier.sources.formats.kinds import ROWS
from metier.sources.formats.outcome import UnreadableError
from metier.sources.records import Record
from metier.sources.rowfiles import row_content
from metier.sources.shingles import Runs, batches, runs_of, words_of

WORDS = 13
SHARE = 0.5
FILTER_BITS = 22
MOST_LISTED = 50


@dataclass(frozen=True)
class Measured:
    """What is measured and must not be trained on; it leaks when any of its texts does.

    slice  the slice of the evidence that it belongs to, or the benchmark
    """

    id: str
    slice: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Leak:
    """share of the words of the text that leaks most, and the first training text that holds some of them."""

    id: str
    slice: str
    share: float
    where: str


class LeakIndex:
    """Holds the measured texts, and is shown the training texts in any portions, each once: memory is that of the
    measured texts, whatever the length of the training data."""

    def __init__(self, measured: Sequence[Measured], short_texts: bool = True) -> None:
        """short_texts: texts of under 13 words can leak, too; otherwise they are passed over."""
        self._measured = measured
        self._owners = [i for i, one in enumerate(measured) for _ in one.texts]
        self._runs = _runs([text for one in measured for text in one.texts], whole_if_short=short_texts)
        self._numbers, self._place = np.unique(self._runs.numbers, return_inverse=True)
        self._maybe = np.zeros(1 << FILTER_BITS, bool)
        self._maybe[self._numbers >> np.uint64(64 - FILTER_BITS)] = True
        self._seen_in = np.full(len(self._numbers), -1, np.int64)
        self._names: list[str] = []

    def read(self, texts: Sequence[str], names: Sequence[str]) -> None:
        """Look for the measured texts in training texts (whole texts, turns or fields), called by `names`."""
        _read_for((self,), texts, names)

    @property
    def is_empty(self) -> bool:
        return not len(self._numbers)

    def look_in(self, runs: Runs, names: Sequence[str]) -> None:
        """As `read`, in texts that were cut into runs already."""
        maybe = np.flatnonzero(self._maybe[runs.numbers >> np.uint64(64 - FILTER_BITS)])
        wanted = runs.numbers[maybe]
        places = np.minimum(np.searchsorted(self._numbers, wanted), len(self._numbers) - 1)
        hit = (self._numbers[places] == wanted) & (self._seen_in[places] < 0)
        owners = np.searchsorted(runs.starts, maybe[hit], side="right") - 1
        for place, owner in zip(places[hit].tolist(), owners.tolist(), strict=True):
            if self._seen_in[place] < 0:
                self._seen_in[place] = len(self._names)
                self._names.append(names[owner])

    def leaks(self) -> list[Leak]:
        """What leaks, in the order in which it was given."""
        worst: dict[int, Leak] = {}
        for text, owner in enumerate(self._owners):
            begin, end = int(self._runs.starts[text]), int(self._runs.starts[text + 1])
            seen = self._seen_in[self._place[begin:end]]
            share = _covered(seen >= 0)
            if share >= SHARE and (owner not in worst or share > worst[owner].share):
                one = self._measured[owner]
                worst[owner] = Leak(one.id, one.slice, share, self._names[int(seen[seen >= 0][0])])
        return [worst[owner] for owner in sorted(worst)]


def _read_for(indexes: Sequence[LeakIndex], texts: Sequence[str], names: Sequence[str]) -> None:
    """Show all indexes the same texts, which are cut into runs once."""
    wanting = [index for index in indexes if not index.is_empty]
    start = 0
    for batch in batches(texts) if wanting else ():
        runs = _runs(batch, whole_if_short=True)
        for index in wanting:
            index.look_in(runs, names[start : start + len(batch)])
        start += len(batch)


@dataclass(frozen=True)
class Leaks:
    """What leaks into training.

    held_out    held-out texts of the field that stand in training text
    general     items of the general pack, and of the user's own general texts, that stand in training text
    replay      the same of items that stand in the replay
    benchmarks  rows of the benchmarks given that stand in training text
    measured    how many were looked for in each of these
    unread      files of the training data in which it could not be looked, or not everywhere
    """

    held_out: list[Leak] = field(default_factory=list)
    general: list[Leak] = field(default_factory=list)
    replay: list[Leak] = field(default_factory=list)
    benchmarks: list[Leak] = field(default_factory=list)
    measured: dict[str, int] = field(default_factory=dict)
    unread: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "rule": f"half of the words or more in runs of {WORDS} that stand in training text",
            "unread": self.unread,
            **{
                name: {
                    "measured": self.measured.get(name, 0),
                    "leaked": len(found),
                    "slices": sorted({leak.slice for leak in found}),
                    "listed": [
                        {"item": leak.id, "share": round(leak.share, 3), "where": leak.where}
                        for leak in found[:MOST_LISTED]
                    ],
                }
                for name, found in self._kinds()
            },
        }

    def _kinds(self) -> Iterator[tuple[str, list[Leak]]]:
        for name in ("held_out", "general", "replay", "benchmarks"):
            yield name, getattr(self, name)


def find_leaks(
    train: Sequence[Example],
    held_out: Sequence[Example],
    replay: Sequence[tuple[str, str]] = (),
    own_texts: Sequence[Example] = (),
    benchmark: Sequence[str] = (),
) -> Leaks:
    """Every kind of leak in one reading of the training texts.

    replay     (request, answer) pairs that are mixed into training
    own_texts  the user's general texts
    benchmark  files of texts or questions

    Raises:
        DataError: a benchmark cannot be read.
    """
    pack = [*general_items(), *_own_items(own_texts)]
    rows = [item for path in benchmark for item in benchmark_items(path)]
    # Rows with the same question are one document, so short answers of held-out rows may be those of others.
    field_index = LeakIndex([Measured(e.id, "field", (e.learned_text,)) for e in held_out], short_texts=False)
    general_index, benchmark_index, replay_index = LeakIndex(pack), LeakIndex(rows), LeakIndex(pack)
    for batch in _portions(train):
        names = [example.id for example in batch for _ in parts_of(example)]
        texts = [part for example in batch for part in parts_of(example)]
        _read_for((field_index, general_index, benchmark_index), texts, names)
    replay_index.read(
        [text for pair in replay for text in pair], [f"replay of {request!r}" for request, _ in replay for _ in "qa"]
    )
    measured = {"held_out": len(held_out), "general": len(pack), "replay": len(pack), "benchmarks": len(rows)}
    return Leaks(field_index.leaks(), general_index.leaks(), replay_index.leaks(), benchmark_index.leaks(), measured)


def general_items() -> list[Measured]:
    """The general pack: what must not be trained on, in the form in which it could be."""
    return [
        *(Measured(text.id, f"text/{text.group}", (text.text,)) for text in general.texts()),
        *(Measured(r.id, "chat", (r.request, *_long(r.answer))) for r in general.measured_requests()),
        *(Measured(c.id, "choices", (c.question, *_long(c.passage))) for c in general.choices()),
    ]


def benchmark_items(path: str) -> list[Measured]:
    """Every row of a .jsonl, .json, .csv, .tsv or .parquet file with all of its questions and longer texts, whatever
    its fields are called; a text file is one.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    file = Path(path)
    try:
        data = file.read_bytes()
        if file.suffix not in ROWS:
            return [Measured(path, path, (decode(data).text,))]
        rows = row_content(file.suffix, data, path).records
    except (OSError, UnreadableError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.reason
        raise DataError(f"{path} is no benchmark that can be read ({reason}): name a file of rows or text.") from None
    return [
        Measured(f"{path}:{row.line}", path, tuple(_texts_in(row.fields))) for row in rows if isinstance(row, Record)
    ]


def parts_of(example: Example) -> tuple[str, ...]:
    """The texts of an example as they could be repeated elsewhere: the whole text, or every turn."""
    if not example.is_chat:
        return (example.text,)
    return (*(message.content for message in example.messages), *filter(None, (example.rejected,)))


def _long(text: str) -> tuple[str, ...]:
    """A text that says something by itself: a short answer or choice may be anybody's."""
    return (text,) if len(text.split()) >= WORDS else ()


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield from (value,) if value.rstrip().endswith("?") else _long(value)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts_in(one)
    elif isinstance(value, Iterable):
        for one in value:
            yield from _texts_in(one)


def _own_items(own_texts: Sequence[Example]) -> list[Measured]:
    return [Measured(e.id, f"text/{e.group}", (e.text or e.learned_text,)) for e in own_texts]


def _portions(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    for start in range(0, len(examples), 1000):
        yield examples[start : start + 1000]


def _runs(texts: Sequence[str], whole_if_short: bool) -> Runs:
    return runs_of(words_of(texts), WORDS, whole_if_short)


def _covered(found: NDArray[np.bool_]) -> float:
    """The share of a text's words that lie in a run that was found."""
    if not len(found):
        return 0.0
    if len(found) == 1:
        return float(found[0])
    steps = np.zeros(len(found) + WORDS, np.int64)
    places = np.flatnonzero(found)
    np.add.at(steps, places, 1)
    np.add.at(steps, places + WORDS, -1)
    return float(np.mean(np.cumsum(steps)[:-1] > 0))
