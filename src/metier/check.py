"""What is in the data, what is wrong with it, and what it could prove; without loading a model."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from statistics import median
from typing import Any, Literal

from metier.errors import DataError
from metier.evidence.verdict import MIN_DOCUMENTS
from metier.progress import Progress
from metier.settings import Settings
from metier.sources.examples import Example
from metier.sources.find import DESCRIBES
from metier.sources.formats.outcome import Status
from metier.sources.read import Corpus, ReadOptions, read_corpus
from metier.sources.shown import STATUS_WORDS, found_lines, in_one_line
from metier.sources.split import MAX_HELD_OUT_SHARE, split_corpus

CHARACTERS_PER_TOKEN = 4
MANY_DUPLICATES = 0.05  # of the rows
MANY_ALIKE = 0.1  # of the answers, when they are the same text
FEW_ROWS = 20  # say nothing about shares of fewer answers
SHORT_ANSWER = 20  # characters
LARGE_DOCUMENT = 0.3  # of the text: what is larger is never held out

Severity = Literal["stops", "serious", "minor"]
SEVERITIES: tuple[Severity, ...] = ("stops", "serious", "minor")
SENTENCES = {
    "stops": "Not ready: `metier adapt` stops at the first of these.",
    "serious": "It can be trained, but mind the first of these before you spend the time.",
    "minor": "Ready.",
}


def check(
    *data: str,
    fields: Mapping[str, str] | None = None,
    held_out: float = Settings.held_out,
    seed: int = Settings.seed,
    password: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Read everything, bad rows counted, and return plain values: files, formats, rows, bytes, duplicates, documents,
    tokens (estimated by characters), power (what would be held out), warnings (worst first) and one sentence.

    Raises:
        DataError: nothing at all can be read, or a field that is named is not there.
    """
    wanted = dict(fields or {})
    stops = ""
    try:
        corpus = read_corpus(data, ReadOptions(wanted, password=password), progress)
    except DataError as error:
        stops = str(error)
        corpus = read_corpus(data, ReadOptions(wanted, skip_bad_rows=True, password=password), progress)
    ledger = corpus.ledger.as_json()
    formats = [_shown(*found_lines(found)) for found in corpus.formats]
    documents = _documents(corpus.examples)
    power = _power(corpus, seed, held_out)
    warnings = [
        *([_warning("stops", *_problem_and_remedy(stops))] if stops else []),
        *_about_files(corpus),
        *_about_power(power),
        *_about_rows(ledger["rows"], documents),
        *_about_answers([example for example in corpus.examples if example.is_chat]),
    ]
    warnings.sort(key=lambda warning: SEVERITIES.index(warning["severity"]))
    return {
        "files": ledger["files"],
        "formats": formats,
        "rows": ledger["rows"],
        "bytes": ledger["bytes"],
        "rejected": ledger["rejected"],
        "examples": len(corpus.examples),
        "duplicates": {"rows": ledger["rows"]["duplicate"], "share": _share(ledger["rows"], "duplicate")},
        "documents": documents,
        "tokens": _tokens(corpus.examples),
        "power": power,
        "warnings": warnings,
        "sentence": SENTENCES[warnings[0]["severity"] if warnings else "minor"],
    }


def _shown(found: str, *rows: str) -> dict[str, Any]:
    return {"found": found, "shown": [row.strip() for row in rows]}


def _warning(severity: Severity, problem: str, remedy: str) -> dict[str, Any]:
    return {"severity": severity, "problem": problem, "remedy": remedy}


def _problem_and_remedy(sentence: str) -> tuple[str, str]:
    """Every error of ours says what to do behind its last colon."""
    problem, _, remedy = sentence.rpartition(": ")
    return problem, remedy.rstrip(".")


def _share(rows: Mapping[str, int], bucket: str) -> float:
    return rows[bucket] / max(1, rows["total"])


def _documents(examples: Sequence[Example]) -> dict[str, Any]:
    sizes: Counter[str] = Counter()
    for example in examples:
        sizes[example.document] += len(example.learned_text)
    name, largest = sizes.most_common(1)[0]
    return {"total": len(sizes), "largest": name, "largest_share": largest / max(1, sizes.total())}


