"""A few long texts cut into sections, so that a part of them can be held out."""

import re
from collections.abc import Sequence
from dataclasses import replace

from metier.sources.examples import Example

SECTION_CHARACTERS = 2000
PARAGRAPH_END = re.compile(r"\n{2,}")
LINE_END = re.compile(r"\n")
SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\s*(?<=[。！？])")
WORD_END = re.compile(r"\s+")


def cut_into_sections(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """{id of a plain text: its sections}, each of about 2,000 characters and a document of its own.

    A text of one section keeps its id.
    """
    sections: dict[str, list[Example]] = {}
    for example in examples:
        pieces = cut_text(example.text)
        if len(pieces) == 1:
            sections[example.id] = [replace(example, document=example.id)]
            continue
        ids = [f"{example.id}#{number}" for number in range(1, len(pieces) + 1)]
        sections[example.id] = [
            replace(example, id=section_id, document=section_id, text=piece)
            for section_id, piece in zip(ids, pieces, strict=True)
        ]
    return sections


def cut_text(text: str) -> list[str]:
    """Cut at paragraph ends; too long a paragraph is cut at line ends, then sentences, then words, then anywhere.

    Every character stays in one piece, but for the white space between pieces.
    """
    pieces: list[str] = []
    start = 0
    while len(text) - start > SECTION_CHARACTERS * 3 // 2:
        end, after = _cut_near(text, start)
        pieces.append(text[start:end])
        start = after
    pieces.append(text[start:])
    return pieces


def _cut_near(text: str, start: int) -> tuple[int, int]:
    """(end of the piece that begins at `start`, start of the next): the last cut of the best kind there is.

    A cut that would leave less than half a section is not taken; what follows the cut is never only white space.
    """
    low, high = start + SECTION_CHARACTERS // 2, start + SECTION_CHARACTERS
    for kind in (PARAGRAPH_END, LINE_END, SENTENCE_END, WORD_END):
        cuts = [match.span() for match in kind.finditer(text, low, high) if match.end() > low]
        if cuts:
            return cuts[-1]
    return high, high
