"""Short runs of several fields and seeds whose way is measured, for `benchmarks/forecasts.py RUN …`: the select half is
read well, everything else hardly. A run that is there is not made again.

Usage:
    python benchmarks/trajectories.py DATA [DATA …] [--seeds 3] [--tokens 24000] [--items 100]
        [--out runs/trajectories]
"""

import argparse
from pathlib import Path

from metier import adapt
from metier.cli.terminal import progress
from metier.training import evidence_plan


def evidence(items: int) -> evidence_plan.EvidencePlan:
    choosing = evidence_plan.Choosing(items, 12, 4, (1.0,))
    return evidence_plan.EvidencePlan(field_items=12, texts=6, requests=2, choices=2, choosing=choosing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=24_000)
    parser.add_argument("--items", type=int, default=100, help="of the select half")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", default="runs/trajectories")
    args = parser.parse_args()
    evidence_plan.SMALLEST = evidence_plan.SURER = evidence_plan.LARGEST_QUICK = evidence(args.items)
    for seed in range(args.seeds):
        for data in args.data:
            out = Path(args.out) / f"{Path(data.removeprefix('pack:')).stem}-{seed}"
            if (out / "results.json").exists():
                continue
            with progress() as shown:
                options = {"tokens": args.tokens, "minutes": 60, "seed": seed, "lr": 1e-3, "threads": args.threads}
                adapt(data, out=out, progress=shown, **options)


if __name__ == "__main__":
    main()
