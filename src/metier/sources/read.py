"""Read the texts of a field: files → rows → examples, with every byte accounted for."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from metier.errors import DataError
from metier.progress import Progress, Silent
from metier.settings import Settings
from metier.sources.clean import Findings, clean
from metier.sources.documents import LONG_ANSWER, digest, merged_documents
from metier.sources.examples import Draft, Example
from metier.sources.find import DESCRIBES, DESCRIBES_DATA, Source, find_sources
from metier.sources.formats.files import FileFound, suffix_of
from metier.sources.formats.outcome import LEFT_OUT, Status, UnreadableError, document
from metier.sources.formats.pool import read_files
from metier.sources.ledger import FileRead, Ledger
from metier.sources.records import BadRecord, Record
from metier.sources.rowfiles import RowFile, row_content, row_file, sheet_rows
from metier.sources.rows import NAMEABLE, BadRowError, Layout, NoLayoutError, find_layout, parse_row
from metier.sources.text import clean_text

MIN_CHARACTERS = 20
N_SHOWN = 3
MANY_FILES = 8  # before which there is no bar
AS_TABLE = "its columns are no question and answer, so it is read as a text; name them to learn rows"


@dataclass(frozen=True)
class ReadOptions:
    """How to read.

    fields          part → field, where the usual names do not fit: {"question": "my_q", "document": "topic"}
    skip_bad_rows   count bad rows and files as rejected, and go on
    min_characters  a plain text shorter than this is left out
    privacy         what becomes of identifiers: report, mask or drop
    select          the share of the rows that stay, the closest to the field first
    password        opens the locked files among them
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    skip_bad_rows: bool = False
    min_characters: int = MIN_CHARACTERS
    privacy: str = Settings.privacy
    select: float = 1.0
    password: str = ""


@dataclass(frozen=True)
class FormatFound:
    """What was detected in a file, to be shown back: its format, the fields used, and its first rows as examples."""

    source: str
    format: str
    fields: Mapping[str, str]
    rows: int
    shown: tuple[Example, ...]


@dataclass(frozen=True)
class Corpus:
    """What will be learned, clean, with what cleaning found and the account of everything that was read."""

    examples: list[Example]
    ledger: Ledger
    formats: list[FormatFound]
    findings: Findings

    @property
    def files(self) -> list[FileRead]:
        return self.ledger.files


@dataclass(frozen=True)
class Found:
    """What one file gave."""

    name: str
    drafts: list[Draft]
    format: FormatFound
    has_rows: bool = False


def read_corpus(paths: Sequence[str], options: ReadOptions | None = None, progress: Progress | None = None) -> Corpus:
    """Read files, folders, packs (`pack:NAME`) and hub data sets.

    A file that the user named must be read; one that was found in a folder or an archive is left out if it cannot be,
    and the ledger says why.

    Raises:
        DataError: something cannot be read, with file, line and remedy; or nothing is left to learn.
    """
    options = options or ReadOptions()
    if unknown := sorted(set(options.fields) - set(NAMEABLE)):
        raise DataError(f"{unknown[0]!r} is no part of a row that can be named: name {', '.join(NAMEABLE)}.")
    sources = find_sources(paths)
    ledger = Ledger()
    found = [
        one
        for source, files in _contents(sources, options, progress or Silent())
        for one in _read_source(source, files, options, len(sources) == 1, ledger)
    ]
    several = sum(one.has_rows for one in found) > 1
    drafts = [draft for one in found for draft in _with_group(one.drafts, one.name if several else "")]
    formats = [one.format for one in found]
    kept = _without_short_and_repeated(drafts, options.min_characters, ledger)
    kept, findings = clean(kept, ledger, options.privacy, options.min_characters, options.select)
    if not kept:
        counts = ", ".join(f"{n} {bucket.replace('_', ' ')}" for bucket, n in ledger.rows_by_bucket().items() if n)
        first = f"; first of all {ledger.rejected[0]['where']}: {ledger.rejected[0]['why']}" if ledger.rejected else ""
        raise DataError(
            f"{', '.join(paths)}: nothing is left to learn (rows: {counts or 'none'}): "
            f"give more text, or mend what was left out{first.rstrip('.')}."
        )
    documents = merged_documents([draft.example.document for draft in kept], [draft.shared for draft in kept])
    examples = [_of_document(draft.example, document) for draft, document in zip(kept, documents, strict=True)]
    return Corpus(examples, ledger, _text_files_together(formats), findings)


def _contents(
    sources: Sequence[Source], options: ReadOptions, progress: Progress
) -> Iterator[tuple[Source, list[FileFound]]]:
    """Every source with what its file holds; nothing for those that are read as rows, or not at all."""
    files = [
        (source.path, source.name) for source in sources if source.path and not source.skip and not source.has_rows
    ]
    read = read_files(files, options.password)
    shown = progress if len(files) >= MANY_FILES else Silent()
    shown.begin("reading", len(files))
    n_read = 0
    for source in sources:
        if source.skip or source.has_rows:
            yield source, []
        else:
            yield source, next(read)
            n_read += 1
            shown.advance(n_read, source.name)
    shown.end()


