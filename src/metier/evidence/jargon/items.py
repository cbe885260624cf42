"""Multiple-choice items about the field's terms, made from held-out text: which term stands here, which definition is
whose.

A term is chosen by what a causal model makes of the whole: each choice is a candidate with all that follows it in its
sentence, after the same words. So what comes after the gap counts too, though the model reads only forwards.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metier.evidence.jargon.occurrences import Occurrence, Record, occurrences
from metier.evidence.retention import check_choice, choice_probabilities
from metier.evidence.statistics import mcnemar, mean_estimate, paired
from metier.sources.mine import SENTENCE_END, Term

DISTRACTORS = 3
MOST_OF_ONE_TERM = 3  # items
MOST_ITEMS = 400
SHORTEST_LEFT = 20  # characters of the sentence before the gap
MOST_LEFT, MOST_RIGHT = 400, 120  # characters read before, and scored after, the candidate
LENGTH, FREQUENCY = 1.5, 4.0  # a distractor is at most so many times as long or as frequent, or as short or as rare
SHORTEST_DEFINITION, LONGEST_DEFINITION = 20, 300  # characters
NEIGHBOURS = 6  # definitions next shorter and next longer, from which the wrong ones are drawn
SAYS = re.compile(r"(?:,? \([^)]*\),?)?,? (?:is|are|means|denotes|describes|refers to|is defined as) ", re.IGNORECASE)
ARTICLE = re.compile(r"(?:the term |an? |the )?", re.IGNORECASE)


@dataclass(frozen=True)
class TermItem:
    """As sources.general.Choice, with its own stem; `document` is the cluster for resampling."""

    id: str
    kind: str  # "cloze" or "definition"
    stem: str
    choices: tuple[str, ...]
    label: int
    term: str
    document: str


@dataclass(frozen=True)
class _Place:
    """One occurrence, as it is written in its sentence."""

    written: str
    left: str
    right: str


def cloze_items(passages: Sequence[Record], terms: Sequence[str], seed: int) -> list[TermItem]:
    """Sentences with a term hidden; three other terms of the passages as distractors.

    A distractor has as many words and the same capitals, plural s and (after a or an) kind of first letter; about the
    same length and number of occurrences; and stands nowhere in the sentence. A place without three such is left out.
    passages: {"item", "document", "text"}
    """
    rng = random.Random(seed)
    found = occurrences(passages, terms)
    counts = Counter(one.name for one in found)
    written = {one.name: passages[one.passage]["text"][one.start : one.end] for one in reversed(found)}  # as first met
    items: list[TermItem] = []
    of_term: Counter[str] = Counter()
    for one in rng.sample(found, len(found)):
        passage = passages[one.passage]
        place = _place(passage["text"], one)
        if place is None or of_term[one.name] >= MOST_OF_ONE_TERM:
            continue
        fitting = [
            other
            for name, other in written.items()
            if name != one.name and _alike(place, other, counts[name] / counts[one.name])
        ]
        if len(fitting) < DISTRACTORS:
            continue
        choices = [place.written, *rng.sample(fitting, DISTRACTORS)]
        of_term[one.name] += 1
        name = f"{passage['item']}@{one.start}"
        items.append(
            _shuffled(name, "cloze", place.left, [c + place.right for c in choices], one.name, passage["document"], rng)
        )
        if len(items) == MOST_ITEMS:
            break
    return items


def definition_items(definitions: Sequence[Term], seed: int) -> list[TermItem]:
    """Terms with their definition among three of other terms, the closest in length.

    What repeats the term is cut from the start of its definition ("A safety valve is a …"); a definition that holds
    the term elsewhere, or what an acronym stands for, asks for letters and not for meaning, and is left out.
    """
    rng = random.Random(seed)
    usable = sorted(
        ((meaning, one) for one in definitions if (meaning := _meaning(one))), key=lambda pair: len(pair[0])
    )
    items = []
    for i in rng.sample(range(len(usable)), len(usable)):
        meaning, one = usable[i]
        near = usable[max(0, i - NEIGHBOURS) : i] + usable[i + 1 : i + 1 + NEIGHBOURS]
        others = sorted({other for other, _ in near if other != meaning and not _holds(other, one.term)})
        if len(others) >= DISTRACTORS:
            choices = [meaning, *rng.sample(others, DISTRACTORS)]
            stem = f"Question: What is meant by {one.term}?\nAnswer:"
            name = f"definition:{one.term}"
            items.append(_shuffled(name, "definition", stem, choices, one.term, one.document, rng))
        if len(items) == MOST_ITEMS:
            break
    return items


def choice_accuracy(base_records: Sequence[Record], adapted_records: Sequence[Record]) -> dict[str, Any] | None:
    """How often each model chose right, of the same items; None without items.

    records: {"item", "slice", "nll": [nats of each choice], "bytes": […], "label"}, as evidence/choices-*.jsonl;
    "document" where it is known is the cluster. Choices are compared per byte (retention.choice_probabilities).

    Raises:
        DataError: the two arms do not hold the same items, or an item cannot be judged.
    """
    pairs = paired(base_records, adapted_records, equal_fields=("bytes", "label"))
    if not pairs:
        return None
    for record in (one for pair in pairs for one in pair):
        check_choice(record)
    labels = [record["label"] for record, _ in pairs]
    before, after = ([choice_probabilities(pair[arm]) for pair in pairs] for arm in (0, 1))
    right = [[p.index(max(p)) == label for p, label in zip(arm, labels, strict=True)] for arm in (before, after)]
    sure = [[p[label] for p, label in zip(arm, labels, strict=True)] for arm in (before, after)]
    documents = [str(record.get("document", record["item"])) for record, _ in pairs]
    gained = mean_estimate((np.array(right[1], dtype=float) - np.array(right[0], dtype=float)).tolist(), documents)
    surer = mean_estimate((np.array(sure[1]) - np.array(sure[0])).tolist(), documents)
    found = {
        "n_items": len(pairs),
        "chance": float(np.mean([1 / len(p) for p in before])),
        "accuracy_base": float(np.mean(right[0])),
        "accuracy_adapted": float(np.mean(right[1])),
        "diff": gained.value,
        "ci_low": (gained.interval or (None, None))[0],
        "ci_high": (gained.interval or (None, None))[1],
        "mcnemar_p": mcnemar(right[0], right[1]),
        "probability_base": float(np.mean(sure[0])),
        "probability_adapted": float(np.mean(sure[1])),
        "probability_diff": surer.value,
        "probability_ci_low": (surer.interval or (None, None))[0],
        "probability_ci_high": (surer.interval or (None, None))[1],
        "method": f"likeliest choice per byte; exact McNemar on items that changed; {gained.method}",
    }
    return {"sentence": _sentence(found), **found}


def _place(text: str, one: Occurrence) -> _Place | None:
    """Where a term stands with enough before it; None at the start of a sentence, and in what is no sentence."""
    begins = max((match.end() for match in SENTENCE_END.finditer(text, 0, one.start)), default=0)
    begins = max(begins, text.rfind("\n\n", 0, one.start) + 2 if "\n\n" in text[: one.start] else 0)
    ends = [match.start() for match in SENTENCE_END.finditer(text, one.end)] + [text.find("\n\n", one.end), len(text)]
    end = min(place for place in ends if place >= 0)
    before = text[begins : one.start]
    if len(before.strip()) < SHORTEST_LEFT or not before.endswith(" "):
        return None
    cut = max(0, one.start - MOST_LEFT)
    left = text[text.find(" ", cut, one.start - 1) + 1 if cut else 0 : one.start - 1]
    return _Place(text[one.start : one.end], left, text[one.end : min(end, one.end + MOST_RIGHT)])


def _alike(place: _Place, other: str, times_as_frequent: float) -> bool:
    """Whether another term could stand here by its shape."""
    own = place.written
    after_article = re.search(r"\ban?$", place.left, re.IGNORECASE) is not None
    longer = max(len(own), len(other)) / min(len(own), len(other))
    return (
        _shape(own, after_article) == _shape(other, after_article)
        and longer <= LENGTH
        and 1 / FREQUENCY <= times_as_frequent <= FREQUENCY
        and not _holds(f"{place.left[-MOST_RIGHT:]} {own}{place.right}", other)
    )


def _shape(term: str, after_article: bool) -> tuple[Any, ...]:
    first = term[0].lower() in "aeiou" if after_article else None
    return (
        len(term.split()),
        term.isupper(),
        term[0].isupper(),
        any(c.isdigit() for c in term),
        term[-1] == "s",
        first,
    )


def _holds(text: str, term: str) -> bool:
    return bool(occurrences([{"text": text}], [term]))


def _meaning(one: Term) -> str:
    """The first sentence of a definition without the words that only repeat the term; '' where it is of no use."""
    definition = SENTENCE_END.split(" ".join(one.definition.split()))[0]
    opening = ARTICLE.match(definition)
    rest = definition[opening.end() if opening else 0 :]
    if rest.lower().startswith(one.term.lower()) and (says := SAYS.match(rest, len(one.term))):
        definition = rest[says.end() :]
    initials = "".join(word[0] for word in definition.split()).lower()
    usable = SHORTEST_DEFINITION <= len(definition) <= LONGEST_DEFINITION and not _holds(definition, one.term)
    return definition if usable and initials != one.term.lower() else ""


def _shuffled(
    name: str, kind: str, stem: str, choices: Sequence[str], term: str, document: str, rng: random.Random
) -> TermItem:
    """choices: the right one first."""
    order = rng.sample(range(len(choices)), len(choices))
    return TermItem(name, kind, stem, tuple(choices[i] for i in order), order.index(0), term, document)


def _sentence(found: Mapping[str, Any]) -> str:
    base, adapted, chance = (100 * found[key] for key in ("accuracy_base", "accuracy_adapted", "chance"))
    turned = "more often" if found["diff"] > 0 else "less often" if found["diff"] < 0 else "as often"
    sure = "" if found["mcnemar_p"] < 0.05 else ", which chance alone could do"
    return (
        f"Of {found['n_items']} questions the adapted model chose right {turned} ({adapted:.0f} %, base {base:.0f} %, "
        f"guessing {chance:.0f} %; exact McNemar p = {found['mcnemar_p']:.2g}){sure}."
    )