def _tokens(examples: Sequence[Example]) -> dict[str, int]:
    learned = sum(len(example.learned_text) for example in examples)
    prompt = sum(len(example.prompt_text) for example in examples)
    return {
        "learned": learned // CHARACTERS_PER_TOKEN,
        "prompt": prompt // CHARACTERS_PER_TOKEN,
        "characters_per_token": CHARACTERS_PER_TOKEN,
    }


def _power(corpus: Corpus, seed: int, held_out: float) -> dict[str, Any]:
    """What would be held out, and whether the verdict could be anything but 'cannot tell'."""
    try:
        split = split_corpus(corpus.examples, seed, held_out)
    except DataError as error:
        return {
            "unit": "document",
            "held_out": 0,
            "test": 0,
            "needed": MIN_DOCUMENTS,
            "can_tell": False,
            "why": str(error),
        }
    n_test = len({example.document for example in split.test})
    return {
        "unit": split.unit,
        "held_out": len({example.document for example in (*split.select, *split.test)}),
        "test": n_test,
        "needed": MIN_DOCUMENTS,
        "can_tell": n_test >= MIN_DOCUMENTS,
    }


REMEDIES: tuple[tuple[Status, Severity, str], ...] = (
    ("needs_password", "serious", "give it with --password"),
    ("no_text", "serious", "recognise the text of scans first (OCR), or leave them out"),
    ("rejected", "serious", "mend them, or leave them out"),
    ("partial", "minor", "mend what their reasons name"),
)


def _about_files(corpus: Corpus) -> Iterator[dict[str, Any]]:
    for status, severity, remedy in REMEDIES:
        files = [file for file in corpus.files if file.status == status and file.reason != DESCRIBES]
        if files:
            first = f"first: {files[0].path}, which {files[0].reason}"
            yield _warning(severity, f"{len(files):,} files {STATUS_WORDS[status]} ({first})", remedy)


def _about_power(power: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if "why" in power:
        yield _warning("stops", *_problem_and_remedy(power["why"]))
        return
    enough = ceil(2 * MIN_DOCUMENTS / MAX_HELD_OUT_SHARE)
    if not power["can_tell"]:
        problem = f"{power['test']} held-out {power['unit']}s are too few for a verdict: it will be 'cannot tell'"
        yield _warning("serious", problem, f"give {enough} documents or more")
    if power["unit"] == "section":
        problem = "so few documents that sections of them are held out: a gain on other documents is not measured"
        yield _warning("serious", problem, f"give {enough} documents or more")


def _about_rows(rows: Mapping[str, int], documents: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if (share := _share(rows, "duplicate")) > MANY_DUPLICATES:
        problem = f"{rows['duplicate']:,} rows ({share:.0%}) repeat another one word for word and are left out"
        yield _warning("serious", problem, "look at how the data was exported")
    if rows["too_short"]:
        yield _warning("minor", f"{rows['too_short']:,} texts are too short and left out", "nothing, or join them")
    if documents["total"] > 1 and documents["largest_share"] > LARGE_DOCUMENT:
        problem = f"{documents['largest']} alone is {documents['largest_share']:.0%} of the text and is never held out"
        yield _warning("minor", problem, "cut it into documents, or name the rows' documents with --document FIELD")


def _about_answers(chats: Sequence[Example]) -> Iterator[dict[str, Any]]:
    echoes = [e for e in chats if e.learned_text.strip().lower() == e.prompt_text.strip().lower()]
    if echoes:
        problem = f"{len(echoes):,} answers only repeat their question (first: {echoes[0].id})"
        yield _warning("serious", problem, "leave these rows out: they teach to repeat")
    if len(chats) < FEW_ROWS:
        return
    (answer, n_alike), *_ = Counter(example.learned_text.strip() for example in chats).most_common(1)
    if n_alike / len(chats) > MANY_ALIKE:
        problem = f"{n_alike:,} answers ({n_alike / len(chats):.0%}) are the same: {answer[:40]!r}"
        yield _warning("serious", problem, "leave most of them out, or the model gives this answer to everything")
    if (typical := median(len(example.learned_text) for example in chats)) < SHORT_ANSWER:
        problem = f"half of the answers have {typical:.0f} characters or fewer ({in_one_line(chats[0])})"
        yield _warning("serious", problem, "keep --replay, or the model answers everything this shortly")
