"""From one file on the disk to what it holds: its documents, or the rows and members that are read like files."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from metier.sources.formats.archives import (
    MOST_DEPTH,
    MOST_SECONDS_BEFORE,
    Allowance,
    Member,
    single_member,
    tar_members,
    zip_members,
)
from metier.sources.formats.kinds import ARCHIVES, KINDS, READ, ROWS, SHEETS
from metier.sources.formats.office import read_sheets, sheets_text
from metier.sources.formats.outcome import Document, Reading, Status, UnreadableError, counted

MOST_FILE_BYTES = 256 << 20  # of one file that is read whole; as one document it could not be split
MOST_ARCHIVE_BYTES = 1 << 30


@dataclass(frozen=True)
class FileFound:
    """One file, or one file in an archive, as it was found.

    name       its path as the report shows it, "papers.zip/a.pdf" inside an archive
    remedy     what to do when nothing could be read
    n_bytes    its size; unpacked, for a member of an archive
    documents  its texts
    rows       the content of a file of rows that lies in an archive, to be read as rows
    table      the rows of cells of a spreadsheet with one sheet, which may be rows to learn
    """

    name: str
    status: Status
    reason: str = ""
    remedy: str = ""
    n_bytes: int = 0
    documents: tuple[Document, ...] = ()
    removed: Mapping[str, int] = field(default_factory=dict)
    rows: bytes | None = None
    table: tuple[tuple[str, ...], ...] = ()


def suffix_of(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file, open.

    Raises:
        UnreadableError: it is none, is closed to us, or changes while it is read.
    """
    try:
        before = os.stat(path)
        if not stat.S_ISREG(before.st_mode):  # opening a pipe would wait for its other end
            raise UnreadableError("unsupported", "is a pipe or a device, not a file")
        with open(path, "rb") as file:
            yield file
        after = os.stat(path)
    except OSError as error:
        why = f"cannot be read ({error.strerror})"
        raise UnreadableError("rejected", why, "mend its permissions, or leave it out") from None
    if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
        raise UnreadableError("rejected", "changed while it was read", "wait until it is written, and run again")


def read_whole(path: Path, most: int) -> bytes:
    """The bytes of a file.

    Raises:
        UnreadableError: as `opened`, or it is larger than `most`.
    """
    with opened(path) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        if n_bytes > most:
            why = f"is larger than {most >> 20} MiB ({n_bytes >> 20} MiB)"
            raise UnreadableError("rejected", why, "cut it into documents, a file each")
        return file.read(most + 1)


def read_file(path: Path, name: str, password: str = "") -> list[FileFound]:
    """Everything in one file; nothing is raised for what is wrong with it, except that memory or time is short."""
    archive = suffix_of(name) in ARCHIVES
    try:
        data = read_whole(path, MOST_ARCHIVE_BYTES if archive else MOST_FILE_BYTES)
    except UnreadableError as error:
        size = path.lstat().st_size if os.path.lexists(path) else 0
        return [FileFound(name, error.status, error.reason, error.remedy, size)]
    return list(found_in(name, data, password, Allowance(len(data)), 0))


def found_in(name: str, data: bytes, password: str, allowance: Allowance, depth: int) -> Iterator[FileFound]:
    """What the bytes of one file hold, members of archives included."""
    suffix = suffix_of(name)
    n_bytes = len(data)
    try:
        if depth and allowance.is_late:
            why = f"comes after {MOST_SECONDS_BEFORE} s of reading what lies before it"
            raise UnreadableError("rejected", why, "give it as a file of its own")
        if not data.strip(b"\0 \t\r\n\f\xef\xbb\xbf"):
            raise UnreadableError("empty", "holds no text", "give a file with text in it, or leave it out")
        if suffix in ARCHIVES:
            yield from _archive(name, data, password, allowance, depth)
        elif suffix in ROWS:
            yield FileFound(name, "ok", n_bytes=n_bytes, rows=data)
        elif suffix in SHEETS:
            sheets = read_sheets(data, password)
            table = tuple(map(tuple, next(iter(sheets.values())))) if len(sheets) == 1 else ()
            yield _read(name, n_bytes, sheets_text(sheets), table)
        elif suffix in KINDS:
            kind = KINDS[suffix]
            reading = kind.read(data, password) if kind.locks else kind.read(data)
            if reading.attached:
                yield from _with_attachments(name, reading, n_bytes, password, allowance, depth)
            else:
                yield _read(name, n_bytes, reading)
        else:
            raise UnreadableError("unsupported", f"is a kind of file that is not read ({suffix or 'no suffix'})")
    except UnreadableError as error:
        yield FileFound(name, error.status, error.reason, error.remedy, n_bytes)
    except MemoryError:
        yield FileFound(name, "rejected", "needs more memory than reading may take", "leave it out", n_bytes)
    except Exception as error:  # the edge between strangers' files and us: one of them never stops the others
        why = f"could not be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        yield FileFound(name, "rejected", why, "leave it out", n_bytes)


