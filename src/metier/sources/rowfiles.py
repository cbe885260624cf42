"""The records of one file of rows, from the disk or from an archive."""

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from metier.sources.decoding import decode
from metier.sources.find import Source
from metier.sources.formats.files import opened, read_whole
from metier.sources.records import Records, read_csv, read_hub, read_json, read_jsonl, read_parquet, records_of

MOST_BYTES = 1 << 30  # of a file that is read as a whole: every kind but .jsonl and .parquet
PROBE_BYTES = 1 << 20
WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass
class RowFile:
    """The rows of a file.

    n_bytes  UTF-8 bytes of its text, or of its values where rows have no text
    text     all of it, where it can be shown as a table; "" where it cannot
    mended   what was mended in it, counted by kind
    header   the fields of a table, for when none of its rows can be read
    """

    records: Records
    n_bytes: int
    text: str = ""
    mended: Mapping[str, int] = field(default_factory=dict)
    header: Mapping[str, object] = field(default_factory=dict)


def row_file(source: Source) -> RowFile:
    """Read a file of rows, or a data set of the hub.

    Raises:
        DataError: the file is none of its kind, or what belongs to no row is wrong with it.
        UnreadableError: it cannot be opened, is binary, too large, or changes while it is read.
    """
    if source.path is None:
        return of_values(read_hub(source.where))
    if source.suffix == ".parquet":
        return of_values(read_parquet(source.path, source.where))
    if source.suffix == ".jsonl":
        return _jsonl_file(source.path)
    return row_content(source.suffix, read_whole(source.path, MOST_BYTES), source.where)


def row_content(suffix: str, data: bytes, where: str) -> RowFile:
    """The rows in the bytes of a file; raises as `row_file` does."""
    if suffix == ".parquet":
        return of_values(read_parquet(BytesIO(data), where))
    decoded = decode(data)
    if not decoded.text.strip():
        return RowFile([], decoded.n_bytes, mended=decoded.mended)
    if suffix == ".jsonl":
        records, n_bytes, _ = read_jsonl(BytesIO(decoded.text.encode()))
        return RowFile(records, max(n_bytes, decoded.n_bytes), mended=decoded.mended)
    if suffix == ".json":
        return RowFile(read_json(decoded.text, where), decoded.n_bytes, mended=decoded.mended)
    records = read_csv(decoded.text, where, "\t" if suffix == ".tsv" else ",")
    first = decoded.text.lstrip().partition("\n")[0]
    header = {name.strip(' "\r'): "" for name in re.split(r"[,;\t]", first)}
    return RowFile(records, decoded.n_bytes, decoded.text, decoded.mended, header)


def of_values(records: Records) -> RowFile:
    return RowFile(records, sum(record.n_bytes for record in records))


def sheet_rows(table: tuple[tuple[str, ...], ...]) -> RowFile:
    """The rows of a spreadsheet under its first one, which names the fields."""
    names, *rows = table
    filled = ((*row, *[""] * (len(names) - len(row))) for row in rows)
    return of_values(records_of({n: cell for n, cell in zip(names, row, strict=False) if n} for row in filled))


def _jsonl_file(path: Path) -> RowFile:
    """Line by line, but for UTF-16, whose encoding is that of the whole."""
    with opened(path) as file:
        start = file.read(PROBE_BYTES)
        if not start.startswith(WIDE_MARKS) and b"\0" not in start:
            decode(start)
            file.seek(0)
            records, n_bytes, mended = read_jsonl(file)
            return RowFile(records, n_bytes, mended=mended)
    return row_content(".jsonl", read_whole(path, MOST_BYTES), str(path))
