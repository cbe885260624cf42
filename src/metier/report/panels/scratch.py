"""The panel of the model from scratch: bits by training tokens, beside the base, the adapted model and two floors."""

from collections.abc import Mapping

from metier.report import chart_scratch, figures
from metier.runs import Json


def scratch_panel(part: Mapping[str, Json] | None) -> dict[str, Json] | None:
    if not part:
        return None
    sizes = part.get("sizes") or []
    return {
        "sentence": part["sentence"],
        "figure": _figure(part),
        "chart": chart_scratch.sizes_chart(sizes, _lines(part)) if sizes else None,
        "rows": _rows(part),
        "documents": figures.counted(part.get("n_documents"), "held-out document"),
        "multiple": _multiple(part.get("data_multiple")),
        "method": part.get("method"),
        "teach": _teach(part),
    }


def _figure(part: Mapping[str, Json]) -> dict[str, str] | None:
    ahead = part.get("ahead")
    if not ahead:
        return None
    return {
        "ahead": figures.fixed(ahead["diff"], 2, signed=True),
        "interval": figures.interval(ahead["ci_low"], ahead["ci_high"], 2),
    }


def _lines(part: Mapping[str, Json]) -> list[tuple[str, float]]:
    """What does not depend on the tokens of a model from scratch, by name."""
    floors = part.get("floors") or {}
    named = [
        ("counted n-grams", floors.get("ngram")),
        ("compressor", floors.get("compressor")),
        ("base", part.get("base_bits")),
        ("adapted", part.get("adapted_bits")),
    ]
    return [(name, bits) for name, bits in named if bits is not None]


def _rows(part: Mapping[str, Json]) -> list[list[str]]:
    models = [
        [
            f"From random weights, {figures.count(size['tokens'])} tokens",
            f"{figures.count(size['steps'])} steps",
            figures.fixed(size["bits"]),
        ]
        for size in part.get("sizes") or []
    ]
    others = [[name[:1].upper() + name[1:], figures.MISSING, figures.fixed(bits)] for name, bits in _lines(part)]
    return [*models, *others]


def _multiple(multiple: Mapping[str, Json] | None) -> str | None:
    if not multiple:
        return None
    needed, times = (float(f"{multiple[key]:.2g}") for key in ("needed_characters", "value"))
    return (
        f"Extrapolated, not measured: by {multiple['law']} a model from random weights would need about "
        f"{figures.size(needed)} of such text, {figures.count(times)} times the "
        f"{figures.size(multiple['train_characters'])} it had."
    )


def _teach(part: Mapping[str, Json]) -> str:
    note = (
        "Fine-tuning is not training from scratch: nearly all that the adapted model can do was there before, and the "
        "field's text only bends it. Judging a tuned model by its field alone hides how much of it is the base."
    )
    sizes = part.get("sizes") or []
    if sizes:
        note += (
            f" Here the same steps of text that took the base from {figures.fixed(part['base_bits'], 2)} to "
            f"{figures.fixed(part['adapted_bits'], 2)} bits per byte took random weights to "
            f"{figures.fixed(sizes[-1]['bits'], 2)}."
        )
    return note
