"""How well the sufficiency panel foretells: the hidden full size, twice and four times the data, and its decision.

Usage:
    python benchmarks/forecasts.py                 simulated curves of six families, whose truth is known
    python benchmarks/forecasts.py RUN [RUN…]      run folders with evidence/trajectory.jsonl: the hidden size alone

Simulated: 60 documents of skewed length whose gains vary by 30 %, sizes 1/8, 1/4, 1/2 and 1, and a run that lands
0.5, 1 or 3 % of the gain off its curve at each size. Errors are medians, in % of the gain at the full size.
"""

import argparse
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metier.evidence.sufficiency.forecast import sufficiency
from metier.runs import read_jsonl

FULL = 100_000
SIZES = (FULL // 8, FULL // 4, FULL // 2, FULL)
NOISES = (0.005, 0.01, 0.03)
N_DOCUMENTS = 60
GAIN = 0.2  # of the base's bits, at the full size
Curve = Callable[[float], float]  # gain by share of the full size, 1 at 1
Rng = np.random.Generator
Row = dict[str, Any]


def anchored(rng: Rng) -> Curve:
    """The form that is fitted, over the range of exponents that data laws have."""
    bend, power = log_uniform(rng, 0.01, 3), rng.uniform(0.1, 1.5)
    return scaled(lambda x: 1 - (1 + x / bend) ** -power)


def offset_power(rng: Rng) -> Curve:
    start, power = log_uniform(rng, 0.002, 0.06), rng.uniform(0.1, 0.8)
    return scaled(lambda x: max(0.0, 1 - (x / start) ** -power))


def flat_then_power(rng: Rng) -> Curve:
    """The rectified law E + B/(D_l + D^b), less its value at zero."""
    half, power = log_uniform(rng, 0.02, 2), rng.uniform(0.5, 1.5)
    return scaled(lambda x: x**power / (half**power + x**power))


def saturating(rng: Rng) -> Curve:
    scale = log_uniform(rng, 0.08, 1.5)
    return scaled(lambda x: 1 - math.exp(-x / scale))


def logarithmic(rng: Rng) -> Curve:
    start = log_uniform(rng, 0.005, 1)
    return scaled(lambda x: math.log1p(x / start))


def two_phases(rng: Rng) -> Curve:
    """The form of the texts within a few steps, their content slowly."""
    form, fast = rng.uniform(0.3, 0.8), log_uniform(rng, 0.01, 0.08)
    bend, power = log_uniform(rng, 0.05, 1), rng.uniform(0.1, 1)
    slow = scaled(lambda x: 1 - (1 + x / bend) ** -power)
    return scaled(lambda x: form * (1 - math.exp(-x / fast)) + (1 - form) * slow(x))


FAMILIES = {
    "anchored": anchored,
    "offset power": offset_power,
    "flat, then power": flat_then_power,
    "saturating": saturating,
    "logarithmic": logarithmic,
    "two phases": two_phases,
}


def log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def scaled(curve: Curve) -> Curve:
    whole = curve(1.0)
    return lambda x: curve(x) / whole


def trajectory(curve: Curve, noise: float, rng: Rng, seeds: int = 1) -> tuple[list[Row], float]:
    """Score records of one run of each size and seed, a document's gain being the curve times a factor of its own; and
    the gain of these documents at the full size without the luck of a run."""
    n_bytes = (rng.lognormal(5.5, 0.6, N_DOCUMENTS) + 20).astype(int)
    nll = math.log(2) * n_bytes * rng.lognormal(0, 0.2, N_DOCUMENTS)
    saved = GAIN * nll * rng.lognormal(0, 0.3, N_DOCUMENTS)
    records = []
    for size in (0, *SIZES):
        for seed in range(seeds if size else 1):
            reached = curve(size / FULL) + noise * rng.standard_normal() if size else 0.0
            left = nll - saved * reached
            records += [
                {"item": str(i), "slice": "field", "document": str(i), "bytes": int(n_bytes[i]), "nll": float(left[i]),
                 "tokens_seen": size, "seed": seed}
                for i in range(N_DOCUMENTS)
            ]  # fmt: skip
    return records, float(saved.sum() / math.log(2) / n_bytes.sum())


def simulated(family: str, noise: float, seeds: int, seed: int) -> Row:
    """One curve, measured, forecast and compared with itself."""
    rng = np.random.default_rng([seed, *family.encode()])
    curve = FAMILIES[family](rng)
    records, full = trajectory(curve, noise, rng, seeds)
    found = sufficiency(records, FULL, FULL)
    row: Row = {"family": family, "noise": noise, "doubling": curve(2.0) - 1, "decision": found["decision"]}
    if found["hidden"]:
        row |= hidden_errors(found["hidden"])
    of_all = GAIN * math.exp((0.2**2 + 0.3**2) / 2)  # `full` of documents without number: the mean of their factors
    for forecast in found["forecast"]:
        times, truth = forecast["times"], curve(forecast["times"])
        # errors as of these documents, coverage as of all there are: the interval holds the luck of the draw too
        row |= {
            f"error {times}": abs(forecast["gain"] / full - truth),
            f"log {times}": abs(log_linear_at(found["sizes"], times) / full - truth),
            f"last {times}": abs(found["sizes"][-1]["gain"] / full - truth),
            f"within {times}": forecast["low"] <= of_all * truth <= forecast["high"],
        }
    return row


def log_linear_at(sizes: Sequence[Mapping[str, float]], times: float) -> float:
    last = sizes[-3:]
    slope, level = np.polyfit(np.log([size["share"] for size in last]), [size["gain"] for size in last], 1)
    return float(level + slope * np.log(times))


def hidden_errors(hidden: Mapping[str, Any]) -> Row:
    return {
        "hidden error": abs(hidden["error_share"]),
        "hidden last": abs(hidden["last_value_error"]),
        "hidden log": abs(hidden["log_linear_error"]),
        "hidden within": hidden["within"],
    }


def measured_runs(paths: Sequence[Path]) -> list[Row]:
    rows = []
    for path in paths:
        found = sufficiency(list(read_jsonl(path / "evidence" / "trajectory.jsonl")), 1, 1)
        shown = {"run": path.name, "sizes": len(found["sizes"]), "documents": found["n_documents"]}
        rows.append(shown | (hidden_errors(found["hidden"]) if found["hidden"] else {"reason": found["reason"]}))
    return rows


def percent(values: Sequence[float], middle: Callable[[Sequence[float]], float] = statistics.median) -> str:
    return f"{100 * middle(values):.1f}" if values else "–"


def column(rows: Sequence[Row], key: str) -> list[float]:
    return [row[key] for row in rows if key in row]


def print_forecasts(rows: Sequence[Row]) -> None:
    heads = (f"{target:>9}:{'error':>6}{'log':>6}{'last':>6}{'in 80 %':>8}" for target in ("hidden", "2x", "4x"))
    print(f"{'noise':7}{'family':17}", *heads, sep="")
    for noise in NOISES:
        for family in (*FAMILIES, "all"):
            part = [row for row in rows if row["noise"] == noise and family in (row["family"], "all")]
            print(f"{100 * noise:4.1f}   {family:17}", *(figures(part, *keys) for keys in COLUMNS), sep="")
    print(f"{'all':24}", *(figures(rows, *keys) for keys in COLUMNS), sep="")


COLUMNS = [
    ("hidden error", "hidden log", "hidden last", "hidden within"),
    *((f"error {times}", f"log {times}", f"last {times}", f"within {times}") for times in (2, 4)),
]


def figures(rows: Sequence[Row], error: str, log: str, last: str, within: str) -> str:
    medians = [percent(column(rows, key)) for key in (error, log, last)]
    return f"{medians[0]:>16}{medians[1]:>6}{medians[2]:>6}{percent(column(rows, within), statistics.mean):>8}"


def print_decisions(rows: Sequence[Row]) -> None:
    print("\ntrue worth of a doubling   curves   more data pays   enough   cannot tell   (% of them)")
    for low, high in ((-1.0, 0.005), (0.005, 0.02), (0.02, 0.05), (0.05, 0.08), (0.08, 0.15), (0.15, 2.0)):
        part = [row["decision"] for row in rows if low <= row["doubling"] < high]
        said = [100 * part.count(name) / max(1, len(part)) for name in ("more_data_pays", "enough", "cannot_tell")]
        print(
            f"{100 * max(low, 0):5.1f} to {100 * high:5.1f} %{len(part):15}{said[0]:17.0f}{said[1]:9.0f}{said[2]:14.0f}"
        )


def print_runs(rows: Sequence[Row]) -> None:
    width = max(len(row["run"]) for row in rows)
    print(f"{'run':{width}}  sizes  documents  error %  log-linear %  last value %  in 80 %")
    for row in rows:
        start = f"{row['run']:{width}}{row['sizes']:7}{row['documents']:11}"
        if "reason" in row:
            print(f"{start}  {row['reason']}")
            continue
        errors = f"{100 * row['hidden error']:9.1f}{100 * row['hidden log']:14.1f}{100 * row['hidden last']:14.1f}"
        print(f"{start}{errors}{'yes' if row['hidden within'] else 'no':>9}")
    medians = [percent(column(rows, key)) for key in ("hidden error", "hidden log", "hidden last")]
    print(f"{'median':{width}}{'':18}{medians[0]:>9}{medians[1]:>14}{medians[2]:>14}", end="")
    print(f"{percent(column(rows, 'hidden within'), statistics.mean):>9}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--curves", type=int, default=100, help="of each family at each noise")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each simulated size")
    asked = parser.parse_args()
    if asked.runs:
        print_runs(measured_runs(asked.runs))
        return
    rows = [
        simulated(family, noise, asked.seeds, seed)
        for noise in NOISES
        for family in FAMILIES
        for seed in range(asked.curves)
    ]
    print_forecasts(rows)
    print_decisions(rows)


if __name__ == "__main__":
    main()
