"""The commands that end in a verdict: adapt and prove."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from metier.cli.options import (
    DATA_HELP,
    EVIDENCE,
    PANELS,
    AsJson,
    DataUnlessResumed,
    Gate,
    Out,
    Password,
    Resume,
    SkipBadRows,
    given,
    takes,
)
from metier.cli.panel import show
from metier.cli.terminal import complain, progress, write_json
from metier.errors import RunError
from metier.ranks import this_rank
from metier.results import Run
from metier.runs import RunFolder, default_folder
from metier.settings import Settings, help_of

Base = Annotated[str, typer.Option(metavar="MODEL", help=help_of("model"))]
Adapter = Annotated[str | None, typer.Option(metavar="FOLDER", help="the adapter to prove: a folder as PEFT writes it")]
Model = Annotated[str | None, typer.Option(metavar="MODEL", help="or the whole model to prove")]
Domain = Annotated[list[str], typer.Option(metavar="DATA", help=f"texts it has not seen: {DATA_HELP}")]
TrainedOn = Annotated[
    list[str] | None, typer.Option(metavar="DATA", help="the data that it was trained on, to look for leaks")
]


@takes(settings=("model", *(name for names in PANELS.values() for name in names)), row_fields=True)
def adapt(
    invocation: typer.Context,
    settings: dict[str, Any],
    fields: dict[str, str],
    data: DataUnlessResumed = None,
    out: Out = None,
    resume: Resume = None,
    skip_bad_rows: SkipBadRows = False,
    password: Password = "",
    as_json: AsJson = False,
    gate: Gate = False,
) -> None:
    """Adapt a model to the texts of a field, measure what it gained and what it forgot, and say so."""
    # What cannot be meant is said before torch is imported.
    if resume is not None:
        require_nothing_beside_resume(resume, given(invocation))
        wanted: dict[str, Any] = {"resume": resume}
    else:
        Settings(data=tuple(data or ()), **settings)
        if out:
            RunFolder(out).require_free()
        wanted = {"out": out or str(default_folder(data[0] if data else "")), "fields": fields, **settings}
        wanted["skip_bad_rows"] = skip_bad_rows
    try:
        with progress() as shown:
            from metier.adapt import adapt as adapt_it

            run = adapt_it(*(data or ()), password=password, progress=shown, **wanted)
    except KeyboardInterrupt:
        complain(interrupted(Path(resume or wanted["out"])))
        raise typer.Exit(130) from None
    _finish(run, as_json, gate)


def require_nothing_beside_resume(resume: str, typed: Sequence[str]) -> None:
    if others := [name for name in typed if name not in ("--resume", "--password", "--json", "--gate")]:
        raise RunError(
            f"{others[0]} cannot be given with --resume: `{resume_command(resume)}` takes everything from the run "
            "folder."
        )


@takes(settings=EVIDENCE, row_fields=True)
def prove(
    base: Base,
    domain: Domain,
    settings: dict[str, Any],
    fields: dict[str, str],
    adapter: Adapter = None,
    model: Model = None,
    trained_on: TrainedOn = None,
    out: Out = None,
    skip_bad_rows: SkipBadRows = False,
    password: Password = "",
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
                trained_on=trained_on or (),
                out=folder,
                fields=fields,
                skip_bad_rows=skip_bad_rows,
                password=password,
                progress=shown,
                **settings,
            )
    except KeyboardInterrupt:
        complain("interrupted; nothing was proved: run the same command again.")
        raise typer.Exit(130) from None
    _finish(run, as_json, gate)


def _finish(run: Run, as_json: bool, gate: bool) -> None:
    if not this_rank().is_first:
        return
    if as_json:
        write_json({"run": str(run.path), **run.results})
    else:
        show(run)
    if gate and run.verdict["decision"] != "adapted":
        raise typer.Exit(3)


def resume_command(folder: Path | str) -> str:
    return shlex.join(["metier", "adapt", "--resume", str(folder)])


def interrupted(folder: Path) -> str:
    """What the run folder holds after Ctrl-C or SIGTERM, and how to go on."""
    run = RunFolder(folder)
    if not run.origin.exists():
        return "interrupted; nothing was written: run the same command again."
    held = "nothing that was trained yet"
    if steps := sorted(run.checkpoints.glob("step-*")):
        held = f"everything up to step {int(steps[-1].name.removeprefix('step-'))}"
    if run.trained.exists():
        held += f", and the {run.trained.name} as it was then, with no verdict"
    return f"interrupted; {folder} holds {held}: go on with `{resume_command(folder)}`."
