"""Read the texts of a field: files → rows → examples, with every byte accounted for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from metier.errors import DataError
from metier.settings import Settings
from metier.sources.clean import Findings, clean
from metier.sources.documents import LONG_ANSWER, digest, merged_documents
from metier.sources.examples import Draft, Example
from metier.sources.find import TEXT_SUFFIXES, Source, find_sources
from metier.sources.ledger import FileRead, Ledger
from metier.sources.records import BadRecord, Record, Records, read_csv, read_hub, read_json, read_jsonl, read_parquet
from metier.sources.rows import NAMEABLE, BadRowError, Layout, find_layout, parse_row
from metier.sources.text import BYTE_ORDER_MARK, clean_text, decode

MIN_CHARACTERS = 20
N_SHOWN = 3


@dataclass(frozen=True)
class ReadOptions:
    """How to read.

    fields          part → field, where the usual names do not fit: {"question": "my_q", "document": "topic"}
    skip_bad_rows   count bad rows and files as rejected, and go on
    min_characters  a plain text shorter than this is left out
    privacy         what becomes of identifiers: report, mask or drop
    select          the share of the rows that stay, the closest to the field first
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    skip_bad_rows: bool = False
    min_characters: int = MIN_CHARACTERS
    privacy: str = Settings.privacy
    select: float = 1.0


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

    drafts: list[Draft]
    formats: list[FormatFound]


NOTHING = Found([], [])


def read_corpus(paths: Sequence[str], options: ReadOptions | None = None) -> Corpus:
    """Read files, folders, packs (`pack:NAME`) and hub data sets.

    Raises:
        DataError: something cannot be read, with file, line and remedy; or nothing is left to learn.
    """
    options = options or ReadOptions()
    if unknown := sorted(set(options.fields) - set(NAMEABLE)):
        raise DataError(f"{unknown[0]!r} is no part of a row that can be named: name {', '.join(NAMEABLE)}.")
    sources = find_sources(paths)
    n_row_files = sum(not source.skip and source.suffix not in TEXT_SUFFIXES for source in sources)
    ledger = Ledger()
    drafts: list[Draft] = []
    formats: list[FormatFound] = []
    for source in sources:
        try:
            found = _read_source(source, options, ledger)
        except DataError as error:
            if not options.skip_bad_rows or len(sources) == 1:
                raise
            found = _reject(source, str(error), ledger)
        drafts += _with_group(found.drafts, source.name if n_row_files > 1 else "")
        formats += found.formats
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
    examples = [replace(draft.example, document=document) for draft, document in zip(kept, documents, strict=True)]
    return Corpus(examples, ledger, _text_files_together(formats), findings)


def _read_source(source: Source, options: ReadOptions, ledger: Ledger) -> Found:
    if source.skip:
        return _reject(source, source.skip, ledger)
    if source.path is None:
        return _read_rows(source, read_hub(source.where), None, options, ledger)
    if source.suffix == ".parquet":
        return _read_rows(source, read_parquet(source.path, source.where), None, options, ledger)
    try:
        data = source.path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{source.where} cannot be read ({error.strerror}): mend its permissions, or leave it out."
        ) from None
    text = decode(data, source.where)
    if not text.removeprefix(BYTE_ORDER_MARK).strip():
        return _empty(source, text, ledger)
    if source.suffix in TEXT_SUFFIXES:
        return _read_text(source, text, ledger)
    if source.suffix == ".jsonl":
        records = read_jsonl(text)
    elif source.suffix == ".json":
        records = read_json(text, source.where)
    else:
        records = read_csv(text, source.where, "\t" if source.suffix == ".tsv" else ",")
    return _read_rows(source, records, text, options, ledger)


def _read_text(source: Source, text: str, ledger: Ledger) -> Found:
    """A text file is one document."""
    n_bytes = len(text.encode())
    learned = clean_text(text)
    folder = source.name.rpartition("/")[0]
    example = Example(source.name, source.name, 1, source.name, group=folder, text=learned)
    ledger.add_file(FileRead(source.name, "ok", "", _disk_bytes(source), n_bytes, 1))
    ledger.add(example.id, n_bytes, 0, len(learned.encode()))
    return Found([Draft(example)], [FormatFound(source.name, "text file", {}, 1, (example,))])


def _read_rows(source: Source, records: Records, text: str | None, options: ReadOptions, ledger: Ledger) -> Found:
    """Rows of one file; `text` is None where rows have none, and then the rows' bytes are all there is."""
    if not options.skip_bad_rows:
        for record in records:
            if isinstance(record, BadRecord):
                raise _bad_row(source, record.line, record.why)
    good = [record for record in records if isinstance(record, Record)]
    if not records:
        return _empty(source, text or "", ledger)
    if not good:
        raise DataError(
            f"{source.where}:{records[0].line} is the first of {len(records)} rows, none of which can be read: "
            "mend the file, or leave it out."
        )
    layout = find_layout([record.fields for record in good], options.fields, source.where)
    n_bytes = len(text.encode()) if text is not None else sum(record.n_bytes for record in records)
    drafts: list[Draft] = []
    ledger.add_file(FileRead(source.name, "ok", "", _disk_bytes(source), n_bytes, len(records)))
    for record in records:
        try:
            drafts.append(_draft(source, record, layout, ledger))
        except BadRowError as error:
            if not options.skip_bad_rows:
                raise _bad_row(source, record.line, str(error)) from None
            ledger.reject_row(f"{source.name}:{record.line}", record.n_bytes, str(error))
    shown = tuple(draft.example for draft in drafts[:N_SHOWN])
    return Found(drafts, [FormatFound(source.name, layout.format, layout.shown(), len(drafts), shown)])


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


def _empty(source: Source, text: str, ledger: Ledger) -> Found:
    if source.named:
        raise DataError(f"{source.where}:1 is empty: give a file with text in it, or leave it out.")
    ledger.add_file(FileRead(source.name, "empty", "holds no text", _disk_bytes(source), len(text.encode()), 0))
    return NOTHING


def _reject(source: Source, why: str, ledger: Ledger) -> Found:
    """A whole file goes to the rejected; it was not decoded, so the bytes on the disk stand for its text."""
    n_bytes = _disk_bytes(source)
    ledger.add_file(FileRead(source.name, "rejected", why, n_bytes, n_bytes, 0))
    return NOTHING


def _disk_bytes(source: Source) -> int:
    return source.path.stat().st_size if isinstance(source.path, Path) else 0


def _bad_row(source: Source, line: int, why: str) -> DataError:
    return DataError(f"{source.where}:{line} {why}: mend the row or pass --skip-bad-rows.")
