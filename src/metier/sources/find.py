"""From what the user names (files, folders, packs, hub data sets) to the files to read."""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from metier.errors import DataError
from metier.sources.formats.kinds import READ, ROWS
from metier.sources.formats.outcome import Status
from metier.sources.packs import pack_path

READABLE = ", ".join(READ)
DESCRIBES_DATA = re.compile(r"(readme|licen[cs]e|notice|copying|attribution)\b", re.IGNORECASE)
DESCRIBES = "describes the data"
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
    status    how a file that is not read ends
    """

    name: str
    where: str
    path: Path | None
    suffix: str
    named: bool
    skip: str = ""
    status: Status = "unsupported"

    @property
    def has_rows(self) -> bool:
        return self.path is None or self.suffix in ROWS


def find_sources(paths: Sequence[str]) -> list[Source]:
    """The files behind the given names, each once, in the given order; files of a folder are sorted by name.

    Raises:
        DataError: a name is no file, folder, pack or hub data set, or nothing in a folder can be read.
    """
    if not paths:
        raise DataError("No data is named: give files, folders, pack:NAME, or the id of a data set on the hub.")
    sources: list[Source] = []
    seen: set[str] = set()
    for given in paths:
        for source in _sources_of(given):
            identity = _identity(source)
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
        if suffix not in READ:
            raise DataError(f"{given} is a kind of file that is not read: give {READABLE}.")
        return [Source(path.name, given, path, suffix, named=True)]
    if given and path.exists():
        raise DataError(f"{given} is a pipe or a device: write what comes out of it to a file, and name that.")
    looks_local = path.suffix.lower() in READ or Path(path.parts[0] if path.parts else "").exists()
    if HUB_NAME.fullmatch(given) and not looks_local:
        return [Source(given, given, None, "", named=True)]
    raise DataError(
        f"{given or 'An empty name'} does not exist: "
        "give a file, a folder, pack:NAME, or owner/name of a data set on the hub."
    )


def _sources_in(folder: Path) -> list[Source]:
    found = list(_entries(folder))
    has_rows = any(path.suffix.lower() in ROWS for path, _ in found)
    sources = []
    for path, problem in found:
        suffix, skip = path.suffix.lower(), problem
        status: Status = "rejected"
        if not skip and has_rows and suffix not in ROWS and DESCRIBES_DATA.match(path.name):
            skip = DESCRIBES
        elif not skip and suffix not in READ:
            skip, status = f"is a kind of file that is not read ({suffix or 'no suffix'})", "unsupported"
        name = path.relative_to(folder).as_posix()
        sources.append(Source(name, str(path), path, suffix, named=False, skip=skip, status=status))
    if all(source.skip for source in sources):
        found_there = f"{len(sources)} files, none of which is read" if sources else "no files"
        first = f" ({sources[0].where} {sources[0].skip})" if sources else ""
        raise DataError(f"{folder} holds {found_there}{first}: give a folder with {READABLE}.")
    return sources


def _entries(folder: Path) -> Iterator[tuple[Path, str]]:
    """(path, why it is not read) of everything below a folder in sorted order; hidden ones are left out.

    Links to files are read; links to folders are named and not followed, so none leads in a circle.
    """
    closed: list[OSError] = []
    for directory, folders, files in os.walk(folder, onerror=closed.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if Path(directory, name).is_symlink():
                yield Path(directory, name), "is a link to a folder, which is not followed: name the folder itself"
        for name in sorted(files):
            if not name.startswith("."):
                path = Path(directory, name)
                yield path, _not_a_file(path)
    for error in closed:
        yield Path(error.filename), f"cannot be opened ({error.strerror})"


def _not_a_file(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return (
            f"is a link that leads nowhere ({error.strerror})" if path.is_symlink() else f"is gone ({error.strerror})"
        )
    return "" if stat.S_ISREG(mode) else "is a pipe or a device, not a file"


def _identity(source: Source) -> str:
    return os.path.realpath(source.path) if source.path else source.where
