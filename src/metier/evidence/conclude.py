"""From what was measured to the evidence of results.json; it needs no model, and anyone can do it again."""

from collections.abc import Mapping
from typing import Any

from metier.evidence.dial import choose_dial, confirmation
from metier.evidence.gain import FIELD_SLICE, gain
from metier.evidence.preferences import preferences
from metier.evidence.retention import retention
from metier.evidence.stored import Stored
from metier.evidence.verdict import decide
from metier.evidence.withheld import ALL_LEAKED, clean_items, leak_reasons, withhold
from metier.sources import general

SCHEMA = 1
NOT_MEASURED = {
    "decision": "cannot_tell",
    "sentence": "Cannot tell. Nothing was measured: the run was told to leave the evidence out.",
    "reasons": ["Run again with --evidence quick, or use `metier prove` on the adapter."],
}


def evidence_part(stored: Stored | None) -> dict[str, Any]:
    """The parts of results.json that follow from evidence/: the verdict and all that it rests on; the verdict alone
    when nothing was measured."""
    if stored is None:
        return {"verdict": NOT_MEASURED}
    base, adapted = stored.base, stored.adapted
    clean = tuple(clean_items(arm, stored.leaks) for arm in (base.scores, adapted.scores))
    found = {"leaks": stored.leaks.as_json()}
    n_leaked = len(base.scores) - len(clean[0])
    if n_leaked:
        found["leaks"]["gain_with_leaks"] = gain(base.scores, adapted.scores)
    if not any(record["slice"] == FIELD_SLICE for record in clean[0]):
        return {"verdict": ALL_LEAKED, **found}
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
    verdict = decide(gained, retained, stored.facts.unit)
    return {
        "verdict": {**verdict, "reasons": [*leak_reasons(stored.leaks, n_leaked), *verdict["reasons"]]},
        "gain": {**gained, "foretold_relative_detectable": stored.facts.foretold},
        "retention": {"pack": f"general pack, version {general.VERSION}", **retained},
        **({"preferences": preferences(*stored.preferences)} if stored.preferences[0] else {}),
        **found,
        **({"dial": _dial(stored, gained, retained)} if stored.dial else {}),
        "samples": stored.samples,
    }


def _dial(stored: Stored, gained: Mapping[str, Any], retained: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen on the select half, and what became of it on the test half."""
    chosen = choose_dial(stored.dial, stored.facts.margin)
    return {**chosen, "confirmation": confirmation(chosen, gained, retained)}
