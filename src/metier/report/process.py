"""The panels that explain: where the data went, how the training went, how all was measured.

Each function takes what the run folder holds and returns what page.html shows; None where there is nothing to show.
"""

from collections.abc import Mapping, Sequence

from metier.report import charts, figures
from metier.runs import Json

# The byte buckets of the ledger, in the order of the bar: name, its words in the report
BUCKETS = {
    "trained": ("learned", "the texts and answers that carry loss"),
    "masked": ("questions", "what is asked in the learned rows: read, without loss"),
    "held_out": ("held out", "kept aside for the test"),
    "read": ("not reached", "read, but training ended before it"),
    "cut": ("cut", "beyond the longest text that the training takes"),
    "duplicate": ("duplicate", "stands elsewhere word for word"),
    "too_short": ("too short", "nothing to learn from"),
    "cleaned": ("cleaned", "markup of the format, unused fields, white space"),
    "rejected": ("rejected", "could not be read"),
    "near_duplicate": ("near duplicate", "stands elsewhere almost word for word"),
    "boilerplate": ("boilerplate", "lines that recur over the texts"),
    "not_selected": ("not selected", "least like the field, by --select"),
    "private": ("private", "identifiers that were masked, and what was left out for them"),
}
SAME_FRAGMENTATION = 0.05
MOST_REJECTED = 20  # shown one by one
NUMBER_OF_WINDOWS = 12  # of the smoothed line, over the whole run
MOST_SAMPLES = 6  # of one kind, before the rest is folded
LONGEST_SAMPLE = 700  # characters, before the rest is folded


def data_panel(
    data: Mapping[str, Json] | None, model: Mapping[str, Json], leaks: Mapping[str, Json] | None
) -> dict[str, Json] | None:
    """model: as in results.json; one that was only proved was trained elsewhere."""
    if not data:
        return None
    read, rejected = data.get("files_read"), data.get("files_rejected") or 0
    held_out, unit = data.get("held_out_documents"), data.get("held_out_unit", "document")
    sentence = f"{figures.counted(read, 'file')} held {figures.counted(data.get('documents'), 'document')}"
    if model.get("proved"):
        sentence += (
            f", on which the model was measured. {_learned_elsewhere(model, (leaks or {}).get('held_out') or {})}"
        )
    elif held_out is not None:
        sentence += (
            f"; {figures.count(held_out)} of them were kept aside, half for choices and half for the test, "
            "and the model never learned from those."
        )
    else:
        sentence += "."
    if rejected:
        was, them = ("was", "it") if rejected == 1 else ("were", "them")
        sentence += f" {figures.counted(rejected, 'file')} {was} left out, and nothing was learned from {them}."

    return {
        "sentence": sentence,
        "unit": data.get("held_out_unit"),
        "held_out": figures.counted(held_out, unit),
        "trained": None if model.get("proved") else figures.counted(data.get("train_tokens"), "token"),
        "leak_rule": (leaks or {}).get("rule") if model.get("proved") else None,
        "examples": figures.counted(data.get("examples"), "example"),
        "formats": [
            [
                found.get("source", ""),
                found.get("format", ""),
                ", ".join(f"{role}: {field}" for role, field in (found.get("fields") or {}).items()) or figures.MISSING,
                figures.count(found.get("rows")),
            ]
            for found in data.get("formats") or []
        ],
    }


def _learned_elsewhere(model: Mapping[str, Json], held_out: Mapping[str, Json]) -> str:
    named, n_leaked = model.get("trained_on"), held_out.get("leaked") or 0
    if not named:
        return "What the model was trained on was not named, so it may have learned from them."
    was = "none stands" if not n_leaked else "one stands" if n_leaked == 1 else f"{n_leaked:,} stand"
    return f"The model was trained on {figures.listed(named)}, and of the held-out ones {was} in there as well."


def vocabulary_panel(found: Mapping[str, Json] | None) -> dict[str, Json] | None:
    """How finely the tokenizer cuts the field."""
    if not found:
        return None
    sizes, fragmentation = found["bytes_per_token"], found["fragmentation"]
    than = (
        "about as many tokens as"
        if abs(fragmentation - 1) < SAME_FRAGMENTATION
        else f"{fragmentation:.2f} times the tokens of"
    )
    sentence = (
        f"For the same bytes the field takes {than} general text "
        f"({figures.fixed(sizes['field'], 2)} and {figures.fixed(sizes['general'], 2)} bytes a token)"
    )
    if found.get("terms"):
        words = found["tokens_per_word"]
        sentence += (
            f"; its {figures.counted(found['terms'], 'term')} take {figures.fixed(found['tokens_per_term'], 1)} tokens "
            f"each, and their words {figures.fixed(words['terms'], 1)}, where general words take "
            f"{figures.fixed(words['general'], 1)}"
        )
    split = [f"{term} ({size})" for term, size in found.get("most_split", [])]
    return {"sentence": f"{sentence}. No tokens were added.", "most_split": ", ".join(split)}


