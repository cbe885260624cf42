"""Was pretraining worth it? The same architecture from random weights on the same text, beside floors that need no
weights at all."""

from collections.abc import Mapping, Sequence
from typing import Any

from metier.evidence.statistics import Record, bits_difference, bits_per_byte, paired_scores
from metier.evidence.verdict import MIN_DOCUMENTS

SHARES = (0.25, 0.5, 1.0)  # of the training text
NGRAM, BASE, ADAPTED = "n-grams", "base", "adapted"
LAW = "D_T = 1.9e4 · D_F^0.18 · N^0.38 characters (arXiv 2102.01293, English to Python)"
METHOD = (
    "The same architecture from seeded random weights, every weight trained, on nested parts of the training text, "
    "with as many passes over each as over the whole, at its own learning rate. The n-grams are counted on the same "
    "text; the compressor is LZMA or bzip2 with the same text read first. All score the same held-out text, the "
    "compressor without its questions. The multiple follows a published law for other data and is extrapolated."
)


def data_multiple(train_characters: float, n_body_parameters: float) -> float:
    """How many times the text a model from random weights would need for the same loss: (D_F + D_T) / D_F with the
    transfer law of Hernandez et al. 2021."""
    transferred = 1.9e4 * train_characters**0.18 * n_body_parameters**0.38
    return float((train_characters + transferred) / train_characters)


def scratch(
    records: Sequence[Record], sizes: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], why: str = ""
) -> dict[str, Any]:
    """The `scratch` of results.json.

    records: score records of the same items with "arm": 'base', 'adapted', 'n-grams' and the names in `sizes`.
    sizes: {"arm", "tokens", "steps"}, the largest last. facts: {"compressor_bits", "train_characters",
    "body_parameters"}. why: there are no sizes, in words. `ahead` is the largest model from scratch - adapted in bits
    per byte: positive where pretraining paid.

    Raises:
        DataError: the arms do not hold the same items.
    """
    arms: dict[str, list[Record]] = {}
    for record in records:
        arms.setdefault(record["arm"], []).append(record)
    if not arms.get(BASE):
        return {"sizes": [], "sentence": "Cannot tell what pretraining was worth: no held-out text was scored."}
    multiple = data_multiple(facts["train_characters"], facts["body_parameters"])
    found: dict[str, Any] = {
        "unit": "bits per byte",
        "sizes": [{**size, "bits": bits_per_byte(arms[size["arm"]])} for size in sizes],
        "floors": {"ngram": bits_per_byte(arms[NGRAM]), "compressor": facts["compressor_bits"]},
        "base_bits": bits_per_byte(arms[BASE]),
        "adapted_bits": bits_per_byte(arms[ADAPTED]),
        "data_multiple": {
            "value": multiple,
            "train_characters": facts["train_characters"],
            "needed_characters": multiple * facts["train_characters"],
            "law": LAW,
            "extrapolated": True,
        },
        "n_items": len(arms[BASE]),
        "n_documents": len({record["document"] for record in arms[BASE]}),
        "method": METHOD,
    }
    if not sizes:
        return {
            **found,
            "ahead": None,
            "sentence": f"No model was trained from random weights: {why}.",
        }
    ahead = bits_difference(paired_scores(arms[sizes[-1]["arm"]], arms[ADAPTED]))
    low, high = ahead.interval or (None, None)
    found["ahead"] = {"diff": ahead.value, "ci_low": low, "ci_high": high}
    return {**found, "sentence": _sentence(found)}


def _sentence(found: Mapping[str, Any]) -> str:
    largest, ahead, n = found["sizes"][-1], found["ahead"], found["n_documents"]
    if ahead["ci_low"] is None or n < MIN_DOCUMENTS:
        return f"Cannot tell what pretraining was worth: {n} held-out documents are too few."
    compared = (
        f"on {n} held-out documents the same architecture from random weights, trained on "
        f"{largest['tokens']:,} tokens of the same text, needs {largest['bits']:.2f} bits per byte and the adapted "
        f"model {found['adapted_bits']:.2f}"
    )
    floor = min(value for value in found["floors"].values() if value is not None)
    is_weak = largest["bits"] > floor
    weak = f" Random weights do not even reach counting or compressing that text ({floor:.2f})." if is_weak else ""
    if ahead["ci_low"] > 0:
        needed = found["data_multiple"]["needed_characters"]
        return (
            f"Pretraining paid: {compared}.{weak} By a published law, extrapolated, it would take about "
            f"{_size(needed)} of such text to make up for it, {found['data_multiple']['value']:,.0f} times as much."
        )
    if ahead["ci_high"] < 0:
        return f"Pretraining did not pay: {compared}."
    return f"Cannot tell whether pretraining paid: {compared}, a difference that may be zero."


def _size(characters: float) -> str:
    """In two digits, for a law that knows no more."""
    unit, scale = ("GB", 1e9) if characters >= 1e9 else ("MB", 1e6) if characters >= 1e6 else ("kB", 1e3)
    return f"{float(f'{characters / scale:.2g}'):g} {unit}"
