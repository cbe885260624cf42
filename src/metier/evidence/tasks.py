"""Do the tasks that are mined from the texts help the model where it is asked? Tasks of the same forms, mined from
held-out texts, are scored by base and adapted model, and with full evidence by one that was trained without any."""

from collections.abc import Mapping, Sequence
from typing import Any

from metier.evidence.full.readers import TWO, Models
from metier.evidence.gain import FIELD_SLICE
from metier.evidence.measure import read_alike, subset
from metier.evidence.score import Record, encode_items, score_field
from metier.evidence.statistics import Estimate, bits_per_byte, paired_scores, relative_difference
from metier.evidence.subject import Subject
from metier.evidence.verdict import MIN_DOCUMENTS
from metier.models.packing import PackReader
from metier.runs import write_jsonl
from metier.sources.examples import Example
from metier.sources.mine import mined_tasks
from metier.sources.shown import counted

TASKS, WITHOUT = "tasks", "without tasks"  # the slice of their records; the arm that is trained without any
MEASURED = 60
METHOD = (
    "The tasks are mined from held-out texts by the patterns that mined those of the training, and what is scored is "
    "their answers. Differences are shares of the bits, paired by task, with t intervals over documents."
)
METHOD_WITHOUT = (
    " The run without them starts from the same base and takes as many steps of as many tokens at the same rate with "
    "the same replay; the field's text takes the place of the tasks. It is read at the adapted model's strength. It is "
    "one run against one: the luck of a seed is not in the intervals."
)


def read_tasks(subject: Subject, models: Models, test: Sequence[Example]) -> list[Example]:
    """Write evidence/tasks.jsonl, score records of both models with their `arm`; return the tasks that were read, and
    say so where there are none.

    test: held-out examples that do not leak.
    """
    tasks = subset(read_alike(subject, mined_tasks(test)), MEASURED, subject.settings.seed)
    if not tasks:
        subject.say.say("no task can be mined from what is held out: whether the mined ones help is not measured")
        return []
    subject.say.begin("both models are asked tasks mined from held-out text", len(tasks))
    records: list[Record] = []
    for arm in TWO:
        with models.reading(arm) as reader:
            records += [{**record, "arm": arm} for record in score_tasks(subject, reader, tasks, arm == "adapted")]
    subject.say.end()
    write_jsonl(subject.run.evidence / "tasks.jsonl", records)
    return tasks


def score_tasks(
    subject: Subject, reader: PackReader, tasks: Sequence[Example], as_adapted: bool = False
) -> list[Record]:
    """as_adapted: in the tokens of the adapted model."""
    encoder = subject.adapted_encoder if as_adapted else subject.encoder
    items = encode_items(encoder, tasks, (), (), (), ())
    records, _ = score_field(reader, items, subject.settings.pack_tokens, lambda _: None)
    return [{**record, "slice": TASKS} for record in records]


def tasks_part(
    records: Sequence[Mapping[str, Any]],
    without: Sequence[Mapping[str, Any]],
    adapted: Sequence[Mapping[str, Any]],
    unit: str = "document",
    why: str = "",
) -> dict[str, Any]:
    """The `tasks` of results.json, in shares of bits; nothing where no task was read.

    records: of evidence/tasks.jsonl. without: of tasks and field, by the model that was trained without tasks; empty
    where none was, and then `why` says it in words if it was meant to be. adapted: score records of the adapted model;
    other slices than 'field' are passed over. unit: what was held out. `gain` is what the adapted model saves of the
    base's bits on the tasks, `helped_by` what it saves of those of the model without, `field_cost` what it needs more
    than that one on the field's text. `helped`: whether the interval of `helped_by` lies above zero, None where it
    holds zero or the documents are few.

    Raises:
        DataError: the models were not scored on the same items.
    """
    of = {arm: [record for record in records if record["arm"] == arm] for arm in TWO}
    if not of["base"]:
        return {}
    gained = relative_difference(paired_scores(of["base"], of["adapted"]))
    found: dict[str, Any] = {
        "base": bits_per_byte(of["base"]),
        "adapted": bits_per_byte(of["adapted"]),
        "gain": _share(gained),
        "helped_by": None,
        "field_cost": None,
        "helped": None,
        "n_items": gained.n_items,
        "n_documents": gained.n_documents,
        "unit": unit,
        "why": why,
        "method": METHOD + (METHOD_WITHOUT if without else ""),
    }
    if without:
        tasks, field = ([r for r in without if r["slice"] == name] for name in (TASKS, FIELD_SLICE))
        helped_by = relative_difference(paired_scores(tasks, of["adapted"]))
        cost = relative_difference(paired_scores(field, [r for r in adapted if r["slice"] == FIELD_SLICE]))
        found |= {"helped_by": _share(helped_by), "field_cost": _share(cost, -1), "helped": _helped(helped_by)}
    return {**found, "sentence": _sentence(found)}


