"""The panels that answer: the verdict, what was gained, what was lost.

Each function takes its part of results.json and returns what page.html shows; None where nothing was measured.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from metier.evidence.gain import GROUP_MIN_DOCUMENTS
from metier.evidence.verdict import readable
from metier.report import charts, figures
from metier.runs import Json

MOST_GROUPS = 20  # rows of a chart that can be taken in at a look
FARTHEST = (-2.5, 4.0)  # margins; beyond it an arrow, so that one ruined slice does not flatten the others

DECISIONS = {
    "adapted": ("Adapted", "kept", "The model learned the field, and kept what it could do before."),
    "no_gain": ("No gain", "none", "No gain on the field could be shown."),
    "forgot": ("Forgot", "lost", "The model lost more of its general ability than the margin allows."),
    "cannot_tell": ("Cannot tell", "unsure", "This set is too small to decide."),
}
OUTCOMES = {True: ("kept", "kept"), False: ("lost", "lost"), None: ("unsure", "cannot tell")}


class Row(NamedTuple):
    """One line of a dot-and-interval chart: name, a small note under it, the picture, the value in words."""

    name: str
    note: str
    picture: Markup
    value: str
    emphasis: bool = False


def verdict_panel(results: Mapping[str, Json]) -> dict[str, Json]:
    """The decision in one word, and the sentence without that word in front of it."""
    verdict = results.get("verdict") or {}
    decision = verdict.get("decision")
    word, sign, plain = DECISIONS.get(
        str(decision), ("No verdict", "unsure", "The evidence was not run, so nothing is decided about this model.")
    )
    sentence = (verdict.get("sentence") or plain).strip()
    for opening in (f"{word}. ", f"{word}: "):
        sentence = sentence.removeprefix(opening)
    return {
        "word": word,
        "sign": sign,
        "glyph": charts.glyph(sign),
        "sentence": sentence,
        "reasons": verdict.get("reasons") or [],
    }


def gain_panel(gain: Mapping[str, Json] | None, held_out_unit: str = "document") -> dict[str, Json] | None:
    if not gain or gain.get("diff") is None:
        return None
    places = figures.places_for(gain.get("detectable"))
    groups = sorted(gain.get("groups") or [], key=lambda group: -(group.get("diff") or 0.0))
    return {
        "sentence": _gain_sentence(gain, held_out_unit),
        "from_to": f"{figures.fixed(gain.get('base'), places)} → {figures.fixed(gain.get('adapted'), places)}",
        "unit": gain.get("unit", "bits per byte"),
        "saved": figures.fixed(gain["diff"], places),
        "interval": figures.interval(gain.get("ci_low"), gain.get("ci_high"), places),
        "detectable": figures.fixed(gain.get("detectable"), places),
        "size": _size_of(gain),
        "method": gain.get("method"),
        "chart": _gain_chart(gain, groups, places),
        "groups": [_group_cells(group, places) for group in groups],
    }


def _gain_sentence(gain: Mapping[str, Json], held_out_unit: str) -> str:
    where = f"On {figures.counted(gain.get('n_documents'), f'held-out {held_out_unit}')}"
    if not _has_interval(gain) or not gain.get("base"):
        unit = gain.get("unit", "bits per byte")
        return f"{where} the adapted model saves {figures.fixed(gain['diff'])} {unit}; no interval was computed."
    change, low, high = (_relative(gain, key) for key in ("diff", "ci_low", "ci_high"))
    if high < 0:  # worse: said as a positive number of more bits
        change, low, high = -change, -high, -low
    places = figures.percent_places([change, low, high])
    shown = f"95{figures.SPACE}% interval {figures.percent_interval(low, high, places)}"
    if gain.get("detectable") is not None:
        shown += f"; this set could have shown {figures.percent(gain['detectable'] / gain['base'])}"
    if low > 0:
        direction = "fewer" if gain["diff"] > 0 else "more"
        return (
            f"{where} the adapted model needs {figures.percent(change, places)} {direction} bits "
            f"for the field's text ({shown})."
        )
    signed = figures.fixed(change * 100, places, signed=True) + figures.SPACE + "%"
    return f"{where} no gain can be told from chance: {signed} ({shown}), an interval that holds zero."


def _relative(gain: Mapping[str, Json], key: str) -> float:
    """As a share of the base's bits: the run's own value where it has one, else the ratio."""
    stored = gain.get({"diff": "relative", "ci_low": "relative_ci_low", "ci_high": "relative_ci_high"}[key])
    return float(gain[key] / gain["base"] if stored is None else stored)


def _size_of(part: Mapping[str, Json]) -> str:
    """How many documents, and how many items where that is another number."""
    documents, items = part.get("n_documents"), part.get("n_items")
    shown = [figures.counted(documents, "document")] if documents is not None else []
    if items is not None and items != documents:
        shown.append(figures.counted(items, "item"))
    return ", ".join(shown)


def _gain_chart(gain: Mapping[str, Json], groups: Sequence[Mapping[str, Json]], places: int) -> dict[str, Json] | None:
    """The whole first, then the groups that have enough documents, the largest gain on top."""
    if not _has_interval(gain):
        return None
    able = [
        group for group in groups if _has_interval(group) and (group.get("n_documents") or 0) >= GROUP_MIN_DOCUMENTS
    ]
    largest = sorted(able, key=lambda group: -group["n_documents"])[:MOST_GROUPS]
    shown = [group for group in able if group in largest] if len(able) > 1 else []
    edges = [edge for part in (gain, *shown) for edge in (part["ci_low"], part["ci_high"])]
    detectable = gain.get("detectable")
    lines = [(0.0, "zero"), *([(detectable, "margin")] if detectable is not None else [])]
    scale = charts.padded_scale([0.0, *edges, *(at for at, _ in lines)])

    def row(part: Mapping[str, Json], name: str, emphasis: bool) -> Row:
        kind = "kept" if part["ci_low"] > 0 else "lost" if part["ci_high"] < 0 else "unsure"
        picture = charts.interval_row(scale, part["ci_low"], part["diff"], part["ci_high"], kind, lines)
        return Row(name, _size_of(part), picture, figures.fixed(part["diff"], places, signed=True), emphasis)

    return {
        "rows": [row(gain, "All together", bool(shown)), *(row(group, _group_name(group), False) for group in shown)],
        "axis": charts.row_axis(scale, charts.nice_ticks(scale)),
        "small": sum(1 for group in groups if (group.get("n_documents") or 0) < GROUP_MIN_DOCUMENTS),
        "beyond": len(able) - len(largest),
    }


def _has_interval(part: Mapping[str, Json]) -> bool:
    return all(part.get(key) is not None for key in ("diff", "ci_low", "ci_high"))


def _group_name(group: Mapping[str, Json]) -> str:
    return str(group.get("name") or "(no group)")


def _group_cells(group: Mapping[str, Json], places: int) -> list[str]:
    few = (group.get("n_documents") or 0) < GROUP_MIN_DOCUMENTS
    return [
        _group_name(group),
        figures.count(group.get("n_documents")),
        figures.fixed(group.get("base"), places),
        figures.fixed(group.get("adapted"), places),
        figures.fixed(group.get("diff"), places, signed=True),
        "too few" if few else figures.interval(group.get("ci_low"), group.get("ci_high"), places),
    ]


def retention_panel(retention: Mapping[str, Json] | None) -> dict[str, Json] | None:
    slices: list[Mapping[str, Json]] = (retention or {}).get("slices") or []
    if not slices:
        return None
    n_kept = sum(1 for part in slices if part.get("passed") is True)
    return {
        "sentence": _retention_sentence([part for part in slices if not part.get("at_chance")] or slices),
        "figure": f"{n_kept} of {len(slices)}",
        "chart": _retention_chart([part for part in slices if _has_bounds(part)]),
        "slices": [_slice_cells(part) for part in slices],
        "unpictured": sum(1 for part in slices if not _has_bounds(part)),
        "divergence": (retention or {}).get("divergence"),
    }


def _retention_sentence(slices: Sequence[Mapping[str, Json]]) -> str:
    lost = [part for part in slices if part.get("passed") is False]
    unsure = [part for part in slices if part.get("passed") is None]
    total = figures.counted(len(slices), "general test")
    if lost:
        worst = max(lost, key=lambda part: _margins(part) or 0.0)
        more = "" if len(lost) == 1 else f"; the worst is {slice_name(worst)}"
        return (
            f"The adapted model lost more than the margin on {len(lost)} of {total}: "
            f"{figures.listed([slice_name(part) for part in lost])}{more} ({_change(worst)})."
        )
    if unsure:
        names = figures.listed([slice_name(part) for part in unsure])
        return (
            f"On none of {total} is a loss beyond the margin certain, but {names} "
            f"{'is' if len(unsure) == 1 else 'are'} measured on too few items to rule one out."
        )
    closest = max(slices, key=lambda part: _margins(part, "upper_95") or 0.0)
    return (
        f"On each of {total}, any loss is smaller than the margin; the closest is {slice_name(closest)} "
        f"({_change(closest)})."
    )


def slice_name(part: Mapping[str, Json]) -> str:
    return readable(str(part.get("name", "unnamed")))


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _outcome(part: Mapping[str, Json]) -> tuple[str, str]:
    return ("unsure", "at chance") if part.get("at_chance") else OUTCOMES[part.get("passed")]


def _change(part: Mapping[str, Json]) -> str:
    """Real values of one slice, in its own unit: what was lost, its upper bound, the margin."""
    places = figures.places_for(part.get("margin"))
    lost, direction = part.get("diff"), "lost"
    if lost is not None and lost < 0:
        lost, direction = -lost, "better by"
    return (
        f"{direction} {figures.fixed(lost, places)} {part.get('unit', '')}, "
        f"upper bound {figures.fixed(part.get('upper_95'), places)}, margin {figures.fixed(part.get('margin'), places)}"
    )


def _margins(part: Mapping[str, Json], key: str = "diff") -> float | None:
    """A loss in units of its own margin."""
    value, margin = part.get(key), part.get("margin")
    return None if value is None or not margin else value / margin


def _has_bounds(part: Mapping[str, Json]) -> bool:
    return bool(part.get("margin")) and all(part.get(key) is not None for key in ("diff", "lower_95", "upper_95"))


def _retention_chart(slices: Sequence[Mapping[str, Json]]) -> dict[str, Json] | None:
    """Every slice on one axis, the loss in units of its margin: 0 is no change, 1 is the margin."""
    if not slices:
        return None
    edges = [(_margins(part, key) or 0.0) for part in slices for key in ("lower_95", "upper_95")]
    low, high = max(min([*edges, -0.5]), FARTHEST[0]), min(max([*edges, 1.5]), FARTHEST[1])
    scale = charts.padded_scale([low, high])
    rows = []
    for part in slices:
        kind, word = _outcome(part)
        lower, value, upper = (_margins(part, key) or 0.0 for key in ("lower_95", "diff", "upper_95"))
        picture = charts.interval_row(scale, lower, value, upper, kind, [(0.0, "zero"), (1.0, "margin")])
        words = word if scale.holds(value) else f"{word}, {figures.fixed(value, 0)} margins"
        rows.append(Row(_capitalised(slice_name(part)), figures.counted(part.get("n_items"), "item"), picture, words))
    ticks = [float(tick) for tick in range(-3, 5) if scale.holds(tick)]
    return {"rows": rows, "axis": charts.row_axis(scale, ticks)}


def _slice_cells(part: Mapping[str, Json]) -> list[Json]:
    places = figures.places_for(part.get("margin"))
    kind, word = _outcome(part)
    under = [figures.counted(part.get("n_items"), "item"), str(part.get("unit", "")), str(part.get("note") or "")]
    small = Markup("<small>{}</small>").format("; ".join(text for text in under if text))
    return [
        Markup("{} {}").format(_capitalised(slice_name(part)), small),
        figures.fixed(part.get("base"), places),
        figures.fixed(part.get("adapted"), places),
        figures.fixed(part.get("diff"), places, signed=True),
        figures.interval(part.get("lower_95"), part.get("upper_95"), places),
        figures.fixed(part.get("margin"), places),
        Markup('<span class="outcome">{} {}</span>').format(charts.glyph(kind), word),
    ]
