"""Archives: their members one after the other, from memory, within limits. Nothing is unpacked to the disk."""

import bz2
import gzip
import io
import lzma
import re
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from metier.sources.formats.outcome import Status, UnreadableError

MOST_FILES = 100_000
MOST_BYTES = 1 << 30  # unpacked, of an archive with all that is in it
MOST_TIMES_LARGER = 100  # than the archive; text packs to a fifth, a bomb to a thousandth
ALWAYS_ALLOWED = 16 << 20
MOST_DEPTH = 3
MOST_SECONDS_BEFORE = 200  # of processor time, before a member is not begun: a worker has 300 for all of a file
DRIVE = re.compile(r"[A-Za-z]:[\\/]")
# What the readers raise for bytes that are not what they say; NotImplementedError is zipfile's for a compression or a
# version that it does not know.
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class Member:
    """One file in an archive. data: its bytes, None where `status` and `reason` say why they are not read."""

    name: str
    n_bytes: int
    data: bytes | None
    status: Status = "ok"
    reason: str = ""


class Allowance:
    """What may still be unpacked, and how long it may take, shared by an archive and the archives in it."""

    def __init__(self, packed: int) -> None:
        self.n_bytes = min(MOST_BYTES, max(ALWAYS_ALLOWED, MOST_TIMES_LARGER * packed))
        self.n_files = MOST_FILES
        self._began = time.process_time()

    @property
    def is_late(self) -> bool:
        return time.process_time() - self._began > MOST_SECONDS_BEFORE


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class OverLimitError(Exception):
    """More would be unpacked than is allowed."""


def zip_members(data: bytes, allowance: Allowance, most: int, password: str) -> Iterator[Member]:
    """Raises UnreadableError: it is damaged as a whole. A member that is, is named."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except DAMAGED:
        raise UnreadableError("rejected", "is damaged: no zip archive can be read from it", "get it again") from None
    for entry in archive.infolist():
        if entry.is_dir():
            continue
        if refused := _refused(entry.filename, entry.file_size, allowance, most):
            yield refused
        elif entry.flag_bits & 1 and not password:
            yield Member(entry.filename, entry.file_size, None, "needs_password", "opens with a password only")
        else:
            try:
                with archive.open(entry, pwd=password.encode() or None) as file:
                    content = _taken(file, allowance, most)
            except OverLimitError:
                yield _over(entry.filename, entry.file_size)
            except DAMAGED as error:
                locked = entry.flag_bits & 1
                reason = "opens with another password than the one given" if locked else f"is damaged ({error})"
                yield Member(entry.filename, entry.file_size, None, "needs_password" if locked else "rejected", reason)
            else:
                yield Member(entry.filename, len(content), content)


def tar_members(data: bytes, allowance: Allowance, most: int) -> Iterator[Member]:
    """Raises UnreadableError: it is damaged, also in the middle: what came before was read."""
    stream = _Limited(_unpacked(data), allowance)
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for entry in archive:
                if entry.isdir():
                    continue
                if not entry.isreg():
                    kind = "a link" if entry.issym() or entry.islnk() else "a device"
                    yield Member(entry.name, 0, None, "unsupported", f"is {kind} in the archive, not a file")
                elif refused := _refused(entry.name, entry.size, allowance, most):
                    yield refused
                else:
                    file = archive.extractfile(entry)
                    content = file.read() if file is not None else b""
                    allowance.n_files -= 1
                    yield Member(entry.name, len(content), content)
    except OverLimitError:
        raise UnreadableError("rejected", "unpacks to more than is allowed, as a bomb does") from None
    except DAMAGED as error:
        raise UnreadableError("rejected", f"is damaged or cut off ({error})", "get it again") from None


def single_member(name: str, data: bytes, allowance: Allowance, most: int) -> Member:
    """The file in a .gz, .bz2 or .xz.

    Raises:
        UnreadableError: damaged, or more than is allowed.
    """
    inner = name.rpartition("/")[2].rpartition(".")[0]
    try:
        content = _taken(_unpacked(data), allowance, most)
    except OverLimitError:
        raise UnreadableError("rejected", "unpacks to more than is allowed, as a bomb does") from None
    except DAMAGED as error:
        raise UnreadableError("rejected", f"is damaged or cut off ({error})", "get it again") from None
    return Member(inner, len(content), content)


def _unpacked(data: bytes) -> Readable:
    raw = io.BytesIO(data)
    if data.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if data.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if data.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(raw)
    return raw


class _Limited(io.RawIOBase):
    """A stream that stops where the allowance ends: what is skipped over is unpacked, too."""

    def __init__(self, stream: Readable, allowance: Allowance) -> None:
        self._stream, self._allowance = stream, allowance

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._allowance.n_bytes -= len(data)
        if self._allowance.n_bytes < 0:
            raise OverLimitError
        return data


def _taken(file: Readable, allowance: Allowance, most: int) -> bytes:
    limit = min(most, allowance.n_bytes)
    data = file.read(limit + 1)
    if len(data) > limit:
        raise OverLimitError
    allowance.n_bytes -= len(data)
    allowance.n_files -= 1
    return data


def _refused(name: str, n_bytes: int, allowance: Allowance, most: int) -> Member | None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or DRIVE.match(name):
        return Member(name, n_bytes, None, "rejected", "has a path that climbs out of the archive")
    if allowance.n_files <= 0:
        return Member(name, n_bytes, None, "rejected", f"comes after {MOST_FILES:,} other files")
    if n_bytes > min(most, allowance.n_bytes):
        return _over(name, n_bytes)
    return None


def _over(name: str, n_bytes: int) -> Member:
    return Member(name, n_bytes, None, "rejected", "unpacks to more than is allowed, as a bomb does")
