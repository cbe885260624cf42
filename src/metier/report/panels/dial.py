"""The panel of the dial: how strongly to apply the adapter, and what each strength gains and costs."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from metier.evidence.gain import FIELD_SLICE
from metier.evidence.retention import ALL_TEXT
from metier.report import chart_dial, charts, figures
from metier.runs import Json

Row = Mapping[str, Json]


def dial_panel(part: Mapping[str, Json] | None) -> dict[str, Json] | None:
    """part: the `dial` of results.json. None where the dial was not measured."""
    if not part:
        return None
    rows = part["curve"]
    shown = [row for row in rows if row["alpha"] and (row["measured"] or row["alpha"] == part["chosen"])]
    return {
        "sentence": part["sentence"],
        "figure": figures.fixed(part["chosen"], 2),
        "decided": part["decided"],
        "kept": figures.percent(part["kept_gain"]),
        "size": (
            f"{figures.counted(part['n_documents'], 'document')} of the field, "
            f"{figures.count(part['n_general_documents'])} of general text"
        ),
        "budget": figures.percent(part["budget"]),
        "chart": _chart(part) if rows else None,
        "rows": [_cells(part, row) for row in shown],
        "has_earlier_steps": len(_steps(part)) > 1,
        "earlier": (part["earlier"] or {}).get("sentence"),
        "confirmation": (part.get("confirmation") or {}).get("sentence"),
        "tilt": (part.get("tilt") or {}).get("sentence"),
        "left_out": (part.get("left_out") or {}).get("sentence"),
        "half": _half(part),
        "method": part["method"],
    }


def _steps(part: Mapping[str, Json]) -> list[int]:
    return sorted({point["step"] for point in part["points"]})


def _cells(part: Mapping[str, Json], row: Row) -> list[Json]:
    field, text = part["base"][FIELD_SLICE], part["base"][ALL_TEXT]
    beyond = any(one["loss"] > one["margin"] for one in row["slices"].values())
    sign, word = ("kept", "shown") if row["feasible"] else ("lost", "beyond") if beyond else ("unsure", "not shown")
    name = figures.fixed(row["alpha"], 2)
    if row["alpha"] == part["chosen"]:
        name = Markup("<b>{}</b> <small>{}</small>").format(
            name, "chosen" if row["measured"] else "chosen, from the curve"
        )
    return [
        name,
        _percent(row["gain"] / field),
        f"{_percent(row['gain_low'] / field)} to {_percent(row['gain_high'] / field)}",
        _percent(row["forgetting"] / text, 2),
        _percent(row["forgetting_upper"] / text, 2),
        Markup('<span class="outcome">{} {}</span>').format(charts.glyph(sign), word),
    ]


def _percent(share: float, places: int = 1) -> str:
    return figures.fixed(100 * share, places)


def _half(part: Mapping[str, Json]) -> str | None:
    """What half strength keeps, in words; None where the curve does not say."""
    half = next((row for row in part["curve"] if row["alpha"] == 0.5), None)
    full = part["at_full"]
    if not half or full["gain"] <= 0:
        return None
    said = f"{figures.percent(half['gain'] / full['gain'], 0)} of the gain"
    if half["forgetting"] > 0 and full["forgetting"] > 0:
        said += f" and {figures.percent(half['forgetting'] / full['forgetting'], 0)} of the forgetting"
    return said


def _chart(part: Mapping[str, Json]) -> Markup:
    """Both axes in per cent of the base's bits."""
    field, text = part["base"][FIELD_SLICE] / 100, part["base"][ALL_TEXT] / 100

    def place(row: Row) -> tuple[float, float]:
        return row["forgetting"] / text, row["gain"] / field

    steps, points = _steps(part), part["points"]
    last = [point for point in points if point["step"] == steps[-1]]
    full = [place(point) for point in points if point["alpha"] == 1]
    rows: Sequence[Row] = part["curve"]
    chosen = part["at_chosen"]
    drawn = chart_dial.Frontier(
        curve=[place(row) for row in rows],
        low=[row["gain_low"] / field for row in rows],
        high=[row["gain_high"] / field for row in rows],
        expected=[place(row) for row in part["expected"]],
        trajectory=[(0.0, 0.0), *full] if len(full) > 1 else [],
        measured=[(*place(point), f"{point['alpha']:g}") for point in last],
        earlier=[place(point) for point in points if point["step"] != steps[-1]],
        chosen=place(chosen),
        budget=100 * part["budget"],
    )
    description = (
        f"Field gained against general text forgotten, in per cent of the base's bits, at strengths 0 to "
        f"{rows[-1]['alpha']:g}. Chosen {part['chosen']:.2f}: gain {place(chosen)[1]:.1f}, forgetting "
        f"{place(chosen)[0]:.2f}, budget {100 * part['budget']:g}."
    )
    return chart_dial.frontier_chart(drawn, description)