def ledger_panel(ledger: Mapping[str, Json]) -> dict[str, Json] | None:
    """The byte buckets of ledger.json as one bar with a table; None when the file is absent or counts nothing."""
    in_bytes, in_rows = ledger.get("bytes") or {}, ledger.get("rows") or {}
    names = [*BUCKETS, *(name for name in in_bytes if name not in BUCKETS and name != "total")]
    held = [(name, in_bytes[name]) for name in names if in_bytes.get(name)]
    total = sum(n_bytes for _, n_bytes in held)
    if not total:
        return None
    parts, rows, spoken = [], [], []
    for index, (name, n_bytes) in enumerate(held):
        key, share = chr(ord("A") + index), n_bytes / total
        tone = f"tone-{list(BUCKETS).index(name)}" if name in BUCKETS else "tone-other"
        word, meaning = BUCKETS.get(name, (name.replace("_", " "), ""))
        parts.append((key, share, tone))
        rows.append(
            (key, tone, word, meaning, figures.count(in_rows.get(name)), figures.size(n_bytes), figures.percent(share))
        )
        spoken.append(f"{word} {figures.percent(share)}")
    rejected = [(str(entry.get("where", "")), str(entry.get("why", ""))) for entry in ledger.get("rejected") or []]
    return {
        "total": figures.size(total),
        "n_rows": figures.counted(in_rows.get("total"), "row"),
        "bar": charts.stacked_bar(parts, f"Where the bytes went: {', '.join(spoken)}."),
        "rows": rows,
        "rejected": rejected[:MOST_REJECTED],
        "more_rejected": len(rejected[MOST_REJECTED:]),
    }


def training_panel(training: Mapping[str, Json] | None, model: Mapping[str, Json]) -> dict[str, Json] | None:
    if not training:
        return None
    probe = training.get("probe") or {}
    before, after = probe.get("nll_before"), probe.get("nll_after")
    steps = figures.counted(training.get("steps"), "step")
    sentence = f"The model took {steps} over {figures.counted(training.get('tokens'), 'token')}"
    if training.get("interrupted"):
        sentence = (
            f"Training was interrupted: the model took {steps} over {figures.counted(training.get('tokens'), 'token')}"
        )
    if before is not None and after is not None:
        went = "fell" if after < before else "rose" if after > before else "stayed"
        rows = figures.counted(probe.get("n_rows"), "held-out row")
        sentence += f"; on the same {rows} its loss {went} from {before:.2f} to {after:.2f}"
    moved = model.get("weights_moved")
    return {
        "sentence": sentence + ".",
        "moved": None if moved is None else figures.percent(moved),
        "still": moved == 0,
        "before": figures.fixed(before, 3),
        "after": figures.fixed(after, 3),
        "n_rows": figures.counted(probe.get("n_rows"), "row"),
        "has_probe": before is not None and after is not None,
        "rows": [
            ("Steps", figures.count(training.get("steps"))),
            ("Passes over the data", figures.fixed(training.get("epochs"), 2)),
            ("Peak learning rate", _number(training.get("lr"))),
            *rate_rows(training.get("lr_probe")),
            ("Tokens read", figures.count(training.get("tokens"))),
            ("… that carry loss", figures.count(training.get("supervised_tokens"))),
            *_mixed(training.get("mix") or []),
            ("Trained parameters", figures.parameters(model.get("trainable_parameters"))),
            ("Time in training", figures.duration(training.get("seconds"))),
        ],
    }


def rate_rows(probe: Mapping[str, Json] | None) -> list[tuple[str, str]]:
    """How the learning rate was found: each one tried with its judgement, and what the others cost."""
    if not probe:
        return []
    tried = [f"{_number(t['lr'])}: {figures.fixed(t['judged'], 3)}" for t in probe["tried"]]
    seconds = probe["lost_seconds"] + probe["judging_seconds"]
    return [
        (
            f"… of {figures.counted(len(tried), 'rate')} tried for {figures.counted(probe['steps'], 'step')}, bits per "
            "byte of held-out rows and of forgetting",
            "; ".join(tried),
        ),
        (
            "… cost of trying the others",
            f"{figures.counted(probe['lost_tokens'], 'token')}, {figures.duration(seconds)}",
        ),
    ]


