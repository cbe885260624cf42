"""Is the dial's choice right? Synthetic documents whose true gain and forgetting at every strength are known.

    python benchmarks/dial_simulation.py --runs 200

One row a truth and a number of documents, as many of the field as of general text and of requests. Documents differ in
their gain (by a third of it), in the strength that suits them best, and in what they lose (by 0.6 % of their bits).
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.evidence.dial.choose import choose_dial
from metier.evidence.dial.confirm import leave_one_out
from metier.evidence.retention import CHAT_MARGIN, OWN_ANSWERS_MARGIN
from metier.sources.general import REGISTERS

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25)
BUDGET = 0.01
STEP = 100
UNSMOOTH = 0.0005  # of the bits: what no smooth curve over the strengths explains
BITS = 1.0  # bits per byte of the field before, on average


@dataclass(frozen=True)
class Truth:
    """Shares of the base's bits at strength a: the field saves g a - h a² / 2, general text loses k a²; requests lose
    half of that share, and the base's own answers `own` a² bits per byte."""

    g: float = 0.4
    h: float = 0.4
    k: float = 0.002
    own: float = 0.01
    spread: float = 1.0  # of the documents, times the usual

    def gain(self, a: Any) -> Any:
        """At a strength, or at an array of them."""
        return self.g * a - self.h * a * a / 2

    def in_budget(self, a: float) -> bool:
        text, own = self.k * a * a, self.own * a * a
        return text <= BUDGET and text / 2 <= CHAT_MARGIN and own <= OWN_ANSWERS_MARGIN

    def best(self) -> float:
        """The strength of the largest gain within the budget, up to the largest measured."""
        allowed = [a for a in np.arange(0.01, max(STRENGTHS) + 1e-9, 0.01) if self.in_budget(a)]
        return float(max(allowed, key=self.gain))


TRUTHS = {
    "healthy: best at 1, little lost": Truth(),
    "text binds: budget at 0.71": Truth(k=0.02),
    "own answers bind: budget at 0.54": Truth(own=0.17),
    "overshot: best at 0.7": Truth(h=0.4 / 0.7),
    "too poor: budget at 0.35": Truth(k=0.08),
    "no gain": Truth(g=0.0, h=0.0),
}


def documents(
    truth: Truth, n: int, seed: int, strengths: Sequence[float] = STRENGTHS, step: int = STEP
) -> list[dict[str, Any]]:
    """The records of evidence/dial.jsonl, n documents each of the field, of general text and of requests.

    The same seed gives the same documents whatever the strengths and the step.
    """
    random, unsmooth = np.random.default_rng(seed), np.random.default_rng([seed, step])
    alphas = np.array([0.0, *strengths])
    records: list[dict[str, Any]] = []

    def add(item: str, name: str, bits: float, shares: NDArray[np.float64]) -> None:
        n_bytes = int(random.integers(400, 2400))
        own_bits = bits * _around_one(random, 0.2)
        shares = shares + unsmooth.normal(0, UNSMOOTH, len(alphas)) * (alphas > 0)
        for alpha, share in zip(alphas.tolist(), shares.tolist(), strict=True):
            text = {
                "item": item,
                "slice": name,
                "document": item,
                "group": "",
                "bytes": n_bytes,
                "tokens": n_bytes // 4,
            }
            nll = math.log(2) * n_bytes * own_bits * (1 + share)
            records.append({**text, "nll": nll, "step": step, "alpha": alpha})

    def losses(k: float) -> NDArray[np.float64]:
        first, second = random.normal(0, [0.006, 0.004]) * truth.spread
        return k * _around_one(random, 0.3) * alphas**2 + first * alphas + second * alphas**2

    for i in range(n):
        slope, bend = random.normal(0, [0.04, 0.04]) * truth.spread
        gains = truth.gain(alphas) * _around_one(random, 0.33 * truth.spread) + slope * alphas + bend * alphas**2
        add(f"field-{i}", "field", BITS, -gains)
        add(f"text-{i}", f"text/{REGISTERS[i % len(REGISTERS)]}", 1.2, losses(truth.k))
        add(f"request-{i}", "chat/good answers", 0.6, losses(truth.k / 2))
        add(f"own-{i}", "chat/own answers", 0.3, losses(truth.own / 0.3))
    return records


def _around_one(random: np.random.Generator, sd: float) -> float:
    """Log-normal, of mean 1."""
    return random.lognormal(0, sd) / math.exp(sd * sd / 2)


@dataclass(frozen=True)
class Run:
    """One simulated choice against the truth."""

    chosen: float
    decided: bool
    broke: bool  # the budget, in truth
    kept: float  # of the best gain that the budget allows in truth
    foretold: tuple[bool, ...]  # hidden strengths measured within their bands
    held: tuple[bool, ...]  # true gains at untried strengths within the bands of the curve


def simulate(truth: Truth, n: int, seed: int) -> Run:
    records = documents(truth, n, seed)
    dial = choose_dial(records, BUDGET)
    best = truth.gain(truth.best())
    untried = [row for row in dial["curve"] if not row["measured"]]
    return Run(
        dial["chosen"],
        dial["decided"],
        not truth.in_budget(dial["chosen"]),
        truth.gain(dial["chosen"]) / best if best > 0 else math.nan,
        tuple(row["within"] for row in leave_one_out(records)),
        tuple(row["gain_low"] <= truth.gain(row["alpha"]) * BITS <= row["gain_high"] for row in untried),
    )


def share(values: Sequence[bool]) -> str:
    return f"{100 * np.mean(values):.0f} %" if len(values) else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="simulated sets a row")
    runs_asked = parser.parse_args().runs
    heads = ["truth", "documents", "decided", "median strength", "90 % of the best gain kept", "under 0.7"]
    heads += ["budget broken", "hidden strength in band", "truth in band"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for name, truth in TRUTHS.items():
        for n in (20, 60, 200):
            runs = [simulate(truth, n, seed) for seed in range(runs_asked)]
            cells = [
                name,
                str(n),
                share([run.decided for run in runs]),
                f"{np.median([run.chosen for run in runs]):.2f}",
                share([run.kept >= 0.9 for run in runs]) if truth.g else "–",
                share([run.chosen < 0.7 for run in runs]),
                share([run.broke for run in runs if run.decided]),
                share([within for run in runs for within in run.foretold]),
                share([held for run in runs for held in run.held]),
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
