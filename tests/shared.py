"""Real data beside the repository, where there is any: METIER_SHARED, else ../shared."""

import json
import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("METIER_SHARED") or Path(__file__).parents[2] / "shared") / "data"


def texts_of(name: str) -> list[str]:
    """All texts of a corpus; skips the test where it is not there."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not there: set METIER_SHARED")
    return [
        json.loads(line)["text"]
        for path in sorted((SHARED / name).glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
