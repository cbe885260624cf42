"""Pictures as small inline SVG.

Horizontal positions are percentages, so a chart is as wide as its column on any screen while its text and its marks
keep their size (a picture that is scaled as a whole has letters of half the size on a phone). Colours are classes of
page.css, which has a light, a dark and a printed theme.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

CURVE_HEIGHT, RATE_HEIGHT = 220, 64  # pixels
MOST_POINTS = 400  # more dots than this only blacken the picture


@dataclass(frozen=True)
class Scale:
    """A linear axis from `low` to `high`."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the left end and 1 at the right one; values outside stop at the end."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def percent(self, value: float) -> str:
        return f"{100 * self.share(value):.2f}%"

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def padded_scale(values: Sequence[float], padding: float = 0.04) -> Scale:
    """A scale that holds all values, with a share of its width free at both ends. Raises ValueError without values."""
    low, high = min(values), max(values)
    room = (high - low) * padding or max(abs(high), 1.0) * padding
    return Scale(low - room, high + room)


def nice_ticks(scale: Scale, most: int = 5) -> list[float]:
    """At most `most` round values inside the scale, a step of 1, 2 or 5 times a power of ten apart."""
    step = 10.0 ** math.floor(math.log10((scale.high - scale.low) / most))
    factors = (1, 2, 5, 10, 20)
    for factor in factors:
        first = math.ceil(scale.low / (step * factor) - 1e-9)
        last = math.floor(scale.high / (step * factor) + 1e-9)
        if last - first + 1 <= most:
            return [round(i * step * factor, 10) + 0.0 for i in range(first, last + 1)]
    raise AssertionError("twenty steps of a tenth of the range always fit")


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """All with the same number of decimals, as few as tell them apart."""
    places = next((p for p in range(11) if all(abs(t - round(t, p)) < 1e-11 for t in ticks)), 10)
    return [f"{tick:,.{places}f}".replace("-", "−") for tick in ticks]


def glyph(kind: str) -> Markup:
    """The sign of a result, told apart by shape as well as colour: kept, lost, unsure, none."""
    return Markup('<svg class="glyph" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">{}</svg>').format(
        _mark(kind, "8", "8")
    )


def _mark(kind: str, x: str, y: str, dx: float = 0.0) -> Markup:
    """The sign at x + dx, y (percent or pixels; dx in pixels)."""
    shapes = {
        "kept": Markup('<circle class="mark kept" r="5.5"/>'),
        "lost": Markup('<path class="mark lost" d="M0-7 7 0 0 7-7 0z"/>'),
        "unsure": Markup('<circle class="mark unsure" r="5"/>'),
        "none": Markup('<path class="mark none" d="M-7-2.5H7V2.5H-7z"/>'),
    }
    shape = Markup('<g transform="translate({} 0)">{}</g>').format(dx, shapes[kind]) if dx else shapes[kind]
    return Markup('<svg x="{}" y="{}" overflow="visible">{}</svg>').format(x, y, shape)


def interval_row(
    scale: Scale, low: float, value: float, high: float, kind: str, lines: Sequence[tuple[float, str]]
) -> Markup:
    """One row of a dot-and-interval chart. An end outside the scale becomes an arrow.

    kind: the sign of the dot, as in `glyph`.  lines: (where, class) of the vertical lines behind it.
    """
    parts = [_rule(scale, at, css_class) for at, css_class in lines if scale.holds(at)]
    parts.append(
        Markup('<line class="interval {}" x1="{}" x2="{}" y1="50%" y2="50%"/>').format(
            kind, scale.percent(low), scale.percent(high)
        )
    )
    if low < scale.low:
        parts.append(_arrow(scale.low, scale, kind, "M6-5 0 0 6 5"))
    if high > scale.high:
        parts.append(_arrow(scale.high, scale, kind, "M-6-5 0 0-6 5"))
    inwards = 0.0 if scale.holds(value) else -18.0 if value > scale.high else 18.0  # beside the arrow, not under it
    parts.append(_mark(kind, scale.percent(value), "50%", inwards))
    return Markup('<svg class="track" aria-hidden="true">{}</svg>').format(Markup("").join(parts))


def _arrow(end: float, scale: Scale, kind: str, path: str) -> Markup:
    return Markup('<svg x="{}" y="50%" overflow="visible"><path class="arrow {}" d="{}"/></svg>').format(
        scale.percent(end), kind, path
    )


def _rule(scale: Scale, at: float, css_class: str) -> Markup:
    x = scale.percent(at)
    return Markup('<line class="rule {}" x1="{}" x2="{}" y1="0" y2="100%"/>').format(css_class, x, x)


def row_axis(scale: Scale, ticks: Sequence[float]) -> Markup:
    """The axis under a column of interval rows."""
    parts = [Markup('<line class="axis" x1="0" x2="100%" y1="0.5" y2="0.5"/>')]
    for tick, label in zip(ticks, tick_labels(ticks), strict=True):
        x = scale.percent(tick)
        parts.append(Markup('<line class="axis" x1="{}" x2="{}" y1="0" y2="5"/>').format(x, x))
        parts.append(Markup('<text class="tick" x="{}" y="18" text-anchor="middle">{}</text>').format(x, label))
    return Markup('<svg class="ticks" height="22" aria-hidden="true">{}</svg>').format(Markup("").join(parts))


