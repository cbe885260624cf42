"""From the fields of a row to an example: find the format by its field names, then read every row by it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metier.errors import DataError
from metier.sources.examples import Message, Role
from metier.sources.text import clean_text

N_ROWS_LOOKED_AT = 20
DOCUMENT_FIELDS = ("document", "document_id", "doc_id", "doc")
GROUP_FIELDS = ("group", "category")
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
HOW_TO_NAME = (
    "--question FIELD --answer FIELD, --prompt FIELD --completion FIELD, "
    "--prompt FIELD --chosen FIELD --rejected FIELD, --messages FIELD or --text FIELD"
)


@dataclass(frozen=True)
class Format:
    """A kind of row: the parts it must have and those it may have, called as their fields usually are."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


FORMATS = (
    Format("text", ("text",)),
    Format("question/answer", ("question", "answer"), ("context",)),
    Format("prompt/completion", ("prompt", "completion")),
    Format("prompt/chosen/rejected", ("prompt", "chosen", "rejected")),
    Format("instruction/output", ("instruction", "output"), ("input",)),
    Format("messages", ("messages",)),
    Format("conversations", ("conversations",)),
    Format("term/definition", ("term", "definition")),
)
PARTS = {part for kind in FORMATS for part in (*kind.required, *kind.optional)}
NAMEABLE = sorted(PARTS | {"document", "group"})


@dataclass(frozen=True)
class Layout:
    """How the rows of one file are read: part → field, and the fields of the document and the group ("" for none)."""

    format: str
    fields: Mapping[str, str]
    document: str
    group: str

    def shown(self) -> dict[str, str]:
        """Every field that is used, by what it is used for."""
        extra = {"document": self.document, "group": self.group}
        return {**self.fields, **{part: field for part, field in extra.items() if field}}


@dataclass(frozen=True)
class Parsed:
    """The text of one row.

    prompt_bytes, learned_bytes  UTF-8 bytes that come from the row; words that we add ("What is …?") are not among them
    document, group              "" when the row names none
    context                      the passage that a question is asked about, "" when there is none
    rejected                     the worse answer of a preference, "" for other rows; the better one ends `messages`
    """

    text: str
    messages: tuple[Message, ...]
    prompt_bytes: int
    learned_bytes: int
    document: str
    group: str
    context: str = ""
    rejected: str = ""


class NoLayoutError(DataError):
    """The fields of a file fit no format."""


class BadRowError(ValueError):
    """What is wrong with one row, as the end of a sentence that begins with where it is."""


def find_layout(rows: Sequence[Mapping[str, object]], named: Mapping[str, str], where: str) -> Layout:
    """Find the format of a file from its first rows.

    named  part → field, as the user named them; they decide between formats

    Raises:
        DataError: no format fits, several do, or a named field is not there.
    """
    first = rows[:N_ROWS_LOOKED_AT]
    seen = list(dict.fromkeys(field for row in first for field in row))
    for part, field in named.items():
        if field not in seen:
            raise DataError(f"{where}:1 has no field {field!r} (named for {part}): its fields are {_listed(seen)}.")
    if twice := [field for field in named.values() if list(named.values()).count(field) > 1]:
        raise DataError(f"{where}:1 has its field {twice[0]!r} named for two parts: name a field for each.")
    by_lower_case = {field.lower(): field for field in reversed(seen)} | {field: field for field in seen}
    wanted = PARTS & set(named)
    found: list[tuple[Format, dict[str, str]]] = []
    for kind in FORMATS:
        parts = {part: named.get(part) or by_lower_case.get(part, "") for part in (*kind.required, *kind.optional)}
        if wanted <= set(parts) and all(parts[part] for part in kind.required):
            found.append((kind, parts))
    if len(found) != 1:
        kind_of_error = DataError if found else NoLayoutError
        problem = (
            f"fits several formats ({', '.join(kind.name for kind, _ in found)})"
            if found
            else "fits no format that is read"
        )
        raise kind_of_error(
            f"{where}:1 {problem}: its fields are {_listed(seen)}; say which to learn with {HOW_TO_NAME}."
        )
    kind, parts = found[0]
    fields = {
        part: field
        for part, field in parts.items()
        # A context that is not text (a record of passages, as in multi-hop sets) cannot be put before a question.
        if field
        and (part != "context" or part in named or all(isinstance(row.get(field), str | None) for row in first))
    }
    rest = {name: field for name, field in by_lower_case.items() if field not in fields.values()}
    document, group = (
        named.get(part) or next((rest[name] for name in usual if name in rest), "")
        for part, usual in (("document", DOCUMENT_FIELDS), ("group", GROUP_FIELDS))
    )
    return Layout(kind.name, fields, document, group)