def _read(name: str, n_bytes: int, reading: Reading, table: tuple[tuple[str, ...], ...] = ()) -> FileFound:
    if not any(document.text for document in reading.documents):
        raise UnreadableError("empty", "holds no text", "give a file with text in it, or leave it out")
    status: Status = "partial" if reading.problem else "ok"
    return FileFound(name, status, reading.problem, "", n_bytes, reading.documents, reading.removed, table=table)


def _with_attachments(
    name: str, reading: Reading, n_bytes: int, password: str, allowance: Allowance, depth: int
) -> Iterator[FileFound]:
    """What is attached, where it is of a kind that is read, and then the message or the box itself."""
    taken: set[str] = set()
    n_left = 0
    for attached, content in reading.attached:
        if suffix_of(attached) in READ and depth < MOST_DEPTH:
            yield from found_in(_free_name(f"{name}/{attached}", taken), content, password, allowance, depth + 1)
        else:
            n_left += 1
    removed = counted(reading.removed, {"attachments": n_left})
    if reading.documents:
        yield _read(name, n_bytes, replace(reading, removed=removed))
    elif taken:
        yield FileFound(name, "ok", "has no text of its own, attachments only", "", n_bytes, removed=removed)
    else:
        raise UnreadableError("no_text", "has no text, only attachments of kinds that are not read")


def _archive(name: str, data: bytes, password: str, allowance: Allowance, depth: int) -> Iterator[FileFound]:
    """The archive itself, last, and before it every file in it."""
    if depth >= MOST_DEPTH:
        raise UnreadableError("rejected", f"lies {depth} archives deep, one more than is opened")
    n_members, n_refused, cut_off = 0, 0, ""
    taken: set[str] = set()
    try:
        for member in _members(name, data, password, allowance):
            n_members += 1
            path = _free_name(f"{name}/{member.name.replace(chr(92), '/').lstrip('/')}", taken)
            if member.data is None:
                n_refused += 1
                yield FileFound(path, member.status, member.reason, "", 0)
            elif not _is_hidden(member.name):
                yield from found_in(path, member.data, password, allowance, depth + 1)
    except UnreadableError as error:
        if not n_members:
            raise
        cut_off = error.reason
    refused = f"{n_refused} of {n_members} files in it are not read" if n_refused else ""
    problem = "; ".join(filter(None, (cut_off, refused)))
    status: Status = "partial" if problem else "ok" if n_members else "empty"
    yield FileFound(name, status, problem or f"holds {n_members} files", "", len(data))


def _free_name(path: str, taken: set[str]) -> str:
    """An archive may hold several files of one name."""
    name, number = path, 1
    while name in taken:
        number += 1
        stem, dot, suffix = path.rpartition(".")
        name = f"{stem} ({number}){dot}{suffix}"
    taken.add(name)
    return name


def _is_hidden(name: str) -> bool:
    """Hidden files, and what systems put beside files, are left out as in folders."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _members(name: str, data: bytes, password: str, allowance: Allowance) -> Iterator[Member]:
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return zip_members(data, allowance, MOST_FILE_BYTES, password)
    if suffix_of(name) in (".tar", ".tgz") or suffix_of(name.rpartition(".")[0]) == ".tar":
        return tar_members(data, allowance, MOST_FILE_BYTES)
    if suffix_of(name) == ".zip":
        raise UnreadableError("rejected", "is damaged: no zip archive can be read from it", "get it again")
    return iter([single_member(name, data, allowance, MOST_FILE_BYTES)])
