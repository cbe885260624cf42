"""The panel on the field's terms: learned beyond the register, or not."""

from collections.abc import Mapping, Sequence

from metier.report import charts, figures
from metier.report.outcome import Row
from metier.runs import Json

WORDS = {
    "learned": ("Learned", "kept"),
    "register_only": ("Register only", "none"),
    "no": ("Not learned", "lost"),
    "cannot_tell": ("Cannot tell", "unsure"),
}
PLACES = 3
MOST_DEFINITIONS = 12
WEAK_CORRELATION = 0.05  # p, above which none is claimed


def jargon_panel(part: Mapping[str, Json] | None) -> dict[str, Json] | None:
    """part: the `jargon` of results.json, with `definitions` ([{term, base, adapted}]) where both models gave some and
    `cloze` and `definition_choice` (jargon.items.choice_accuracy) where they were asked."""
    if not part or part.get("decision") not in WORDS:
        return None
    word, sign = WORDS[part["decision"]]
    definitions: Sequence[Mapping[str, Json]] = part.get("definitions") or []
    return {
        "sentence": part["sentence"],
        "word": word,
        "glyph": charts.glyph(sign),
        "figure": _figure(part),
        "chart": _chart(part),
        "apart": _seen_sentence(part),
        "choices": [
            f"{name}: {asked['sentence']}"
            for key, name in (("cloze", "Which term stands here"), ("definition_choice", "Which definition is whose"))
            if (asked := part.get(key))
        ],
        "pieces": _pieces_sentence(part.get("pieces")),
        "best": [_term_cells(row) for row in part.get("best") or []],
        "worst": [_term_cells(row) for row in part.get("worst") or []],
        "balance": [_balance_cells(row) for row in part.get("balance") or []],
        "by_base": _by_base(part),
        "own": figures.percent(part.get("same_document")),
        "definitions": [
            [str(one.get(key) or figures.MISSING) for key in ("term", "base", "adapted")]
            for one in definitions[:MOST_DEFINITIONS]
        ],
        "method": part.get("method"),
        "teach": _teach(part),
    }


def _figure(part: Mapping[str, Json]) -> dict[str, str] | None:
    beyond = part.get("beyond")
    if not beyond:
        return None
    return {
        "value": figures.fixed(beyond["value"], PLACES, signed=True),
        "interval": figures.interval(beyond.get("ci_low"), beyond.get("ci_high"), PLACES),
        "share": figures.percent(beyond.get("relative")),
        "detectable": figures.fixed(beyond.get("detectable"), PLACES),
        "size": ", ".join(
            [
                figures.counted(part.get("n_terms"), "term"),
                figures.counted(part.get("n_occurrences"), "place"),
                f"{figures.counted(part.get('n_controls'), 'ordinary word')} to compare with",
            ]
        ),
    }


def _chart(part: Mapping[str, Json]) -> dict[str, Json] | None:
    """What the terms saved, what ordinary words saved, and the difference: whole, seen and unseen."""
    seen, unseen = part.get("seen") or {}, part.get("unseen") or {}
    rows: list[tuple[str, str, Mapping[str, Json] | None, bool]] = [
        ("Terms", "bits saved", part.get("term_drop"), False),
        ("Ordinary words like them", "bits saved", part.get("control_drop"), False),
        ("Beyond the register", "the difference", part.get("beyond"), True),
        ("… terms seen in training", figures.counted(seen.get("n_terms"), "term"), seen.get("beyond"), False),
        ("… terms never seen", figures.counted(unseen.get("n_terms"), "term"), unseen.get("beyond"), False),
    ]
    able = [(*row[:2], row[2], row[3]) for row in rows if row[2] and row[2].get("ci_low") is not None]
    if not able:
        return None
    scale = charts.padded_scale([0.0, *(estimate[key] for _, _, estimate, _ in able for key in ("ci_low", "ci_high"))])

    def drawn(name: str, note: str, estimate: Mapping[str, Json], emphasis: bool) -> Row:
        low, value, high = estimate["ci_low"], estimate["value"], estimate["ci_high"]
        kind = "kept" if low > 0 else "lost" if high < 0 else "unsure"
        picture = charts.interval_row(scale, low, value, high, kind, [(0.0, "zero")])
        return Row(name, note, picture, figures.fixed(value, PLACES, signed=True), emphasis)

    return {"rows": [drawn(*row) for row in able], "axis": charts.row_axis(scale, charts.nice_ticks(scale))}


