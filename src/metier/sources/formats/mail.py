"""E-mail: one message (.eml), or a box of them (.mbox)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.errors import MessageError
from email.message import MIMEPart
from mimetypes import guess_extension
from pathlib import PurePosixPath
from typing import Any

from metier.sources.decoding import decode
from metier.sources.formats.outcome import Document, Reading, UnreadableError, counted, document
from metier.sources.formats.web import html_text
from metier.sources.text import clean_text

BEGINS_MESSAGE = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From [^\n]*\d{4}[^\n]*\n")
QUOTED_FROM = re.compile(r"^>(>*From )", re.MULTILINE)
AS_IT_WAS = policy.default.clone(refold_source="none")
# What the standard library's parser raises for messages that are none.
DAMAGED = (MessageError, LookupError, ValueError, AttributeError, TypeError)


Attached = tuple[str, bytes]


@dataclass(frozen=True)
class Mail:
    """What is in one message; `text` is None where there is none to learn."""

    text: Document | None
    attached: tuple[Attached, ...] = ()


def read_eml(data: bytes) -> Reading:
    """The subject and the text of one message, and what is attached to it.

    Raises:
        UnreadableError: it is no message, or has neither text nor attachments.
    """
    found = _mail(data)
    if found is None:
        raise UnreadableError("rejected", "is no e-mail: it begins with no header")
    return _reading([found], {}, found.attached, "is a message without text")


def read_mbox(data: bytes) -> Reading:
    """Every message of a box is a document; what is attached to the 7th is named "7/…".

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
            found.append(_mail(data[start:end], from_box=True) or Mail(None))
        except UnreadableError:
            n_damaged += 1
            found.append(Mail(None))
    removed = {
        "messages that are damaged": n_damaged,
        "messages without text": sum(mail.text is None for mail in found),
    }
    attached = [(f"{n}/{name}", content) for n, mail in enumerate(found, 1) for name, content in mail.attached]
    return _reading(found, removed, attached, f"holds {len(found)} messages without text")


def _reading(found: Sequence[Mail], removed: Mapping[str, int], attached: Sequence[Attached], no_text: str) -> Reading:
    documents = tuple(mail.text for mail in found if mail.text is not None)
    if not documents and not attached:
        raise UnreadableError("no_text", no_text)
    return Reading(documents, counted(removed), attached=tuple(attached))


def _mail(data: bytes, *, from_box: bool = False) -> Mail | None:
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
        found, body = _body(part) if part is not None else ("", "")
        attached = tuple(map(_attached, _attachments(message, part)))
    except DAMAGED as error:
        raise UnreadableError("rejected", f"is a damaged e-mail ({type(error).__name__})") from None
    if from_box:
        body = QUOTED_FROM.sub(r"\1", body)
    text = clean_text(body)
    if not text:
        return Mail(None, attached)
    head = f"{subject}\n\n" if subject else ""
    return Mail(document(head + text, head + found, subject), attached)


def _attachments(part: Any, body: Any, is_other_form: bool = False) -> Iterator[Any]:
    """The leaves of a message that are neither its body nor another form of it; a message in it is one leaf."""
    if part.get_content_maintype() == "multipart" and part.is_multipart():
        alternative = part.get_content_subtype() == "alternative"
        for one in part.iter_parts():
            yield from _attachments(one, body, is_other_form or alternative)
    elif part is not body and not (is_other_form and part.get_content_maintype() == "text" and not part.get_filename()):
        yield part


def _attached(part: Any) -> Attached:
    """Its name and the bytes of the file, a message as it was sent; neither where it is damaged."""
    try:
        if part.get_content_type() == "message/rfc822":
            return "message.eml", part.get_payload(0).as_bytes(policy=AS_IT_WAS)
        kind = "" if part.get_content_maintype() == "text" else guess_extension(part.get_content_type()) or ""
        name = PurePosixPath((part.get_filename() or f"attachment{kind}").replace("\\", "/")).name
        payload = part.get_payload(decode=True)
    except DAMAGED:
        return "", b""
    return name, payload if isinstance(payload, bytes) else b""


def _body(part: MIMEPart) -> tuple[str, str]:
    """As it was found, and its text."""
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    charset = part.get_content_charset("")
    try:
        found = data.decode(charset) if charset else decode(data).text
    except (LookupError, UnicodeDecodeError):
        found = decode(data).text
    return found, html_text(found)[0] if part.get_content_type() == "text/html" else found
