"""Did it learn the field? Bits per byte of the held-out documents, base against adapted."""

from collections.abc import Sequence
from typing import Any

from metier.errors import DataError
from metier.evidence.statistics import (
    Record,
    bits_difference,
    bits_per_byte,
    paired_scores,
    relative_difference,
)

FIELD_SLICE = "field"
GROUP_MIN_DOCUMENTS = 3  # an interval of two documents has one degree of freedom and says nothing
UNGROUPED = "(no group)"


def gain(base_records: Sequence[Record], adapted_records: Sequence[Record]) -> dict[str, Any]:
    """The `gain` of results.json, from the score records of slice 'field'; other slices are passed over.

    `diff` is base - adapted in bits per byte, positive is better; `relative` is the share of the base's bits saved.
    Interval, `detectable` and their relatives are None for one document.

    Raises:
        DataError: no record of the field, or the two arms do not hold the same items.
    """
    pairs = paired_scores(_of_field(base_records), _of_field(adapted_records))
    if not pairs:
        raise DataError("There is no score of a held-out document: hold out at least one document and score it.")
    diff, relative = bits_difference(pairs), relative_difference(pairs)
    ci_low, ci_high = diff.interval or (None, None)
    relative_ci_low, relative_ci_high = relative.interval or (None, None)
    base_bits = bits_per_byte(base for base, _ in pairs)
    return {
        "unit": "bits per byte",
        "base": base_bits,
        "adapted": bits_per_byte(adapted for _, adapted in pairs),
        "diff": diff.value,
        "ci_low": ci_low,
        "ci_high": ci_high,
        "relative": relative.value,
        "relative_ci_low": relative_ci_low,
        "relative_ci_high": relative_ci_high,
        "n_items": diff.n_items,
        "n_documents": diff.n_documents,
        # from the relative error: the absolute one also holds the spread of the base's own bits over the documents
        "detectable": None if relative.detectable is None else relative.detectable * base_bits,
        "relative_detectable": relative.detectable,
        "method": diff.method,
        "groups": _groups(pairs),
    }


def _of_field(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record["slice"] == FIELD_SLICE]


def _groups(pairs: Sequence[tuple[Record, Record]]) -> list[dict[str, Any]]:
    """One entry a group, most items first; none when the corpus has no groups."""
    pairs_of: dict[str, list[tuple[Record, Record]]] = {}
    for base, adapted in pairs:
        pairs_of.setdefault(base.get("group") or UNGROUPED, []).append((base, adapted))
    if set(pairs_of) == {UNGROUPED}:
        return []
    return [_group(name, pairs_of[name]) for name in sorted(pairs_of, key=lambda name: (-len(pairs_of[name]), name))]


def _group(name: str, pairs: Sequence[tuple[Record, Record]]) -> dict[str, Any]:
    diff = bits_difference(pairs)
    ci_low, ci_high = (diff.interval if diff.n_documents >= GROUP_MIN_DOCUMENTS else None) or (None, None)
    return {
        "name": name,
        "base": bits_per_byte(base for base, _ in pairs),
        "adapted": bits_per_byte(adapted for _, adapted in pairs),
        "diff": diff.value,
        "ci_low": ci_low,
        "ci_high": ci_high,
        "n_items": diff.n_items,
        "n_documents": diff.n_documents,
    }
