"""The panel of held-out pairs of answers; only of a run whose rows are preferences."""

from collections.abc import Mapping

from metier.report import figures
from metier.runs import Json


def preferences_panel(part: Mapping[str, Json] | None) -> dict[str, Json] | None:
    if not part:
        return None
    return {
        "sentence": part["sentence"],
        "moved": figures.percent(part["moved"]),
        "margin": figures.fixed(part["margin"], 2, signed=True),
        "size": figures.counted(part["n_items"], "held-out pair"),
        "method": part["method"],
    }
