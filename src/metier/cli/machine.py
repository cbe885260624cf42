"""The command that measures this machine."""

from typing import Annotated, Any

import typer

from metier.cli.options import DATA_HELP, AsJson, takes
from metier.cli.terminal import clock, progress, table, write, write_json

BenchData = Annotated[
    list[str] | None, typer.Argument(metavar="DATA", help=f"{DATA_HELP}; pack:clinical without it", show_default=False)
]
Rows = Annotated[int | None, typer.Option(min=1, help="rows that are trained and scored; a quick look without it")]


@takes(settings=("model", "threads"), row_fields=True)
def bench(
    settings: dict[str, Any],
    fields: dict[str, str],
    data: BenchData = None,
    rows: Rows = None,
    as_json: AsJson = False,
) -> None:
    """Measure how fast this machine trains and scores, and say what that means in minutes."""
    from metier.bench import bench as measure

    given: dict[str, Any] = {"data": data} if data else {}
    given |= {"rows": rows} if rows else {}
    with progress() as shown:
        found = measure(**given, **settings, fields=fields, progress=shown)
    if as_json:
        write_json(found)
        return
    write(f"{found['model']}, {found['rows']} rows, matrix products up to {found['limit_gflops']:.0f} GFLOP/s\n")
    write(table(("", "examples/s", "tokens/s", "learned tokens/s", "of the limit", "memory"), _rates(found)))
    write("\n" + _minutes(found["your_data"]))
    write("\nOther sizes, estimated from this rate and the operations of a token:\n")
    write(table(("model", "tokens/s", "minutes for 100k tokens", "memory"), _sizes(found)))


def _rates(found: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            f"{part['examples_per_s']:.2f}",
            f"{part['tokens_per_s']:.0f}",
            f"{part['supervised_tokens_per_s']:.0f}",
            f"{part['share_of_limit']:.0%}",
            f"{part['peak_rss_bytes'] / 1e9:.2f} GB",
        )
        for name, part in (("training", found["training"]), ("scoring", found["scoring"]))
    ]


def _sizes(found: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            row["size"],
            f"{row['train_tokens_per_s']:,.1f}",
            f"{row['minutes_per_100k_tokens']:,.0f}",
            f"{row['memory_bytes'] / 1e9:.1f} GB",
        )
        for row in found["models"]
    ]


def _minutes(data: dict[str, Any]) -> str:
    """What the rates mean for all of the data."""
    train, score, least, most = map(clock, (data["train_epoch_s"], data["score_s"], *data["quick_evidence_s"]))
    return (
        f"Your {data['examples']:,} examples: {train} (min:s) to train on all of them once, {score} to score them "
        f"once, {least} to {most} for the quick evidence of a run."
    )