def parse_row(row: Mapping[str, object], layout: Layout) -> Parsed:
    """Read one row.

    Raises:
        BadRowError: a part is missing, null, empty or not text, or a conversation has no assistant turn.
    """
    document, group = _label(row, layout.document), _label(row, layout.group)
    fields = layout.fields
    if layout.format == "text":
        text, n_bytes = _string(row, fields["text"], may_be_empty=True)
        return Parsed(text, (), 0, n_bytes, document, group)
    if layout.format in ("messages", "conversations"):
        messages, prompt_bytes, learned_bytes = _conversation(row, fields[layout.format])
        return Parsed("", messages, prompt_bytes, learned_bytes, document, group)
    if layout.format == "prompt/chosen/rejected":
        messages, rejected, prompt_bytes, learned_bytes = _preference(row, fields)
        return Parsed("", messages, prompt_bytes, learned_bytes, document, group, rejected=rejected)
    asked, answered = layout.format.split("/")
    prompt, prompt_bytes = _string(row, fields[asked])
    answer, learned_bytes = _string(row, fields[answered])
    context = ""
    if layout.format == "term/definition":
        prompt = f"What is {prompt}?"
    elif (extra := fields.get("input") or fields.get("context")) and row.get(extra) is not None:
        passage, passage_bytes = _string(row, extra, may_be_empty=True)
        prompt_bytes += passage_bytes
        if "context" in fields:
            context = passage
            prompt = f"{passage}\n\n{prompt}" if passage else prompt
        else:
            prompt = f"{prompt}\n\n{passage}" if passage else prompt
    messages = (Message("user", prompt), Message("assistant", answer))
    return Parsed("", messages, prompt_bytes, learned_bytes, document, group, context)


def _string(row: Mapping[str, object], field: str, may_be_empty: bool = False) -> tuple[str, int]:
    """The clean text of a field and its UTF-8 bytes."""
    if field not in row:
        raise BadRowError(f"has no field {field!r} as the rows before it have")
    return _text_of(row[field], field, may_be_empty)


def _text_of(value: object, what: str, may_be_empty: bool = False) -> tuple[str, int]:
    if value is None:
        raise BadRowError(f"has a null {what}")
    if not isinstance(value, str):
        raise BadRowError(f"has a {what} that is not text ({type(value).__name__})")
    text = clean_text(value).strip()
    if not text and not may_be_empty:
        raise BadRowError(f"has an empty {what}")
    if "\0" in text:
        raise BadRowError(f"has a NUL character in {what}")
    try:
        return text, len(text.encode())
    except UnicodeEncodeError:
        raise BadRowError(f"has half a character (a lone surrogate) in {what}") from None


Turns = list[tuple[Message, int]]
"""Messages with the UTF-8 bytes of their text."""


def _conversation(row: Mapping[str, object], field: str) -> tuple[tuple[Message, ...], int, int]:
    """(messages, prompt bytes, learned bytes)."""
    turns = _turns(row, field)
    learned_bytes = sum(n for message, n in turns if message.role == "assistant")
    if not learned_bytes:
        raise BadRowError(f"has no assistant turn in {field!r}")
    return tuple(message for message, _ in turns), sum(n for _, n in turns) - learned_bytes, learned_bytes


def _turns(row: Mapping[str, object], field: str) -> Turns:
    """Turns of {"role", "content"} or {"from", "value"}."""
    turns = row.get(field)
    if not isinstance(turns, list) or not turns:
        raise BadRowError(f"has no list of turns in {field!r}")
    found: Turns = []
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict):
            raise BadRowError(f"has a turn {number} that is not an object")
        speaker = turn.get("role", turn.get("from"))
        role = ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
        if role is None:
            raise BadRowError(f"has a turn {number} by {speaker!r}, who is none of {', '.join(ROLES)}")
        content = _joined(turn.get("content", turn.get("value")))
        text, n_bytes = _text_of(content, f"{role} turn (turn {number})", may_be_empty=role == "system")
        if text:
            found.append((Message(role, text), n_bytes))
    return found


def _preference(row: Mapping[str, object], fields: Mapping[str, str]) -> tuple[tuple[Message, ...], str, int, int]:
    """(the conversation with the chosen answer, the rejected answer, prompt bytes, bytes of both answers).

    Each part is a string or a list of turns; the answers' lists may repeat the prompt, whose bytes count once.
    """
    prompt = _text_or_turns(row, fields["prompt"], "user")
    before: list[Turns] = []
    answers: list[tuple[Message, int]] = []
    for part in ("chosen", "rejected"):
        *said, answer = _text_or_turns(row, fields[part], "assistant")
        if answer[0].role != "assistant":
            raise BadRowError(f"has a conversation in {fields[part]!r} that does not end with an assistant turn")
        repeats = said[: len(prompt)] == prompt or said[-len(prompt) :] == prompt
        before.append(said if repeats else prompt + said)
        answers.append(answer)
    (chosen, chosen_bytes), (rejected, rejected_bytes) = answers
    if before[0] != before[1]:
        raise BadRowError("has chosen and rejected answers to different conversations")
    if chosen == rejected:
        raise BadRowError("has the same answer chosen and rejected")
    messages = (*(message for message, _ in before[0]), chosen)
    return messages, rejected.content, sum(n for _, n in before[0]), chosen_bytes + rejected_bytes


def _text_or_turns(row: Mapping[str, object], field: str, role: Role) -> Turns:
    if isinstance(row.get(field), list):
        return _turns(row, field)
    text, n_bytes = _string(row, field)
    return [(Message(role, text), n_bytes)]


def _joined(content: object) -> object:
    """A content given as a list of text parts is their text; anything else is left for the check that follows."""
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    return content


def _label(row: Mapping[str, object], field: str) -> str:
    value = row.get(field) if field else None
    return "" if value is None else " ".join(str(value).split())


def _listed(fields: Sequence[str]) -> str:
    names = [field if len(field) <= 40 else f"{field[:40]}…" for field in fields[:12]]
    more = [f"{len(fields) - 12} more"] if len(fields) > 12 else []
    return ", ".join(names + more) or "none"
