"""What full evidence concludes, from the files of a run folder alone."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from metier.evidence.full import controls, scratch
from metier.evidence.full.answer_quality import answer_quality
from metier.evidence.full.cheaper import ADAPTED, BASE, cheaper
from metier.evidence.full.stability import stability
from metier.evidence.gain import FIELD_SLICE, gain
from metier.evidence.statistics import Record
from metier.evidence.sufficiency.quality import FILTERED, RANDOM, quality_against_quantity
from metier.runs import Json, RunFolder, read_json, read_jsonl

FACTS = "compared.json"  # in evidence/: what the records do not say


def compared(run: RunFolder, leaked: Collection[str] = ()) -> dict[str, Json]:
    """The parts `arms`, `controls`, `stability` and `scratch` of results.json, and `quality`, which belongs to its
    `sufficiency`, from the files of a run, without a model; `why_tasks` is why no run without mined tasks was trained,
    in words. Nothing where full evidence was not measured.

    leaked: held-out items whose text stands in training text; they are not counted.
    """
    if not (run.evidence / FACTS).exists():
        return {}
    facts = read_json(run.evidence / FACTS)

    def records(name: str) -> list[dict[str, Json]]:
        path = run.evidence / name
        return [r for r in read_jsonl(path) if r["item"] not in leaked] if path.exists() else []

    base, adapted = records("scores-base.jsonl"), records("scores-adapted.jsonl")
    stable = _stability_part(facts["stability"], base, adapted, records("seeds.jsonl"))
    return {
        "arms": _arms_part(facts["arms"], records("arms.jsonl"), records("arm-answers.jsonl")),
        "controls": _controls_part(facts["controls"], base, adapted, records("controls.jsonl")),
        "stability": stable,
        "quality": _quality_part(facts["quality"], records("halves.jsonl"), stable),
        "scratch": _scratch_part(facts["scratch"], base, adapted, records("scratch.jsonl")),
        "why_tasks": facts.get("tasks", {}).get("why", ""),
    }


def _arms_part(facts: Mapping[str, Any], records: Sequence[Record], answers: Sequence[Record]) -> dict[str, Json]:
    if "why" in facts:
        return {
            "arms": [],
            "recommended": None,
            "sentence": f"Cannot tell whether something cheaper would do: {facts['why']}.",
        }
    part = {**cheaper(records, facts["costs"]), "ngram_shares": facts["ngram_shares"]}
    return {**part, "answers": answer_quality(answers, BASE)} if answers else part


def _controls_part(
    facts: Mapping[str, Any], base: Sequence[Record], adapted: Sequence[Record], records: Sequence[Record]
) -> dict[str, Json]:
    if "why" in facts:
        return {"controls": [], "passed": None, "sentence": f"No control was trained: {facts['why']}."}
    of = {name: [r for r in records if r["arm"] == name] for name in (controls.PLACEBO, controls.SHUFFLED)}
    return controls.controls(base, adapted, of[controls.PLACEBO], of[controls.SHUFFLED], facts["placebo_text"])


def _stability_part(
    facts: Mapping[str, Any], base: Sequence[Record], adapted: Sequence[Record], records: Sequence[Record]
) -> dict[str, Json]:
    gains = {int(seed): gain(base, [r for r in records if r["arm"] == str(seed)]) for seed in facts.get("seeds", ())}
    return stability({facts.get("seed", 0): gain(base, adapted), **gains})


def _quality_part(facts: Mapping[str, Any], records: Sequence[Record], stable: Mapping[str, Any]) -> dict[str, Json]:
    if "why" in facts:
        return {"decision": None, "sentence": f"No half of the text was trained on: {facts['why']}.", "method": ""}
    at_random, filtered = ([r for r in records if r["arm"] == arm] for arm in (RANDOM, FILTERED))
    return quality_against_quantity(at_random, filtered, stable["sd"] or 0.0, stable["n_seeds"])


def _scratch_part(
    facts: Mapping[str, Any], base: Sequence[Record], adapted: Sequence[Record], records: Sequence[Record]
) -> dict[str, Json]:
    both = (*of_arm(BASE, _of_field(base)), *of_arm(ADAPTED, _of_field(adapted)))
    return scratch.scratch([*records, *both], facts["sizes"], facts["facts"], facts["why"])


def of_arm(name: str, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**record, "arm": name} for record in records]


def _of_field(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [record for record in records if record["slice"] == FIELD_SLICE]
