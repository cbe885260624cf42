"""What a reader makes of the bytes of one file, or why it makes nothing of them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["ok", "partial", "no_text", "needs_password", "rejected", "empty", "unsupported"]
LEFT_OUT: tuple[Status, ...] = ("no_text", "needs_password", "rejected", "unsupported")
"""Statuses of files that gave nothing, although there may be something in them."""


class UnreadableError(Exception):
    """A file that gives no text: `status` says how it ends, `reason` is the end of a sentence about it, `remedy` what
    to do."""

    def __init__(self, status: Status, reason: str, remedy: str = "leave it out") -> None:
        super().__init__(reason)
        self.status, self.reason, self.remedy = status, reason, remedy

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.status, self.reason, self.remedy)


@dataclass(frozen=True, slots=True)
class Document:
    """One text out of a file.

    text     what would be learned, clean
    n_bytes  UTF-8 bytes of the text as it was found, with what was then taken out of it; what a reader puts between
             pieces (a bullet, a bar between cells) counts as found, so `text` never has more
    title    as the file gives it, "" when it gives none
    """

    text: str
    n_bytes: int
    title: str = ""


@dataclass(frozen=True)
class Reading:
    """The documents of one file.

    removed  what was taken out or mended, counted by kind: {"running headers and footers": 34}
    problem  why a part of it is missing; "" when nothing is
    attached  (name, bytes) of the files that hang on it
    """

    documents: tuple[Document, ...]
    removed: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""
    attached: tuple[tuple[str, bytes], ...] = ()


def one_document(text: str, found: str | int, removed: Mapping[str, int] | None = None, title: str = "") -> Reading:
    """A file that is one document. found: the text as it was found, or its UTF-8 bytes."""
    return Reading((document(text, found, title),), counted(removed or {}))


def document(text: str, found: str | int, title: str = "") -> Document:
    n_bytes = found if isinstance(found, int) else len(found.encode())
    return Document(text, max(n_bytes, len(text.encode())), title)


def counted(*counts: Mapping[str, int]) -> dict[str, int]:
    """The sum of counts, without what was not there."""
    return {kind: n for kind, n in sum_of(counts).items() if n}


def sum_of(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return total
