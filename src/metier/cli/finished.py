"""The commands about runs that ended: report, runs and chat."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from metier.cli.panel import NO_ANSWER
from metier.cli.terminal import complain, printable, table, write
from metier.errors import MetierError, RunError
from metier.results import Run, Talker
from metier.runs import RunFolder, read_json

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="a run folder", show_default=False)]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="where the run folders are")]
Dial = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=2.0, help="strength of what was trained: 0 is the base, 1 as trained; without it, as the run chose"
    ),
]
Request = Annotated[str | None, typer.Option(metavar="TEXT", help="one request, answered; without it, a conversation")]

RUNS = Path("runs")


def report(run: RunArgument) -> None:
    """Conclude from the stored evidence of a run again, without its model; make its page and print its path."""
    finished = Run(run)
    finished.conclude()
    write(str(finished.report()))


def runs(folder: Folder = RUNS) -> None:
    """List the runs in a folder, the newest first."""
    if not folder.is_dir() and folder != RUNS:
        raise RunError(f"{folder} is no folder: name the one that holds the run folders.")
    paths = [path.parent for path in folder.glob("*/status.json")]
    if not paths:
        complain(f"there are no runs in {folder}: `metier adapt DATA` makes one.")
        return
    lines = sorted((_line(RunFolder(path)) for path in paths), key=lambda line: line[1], reverse=True)
    write(table(("run", "date", "state", "data", "decision", "gain"), lines))


def _line(run: RunFolder) -> tuple[str, ...]:
    """One run; what is missing is a dash, and a damaged file says so."""
    try:
        status = read_json(run.status)
        results = read_json(run.results) if run.results.exists() else {}
        data = ", ".join(Run(run.path).settings.data) if run.config.exists() else "–"
        date = str(status["time"])[:16].replace("T", " ")
        return (str(run.path), date, status["state"], data, _decision(results), _gain(results))
    except (MetierError, KeyError, TypeError):
        return (str(run.path), "–", "damaged", "–", "–", "–")


def _decision(results: dict[str, Any]) -> str:
    return str(results["verdict"]["decision"]).replace("_", " ") if results else "–"


def _gain(results: dict[str, Any]) -> str:
    gain = results.get("gain")
    if not gain:
        return "–"
    low, high = gain["relative_ci_low"], gain["relative_ci_high"]
    interval = "" if low is None else f" ({low:+.1%} to {high:+.1%})"
    return f"{gain['relative']:+.1%}{interval}"


def chat(run: RunArgument, dial: Dial = None, request: Request = None) -> None:
    """Ask the base model and the adapted one the same, side by side; Ctrl-D ends."""
    finished = Run(run)
    if not finished.folder.trained.is_dir():
        raise RunError(f"{run} holds no adapter and no model: name a run of `metier adapt`.")
    talker = finished.model(dial)
    for asked in [request] if request is not None else _requests():
        _answer(talker, asked)


def _requests() -> Iterator[str]:
    """What is typed, or the lines of a pipe; empty ones are none."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    while True:
        try:
            typed = input("> ").strip()
        except EOFError:
            write()
            return
        if typed:
            yield typed


def _answer(talker: Talker, request: str) -> None:
    answers = {name: talker.generate(request, adapted=name == "adapted") for name in ("base", "adapted")}
    if not sys.stdout.isatty():
        write(f"> {request}")
        for name, answer in answers.items():
            write(f"{name + ':':<9}{answer or NO_ANSWER}")
        write()
        sys.stdout.flush()
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    side_by_side = Table(*answers, expand=True)
    side_by_side.add_row(*(Text(printable(answer) or NO_ANSWER) for answer in answers.values()))
    Console(markup=False, highlight=False, emoji=False).print(side_by_side)