def _share(saved: Estimate, sign: int = 1) -> dict[str, float | None]:
    """With its 95 % interval; sign -1 turns what is saved into what is paid."""
    low, high = sorted(sign * bound for bound in saved.interval) if saved.interval else (None, None)
    return {"value": sign * saved.value, "ci_low": low, "ci_high": high}


def _helped(saved: Estimate) -> bool | None:
    if saved.interval is None or saved.n_documents < MIN_DOCUMENTS:
        return None
    low, high = saved.interval
    return True if low > 0 else False if high < 0 else None


def _sentence(found: Mapping[str, Any]) -> str:
    where = f"on {counted(found['n_items'], 'task')} mined from {counted(found['n_documents'], found['unit'])}"
    if found["n_documents"] < MIN_DOCUMENTS:
        return f"Cannot tell whether the mined tasks helped: {where} held out nothing can be shown; hold out more."
    where += " held out"
    if found["helped_by"] is None:
        why = found["why"] or "--evidence full trains a run without, where the minutes allow it"
        return (
            f"Asked in the forms of the mined tasks, {where}, the adapted model needs {_saved(found['gain'])}. Whether "
            f"it would without them was not measured: {why}."
        )
    ahead, field = found["helped_by"], f"the field's text costs it {_paid(found['field_cost'])}"
    if found["helped"] is None:
        return (
            f"Cannot tell whether the mined tasks helped: {where} the difference to as many steps without them may be "
            f"zero ({_saved(ahead)}); {field}."
        )
    if found["helped"]:
        return (
            f"The mined tasks helped where the model is asked: {where} it needs {_saved(ahead)} than after as many "
            f"steps without them; {field}."
        )
    return (
        f"The mined tasks did harm where the model is asked: {where} it needs {_saved(ahead)} than after as many steps "
        f"without them; {field}. Leave out --mined."
    )


def _paid(cost: Mapping[str, Any]) -> str:
    """ "1.3 % more (0.8 to 1.8 %)", less, or nothing that is sure."""
    low, high = cost["ci_low"], cost["ci_high"]
    if low is None or high is None or low <= 0 <= high:
        return "nothing that is sure" if low is None else f"nothing that is sure ({_between(low, high)})"
    sign, word = (1, "more") if low > 0 else (-1, "less")
    return f"{_percent(sign * cost['value'])} {word} ({_between(*sorted((sign * low, sign * high)))})"


def _saved(share: Mapping[str, float]) -> str:
    """ "12.1 % fewer bits (8.0 to 16.2 %)", or more bits."""
    sign, word = (1, "fewer") if share["value"] >= 0 else (-1, "more")
    bounds = sorted((sign * share["ci_low"], sign * share["ci_high"]))
    return f"{_percent(sign * share['value'])} {word} bits ({_between(*bounds)})"


def _between(low: float, high: float) -> str:
    return f"{_percent(low).removesuffix(' %')} to {_percent(high)}"


def _percent(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:.1f} %".replace("-", "−")  # + 0.0: no "−0.0"
