"""Text as it is learned."""

BYTE_ORDER_MARK = "\ufeff"


def clean_text(text: str) -> str:
    """Newlines as \\n, no byte order mark, no spaces at line ends, no blank lines at the start or the end."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.startswith(BYTE_ORDER_MARK):
        text = text[1:]
    if " \n" in text or "\t\n" in text:
        text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    return text.lstrip("\n").rstrip()
