"""Transcripts with times (.vtt, .srt): what was said."""

import re
from collections.abc import Iterator

from metier.sources.decoding import decode
from metier.sources.formats.outcome import Reading, UnreadableError, one_document
from metier.sources.text import clean_text

TIMES = re.compile(r"^\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}\s*-->\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}")
SPEAKER = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
TAG = re.compile(r"</?[^>\n]{1,60}>|\{\\[^}]*\}")
SENTENCE_END = (".", "!", "?", "…", '"', "”", "♪", "]", ")")


def read_subtitles(data: bytes) -> Reading:
    """The captions in order as running text; lines that roll (said again under the next one) stand once.

    Raises:
        UnreadableError: binary, or no line says when something was said.
    """
    decoded = decode(data)
    cues = list(_cues(clean_text(decoded.text)))
    if not cues:
        raise UnreadableError("rejected", "is no transcript: no line in it has a time like 00:01.000 --> 00:02.000")
    said: list[str] = []
    n_repeated = 0
    for cue in cues:
        for line in cue:
            if said and line in said[-2:]:
                n_repeated += 1
            else:
                said.append(line)
    text = ""
    for line in said:
        begins = not text or text.endswith(SENTENCE_END) or line.startswith(("-", "–", "["))
        text += ("\n" if text and begins else " " if text else "") + line
    if not text:
        raise UnreadableError("no_text", "holds times, and nothing that was said")
    return one_document(clean_text(text), decoded.n_bytes, {**decoded.mended, "repeated captions": n_repeated})


def _cues(text: str) -> Iterator[list[str]]:
    for block in re.split(r"\n[ \t]*\n", text):
        lines = block.split("\n")
        at = next((n for n, line in enumerate(lines) if TIMES.match(line)), None)
        if at is not None:
            shown = (" ".join(TAG.sub("", SPEAKER.sub(r"\1: ", line)).split()) for line in lines[at + 1 :])
            yield [line for line in shown if line]
