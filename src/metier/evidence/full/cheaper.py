"""Would something cheaper have done? The arms on the same held-out queries, and one recommendation by a rule named
beforehand.

Training is recommended only where the adapted model needs surely fewer bits than the best of the arms that need no
training. Which of these is the best is seen on the test half itself: that flatters them, never the training.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from metier.evidence.statistics import Estimate, Record, bits_difference, bits_per_byte, paired_scores
from metier.evidence.verdict import MIN_DOCUMENTS

NOTHING, BASE, ADAPTED, NGRAM = "base, given nothing", "base", "adapted", "base mixed with n-grams"
METHOD = (
    "The same held-out text in every arm. Examples and passages come from exactly the text that was trained on; how "
    "many there are, and the instruction, was chosen on the select half, for each arm by itself; all figures are of "
    "the test half. Training is recommended only if the paired interval of its difference to the best cheaper arm lies "
    "above zero, that arm being the best on the test half itself."
)
WHAT = {
    "text": "the second half of held-out documents, given the first",
    "answer": "the answers to held-out questions",
}


def cheaper(records: Sequence[Record], costs: Mapping[str, float]) -> dict[str, Any]:
    """The `arms` of results.json.

    records: of evidence/arms.jsonl, score records with "arm", "half", "kind" ("text" or "answer"), "read" (tokens),
    "examples", "passages" and "prompt". costs: {"train_s", "score_tokens_per_s"}.
    `bits` are bits per byte; `diff_to_base` is base - arm, positive is better; `recommended` names an arm, or is None
    where nothing can be decided. `break_even_queries`: how many queries it takes until what the best cheaper arm reads
    more for each has cost as much time as training; None where training saves no tokens.

    Raises:
        DataError: the arms do not hold the same items.
    """
    test = _by_arm(records, "test")
    base = test.get(BASE, [])
    n_documents = len({record["document"] for record in base})
    found: dict[str, Any] = {
        "unit": "bits per byte",
        "what": WHAT[base[0]["kind"]] if base else None,
        "arms": [_arm(name, own, base) for name, own in test.items()] if base else [],
        "recommended": None,
        "trained": None,
        "rival": None,
        "margin": None,
        "break_even_queries": None,
        "n_documents": n_documents,
        "method": METHOD,
    }
    trained = _trained_arm(records)
    if trained is None or n_documents < MIN_DOCUMENTS:
        return {**found, "sentence": _undecided(n_documents, trained)}
    rivals = [name for name in test if name not in (NOTHING, BASE) and not name.startswith(ADAPTED)]
    rival = min([BASE, *rivals], key=lambda name: bits_per_byte(test[name]))
    margin = bits_difference(paired_scores(test[rival], test[trained]))
    pays = _is_above_zero(margin)
    recommended = trained if pays else _cheapest(test, rival)
    saved = _mean_read(test[rival]) - _mean_read(test[trained])
    break_even = costs["train_s"] * costs["score_tokens_per_s"] / saved if saved > 0 else None
    return {
        **found,
        "recommended": recommended,
        "trained": trained,
        "rival": rival,
        "margin": {"diff": margin.value, **_interval(margin)},
        "break_even_queries": break_even,
        "sentence": _sentence(test, trained, rival, recommended, margin),
    }


def _by_arm(records: Sequence[Record], half: str) -> dict[str, list[Record]]:
    arms: dict[str, list[Record]] = {}
    for record in records:
        if record["half"] == half:
            arms.setdefault(record["arm"], []).append(record)
    return arms


def _arm(name: str, own: Sequence[Record], base: Sequence[Record]) -> dict[str, Any]:
    diff = bits_difference(paired_scores(base, own))
    first = own[0]
    return {
        "name": name,
        "bits": bits_per_byte(own),
        "diff_to_base": diff.value,
        **_interval(diff),
        "tokens_per_query": _mean_read(own),
        "examples": first["examples"],
        "passages": first["passages"],
        "prompt": first["prompt"],
        "n_items": diff.n_items,
        "n_documents": diff.n_documents,
    }


def _trained_arm(records: Sequence[Record]) -> str | None:
    """The better one of the adapted arms on the select half; None where none was measured."""
    arms = {name: own for name, own in _by_arm(records, "select").items() if name.startswith(ADAPTED)}
    return min(arms, key=lambda name: bits_per_byte(arms[name])) if arms else None


def _cheapest(test: Mapping[str, Sequence[Record]], rival: str) -> str:
    """The rival where it is surely better than the base as it is prompted, else the base."""
    if rival == BASE:
        return BASE
    return rival if _is_above_zero(bits_difference(paired_scores(test[BASE], test[rival]))) else BASE


def _is_above_zero(estimate: Estimate) -> bool:
    interval = estimate.interval
    return interval is not None and interval[0] > 0


def _interval(estimate: Estimate) -> dict[str, float | None]:
    low, high = estimate.interval or (None, None)
    return {"ci_low": low, "ci_high": high}


def _mean_read(own: Sequence[Record]) -> float:
    return sum(float(record["read"]) for record in own) / len(own)


# the sentences -------------------------------------------------------------------------------------------------------


def _undecided(n_documents: int, trained: str | None) -> str:
    if trained is None and n_documents:
        return "Cannot tell: the adapted model was not measured beside the cheaper arms."
    return (
        f"Cannot tell: {n_documents} held-out {'document is' if n_documents == 1 else 'documents are'} too few to "
        f"compare arms on; at least {MIN_DOCUMENTS} are needed."
    )


def _sentence(
    test: Mapping[str, Sequence[Record]], trained: str, rival: str, recommended: str, margin: Estimate
) -> str:
    what = WHAT[test[rival][0]["kind"]]
    low, high = margin.interval or (0.0, 0.0)
    shown = f"95 % interval {_bits(low)} to {_bits(high)}; {margin.n_documents} documents"
    if recommended == trained:
        return (
            f"Training pays: for {what}, the {said(trained)} needs {_bits(margin.value)} bits per byte fewer than the "
            f"best that needs no training, the {said(rival)} ({shown})."
        )
    if high < 0:
        compared = (
            f"needs {_bits(-margin.value)} bits per byte more than the {said(rival)} (95 % interval {_bits(-high)} "
        )
        compared += f"to {_bits(-low)}; {margin.n_documents} documents)"
    else:
        compared = (
            f"is not shown to need fewer bits than the {said(rival)} ({_bits(margin.value)} bits per byte; {shown})"
        )
    return f"Use the {said(recommended)}: for {what}, the {said(trained)} {compared}."


def _bits(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def said(name: str) -> str:
    """An arm as it is named in a sentence: 'base + retrieval' is 'base model with retrieval'."""
    if name == NGRAM:
        return "base model mixed with counted n-grams"
    model, *told = name.split(" + ")
    return f"{model} model{' with ' + ' and '.join(told) if told else ''}"
