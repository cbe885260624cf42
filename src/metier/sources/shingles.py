"""Runs of words as 64-bit numbers, computed for a batch of texts at once: what near-duplicates and leaks are found by.

A word is a run of letters and digits, lower case; each Chinese, Japanese or Korean character is a word. Punctuation and
white space separate and are otherwise not seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]
Places = NDArray[np.int64]

BATCH_CHARACTERS = 1 << 18  # the arrays of a batch stay within the processor's cache
PIECE_BYTES = 1 << 20  # a longer text is read in pieces, so that memory does not grow with it
RADIX = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
INVERSE_RADIX = pow(RADIX, -1, 1 << 64)
WORD_RADIX = 0xD1342543DE82EF95


@dataclass(frozen=True)
class Runs:
    """The numbers of all texts one after the other; those of text i are numbers[starts[i]:starts[i + 1]]."""

    numbers: Numbers
    starts: Places  # (texts + 1,)

    def of(self, text: int) -> Numbers:
        return self.numbers[self.starts[text] : self.starts[text + 1]]


def words_of(texts: Sequence[str]) -> Runs:
    """A number for every word of every text."""
    parts: list[Numbers] = []
    counts = np.zeros(len(texts) + 1, np.int64)
    joined: list[bytes] = []
    owners: list[int] = []
    size = 0
    for owner, text in enumerate(texts):
        for piece in _pieces(text.lower().encode(errors="replace")):
            joined.append(piece)
            owners.append(owner)
            size += len(piece)
            if size > PIECE_BYTES:
                _read(joined, owners, parts, counts)
                joined, owners, size = [], [], 0
    _read(joined, owners, parts, counts)
    return Runs(np.concatenate(parts) if parts else np.zeros(0, np.uint64), np.cumsum(counts))


def runs_of(words: Runs, length: int, whole_if_short: bool = False) -> Runs:
    """A number for every run of `length` words within a text.

    whole_if_short: a text of fewer words (but not of none) has one run, all of it; otherwise it has none.
    """
    numbers, starts = words.numbers, words.starts
    n_words = np.diff(starts)
    n_runs = np.maximum(n_words - length + 1, 0)
    if len(numbers) < length:
        runs = np.zeros(0, np.uint64)
    else:
        n = len(numbers) - length + 1
        runs = numbers[:n].copy()
        for offset in range(1, length):
            runs *= np.uint64(WORD_RADIX)
            runs += numbers[offset : offset + n]
        crossing = np.ones(len(numbers), bool)  # runs that reach into the next text, or beyond the last
        _mark(crossing, starts[:-1][n_runs > 0], n_runs[n_runs > 0])
        runs = mixed(runs[~crossing[:n]])
    if whole_if_short and (short := np.flatnonzero((n_words > 0) & (n_runs == 0))).size:
        whole = np.array([_whole(words.of(int(text))) for text in short], np.uint64)
        before = np.concatenate(([0], np.cumsum(n_runs)))
        runs = np.insert(runs, before[short], whole)
        n_runs[short] = 1
    return Runs(runs, np.concatenate(([0], np.cumsum(n_runs))))


def batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Neighbouring texts, about BATCH_CHARACTERS together."""
    start, size = 0, 0
    for position, text in enumerate(texts):
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield texts[start : position + 1]
            start, size = position + 1, 0
    if start < len(texts):
        yield texts[start:]


def mixed(numbers: Numbers) -> Numbers:
    """Every bit of the result depends on every bit of the number (the finalizer of SplitMix64), in place."""
    numbers ^= numbers >> np.uint64(30)
    numbers *= np.uint64(0xBF58476D1CE4E5B9)
    numbers ^= numbers >> np.uint64(27)
    numbers *= np.uint64(0x94D049BB133111EB)
    numbers ^= numbers >> np.uint64(31)
    return numbers


def _pieces(data: bytes) -> Iterator[bytes]:
    start = 0
    while len(data) - start > PIECE_BYTES:
        end = data.find(b" ", start + PIECE_BYTES // 2, start + PIECE_BYTES)
        end = end if end > 0 else start + PIECE_BYTES
        yield data[start:end]
        start = end
    yield data[start:]


def _read(joined: list[bytes], owners: list[int], parts: list[Numbers], counts: Places) -> None:
    """Append the words of the pieces to `parts`, and count them for their texts in counts[1:]."""
    if not joined:
        return
    data = np.frombuffer(b"\0".join([*joined, b""]), np.uint8)
    first, last = _bounds(data)
    power, inverse = _powers(1 << (len(data) - 1).bit_length())
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum((data + np.uint64(1)) * power[: len(data)], out=sums[1:])
    parts.append(mixed((sums[last] - sums[first]) * inverse[first]))
    ends = np.cumsum([len(piece) + 1 for piece in joined])
    before = np.searchsorted(first, ends)
    np.add.at(counts, np.array(owners) + 1, np.diff(before, prepend=0))


def _bounds(data: NDArray[np.uint8]) -> tuple[Places, Places]:
    """Where words begin, and where they end; the data ends with a byte of no word."""
    is_word = _is_word_byte()[data]
    begins = np.zeros(len(data), bool)
    if data.max() >= 0x80:
        follows = np.concatenate((data[1:], data[:1]))
        two = np.flatnonzero(data == 0xC2)  # U+0080 to U+00BF: signs and a space
        three = np.flatnonzero(((data == 0xE2) | (data == 0xE3)) & (follows == 0x80))  # general and CJK punctuation
        for place in (two, two + 1, three, three + 1, three + 2):
            is_word[place] = False
        character = np.flatnonzero((data >= 0xE3) & (data <= 0xED) & is_word)
        begins[character] = True
        begins[np.minimum(character + 3, len(data) - 1)] = True
    begins[1:] |= ~is_word[:-1]
    begins[0] = True
    begins &= is_word
    first = np.flatnonzero(begins)
    ends = is_word[:-1] & (~is_word[1:] | begins[1:])
    return first, np.flatnonzero(ends) + 1


def _mark(flags: NDArray[np.bool_], starts: Places, lengths: Places) -> None:
    """Set the flags of the spans to False."""
    steps = np.zeros(len(flags) + 1, np.int64)
    np.add.at(steps, starts, 1)
    np.add.at(steps, starts + lengths, -1)
    flags[np.cumsum(steps[:-1]) > 0] = False


def _whole(words: Numbers) -> int:
    number = 0
    for word in words.tolist():
        number = (number * WORD_RADIX + word) % (1 << 64)
    return int(mixed(np.array([number], np.uint64))[0])


@cache
def _is_word_byte() -> NDArray[np.bool_]:
    table = np.zeros(256, bool)
    table[[ord(c) for c in "abcdefghijklmnopqrstuvwxyz0123456789"]] = True
    table[0x80:] = True
    return table


@cache
def _powers(n: int) -> tuple[Numbers, Numbers]:
    """RADIX^i and RADIX^-i modulo 2^64, i < n."""
    power, inverse = np.full(n, RADIX, np.uint64), np.full(n, INVERSE_RADIX, np.uint64)
    power[0] = inverse[0] = 1
    return np.cumprod(power), np.cumprod(inverse)
