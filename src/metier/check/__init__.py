"""What is in the data, what is wrong with it, and what it could prove; without loading a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from metier.check import advice, facts
from metier.errors import DataError
from metier.settings import Settings
from metier.sources import quality
from metier.sources.language import languages
from metier.sources.read import ReadOptions, read_corpus
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
) -> dict[str, Any]:
    """Read everything, bad rows counted, and return plain values: files, formats, rows, bytes, duplicates, leaks,
    privacy, language, quality, jargon, documents, tokens (estimated by characters), power (what would be held out, and
    the smallest gain that it could show), warnings (worst first) and one sentence.

    Raises:
        DataError: nothing at all can be read, or a field that is named is not there.
    """
    wanted = dict(fields or {})
    stops = ""
    try:
        corpus = read_corpus(data, ReadOptions(wanted, privacy=privacy))
    except DataError as error:
        stops = str(error)
        corpus = read_corpus(data, ReadOptions(wanted, skip_bad_rows=True, privacy=privacy))
    ledger = corpus.ledger.as_json()
    documents = facts.documents(corpus.examples)
    split, why = facts.split(corpus, seed, held_out)
    found_leaks = facts.leaks(split, benchmark)
    power = facts.power(split, why)
    language = languages([(e.id, e.learned_text) for e in corpus.examples])
    judged = {
        **quality.quality(corpus.examples),
        "answers": facts.answers([e for e in corpus.examples if e.is_chat]),
        "closeness": facts.distances(corpus.examples),
    }
    warnings = [
        *([advice.warning("stops", *advice.problem_and_remedy(stops))] if stops else []),
        *advice.about_power(power),
        *advice.about_leaks(found_leaks, split.unit if split else "document"),
        *advice.about_privacy(corpus, privacy),
        *advice.about_rows(ledger["rows"], documents, corpus),
        *advice.about_answers([example for example in corpus.examples if example.is_chat], judged["answers"]),
        *advice.about_texts(judged, language),
    ]
    warnings.sort(key=lambda warning: advice.SEVERITIES.index(warning["severity"]))
    return {
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
        "documents": documents,
        "tokens": facts.tokens(corpus.examples),
        "power": power,
        "warnings": warnings,
        "sentence": SENTENCES[warnings[0]["severity"] if warnings else "minor"],
    }


def _shown(found: str, *rows: str) -> dict[str, Any]:
    return {"found": found, "shown": [row.strip() for row in rows]}
