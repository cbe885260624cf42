"""Does it prefer what people chose? Held-out pairs of answers, base against adapted."""

from collections.abc import Mapping, Sequence
from typing import Any

from metier.evidence.score import Advance, Record, score_branches
from metier.evidence.statistics import ratio_estimate
from metier.evidence.verdict import MIN_DOCUMENTS
from metier.models.encoding import Encoded
from metier.models.packing import PackReader
from metier.sources.shown import counted
from metier.training.preferences import branches_of

METHOD = (
    "Both answers of every held-out pair are scored by both models, end tokens with them; a pair is right where the "
    "chosen answer has the smaller sum of nats. The change is paired, with a t interval over documents."
)


def score_pairs(
    reader: PackReader,
    documents: Sequence[Encoded],
    document_of: Mapping[str, str],
    pack_tokens: int,
    advance: Advance,
) -> list[Record]:
    """Nats of both answers, end tokens with them, of every document that is a preference; others are passed over.

    document_of: item → the document that it belongs to.
    """
    pairs = [branches_of(d) for d in documents if d.rejected]
    scored = score_branches(reader, pairs, pack_tokens, advance)
    return [
        {
            "item": pair.item,
            "document": document_of[pair.item],
            "chosen_nll": scored[f"{pair.item}#0"].nll,
            "rejected_nll": scored[f"{pair.item}#1"].nll,
        }
        for pair in pairs
    ]


def preferences(base: Sequence[Mapping[str, Any]], adapted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The `preferences` of results.json, from the records of both arms in the same order.

    base, adapted  accuracy: share of the pairs whose chosen answer is the likelier one
    diff           adapted - base, positive is better, with a 95 % interval over documents (None for one document)
    moved          share of the pairs in which the chosen answer gained on the rejected one
    margin         nats by which it did, on average
    sentence       what that says
    """
    ahead = [[r["rejected_nll"] - r["chosen_nll"] for r in records] for records in (base, adapted)]
    right = [[float(a > 0) for a in arm] for arm in ahead]
    margins = [after - before for before, after in zip(*ahead, strict=True)]
    changed = [after - before for before, after in zip(*right, strict=True)]
    n = len(margins)
    diff = ratio_estimate(changed, [1.0] * n, [r["document"] for r in base])
    ci_low, ci_high = diff.interval or (None, None)
    found: dict[str, Any] = {
        "unit": "share of pairs whose chosen answer is the likelier one",
        "base": sum(right[0]) / n,
        "adapted": sum(right[1]) / n,
        "diff": diff.value,
        "ci_low": ci_low,
        "ci_high": ci_high,
        "moved": sum(m > 0 for m in margins) / n,
        "margin": sum(margins) / n,
        "n_items": n,
        "n_documents": diff.n_documents,
        "method": METHOD,
    }
    return {**found, "sentence": _sentence(found)}


def _sentence(found: Mapping[str, Any]) -> str:
    shares = f"{_percent(found['adapted'])} of {found['n_items']:,} held-out pairs instead of {_percent(found['base'])}"
    said = f"The chosen answer is the likelier one in {shares}"
    if found["n_documents"] < MIN_DOCUMENTS:
        return (
            f"{said}: cannot tell whether that was learned, as they are of {counted(found['n_documents'], 'document')}."
        )
    bounds = f"95 % interval of the change {100 * found['ci_low']:+.0f} to {100 * found['ci_high']:+.0f} points"
    bounds = bounds.replace("-", "−")
    if found["ci_low"] > 0:
        return f"{said} ({bounds}): it learned the preference."
    if found["ci_high"] < 0:
        return f"{said} ({bounds}): it learned the opposite."
    return f"{said} ({bounds}): the order may not have changed; more held-out pairs would decide."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
