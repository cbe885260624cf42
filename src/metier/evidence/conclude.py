"""From what was measured to the evidence of results.json; it needs no model, and anyone can do it again."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from metier.evidence.dial.choose import choose_dial
from metier.evidence.dial.confirm import confirmation, left_out, tilt_advice
from metier.evidence.dial.words import against
from metier.evidence.divergence import divergence_by_step, divergence_part, entropy_on_text, read_beside
from metier.evidence.full.compared import compared
from metier.evidence.full.questions import few_shot, recited, term_choices
from metier.evidence.gain import FIELD_SLICE, gain
from metier.evidence.jargon.learned import jargon
from metier.evidence.overdone import overdone
from metier.evidence.passage_view import passage_view
from metier.evidence.preferences import preferences
from metier.evidence.retention import retention
from metier.evidence.statistics import ERROR, Record, paired_scores, relative_difference
from metier.evidence.stored import Stored, read_stored
from metier.evidence.sufficiency.forecast import sufficiency
from metier.evidence.tasks import tasks_part
from metier.evidence.verdict import decide
from metier.evidence.withheld import ALL_LEAKED, clean_items, leak_reasons, withhold
from metier.runs import RunFolder
from metier.sources import general
from metier.sources.leaks import Leaks

SCHEMA = 1
NOT_MEASURED = {
    "decision": "cannot_tell",
    "sentence": "Cannot tell. Nothing was measured: the run was told to leave the evidence out.",
    "reasons": ["Run again with --evidence quick, or use `metier prove` on the adapter."],
}


def evidence_part(run: RunFolder) -> dict[str, Any]:
    """The parts of results.json that follow from evidence/: the verdict and all that it rests on; the verdict alone
    when nothing was measured.

    Raises:
        RunError: a file is missing, or does not hold what a run writes.
    """
    stored = read_stored(run)
    if stored is None:
        return {"verdict": NOT_MEASURED}
    base, adapted = stored.base, stored.adapted
    clean = tuple(clean_items(arm, stored.leaks) for arm in (base.scores, adapted.scores))
    leaks = {"leaks": stored.leaks.as_json()}
    n_leaked = len(base.scores) - len(clean[0])
    if n_leaked:
        leaks["leaks"]["gain_with_leaks"] = gain(base.scores, adapted.scores)
    if not any(record["slice"] == FIELD_SLICE for record in clean[0]):
        return {"verdict": ALL_LEAKED, **leaks}
    gained = gain(*clean)
    retained = retention(
        base.scores,
        adapted.scores,
        base.choices,
        adapted.choices,
        base.answers,
        adapted.answers,
        text_margin=stored.facts.margin,
    )
    retained = withhold(retained, stored.leaks, stored.general_items())
    if apart := divergence_part(read_beside(stored.dial)):
        retained["divergence"] = apart
    verdict = decide(gained, retained, stored.facts.unit)
    rivals = compared(run, {leak.id for leak in stored.leaks.held_out})
    quality, why_tasks = rivals.pop("quality", None), rivals.pop("why_tasks", "")
    further = {
        **_dial(stored, gained, retained),
        **_sufficiency(stored, quality),
        **_jargon(stored),
        **_overdone(stored, retained),
        **_tasks(stored, why_tasks),
        **_inside(stored),
        **rivals,
    }
    return {
        "verdict": {
            **verdict,
            "sentence": verdict["sentence"] + said_further(verdict["decision"], further),
            "reasons": [*leak_reasons(stored.leaks, n_leaked), *verdict["reasons"]],
        },
        "gain": {**gained, "foretold_relative_detectable": stored.facts.foretold},
        "retention": {"pack": f"general pack, version {general.VERSION}", **retained},
        **_preferences(stored),
        **leaks,
        **further,
        "samples": stored.samples,
    }


def said_further(decision: str, further: Mapping[str, Any]) -> str:
    """What the one who decides should hear besides: at which strength, whether more text pays, what would do as well,
    whether it was overdone."""
    said = []
    dial = further.get("dial")
    if decision == "adapted" and dial and dial["decided"] and dial["kept_gain"] is not None:
        kept = f"{dial['kept_gain']:.0%}".replace("%", " %")
        said.append(f"Recommended strength {dial['chosen']:.2g}: it keeps {kept} of the gain.")
        if (limit := dial["limit"]) and limit["loss"] > limit["margin"]:
            said.append(f"More of it would seem to forget: {against(dial)}")
    sufficiency = further.get("sufficiency")
    if sufficiency and sufficiency["decision"] in ("more_data_pays", "enough"):
        said.append(sufficiency["sentence"])
    if (arms := further.get("arms")) and arms["recommended"]:
        said.append(arms["sentence"])
    if (overdone := further.get("overdone")) and overdone["level"] == "red":
        said.append(overdone["sentence"])
    return "".join(f" {sentence}" for sentence in said)


def dial_of(records: Sequence[Record], margin: float, leaks: Leaks) -> dict[str, Any]:
    """What is chosen on the select half, without items whose text was trained on."""
    return choose_dial(_without(leaks, records), margin)


def _without(leaks: Leaks, records: Sequence[Record]) -> list[Record]:
    """Those of items, of the field or general ones, whose text was not trained on."""
    leaked = {leak.id for leak in (*leaks.held_out, *leaks.general, *leaks.replay)}
    return [record for record in records if record["item"] not in leaked]


def _dial(stored: Stored, gained: Mapping[str, Any], retained: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen on the select half, and what became of it on the test half."""
    if not stored.dial:
        return {}
    chosen = dial_of(stored.dial, stored.facts.margin, stored.leaks)
    if chosen["curve"]:
        clean = _without(stored.leaks, stored.dial)
        chosen |= {"left_out": left_out(clean), "tilt": tilt_advice(clean)}
    if chosen["chosen"] == stored.facts.dial:
        chosen["confirmation"] = confirmation(chosen, gained, retained)
    return {"dial": chosen}