def _seen_sentence(part: Mapping[str, Json]) -> str | None:
    """Vocabulary or register: terms that were met in training against those that never were."""
    if part.get("seen") is None or part.get("unseen") is None:
        return None
    apart = part.get("seen_minus_unseen")
    n_seen, n_unseen = part["seen"].get("n_terms"), part["unseen"].get("n_terms")
    if not apart:
        return (
            f"{figures.counted(n_seen, 'term')} of these stood in the training text and {figures.count(n_unseen)} did "
            "not: too few on one side to compare them."
        )
    shown = f"95{figures.SPACE}% interval {figures.interval(apart['ci_low'], apart['ci_high'], PLACES)}"
    counts = f"{figures.count(n_seen)} terms met in training and {figures.count(n_unseen)} never met"
    size = f"{figures.fixed(abs(apart['value']), PLACES)} bits per byte ({shown})"
    if apart["ci_low"] > 0:
        return f"Between {counts}, the first gained more by {size}: words were learned."
    if apart["ci_high"] < 0:
        return f"Between {counts}, the first gained less by {size}."
    return f"Between {counts}, no difference can be told from chance ({shown})."


def _pieces_sentence(pieces: Mapping[str, Json] | None) -> str | None:
    if not pieces:
        return None
    rho = figures.fixed(pieces["rho"], 2, signed=True)
    shown = f"rank correlation {rho} over {figures.counted(pieces['n_terms'], 'term')}"
    if pieces["p"] >= WEAK_CORRELATION:
        return f"Terms that the tokenizer cuts into more pieces gained neither more nor less ({shown})."
    more = "more" if pieces["rho"] > 0 else "less"
    return f"Terms that the tokenizer cuts into more pieces gained {more} ({shown})."


def _term_cells(row: Mapping[str, Json]) -> list[str]:
    seen = {True: "yes", False: "no", None: figures.MISSING}[row.get("seen")]
    return [
        str(row["term"]),
        figures.count(row.get("n")),
        figures.fixed(row.get("base"), 2),
        figures.fixed(row.get("adapted"), 2),
        figures.fixed(row.get("drop"), 2, signed=True),
        figures.fixed(row.get("tokens"), 1),
        seen,
    ]


def _balance_cells(row: Mapping[str, Json]) -> list[str]:
    return [
        str(row["name"]),
        figures.fixed(row.get("terms"), 2),
        figures.fixed(row.get("controls"), 2),
        figures.fixed(row.get("gap"), 2, signed=True),
    ]


def _by_base(part: Mapping[str, Json]) -> str | None:
    """The same comparison with the other matching, which errs where noise moved the words."""
    other = part.get("beyond_by_base")
    if not other:
        return None
    return (
        f"Matched by the base's surprise alone the difference is {figures.fixed(other['value'], PLACES, signed=True)} "
        f"({figures.interval(other.get('ci_low'), other.get('ci_high'), PLACES)})."
    )


def _teach(part: Mapping[str, Json]) -> str:
    """What the panel guards against, with this run's own numbers."""
    general = (
        "A model that has only caught the tone of a field finds all of its words easier, terms and others alike, and "
        "looks as if it knew them."
    )
    drop, control = part.get("term_drop"), part.get("control_drop")
    if not (drop and control):
        return f"{general} So terms are compared with ordinary words around them, and here there were too few."
    saved, ordinary = (figures.fixed(estimate["value"], PLACES) for estimate in (drop, control))
    return (
        f"{general} Here the terms became {saved} bits per byte easier, which would be the success that is usually "
        f"reported; ordinary words around them became {ordinary} easier, and only what is left counts as vocabulary."
    )
