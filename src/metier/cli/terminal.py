"""What a person sees: progress on stderr and results on stdout; plain lines where there is no terminal."""

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from metier.progress import Progress, Silent
from metier.ranks import this_rank

# Data and models can write anything, also what moves a cursor or sets a title; only new lines and tabs are let through.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_EVERY_S = 10.0  # between two lines about one bar, where bars are lines


def printable(text: str) -> str:
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def write(text: str = "") -> None:
    """One result to stdout."""
    sys.stdout.write(printable(text) + "\n")


def write_json(value: object) -> None:
    """One object to stdout, nothing lost: what cannot be printed is escaped as JSON escapes it."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(_UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def complain(text: str) -> None:
    """One line to stderr, whatever the text holds; of several ranks one tells it, and says which where it matters."""
    rank = this_rank()
    if rank.of > 1:
        from metier.training.parallel import is_to_tell

        if not is_to_tell(text):
            return
        text = text if rank.is_first else f"rank {rank.number}: {text}"
    sys.stderr.write(f"metier: {printable(' '.join(text.split()))}\n")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns with two spaces between them, the last one as long as it is."""
    lines = [[" ".join(cell.split()) for cell in row] for row in (headers, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


class Lines:
    """Progress as lines, for logs and pipes: a line when something begins, and one every ten seconds."""

    def __init__(self) -> None:
        self._task, self._total = "", 0
        self._begun = self._told = 0.0
        self._closed = False

    def say(self, line: str) -> None:
        if self._closed:
            return
        try:
            sys.stderr.write(printable(line) + "\n")
            sys.stderr.flush()
        except BrokenPipeError:  # nobody reads the progress any more: no reason to lose the training
            self._closed = True

    def begin(self, task: str, total: int) -> None:
        self._task, self._total = task, total
        self._begun = self._told = time.monotonic()
        self.say(f"{task} …")

    def advance(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if self._task and now - self._told >= _EVERY_S and 0 < done < self._total:
            self._told = now
            left = (now - self._begun) * (self._total - done) / done
            parts = (f"{done / self._total:.0%}", note, f"{clock(left)} left")
            self.say(f"{self._task}: {', '.join(part for part in parts if part)}")

    def end(self) -> None:
        self._task = ""


class Bars:
    """Progress as live bars on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress as Live

        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._live: Live | None = None

    def say(self, line: str) -> None:
        self._console.print(printable(line), soft_wrap=True)

    def begin(self, task: str, total: int) -> None:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Live

        self.end()
        self._live = Live(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self._console,
            refresh_per_second=2,  # the processor has better things to do
            redirect_stdout=False,
        )
        self._live.add_task(task, total=total, note="")
        self._live.start()

    def advance(self, done: int, note: str = "") -> None:
        if self._live is not None:
            task = self._live.tasks[0]
            self._live.update(task.id, completed=done, note=note or task.fields["note"])

    def end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


@contextmanager
def progress(first: str = "loading torch and transformers") -> Iterator[Progress]:
    """Progress on stderr; what is left of a bar is gone when an error is said.

    first  what the bar says before the first is begun, seconds after the start; "" for commands that begin sooner
    """
    shown: Progress = Silent() if not this_rank().is_first else Bars() if sys.stderr.isatty() else Lines()
    if first and isinstance(shown, Bars):  # a log can wait for its first line
        shown.begin(first, 1)
    try:
        yield shown
    finally:
        shown.end()


def clock(seconds: float) -> str:
    """75 -> "1:15"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
