"""The base's evidence, kept whole in the run folder: a run that was killed after it does not measure it again.

evidence/base.json is written last, with the sha256 of the files of the arm and of its own content.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from metier.evidence.arms import Arm, write_arm
from metier.evidence.score import Record
from metier.models.generate import Answer
from metier.runs import Json, RunFolder, read_jsonl, write_json

FILES = ("scores-base.jsonl", "choices-base.jsonl", "answers-base.jsonl", "tokens-base.jsonl")
PREFERENCES = "preferences-base.jsonl"  # there only where some held-out rows are preferences


@dataclass(frozen=True)
class KeptBase:
    """replay: answers to train on · own: answers to the measured requests · samples: as `arms.field_samples` ·
    preferences: as `preferences.score_pairs`."""

    arm: Arm
    replay: list[Answer]
    own: list[Answer]
    samples: list[tuple[str, str, str]]
    preferences: list[Record]
    seconds: float
    replay_s: float  # seconds that writing the replay took, before those


def write_base(run: RunFolder, kept: KeptBase) -> None:
    """What was measured of pairs stands in its file already. Raises RunError when the disk refuses."""
    write_arm(run, "base", kept.arm)
    content = {
        "replay": [asdict(answer) for answer in kept.replay],
        "own": [asdict(answer) for answer in kept.own],
        "samples": kept.samples,
        "seconds": kept.seconds,
        "replay_s": kept.replay_s,
        "sha256": _file_hashes(run),
    }
    write_json(run.evidence / "base.json", {**content, "content_sha256": _hash(content)})


def read_base(run: RunFolder) -> KeptBase | None:
    """None where it was not kept, or where any file of it changed."""
    try:
        content = json.loads((run.evidence / "base.json").read_text(encoding="utf-8"))
        if content.pop("content_sha256") != _hash(content) or content["sha256"] != _file_hashes(run):
            return None
        arm = Arm(*(list(read_jsonl(run.evidence / name)) for name in FILES))
        preferences = list(read_jsonl(run.evidence / PREFERENCES)) if PREFERENCES in content["sha256"] else []
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return KeptBase(
        arm,
        _answers(content["replay"]),
        _answers(content["own"]),
        [(request, reference, answer) for request, reference, answer in content["samples"]],
        preferences,
        content["seconds"],
        content["replay_s"],
    )


def _answers(records: Sequence[dict[str, Json]]) -> list[Answer]:
    return [Answer(**record) for record in records]


def _file_hashes(run: RunFolder) -> dict[str, str]:
    names = (*FILES, PREFERENCES) if (run.evidence / PREFERENCES).exists() else FILES
    return {name: hashlib.sha256((run.evidence / name).read_bytes()).hexdigest() for name in names}


def _hash(content: Json) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
