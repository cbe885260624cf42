"""What a leak takes from the claim: leaked items of the field are not counted, and a general slice of which an item was
trained on is not called kept."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from metier.evidence.gain import FIELD_SLICE
from metier.evidence.statistics import Record
from metier.sources.leaks import Leak, Leaks

ALL_LEAKED = {
    "decision": "cannot_tell",
    "sentence": "Cannot tell. The text of every held-out item that was measured stands in the training text as well.",
    "reasons": [
        "Leave the repeated texts out of the data, hold other documents out with another --seed, or prove it on others."
    ],
}


def clean_items(records: Sequence[Record], leaks: Leaks) -> list[Record]:
    """The records without held-out items whose text stands in training text."""
    leaked = {leak.id for leak in leaks.held_out}
    return [r for r in records if r["slice"] != FIELD_SLICE or r["item"] not in leaked]


def withhold(retained: Mapping[str, Any], leaks: Leaks, measured: Collection[str]) -> dict[str, Any]:
    """The retention, in which no slice passes of which a measured item was trained on; each of those says how many.

    measured: the ids of the general items that were measured
    """
    leaked = [leak for leak in (*leaks.general, *leaks.replay) if leak.id in measured]
    slices = []
    for one in retained["slices"]:
        n_leaked = len({leak.id for leak in leaked if _concerns(leak, one["name"])})
        passed = None if n_leaked and one["passed"] else one["passed"]
        slices.append({**one, "passed": passed, "leaked": n_leaked} if n_leaked else one)
    outcomes = [one["passed"] for one in slices if not one.get("at_chance")]
    passed = False if False in outcomes else True if outcomes and None not in outcomes else None
    return {**retained, "slices": slices, "passed": passed}


def leak_reasons(leaks: Leaks, n_field: int) -> list[str]:
    """What the verdict has to say of them. n_field: measured items of the field that leaked."""
    reasons = []
    if not leaks.measured:
        reasons.append("No leaks were looked for, as what it was trained on was not named (--trained-on).")
    if leaks.unread:
        files = "1 file" if leaks.unread == 1 else f"{leaks.unread} files"
        reasons.append(f"{files} of what it was trained on could not be read whole, so leaks may have been missed.")
    if n_field:
        items = "item, whose text stands" if n_field == 1 else "items, whose texts stand"
        reasons.append(f"The gain leaves out {n_field} held-out {items} in the training text as well.")
    for path in sorted({leak.slice for leak in leaks.benchmarks}):
        n = sum(leak.slice == path for leak in leaks.benchmarks)
        reasons.append(f"{n} of the rows of {path} stand in the training text: a score on it is no evidence.")
    return reasons


def _concerns(leak: Leak, name: str) -> bool:
    """Whether an item of the leak's slice is in the slice of this name; answers are given to the requests."""
    kind = name.split("/")[0]
    if leak.slice.startswith("text/"):
        return name in (leak.slice, "text")
    return kind == leak.slice or (leak.slice == "chat" and kind == "answers")
