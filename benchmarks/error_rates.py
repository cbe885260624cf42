"""How often are the claims wrong? From the stored scores of finished runs, without a model.

Each run's held-out documents (and the texts of its general pack) are taken as a population whose truth is known. From
it N documents are drawn, again and again (texts: as many of each register), and each time the intervals are made as a
run makes them:

    covered   the 95 % interval of the gain holds the gain of all documents, as it should in 92 to 98 % of draws
    false     base and adapted of each document change places at random, so that nothing was gained on average:
              how often the interval still lies above zero (2.5 % is meant), or the loss is called sure (under 4 %,
              what a run allows all registers together)
    power     every change is scaled so that the population's gain is 3 % of the base's bits (its loss, of general
              text, 2 %): how often the gain is shown, and how often that text is not passed as kept; with --as-made
              no change is scaled: the runs are those of benchmarks/small_changes.py, which changed that much

Beside it the rule that is used without statistics: 'forgot' when accuracy falls by over 5 points on 26 questions.

Usage:
    python benchmarks/error_rates.py RUN [RUN ...] [--draws 1000] [--documents 20 40 100] [--as-made]
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from metier.evidence.gain import FIELD_SLICE
from metier.evidence.retention import ALL_TEXT_SHARE, TEXT_MARGIN, choice_probabilities
from metier.evidence.statistics import ERROR, Estimate, bits_difference, bits_per_byte, relative_difference
from metier.runs import RunFolder, read_jsonl

Record = dict[str, Any]
Pair = tuple[Record, Record]
TRUE_GAIN, TRUE_LOSS = 0.03, 0.02  # of the base's bits
QUESTIONS, POINTS = 26, 0.05


def population(run: RunFolder, wanted: Callable[[str], bool]) -> dict[str, list[Pair]]:
    """{document: its pairs of records, base and adapted} of the slices that are wanted."""
    arms = [list(read_jsonl(run.evidence / f"scores-{arm}.jsonl")) for arm in ("base", "adapted")]
    found: dict[str, list[Pair]] = defaultdict(list)
    for base, adapted in zip(*arms, strict=True):
        if wanted(base["slice"]):
            found[base["document"]].append((base, adapted))
    return dict(found)


def scaled(documents: dict[str, list[Pair]], share: float) -> dict[str, list[Pair]]:
    """Every change multiplied so that the bits of all fall by this share (rise, where it is negative)."""
    base, adapted = (sum(p[arm]["nll"] for pairs in documents.values() for p in pairs) for arm in (0, 1))
    factor = share * base / (base - adapted)
    return {
        name: [(b, {**a, "nll": b["nll"] - factor * (b["nll"] - a["nll"])}) for b, a in pairs]
        for name, pairs in documents.items()
    }


def draws(
    documents: dict[str, list[Pair]], n: int, times: int, swap: bool = False, by_kind: bool = False
) -> Iterator[list[Pair]]:
    """n documents with replacement, each drawn one a document of its own; swap: arms change places at random. by_kind:
    each kind in turn."""
    of_kind = defaultdict(list)
    for name, pairs in sorted(documents.items()):
        of_kind[pairs[0][0]["group"] if by_kind else ""].append(name)
    kinds, generator = list(of_kind.values()), random.Random(f"{n}/{swap}")
    for _ in range(times):
        drawn: list[Pair] = []
        for k in range(n):
            turned = swap and generator.random() < 0.5
            for base, adapted in documents[generator.choice(kinds[k % len(kinds)])]:
                pair = ({**base, "document": str(k)}, {**adapted, "document": str(k)})
                nats = (adapted["nll"], base["nll"]) if turned else (base["nll"], adapted["nll"])
                drawn.append(({**pair[0], "nll": nats[0]}, {**pair[1], "nll": nats[1]}))
        yield drawn


def share_of(samples: Iterator[list[Pair]], holds: Callable[[list[Pair]], bool]) -> float:
    found = [holds(sample) for sample in samples]
    return sum(found) / len(found)


def gain_row(documents: dict[str, list[Pair]], small: dict[str, list[Pair]], n: int, times: int) -> list[str]:
    """small: the same documents with a gain of 3 %."""
    truth = relative_difference([p for pairs in documents.values() for p in pairs]).value

    def covers(sample: list[Pair]) -> bool:
        low, high = relative_difference(sample).interval or (1.0, 0.0)
        return low <= truth <= high

    def shown(sample: list[Pair]) -> bool:
        interval = relative_difference(sample).interval
        return interval is not None and interval[0] > 0

    return [
        f"{share_of(draws(documents, n, times), covers):.1%}",
        f"{share_of(draws(documents, n, times, swap=True), shown):.1%}",
        f"{share_of(draws(small, n, times), shown):.1%}",
    ]


def text_row(documents: dict[str, list[Pair]], lossy: dict[str, list[Pair]], n: int, times: int) -> list[str]:
    """The same of general text: loss as a run judges that of all registers, at the margin of 1 %. lossy: with a loss of
    2 %."""

    def loss(sample: list[Pair]) -> tuple[Estimate, float]:
        estimate = bits_difference([(adapted, base) for base, adapted in sample], by_kind=True)
        return estimate, TEXT_MARGIN * bits_per_byte(base for base, _ in sample)

    def sure(sample: list[Pair]) -> bool:
        estimate, margin = loss(sample)
        lower = estimate.lower(ERROR * ALL_TEXT_SHARE)
        return lower is not None and lower > margin

    def passed(sample: list[Pair]) -> bool:
        estimate, margin = loss(sample)
        upper = estimate.upper()
        return upper is not None and upper <= margin

    truth = bits_difference([(a, b) for pairs in lossy.values() for b, a in pairs]).value

    def covers(sample: list[Pair]) -> bool:
        low, high = loss(sample)[0].interval or (1.0, 0.0)
        return low <= truth <= high

    return [
        f"{share_of(draws(lossy, n, times, by_kind=True), covers):.1%} | |",
        f"{share_of(draws(documents, n, times, swap=True, by_kind=True), sure):.1%}",
        f"{share_of(draws(lossy, n, times, by_kind=True), sure):.1%}",
        f"{1 - share_of(draws(lossy, n, times, by_kind=True), passed):.1%}",
        f"{share_of(draws(documents, n, times, swap=True, by_kind=True), passed):.1%}",
    ]


def raw_rule(run: RunFolder, times: int) -> tuple[float, float] | None:
    """(false, power) of the raw rule: with right and wrong of base and adapted changing places, and with one right
    answer in fifty lost. None where too few questions were asked."""
    files = [run.evidence / f"choices-{arm}.jsonl" for arm in ("base", "adapted")]
    arms = [list(read_jsonl(file)) if file.exists() else [] for file in files]
    right = [[_is_right(base), _is_right(adapted)] for base, adapted in zip(*arms, strict=True)]
    if len(right) < QUESTIONS:
        return None
    generator, false, power = random.Random(0), 0, 0
    for _ in range(times):
        drawn = [generator.choice(right) for _ in range(QUESTIONS)]
        turned = [pair[::-1] if generator.random() < 0.5 else pair for pair in drawn]
        lost = [(base, base and generator.random() >= TRUE_LOSS) for base, _ in drawn]
        false += _drop(turned) > POINTS
        power += _drop(lost) > POINTS
    return false / times, power / times


def _is_right(record: Record) -> bool:
    found = choice_probabilities(record)
    return bool(found.index(max(found)) == record["label"])


def _drop(pairs: Sequence[Sequence[bool]]) -> float:
    return sum(base - adapted for base, adapted in pairs) / len(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--documents", type=int, nargs="+", default=[20, 40, 100])
    parser.add_argument("--as-made", action="store_true")
    args = parser.parse_args()
    print("| run | of | documents | drawn | covered | false gain | gain of 3 % shown | called lost | ", end="")
    print("loss of 2 % called lost | not passed | passed, nothing lost |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for folder in args.runs:
        run = RunFolder(Path(folder))
        field = population(run, lambda name: name == FIELD_SLICE)
        texts = population(run, lambda name: name.startswith("text/"))
        for n in args.documents if field else ():
            small = field if args.as_made else scaled(field, TRUE_GAIN)
            cells = " | ".join(gain_row(field, small, n, args.draws))
            print(f"| {folder} | field | {len(field)} | {n} | {cells} | | | | |", flush=True)
        for n in args.documents if texts else ():
            lossy = texts if args.as_made else scaled(texts, -TRUE_LOSS)
            cells = " | ".join(text_row(texts, lossy, n, args.draws))
            print(f"| {folder} | general text | {len(texts)} | {n} | {cells} |", flush=True)
        if rates := raw_rule(run, args.draws):
            print(f"| {folder} | {QUESTIONS} questions, raw rule | | | | | | {rates[0]:.1%} | {rates[1]:.1%} | | |")


if __name__ == "__main__":
    main()
