"""The text layer of a PDF, in reading order. Scanned pages have none; nothing is recognised from images."""

import ctypes
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

from metier.sources.formats.layout import Line, Page, running_lines, running_text, vocabulary
from metier.sources.formats.outcome import Reading, UnreadableError, counted, document
from metier.sources.text import clean_text

LIGATURES = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)}
COLUMN_GAP = 1.6  # line heights: no space between words is as wide
ROWS_IN_COLUMNS = 0.3  # of a page's lines stand side by side with another
PROSE_LINE = 20  # characters: the cells of a table are shorter
PROSE_WIDTH = 0.6  # of its column is what a line of prose fills
WRONG_PASSWORD, DAMAGED_SECURITY = 4, 5  # FPDF_GetLastError


def read_pdf(data: bytes, password: str = "") -> Reading:
    """Read every page's text: PDFium gives characters in the order of the content, lines are made of them here.

    Raises:
        UnreadableError: damaged, without text, or locked by a password that was not given.
    """
    with _opened(data, password) as pdf:
        pages, images = [], 0
        for number in range(len(pdf)):
            page = _page_lines(pdf, number)
            images += not page and _has_image(pdf, number)
            pages.append(page)
        title = str(pdf.get_metadata_value("Title") or "")
    n_pages = len(pages)
    if not any(pages):
        what = "holds images of pages and no text" if images else "holds no text"
        raise UnreadableError(
            "no_text", f"{what} ({n_pages} page{'s' * (n_pages != 1)})", "recognise its text first (OCR)"
        )
    found = sum(len(line.text.encode()) + 1 for page in pages for line in page)
    removed = running_lines(pages)
    kept = [[line for n, line in enumerate(page) if n not in out] for page, out in zip(pages, removed, strict=True)]
    words = vocabulary(kept)
    text, n_hyphens = running_text([line for page in _one_sheet(kept) for line in page], words)
    n_ligatures = sum(map(text.count, map(chr, LIGATURES)))
    counts = {
        "running headers and footers": sum(map(len, removed)),
        "line-end hyphens": n_hyphens,
        "ligatures": n_ligatures,
    }
    problem = f"{images} of {n_pages} pages are images without text" if images else ""
    clean = clean_text(text.translate(LIGATURES).replace("\ufffe", "-"))
    return Reading((document(clean, found, title.strip("\0 ")),), counted(counts), problem)


def _opened(data: bytes, password: str) -> Any:
    import pypdfium2
    import pypdfium2.raw as raw

    try:
        return pypdfium2.PdfDocument(data, password=password or None)
    except pypdfium2.PdfiumError:
        if raw.FPDF_GetLastError() in (WRONG_PASSWORD, DAMAGED_SECURITY) or (b"/Encrypt" in data and _is_whole(data)):
            wrong = "opens with another password than the one given" if password else "opens with a password only"
            raise UnreadableError("needs_password", wrong, "give it with --password") from None
        reason = "is damaged: no PDF can be read from it" if data.startswith(b"%PDF") else "is not a PDF"
        raise UnreadableError("rejected", reason, "get it again, or leave it out") from None


def _is_whole(data: bytes) -> bool:
    return b"%%EOF" in data[-1024:]


def _has_image(pdf: Any, number: int) -> bool:
    import pypdfium2.raw as raw

    return next(iter(pdf[number].get_objects(filter=(raw.FPDF_PAGEOBJ_IMAGE,), max_depth=3)), None) is not None


def _page_lines(pdf: Any, number: int) -> Page:
    """The lines of a page; columns that stand side by side one after the other."""
    import pypdfium2

    try:
        page = pdf[number]
        text_page = page.get_textpage()
    except pypdfium2.PdfiumError:
        return []
    rows = [row for row in map(_segments, _rows(text_page)) if row]
    text_page.close()
    page.close()
    return _in_reading_order(rows)


Glyph = tuple[str, float, float, float, float]  # character, left, bottom, right, top


