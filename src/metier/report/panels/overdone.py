"""The panel of overdone training: which of the eight detectors fired, and which could not be measured."""

from collections.abc import Mapping

from markupsafe import Markup

from metier.report import charts, figures
from metier.runs import Json

SIGNS = {True: ("lost", "fired"), False: ("kept", "quiet"), None: ("unsure", "not measured")}
LEVELS = {"none": "None", "amber": "Amber", "red": "Red", None: "Cannot tell"}


def overdone_panel(part: Mapping[str, Json] | None) -> dict[str, Json] | None:
    """part: the `overdone` of results.json. None where nothing was looked at."""
    if not part:
        return None
    detectors = part["detectors"]
    fired = [one for one in detectors if one["fired"]]
    return {
        "sentence": part["sentence"],
        "figure": LEVELS[part["level"]],
        "n_fired": len(fired),
        "n_measured": part["n_measured"],
        "n": len(detectors),
        "first_fired": fired[0]["sentence"] if fired else None,
        "rows": [_cells(one) for one in detectors],
        "method": part["method"],
    }


def _cells(detector: Mapping[str, Json]) -> list[Json]:
    sign, word = SIGNS[detector["fired"]]
    return [
        Markup("{} <small>{}</small>").format(str(detector["name"]).capitalize(), detector["sentence"]),
        figures.fixed(detector["figure"]),
        figures.fixed(detector["threshold"]),
        Markup('<span class="outcome">{} {}</span>').format(charts.glyph(sign), word),
    ]
