"""How good an answer is against a reference, by three measures that need no model, and whether one model's answers are
better than another's on the same questions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from metier.evidence.answers import WORD
from metier.evidence.statistics import mcnemar, mean_estimate, paired

Record = Mapping[str, Any]

CHRF_ORDER, CHRF_BETA = 6, 2
METHOD = (
    "Greedy answers to the same held-out questions. Exact match and F1 compare lower-case words without punctuation, "
    "chrF runs of one to six characters with recall counted twice (Popović 2015). Differences are paired by question: "
    "McNemar's exact test for exact match, t intervals over documents for the others."
)


def exact_match(answer: str, reference: str) -> bool:
    """The same words in the same order; case and punctuation do not count."""
    return _words(answer) == _words(reference)


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of the share of the answer's words that the reference has, and of the reference's that the answer
    has, each word as often as it occurs; 1 where both are empty."""
    given, wanted = Counter(_words(answer)), Counter(_words(reference))
    shared = (given & wanted).total()
    return 2 * shared / (given.total() + wanted.total()) if given or wanted else 1.0


def chrf(answer: str, reference: str) -> float:
    """0 to 1: precision and recall of character n-grams, white space left out, each averaged over the orders that both
    texts are long enough for; recall weighs CHRF_BETA times as much (Popović 2015)."""
    given, wanted = "".join(answer.split()), "".join(reference.split())
    precisions, recalls = [], []
    for n in range(1, min(CHRF_ORDER, len(given), len(wanted)) + 1):
        of_answer, of_reference = _grams(given, n), _grams(wanted, n)
        shared = (of_answer & of_reference).total()
        precisions.append(shared / of_answer.total())
        recalls.append(shared / of_reference.total())
    if not precisions:
        return float(given == wanted)
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    weight = CHRF_BETA**2
    both = weight * precision + recall
    return (1 + weight) * precision * recall / both if both else 0.0


def answer_quality(records: Sequence[Record], reference_arm: str) -> dict[str, Any]:
    """The `answers` of results.json's `arms`.

    records: of evidence/arm-answers.jsonl, {"arm", "item", "document", "reference", "answer", …}. Every arm is compared
    with `reference_arm`; `…_diff` is arm - reference arm, positive is better.

    Raises:
        DataError: the arms do not hold the same questions.
    """
    by_arm: dict[str, list[Record]] = {}
    for record in records:
        by_arm.setdefault(record["arm"], []).append(record)
    return {
        "arms": [_compared(name, by_arm[reference_arm], own) for name, own in by_arm.items()],
        "compared_with": reference_arm,
        "n_items": len(by_arm[reference_arm]),
        "n_documents": len({record["document"] for record in by_arm[reference_arm]}),
        "method": METHOD,
    }


def _compared(name: str, reference: Sequence[Record], own: Sequence[Record]) -> dict[str, Any]:
    pairs = paired(reference, own, equal_fields=("document", "reference"))
    found: dict[str, Any] = {"name": name}
    right = [tuple(exact_match(r["answer"], r["reference"]) for r in pair) for pair in pairs]
    found["exact"] = sum(there for _, there in right) / len(right)
    found["exact_p"] = mcnemar([here for here, _ in right], [there for _, there in right])
    for measure, score in (("f1", token_f1), ("chrf", chrf)):
        scores = [tuple(score(r["answer"], r["reference"]) for r in pair) for pair in pairs]
        diff = mean_estimate([there - here for here, there in scores], [here["document"] for here, _ in pairs])
        low, high = diff.interval or (None, None)
        found[measure] = sum(there for _, there in scores) / len(scores)
        found |= {f"{measure}_diff": diff.value, f"{measure}_ci_low": low, f"{measure}_ci_high": high}
    return found


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _grams(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))
