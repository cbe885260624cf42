"""The evidence as it lies in the run folder: one record an item, the facts that its reading needs, and their hashes."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from metier.errors import RunError
from metier.evidence.gain import FIELD_SLICE
from metier.runs import Json, RunFolder, read_json, read_jsonl, write_json
from metier.sources.leaks import Leak, Leaks
from metier.sources.split import Unit

Records = list[dict[str, Json]]
ARMS = ("base", "adapted")


@dataclass(frozen=True)
class Facts:
    """evidence/facts.json: what no record says.

    unit           what was held out
    margin         the share of the base's bits per byte that general text may lose
    foretold       share of the base's bits: the smallest gain that the set was expected to show
    dial           the strength at which the adapted model was measured
    available      tokens of the field that there were to train on, read once
    language       the main one of the field
    """

    unit: Unit
    margin: float
    foretold: float | None
    dial: float = 1.0
    available: int = 0
    language: str = "en"


@dataclass(frozen=True)
class StoredArm:
    """As in evidence/*-base.jsonl and *-adapted.jsonl."""

    scores: Records
    choices: Records
    answers: Records
    tokens: Records


@dataclass(frozen=True)
class Stored:
    """All that was measured in one run. dial, trajectory, trained: as `select_half.read_strengths` writes them."""

    facts: Facts
    base: StoredArm
    adapted: StoredArm
    preferences: tuple[Records, Records]
    passages: Records
    leaks: Leaks
    samples: Records
    dial: Records = field(default_factory=list)
    trajectory: Records = field(default_factory=list)
    trained: Records = field(default_factory=list)
    terms: Records = field(default_factory=list)  # of the field; `seen` where it is known what was trained on
    layers: Records = field(default_factory=list)  # as `layers.layer_changes`
    questions: Records = field(default_factory=list)  # as full.questions writes them, like the next three
    definitions: Records = field(default_factory=list)
    prompted: Records = field(default_factory=list)
    extraction: Records = field(default_factory=list)
    tasks: Records = field(default_factory=list)  # as `tasks.read_tasks`; the next of the model trained without any
    without_tasks: Records = field(default_factory=list)

    def general_items(self) -> set[str]:
        """The ids of the general items that were measured."""
        scores = {r["item"] for r in self.base.scores if r["slice"] != FIELD_SLICE}
        return scores | {r["item"] for r in self.base.choices} | {r["item"] for r in self.base.answers}


def write_facts(run: RunFolder, facts: Facts, leaks: Leaks) -> None:
    write_json(run.evidence / "facts.json", {**asdict(facts), "leaks": asdict(leaks)})


def read_stored(run: RunFolder) -> Stored | None:
    """None where nothing was measured.

    Raises:
        RunError: a file is missing, or does not hold what a run writes.
    """
    if not (run.evidence / "facts.json").exists():
        return None
    facts = read_json(run.evidence / "facts.json")
    try:
        leaks = _leaks(facts.pop("leaks"))
        arms = [StoredArm(*(_records(run, f"{kind}-{arm}") for kind in _KINDS)) for arm in ARMS]
        preferences = (_records(run, "preferences-base"), _records(run, "preferences-adapted"))
        others = {name: _records(run, name) for name in _OTHERS}
        return Stored(Facts(**facts), arms[0], arms[1], preferences, leaks=leaks, **others)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{run.evidence} does not hold what a run writes ({error}): put the files back, or prove the model again."
        ) from None


_OTHERS = (
    *("passages", "samples", "dial", "trajectory", "trained", "terms", "layers"),
    *("questions", "definitions", "prompted", "extraction", "tasks", "without_tasks"),
)
_KINDS = ("scores", "choices", "answers", "tokens")


def _records(run: RunFolder, name: str) -> Records:
    path = run.evidence / f"{name}.jsonl"
    return list(read_jsonl(path)) if path.exists() else []


def _leaks(kept: Mapping[str, Any]) -> Leaks:
    found: dict[str, Any] = {
        name: [Leak(**leak) for leak in kept[name]] for name in ("held_out", "general", "replay", "benchmarks")
    }
    return Leaks(**found, measured=kept["measured"], unread=kept["unread"])


def hashes(run: RunFolder) -> dict[str, str]:
    """{file of evidence/: sha256}, for results.json."""
    files = sorted(path for path in run.evidence.glob("*.json*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def require_unchanged(run: RunFolder, kept: Mapping[str, str]) -> None:
    """Raises RunError when a file of evidence/ is not what the run wrote."""
    found = hashes(run)
    if changed := [name for name, sha256 in kept.items() if found.get(name) != sha256]:
        raise RunError(
            f"{run.evidence / changed[0]} is not what the run wrote (its sha256 is not that of results.json): put the "
            "file back, or prove the model again."
        )
