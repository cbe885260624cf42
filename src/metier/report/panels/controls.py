"""The panel of the controls: as many steps on other text, and on the same words in random order."""

from collections.abc import Mapping

from metier.report import charts, figures
from metier.report.outcome import Row
from metier.runs import Json

OUTCOMES = {True: ("kept", "beaten"), False: ("lost", "not beaten"), None: ("unsure", "cannot tell")}


def controls_panel(part: Mapping[str, Json] | None) -> dict[str, Json] | None:
    if not part:
        return None
    found = part.get("controls") or []
    return {
        "sentence": part["sentence"],
        "figure": f"{sum(1 for c in found if c['beaten'] is True)} of {len(found)}" if found else None,
        "documents": figures.counted(part.get("n_documents"), "held-out document"),
        "chart": _chart(part) if found else None,
        "controls": [_cells(control) for control in found],
        "method": part.get("method"),
        "teach": _teach(part),
    }


def _chart(part: Mapping[str, Json]) -> dict[str, Json] | None:
    """The gain of the adapted model and of each control, on one axis."""
    models = [("Adapted model", part["adapted"], "the field's text")]
    models += [(f"Control: {c['name']}", c["gain"], c["text"]) for c in part["controls"]]
    if any(gain["ci_low"] is None for _, gain, _ in models):
        return None
    scale = charts.padded_scale([0.0, *(edge for _, gain, _ in models for edge in (gain["ci_low"], gain["ci_high"]))])
    rows = []
    for name, gain, text in models:
        kind = "kept" if gain["ci_low"] > 0 else "lost" if gain["ci_high"] < 0 else "unsure"
        picture = charts.interval_row(scale, gain["ci_low"], gain["diff"], gain["ci_high"], kind, [(0.0, "zero")])
        rows.append(Row(name, text, picture, figures.fixed(gain["diff"], signed=True), gain is part["adapted"]))
    return {"rows": rows, "axis": charts.row_axis(scale, charts.nice_ticks(scale))}


def _cells(control: Mapping[str, Json]) -> list[Json]:
    beaten = control["beaten_by"]
    return [
        control["name"].capitalize(),
        control["text"],
        figures.fixed(control["gain"]["diff"], signed=True),
        figures.percent(control["share_of_gain"], 0),
        figures.fixed(beaten["diff"], signed=True),
        figures.interval(beaten["ci_low"], beaten["ci_high"]),
        OUTCOMES[control["beaten"]][1],
    ]


def _teach(part: Mapping[str, Json]) -> str:
    note = (
        "Almost any training makes a model a little better at short, clean text, so a gain alone does not show that it "
        "learned this field. The controls take the same steps on the wrong text; what they gain too is not the field."
    )
    shares = [c for c in part.get("controls") or [] if c["share_of_gain"] is not None]
    if shares:
        largest = max(shares, key=lambda c: c["share_of_gain"])
        note += (
            f" Here {largest['text']} alone gave {figures.percent(max(0.0, largest['share_of_gain']), 0)} of the gain."
        )
    return note
