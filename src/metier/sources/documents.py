"""Which rows belong together: the document is the unit of splitting, clustering and resampling."""

import hashlib
from collections import Counter
from collections.abc import Sequence

MIN_INSTRUCTION_ROWS = 20
INSTRUCTION_SHARE = 0.05
LONG_ANSWER = 80  # characters; rows with the same long answer are one document, or it would be held out and trained


def digest(text: str) -> bytes:
    """A hash of the text that does not see white space."""
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()


def merged_documents(documents: Sequence[str], shared: Sequence[Sequence[bytes]]) -> list[str]:
    """Join documents that share a prompt or a passage, so that one question never stands on both sides of the split.

    documents  the document of every row; a row without one stands for itself under its own id
    shared     the digests of what ties a row to others (its prompt, its context)

    A digest that more than a twentieth of the rows carry (and more than 20 rows) is a standing instruction, not a
    question: it ties nothing. Returns the document of every row: the name of the first document it was joined to.
    """
    counts = Counter(key for keys in shared for key in set(keys))
    limit = max(MIN_INSTRUCTION_ROWS, INSTRUCTION_SHARE * len(documents))
    names: list[str] = []
    parents: list[int] = []
    nodes: dict[str | bytes, int] = {}

    def root(node: int) -> int:
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    rows: list[int] = []
    for document, keys in zip(documents, shared, strict=True):
        node = nodes.setdefault(document, len(names))
        if node == len(names):
            names.append(document)
            parents.append(node)
        rows.append(node)
        for key in keys:
            if counts[key] <= limit:
                one, other = root(node), root(nodes.setdefault(key, node))
                parents[max(one, other)] = min(one, other)
    return [names[root(node)] for node in rows]
