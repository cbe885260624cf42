"""Smaller questions to both models: which term stands here, which definition is whose, what do the terms mean; and, of
the adapter as it was trained, is training text recited, and do examples in the prompt still help.

The questions about terms are made from the held-out test half; those after examples are of the general pack.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from metier.evidence.full.readers import TWO, Models, models_of
from metier.evidence.jargon.items import choice_accuracy, cloze_items, definition_items
from metier.evidence.score import MultipleChoice, Record, encode_items, score_general
from metier.evidence.subject import Subject
from metier.models.decoding import continue_all
from metier.models.encoding import Encoder
from metier.models.generate import answer_all, prompts_of
from metier.models.packing import PackReader
from metier.runs import write_jsonl
from metier.sources import general
from metier.sources.examples import Example
from metier.sources.general import Choice
from metier.sources.mine import mined_terms

QUESTIONS, DEFINITIONS = "questions.jsonl", "definitions.jsonl"
PROMPTED, EXTRACTION = "prompted.jsonl", "extraction.jsonl"
FEW_SHOT = "few-shot"
EXAMPLES = 3  # before a general question
PREFIX = 32  # tokens of training text that are shown, and as many that must follow word for word
LONGEST_PROMPT = 256  # tokens of what stands before a recited answer
DEFINED, DEFINITION_TOKENS = 12, 64  # terms that both models define, for the reader, and the length of it

Start = tuple[tuple[int, ...], tuple[int, ...]]  # what is shown, and what follows it in the training text


@dataclass(frozen=True)
class About:
    """What terms are asked about. n: questions of each kind, at most. passages: {item, document, text} of the test
    half. terms: of the field, the foremost first. test: what was held out, for its definitions."""

    n: int
    passages: Sequence[Record]
    terms: Sequence[str]
    test: Sequence[Example]


def ask_about_terms(subject: Subject, models: Models, about: About) -> None:
    """Write evidence/questions.jsonl (choice records with `arm` and `document`) and definitions.jsonl ({term, base,
    adapted})."""
    seed = subject.settings.seed
    cloze = cloze_items(about.passages, about.terms, seed)[: about.n]
    meanings = definition_items(mined_terms(about.test), seed)[: about.n]
    documents = {one.id: one.document for one in (*cloze, *meanings)}
    terms = about.terms[: min(DEFINED, about.n)]
    requests = [f"What is meant by “{term}”?" for term in terms]
    definitions: list[dict[str, Any]] = [{"term": term} for term in terms]
    subject.say.begin("both models are asked about the field's terms", len(TWO))
    for i, which in enumerate(TWO):
        with models.reading(which) as reader:
            encoder = models.encoder_of(which)
            answers = answer_all(reader.model, encoder, prompts_of(encoder, requests), DEFINITION_TOKENS)
        for row, answer in zip(definitions, answers, strict=True):
            row[which] = answer.answer
        subject.say.advance(i + 1)
    records = _choose(subject, models, [*cloze, *meanings])
    subject.say.end()
    write_jsonl(subject.run.evidence / QUESTIONS, [{**r, "document": documents[str(r["item"])]} for r in records])
    write_jsonl(subject.run.evidence / DEFINITIONS, definitions)


def ask_as_trained(subject: Subject, adapted: PackReader, train: Sequence[Example], n: int) -> None:
    """Write evidence/prompted.jsonl (choice records with `arm`) and extraction.jsonl ({item, base, adapted}: whether
    what follows in the training text was continued word for word), of the adapter at full strength.

    Nothing is recited where the adapter brings tokens of its own: both models would be shown different tokens.
    """
    models = models_of(subject, adapted)
    starts = dict(islice(_starts(subject.encoder, train, subject.settings.seed), 0 if subject.new_tokens else n))
    subject.say.begin("both models are asked to recite, and with examples", len(TWO))
    rows: list[dict[str, Any]] = [{"item": item} for item in starts]
    for i, which in enumerate(TWO):
        with models.reading(which) as reader:
            said = recite(reader.model, list(starts.values()), subject.encoder.ends, subject.settings.pack_tokens)
        for row, right in zip(rows, said, strict=True):
            row[which] = right
        subject.say.advance(i + 1)
    records = _choose(subject, models, few_shot_items(n))
    subject.say.end()
    write_jsonl(subject.run.evidence / PROMPTED, records)
    write_jsonl(subject.run.evidence / EXTRACTION, rows)


def _choose(subject: Subject, models: Models, questions: Sequence[MultipleChoice]) -> list[Record]:
    """Choice records of both models, with `arm`."""
    records: list[Record] = []
    for which in TWO:
        items = encode_items(models.encoder_of(which), (), (), (), (), questions)
        with models.reading(which) as reader:
            choices = score_general(reader, items, subject.settings.pack_tokens, lambda _: None)[1]
        records += [{**record, "arm": which} for record in choices]
    return records


def few_shot_items(n: int) -> list[Choice]:
    """Questions of the general pack after EXAMPLES others of their kind, which are the same for all of a kind and are
    not asked; at most n."""
    of_kind: dict[str, list[Choice]] = {}
    for choice in general.choices():
        of_kind.setdefault(choice.kind, []).append(choice)
    shown = {
        kind: "".join(f"{c.stem} {c.choices[c.label]}\n\n" for c in choices[-EXAMPLES:])
        for kind, choices in of_kind.items()
    }
    used = {c.id for choices in of_kind.values() for c in choices[-EXAMPLES:]}
    free = [c for c in general.choices() if c.id not in used][:n]
    return [replace(c, kind=FEW_SHOT, passage=f"{shown[c.kind]}{c.passage}".rstrip()) for c in free]


# reciting ------------------------------------------------------------------------------------------------------------


def _starts(encoder: Encoder, train: Sequence[Example], seed: int) -> Iterator[tuple[str, Start]]:
    """(item, its start) in random order, one of each document: rows of one document share their letterheads."""
    order = list(train)
    random.Random(f"{seed}/recited").shuffle(order)
    met: set[str] = set()
    for example in order:
        if example.document not in met and (start := start_of(encoder, example)):
            met.add(example.document)
            yield example.id, start


def start_of(encoder: Encoder, example: Example) -> Start | None:
    """The first PREFIX tokens of a text, or a prompt and the first ones of its answer, and the PREFIX tokens that
    follow; None where the text, or the answer, is shorter, or the prompt long."""
    for document in encoder.encode(example)[:1]:
        first = next((i for i, loss in enumerate(document.loss) if loss), len(document.ids))
        shown, last = first + PREFIX, first + 2 * PREFIX
        learned = document.loss[first:last]
        if len(learned) == 2 * PREFIX and all(learned) and first <= LONGEST_PROMPT:
            return tuple(document.ids[:shown]), tuple(document.ids[shown:last])
    return None


def recite(model: Any, starts: Sequence[Start], ends: Collection[int], batch_tokens: int) -> list[bool]:
    """Whether each start is continued word for word, greedily; as many at once as have `batch_tokens` tokens."""
    order = sorted(range(len(starts)), key=lambda i: len(starts[i][0]))
    found: dict[int, bool] = {}
    while order:
        n = max(1, batch_tokens // (len(starts[order[-1]][0]) + PREFIX))
        batch, order = order[-n:], order[:-n]
        said = continue_all(model, [starts[i][0] for i in batch], PREFIX, ends)
        found |= {i: tuple(tokens) == starts[i][1] for i, tokens in zip(batch, said, strict=True)}
    return [found[i] for i in range(len(starts))]


# what it comes to ----------------------------------------------------------------------------------------------------


def term_choices(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`cloze` and `definition_choice` of the `jargon` of results.json, where they were asked."""
    named = {"cloze": "cloze", "definition_choice": "definition"}
    return {name: found for name, kind in named.items() if (found := _accuracy(records, kind))}


def few_shot(records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """{base, adapted, ci_low, ci_high}: accuracies with examples in the prompt, and the interval of the change."""
    found = _accuracy(records, FEW_SHOT)
    if not found:
        return None
    return {
        "base": found["accuracy_base"],
        "adapted": found["accuracy_adapted"],
        "ci_low": found["ci_low"],
        "ci_high": found["ci_high"],
    }


def _accuracy(records: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any] | None:
    of_kind = [r for r in records if r["slice"] == f"choices/{kind}"]
    return choice_accuracy(*([r for r in of_kind if r["arm"] == arm] for arm in TWO))


def recited(records: Sequence[Mapping[str, Any]]) -> dict[str, int] | None:
    """{continued_verbatim, continued_verbatim_base, n_prefixes}; None where nothing was long enough to recite."""
    if not records:
        return None
    return {
        "continued_verbatim": sum(r["adapted"] for r in records),
        "continued_verbatim_base": sum(r["base"] for r in records),
        "n_prefixes": len(records),
    }
