"""The decoded, clean text of a file."""

import codecs

from metier.errors import DataError

BYTE_ORDER_MARKS = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
BYTE_ORDER_MARK = "\ufeff"


def decode(data: bytes, where: str) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark. The mark stays in the text, so that its bytes can be counted.

    Raises:
        DataError: it is neither, or binary; with the line and the byte.
    """
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{where}:{line} is not {encoding.upper()} text (byte {error.start} is 0x{data[error.start]:02x}): "
            "save the file as UTF-8, or pass --skip-bad-rows to leave it out."
        ) from None
    if (position := text.find("\0")) >= 0:
        line = text.count("\n", 0, position) + 1
        raise DataError(
            f"{where}:{line} holds NUL bytes, so it is binary or UTF-16 without a byte order mark: "
            "save it as UTF-8 text, or pass --skip-bad-rows to leave it out."
        )
    return text


def clean_text(text: str) -> str:
    """Newlines as \\n, no byte order mark, no spaces at line ends, no blank lines at the start or the end."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.startswith(BYTE_ORDER_MARK):
        text = text[1:]
    if " \n" in text or "\t\n" in text:
        text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    return text.lstrip("\n").rstrip()
