"""Rows → records with their line and their bytes: jsonl, json, csv, tsv, parquet, hub data sets."""

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO

from metier.errors import DataError
from metier.sources.decoding import decode
from metier.sources.formats.outcome import UnreadableError
from metier.sources.text import BYTE_ORDER_MARK

SPACE = re.compile(r"[ \t\r\n]*")
MAX_CSV_FIELD = 2**31 - 1
MOST_LINE_BYTES = 64 << 20  # of one row


@dataclass(frozen=True, slots=True)
class Record:
    """A row: the 1-based line (row, for parquet) it starts on, its UTF-8 bytes in the file, and its fields."""

    line: int
    n_bytes: int
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A row that cannot be read; `why` ends a sentence that begins with where it is."""

    line: int
    n_bytes: int
    why: str


Records = list[Record | BadRecord]


def read_jsonl(file: BinaryIO) -> tuple[Records, int, dict[str, int]]:
    """One object a line of UTF-8; blank lines are none. Lines are read one after the other, so a file may be large.

    Returns (records, UTF-8 bytes of all lines, what was mended in them, counted by kind).
    """
    records: Records = []
    total, number = 0, 0
    mended: Counter[str] = Counter()
    while line := file.readline(MOST_LINE_BYTES + 1):
        number += 1
        n_bytes = len(line)
        if n_bytes > MOST_LINE_BYTES:
            while not line.endswith(b"\n") and (line := file.readline(MOST_LINE_BYTES)):
                n_bytes += len(line)
            records.append(BadRecord(number, n_bytes, f"is longer than {MOST_LINE_BYTES >> 20} MiB"))
        elif line.strip():
            if not line.isascii():
                try:
                    decoded = decode(line)
                except UnreadableError as error:
                    records.append(BadRecord(number, n_bytes, error.reason))
                    total += n_bytes
                    continue
                line, n_bytes = decoded.text.encode(), decoded.n_bytes
                mended.update(decoded.mended)
            if line.strip():  # not a byte order mark alone
                records.append(_json_record(number, n_bytes, line))
        total += n_bytes
    return records, total, dict(mended)


def _json_record(number: int, n_bytes: int, line: bytes) -> Record | BadRecord:
    try:
        return _record(number, n_bytes, json.loads(line))
    except (ValueError, RecursionError) as error:
        return BadRecord(number, n_bytes, f"is not JSON ({_json_problem(error)})")


def read_json(text: str, where: str) -> Records:
    """A list of objects, or an object that holds one such list.

    Raises:
        DataError: not JSON, or no such list, or several.
    """
    try:
        lists = _lists_of_objects(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}:{error.lineno} is not JSON ({error.msg}): mend the file, or leave it out.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}:1 is not JSON that can be read ({error}): mend the file, or leave it out.") from None
    if len(lists) != 1:
        found = f"several lists of objects ({', '.join(lists)})" if lists else "no list of objects"
        raise DataError(f"{where}:1 holds {found}: give one list of rows, or one object a line as .jsonl.")
    spans = next(iter(lists.values()))
    lines = _line_numbers(text, [start for start, _, _ in spans])
    return [
        _record(line, len(text[start:end].encode()), value)
        for line, (start, end, value) in zip(lines, spans, strict=True)
    ]


def read_csv(text: str, where: str, delimiter: str) -> Records:
    """Rows under a header line, strictly: a wrong number of columns and an unclosed quote make a bad row.

    Raises:
        DataError: the header cannot be used.
    """
    csv.field_size_limit(MAX_CSV_FIELD)
    lines = io.StringIO(text.removeprefix(BYTE_ORDER_MARK), newline="").readlines()
    if delimiter == "," and ";" in lines[0] and "," not in lines[0]:
        delimiter = ";"
    rows = _csv_rows(lines, delimiter)
    first = next(((line, cells) for line, _, cells in rows if cells), None)
    if first is None:
        return []
    line, header = first
    if isinstance(header, str):
        raise DataError(f"{where}:{line} {header}: mend the header line.")
    names = [name.strip() for name in header]
    if repeated := sorted({name for name in names if name and names.count(name) > 1}):
        raise DataError(
            f"{where}:{line} has several columns called {repeated[0]!r}: give every column a name of its own."
        )
    records: Records = []
    for line, n_bytes, cells in rows:
        if isinstance(cells, str):
            records.append(BadRecord(line, n_bytes, cells))
        elif cells and len(cells) != len(names):
            records.append(BadRecord(line, n_bytes, f"has {len(cells)} columns where the header has {len(names)}"))
        elif cells:
            records.append(Record(line, n_bytes, dict(zip(names, cells, strict=True))))
    return records


def read_parquet(file: Path | BytesIO, where: str) -> Records:
    """Rows of a parquet file; lines are row numbers, bytes are those of the values.

    Raises:
        DataError: not a parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            return records_of(row for batch in table.iter_batches() for row in batch.to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0].rstrip(". ")
        raise DataError(
            f"{where}:1 is not a parquet file that can be read ({reason}): write it again, or leave it out."
        ) from None


