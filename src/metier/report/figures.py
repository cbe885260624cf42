"""Numbers as a reader meets them: rounded once, with their unit, and a dash where nothing was measured."""

import math
from collections.abc import Iterable

MISSING = "–"
MINUS = "−"
SPACE = "\N{NO-BREAK SPACE}"  # a number and its unit stay on one line


def fixed(value: float | None, places: int = 3, signed: bool = False) -> str:
    """1.07 -> "1.070"; a true minus sign, and a plus when `signed`."""
    if value is None:
        return MISSING
    rounded = round(value, places) + 0.0  # -0.0 + 0.0 is 0.0: no "−0.000" in a table
    text = f"{abs(rounded):,.{places}f}"
    if rounded < 0:
        return MINUS + text
    return "+" + text if signed and rounded > 0 else text


def count(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"


def counted(value: float | None, noun: str) -> str:
    """1, "document" -> "1 document"; 120, "reply" -> "120 replies"."""
    if value == 1:
        return f"1{SPACE}{noun}"
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count(value)}{SPACE}{plural}"


def percent_places(values: Iterable[float | None]) -> int:
    """Decimals that show the largest of these shares to two digits or more."""
    largest = max((abs(value) for value in values if value is not None), default=1.0)
    return 0 if largest >= 0.1 else 1 if largest >= 0.01 else 2


def percent(share: float | None, places: int | None = None) -> str:
    """0.251 -> "25 %", 0.0213 -> "2.1 %", 0.02 -> "2 %"; or with as many decimals as asked for."""
    if share is None:
        return MISSING
    if places is None:
        return fixed(share * 100, percent_places([share])).removesuffix(".00").removesuffix(".0") + SPACE + "%"
    return fixed(share * 100, places) + SPACE + "%"


def percent_interval(low: float, high: float, places: int) -> str:
    return f"{fixed(low * 100, places)} to {fixed(high * 100, places)}{SPACE}%"


def interval(low: float | None, high: float | None, places: int = 3) -> str:
    return MISSING if low is None or high is None else f"{fixed(low, places)} to {fixed(high, places)}"


def places_for(step: float | None) -> int:
    """Decimals that show a quantity of this size to two digits; between 3 and 6."""
    if not step:
        return 3
    return min(6, max(3, 1 - math.floor(math.log10(abs(step)))))


def size(n_bytes: float | None) -> str:
    """Decimal units: 1,500 bytes is 1.5 kB."""
    if n_bytes is None:
        return MISSING
    if n_bytes < 1000:
        return f"1{SPACE}byte" if n_bytes == 1 else f"{n_bytes:.0f}{SPACE}bytes"
    for unit, scale in (("kB", 1e3), ("MB", 1e6)):
        if n_bytes < 999.5 * scale:  # 999.6 kB would be written 1e+03 kB
            return f"{n_bytes / scale:.3g}{SPACE}{unit}"
    return f"{n_bytes / 1e9:,.2f}{SPACE}GB"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f}{SPACE}s" if seconds < 10 else f"{seconds:.0f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours}{SPACE}h {minutes_left}{SPACE}min"
    return f"{minutes}{SPACE}min {rest}{SPACE}s"


def parameters(value: float | None) -> str:
    """134,515,008 -> "134.5 million"."""
    if value is None:
        return MISSING
    for name, scale in (("billion", 1e9), ("million", 1e6)):
        if value >= scale:
            return f"{value / scale:.1f}{SPACE}{name}"
    return f"{value:,.0f}"


def listed(names: list[str], most: int = 4) -> str:
    """ "a, b and c"; a long list is cut, and says how much was cut."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
