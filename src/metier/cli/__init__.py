"""The command line: parse, call, print. Importing it imports neither torch nor transformers."""

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, TextIO

import typer

from metier import __version__
from metier.cli.data import check, read
from metier.cli.finished import chat, report, runs
from metier.cli.machine import bench
from metier.cli.shelf import models, packs
from metier.cli.terminal import complain
from metier.cli.verdicts import adapt, prove
from metier.errors import MetierError

EXIT_CODES = {
    0: "done",
    1: "failed in a way that is not the user's (METIER_DEBUG=1 shows where)",
    2: "something that the user can mend, said in one sentence",
    3: "done, and the verdict is not 'adapted' (only with --gate)",
    130: "interrupted with Ctrl-C",
}

app = typer.Typer(
    name="metier",
    help="Give a general language model a trade, and prove that it learned it.",
    epilog="Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + ".",
    add_completion=False,
    rich_markup_mode="rich",
)
for command in (adapt, read, check, prove, report, runs, chat, bench, models, packs):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"metier {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")]


@app.callback()
def _options(version: Version = False) -> None:
    del version


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. The only place where errors become words."""
    for stream in (sys.stdout, sys.stderr):
        _never_refuse(stream)
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = bool(os.environ.get("METIER_DEBUG"))
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")  # libraries warn their callers: that is us, not the user
            _run(given or ["--help"])
        sys.stdout.flush()
    except typer.Exit as left:
        return left.exit_code
    except BrokenPipeError:
        _let_go(sys.stdout)  # the reader has seen enough
    except typer.TyperException as error:
        complain(f"{_sentence(error)} `metier {_command_of(given)}--help` lists what can be given.")
        return 2
    except MetierError as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        complain("interrupted.")
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        complain(f"failed unexpectedly ({type(error).__name__}: {error}): METIER_DEBUG=1 shows where.")
        return 1
    return 0


def _run(arguments: list[str]) -> None:
    """As typer would, but for its own way with errors, which would hide ours."""
    command = typer.main.get_command(app)
    with command.make_context("metier", arguments) as context:
        command.invoke(context)


def _sentence(error: typer.TyperException) -> str:
    said = error.format_message().rstrip(".")
    return said if said.endswith("?") else said + "."


def _command_of(arguments: Sequence[str]) -> str:
    """The command that was meant, with a space after it; nothing when it is none."""
    names = {command.callback.__name__ for command in app.registered_commands if command.callback}
    return f"{arguments[0]} " if arguments and arguments[0] in names else ""


def _never_refuse(stream: TextIO) -> None:
    """A file name that is not UTF-8, or a letter that the terminal lacks, is written as an escape."""
    if reconfigure := getattr(stream, "reconfigure", None):
        reconfigure(errors="backslashreplace")


def _let_go(stream: TextIO) -> None:
    """Python flushes stdout when it ends; what is left must go nowhere without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
