"""Is the data too dirty, or too little? A random half of it against a filtered half."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from metier.errors import DataError
from metier.evidence.statistics import Record, bits_difference, bits_per_byte, paired_scores
from metier.evidence.sufficiency.sizes import of_field
from metier.evidence.sufficiency.words import QUALITY_METHOD, quality_sentence
from metier.evidence.verdict import MIN_DOCUMENTS

RANDOM, FILTERED = "random", "closest to the field"


def quality_against_quantity(
    random_half_records: Sequence[Record], filtered_half_records: Sequence[Record], seed_sd: float = 0.0
) -> dict[str, Any]:
    """Is the data too dirty, or too little? The same held-out documents after training on a random half of the data
    and, with as many tokens, on a filtered half.

    `diff` is random - filtered in bits per byte: positive where the filtered half taught more.
    seed_sd: how far the gains of two seeds lie apart, bits per byte (`stability`); 0 leaves the luck of training out.
    `decision`: 'clean' or 'keep' when the difference is more than two standard errors, else 'cannot_tell'.

    Raises:
        DataError: the arms do not hold the same items, or an item cannot be scored.
    """
    pairs = paired_scores(of_field(random_half_records), of_field(filtered_half_records))
    if not pairs:
        raise DataError("There is no score of a held-out document: score both halves on the held-out documents.")
    diff = bits_difference(pairs)
    if diff.se is not None:
        diff = replace(diff, se=math.hypot(diff.se, math.sqrt(2) * seed_sd))
    ci_low, ci_high = diff.interval or (None, None)
    decision = "cannot_tell"
    if diff.se is not None and diff.n_documents >= MIN_DOCUMENTS and abs(diff.value) > 2 * diff.se:
        decision = "clean" if diff.value > 0 else "keep"
    found = {
        "decision": decision,
        "unit": "bits per byte",
        "random": bits_per_byte(one for one, _ in pairs),
        "filtered": bits_per_byte(one for _, one in pairs),
        "diff": diff.value,
        "ci_low": ci_low,
        "ci_high": ci_high,
        "detectable": diff.detectable,
        "n_items": diff.n_items,
        "n_documents": diff.n_documents,
        "seed_sd": seed_sd,
    }
    return {**found, "sentence": quality_sentence(found), "method": QUALITY_METHOD}
