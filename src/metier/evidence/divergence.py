"""How far the adapted model's expectations lie from the base's: no loss, but the first sign of one.

KL(base || adapted) of the next token is far less noisy than a difference of losses, for it does not depend on which
word the text happens to go on with; and forgetting follows the divergence on the *new* text (arXiv 2509.04259).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from metier.evidence.gain import FIELD_SLICE
from metier.evidence.retention import OWN_ANSWERS
from metier.evidence.statistics import Estimate, Record, ratio_estimate

TEXT = "text"


def read_beside(records: Sequence[Record]) -> list[Record]:
    """Those of evidence/dial.jsonl that hold `kl`, `entropy_base` and `entropy_adapted`, sums over their tokens in
    nats: of full strength after the last step, and of halfway."""
    return [record for record in records if "kl" in record]


def divergence_part(records: Sequence[Record]) -> dict[str, Any] | None:
    """The `retention.divergence` of results.json: nats a token after the last step; None where nothing was read."""
    if not records:
        return None
    last = max(record["step"] for record in records)
    after = [record for record in records if record["step"] == last]
    found = {name: [r for r in after if _is_of(r, name)] for name in (FIELD_SLICE, TEXT, OWN_ANSWERS)}
    slices = {name: _slice(of_slice) for name, of_slice in found.items() if of_slice}
    return {
        "unit": "nats a token",
        "slices": slices,
        "sentence": _sentence(slices),
        "method": "KL(base || adapted at full strength) of the next token, mean over tokens of what choices are made "
        "on; 95 % t intervals over documents.",
    }


def _is_of(record: Record, name: str) -> bool:
    """Whether it is of that slice; general text is of every register."""
    return bool(record["slice"] == name or (name == TEXT and record["slice"].startswith(f"{TEXT}/")))


def _slice(records: Sequence[Record]) -> dict[str, Any]:
    kl = _mean(records, "kl")
    low, high = kl.interval or (None, None)
    entropies = {name: _mean(records, name).value for name in ("entropy_base", "entropy_adapted")}
    return {"kl": kl.value, "ci_low": low, "ci_high": high, **entropies, "n_items": len(records)}


def _mean(records: Sequence[Record], name: str) -> Estimate:
    return ratio_estimate([r[name] for r in records], [r["tokens"] for r in records], [r["document"] for r in records])


def _sentence(slices: Mapping[str, Mapping[str, Any]]) -> str:
    named = {FIELD_SLICE: "on the field", TEXT: "on general text", OWN_ANSWERS: "on the base's own answers"}
    said = [f"{slices[name]['kl']:.3f} {where}" for name, where in named.items() if name in slices]
    listed = ", ".join(said[:-1]) + (" and " if said[1:] else "") + said[-1]
    return f"Its next token differs from the base's by {listed} (nats a token; 0 is the same model)."


def divergence_by_step(records: Sequence[Record]) -> list[dict[str, float]]:
    """[{step, kl_field}], in order of the steps, of the field."""
    field = [r for r in records if r["slice"] == FIELD_SLICE]
    return [
        {"step": step, "kl_field": _mean([r for r in field if r["step"] == step], "kl").value}
        for step in sorted({r["step"] for r in field})
    ]


def entropy_on_text(records: Sequence[Record]) -> dict[str, float] | None:
    """{base, adapted}: mean entropy of the next token on general text, nats, after the last step."""
    part = divergence_part(records)
    text = part and part["slices"].get(TEXT)
    return {"base": text["entropy_base"], "adapted": text["entropy_adapted"]} if text else None
