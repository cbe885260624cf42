"""The panel that answers whether the tasks mined from the texts helped; only of a run that was trained on some."""

from collections.abc import Mapping

from metier.report import figures
from metier.runs import Json


def tasks_panel(part: Mapping[str, Json] | None) -> dict[str, Json] | None:
    if not part:
        return None
    return {
        "sentence": part["sentence"],
        "from_to": f"{figures.fixed(part['base'])} → {figures.fixed(part['adapted'])}",
        "saved": figures.percent(part["gain"]["value"], 1),
        "size": figures.counted(part["n_items"], "task"),
        "rows": [_row("Asked", part["helped_by"]), _row("The field's text", part["field_cost"], -1)]
        if part["helped_by"]
        else [],
        "method": part["method"],
    }


def _row(name: str, share: Mapping[str, Json], sign: int = 1) -> list[str]:
    """sign: -1 turns what is paid into what is saved."""
    bounds = [share["ci_low"], share["ci_high"]]
    shown = figures.MISSING
    if None not in bounds:
        low, high = sorted(sign * bound for bound in bounds)
        shown = figures.percent_interval(low, high, 1)
    return [name, figures.percent(sign * share["value"], 1), shown]
