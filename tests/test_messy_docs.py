"""A folder of real, damaged, locked and oddly encoded files ends as its manifest says, where that folder is at hand."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("METIER_MESSY_DOCS") or ROOT.parent / "shared" / "data" / "messy-docs")


@pytest.mark.skipif(not FOLDER.is_dir(), reason="METIER_MESSY_DOCS names no folder")
def test_every_messy_document_ends_as_its_manifest_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from messy_docs import judge

    judged = judge(FOLDER)
    assert len(judged) == 47
    assert [one for one in judged if not one.is_right] == []
    assert sys.modules.pop("messy_docs")
