"""E-mail: one message (.eml), or a box of them (.mbox)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.errors import MessageError
from email.message import MIMEPart
from typing import Any

from metier.sources.decoding import decode
from metier.sources.formats.outcome import Document, Reading, UnreadableError, counted, document
from metier.sources.formats.web import html_text
from metier.sources.text import clean_text

BEGINS_MESSAGE = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From [^\n]*\d{4}[^\n]*\n")
QUOTED_FROM = re.compile(r"^>(>*From )", re.MULTILINE)


@dataclass(frozen=True)
class Message:
    """What is in one message; `text` is None where there is none to learn."""

    text: Document | None
    attached: tuple[tuple[str, bytes], ...] = ()


def read_eml(data: bytes) -> Reading:
    """The subject and the text of one message, and what is attached to it.

    Raises:
        UnreadableError: it is no message, or has neither text nor attachments.
    """
    found = _message(data)
    if found is None:
        raise UnreadableError("rejected", "is no e-mail: it begins with no header")
    return _reading([found], {}, "is a message without text")


def read_mbox(data: bytes) -> Reading:
    """Every message of a box is a document.

    Raises:
        UnreadableError: it is no box, or no message has text or attachments.
    """
    starts = [match.span() for match in BEGINS_MESSAGE.finditer(data)]
    if not starts:
        raise UnreadableError("rejected", "is no mail box: no line begins a message with 'From '")
    ends = [start for start, _ in starts[1:]] + [len(data)]
    found, n_damaged = [], 0
    for (_, start), end in zip(starts, ends, strict=True):
        try:
            found.append(_message(data[start:end], from_box=True) or Message(None))
        except UnreadableError:
            n_damaged += 1
            found.append(Message(None))
    removed = {
        "messages that are damaged": n_damaged,
        "messages without text": sum(message.text is None for message in found),
    }
    return _reading(found, removed, f"holds {len(found)} messages without text")


def _reading(found: Sequence[Message], removed: Mapping[str, int], no_text: str) -> Reading:
    documents = tuple(message.text for message in found if message.text is not None)
    attached = tuple(file for message in found for file in message.attached)
    if not documents and not attached:
        raise UnreadableError("no_text", no_text)
    return Reading(documents, counted(removed), "" if documents else no_text, attached)


def _message(data: bytes, *, from_box: bool = False) -> Message | None:
    """None where it begins with no header.

    Raises:
        UnreadableError: it is damaged.
    """
    try:
        message = message_from_bytes(data, policy=policy.default)
        if not message.keys():
            return None
        subject = " ".join(str(message.get("Subject", "")).split())
        part = message.get_body(("plain", "html"))
        attached = tuple(map(_attached, message.iter_attachments())) if message.is_multipart() else ()
        body = _body(part) if part is not None else ""
    except (MessageError, LookupError, ValueError, AttributeError, TypeError, IndexError) as error:
        raise UnreadableError("rejected", f"is a damaged e-mail ({type(error).__name__})") from None
    if from_box:
        body = QUOTED_FROM.sub(r"\1", body)
    text = clean_text(body)
    if not text:
        return Message(None, attached)
    return Message(document(f"{subject}\n\n{text}" if subject else text, len(data), subject), attached)


def _attached(part: Any) -> tuple[str, bytes]:
    """Its name, and the bytes of the file; a message that is forwarded is a file, too."""
    if part.get_content_type() == "message/rfc822":
        return "message.eml", part.get_payload(0).as_bytes()
    payload = part.get_payload(decode=True)
    return part.get_filename("") or "", payload if isinstance(payload, bytes) else b""


def _body(part: MIMEPart) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    charset = part.get_content_charset("")
    try:
        text = data.decode(charset) if charset else decode(data).text
    except (LookupError, UnicodeDecodeError):
        text = decode(data).text
    return html_text(text)[0] if part.get_content_type() == "text/html" else text
