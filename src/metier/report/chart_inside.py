"""The picture of what changed inside: bars by layer."""

from collections.abc import Sequence

from markupsafe import Markup

BAR = 6  # pixels thick
ROOM = 8  # from one bar of a row to the next


def bars(parts: Sequence[tuple[float, str]], largest: float) -> Markup:
    """The bars of one row, under each other.

    parts: (value >= 0, class).  largest: the value that fills the width; positive.
    """
    drawn = [
        Markup('<rect class="part {}" x="0" y="{}" width="{:.2f}%" height="{}"/>').format(
            css_class, 2 + i * ROOM, 100 * min(1.0, value / largest), BAR
        )
        for i, (value, css_class) in enumerate(parts)
    ]
    height = 4 + len(parts) * ROOM
    return Markup('<svg class="layerbars" width="100%" height="{}" aria-hidden="true">{}</svg>').format(
        height, Markup("").join(drawn)
    )
