"""Is the data too dirty, or too little? A random half of it against a filtered half."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from metier.errors import DataError
from metier.evidence.statistics import Estimate, Record, bits_difference, bits_per_byte, paired_scores
from metier.evidence.sufficiency.sizes import of_field
from metier.evidence.sufficiency.words import QUALITY_METHOD, quality_sentence
from metier.evidence.verdict import MIN_DOCUMENTS

RANDOM, FILTERED = "random", "closest to the field"


def quality_against_quantity(
    random_half_records: Sequence[Record],
    filtered_half_records: Sequence[Record],
    seed_sd: float = 0.0,
    n_seeds: int = 0,
) -> dict[str, Any]:
    """Is the data too dirty, or too little? The same held-out documents after training on a random half of the data
    and, with as many tokens, on a filtered half.

    `diff` is random - filtered in bits per byte: positive where the filtered half taught more.
    seed_sd: standard deviation of the gains of n_seeds seeds, bits per byte (`stability`); 0 leaves the luck of
    training out. Its error and that of the documents add up, with the degrees of freedom of Welch and Satterthwaite.
    `decision`: 'clean' or 'keep' when the 95 % interval of the difference leaves out zero, else 'cannot_tell'.

    Raises:
        DataError: the arms do not hold the same items, or an item cannot be scored.
    """
    pairs = paired_scores(of_field(random_half_records), of_field(filtered_half_records))
    if not pairs:
        raise DataError("There is no score of a held-out document: score both halves on the held-out documents.")
    diff = _with_luck(bits_difference(pairs), math.sqrt(2) * seed_sd, n_seeds - 1)
    ci_low, ci_high = diff.interval or (None, None)
    decision = "cannot_tell"
    if ci_low is not None and ci_high is not None and diff.n_documents >= MIN_DOCUMENTS:
        decision = "clean" if ci_low > 0 else "keep" if ci_high < 0 else "cannot_tell"
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


def _with_luck(diff: Estimate, se: float, df: int) -> Estimate:
    """The same with an error that comes from elsewhere, known by its own degrees of freedom."""
    if diff.se is None or diff.df is None or not se:
        return diff
    whole = diff.se**2 + se**2
    return replace(diff, se=math.sqrt(whole), df=whole**2 / (diff.se**4 / diff.df + se**4 / df))
