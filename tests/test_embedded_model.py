"""The embedded model and field, for real: minutes on a CPU, and the package index or METIER_WHEELS."""

import json
from pathlib import Path

import pytest

from metier.adapt import adapt
from metier.models.load import load_base
from metier.models.packing import PackReader, pack
from metier.prove import prove
from metier.settings import DEFAULT_MODEL
from metier.sources.examples import Example, Message

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _shared_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is fetched and converted once for this module."""
    monkeypatch.setenv("METIER_CACHE", str(tmp_path_factory.getbasetemp() / "embedded"))


def test_the_base_model_reads_packs_and_knows_its_template() -> None:
    base = load_base(DEFAULT_MODEL)
    assert base.n_parameters == 134_515_008
    assert base.encoder.has_own_template
    reader = PackReader(base.model)
    assert reader.why_plain == ""
    turns = (Message("user", "What is the capital of France?"), Message("assistant", "The capital of France is Paris."))
    likely, unlikely = (
        base.encoder.encode(Example("a", "a", 1, "a", messages=(turns[0], Message("assistant", text))))[0]
        for text in (turns[1].content, "The capital of France is seven.")
    )
    nll = [float(reader.token_nll(pack([document])).mean()) for document in (likely, unlikely)]
    assert nll[0] < 0.5 < nll[1]


def test_a_short_run_on_the_clinical_field_gains_and_the_base_against_itself_does_not(tmp_path: Path) -> None:
    run = adapt("pack:clinical", out=tmp_path / "run", tokens=8192, minutes=1)
    assert run.results["gain"]["relative_ci_low"] > 0
    assert run.verdict["decision"] in {"adapted", "cannot_tell"}
    ledger = json.loads(run.folder.ledger.read_text(encoding="utf-8"))
    assert ledger["rows"]["total"] == 16_449
    same = prove(base=DEFAULT_MODEL, model=DEFAULT_MODEL, domain="pack:clinical", out=tmp_path / "same", minutes=1)
    assert same.verdict["decision"] == "no_gain"
    assert same.results["gain"]["diff"] == 0
    assert same.results["gain"]["ci_low"] <= 0 <= same.results["gain"]["ci_high"]
