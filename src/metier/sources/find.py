"""From what the user names (files, folders, packs, hub data sets) to the files to read."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from metier.errors import DataError
from metier.sources.packs import pack_path

TEXT_SUFFIXES = (".txt", ".md")
ROW_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
READABLE = ", ".join((*TEXT_SUFFIXES, *ROW_SUFFIXES))
DESCRIBES_DATA = re.compile(r"(readme|licen[cs]e|notice|copying|attribution)\b", re.IGNORECASE)
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PACK_PREFIX = "pack:"


@dataclass(frozen=True)
class Source:
    """One file to read.

    name      what it is called in ids and in the report; unique
    where     what it is called in messages: the path as the user can open it, or the hub id
    path      None for a data set of the hub
    suffix    lower case, with the dot; "" for a data set of the hub
    named     the user named this very file, so what cannot be read of it is an error
    skip      why it is not read; "" when it is
    """

    name: str
    where: str
    path: Path | None
    suffix: str
    named: bool
    skip: str = ""


def given_names(paths: Sequence[str]) -> dict[str, str]:
    """{name of a source: the one of `paths` that it was found under}. Raises DataError as `find_sources` does."""
    named = {source.where: source.name for source in find_sources(paths)}
    found: dict[str, str] = {}
    for given in paths:
        for source in _sources_of(given):
            if source.where in named:
                found.setdefault(named[source.where], given)
    return found


def find_sources(paths: Sequence[str]) -> list[Source]:
    """The files behind the given names, each once, in the given order; files of a folder are sorted by name.

    Raises:
        DataError: a name is no file, folder, pack or hub data set, or nothing in a folder can be read.
    """
    if not paths:
        raise DataError("No data is named: give files, folders, pack:NAME, or the id of a data set on the hub.")
    sources: list[Source] = []
    seen: set[object] = set()
    for given in paths:
        for source in _sources_of(given):
            identity = source.path.resolve() if source.path else source.where
            if identity not in seen:
                seen.add(identity)
                sources.append(source)
    counts = Counter(source.name for source in sources)
    return [replace(source, name=source.where) if counts[source.name] > 1 else source for source in sources]


def _sources_of(given: str) -> list[Source]:
    path = Path(given)
    if given.startswith(PACK_PREFIX):
        pack = pack_path(given.removeprefix(PACK_PREFIX))
        return [Source(pack.name, given, pack, pack.suffix, named=True)]
    if given and path.is_dir():
        return _sources_in(path)
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix not in TEXT_SUFFIXES + ROW_SUFFIXES:
            raise DataError(f"{given} is a kind of file that is not read: give {READABLE}.")
        return [Source(path.name, given, path, suffix, named=True)]
    looks_local = (
        path.suffix.lower() in TEXT_SUFFIXES + ROW_SUFFIXES or Path(path.parts[0] if path.parts else "").exists()
    )
    if HUB_NAME.fullmatch(given) and not looks_local:
        return [Source(given, given, None, "", named=True)]
    raise DataError(
        f"{given or 'An empty name'} does not exist: "
        "give a file, a folder, pack:NAME, or owner/name of a data set on the hub."
    )


def _sources_in(folder: Path) -> list[Source]:
    paths = list(_files_in(folder))
    has_rows = any(path.suffix.lower() in ROW_SUFFIXES for path in paths)
    sources = []
    for path in paths:
        suffix, skip = path.suffix.lower(), ""
        if has_rows and suffix not in ROW_SUFFIXES and DESCRIBES_DATA.match(path.name):
            skip = "describes the data"
        elif suffix not in TEXT_SUFFIXES + ROW_SUFFIXES:
            skip = f"a kind of file that is not read ({suffix or 'no suffix'})"
        sources.append(Source(path.relative_to(folder).as_posix(), str(path), path, suffix, named=False, skip=skip))
    if all(source.skip for source in sources):
        found = f"{len(sources)} files, none of which is read" if sources else "no files"
        raise DataError(f"{folder} holds {found}: give a folder with {READABLE}.")
    return sources


def _files_in(folder: Path) -> Iterator[Path]:
    """Files below a folder in sorted order; hidden ones, and what is in hidden folders, are left out."""
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(directory, name)
