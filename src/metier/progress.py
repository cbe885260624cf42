"""What a long job tells while it runs; the command line draws it, a program may ignore it."""

from typing import Protocol


class Progress(Protocol):
    """Told by the library, in order: lines, and one bar at a time."""

    def say(self, line: str) -> None:
        """A finished fact, one line."""

    def begin(self, task: str, total: int) -> None:
        """A bar from 0 to `total`; it ends the bar before it."""

    def advance(self, done: int, note: str = "") -> None:
        """The bar now stands at `done`."""

    def end(self) -> None:
        """No bar."""


class Silent:
    """Says nothing."""

    def say(self, line: str) -> None:
        del line

    def begin(self, task: str, total: int) -> None:
        del task, total

    def advance(self, done: int, note: str = "") -> None:
        del done, note

    def end(self) -> None:
        return None