def read_hub(name: str) -> Records:
    """Rows of a data set on the hub: its train split, or its only one.

    Raises:
        DataError: `datasets` is not installed, or the data set cannot be had.
    """
    try:
        import datasets
    except ImportError:
        raise DataError(f"{name} is no file here, and reading it from the hub needs: pip install metier[hub]") from None
    try:
        splits = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError) as error:  # not found, no network, offline mode, several configurations
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        mode = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        raise DataError(
            f"{name} is no file here, and the hub did not give it{mode}: {reason}; "
            "check the name and the network, or download its files and name them."
        ) from None
    if "train" not in splits and len(splits) != 1:
        raise DataError(
            f"{name} has no train split (it has {', '.join(splits)}): download the file you want and name it."
        )
    return records_of(splits["train"] if "train" in splits else next(iter(splits.values())))


def records_of(rows: Iterable[Mapping[str, object]]) -> Records:
    """Records of rows that have no text of their own: their bytes are those of their values."""
    return [Record(number, _value_bytes(row), row) for number, row in enumerate(rows, start=1)]


def _record(line: int, n_bytes: int, value: object) -> Record | BadRecord:
    if isinstance(value, dict):
        return Record(line, n_bytes, value)
    return BadRecord(line, n_bytes, f"is not an object with fields ({type(value).__name__})")


def _line_numbers(text: str, positions: list[int]) -> list[int]:
    """The line of every position, or row numbers where several rows stand on one line: each row has its own number."""
    lines = list(accumulate((text.count("\n", a, b) for a, b in pairwise([0, *positions])), initial=1))[1:]
    return lines if len(set(lines)) == len(lines) else list(range(1, len(lines) + 1))


def _json_problem(error: Exception) -> str:
    return f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


Spans = list[tuple[int, int, Any]]


def _lists_of_objects(text: str) -> dict[str, Spans]:
    """Every list of objects at the top of a JSON text, by its key, with the span of each object in the text."""
    decoder = json.JSONDecoder()
    position = _skip(text, 1 if text.startswith(BYTE_ORDER_MARK) else 0)
    lists: dict[str, Spans] = {}
    if text.startswith("[", position):
        lists["the list"], position = _spans(text, position, decoder)
    elif text.startswith("{", position):
        position = _skip(text, position + 1)
        while not text.startswith("}", position):
            key, position = decoder.raw_decode(text, position)
            position = _expect(text, _skip(text, position), ":")
            if text.startswith("[", position):
                spans, position = _spans(text, position, decoder)
                if spans and all(isinstance(value, dict) for _, _, value in spans):
                    lists[str(key)] = spans
            else:
                _, position = decoder.raw_decode(text, position)
            position = _next_item(text, position, "}")
        position += 1
    else:
        _, position = decoder.raw_decode(text, position)
    if _skip(text, position) != len(text):
        raise json.JSONDecodeError("Extra data", text, position)
    return lists


def _spans(text: str, position: int, decoder: json.JSONDecoder) -> tuple[Spans, int]:
    """The items of the list that opens at `position`, and the position after it."""
    spans: Spans = []
    position = _skip(text, position + 1)
    while not text.startswith("]", position):
        value, end = decoder.raw_decode(text, position)
        spans.append((position, end, value))
        position = _next_item(text, end, "]")
    return spans, position + 1


def _next_item(text: str, position: int, closing: str) -> int:
    """The position of the next item, or of the closing bracket."""
    position = _skip(text, position)
    if text.startswith(closing, position):
        return position
    position = _expect(text, position, ",")
    if text.startswith(closing, position):
        raise json.JSONDecodeError("Expecting value", text, position)
    return position


def _expect(text: str, position: int, sign: str) -> int:
    if not text.startswith(sign, position):
        raise json.JSONDecodeError(f"Expecting {sign!r}", text, position)
    return _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    match = SPACE.match(text, position)
    return match.end() if match else position


def _csv_rows(lines: list[str], delimiter: str) -> Iterator[tuple[int, int, list[str] | str]]:
    """(first line, bytes, cells or what is wrong) of every row.

    After a broken row, reading begins again on the line after its first.
    """
    sizes = [len(line.encode()) for line in lines]
    start = 0
    while start < len(lines):
        base = start
        reader = csv.reader(islice(lines, base, None), delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                end = base + reader.line_num
                yield start + 1, sum(sizes[start:end]), cells
                start = end
            return
        except csv.Error as error:
            problem = "has a quote that is never closed" if "end of data" in str(error) else f"is not a row ({error})"
            yield start + 1, sizes[start], problem
            start += 1


def _value_bytes(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, str):
        return len(value.encode(errors="surrogatepass"))
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_value_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_value_bytes, value))
    return len(str(value))
