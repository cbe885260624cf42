"""The part of `metier check` that says what is wrong, how bad it is, and what to do."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from statistics import median
from typing import Any, Literal

from metier.check.facts import share
from metier.evidence.verdict import MIN_DOCUMENTS
from metier.sources import quality
from metier.sources.examples import Example
from metier.sources.find import DESCRIBES
from metier.sources.formats.outcome import Status
from metier.sources.leaks import Leaks
from metier.sources.read import Corpus
from metier.sources.shown import STATUS_WORDS, counted, in_one_line, leak_lines
from metier.sources.split import MAX_HELD_OUT_SHARE

MANY_DUPLICATES = 0.05  # of the rows
MANY_ALIKE = 0.1  # of the answers, when they are the same text
FEW_ROWS = 20  # say nothing about shares of fewer answers
SHORT_ANSWER = 20  # characters
LARGE_DOCUMENT = 0.3  # of the text: what is larger is never held out
MANY_NO_EASIER = 0.3  # of the answers; of rows as they are 0 to 23 %, with moved answers 20 to 71 % (docs/log.md)
MANY_FLAGGED = 0.1  # of the texts
MANY_SAME_LENGTH = 0.02  # of the answers are exactly as long as the longest: an export cut them
FAULTS = {
    "damaged": "with letters of a wrong encoding",
    "signs": "of signs for the most part",
    "few_words": "of figures or codes for the most part",
    "word_length": "with words of odd lengths, as in tables and broken text",
    "repeats": "full of repetition",
}

Severity = Literal["stops", "serious", "minor"]
SEVERITIES: tuple[Severity, ...] = ("stops", "serious", "minor")
REMEDIES: tuple[tuple[Status, Severity, str], ...] = (
    ("needs_password", "serious", "give it with --password"),
    ("no_text", "serious", "recognise the text of scans first (OCR), or leave them out"),
    ("rejected", "serious", "mend them, or leave them out"),
    ("partial", "minor", "mend what their reasons name"),
)


def warning(severity: Severity, problem: str, remedy: str) -> dict[str, Any]:
    return {"severity": severity, "problem": problem, "remedy": remedy}


def problem_and_remedy(sentence: str) -> tuple[str, str]:
    """Every error of ours says what to do behind its last colon."""
    problem, _, remedy = sentence.rpartition(": ")
    return problem, remedy.rstrip(".")


def about_files(corpus: Corpus) -> Iterator[dict[str, Any]]:
    for status, severity, remedy in REMEDIES:
        files = [file for file in corpus.files if file.status == status and file.reason != DESCRIBES]
        if files:
            first = f"first: {files[0].path}, which {files[0].reason}"
            yield warning(severity, f"{len(files):,} files {STATUS_WORDS[status]} ({first})", remedy)


def about_power(power: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if "why" in power:
        yield warning("stops", *problem_and_remedy(power["why"]))
        return
    enough = ceil(2 * MIN_DOCUMENTS / MAX_HELD_OUT_SHARE)
    if not power["can_tell"]:
        problem = f"{power['test']} held-out {power['unit']}s are too few for a verdict: it will be 'cannot tell'"
        yield warning("serious", problem, f"give {enough} documents or more")
    if power["unit"] == "section":
        problem = "so few documents that sections of them are held out: a gain on other documents is not measured"
        yield warning("serious", problem, f"give {enough} documents or more")


def about_leaks(leaks: Leaks, unit: str) -> Iterator[dict[str, Any]]:
    for line in leak_lines(leaks, unit):
        problem, _, follows = line.removeprefix("leak: ").rpartition("; ")
        yield warning("serious", problem, f"leave the text out of the data; else: {follows}")


def about_privacy(corpus: Corpus, policy: str) -> Iterator[dict[str, Any]]:
    private = corpus.findings.private
    if not private or policy != "report":
        return
    kinds = Counter(kind for found in private.values() for kind in found)
    said = ", ".join(kind.replace("_", " ") for kind, _ in kinds.most_common())
    problem = f"{counted(len(private), 'row')} with identifiers ({said}; first: {next(iter(private))})"
    yield warning("serious", problem, "pass --privacy mask or --privacy drop, unless they may be learned")


def about_rows(rows: Mapping[str, int], documents: Mapping[str, Any], corpus: Corpus) -> Iterator[dict[str, Any]]:
    if (repeated := share(rows, "duplicate")) > MANY_DUPLICATES:
        problem = f"{rows['duplicate']:,} rows ({repeated:.0%}) repeat another one word for word and are left out"
        yield warning("serious", problem, "look at how the data was exported")
    if near := corpus.findings.near:
        name, (first, _) = next(iter(near.items()))
        verb = "repeats" if len(near) == 1 else "repeat"
        problem = f"{counted(len(near), 'text')} left out that nearly {verb} an earlier one (first: {name}, of {first})"
        yield warning("serious" if len(near) > MANY_DUPLICATES * rows["total"] else "minor", problem, "nothing")
    if lines := corpus.findings.lines:
        line, n = next(iter(lines.items()))
        verb = "recurs" if len(lines) == 1 else "recur"
        problem = f"{counted(len(lines), 'line')} left out that {verb} over the texts ({line[:40]!r} in {n:,})"
        yield warning("minor", problem, "nothing")
    if rows["too_short"]:
        yield warning("minor", f"{rows['too_short']:,} texts are too short and left out", "nothing, or join them")
    if documents["total"] > 1 and documents["largest_share"] > LARGE_DOCUMENT:
        problem = f"{documents['largest']} alone is {documents['largest_share']:.0%} of the text and is never held out"
        yield warning("minor", problem, "cut it into documents, or name the rows' documents with --document FIELD")


def about_answers(chats: Sequence[Example], found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if found["echoes"]:
        problem = f"{found['echoes']:,} answers only repeat their question (first: {found['listed']['echoes'][0]})"
        yield warning("serious", problem, "leave these rows out: they teach to repeat")
    if found["cut_off"]:
        problem = (
            f"{counted(found['cut_off'], 'answer')} cut off within a sentence (first: {found['listed']['cut_off'][0]})"
        )
        yield warning("minor", problem, "look at them: cut-off answers teach to stop anywhere")
    if len(chats) < FEW_ROWS:
        return
    (answer, n_alike), *_ = Counter(example.learned_text.strip() for example in chats).most_common(1)
    if n_alike / len(chats) > MANY_ALIKE:
        problem = f"{n_alike:,} answers ({n_alike / len(chats):.0%}) are the same: {answer[:40]!r}"
        yield warning("serious", problem, "leave most of them out, or the model gives this answer to everything")
    elif found["as_long_as_the_longest"] > MANY_SAME_LENGTH * len(chats) and found["longest"] > quality.LONG_ANSWER:
        n, longest = found["as_long_as_the_longest"], found["longest"]
        problem = f"{n:,} answers have exactly {longest:,} characters, and none has more: they were cut there"
        yield warning("serious", problem, "export them again without the limit")
    if (typical := median(len(example.learned_text) for example in chats)) < SHORT_ANSWER:
        problem = f"half of the answers have {typical:.0f} characters or fewer ({in_one_line(chats[0])})"
        yield warning("serious", problem, "keep --replay, or the model answers everything this shortly")


def about_texts(judged: Mapping[str, Any], language: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for fault, found in judged["faults"].items():
        many = found["texts"] > MANY_FLAGGED * judged["looked_at"]
        problem = f"{counted(found['texts'], 'text')} {FAULTS[fault]} (first: {found['listed'][0]})"
        yield warning("serious" if many else "minor", problem, "look at them; they are learned as they are")
    if language["others"]:
        first = language["listed"][0]
        problem = (
            f"{language['others']:,} of {language['looked_at']:,} texts looked at are not in the main language, "
            f"{language['main']} (first: {first['id']}, {first['language']})"
        )
        many = language["others"] > MANY_FLAGGED * language["looked_at"]
        yield warning("serious" if many else "minor", problem, "leave them out, unless the model is to learn both")


def about_reading(read: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if read["never_end"]:
        problem = f"{read['never_end']} of the rows looked at do not end with a token that {read['model']} ends at"
        yield warning("serious", problem, "mend the model's chat template, or its answers never end")
    for tail, means in (
        ("high", "surprise the model far more than the rest, as damaged text does"),
        ("low", "surprise the model far less than the rest: it has nothing to learn from them"),
    ):
        if found := read["surprise"][tail]:
            first = f"first: {found[0]['id']}, {found[0]['bits_per_byte']} bits per byte"
            problem = f"{len(found)} of {read['surprise']['looked_at']} rows {means} ({first})"
            yield warning("minor", problem, "look at them; they are learned as they are")
    if found := read["difficulty"]["no_easier"]:
        looked_at = read["difficulty"]["looked_at"]
        problem = (
            f"{len(found)} of {looked_at} answers are no easier to the model with their question than without it "
            f"(first: {found[0]['id']}, {found[0]['ratio']} times the nats)"
        )
        many = len(found) > MANY_NO_EASIER * looked_at
        yield warning("serious" if many else "minor", problem, "see that questions and answers belong together")
