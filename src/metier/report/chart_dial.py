"""The picture of the dial: what is gained against what is forgotten, at every strength."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from metier.report.charts import Scale, nice_ticks, padded_scale, tick_labels

HEIGHT = 300  # pixels
Places = Sequence[tuple[float, float]]
"""(forgetting, gain) of each, both in per cent of the base's bits."""


@dataclass(frozen=True)
class Frontier:
    """Everything that is drawn; curves run from strength 0 upwards."""

    curve: Places
    low: Sequence[float]  # of the gain along the curve
    high: Sequence[float]
    expected: Places
    trajectory: Places  # full strength over the steps, from no step at all; empty for one step
    measured: Sequence[tuple[float, float, str]]  # and the strength, of the last step
    earlier: Places
    chosen: tuple[float, float]
    budget: float


def frontier_chart(drawn: Frontier, description: str) -> Markup:
    """General text to the right is forgotten more; the field upwards is gained more; the shade is beyond the budget."""
    places = [*drawn.curve, *drawn.expected, *drawn.trajectory, *drawn.earlier]
    x = padded_scale([0.0, drawn.budget, *(forgetting for forgetting, _ in places)], 0.07)  # room for a label
    y = padded_scale([0.0, *drawn.low, *drawn.high, *(gain for _, gain in places)])
    parts = [
        *_axes(x, y),
        Markup('<rect class="mark lost" fill-opacity="0.1" x="{}" y="0" width="{:.2f}%" height="{}"/>').format(
            x.percent(drawn.budget), 100 * (1 - x.share(drawn.budget)), HEIGHT
        ),
        Markup('<line class="rule margin" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(x.percent(drawn.budget), HEIGHT),
        _stretched(x, y, drawn),
        *(_dot(x, y, place, hollow=True) for place in drawn.earlier),
        *(_dot(x, y, (forgetting, gain), strength) for forgetting, gain, strength in drawn.measured),
        _ring(x, y, drawn.chosen),
    ]
    return Markup('<svg class="plot" height="{}" role="img" aria-label="{}">{}</svg>').format(
        HEIGHT + 22, description, Markup("").join(parts)
    )


def _stretched(x: Scale, y: Scale, drawn: Frontier) -> Markup:
    """The band and the lines, in a nested picture that is stretched sideways as a whole."""
    forgetting = [at for at, _ in drawn.curve]
    lower, upper = (list(zip(forgetting, edge, strict=True)) for edge in (drawn.low, drawn.high))
    lines = [
        Markup('<polygon class="dot" fill-opacity="0.3" points="{}"/>').format(_corners(x, y, [*upper, *lower[::-1]])),
        _polyline(x, y, drawn.expected, "rule", dashes="6 4"),
        _polyline(x, y, drawn.trajectory, "rule", dashes="2 3"),
        _polyline(x, y, drawn.curve, "line"),
    ]
    return Markup('<svg viewBox="0 0 1000 {0}" preserveAspectRatio="none" width="100%" height="{0}">{1}</svg>').format(
        HEIGHT, Markup("").join(lines)
    )


def _polyline(x: Scale, y: Scale, places: Places, css_class: str, dashes: str = "none") -> Markup:
    return Markup(
        '<polyline class="{}" fill="none" vector-effect="non-scaling-stroke" stroke-dasharray="{}" points="{}"/>'
    ).format(css_class, dashes, _corners(x, y, places))


def _corners(x: Scale, y: Scale, places: Places) -> str:
    return " ".join(f"{1000 * x.share(forgetting):.1f},{_height(y, gain)}" for forgetting, gain in places)


def _height(y: Scale, gain: float) -> str:
    return f"{HEIGHT * (1 - y.share(gain)):.1f}"


def _dot(x: Scale, y: Scale, place: tuple[float, float], label: str = "", hollow: bool = False) -> Markup:
    """A measured point, with its strength beside it; hollow for an earlier step."""
    css_class = "mark unsure" if hollow else "mark none"
    dot = Markup('<circle class="{}" cx="{}" cy="{}" r="4"/>').format(
        css_class, x.percent(place[0]), _height(y, place[1])
    )
    text = Markup('<text class="tick" x="{}" y="{}" dx="7" dy="14">{}</text>').format(
        x.percent(place[0]), _height(y, place[1]), label
    )
    return dot + text if label else dot


def _ring(x: Scale, y: Scale, place: tuple[float, float]) -> Markup:
    return Markup('<circle class="interval kept" fill="none" cx="{}" cy="{}" r="9"/>').format(
        x.percent(place[0]), _height(y, place[1])
    )


def _axes(x: Scale, y: Scale) -> list[Markup]:
    parts = []
    ticks = nice_ticks(y, most=6)
    for tick, label in zip(ticks, tick_labels(ticks), strict=True):
        parts.append(
            Markup('<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(_height(y, tick))
            + Markup('<text class="tick" x="0" y="{}" dx="-8" dy="4" text-anchor="end">{}</text>').format(
                _height(y, tick), label
            )
        )
    ticks = nice_ticks(x)
    for tick, label in zip(ticks, tick_labels(ticks), strict=True):
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                x.percent(tick), HEIGHT + 18, label
            )
        )
    return parts
