"""The panel that answers whether there was enough data."""

from collections.abc import Mapping, Sequence

from metier.report import figures
from metier.report.chart_sufficiency import learning_curve
from metier.runs import Json

WORDS = {"more_data_pays": "More data pays", "enough": "Enough", "cannot_tell": "Cannot tell"}
FORETOLD = (
    ("this curve", "error_share"),
    ("a line over log tokens", "log_linear_error"),
    ("the last size again", "last_value_error"),
)


def sufficiency_panel(part: Mapping[str, Json] | None) -> dict[str, Json] | None:
    """What panels/sufficiency.html shows of the `sufficiency` of results.json; None where nothing was measured."""
    if not part or not part.get("sizes"):
        return None
    sizes, base = part["sizes"], part["base"]
    return {
        "sentence": part["sentence"],
        "word": WORDS[part["decision"]],
        "chart": learning_curve(part, _described(part)),
        "rows": [*(_size_cells(size, base) for size in sizes), *_foretold_cells(part)],
        "hidden": _hidden_cells(part["hidden"]),
        "size": figures.counted(part["n_documents"], "held-out document"),
        "saved": figures.percent(sizes[-1]["gain"] / base),
        "read": _read(part),
        "added": _added(part),
        "reached": figures.percent(part["share_of_ceiling"]) if part["share_of_ceiling"] is not None else None,
        "quality": part.get("quality"),
        "method": part["method"],
    }


def _described(part: Mapping[str, Json]) -> str:
    """The picture in words."""
    base = part["base"]
    said = [f"{figures.percent(size['gain'] / base)} after {figures.count(size['tokens'])}" for size in part["sizes"]]
    ahead = [f"{figures.percent(one['gain'] / base)} after {figures.count(one['tokens'])}" for one in part["forecast"]]
    forecast = f"; foretold: {figures.listed(ahead)}" if ahead else ""
    return f"Share of the base's bits saved by tokens read: {figures.listed(said, most=len(said))}{forecast}."


def _size_cells(size: Mapping[str, Json], base: float) -> list[str]:
    shown = figures.MISSING if size["ci_low"] is None else _interval(size["ci_low"] / base, size["ci_high"] / base, 95)
    return [
        figures.count(size["tokens"]),
        figures.percent(size["share"]),
        "measured",
        figures.percent(size["gain"] / base, 1),
        shown,
    ]


def _foretold_cells(part: Mapping[str, Json]) -> list[list[str]]:
    base, hidden = part["base"], part["hidden"]
    rows = [("hidden, then foretold", 1.0, hidden["predicted"], hidden)] if hidden else []
    for one in part["forecast"]:
        rows.append(("foretold, rough" if one["rough"] else "foretold", one["times"], one["gain"], one))
    return [
        [
            figures.count(one["tokens"]),
            figures.percent(times),
            what,
            figures.percent(gain / base, 1),
            _interval(one["low"] / base, one["high"] / base, 80),
        ]
        for what, times, gain, one in rows
    ]


def _interval(low: float, high: float, level: int) -> str:
    return f"{figures.percent_interval(low, high, 1)} ({level}{figures.SPACE}%)"


def _hidden_cells(hidden: Mapping[str, Json] | None) -> Sequence[Sequence[str]]:
    """The curve beside two ways that anyone could use: errors in % of the gain, too high is positive."""
    if not hidden:
        return []
    return [[name, f"{figures.fixed(100 * hidden[key], 1, signed=True)}{figures.SPACE}%"] for name, key in FORETOLD]


def _read(part: Mapping[str, Json]) -> str:
    trained, available = part["trained_tokens"], part["available_tokens"]
    shown = f"{figures.count(trained)} tokens of the field were read, of {figures.count(available)} that there are"
    return f"{shown} ({figures.fixed(trained / available, 1)} passes)" if trained > available else shown


def _added(part: Mapping[str, Json]) -> str | None:
    doubling, base = part["per_doubling"], part["base"]
    if not doubling:
        return None
    interval = figures.percent_interval(doubling["low"] / base, doubling["high"] / base, 1)
    return f"{figures.percent(doubling['gain'] / base, 1)} (80{figures.SPACE}% interval {interval})"
