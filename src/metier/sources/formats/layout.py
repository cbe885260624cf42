"""From lines on pages to running text: running headers and footers taken out, lines joined, hyphens mended."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

EDGE_LINES = 3  # at the top and at the bottom of a page, where headers and footers stand
RUNNING_SHARE = 0.4  # of the pages: left and right pages may have headers of their own
FEWEST_PAGES = 3
NUMBER = re.compile(r"\d+|\b[ivxlc]+\b")
WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
LINE_END_HYPHENS = ("-", "\u2010", "\u00ad", "\ufffe")  # the last one is how PDFium marks them
BULLET = re.compile(r"\s*(?:[•●▪■◦‣·–—*-]|\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,5})[.)])\s")
SENTENCE_END = (".", "!", "?", ":", ";", "…", "。", "”", '"')
ALIGNED_SHARE = 0.75  # of the lines that begin at one margin end before their right margin


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page with its box in points, y upwards. is_row: it is a row of cells, not a part of a paragraph."""

    text: str
    left: float
    bottom: float
    right: float
    top: float
    is_row: bool = False

    @property
    def height(self) -> float:
        return self.top - self.bottom


Page = list[Line]


def lines_of(text: str) -> Page:
    """A page of plain text as lines of a type-written page."""
    found = text.split("\n")
    return [
        Line(line.strip(), len(line) - len(line.lstrip()), -n - 1.0, len(line.rstrip()), float(-n))
        for n, line in enumerate(found)
        if line.strip()
    ]


def running_lines(pages: Sequence[Page]) -> list[set[int]]:
    """For every page, the numbers of its lines that are headers or footers: in the outer three lines at the top or the
    bottom, and the same, but for numbers, on most pages."""
    edges = [_edges(page) for page in pages]
    if len(pages) < FEWEST_PAGES:
        return [set() for _ in pages]
    counts = Counter(key for page, edge in zip(pages, edges, strict=True) for key in {_key(page[n].text) for n in edge})
    enough = max(FEWEST_PAGES, RUNNING_SHARE * len(pages))
    running = {key for key, n in counts.items() if n >= enough and _can_run(key)}
    return [{n for n in edge if _key(page[n].text) in running} for page, edge in zip(pages, edges, strict=True)]


def _edges(page: Page) -> list[int]:
    order = sorted(range(len(page)), key=lambda n: -page[n].top)
    return order if len(order) <= 2 * EDGE_LINES else [*order[:EDGE_LINES], *order[-EDGE_LINES:]]


def _key(text: str) -> str:
    return NUMBER.sub("#", " ".join(text.casefold().split()))


def _can_run(key: str) -> bool:
    """A row of a table of numbers is no header, but a lone page number is a footer."""
    return key.count("#") <= 2 if not re.sub(r"[#\W]", "", key) else True


def vocabulary(pages: Iterable[Page]) -> Counter[str]:
    """The words of a text, but for those that a line end may have broken."""
    words: Counter[str] = Counter()
    for page in pages:
        for line in page:
            found = WORD.findall(line.text.casefold())
            words.update(found[1:-1] if len(found) > 1 else [])
    return words


def running_text(lines: Sequence[Line], words: Counter[str]) -> tuple[str, int]:
    """Lines as paragraphs, and the number of line-end hyphens that were mended.

    Lines of one block (near, overlapping, of one size) are joined unless one is short and ends like a paragraph.
    """
    margins = _right_margins(lines)
    blocks = [_paragraphs(block, margins, words) for block in _blocks(lines)]
    return "\n\n".join(text for text, _ in blocks), sum(n for _, n in blocks)


def _blocks(lines: Sequence[Line]) -> list[list[Line]]:
    blocks: list[list[Line]] = []
    for line in lines:
        if blocks and _continues(blocks[-1], line):
            blocks[-1].append(line)
        else:
            blocks.append([line])
    return blocks


def _continues(block: Sequence[Line], line: Line) -> bool:
    last = block[-1]
    size = max(last.height, line.height)
    gap = last.bottom - line.top
    usual = last.height if len(block) < 2 else max(0.5 * size, block[-2].bottom - last.top) + 0.35 * size
    overlaps = min(last.right, line.right) > max(last.left, line.left)
    alike = min(last.height, line.height) > 0.6 * size
    return overlaps and alike and -0.6 * size < gap < min(usual, 1.2 * size)


def _right_margins(lines: Sequence[Line]) -> dict[int, float]:
    """{left margin, rounded to ten points: where three quarters of the lines that begin there have ended}."""
    rights: dict[int, list[float]] = {}
    for line in lines:
        rights.setdefault(round(line.left / 10), []).append(line.right)
    return {left: sorted(ends)[int(ALIGNED_SHARE * (len(ends) - 1))] for left, ends in rights.items()}


def _paragraphs(block: Sequence[Line], margins: Mapping[int, float], words: Counter[str]) -> tuple[str, int]:
    left = min(line.left for line in block)
    right = max(*(line.right for line in block), margins[round(left / 10)])
    text, n_hyphens = block[0].text, 0
    for last, line in pairwise(block):
        if _begins_paragraph(last, line, left, right):
            text += "\n" + line.text
        else:
            text, mended = joined(text, line.text, words)
            n_hyphens += mended
    return text, n_hyphens


def _begins_paragraph(last: Line, line: Line, left: float, right: float) -> bool:
    if last.text.endswith(LINE_END_HYPHENS) and line.text[:1].islower():
        return False
    if last.is_row or line.is_row or BULLET.match(line.text):
        return True
    character = (last.right - last.left) / len(last.text)
    next_word = line.text.partition(" ")[0]
    had_room = last.right + (len(next_word) + 1) * character < right  # so the line was ended on purpose
    indented = line.left > last.left + 0.8 * line.height and last.left < left + 0.5 * line.height
    ended = last.text.endswith(SENTENCE_END)
    return (had_room and (ended or not line.text[:1].islower())) or (indented and ended)


def joined(text: str, following: str, words: Counter[str]) -> tuple[str, bool]:
    """Two lines as one, and whether a hyphen was mended between them.

    A hyphen at the line end is taken out, unless the word is written with it elsewhere in the text, or both its halves
    are words of the text.
    """
    if not text.endswith(LINE_END_HYPHENS) or not following[:1].islower():
        return f"{text.rstrip()} {following.lstrip()}".replace("\ufffe", "-"), False
    first, second = text[:-1], following
    before, after = WORD.findall(first.casefold())[-1:], WORD.findall(second.casefold())[:1]
    if before and after and not text.endswith("\u00ad"):
        plain, hyphenated = words[before[0] + after[0]], words[f"{before[0]}-{after[0]}"]
        halves = min(words[before[0]], words[after[0]]) if min(len(before[0]), len(after[0])) > 2 else 0
        if not plain and (hyphenated or halves):
            return f"{first}-{second}", False
    return first + second, True
