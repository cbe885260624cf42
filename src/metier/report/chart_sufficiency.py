"""The picture of a learning curve: gain by tokens read, on a logarithmic axis, and a fan beyond what was measured."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from metier.report import charts
from metier.runs import Json

HEIGHT = 240  # pixels
BESIDE = -16.0  # pixels from what was got to what was foretold, at the same size
CLOSEST_TICKS = 0.09  # of the width: nearer labels would touch


def learning_curve(part: Mapping[str, Json], description: str) -> Markup:
    """Gains in % of the base's bits over the logarithm of the tokens.

    part: the `sufficiency` of results.json. Its curve and its hidden size are drawn where it has them.
    """
    base = part["base"] / 100
    curve, sizes, hidden = part["curve"], part["sizes"], part["hidden"]
    full = sizes[-1]["tokens"]
    ends = [size["tokens"] for size in (*sizes, *curve)]
    x_scale = charts.padded_scale([math.log(tokens) for tokens in ends], 0.02)
    intervals = [(size["ci_low"], size["gain"], size["ci_high"]) for size in sizes]
    others = [(one["low"], one["high"]) for one in (*curve, *([hidden] if hidden else []))]
    edges = [edge / base for row in (*intervals, *others) for edge in row if edge is not None]
    y_scale = charts.padded_scale([0.0, *edges])

    parts = [*charts._grid(y_scale, HEIGHT), _rule(x_scale, full)]
    if curve:
        measured, beyond = [at for at in curve if at["tokens"] <= full], [at for at in curve if at["tokens"] >= full]
        beyond = [measured[-1], *beyond] if measured else beyond
        parts += [
            _band(x_scale, y_scale, curve, base),
            _middle(x_scale, y_scale, measured, base, dashed=False),
            _middle(x_scale, y_scale, beyond, base, dashed=True),
        ]
    if hidden:
        foretold = (hidden["low"], hidden["predicted"], hidden["high"])
        parts.append(_point(x_scale, y_scale, full, [edge / base for edge in foretold], "unsure", BESIDE))
    for size, (low, gain, high) in zip(sizes, intervals, strict=True):
        ends_or_point = [gain if edge is None else edge for edge in (low, gain, high)]
        parts.append(_point(x_scale, y_scale, size["tokens"], [edge / base for edge in ends_or_point], "kept"))
    ticks = [size["tokens"] for size in sizes] + [one["tokens"] for one in part["forecast"]]
    return Markup('<svg class="plot" height="{}" role="img" aria-label="{}">{}</svg>').format(
        HEIGHT + 22, description, Markup("").join([*parts, *_ticks(x_scale, ticks)])
    )


def short_count(tokens: float) -> str:
    """12,500 -> "12.5k", 3,200,000 -> "3.2M": for an axis."""
    for unit, scale in (("M", 1e6), ("k", 1e3)):
        if tokens >= scale:
            return f"{tokens / scale:.3g}{unit}"
    return f"{tokens:.0f}"


def _ticks(x_scale: charts.Scale, tokens: Sequence[float]) -> list[Markup]:
    """The largest first, since the smallest sizes lie closest."""
    ticks: list[Markup] = []
    free = math.inf
    for at in sorted(tokens, reverse=True):
        share = x_scale.share(math.log(at))
        if share <= free:
            ticks.append(
                Markup('<text class="tick" x="{:.2f}%" y="{}" text-anchor="middle">{}</text>').format(
                    100 * share, HEIGHT + 18, short_count(at)
                )
            )
            free = share - CLOSEST_TICKS
    return ticks


def _rule(x_scale: charts.Scale, full: float) -> Markup:
    x = x_scale.percent(math.log(full))
    return Markup('<line class="rule margin" x1="{}" x2="{}" y1="0" y2="{}"/>').format(x, x, HEIGHT)


def _height(y_scale: charts.Scale, gain: float) -> float:
    return HEIGHT * (1 - y_scale.share(gain))


def _corners(
    x_scale: charts.Scale, y_scale: charts.Scale, curve: Sequence[Mapping[str, Json]], key: str, base: float
) -> list[str]:
    return [
        f"{1000 * x_scale.share(math.log(at['tokens'])):.1f},{_height(y_scale, at[key] / base):.1f}" for at in curve
    ]


def _stretched(shape: Markup) -> Markup:
    """In a nested picture that is stretched sideways: corners of lines and areas cannot be percentages."""
    return Markup('<svg viewBox="0 0 1000 {}" preserveAspectRatio="none" width="100%" height="{}">{}</svg>').format(
        HEIGHT, HEIGHT, shape
    )


def _band(x_scale: charts.Scale, y_scale: charts.Scale, curve: Sequence[Mapping[str, Json]], base: float) -> Markup:
    lower, upper = (_corners(x_scale, y_scale, curve, key, base) for key in ("low", "high"))
    area = Markup('<polygon class="dot" fill-opacity="0.35" points="{}"/>').format(" ".join([*lower, *upper[::-1]]))
    return _stretched(area)


def _middle(
    x_scale: charts.Scale, y_scale: charts.Scale, curve: Sequence[Mapping[str, Json]], base: float, dashed: bool
) -> Markup:
    dashes = Markup(' stroke-dasharray="6 5"') if dashed else Markup("")
    points = " ".join(_corners(x_scale, y_scale, curve, "gain", base))
    return _stretched(Markup('<polyline class="line"{} points="{}"/>').format(dashes, points))


def _point(
    x_scale: charts.Scale, y_scale: charts.Scale, tokens: float, interval: Sequence[float], kind: str, dx: float = 0.0
) -> Markup:
    """An upright interval and its dot; dx in pixels."""
    x = x_scale.percent(math.log(tokens))
    low, middle, high = (_height(y_scale, gain) for gain in interval)
    bar = Markup(
        '<svg x="{}" overflow="visible"><line class="interval {}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/></svg>'
    ).format(x, kind, dx, dx, low, high)
    return bar + charts._mark(kind, x, f"{middle:.1f}", dx)
