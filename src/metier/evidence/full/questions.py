"""Smaller questions to both models: which term stands here, which definition is whose, do examples in the prompt still
help, is training text recited, and what do the terms mean.

All that is asked of the field comes from its held-out test half; the examples before general questions are of the
general pack.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from metier.evidence.full.readers import BOTH, Models
from metier.evidence.jargon.items import TermItem, choice_accuracy, cloze_items, definition_items
from metier.evidence.score import Record, encode_items, score_general
from metier.evidence.subject import Subject
from metier.models.decoding import continue_all
from metier.models.encoding import Encoder
from metier.models.generate import answer_all
from metier.runs import write_jsonl
from metier.sources import general
from metier.sources.examples import Example
from metier.sources.general import Choice
from metier.sources.mine import mined_terms

QUESTIONS, EXTRACTION, DEFINITIONS = "questions.jsonl", "extraction.jsonl", "definitions.jsonl"
FEW_SHOT = "few-shot"
EXAMPLES = 3  # before a general question
PREFIX = 32  # tokens of training text that are shown, and as many that must follow word for word
RECITED_AT_ONCE = 24
DEFINED, DEFINITION_TOKENS = 12, 64  # terms that both models define, for the reader, and the length of it


@dataclass(frozen=True)
class Asked:
    """n: questions of each kind, at most. passages: {item, document, text} of the test half that is scored. terms: of
    the field, the foremost first. test, train: what was held out and what was trained on."""

    n: int
    passages: Sequence[Record]
    terms: Sequence[str]
    test: Sequence[Example]
    train: Sequence[Example]


def ask(subject: Subject, models: Models, asked: Asked) -> None:
    """Write evidence/questions.jsonl (choice records with `arm` and `document`), extraction.jsonl ({item, base,
    adapted}: whether what follows was continued word for word) and definitions.jsonl ({term, base, adapted})."""
    seed, pack_tokens, folder = subject.settings.seed, subject.settings.pack_tokens, subject.run.evidence
    questions: list[TermItem | Choice] = [
        *cloze_items(asked.passages, asked.terms, seed)[: asked.n],
        *definition_items(mined_terms(asked.test), seed)[: asked.n],
        *few_shot_items(asked.n),
    ]
    prefixes = [e for e in asked.train if recitable(subject.encoder, e)][: asked.n]
    terms = asked.terms[: min(DEFINED, asked.n)]
    subject.say.begin("both models are asked about terms, with examples, and to recite", len(BOTH))
    choices: list[Record] = []
    recited: dict[str, dict[str, Any]] = {e.id: {"item": e.id} for e in prefixes}
    definitions: list[dict[str, Any]] = [{"term": term} for term in terms]
    documents = {one.id: one.document for one in questions if isinstance(one, TermItem)}
    for i, which in enumerate(BOTH):
        encoder = models.encoder_of(which)
        with models.reading(which) as reader:
            items = encode_items(encoder, (), (), (), (), questions)
            for record in score_general(reader, items, pack_tokens, lambda _: None)[1]:
                item = str(record["item"])
                choices.append({**record, "arm": which, "document": documents.get(item, item)})
            for example, said in zip(prefixes, recite(reader.model, encoder, prefixes), strict=True):
                recited[example.id][which] = said
            answers = answer_all(reader.model, encoder, [f"What is meant by “{t}”?" for t in terms], DEFINITION_TOKENS)
            for row, answer in zip(definitions, answers, strict=True):
                row[which] = answer.answer
        subject.say.advance(i + 1)
    subject.say.end()
    write_jsonl(folder / QUESTIONS, choices)
    write_jsonl(folder / EXTRACTION, list(recited.values()))
    write_jsonl(folder / DEFINITIONS, definitions)


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


def recitable(encoder: Encoder, example: Example) -> bool:
    return _start(encoder, example) is not None


def _start(encoder: Encoder, example: Example) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """(what is shown, the PREFIX tokens that follow): a text's first tokens, or a prompt and its answer's first ones;
    None where the text is shorter."""
    for document in encoder.encode(example)[:1]:
        first = next((i for i, loss in enumerate(document.loss) if loss), len(document.ids))
        shown = first + PREFIX
        if len(document.ids) >= shown + PREFIX:
            return tuple(document.ids[:shown]), tuple(document.ids[shown : shown + PREFIX])
    return None


def recite(model: Any, encoder: Encoder, examples: Sequence[Example]) -> list[bool]:
    """Whether each text is continued word for word from its start, greedily."""
    starts = [start for e in examples if (start := _start(encoder, e))]
    found: list[bool] = []
    for i in range(0, len(starts), RECITED_AT_ONCE):
        batch = starts[i : i + RECITED_AT_ONCE]
        said = continue_all(model, [shown for shown, _ in batch], PREFIX, encoder.ends)
        found += [tuple(tokens) == follows for tokens, (_, follows) in zip(said, batch, strict=True)]
    return found


# what it comes to ----------------------------------------------------------------------------------------------------


def term_choices(records: Sequence[Record]) -> dict[str, Any]:
    """`cloze` and `definition_choice` of the `jargon` of results.json, where they were asked."""
    named = {"cloze": "cloze", "definition_choice": "definition"}
    return {name: found for name, kind in named.items() if (found := _accuracy(records, kind))}


def few_shot(records: Sequence[Record]) -> dict[str, Any] | None:
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


def _accuracy(records: Sequence[Record], kind: str) -> dict[str, Any] | None:
    of_kind = [r for r in records if r["slice"] == f"choices/{kind}"]
    return choice_accuracy(*([r for r in of_kind if r["arm"] == arm] for arm in BOTH))


def recited(records: Sequence[Mapping[str, Any]]) -> dict[str, int] | None:
    """{continued_verbatim, continued_verbatim_base, n_prefixes}; None where nothing was long enough to recite."""
    if not records:
        return None
    return {
        "continued_verbatim": sum(r["adapted"] for r in records),
        "continued_verbatim_base": sum(r["base"] for r in records),
        "n_prefixes": len(records),
    }
