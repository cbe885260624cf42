"""How a person is shown what was read: an example as text, and what was detected in a file with its first rows."""

from collections import Counter
from collections.abc import Sequence

from metier.sources.examples import Example
from metier.sources.find import DESCRIBES
from metier.sources.formats.outcome import Status
from metier.sources.leaks import Leaks
from metier.sources.ledger import FileRead
from metier.sources.read import Corpus, FormatFound

TURN_CHARACTERS = 70
LINE_CHARACTERS = 160
STATUS_WORDS: dict[Status, str] = {
    "needs_password": "need a password",
    "no_text": "hold no text (scans?)",
    "rejected": "cannot be read",
    "partial": "were read in part",
    "empty": "are empty",
    "unsupported": "are of a kind that is not read",
}


def as_text(example: Example) -> str:
    """The text that would be learned; a conversation as turns of 'user:' and 'assistant:'."""
    if not example.is_chat:
        return example.text
    return "\n".join(f"{speaker}: {content}" for speaker, content in _turns(example))


def in_one_line(example: Example) -> str:
    """The beginning of every turn, or of the text, on one line."""
    if not example.is_chat:
        return _cut(example.text, LINE_CHARACTERS)
    turns = [f"{speaker}: {_cut(content, TURN_CHARACTERS)}" for speaker, content in _turns(example)]
    return _cut(" | ".join(turns), LINE_CHARACTERS + len(" | assistant: "))


def _turns(example: Example) -> list[tuple[str, str]]:
    turns: list[tuple[str, str]] = [(message.role, message.content) for message in example.messages]
    return [*turns, ("rejected", example.rejected)] if example.rejected else turns


def found_lines(found: FormatFound) -> list[str]:
    """What was detected, with the fields it was read from, and the first rows as they were parsed."""
    fields = ", ".join(part if part == field else f"{part} = {field}" for part, field in found.fields.items())
    kind = "text" if found.format == "text file" else found.format
    first = f"{found.source}: {found.rows:,} {'row' if found.rows == 1 else 'rows'} of {kind}"
    return [first + (f" (fields: {fields})" if fields else ""), *(f"    {in_one_line(e)}" for e in found.shown)]


def left_out_files(files: Sequence[FileRead]) -> str:
    """How many files gave nothing, or not all, and why, as the end of a sentence; "" when all were read."""
    counts = Counter(file.status for file in files if file.reason != DESCRIBES)
    return ", ".join(f"{counts[status]} {words}" for status, words in STATUS_WORDS.items() if counts[status])


def corpus_lines(corpus: Corpus) -> list[str]:
    """What was read, what was not, and what cleaning left out; a line for each kind that there is."""
    found = corpus.findings
    lines = [line for one in corpus.formats for line in found_lines(one)]
    if left_out := left_out_files(corpus.files):
        lines.append(f"{len(corpus.files):,} files, of which {left_out} (the ledger says which)")
    if found.near:
        name, (first, share) = next(iter(found.near.items()))
        lines.append(f"{counted(len(found.near), 'near-duplicate')} left out: {name} repeats {share:.0%} of {first}")
    if found.lines:
        line, n = next(iter(found.lines.items()))
        lines.append(f"{counted(len(found.lines), 'boilerplate line')} left out: in {n} texts {_cut(line, 60)!r}")
    return lines


def private_lines(corpus: Corpus) -> list[str]:
    """What becomes of rows with identifiers, where there are any."""
    found = corpus.findings.private
    if not found:
        return []
    dropped = {entry["where"] for entry in corpus.ledger.removed if entry["bucket"] == "private"}
    done = "learned as they are: --privacy mask or drop" if found.keys() - dropped else "masked or left out"
    return [f"{counted(len(found), 'row')} with identifiers, {done} ({next(iter(found))})"]


def leak_lines(leaks: Leaks, unit: str) -> list[str]:
    """What leaks, one line for each kind, with the first of it and what follows."""
    kinds = (
        (leaks.held_out, f"held-out {unit}", "", "left out of the gain"),
        (leaks.general, "general item", "", "nothing is claimed of their slices"),
        (leaks.replay, "general item", " (the replay)", "nothing is claimed of their slices"),
        (leaks.benchmarks, "benchmark row", "", "a score on the benchmark is no evidence"),
    )
    return [
        f"leak: {counted(len(found), what)} in training text{where}: {found[0].id} in {found[0].where} "
        f"({found[0].share:.0%} of its words); {therefore}"
        for found, what, where, therefore in kinds
        if found
    ]


def counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _cut(text: str, n_characters: int) -> str:
    line = " ".join(text[: 4 * n_characters].split())
    return line if len(line) <= n_characters else line[: n_characters - 1].rstrip() + "…"
