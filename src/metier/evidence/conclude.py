"""From the measurements to results.json."""

import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from peft import PeftModel

from metier.evidence.gain import FIELD_SLICE, gain
from metier.evidence.measure import After, Before, answers_as_samples
from metier.evidence.preferences import preferences
from metier.evidence.retention import retention
from metier.evidence.verdict import decide
from metier.evidence.withheld import ALL_LEAKED, clean_items, leak_reasons, withhold
from metier.models.adapters import weights_moved
from metier.models.load import BaseModel
from metier.sources import general
from metier.sources.formats.outcome import LEFT_OUT
from metier.sources.leaks import Leaks
from metier.sources.read import Corpus
from metier.sources.split import Split, Unit
from metier.training.loop import Trained
from metier.training.plan import Plan

SCHEMA = 1
NOT_MEASURED = {
    "decision": "cannot_tell",
    "sentence": "Cannot tell. Nothing was measured: the run was told to leave the evidence out.",
    "reasons": ["Run again with --evidence quick, or use `metier prove` on the adapter."],
}


def verdict_part(before: Before, after: After, unit: Unit, margin: float, leaks: Leaks | None = None) -> dict[str, Any]:
    """gain, retention, preferences where there are any, leaks, samples and the verdict on them; the verdict alone when
    nothing was measured.

    leaks: what of the measured text was trained on; None when that is not known
    """
    if not before.items.field:
        return {"verdict": NOT_MEASURED}
    leaks = leaks or Leaks()
    arms = before.base.scores, after.adapted.scores
    clean = tuple(clean_items(arm, leaks) for arm in arms)
    found = {"leaks": leaks.as_json()}
    n_leaked = len(arms[0]) - len(clean[0])
    if n_leaked:
        found["leaks"]["gain_with_leaks"] = gain(*arms)
    if not any(record["slice"] == FIELD_SLICE for record in clean[0]):
        return {"verdict": ALL_LEAKED, **found}
    gained = gain(*clean)
    retained = retention(
        before.base.scores,
        after.adapted.scores,
        before.base.choices,
        after.adapted.choices,
        before.base.answers,
        after.adapted.answers,
        text_margin=margin,
    )
    items = before.items
    measured = {*(e.id for e in items.texts), *(r.id for r in items.requests), *(c.id for c in items.choices)}
    retained = withhold(retained, leaks, measured)
    verdict = decide(gained, retained, unit)
    return {
        "verdict": {**verdict, "reasons": [*leak_reasons(leaks, n_leaked), *verdict["reasons"]]},
        "gain": {**gained, "foretold_relative_detectable": before.foretold},
        "retention": {"pack": f"general pack, version {general.VERSION}", **retained},
        **({"preferences": preferences(before.preferences, after.preferences)} if before.preferences else {}),
        **found,
        "samples": answers_as_samples(before, after),
    }


def model_facts(base: BaseModel, model: Any, n_trained: int = 0) -> dict[str, Any]:
    """model: the base with its adapter, or another model that stands as the adapted one. n_trained: numbers that were
    trained; for an adapter that was not trained here, all that it holds."""
    if not isinstance(model, PeftModel):
        return {
            "base": base.name,
            "sha256": base.sha256,
            "parameters": base.n_parameters,
            "trainable_parameters": n_trained,
        }
    n_adapter = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name or "trainable_tokens_" in name)
    return {
        "base": base.name,
        "sha256": base.sha256,
        "parameters": base.n_parameters - n_adapter,
        "trainable_parameters": n_trained or n_adapter,
        "weights_moved": weights_moved(model),
    }


def data_facts(corpus: Corpus, split: Split, train_tokens: int) -> dict[str, Any]:
    return {
        "files_read": sum(file.status in ("ok", "partial") for file in corpus.files),
        "files_rejected": sum(file.status in LEFT_OUT for file in corpus.files),
        "examples": len(corpus.examples),
        "documents": len({e.document for e in (*split.train, *split.select, *split.test)}),
        "train_tokens": train_tokens,
        "held_out_documents": len({e.document for e in (*split.select, *split.test)}),
        "held_out_unit": split.unit,
        "formats": [
            {"source": f.source, "format": f.format, "fields": dict(f.fields), "rows": f.rows} for f in corpus.formats
        ],
    }


def training_facts(
    trained: Trained, planned: Plan, probe: dict[str, float], rate: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """probe: what moved on held-out rows. rate: how the learning rate was found, where it was looked for."""
    return {
        "steps": trained.n_steps,
        "epochs": round(planned.epochs * trained.n_tokens / planned.train_tokens, 4),
        "lr": rate["chosen"] if rate else planned.lr,
        "tokens": trained.n_tokens,
        "supervised_tokens": trained.n_supervised,
        "replay_share": trained.n_replay_tokens / trained.n_tokens,
        "replay_tokens": trained.n_replay_tokens,
        "seconds": trained.seconds,
        "interrupted": trained.interrupted,
        "pack_tokens": trained.pack_tokens,
        "rollbacks": [asdict(rollback) for rollback in trained.rollbacks],
        "probe": probe,
        **({"lr_probe": dict(rate)} if rate else {}),
    }


@dataclass(frozen=True)
class Cost:
    """Seconds and bytes of a run. train_s has the trying of learning rates in it, the rates of training have not."""

    train_s: float
    evidence_s: float
    total_s: float
    train_tokens_per_s: float
    examples_per_s: float
    peak_rss_bytes: int


def cost(trained: Trained, rate: Mapping[str, Any] | None, evidence_s: float, total_s: float) -> dict[str, Any]:
    """rate: how the learning rate was found, where it was looked for."""
    return asdict(
        Cost(
            trained.seconds + (rate["lost_seconds"] + rate["judging_seconds"] if rate else 0.0),
            evidence_s,
            total_s,
            trained.n_tokens / trained.seconds,
            trained.n_documents / trained.seconds,
            peak_rss_bytes(),
        )
    )


def peak_rss_bytes() -> int:
    """Of this process so far; the kernel counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
