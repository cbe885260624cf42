"""Lines that recur over documents: navigation, notices, running heads. They are learned first and are worth nothing."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

MIN_DOCUMENTS = 10  # below, a line in a fifth of the documents is in one or two
SHARE = 0.2  # of the documents: the line is boilerplate in a larger share
MIN_CHARACTERS, MIN_WORDS = 20, 3  # a shorter line is a heading that documents of one kind share rightly
SAMPLED = 1000  # documents, evenly spread, in which candidates are sought; they are counted in all


def candidates(texts: Sequence[str]) -> set[str]:
    """Lines of a sample of the texts that may be boilerplate; memory is that of the sample's lines."""
    if len(texts) < MIN_DOCUMENTS:
        return set()
    sample = texts[:: max(1, len(texts) // SAMPLED)]
    counts = Counter(line for text in sample for line in _lines(text))
    return {line for line, n in counts.items() if n > SHARE / 2 * len(sample)}


def recurring(texts: Iterable[str], candidates: set[str], n_texts: int) -> dict[str, int]:
    """{line: documents that hold it} of the candidates that stand in more than a fifth of all texts."""
    counts: Counter[str] = Counter()
    if candidates:
        for text in texts:
            counts.update(_lines(text) & candidates)
    return {line: n for line, n in counts.most_common() if n > SHARE * n_texts}


def without_lines(text: str, lines: Mapping[str, int]) -> str:
    """The text without these lines, and without the blank space that they leave."""
    if not lines or not any(line in text for line in lines):
        return text
    kept = [line for line in text.split("\n") if line.strip() not in lines]
    return "\n".join(line for line, before in zip(kept, [" ", *kept], strict=False) if line or before).strip("\n")


def _lines(text: str) -> set[str]:
    lines = {line.strip() for line in text.split("\n")}
    return {line for line in lines if len(line) >= MIN_CHARACTERS and line.count(" ") >= MIN_WORDS - 1}
