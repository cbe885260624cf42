"""Would another seed have said the same? How far the gains of runs lie apart that differ in their seed alone."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

from scipy import stats

from metier.errors import DataError
from metier.evidence.statistics import ERROR, detectable

FEW_SEEDS = 3  # below it a standard deviation is hardly known
METHOD = (
    "Standard deviation of the gain over seeds, all runs measured on the same held-out documents. Two single runs "
    "differ by √2 standard deviations of chance; a difference is found with 80 % power at 5 % from (t.975 + t.80) "
    "times that, t with one degree of freedom less than there are seeds (2.8 for many)."
)


def stability(gains_by_seed: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The `stability` of results.json, from the `gain` of each seed's run; all in bits per byte.

    `smallest_difference` is what two single runs, measured on the same held-out documents, must differ by to mean
    anything: (t.975 + t.80) sqrt(2) SD, the paired form of the sample size formula of Miller, "Adding Error Bars to
    Evals" (arXiv 2411.00640), solved for the difference, with t in place of z because the SD comes from a few seeds.
    `smallest_difference_elsewhere` is for runs measured on different documents of the field: the luck of the documents,
    the gain's own `detectable`, adds to that of the seed, sqrt(2) sqrt((t.975 + t.80)² SD² + detectable²).
    Both, and the SD, are None for one seed or seeds that change nothing.

    Raises:
        DataError: no run, or runs that were not measured on the same documents.
    """
    if not gains_by_seed:
        raise DataError("There is no run to compare seeds of: measure at least one.")
    _require_same_documents(gains_by_seed)
    runs = [gains_by_seed[seed] for seed in sorted(gains_by_seed)]
    gains = [float(run["diff"]) for run in runs]
    n = len(gains)
    sd = statistics.stdev(gains) if n > 1 and len(set(gains)) > 1 else None
    found: dict[str, Any] = {
        "unit": "bits per byte",
        "n_seeds": n,
        "n_documents": runs[0]["n_documents"],
        "base": runs[0]["base"],
        "mean": statistics.fmean(gains),
        "sd": sd,
        "sd_low": None,
        "sd_high": None,
        "smallest_difference": None,
        "smallest_difference_elsewhere": None,
        "runs": [
            {"seed": seed, "gain": gains_by_seed[seed]["diff"], **_interval(gains_by_seed[seed])}
            for seed in sorted(gains_by_seed)
        ],
    }
    if sd is not None:
        same = detectable(math.sqrt(2) * sd, n - 1)
        found |= {
            "sd_low": sd * math.sqrt((n - 1) / stats.chi2.ppf(1 - ERROR / 2, n - 1)),
            "sd_high": sd * math.sqrt((n - 1) / stats.chi2.ppf(ERROR / 2, n - 1)),
            "smallest_difference": same,
            "smallest_difference_elsewhere": _elsewhere(same, [run["detectable"] for run in runs]),
        }
    return {**found, "sentence": _sentence(found), "method": METHOD}


def _require_same_documents(gains_by_seed: Mapping[int, Mapping[str, Any]]) -> None:
    (first, one), *others = sorted(gains_by_seed.items())
    for seed, other in others:
        same_base = math.isclose(one["base"], other["base"], rel_tol=1e-4)  # the base's own rounding between machines
        if not same_base or one["n_documents"] != other["n_documents"]:
            raise DataError(
                f"The runs of seeds {first} and {seed} were not measured on the same documents (the base needs "
                f"{one['base']:.4f} and {other['base']:.4f} bits per byte of them): score both on one held-out set."
            )


def _interval(gain: Mapping[str, Any]) -> dict[str, Any]:
    return {"ci_low": gain["ci_low"], "ci_high": gain["ci_high"]}


def _elsewhere(same: float, of_documents: list[float | None]) -> float | None:
    known = [smallest for smallest in of_documents if smallest is not None]
    if len(known) < len(of_documents):
        return None
    return math.hypot(same, math.sqrt(2 * statistics.fmean(smallest**2 for smallest in known)))


def _sentence(found: Mapping[str, Any]) -> str:
    n, base = found["n_seeds"], found["base"]
    if n == 1:
        return (
            "Cannot tell. One run was made, so how far another seed would have landed is not known: "
            f"run {FEW_SEEDS} seeds or more."
        )
    gains = [run["gain"] / base for run in found["runs"]]
    if found["sd"] is None:
        return (
            f"Cannot tell. The {n} runs gained exactly the same ({100 * gains[0]:.1f} % of the base's bits): "
            "see that their seeds differ."
        )
    few = f" {n} seeds say little of that; run {FEW_SEEDS} or more." if n < FEW_SEEDS else ""
    smallest = 100 * found["smallest_difference"] / base
    return (
        f"{n} runs that differ in their seed alone saved {100 * min(gains):.1f} to {100 * max(gains):.1f} % of the "
        f"base's bits (standard deviation {100 * found['sd'] / base:.2f} points). Between two single runs measured on "
        f"these {found['n_documents']:,} documents, a difference under {smallest:.1f} points means nothing.{few}"
    )
