"""What is in the data, what is wrong with it, and what it could prove; without loading a model unless one is named."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from metier.check import advice, facts
from metier.errors import DataError
from metier.progress import Progress
from metier.settings import Settings
from metier.sources.examples import Example
from metier.sources.language import languages
from metier.sources.read import Corpus, ReadOptions, read_corpus
from metier.sources.shown import found_lines
from metier.sources.terms import terms

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
    privacy: str = Settings.privacy,
    benchmark: Sequence[str] = Settings.benchmark,
    model: str = "",
    password: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Read everything, bad rows counted, and return plain values: files, formats, rows, bytes, duplicates, leaks,
    privacy, language, quality, jargon, documents, tokens (estimated by characters), power (what would be held out, and
    the smallest gain that it could show), warnings (worst first) and one sentence.

    model: a base model that reads 64 rows as well (read: how it sees them, and which surprise it); none without it

    Raises:
        DataError: nothing at all can be read, or a field that is named is not there.
    """
    corpus, stops = _corpus(data, ReadOptions(dict(fields or {}), privacy=privacy, password=password), progress)
    ledger = corpus.ledger.as_json()
    split, why = facts.split(corpus, seed, held_out)
    found_leaks = facts.leaks(split, benchmark)
    power = facts.power(split, why)
    language = languages([(e.id, e.learned_text) for e in corpus.examples])
    judged = facts.judged(corpus.examples)
    read = _read(model, corpus.examples, seed)
    found = {
        "files": ledger["files"],
        "formats": [_shown(*found_lines(found)) for found in corpus.formats],
        "rows": ledger["rows"],
        "bytes": ledger["bytes"],
        "rejected": ledger["rejected"],
        "examples": len(corpus.examples),
        "duplicates": facts.duplicates(corpus, ledger["rows"]),
        "leaks": found_leaks.as_json(),
        "privacy": facts.private(corpus, privacy),
        "language": language,
        "quality": judged,
        "jargon": terms(corpus.examples, language["main"]),
        "documents": facts.documents(corpus.examples),
        "tokens": facts.tokens(corpus.examples),
        "power": power,
        **({"read": read} if read else {}),
    }
    warnings = [
        *([advice.warning("stops", *advice.problem_and_remedy(stops))] if stops else []),
        *advice.about_files(corpus),
        *advice.about_power(power),
        *advice.about_leaks(found_leaks, power["unit"]),
        *advice.about_privacy(corpus, privacy),
        *advice.about_rows(ledger["rows"], found["documents"], corpus),
        *advice.about_answers([example for example in corpus.examples if example.is_chat], judged["answers"]),
        *advice.about_texts(judged, language),
        *(advice.about_reading(read) if read else []),
    ]
    return {**found, **_judged(warnings)}


def _corpus(data: Sequence[str], options: ReadOptions, progress: Progress | None) -> tuple[Corpus, str]:
    """What was read, without its bad rows where there are any, and the error that would have stopped a run."""
    try:
        return read_corpus(data, options, progress), ""
    except DataError as error:
        return read_corpus(data, replace(options, skip_bad_rows=True), progress), str(error)


def _judged(warnings: list[dict[str, Any]]) -> dict[str, Any]:
    """The warnings, worst first, and what they come to."""
    warnings.sort(key=lambda warning: advice.SEVERITIES.index(warning["severity"]))
    return {"warnings": warnings, "sentence": SENTENCES[warnings[0]["severity"] if warnings else "minor"]}


def _read(model: str, examples: Sequence[Example], seed: int) -> dict[str, Any]:
    if not model:
        return {}
    from metier.check.read import read_by_model  # torch

    return read_by_model(model, examples, seed)


def _shown(found: str, *rows: str) -> dict[str, Any]:
    return {"found": found, "shown": [row.strip() for row in rows]}
