"""Flags that several commands share: made from Settings and from the parts of a row, so that each has one home."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields as fields_of
from typing import Annotated, Any

import typer

from metier.settings import Settings, help_of
from metier.sources.rows import NAMEABLE

Command = Callable[..., None]

EVIDENCE = (
    "minutes",
    "evidence",
    "budget_forgetting",
    "general",
    "seed",
    "device",
    "load_in_4bit",
    "threads",
    "rank_timeout",
)
PANELS = {
    "Data": ("privacy", "select", "benchmark"),
    "Plan": ("minutes", "tokens", "evidence", "held_out", "budget_forgetting", "general"),
    "Training": (
        "method",
        "new_tokens",
        "top_layers",
        "r",
        "alpha",
        "lr",
        "replay",
        "max_epochs",
        "step_tokens",
        "pack_tokens",
    ),
    "Machine": (
        "seed",
        "device",
        "load_in_4bit",
        "compile",
        "threads",
        "checkpoint_s",
        "sharding",
        "rank_timeout",
    ),
}
METAVARS: dict[Any, str] = {float: "X", int: "N", str: "NAME", list[str]: "PATH", bool: ""}
OWN_METAVARS = {"new_tokens": "TERM|FILE"}
FIELD_PANEL = "Fields of a row, where they do not have the usual names"

DATA_HELP = "files, folders, pack:NAME, or the id of a data set on the hub"
Data = Annotated[list[str], typer.Argument(metavar="DATA", help=DATA_HELP, show_default=False)]
DataUnlessResumed = Annotated[
    list[str] | None, typer.Argument(metavar="DATA", help=f"{DATA_HELP}; left out with --resume", show_default=False)
]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="go on with a run that was stopped or killed; everything but --password, --json and --gate is its own",
    ),
]
Out = Annotated[
    str | None,
    typer.Option(metavar="RUN", help="the run folder, which must not exist (runs/DATA-DATE without it)"),
]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="count rows that cannot be read, and go on")]
Password = Annotated[
    str, typer.Option(metavar="WORD", envvar="METIER_PASSWORD", help="opens locked PDFs, office files and archives")
]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else on stdout")]
Gate = Annotated[bool, typer.Option("--gate", help="exit with 3 when the verdict is not 'adapted'")]


def takes(settings: Sequence[str] = (), row_fields: bool = False) -> Callable[[Command], Command]:
    """Give a command a flag for each of these settings, gathered in its parameter `settings`, and with `row_fields` one
    for each part of a row, gathered in its parameter `fields` as part → field."""

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters
        kept = [p.replace(kind=p.KEYWORD_ONLY) for p in own.values() if p.name not in ("settings", "fields")]
        made = [_setting_flag(name) for name in settings]
        parts = NAMEABLE if row_fields else []

        def call(**given: Any) -> None:
            gathered: dict[str, Any] = {}
            if settings:
                values = {name: given.pop(name) for name in settings}
                gathered["settings"] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
            if parts:
                gathered["fields"] = {part: field for part in parts if (field := given.pop(part))}
            command(**given, **gathered)

        call.__doc__, call.__name__ = command.__doc__, command.__name__
        call.__signature__ = inspect.Signature([*kept, *made, *map(_field_flag, parts)])  # type: ignore[attr-defined]
        return call

    return decorate


def given(context: typer.Context) -> list[str]:
    """What was typed, by the names under which the command shows it."""
    typed = []
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is not None and source.name == "COMMANDLINE":
            typed.append(parameter.opts[0] if parameter.param_type_name == "option" else str(parameter.metavar))
    return typed


def _setting_flag(name: str) -> inspect.Parameter:
    setting = next(f for f in fields_of(Settings) if f.name == name)
    several = isinstance(setting.default, tuple)
    kind: Any = list[str] if several else type(setting.default)
    panel = next((panel for panel, names in PANELS.items() if name in names), None)
    option = typer.Option(metavar=OWN_METAVARS.get(name, METAVARS[kind]), help=help_of(name), rich_help_panel=panel)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=setting.default, annotation=Annotated[kind, option]
    )


def _field_flag(part: str) -> inspect.Parameter:
    option = typer.Option(metavar="FIELD", help=f"the field that holds the {part}", rich_help_panel=FIELD_PANEL)
    return inspect.Parameter(
        part, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )
