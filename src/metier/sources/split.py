"""Train, select and test: split by document, so that nothing that belongs together stands on both sides."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from metier.errors import DataError
from metier.sources.examples import Example
from metier.sources.ledger import Ledger
from metier.sources.sections import cut_into_sections

HELD_OUT_SHARE = 0.1
MAX_HELD_OUT_SHARE = 0.3
MIN_HELD_OUT = 20
MAX_HELD_OUT = 400
FEW_DOCUMENTS = 20
SECTIONS_IN_A_RUN = 3

Unit = Literal["document", "row", "section"]


@dataclass(frozen=True)
class Split:
    """train is learned; select is what choices are made on; test is read once, for the verdict.

    unit  what was held out: documents, rows that each stand for themselves, or sections of the same documents
    """

    train: list[Example]
    select: list[Example]
    test: list[Example]
    unit: Unit
    seed: int

    def as_json(self) -> dict[str, Any]:
        """The content of splits.json."""
        parts = {"train": self.train, "select": self.select, "test": self.test}
        return {
            "seed": self.seed,
            "unit": self.unit,
            **{name: [example.id for example in part] for name, part in parts.items()},
        }


def split_corpus(
    examples: Sequence[Example],
    seed: int,
    held_out_share: float = HELD_OUT_SHARE,
    *,
    min_held_out: int = MIN_HELD_OUT,
    max_held_out: int = MAX_HELD_OUT,
    ledger: Ledger | None = None,
) -> Split:
    """Hold out a tenth of the documents, 20 to 400, never over three tenths of them or of the text; half for choices.

    Documents are ordered by a seeded hash of their name, so that a document more or less moves at most one other.
    Fewer than 20 documents of plain text are cut into sections first, and runs of neighbouring sections are held out;
    the `ledger`, if given, learns of the sections (so a corpus is split once).

    Raises:
        DataError: there are not two documents to split, or the share is not above 0 and at most 0.3.
    """
    if not 0 < held_out_share <= MAX_HELD_OUT_SHARE:
        raise DataError(f"The held-out share is {held_out_share}: choose one above 0 and at most {MAX_HELD_OUT_SHARE}.")

    def wanted(n_documents: int) -> int:
        """How many documents to hold out."""
        n = max(round(held_out_share * n_documents), min_held_out)
        return max(1, min(n, int(MAX_HELD_OUT_SHARE * n_documents), max_held_out))

    sections = _sections(examples)
    if sections:
        if ledger is not None:
            for example_id, pieces in sections.items():
                if len(pieces) > 1:
                    ledger.split_example(example_id, {piece.id: len(piece.text.encode()) for piece in pieces})
        unit: Unit = "section"
        run_length = max(1, min(SECTIONS_IN_A_RUN, wanted(sum(map(len, sections.values()))) // 2))
        keys = _runs(examples, sections, run_length)
        # Neighbours are held out together and resemble each other: the run is the unit of every interval, too.
        examples = [replace(piece, document=keys[piece.id]) for pieces in sections.values() for piece in pieces]
        n_held_out = max(1, wanted(len(examples)) // run_length)
    else:
        row_ids = {example.id for example in examples if example.id != example.source}
        keys = {example.id: example.document for example in examples}
        unit = "row" if row_ids.issuperset(keys.values()) else "document"
        n_held_out = wanted(len(set(keys.values())))
    held_out = _held_out(examples, keys, seed, n_held_out)
    # Halved in the middle of the order: taking turns along it would move every document behind a new one.
    select, test = set(held_out[: len(held_out) // 2]), set(held_out[len(held_out) // 2 :])
    both = select | test
    return Split(
        train=[example for example in examples if keys[example.id] not in both],
        select=[example for example in examples if keys[example.id] in select],
        test=[example for example in examples if keys[example.id] in test],
        unit=unit,
        seed=seed,
    )


def _sections(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """The sections of every text of a corpus that has too few documents to hold out whole ones; else nothing."""
    n_documents = len({example.document for example in examples})
    if n_documents >= FEW_DOCUMENTS or any(example.is_chat for example in examples):
        return {}
    sections = cut_into_sections(examples)
    return sections if sum(map(len, sections.values())) > n_documents else {}


def _runs(examples: Sequence[Example], sections: Mapping[str, list[Example]], length: int) -> dict[str, str]:
    """{section id: its run}: neighbours are held out together, because a section says much about the next one."""
    runs: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for example in examples:
        for section in sections[example.id]:
            runs[section.id] = f"{example.document}#run{counts[example.document] // length + 1}"
            counts[example.document] += 1
    return runs


def _held_out(examples: Sequence[Example], keys: Mapping[str, str], seed: int, n_held_out: int) -> list[str]:
    """The first documents by hash, but for those that would take more than three tenths of the text from training."""
    sizes: Counter[str] = Counter()
    for example in examples:
        sizes[keys[example.id]] += len(example.learned_text)
    if len(sizes) < 2:
        raise DataError(
            f"All that was read ({examples[0].id if examples else 'nothing'} and the like) is one document, "
            "so nothing can be held out to prove anything: give at least two documents, better 40."
        )
    budget = MAX_HELD_OUT_SHARE * sizes.total()
    held_out: list[str] = []
    for key in sorted(sizes, key=lambda key: _hash(seed, key)):
        if len(held_out) < n_held_out and sizes[key] <= budget:
            held_out.append(key)
            budget -= sizes[key]
    return held_out or [min(sizes, key=lambda key: (sizes[key], key))]


def _hash(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=16).digest()