def stacked_bar(parts: Sequence[tuple[str, float, str]], description: str) -> Markup:
    """One bar of a whole.

    parts: (key letter, share of the whole 0..1, class).  A part too narrow for its letter goes without.
    """
    pieces, start = [], 0.0
    for key, share, css_class in parts:
        pieces.append(
            Markup('<rect class="part {}" x="{:.3f}%" y="0" width="{:.3f}%" height="36"/>').format(
                css_class, 100 * start, 100 * share
            )
        )
        if share >= 0.06:
            pieces.append(
                Markup('<text class="key {}" x="{:.3f}%" y="23" text-anchor="middle">{}</text>').format(
                    css_class, 100 * (start + share / 2), key
                )
            )
        start += share
    return Markup('<svg class="bar" height="36" role="img" aria-label="{}">{}</svg>').format(
        description, Markup("").join(pieces)
    )


def curve(steps: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], description: str) -> Markup:
    """Loss by step: a dot a step (thinned beyond MOST_POINTS) and the smoothed line. Equal lengths, never empty."""
    x_scale, y_scale = padded_scale(steps, 0.01), _loss_scale(losses, smoothed)
    y = [CURVE_HEIGHT * (1 - y_scale.share(loss)) for loss in losses]
    every = math.ceil(len(steps) / MOST_POINTS)
    dots = [
        Markup('<circle class="dot" cx="{}" cy="{:.1f}" r="2"/>').format(x_scale.percent(step), height)
        for step, height in list(zip(steps, y, strict=True))[::every]
    ]
    parts = [*_grid(y_scale, CURVE_HEIGHT), *dots, _line(x_scale, y_scale, steps, smoothed, CURVE_HEIGHT)]
    return _plot(parts, CURVE_HEIGHT, x_scale, description)


def rate_curve(steps: Sequence[float], rates: Sequence[float], description: str) -> Markup:
    """Learning rate by step, under the loss and on the same horizontal axis."""
    x_scale, y_scale = (
        padded_scale(steps, 0.01),
        Scale(0.0, max(rates) * 1.5 or 1.0),
    )  # room for the label over the peak
    peak = max(rates)
    height = RATE_HEIGHT * (1 - y_scale.share(peak))
    parts = [
        Markup('<line class="axis" x1="0" x2="100%" y1="{}" y2="{}"/>').format(RATE_HEIGHT, RATE_HEIGHT),
        Markup('<text class="tick" x="0" dx="-8" y="{}" text-anchor="end">0</text>').format(RATE_HEIGHT),
        Markup('<line class="grid" x1="0" x2="100%" y1="{:.1f}" y2="{:.1f}"/>').format(height, height),
        Markup('<text class="tick" x="100%" y="{:.1f}" text-anchor="end">peak {}</text>').format(
            height - 6, f"{peak:.2g}"
        ),
        _line(x_scale, y_scale, steps, rates, RATE_HEIGHT),
    ]
    return _plot(parts, RATE_HEIGHT, x_scale, description)


def _loss_scale(losses: Sequence[float], smoothed: Sequence[float]) -> Scale:
    """Holds the line and 98 % of the dots: one wild step must not flatten the rest (its dot stays at the edge)."""
    ordered = sorted(losses)
    cut = len(ordered) // 100
    return padded_scale([ordered[cut], ordered[len(ordered) - 1 - cut], min(smoothed), max(smoothed)], 0.08)


def _grid(y_scale: Scale, height: float) -> list[Markup]:
    ticks = nice_ticks(y_scale, most=6)
    parts = []
    for tick, label in zip(ticks, tick_labels(ticks), strict=True):
        y = height * (1 - y_scale.share(tick))
        parts.append(Markup('<line class="grid" x1="0" x2="100%" y1="{:.1f}" y2="{:.1f}"/>').format(y, y))
        parts.append(
            Markup('<text class="tick" x="0" dx="-8" y="{:.1f}" text-anchor="end">{}</text>').format(y + 4, label)
        )
    return parts


def _line(x_scale: Scale, y_scale: Scale, xs: Sequence[float], ys: Sequence[float], height: float) -> Markup:
    """A polyline in a nested picture that is stretched sideways: lines, unlike rectangles, cannot take percentages."""
    every = math.ceil(len(xs) / MOST_POINTS)
    corners = list(zip(xs, ys, strict=True))
    kept = corners[::every] if (len(corners) - 1) % every == 0 else [*corners[::every], corners[-1]]
    points = " ".join(f"{1000 * x_scale.share(x):.1f},{height * (1 - y_scale.share(y)):.1f}" for x, y in kept)
    return Markup(
        '<svg viewBox="0 0 1000 {}" preserveAspectRatio="none" width="100%" height="{}">'
        '<polyline class="line" points="{}"/></svg>'
    ).format(height, height, points)


def _plot(parts: Sequence[Markup], height: int, x_scale: Scale, description: str) -> Markup:
    ticks = [tick for tick in nice_ticks(x_scale) if tick == round(tick)]  # there is no step 2.5
    axis = [
        Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            x_scale.percent(tick), height + 18, label
        )
        for tick, label in zip(ticks, tick_labels(ticks), strict=True)
    ]
    return Markup('<svg class="plot" height="{}" role="img" aria-label="{}">{}</svg>').format(
        height + 22, description, Markup("").join([*parts, *axis])
    )
