"""The base's evidence and what it wrote for replay, kept whole in the run folder: a run that was killed after them does
not make them again.

evidence/base.json is written last, with the sha256 of the files of the arm and of its own content; evidence/replay.json
has that of its own, too.
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
    """own: answers to the measured requests · samples: (request, reference, answer) of a few held-out rows ·
    preferences: as `preferences.score_pairs`."""

    arm: Arm
    own: list[Answer]
    samples: list[tuple[str, str, str]]
    preferences: list[Record]
    seconds: float


@dataclass(frozen=True)
class KeptReplay:
    """What the base wrote to be trained on, and how long that took."""

    answers: list[Answer]
    seconds: float


def write_base(run: RunFolder, kept: KeptBase) -> None:
    """What was measured of pairs stands in its file already. Raises RunError when the disk refuses."""
    write_arm(run, "base", kept.arm)
    content = {
        "own": [asdict(answer) for answer in kept.own],
        "samples": kept.samples,
        "seconds": kept.seconds,
        "sha256": _file_hashes(run),
    }
    _write(run, "base", content)


def read_base(run: RunFolder) -> KeptBase | None:
    """None where it was not kept, or where any file of it changed."""
    try:
        content = _read(run, "base")
        if content is None or content["sha256"] != _file_hashes(run):
            return None
        arm = Arm(*(list(read_jsonl(run.evidence / name)) for name in FILES))
        preferences = list(read_jsonl(run.evidence / PREFERENCES)) if PREFERENCES in content["sha256"] else []
    except (OSError, ValueError, KeyError):
        return None
    samples = [(request, reference, answer) for request, reference, answer in content["samples"]]
    return KeptBase(arm, _answers(content["own"]), samples, preferences, content["seconds"])


def write_replay(run: RunFolder, kept: KeptReplay) -> None:
    """Raises RunError when the disk refuses."""
    _write(run, "replay", asdict(kept))


def read_replay(run: RunFolder) -> KeptReplay | None:
    """None where it was not kept, or where it changed."""
    content = _read(run, "replay")
    return KeptReplay(_answers(content["answers"]), content["seconds"]) if content else None


def _write(run: RunFolder, name: str, content: dict[str, Json]) -> None:
    write_json(run.evidence / f"{name}.json", {**content, "content_sha256": _hash(content)})


def _read(run: RunFolder, name: str) -> dict[str, Json] | None:
    """None where there is no such file, or where it is not what was written."""
    try:
        content: dict[str, Json] = json.loads((run.evidence / f"{name}.json").read_text(encoding="utf-8"))
        return content if content.pop("content_sha256") == _hash(content) else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _answers(records: Sequence[dict[str, Json]]) -> list[Answer]:
    return [Answer(**record) for record in records]


def _file_hashes(run: RunFolder) -> dict[str, str]:
    names = (*FILES, PREFERENCES) if (run.evidence / PREFERENCES).exists() else FILES
    return {name: hashlib.sha256((run.evidence / name).read_bytes()).hexdigest() for name in names}


def _hash(content: Json) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
