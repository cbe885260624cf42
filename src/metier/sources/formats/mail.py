"""E-mail: one message (.eml), or a box of them (.mbox)."""

import re
from email import message_from_bytes, policy
from email.errors import MessageError
from email.message import MIMEPart

from metier.sources.decoding import decode
from metier.sources.formats.outcome import Document, Reading, UnreadableError, counted, document, sum_of
from metier.sources.formats.web import html_text
from metier.sources.text import clean_text

BEGINS_MESSAGE = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From [^\n]*\d{4}[^\n]*\n")
QUOTED_FROM = re.compile(r"^>(>*From )", re.MULTILINE)


def read_eml(data: bytes) -> Reading:
    """The subject and the text of one message; attachments are counted, not read.

    Raises:
        UnreadableError: it is no message, or has no text.
    """
    found, removed = _message(data)
    if found is None:
        raise UnreadableError("no_text", "is a message without text" + (" (attachments only)" if removed else ""))
    return Reading((found,), counted(removed))


def read_mbox(data: bytes) -> Reading:
    """Every message of a box is a document.

    Raises:
        UnreadableError: it is no box, or no message has text.
    """
    starts = [match.span() for match in BEGINS_MESSAGE.finditer(data)]
    if not starts:
        raise UnreadableError("rejected", "is no mail box: no line begins a message with 'From '")
    ends = [start for start, _ in starts[1:]] + [len(data)]
    read = [_message(data[start:end], from_box=True) for (_, start), end in zip(starts, ends, strict=True)]
    documents = tuple(found for found, _ in read if found is not None)
    if not documents:
        raise UnreadableError("no_text", f"holds {len(read)} messages without text")
    removed = sum_of([{"messages without text": len(read) - len(documents)}, *(counts for _, counts in read)])
    return Reading(documents, counted(removed))


def _message(data: bytes, *, from_box: bool = False) -> tuple[Document | None, dict[str, int]]:
    try:
        message = message_from_bytes(data, policy=policy.default)
        if not message.keys():
            if from_box:
                return None, {}
            raise UnreadableError("rejected", "is no e-mail: it begins with no header")
        subject = " ".join(str(message.get("Subject", "")).split())
        part = message.get_body(("plain", "html"))
        n_attached = sum(1 for _ in message.iter_attachments()) if message.is_multipart() else 0
        body = _body(part) if part is not None else ""
    except (MessageError, LookupError, ValueError, AttributeError, TypeError, IndexError) as error:
        if from_box:
            return None, {"messages that are damaged": 1}
        raise UnreadableError("rejected", f"is a damaged e-mail ({type(error).__name__})") from None
    if from_box:
        body = QUOTED_FROM.sub(r"\1", body)
    text = clean_text(body)
    removed = {"attachments": n_attached}
    if not text:
        return None, removed
    return document(f"{subject}\n\n{text}" if subject else text, len(data), subject), removed


def _body(part: MIMEPart) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    charset = part.get_content_charset("")
    try:
        text = data.decode(charset) if charset else decode(data).text
    except (LookupError, UnicodeDecodeError):
        text = decode(data).text
    return html_text(text)[0] if part.get_content_type() == "text/html" else text