def _read_source(
    source: Source, files: list[FileFound], options: ReadOptions, is_only: bool, ledger: Ledger
) -> Iterator[Found]:
    must_be_read = source.named and (is_only or not options.skip_bad_rows)
    if source.skip:
        _leave_out(source.name, source.status, source.skip, _disk_bytes(source), ledger)
    elif source.has_rows:
        yield from _read_row_source(source, options, must_be_read, ledger)
    beside_rows = any(file.rows is not None for file in files)
    for file in files:
        if must_be_read and file.name == source.name and file.status in (*LEFT_OUT, "empty"):
            raise _unreadable(source, file.reason, file.remedy)
        if beside_rows and DESCRIBES_DATA.match(file.name.rpartition("/")[2]):
            _leave_out(file.name, "rejected", DESCRIBES, file.n_bytes, ledger)
        elif file.rows is not None:
            member = Source(
                file.name, f"{source.where}{file.name.removeprefix(source.name)}", None, suffix_of(file.name), False
            )
            yield from _read_member(member, file.rows, options, ledger)
        else:
            yield from _read_file(source, file, options, ledger)


def _read_row_source(source: Source, options: ReadOptions, must_be_read: bool, ledger: Ledger) -> Iterator[Found]:
    strict = source.named and not options.skip_bad_rows
    try:
        yield from _read_rows(source, row_file(source), _disk_bytes(source), options, strict, ledger)
    except UnreadableError as error:
        if must_be_read:
            raise _unreadable(source, error.reason, error.remedy) from None
        _leave_out(source.name, error.status, error.reason, _disk_bytes(source), ledger)
    except DataError as error:
        if must_be_read:
            raise
        _leave_out(source.name, "rejected", str(error), _disk_bytes(source), ledger)


def _read_member(member: Source, data: bytes, options: ReadOptions, ledger: Ledger) -> Iterator[Found]:
    """A file of rows in an archive."""
    try:
        content = row_content(member.suffix, data, member.where)
        yield from _read_rows(member, content, len(data), options, False, ledger)
    except UnreadableError as error:
        _leave_out(member.name, error.status, error.reason, len(data), ledger)
    except DataError as error:
        _leave_out(member.name, "rejected", str(error), len(data), ledger)


def _read_file(source: Source, file: FileFound, options: ReadOptions, ledger: Ledger) -> Iterator[Found]:
    """A file of documents, or of a spreadsheet whose only sheet may hold rows to learn."""
    if file.status in LEFT_OUT:
        _leave_out(file.name, file.status, file.reason, file.n_bytes, ledger)
        return
    if file.table:
        sheet = Source(file.name, source.where, source.path, source.suffix, source.named)
        with suppress(NoLayoutError):
            yield from _read_rows(sheet, sheet_rows(file.table), file.n_bytes, options, source.named, ledger)
            return
    folder = file.name.rpartition("/")[0]
    drafts = []
    for number, text in enumerate(file.documents, start=1):
        name = file.name if len(file.documents) == 1 else f"{file.name}:{number}"
        drafts.append(Draft(Example(name, file.name, number, name, group=folder, text=text.text)))
        ledger.add(name, text.n_bytes, 0, len(text.text.encode()))
    n_characters = sum(len(text.text) for text in file.documents)
    n_text = sum(text.n_bytes for text in file.documents)
    n = len(drafts)
    read = FileRead(file.name, file.status, file.reason, file.n_bytes, n_text, n, n, n_characters, dict(file.removed))
    ledger.add_file(read)
    if drafts:
        shown = tuple(draft.example for draft in drafts[:N_SHOWN])
        yield Found(file.name, drafts, FormatFound(file.name, "text file", {}, n, shown))


