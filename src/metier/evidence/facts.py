"""What results.json says of a run beside its evidence: the model, the data, the training, the cost."""

import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from peft import PeftModel

from metier.models.adapters import weights_moved
from metier.models.load import BaseModel
from metier.sources import general
from metier.sources.formats.outcome import LEFT_OUT
from metier.sources.read import Corpus
from metier.sources.split import Split
from metier.training.loop import Trained
from metier.training.plan import Plan


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
    trained: Trained,
    planned: Plan,
    replay_s: float,
    probe: dict[str, float],
    mix: list[dict[str, Any]],
    rate: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """replay_s: seconds that writing it took. probe: what moved on held-out rows. rate: how the learning rate was
    found, where it was looked for."""
    return {
        "steps": trained.n_steps,
        "epochs": round(planned.epochs * trained.n_tokens / planned.train_tokens, 4),
        "lr": rate["chosen"] if rate else planned.lr,
        "tokens": trained.n_tokens,
        "supervised_tokens": trained.n_supervised,
        "replay_share": trained.n_replay_tokens / trained.n_tokens,
        "replay_tokens": trained.n_replay_tokens,
        "replay_seconds": replay_s,
        "replay_requests": f"version {general.REPLAY_VERSION}",
        "distance": planned.distance,
        "mix": mix,
        "seconds": trained.seconds,
        "interrupted": trained.interrupted,
        "pack_tokens": trained.pack_tokens,
        "rollbacks": [asdict(rollback) for rollback in trained.rollbacks],
        "probe": probe,
        **({"lr_probe": dict(rate)} if rate else {}),
    }


@dataclass(frozen=True)
class Cost:
    """Seconds and bytes of a run. train_s has the writing of the replay and the trying of learning rates in it, the
    rates of training have not; evidence_s has the steps beside the run that its trajectory takes."""

    train_s: float
    evidence_s: float
    total_s: float
    train_tokens_per_s: float
    examples_per_s: float
    peak_rss_bytes: int


def cost(
    trained: Trained, rate: Mapping[str, Any] | None, replay_s: float, evidence_s: float, total_s: float
) -> dict[str, Any]:
    """rate: how the learning rate was found, where it was looked for."""
    return asdict(
        Cost(
            replay_s + trained.seconds + (rate["lost_seconds"] + rate["judging_seconds"] if rate else 0.0),
            trained.early_seconds + evidence_s,
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
