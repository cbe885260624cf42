"""The commands that end in a verdict: adapt and prove."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from metier.cli.options import DATA_HELP, EVIDENCE, PANELS, AsJson, Data, Gate, Out, SkipBadRows, takes
from metier.cli.panel import show
from metier.cli.terminal import complain, progress, write_json
from metier.results import Run
from metier.runs import RunFolder, default_folder
from metier.settings import Settings, help_of

Base = Annotated[str, typer.Option(metavar="MODEL", help=help_of("model"))]
Adapter = Annotated[str | None, typer.Option(metavar="FOLDER", help="the adapter to prove: a folder as PEFT writes it")]
Model = Annotated[str | None, typer.Option(metavar="MODEL", help="or the whole model to prove")]
Domain = Annotated[list[str], typer.Option(metavar="DATA", help=f"texts it has not seen: {DATA_HELP}")]


@takes(settings=("model", *(name for names in PANELS.values() for name in names)), row_fields=True)
def adapt(
    data: Data,
    settings: dict[str, Any],
    fields: dict[str, str],
    out: Out = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: AsJson = False,
    gate: Gate = False,
) -> None:
    """Adapt a model to the texts of a field, measure what it gained and what it forgot, and say so."""
    resolved = Settings(data=tuple(data), **settings)  # what cannot be meant is said before torch is imported
    if out:
        RunFolder(out).require_free()
    folder = Path(out or default_folder(data[0]))
    try:
        with progress() as shown:
            from metier.adapt import adapt as adapt_it

            run = adapt_it(*data, out=folder, fields=fields, skip_bad_rows=skip_bad_rows, progress=shown, **settings)
    except KeyboardInterrupt:
        complain(interrupted(folder, resolved.model))
        raise typer.Exit(130) from None
    _finish(run, as_json, gate)


@takes(settings=EVIDENCE, row_fields=True)
def prove(
    base: Base,
    domain: Domain,
    settings: dict[str, Any],
    fields: dict[str, str],
    adapter: Adapter = None,
    model: Model = None,
    out: Out = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: AsJson = False,
    gate: Gate = False,
) -> None:
    """Measure any adapter or model against its base, whoever trained it."""
    Settings(data=tuple(domain), model=base, **settings)  # what cannot be meant is said before torch is imported
    if out:
        RunFolder(out).require_free()
    folder = Path(out or default_folder(domain[0]))
    try:
        with progress() as shown:
            from metier.prove import prove as prove_it

            run = prove_it(
                base=base,
                adapter=adapter,
                model=model,
                domain=domain,
                out=folder,
                fields=fields,
                skip_bad_rows=skip_bad_rows,
                progress=shown,
                **settings,
            )
    except KeyboardInterrupt:
        complain("interrupted; nothing was proved: run the same command again.")
        raise typer.Exit(130) from None
    _finish(run, as_json, gate)


def _finish(run: Run, as_json: bool, gate: bool) -> None:
    if as_json:
        write_json({"run": str(run.path), **run.results})
    else:
        show(run)
    if gate and run.verdict["decision"] != "adapted":
        raise typer.Exit(3)


def interrupted(folder: Path, base: str) -> str:
    """What the run folder holds after Ctrl-C, and how to go on."""
    run = RunFolder(folder)
    if not folder.exists():
        return "interrupted; nothing was written: run the same command again."
    if run.trained.exists():
        steps = sum(1 for _ in run.metrics.open(encoding="utf-8")) if run.metrics.exists() else 0
        what = run.trained.name
        prove_command = shlex.join(["metier", "prove", "--base", base, f"--{what}", str(run.trained)])
        return (
            f"interrupted; {folder} holds the {what} after {steps} steps and no verdict: measure it on texts it has "
            f"not seen with `{prove_command} --domain DATA`, or run again with another --out."
        )
    return f"interrupted; {folder} holds nothing trained yet: remove it, and run the same command again."
