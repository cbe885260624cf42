"""What every format is read into: one example, plain text or a conversation."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One row as the model will learn it: plain text (`text`) or a conversation (`messages`), never both.

    id        unique in a corpus: "train.jsonl:12", "notes/a.txt", "notes/a.txt#3" for a section
    source    the file it came from, as the user would name it
    line      1-based line (or row, for parquet) where it starts in that file
    document  the unit of splitting, clustering and resampling; rows of one document share it
    group     what the report breaks the gain down by (a category, a file); "" when there is none
    rejected  a worse answer than the last of `messages`, for preference data; "" for everything else
    """

    id: str
    source: str
    line: int
    document: str
    group: str = ""
    text: str = ""
    messages: tuple[Message, ...] = ()
    rejected: str = ""

    @property
    def is_chat(self) -> bool:
        return bool(self.messages)

    @property
    def learned_text(self) -> str:
        """The text that carries loss: all of a plain text, the assistant's turns of a conversation, the chosen answer
        of a preference."""
        if self.rejected:
            return self.messages[-1].content
        return "".join(m.content for m in self.messages if m.role == "assistant") if self.is_chat else self.text

    @property
    def prompt_text(self) -> str:
        """The text that is read without loss: every turn that is not the assistant's, or not the chosen answer."""
        if self.rejected:
            return "".join(m.content for m in self.messages[:-1])
        return "".join(m.content for m in self.messages if m.role != "assistant")


@dataclass(frozen=True, slots=True)
class Draft:
    """An example before its document is settled; `shared` ties it to rows with the same prompt or context."""

    example: Example
    shared: tuple[bytes, ...] = ()
