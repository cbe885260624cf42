import math

import numpy as np
import pytest

from metier.evidence.sufficiency.learning_curve import NOISES, Repeats, fit_curves, log_linear

SIZES = (12_500, 25_000, 50_000, 100_000)
ONCE = Repeats((1, 1, 1, 1), (0.0, 0.0, 0.0, 0.0))
DRAWS = 400

FAMILIES = {  # gain by share of the full size, with one parameter that bends it
    "power": lambda x, bend: 1 - (1 + x / bend) ** -0.5,
    "logarithm": lambda x, bend: math.log1p(x / bend),
    "saturation": lambda x, bend: 1 - math.exp(-x / bend),
    "hill": lambda x, bend: x / (bend + x),
}


def fitted(gains, repeats=ONCE, tokens=SIZES, seed=0):
    rows = np.tile(np.asarray(gains), (DRAWS, 1))
    return fit_curves(tokens, rows, repeats, np.random.default_rng(seed))


def simulated(noise, n=30):
    """(family, curve scaled to 1 at the full size, its four measured gains), n of each family."""
    rng = np.random.default_rng(3)
    for name, form in FAMILIES.items():
        for _ in range(n):
            bend = float(np.exp(rng.uniform(math.log(0.1), math.log(1.0))))
            whole = form(1.0, bend)

            def curve(x, form=form, bend=bend, whole=whole):
                return form(x, bend) / whole

            yield name, curve, [curve(size / SIZES[-1]) + noise * rng.standard_normal() for size in SIZES]


def test_every_curve_starts_at_zero_and_never_falls():
    curves = fitted([0.1, 0.15, 0.19, 0.22])
    at = curves.at([0.0, 1.0, *SIZES, 4e5])
    assert np.all(at[:, 0] == 0)
    assert np.all(np.diff(at, axis=1) > -1e-12)


def test_the_drawn_curves_pass_through_what_was_measured():
    gains = np.array([0.1, 0.15, 0.19, 0.22])
    at = fitted(gains).at(SIZES)
    assert np.median(at, axis=0) == pytest.approx(gains, rel=0.03)
    assert at.std(axis=0).max() < NOISES[-1] * gains[-1]


def test_a_level_is_known_no_better_than_its_runs():
    flat = fitted([0.2] * 4).at([SIZES[-1]])[:, 0]  # four runs of one level, each 1 % of it off or more
    assert flat.std() > 0.7 * 0.01 * 0.2 / math.sqrt(4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_curve_of_any_family_is_foretold_at_twice_the_data(family):
    """Growth by the logarithm and saturation are the two ends of the grid; the last value is off by 24 and 8 %."""
    errors = [
        abs(np.median(fitted(gains).at([2 * SIZES[-1]])) - curve(2.0))
        for name, curve, gains in simulated(0.005, n=8)
        if name == family
    ]
    assert np.median(errors) < 0.065


def test_a_hidden_size_lands_in_its_80_percent_interval_about_as_often_as_it_should():
    within, errors, last_values, log_lines = [], [], [], []
    for i, (_, _, gains) in enumerate(simulated(0.01)):
        curves = fitted(gains[:-1], Repeats((1, 1, 1), (0, 0, 0)), SIZES[:-1], seed=i)
        rng = np.random.default_rng(i)
        landed = curves.at([SIZES[-1]])[:, 0] + curves.noises * rng.standard_normal(DRAWS)
        low, middle, high = np.quantile(landed, [0.1, 0.5, 0.9])
        within.append(low <= gains[-1] <= high)
        errors.append(abs(middle - gains[-1]))
        last_values.append(abs(gains[-2] - gains[-1]))
        log_lines.append(abs(log_linear(SIZES[:-1], gains[:-1], SIZES[-1]) - gains[-1]))
    assert 0.7 < np.mean(within) < 0.92
    assert np.median(errors) < 0.6 * np.median(log_lines)
    assert np.median(errors) < 0.4 * np.median(last_values)


def test_seeds_that_agree_sharpen_the_forecast_and_seeds_that_differ_blur_it():
    gains = [0.1, 0.15, 0.19, 0.22]

    def width(squares, counts=(1, 1, 1, 1)):
        at = fitted(gains, Repeats(counts, squares)).at([2 * SIZES[-1]])[:, 0]
        return np.subtract(*np.quantile(at, [0.9, 0.1]))

    alone, agreeing = width((0.0,) * 4), width((1e-8,) * 4, (3,) * 4)
    differing = width((2 * 0.009**2,) * 4, (3,) * 4)  # runs of one size 4 % of the gain apart
    assert agreeing < 0.8 * alone
    assert differing > 1.5 * agreeing


def test_a_size_that_was_repeated_counts_for_more():
    off = [0.1, 0.15, 0.22, 0.22]
    once = np.median(fitted(off).at([SIZES[2]]))
    often = np.median(fitted(off, Repeats((1, 1, 9, 1), (0.0,) * 4)).at([SIZES[2]]))
    assert off[2] - often < 0.6 * (off[2] - once)


def test_each_row_gets_a_curve_of_its_own():
    rows = np.array([[0.1, 0.15, 0.19, 0.22], [0.2, 0.3, 0.38, 0.44]])
    low, high = fit_curves(SIZES, rows, ONCE, np.random.default_rng(0)).at([SIZES[-1]])[:, 0]
    assert high / low == pytest.approx(2, rel=0.15)


def test_a_saturated_curve_has_a_ceiling_and_a_logarithm_has_none():
    flat = fitted([0.2 * (1 - math.exp(-8 * x / SIZES[-1])) for x in SIZES]).ceilings
    endless = fitted([0.1 * math.log1p(20 * x / SIZES[-1]) for x in SIZES]).ceilings
    assert np.quantile(flat, [0.1, 0.9]) == pytest.approx([0.2, 0.2], rel=0.1)
    assert np.median(endless) > 3 * 0.1 * math.log1p(20)


def test_the_log_line_is_exact_on_a_logarithm_and_uses_the_last_three_sizes():
    gains = [5.0, *(math.log(size) for size in SIZES[1:])]
    assert log_linear(SIZES, gains, 2 * SIZES[-1]) == pytest.approx(math.log(2 * SIZES[-1]))
