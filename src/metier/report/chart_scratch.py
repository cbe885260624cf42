"""Bits per byte of models from scratch by their training tokens, with level lines for what needs none of them."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from metier.report.charts import CURVE_HEIGHT, nice_ticks, padded_scale, tick_labels
from metier.runs import Json

LABEL_HEIGHT = 15.0  # pixels between two labels of lines, at least


def sizes_chart(sizes: Sequence[Mapping[str, Json]], lines: Sequence[tuple[str, float]]) -> Markup:
    """Dots by tokens, from 0 on; a dashed line at the bits of each of `lines`, with its name at the right."""
    x_scale = padded_scale([0.0, *(size["tokens"] for size in sizes)], 0.08)
    y_scale = padded_scale([*(size["bits"] for size in sizes), *(bits for _, bits in lines)], 0.1)

    def y(bits: float) -> float:
        return CURVE_HEIGHT * (1 - y_scale.share(bits))

    parts = []
    for tick, label in zip(ticks := nice_ticks(y_scale, 6), tick_labels(ticks), strict=True):
        parts.append(Markup('<line class="grid" x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>').format(y(tick)))
        parts.append(
            Markup('<text class="tick" x="0" dx="-8" y="{:.1f}" text-anchor="end">{}</text>').format(y(tick) + 4, label)
        )
    below = -LABEL_HEIGHT
    for name, bits in sorted(lines, key=lambda line: -line[1]):
        height = y(bits)
        below = max(height - 4, below + LABEL_HEIGHT)  # labels of lines that lie close together are set apart
        parts.append(Markup('<line class="rule margin" x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>').format(height))
        parts.append(Markup('<text class="tick" x="100%" y="{:.1f}" text-anchor="end">{}</text>').format(below, name))
    for size in sizes:
        parts.append(
            Markup('<circle class="mark kept" cx="{}" cy="{:.1f}" r="5.5"/>').format(
                x_scale.percent(size["tokens"]), y(size["bits"])
            )
        )
    ticks = [tick for tick in nice_ticks(x_scale) if tick >= 0]
    for tick, label in zip(ticks, tick_labels(ticks), strict=True):
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                x_scale.percent(tick), CURVE_HEIGHT + 18, label
            )
        )
    return Markup('<svg class="plot" height="{}" role="img" aria-label="{}">{}</svg>').format(
        CURVE_HEIGHT + 22, _words(sizes, lines), Markup("").join(parts)
    )


def _words(sizes: Sequence[Mapping[str, Json]], lines: Sequence[tuple[str, float]]) -> str:
    models = ", ".join(f"{size['bits']:.2f} after {size['tokens']:,} tokens" for size in sizes)
    others = ", ".join(f"{name} {bits:.2f}" for name, bits in lines)
    return f"Bits per byte. From random weights: {models}. Level lines: {others}."