def _read_rows(
    source: Source, content: RowFile, n_disk: int, options: ReadOptions, strict: bool, ledger: Ledger
) -> Iterator[Found]:
    """Rows of one file. strict: a bad one stops everything, else it is counted."""
    records, n_bytes = content.records, content.n_bytes
    if not records:
        if source.named:
            raise DataError(f"{source.where}:1 is empty: give a file with text in it, or leave it out.")
        ledger.add_file(FileRead(source.name, "empty", "holds no text", n_disk, n_bytes, 0))
        return
    rows = [record.fields for record in records if isinstance(record, Record)]
    try:
        layout = find_layout(rows or [content.header], options.fields, source.where)
    except NoLayoutError:
        if content.text and not options.fields:
            learned = clean_text(content.text)
            table = (document(learned, content.n_bytes),)
            file = FileFound(source.name, "ok", AS_TABLE, "", n_disk, table, content.mended)
            yield from _read_file(source, file, options, ledger)
            return
        if rows:
            raise
    for record in records if strict else ():
        if isinstance(record, BadRecord):
            raise _bad_row(source, record.line, record.why)
    if not rows:
        raise DataError(
            f"{source.where}:{records[0].line} is the first of {len(records)} rows, none of which can be read: "
            "mend the file, or leave it out."
        )
    drafts: list[Draft] = []
    for record in records:
        try:
            drafts.append(_draft(source, record, layout, ledger))
        except BadRowError as error:
            if strict:
                raise _bad_row(source, record.line, str(error)) from None
            ledger.reject_row(f"{source.name}:{record.line}", record.n_bytes, str(error))
    n_bad = len(records) - len(drafts)
    n_characters = sum(len(d.example.prompt_text) + len(d.example.learned_text) for d in drafts)
    reason = f"{n_bad} of {len(records)} rows cannot be read" if n_bad else ""
    ledger.add_file(
        FileRead(
            source.name,
            "partial" if n_bad else "ok",
            reason,
            n_disk,
            n_bytes,
            len(records),
            len(drafts),
            n_characters,
            dict(content.mended),
        )
    )
    shown = tuple(draft.example for draft in drafts[:N_SHOWN])
    found = FormatFound(source.name, layout.format, layout.shown(), len(drafts), shown)
    yield Found(source.name, drafts, found, has_rows=True)


def _draft(source: Source, record: Record | BadRecord, layout: Layout, ledger: Ledger) -> Draft:
    if isinstance(record, BadRecord):
        raise BadRowError(record.why)
    parsed = parse_row(record.fields, layout)
    row_id = f"{source.name}:{record.line}"
    example = Example(
        row_id,
        source.name,
        record.line,
        parsed.document or row_id,
        parsed.group,
        parsed.text,
        parsed.messages,
        parsed.rejected,
    )
    ledger.add(row_id, record.n_bytes, parsed.prompt_bytes, parsed.learned_bytes)
    ties = [example.prompt_text, parsed.context]
    if example.is_chat and len(example.learned_text) >= LONG_ANSWER:
        ties.append(example.learned_text)
    return Draft(example, tuple(digest(text) for text in ties if text))


def _of_document(example: Example, document: str) -> Example:
    return example if example.document == document else replace(example, document=document)


def _with_group(drafts: list[Draft], group: str) -> list[Draft]:
    """Rows that name no group get the file they came from, where there are several."""
    return [
        replace(draft, example=replace(draft.example, group=group)) if group and _lacks_group(draft.example) else draft
        for draft in drafts
    ]


def _lacks_group(example: Example) -> bool:
    return not example.group and example.id != example.source  # a text file is grouped by its folder


def _without_short_and_repeated(drafts: list[Draft], min_characters: int, ledger: Ledger) -> list[Draft]:
    """Only plain texts can be too short: an answer has at least one character, or its row was bad."""
    kept: list[Draft] = []
    first: dict[bytes, str] = {}
    for draft in drafts:
        example = draft.example
        key = digest("\0".join((example.prompt_text, example.learned_text, example.rejected)))
        if not example.is_chat and len(example.text) < max(min_characters, 1):
            ledger.drop(example.id, "too_short", f"has {len(example.text)} characters")
        elif key in first:
            ledger.drop(example.id, "duplicate", f"repeats {first[key]} word for word")
        else:
            first[key] = example.id
            kept.append(draft)
    return kept


def _text_files_together(formats: list[FormatFound]) -> list[FormatFound]:
    """One line for all text files: a folder may hold thousands."""
    texts = [found for found in formats if found.format == "text file"]
    if len(texts) < 2:
        return formats
    shown = tuple(found.shown[0] for found in texts[:N_SHOWN])
    together = FormatFound(f"{len(texts)} text files", "text file", {}, len(texts), shown)
    return [*(found for found in formats if found.format != "text file"), together]


def _leave_out(name: str, status: Status, why: str, n_bytes: int, ledger: Ledger) -> None:
    """A file that gave nothing was not decoded, so the bytes on the disk stand for its text."""
    n_text = 0 if status == "empty" else n_bytes
    ledger.add_file(FileRead(name, status, why, n_bytes, n_text, 0))


def _unreadable(source: Source, reason: str, remedy: str) -> DataError:
    line = ":1 is empty" if reason == "holds no text" and remedy.startswith("give a file") else f" {reason}"
    return DataError(f"{source.where}{line}: {remedy or 'leave it out'}.")


def _disk_bytes(source: Source) -> int:
    return source.path.lstat().st_size if source.path and os.path.lexists(source.path) else 0


def _bad_row(source: Source, line: int, why: str) -> DataError:
    return DataError(f"{source.where}:{line} {why}: mend the row or pass --skip-bad-rows.")
