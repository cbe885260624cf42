"""The commands that look at data before any training: read and check."""

import sys
from typing import Annotated, Any

import typer

from metier.cli.options import AsJson, Data, Password, SkipBadRows, takes
from metier.cli.terminal import complain, progress, table, write, write_json

ByModel = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME",
        help="let this base model read 64 rows: how it sees them, which surprise it, whose questions do not help",
        show_default=False,
    ),
]
Files = Annotated[list[str], typer.Argument(metavar="FILE", help="files, folders or pack:NAME", show_default=False)]


@takes(row_fields=True)
def read(files: Files, fields: dict[str, str], skip_bad_rows: SkipBadRows = False, password: Password = "") -> None:
    """Print the clean text that would be learned, conversations as turns of 'user:' and 'assistant:'."""
    from metier.sources.read import ReadOptions, read_corpus
    from metier.sources.shown import as_text, left_out_files

    with progress("") as shown:
        corpus = read_corpus(files, ReadOptions(fields, skip_bad_rows, password=password), shown)
    several = len(corpus.examples) > 1
    for number, example in enumerate(corpus.examples):
        heading = f"==> {example.id} <==\n" if several else ""
        sys.stdout.write(("\n" if number else "") + heading + as_text(example) + "\n")
    sys.stdout.flush()
    if unread := left_out_files(corpus.files):
        complain(f"of {len(corpus.files)} files, {unread}.")
    left_out = {name: n for name, n in corpus.ledger.rows_by_bucket().items() if n and name != "read"}
    if left_out:
        complain("left out " + ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in left_out.items()) + ".")


@takes(settings=("held_out", "seed", "privacy", "benchmark"), row_fields=True)
def check(
    data: Data,
    settings: dict[str, Any],
    fields: dict[str, str],
    password: Password = "",
    model: ByModel = "",
    as_json: AsJson = False,
) -> None:
    """Say what is in the data, what is wrong with it, and what it could prove; no model is loaded unless named."""
    from metier.check import check as check_it

    with progress("") as shown:
        found = check_it(*data, fields=fields, password=password, model=model, progress=shown, **settings)
    if as_json:
        write_json(found)
    else:
        write(found["sentence"] + "\n")
        for part in (_warnings(found), _counts(found), *_formats(found), *_as_seen(found), _files(found)):
            write(part + "\n")


def _files(found: dict[str, Any]) -> str:
    rows = [(f["path"], f["status"], f"{f['rows']:,}", f"{f['text_bytes']:,}", f["reason"]) for f in found["files"]]
    more = [(f"… and {len(rows) - 20} more", "", "", "", "")] if len(rows) > 20 else []
    return table(("file", "status", "rows", "bytes", ""), rows[:20] + more)


def _formats(found: dict[str, Any]) -> list[str]:
    return ["\n".join([one["found"], *(f"    {line}" for line in one["shown"])]) for one in found["formats"]]


def _as_seen(found: dict[str, Any]) -> list[str]:
    read = found.get("read")
    return (
        [f"as {read['model']} sees it, what is learned between « and »:\n{row}" for row in read["shown"]]
        if read
        else []
    )


def _counts(found: dict[str, Any]) -> str:
    rows, documents, tokens, power = found["rows"], found["documents"], found["tokens"], found["power"]
    share = documents["largest_share"]
    largest = f"{share:.0%}" if share >= 0.01 else "under 1%"
    names = ("duplicate", "near_duplicate", "private", "too_short", "rejected")
    left_out = ", ".join(f"{rows[name]:,} {name.replace('_', ' ')}" for name in names if rows[name])
    smallest = f"; they could show a gain of about {power['detectable']:.0%} or more" if power["detectable"] else ""
    words = ", ".join(term["term"] for term in found["jargon"][:12])
    return "\n".join(
        (
            f"rows       {rows['total']:,}: {found['examples']:,} to learn from; left out: {left_out or 'none'}",
            f"documents  {documents['total']:,}; the largest holds {largest} of the text",
            f"tokens     about {tokens['learned']:,} learned and {tokens['prompt']:,} read as questions "
            f"({tokens['characters_per_token']} characters each)",
            f"held out   {power['held_out']:,} {power['unit']}s, {power['test']:,} of them for the verdict, "
            f"which needs {power['needed']}{smallest}",
            f"language   {found['language']['main'] or 'too little text to tell'}",
            f"jargon     {words or 'none found'}",
        )
    )


def _warnings(found: dict[str, Any]) -> str:
    rows = [(w["severity"], w["problem"], w["remedy"]) for w in found["warnings"]]
    return table(("", "what is wrong", "what to do"), rows) if rows else "nothing wrong was found"
