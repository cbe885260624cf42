"""The panel that answers whether another seed would have said the same."""

from collections.abc import Mapping

from metier.report import figures
from metier.runs import Json


def stability_panel(part: Mapping[str, Json] | None) -> dict[str, Json] | None:
    """What panels/stability.html shows of the `stability` of results.json; None where nothing was measured."""
    if not part:
        return None
    base = part["base"]
    return {
        "sentence": part["sentence"],
        "rows": [
            [
                str(run["seed"]),
                figures.percent(run["gain"] / base, 2),
                figures.MISSING
                if run["ci_low"] is None
                else figures.percent_interval(run["ci_low"] / base, run["ci_high"] / base, 2),
            ]
            for run in part["runs"]
        ],
        "smallest": _share(part["smallest_difference"], base),
        "elsewhere": _share(part["smallest_difference_elsewhere"], base),
        "method": part["method"],
    }


def _share(bits: float | None, base: float) -> str | None:
    return None if bits is None else figures.percent(bits / base, 2)
