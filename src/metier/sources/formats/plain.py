"""Text files: plain text and Markdown as they are, type-written pages without their running headers."""

from metier.sources.decoding import decode
from metier.sources.formats.layout import FEWEST_PAGES, lines_of, running_lines
from metier.sources.formats.outcome import Reading, counted, one_document
from metier.sources.text import clean_text


def read_plain(data: bytes) -> Reading:
    """One document. Form feeds end pages: they become blank lines, and what runs along on most pages is taken out.

    Raises:
        UnreadableError: binary.
    """
    decoded = decode(data)
    text, n_running = _without_running_lines(clean_text(decoded.text))
    return one_document(
        clean_text(text), decoded.n_bytes, counted(decoded.mended, {"running headers and footers": n_running})
    )


def _without_running_lines(text: str) -> tuple[str, int]:
    pages = text.split("\f")
    if len(pages) < FEWEST_PAGES:
        return text.replace("\f", "\n"), 0
    lines = [lines_of(page) for page in pages]
    removed = running_lines(lines)
    kept = []
    for page, numbered, out in zip(pages, lines, removed, strict=True):
        gone = {-int(numbered[n].top) for n in out}
        kept.append("\n".join(line for n, line in enumerate(page.split("\n")) if n not in gone).strip("\n"))
    return "\n\n".join(page for page in kept if page.strip()), sum(map(len, removed))