def _rows(text_page: Any) -> Iterator[list[Glyph]]:
    """The glyphs of every line, as PDFium breaks them."""
    import pypdfium2.raw as raw

    box = [ctypes.c_double() for _ in range(4)]
    left, right, bottom, top = box
    pointers = [ctypes.byref(value) for value in box]
    row: list[Glyph] = []
    high = 0
    for index in range(raw.FPDFText_CountChars(text_page)):
        code = raw.FPDFText_GetUnicode(text_page, index)
        if 0xD800 <= code < 0xDC00:  # the first half of a character beyond the first 65,536
            high = code
            continue
        if 0xDC00 <= code < 0xE000:
            code = 0x10000 + ((high - 0xD800) << 10) + code - 0xDC00 if high else 0xFFFD
        high = 0
        if code in (10, 13):
            if row:
                yield row
            row = []
            continue
        if code == 2:  # older PDFium's mark of a line-end hyphen
            code = 0xFFFE
        if code < 32 and code != 9:
            continue
        raw.FPDFText_GetCharBox(text_page, index, *pointers)
        row.append((chr(code), left.value, bottom.value, right.value, top.value))
        if code == 0xFFFE:
            yield row
            row = []
    if row:
        yield row


def _segments(row: list[Glyph]) -> list[Line]:
    """A line cut where a gap is wider than between words."""
    inked = [glyph for glyph in row if not glyph[0].isspace() and glyph[4] > glyph[2]]
    if not inked:
        return []
    bottom, top = median(g[2] for g in inked), max(g[4] for g in inked)
    height = max(top - bottom, 1.0)
    pieces: list[list[Glyph]] = [[]]
    edge = inked[0][1]
    for glyph in row:
        has_box = glyph[4] > glyph[2] and not glyph[0].isspace()
        if has_box and pieces[-1] and glyph[1] - edge > COLUMN_GAP * height:
            pieces.append([])
        pieces[-1].append(glyph)
        if has_box:
            edge = max(edge, glyph[3]) if glyph[1] >= edge - height else glyph[3]
    lines = []
    for piece in pieces:
        boxes = [g for g in piece if g[4] > g[2] and not g[0].isspace()]
        text = " ".join("".join(g[0] for g in piece).split())
        if boxes and text:
            lines.append(Line(text, min(g[1] for g in boxes), bottom, max(g[3] for g in boxes), top))
    return lines


def _in_reading_order(rows: list[list[Line]]) -> Page:
    """Rows as lines, in the order of the content; where that goes across two columns of prose, column by column."""
    gutter = _gutter(rows)
    if gutter is None:
        return [_as_one(row) for row in rows]
    page: Page = []
    left: Page = []
    right: Page = []
    for row in sorted(rows, key=lambda row: -row[0].top):
        if any(line.left < gutter < line.right for line in row):
            page += [*left, *right, _as_one(row)]
            left, right = [], []
        else:
            left += [line for line in row if line.right <= gutter]
            right += [line for line in row if line.left >= gutter]
    return [*page, *left, *right]


def _as_one(row: list[Line]) -> Line:
    return Line(
        "  ".join(line.text for line in row),
        min(line.left for line in row),
        min(line.bottom for line in row),
        max(line.right for line in row),
        max(line.top for line in row),
        is_row=len(row) > 1,
    )


def _gutter(rows: list[list[Line]]) -> float | None:
    """The middle between two columns of prose whose lines come in turns, else None."""
    pairs = [row for row in rows if len(row) == 2 and min(len(line.text) for line in row) >= PROSE_LINE]
    if len(pairs) < max(4, ROWS_IN_COLUMNS * len(rows)):
        return None
    gutter = median((row[0].right + row[1].left) / 2 for row in pairs)
    within = [row for row in pairs if row[0].right <= gutter <= row[1].left]
    if len(within) < 0.8 * len(pairs):
        return None
    for side in (0, 1):
        lines = [row[side] for row in within]
        width = max(line.right for line in lines) - min(line.left for line in lines)
        if median(line.right - line.left for line in lines) < PROSE_WIDTH * width:
            return None
    return gutter


def _one_sheet(pages: list[Page]) -> Iterator[Page]:
    """Pages under one another, so that a paragraph that goes on over the page end is joined."""
    floor = 0.0
    for page in pages:
        if not page:
            continue
        bottom, top = min(line.bottom for line in page), max(line.top for line in page)
        shift = floor - top
        yield [replace(line, bottom=line.bottom + shift, top=line.top + shift) for line in page]
        floor = bottom + shift - 0.2 * page[-1].height
