"""The end of a run: the verdict, what moved, both models' answers, and what to type next."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from metier.cli.terminal import printable, write
from metier.results import Run

HARDLY_MOVED = 0.001  # of the size of the weights: noise that has no effect is about this large
HARDLY_LEARNED = 0.01  # of the loss on held-out rows
SHOWN_FIELD = 3
ANSWER_CHARACTERS = 300
NO_ANSWER = "(nothing)"
COLOURS = {"adapted": "green", "forgot": "red"}


def show(run: Run) -> None:
    """Print it to stdout, with colours and columns where that is a terminal."""
    results = run.results
    if sys.stdout.isatty():
        _draw(run, results)
        return
    verdict = results["verdict"]
    write(verdict["sentence"])
    for reason in verdict["reasons"]:
        write(f"  - {reason}")
    _write_part("What moved", moved(results))
    for sample in chosen_samples(results):
        write(f"\n> {cut(sample['request'])}")
        for name in ("reference", "base", "adapted"):
            write(f"  {name + ':':<11}{cut(sample[name]) or NO_ANSWER}")
    _write_part("Report", [str(run.folder.report)])
    _write_part("Next", next_commands(run))


def _write_part(title: str, lines: Sequence[str]) -> None:
    if lines:
        write(f"\n{title}")
        for line in lines:
            write(f"  {line}")


def _draw(run: Run, results: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    verdict = results["verdict"]
    body = Text(printable(verdict["sentence"]), style="bold")
    for reason in verdict["reasons"]:
        body.append(f"\n• {printable(reason)}", style="not bold")
    console.print(Panel(body, border_style=COLOURS.get(verdict["decision"], "yellow")))
    for line in moved(results):
        console.print(Text(line, style="yellow" if line.startswith("Warning") else ""))
    if samples := chosen_samples(results):
        answers = Table("asked", "base", "adapted", show_lines=True, expand=True)
        for sample in samples:
            answers.add_row(*(Text(cut(sample[name]) or NO_ANSWER) for name in ("request", "base", "adapted")))
        console.print(answers)
    console.print(Text.assemble("Report  ", (str(run.folder.report), "bold")), soft_wrap=True)
    for command in next_commands(run):
        console.print(Text.assemble("Next    ", command), soft_wrap=True)


def moved(results: Mapping[str, Any]) -> list[str]:
    """The same held-out rows before and after, the size of the update, and a warning when that is next to nothing."""
    training = results.get("training")
    if not training:
        return []
    probe, weights = training["probe"], results["model"].get("weights_moved")
    if not probe["n_rows"]:
        return []
    before, after = probe["nll_before"], probe["nll_after"]
    change = (after - before) / before if before else 0.0
    lines = [f"The same {probe['n_rows']} held-out rows: {before:.3f} → {after:.3f} nats per token ({change:+.1%})."]
    if weights is not None:
        lines.append(f"The update is {weights:.2%} of the size of the weights it is added to.")
    lr = training["lr"]
    if abs(change) < HARDLY_LEARNED or (weights is not None and weights < HARDLY_MOVED):
        lines.append(
            f"Warning: the model hardly changed in {training['steps']} steps. Give it more time (--minutes) or tokens "
            f"(--tokens), or a higher rate (--lr {2 * lr:g}; it was {lr:g})."
        )
    elif change > 0:
        lines.append(
            f"Warning: these rows became harder for the model. Lower the rate (--lr {lr / 2:g}; it was {lr:g}), "
            "or train for fewer passes (--max-epochs 1)."
        )
    return lines


def chosen_samples(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """A few of the field, and the general requests that every run shows."""
    samples = results.get("samples", [])
    field = [sample for sample in samples if sample["kind"] == "field"]
    return field[:SHOWN_FIELD] + [sample for sample in samples if sample["kind"] == "general"]


def next_commands(run: Run) -> list[str]:
    """What can be typed now; a run that only proved has trained nothing of its own to talk to."""
    path = str(run.path)
    commands = [["metier", "report", path]]
    if run.folder.trained.is_dir():
        chat = ["metier", "chat", path]
        trained = run.folder.trained
        prove = ["metier", "prove", "--base", run.settings.model, f"--{trained.name}", str(trained), "--domain"]
        commands = [chat, *commands, prove]
    said = [shlex.join(command) for command in commands]
    return [line + (" OTHER-DATA" if line.endswith("--domain") else "") for line in said]


def cut(text: str) -> str:
    """On one line, and not too long for a panel; the report has all of it."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= ANSWER_CHARACTERS else line[: ANSWER_CHARACTERS - 1].rstrip() + "…"