def _sufficiency(stored: Stored, quality: Mapping[str, Any] | None) -> dict[str, Any]:
    if not stored.trajectory:
        return {"quality": quality} if quality else {}
    records = clean_items(stored.trajectory, stored.leaks)
    trained = max(int(record["tokens_seen"]) for record in records)
    found = sufficiency(records, trained, stored.facts.available)
    return {"sufficiency": {**found, **({"quality": quality} if quality else {})}}


def _jargon(stored: Stored) -> dict[str, Any]:
    if not stored.passages or not stored.base.tokens:
        return {}
    names = [record["term"] for record in stored.terms]
    known = all("seen" in record for record in stored.terms)
    seen = {record["term"] for record in stored.terms if record["seen"]} if known else None
    arms = stored.base.tokens, stored.adapted.tokens
    found = jargon(stored.passages, *arms, names, seen, stored.facts.language)
    return {"jargon": {**found, **term_choices(stored.questions), "definitions": stored.definitions}}


def _overdone(stored: Stored, retained: Mapping[str, Any]) -> dict[str, Any]:
    if not stored.dial:
        return {}
    repetition = next((one for one in retained["slices"] if one["name"] == "answers/repetition"), None)
    dial, prompted = (_without(stored.leaks, records) for records in (stored.dial, stored.prompted))
    if not any(record["alpha"] == 0 for record in dial):
        return {}
    beside = read_beside(dial)
    found = overdone(
        dial,
        divergence_by_step(beside),
        _train_gap(stored),
        recited(stored.extraction),
        entropy_on_text(beside),
        repetition,
        few_shot(prompted),
    )
    return {"overdone": found}


def _tasks(stored: Stored, why: str) -> dict[str, Any]:
    """Of a run that was trained on mined tasks. why: no other was trained without, in words."""
    adapted, without = (clean_items(records, stored.leaks) for records in (stored.adapted.scores, stored.without_tasks))
    found = tasks_part(stored.tasks, without, adapted, stored.facts.unit, why)
    return {"tasks": found} if found else {}


def _preferences(stored: Stored) -> dict[str, Any]:
    base, adapted = (_without(stored.leaks, records) for records in stored.preferences)
    return {"preferences": preferences(base, adapted)} if base else {}


def _train_gap(stored: Stored) -> dict[str, float | None] | None:
    """What rows that were trained on gained more than held-out ones: two independent samples."""
    last = max(record["step"] for record in stored.dial)
    of_field = [r for r in stored.dial if _is_field(r) and r["step"] == last and not r.get("tilt")]
    arms = [[r for r in of_field if r["alpha"] == alpha] for alpha in (0, 1)]
    trained = [[r for r in stored.trained if r["arm"] == arm] for arm in ("base", "adapted")]
    if not all((*arms, *trained)):
        return None
    there, here = (relative_difference(paired_scores(*both)) for both in (trained, arms))
    value = there.value - here.value
    if there.se is None or here.se is None or there.df is None or here.df is None:
        return {"value": value, "lower": None}
    return {"value": value, "lower": value - _t(min(there.df, here.df)) * math.hypot(there.se, here.se)}


def _t(df: float) -> float:
    return float(stats.t.ppf(1 - ERROR, df))


def _is_field(record: Record) -> bool:
    return bool(record["slice"] == FIELD_SLICE)


def _inside(stored: Stored) -> dict[str, Any]:
    passages = passage_view(stored.passages, stored.base.tokens, stored.adapted.tokens) if stored.passages else []
    if not passages and not stored.layers:
        return {}
    return {"inside": {"passages": passages, "layers": stored.layers}}
