"""From the bytes of a text file to its text: the encoding found, damage mended and counted."""

import codecs
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass

from metier.sources.formats.outcome import UnreadableError, counted
from metier.sources.text import BYTE_ORDER_MARK

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like UTF-16, so it is asked first
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
NO_TEXT_CONTROLS = re.compile(rb"[\x01-\x06\x0e-\x1a\x1c-\x1f]")
MOST_CONTROLS = 0.01  # of the bytes: a text holds next to none
MOST_ODD = 0.1  # with NUL, of a text of a few bytes
WIDE_SHARE = 0.3  # of the bytes are NUL on one side, where UTF-16 holds Latin text
LOOKED_AT = 1 << 20
THOROUGHLY_LOOKED_AT = 1 << 16
ASCII = string.printable.replace("\\", "").replace("~", "").encode()  # Japanese encodings have other signs there
# Bytes that mean other letters in cp1250 than in cp1252; the rest of both is alike, which is what a detector sees.
CENTRAL_EUROPEAN = re.compile(
    rb"[\x8c\x8d\x8f\x9c\x9d\x9f\xa3\xa5\xaa\xaf\xb3\xb9\xba\xbc\xbe\xbf\xc3\xc5\xc6\xc8"
    rb"\xcc\xcf\xd0-\xd2\xd5\xd8\xd9\xdb\xde\xe3\xe5\xe6\xe8\xec\xef-\xf2\xf5\xf8\xf9\xfb\xfe]"
)
FEW = 3


@dataclass(frozen=True)
class Decoded:
    """The text of a file.

    text     mended: no byte order mark, no NUL, no UTF-8 that was once read as something else
    n_bytes  UTF-8 bytes of the text before it was mended
    mended   what was, counted by kind
    """

    text: str
    n_bytes: int
    mended: Mapping[str, int]


def decode(data: bytes) -> Decoded:
    """Find the encoding and decode: by its mark, as UTF-8, as UTF-16 without a mark, else by its statistics. Lines that
    are not UTF-8 among lines that are get an encoding of their own.

    Raises:
        UnreadableError: it is binary.
    """
    mark, encoding = next(((mark, name) for mark, name in MARKS if data.startswith(mark)), (b"", ""))
    other_lines = 0
    if encoding and encoding != "utf-8":
        text = data.decode(encoding, errors="replace")
    elif wide := _wide(data):
        text = data.decode(wide, errors="replace")
    else:
        _require_text(data)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text, other_lines = _decode_lines(data)
    n_bytes = len(text.encode(errors="replace"))
    n_nul = text.count("\0")
    mended_text = text.removeprefix(BYTE_ORDER_MARK).replace("\0", "")
    n_mojibake = 0
    if not other_lines:  # what looks like mojibake in an encoding that was guessed may be a wrong guess
        mended_text, n_mojibake = mend_mojibake(mended_text)
    mended = {
        "byte order marks": int(bool(mark)),
        "lines that were not UTF-8": other_lines,
        "NUL characters": n_nul,
        "lines of mojibake": n_mojibake,
    }
    return Decoded(mended_text, max(n_bytes, len(mended_text.encode(errors="replace"))), counted(mended))


def _require_text(data: bytes) -> None:
    start = data[:LOOKED_AT]
    n_controls = len(NO_TEXT_CONTROLS.findall(start))
    many = n_controls > max(FEW, MOST_CONTROLS * len(start)) or n_controls + start.count(0) > MOST_ODD * len(start)
    if many or data.startswith((b"\x89PNG", b"PK\x03\x04", b"\x7fELF")):
        first = NO_TEXT_CONTROLS.search(start)
        line = start.count(b"\n", 0, first.start() if first else 0) + 1
        raise UnreadableError(
            "rejected", f"is binary, not text (line {line})", "save it as UTF-8 text, or leave it out"
        )


def _wide(data: bytes) -> str:
    """The name of UTF-16 without a mark, known by the NUL in every Latin letter; "" when it is not that."""
    start = data[: LOOKED_AT & ~1]
    if len(start) < 4 or b"\0" not in start:
        return ""
    even, odd = start[::2].count(0) / len(start[::2]), start[1::2].count(0) / len(start[1::2])
    if odd > WIDE_SHARE and even < odd / 4:
        return "utf-16-le"
    return "utf-16-be" if even > WIDE_SHARE and odd < even / 4 else ""


def _decode_lines(data: bytes) -> tuple[str, int]:
    """Text that is not UTF-8 as a whole, and the number of its lines that are not."""
    lines = data.split(b"\n")
    decoded: list[str | None] = [_utf8(line) for line in lines]
    legacy = b"\n".join(line for line, text in zip(lines, decoded, strict=True) if text is None)
    if not any(text is not None and not text.isascii() for text in decoded):
        encoding = find_encoding(data)  # a multibyte encoding needs its context, and may use the byte of a newline
        if encoding not in ("cp1252", "latin-1"):
            try:
                return data.decode(encoding), sum(text is None for text in decoded)
            except UnicodeDecodeError:
                pass  # the guess was wrong: line by line, as below
    encoding = find_encoding(legacy)
    whole = [text if text is not None else _legacy(line, encoding) for line, text in zip(lines, decoded, strict=True)]
    return "\n".join(whole), sum(text is None for text in decoded)


def _utf8(line: bytes) -> str | None:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _legacy(line: bytes, encoding: str) -> str:
    for name in (encoding, "cp1252"):
        try:
            return line.decode(name)
        except UnicodeDecodeError:
            continue
    return line.decode("latin-1")


def find_encoding(data: bytes) -> str:
    """The most likely encoding of bytes that are not UTF-8; cp1252 where statistics say nothing.

    The quick detector answers UTF-8 when it does not know, and knows no Korean: then a thorough one is asked.
    """
    from charset_normalizer import from_bytes
    from resiliparse.parse.encoding import detect_encoding

    found: str = detect_encoding(data[:LOOKED_AT]) or "utf-8"
    if found.startswith(("utf", "ascii")):
        best = from_bytes(data[:THOROUGHLY_LOOKED_AT].rpartition(b"\n")[0] or data[:THOROUGHLY_LOOKED_AT]).best()
        found = best.encoding if best is not None else "cp1252"
    if found in ("cp1250", "iso8859-2", "iso8859_2") and len(CENTRAL_EUROPEAN.findall(data[:LOOKED_AT])) <= FEW:
        return "cp1252"
    known = not found.startswith(("utf", "ascii", "iso8859-1", "latin"))
    return found if known and _keeps_ascii(found) else "cp1252"


def _keeps_ascii(name: str) -> bool:
    """Is it an encoding that is known here, and in which English reads as it does everywhere (unlike EBCDIC)?"""
    try:
        return ASCII.decode(name) == ASCII.decode()
    except (LookupError, UnicodeDecodeError):
        return False


def mend_mojibake(text: str) -> tuple[str, int]:
    """Undo UTF-8 that was read as Latin-1 and the like, line by line; and the number of lines that were mended."""
    if text.isascii():
        return text, 0
    from ftfy import fix_encoding
    from ftfy.badness import is_bad

    if not is_bad(text):
        return text, 0
    lines = text.split("\n")
    n_mended = 0
    for number, line in enumerate(lines):
        if not line.isascii() and is_bad(line) and (mended := fix_encoding(line)) != line:
            lines[number] = mended
            n_mended += 1
    return ("\n".join(lines), n_mended) if n_mended else (text, 0)
