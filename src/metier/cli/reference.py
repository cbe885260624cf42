"""docs/cli.md, made from the parser: `python -m metier.cli.reference > docs/cli.md`."""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import typer

from metier.cli import EXIT_CODES, app

OPENING = """# The command line

Made from the parser by `python -m metier.cli.reference > docs/cli.md`; `metier COMMAND --help` says the same.
Results go to stdout, progress to stderr.
"""


def reference() -> str:
    """The whole page as Markdown."""
    group: Any = typer.main.get_command(app)
    lines = [OPENING, "| exit code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    for name, command in group.commands.items():
        lines += ["", f"## metier {name}", "", inspect.cleandoc(command.help), "", f"`{_usage(name, command)}`"]
        lines += _tables(command.params)
    return "\n".join(lines) + "\n"


def _usage(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    pieces = [p.metavar + ("…" if p.nargs != 1 else "") for p in arguments]
    return " ".join(["metier", name, *(p if a.required else f"[{p}]" for p, a in zip(pieces, arguments, strict=True))])


def _tables(params: list[Any]) -> Iterator[str]:
    panels: dict[str, list[Any]] = {}
    for param in params:
        panels.setdefault(param.rich_help_panel or "", []).append(param)
    for panel, members in panels.items():
        yield from ("", f"| {panel or 'given'} | | default |", "|---|---|---|")
        yield from (f"| `{_name(p)}` | {_cell(p.help)} | {_default(p)} |" for p in members)


def _name(param: Any) -> str:
    if param.param_type_name == "argument":
        return str(param.metavar)
    flag = " / ".join((*param.opts, *param.secondary_opts))
    return flag if param.is_flag else f"{flag} {param.metavar or param.name.upper()}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(param: Any) -> str:
    if param.required:
        return "required"
    is_flag = param.param_type_name == "option" and param.is_flag
    return "" if param.default in (None, (), []) or is_flag else f"{param.default}"


if __name__ == "__main__":
    sys.stdout.write(reference())