def _mixed(mix: Sequence[Mapping[str, Json]]) -> list[tuple[str, str]]:
    """What was trained beside the field, and the DATA of a field that was mixed; nothing where the field was all."""
    if len(mix) < 2:
        return []
    return [(f"… of {part['part']}", _with_share(part["tokens"], part["share"])) for part in mix]


def _with_share(tokens: float | None, share: float | None) -> str:
    return figures.count(tokens) if share is None else f"{figures.count(tokens)} ({figures.percent(share)})"


def _number(value: float | None) -> str:
    return figures.MISSING if value is None else f"{value:g}"


def curve_panel(metrics: Sequence[Mapping[str, Json]]) -> dict[str, Json] | None:
    """The training curve; None when metrics.jsonl held no step with a loss."""
    held = [point for point in metrics if point.get("step") is not None and point.get("loss") is not None]
    points = list({point["step"]: point for point in held}.values())  # after a rollback, the steps that counted
    if not points:
        return None
    steps, losses = [point["step"] for point in points], [point["loss"] for point in points]
    width = 1 + 2 * (len(points) // (2 * NUMBER_OF_WINDOWS))  # odd: as many steps before as after
    smoothed = running_mean(losses, width)
    rates = [point["lr"] for point in points if point.get("lr") is not None]
    described = f"Loss by step: {smoothed[0]:.2f} at the start, {smoothed[-1]:.2f} at the end, {len(points)} steps."
    return {
        "loss": charts.curve(steps, losses, smoothed, described),
        "rate": charts.rate_curve(steps, rates, f"Learning rate by step; its peak is {max(rates):.2g}.")
        if len(rates) == len(points)
        else None,
        "window": figures.counted(width, "step"),
        "first": figures.fixed(smoothed[0], 2),
        "last": figures.fixed(smoothed[-1], 2),
    }


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of the `width` (odd) values around each one; fewer at the ends."""
    half = width // 2
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def samples_panel(samples: Sequence[Mapping[str, Json]]) -> list[dict[str, Json]]:
    """The samples by kind, the field first; within a kind, those beyond MOST_SAMPLES are folded."""
    titles = {"field": "Requests of the field", "general": "General requests"}
    kinds = [*titles, *sorted({str(sample.get("kind")) for sample in samples} - set(titles))]
    panels = []
    for kind in kinds:
        shown = [_sample(sample) for sample in samples if str(sample.get("kind")) == kind]
        if shown:
            title = titles.get(kind, kind)
            panels.append({"title": title, "shown": shown[:MOST_SAMPLES], "folded": shown[MOST_SAMPLES:]})
    return panels


def _sample(sample: Mapping[str, Json]) -> dict[str, Json]:
    parts = {name: str(sample.get(name) or "").strip() for name in ("request", "reference", "base", "adapted")}
    cut = {name: (text[:LONGEST_SAMPLE], text[LONGEST_SAMPLE:]) for name, text in parts.items()}
    return {**cut, "same": parts["base"] == parts["adapted"]}


def samples_sentence(samples: Sequence[Mapping[str, Json]]) -> str:
    n_same = sum(1 for sample in samples if str(sample.get("base")).strip() == str(sample.get("adapted")).strip())
    same = (
        f"; {figures.count(n_same)} of them {'is' if n_same == 1 else 'are'} the same word for word" if n_same else ""
    )
    return f"{figures.counted(len(samples), 'request')}, each answered by the base model and by the adapted one{same}."


def cost_rows(cost: Mapping[str, Json]) -> list[tuple[str, str]]:
    rows = [
        ("Training", figures.duration(cost.get("train_s"))),
        ("Evidence", figures.duration(cost.get("evidence_s"))),
        ("All together", figures.duration(cost.get("total_s"))),
        ("Tokens trained a second", figures.count(cost.get("train_tokens_per_s"))),
        ("Examples trained a second", figures.fixed(cost.get("examples_per_s"), 1)),
        ("Most memory held", figures.size(cost.get("peak_rss_bytes"))),
    ]
    return [(name, value) for name, value in rows if value != figures.MISSING]


def flat_rows(value: Mapping[str, Json], prefix: str = "") -> list[tuple[str, str]]:
    """A nested record as dotted names and texts."""
    rows: list[tuple[str, str]] = []
    for name, held in value.items():
        if isinstance(held, Mapping):
            rows.extend(flat_rows(held, f"{prefix}{name}."))
        elif isinstance(held, list):
            rows.append((prefix + name, ", ".join(str(part) for part in held)))
        else:
            rows.append((prefix + name, figures.MISSING if held is None else str(held)))
    return rows
