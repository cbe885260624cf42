"""The pictures of the report."""

import re

import pytest

from metier.report import charts


def positions(svg: str, attribute: str) -> list[float]:
    return [float(value) for value in re.findall(rf'\b{attribute}="([\d.]+)%"', svg)]


def test_ticks_are_few_and_inside_and_round() -> None:
    for low, high in ((0.0, 1.0), (-0.013, 0.0041), (1.58, 2.66), (0.0, 240.0), (99.0, 1e6), (-3e-7, 2e-7)):
        ticks = charts.nice_ticks(charts.Scale(low, high))
        assert 2 <= len(ticks) <= 5
        assert all(low <= tick <= high for tick in ticks)
        assert len(set(charts.tick_labels(ticks))) == len(ticks)


def test_tick_labels_share_their_decimals() -> None:
    assert charts.tick_labels([-0.5, 0.0, 0.5]) == ["−0.5", "0.0", "0.5"]
    assert charts.tick_labels([0.0, 1000.0]) == ["0", "1,000"]


def test_an_interval_lies_where_its_numbers_say() -> None:
    svg = str(charts.interval_row(charts.Scale(0.0, 10.0), 2.0, 5.0, 7.5, "kept", [(1.0, "margin")]))
    assert positions(svg, "x1") == [10.0, 20.0]
    assert positions(svg, "x2") == [10.0, 75.0]
    assert positions(svg, "x") == [50.0]
    assert "arrow" not in svg


def test_what_lies_beyond_the_scale_ends_in_an_arrow_on_its_side() -> None:
    scale = charts.Scale(0.0, 10.0)
    right = str(charts.interval_row(scale, 40.0, 58.0, 70.0, "lost", []))
    left = str(charts.interval_row(scale, -5.0, 2.0, 4.0, "kept", []))
    assert re.findall(r'<svg x="([\d.]+)%" y="50%" overflow="visible"><path class="arrow', right) == ["100.00"]
    assert re.findall(r'<svg x="([\d.]+)%" y="50%" overflow="visible"><path class="arrow', left) == ["0.00"]
    assert "translate(-18.0 0)" in right  # the sign stands beside the arrow


def test_outcomes_differ_in_shape_not_only_in_colour() -> None:
    shapes = {re.sub(r'class="[^"]*"', "", str(charts.glyph(kind))) for kind in ("kept", "lost", "unsure", "none")}
    assert len(shapes) == 4


def test_the_parts_of_a_bar_fill_it_and_narrow_ones_have_no_letter() -> None:
    svg = str(charts.stacked_bar([("A", 0.9, "tone-0"), ("B", 0.03, "tone-1"), ("C", 0.07, "tone-2")], "parts"))
    widths = [float(width) for width in re.findall(r'width="([\d.]+)%"', svg)]
    assert sum(widths) == pytest.approx(100.0)
    assert re.findall(r">([A-Z])</text>", svg) == ["A", "C"]


def test_a_long_run_is_thinned_and_keeps_its_last_step() -> None:
    steps = [float(step) for step in range(1, 5001)]
    losses = [3.0 - step / 5000 for step in steps]
    svg = str(charts.curve(steps, losses, losses, "loss"))
    assert svg.count("<circle") <= charts.MOST_POINTS
    points = re.findall(r'points="([^"]*)"', svg)[0].split()
    assert len(points) <= charts.MOST_POINTS + 1
    assert max(float(point.split(",")[0]) for point in points) == pytest.approx(
        1000 * (5000 + 49.99 - 1 + 49.99 - 49.99) / (4999 + 99.98), abs=1
    )
    assert len(svg) < 60_000


def test_one_wild_step_does_not_flatten_the_rest() -> None:
    steps = [float(step) for step in range(200)]
    losses = [2.0 + 0.001 * step for step in steps]
    wild = [*losses[:100], 900.0, *losses[101:]]
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', str(charts.curve(steps, wild, losses, "loss")))]
    assert max(heights) - min(heights) > charts.CURVE_HEIGHT / 2
    assert min(heights) == 0.0


def test_a_run_of_one_step_has_a_picture() -> None:
    assert "<circle" in charts.curve([1.0], [2.0], [2.0], "loss")
    assert "<polyline" in charts.rate_curve([1.0], [0.0], "rate")


def test_descriptions_and_labels_are_escaped() -> None:
    svg = str(charts.stacked_bar([("<", 1.0, "tone-0")], '"><script>'))
    assert "<script>" not in svg
    assert ">&lt;</text>" in svg
