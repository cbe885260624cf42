"""Was pretraining worth it? The same architecture from random weights on the same text, beside floors that need no
weights at all."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from metier.evidence.statistics import Record, bits_difference, bits_per_byte, paired_scores
from metier.evidence.verdict import MIN_DOCUMENTS

SHARES = (0.25, 0.5, 1.0)  # of the training text
RATE = 1e-3  # peak, of full training from random weights at this size
NGRAM, BASE, ADAPTED = "n-grams", "base", "adapted"
LAW = "D_T = 1.9e4 · D_F^0.18 · N^0.38 characters (arXiv 2102.01293, English to Python)"
METHOD = (
    "The same architecture from seeded random weights, every weight trained, on nested parts of the same training text, "
    "as many passes over each as the adapted model made, at its own learning rate. The n-grams are counted on the same "
    "text; the compressor is LZMA or bzip2 with the same text read first. All score the same held-out text, the "
    "compressor without its questions. The multiple follows a published law for other data and is extrapolated."
)


def scratch_model(base: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A model of the base's configuration, every weight random and trained, in float32 on the base's device."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        base.config, attn_implementation=base.config._attn_implementation
    )
    return model.float().to(base.device).eval().requires_grad_(True)


def body_parameters(model: PreTrainedModel) -> int:
    """Weights without those of the embedding and of the head: the N of the transfer law."""
    outside = {id(m.weight): m.weight.numel() for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    return int(sum(p.numel() for p in model.parameters()) - sum(outside.values()))


def data_multiple(train_characters: float, n_body_parameters: float) -> float:
    """How many times the text a model from random weights would need for the same loss: (D_F + D_T) / D_F with the
    transfer law of Hernandez et al. 2021."""
    transferred = 1.9e4 * train_characters**0.18 * n_body_parameters**0.38
    return float((train_characters + transferred) / train_characters)


def scratch(records: Sequence[Record], sizes: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The `scratch` of results.json.

    records: of evidence/scratch.jsonl, score records of the same items with "arm": 'base', 'adapted', 'n-grams' and the
    names in `sizes`. sizes: {"arm", "tokens", "steps"}, the largest last. facts: {"compressor_bits", "train_characters",
    "body_parameters"}. `ahead` is the largest model from scratch - adapted in bits per byte: positive where pretraining
    paid.

    Raises:
        DataError: the arms do not hold the same items.
    """
    arms: dict[str, list[Record]] = {}
    for record in records:
        arms.setdefault(record["arm"], []).append(record)
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
        return {**found, "ahead": None, "sentence": "No model was trained from random weights."}
    ahead = bits_difference(paired_scores(arms[sizes[-1]["arm"]], arms[ADAPTED]))
    low, high = ahead.interval or (None, None)
    found["ahead"] = {"diff": ahead.value, "ci_low": low, "ci_high": high}
    return {**found, "sentence": _sentence(found)}


def _sentence(found: Mapping[str, Any]) -> str:
    largest, ahead, n = found["sizes"][-1], found["ahead"], found["n_documents"]
    if ahead["ci_low"] is None or n < MIN_DOCUMENTS:
        return f"Cannot tell what pretraining was worth: {n} held-out documents are too few."
    compared = (
        f"on {n} held-out documents the same architecture from random weights, trained on the same text "
        f"({largest['tokens']:,} tokens), needs {largest['bits']:.2f} bits per byte and the adapted model "
        f"{found['adapted_bits']:.2f}"
    )
    floor = min(value for value in found["floors"].values() if value is not None)
    weak = " It does not even reach counting or compressing that text" if largest["bits"] > floor else ""
    weak = f"{weak} ({floor:.2f})." if weak else ""
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
