"""How a person is shown what was read: an example as text, and what was detected in a file with its first rows."""

from metier.sources.examples import Example
from metier.sources.read import FormatFound

TURN_CHARACTERS = 70
LINE_CHARACTERS = 160


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


def _cut(text: str, n_characters: int) -> str:
    line = " ".join(text[: 4 * n_characters].split())
    return line if len(line) <= n_characters else line[: n_characters - 1].rstrip() + "…"
