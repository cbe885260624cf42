"""The commands about what is embedded: models and packs."""

from pathlib import Path
from typing import Annotated

import typer

from metier.cli.terminal import complain, table, write
from metier.errors import ModelError
from metier.models import embedded
from metier.sources import packs as fields

Fetch = Annotated[str | None, typer.Option(metavar="NAME", help="fetch this one into the cache")]
Remove = Annotated[str | None, typer.Option(metavar="NAME", help="delete this one from the cache")]


def models(fetch: Fetch = None, remove: Remove = None) -> None:
    """List the models that need no hub, fetch one, or remove one."""
    if fetch:
        write(str(embedded.embedded_folder(_known_model(fetch))))
    if remove:
        _say_removed(remove, embedded.remove(_known_model(remove)))
    if not fetch and not remove:
        rows = [
            (
                model.name,
                f"{model.parameters / 1e6:.0f} million",
                _held(embedded.model_folder(model.name) if embedded.is_cached(model.name) else None),
                model.licence,
                model.attribution,
            )
            for model in embedded.EMBEDDED.values()
        ]
        write(table(("model", "parameters", "in the cache", "licence", "from"), rows))


def packs(fetch: Fetch = None, remove: Remove = None) -> None:
    """List the embedded fields, which are named pack:NAME as data; fetch one, or remove one."""
    if fetch:
        write(str(fields.pack_path(fetch)))
    if remove:
        _say_removed(remove, fields.remove_pack(remove))
    if not fetch and not remove:
        rows = [
            (f"pack:{pack.name}", pack.title, _held(fields.cached_pack(pack.name)), pack.licence, pack.attribution)
            for pack in fields.list_packs()
        ]
        write(table(("pack", "field", "in the cache", "licence", "from"), rows))


def _known_model(name: str) -> str:
    """A name becomes a folder that may be deleted, so it must be one of ours."""
    if name not in embedded.EMBEDDED:
        raise ModelError(f"There is no embedded model called {name!r}: choose from {', '.join(embedded.EMBEDDED)}.")
    return name


def _say_removed(name: str, was_there: bool) -> None:
    complain(f"{name} is removed from the cache." if was_there else f"{name} was not in the cache.")


def _held(path: Path | None) -> str:
    if path is None:
        return "no"
    files = [path] if path.is_file() else list(path.rglob("*"))
    return f"{sum(file.stat().st_size for file in files if file.is_file()) / 1e6:,.1f} MB"
