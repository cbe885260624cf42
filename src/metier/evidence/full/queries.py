"""What every arm is asked, the second half of a held-out document or the answer to a held-out question, and what it is
told before that."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from metier.evidence.full.retrieval import pieces
from metier.models.encoding import Encoded, Encoder, Loss
from metier.sources.examples import Example, Message

Kind = Literal["text", "answer"]

HALF_TOKENS = 128  # of the base's tokenizer: a document's first 256 are halved
FEWEST_TOKENS = 16  # a shorter text has no halves worth the name
EXAMPLE_TOKENS = 128  # of a training text that is shown as an example; of a question with its answer, twice as many
BETWEEN = "\n\n"

PROMPTS: dict[Kind, tuple[str, ...]] = {
    "text": (
        "",
        "The following text was written by an expert in its field." + BETWEEN,
        "Passages from one collection of documents on one subject." + BETWEEN,
    ),
    "answer": (
        "",
        "Answer exactly and briefly.",
        "Answer as a reference work of the field would.",
        "Explain it in one or two plain sentences, without an introduction.",
        "You are an expert. Use the terms of your field.",
    ),
}
"""Tried on the select half for each arm; the first is none at all."""


@dataclass(frozen=True)
class Query:
    """`before` is the first half, or the question; `target` what is to be foretold after it; `messages`, the
    conversation up to the answer, is empty for a text."""

    id: str
    document: str
    group: str
    before: str
    target: str
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Context:
    """What an arm is told: an instruction, training examples as they are, passages with the best last."""

    prompt: str = ""
    examples: tuple[Example, ...] = ()
    passages: tuple[str, ...] = field(default=())


def kind_of_queries(examples: Sequence[Example]) -> Kind:
    """Answers where most of the learned text stands in conversations."""
    in_chats = sum(len(e.learned_text) for e in examples if e.is_chat)
    return "answer" if 2 * in_chats > sum(len(e.learned_text) for e in examples) else "text"


def queries_of(examples: Sequence[Example], kind: Kind, n: int, seed: int, encoder: Encoder) -> list[Query]:
    """At most n of the examples of this kind that can be asked, the same ones for the same seed; a larger n adds to a
    smaller one. Left out are texts that are too short to be halved, and rows that fill half the window."""
    order = sorted((e for e in examples if e.is_chat == (kind == "answer")), key=lambda e: e.id)
    random.Random(f"{seed}/queries").shuffle(order)
    asked = (_question(e, encoder) if e.is_chat else _halves(e, encoder) for e in order)
    return [query for query in asked if query is not None][:n]


def _halves(example: Example, encoder: Encoder) -> Query | None:
    opening = pieces(example.text, 2 * HALF_TOKENS, encoder)[0]
    n_tokens = len(encoder.text_ids(opening))
    if n_tokens < FEWEST_TOKENS:
        return None
    first = pieces(opening, n_tokens // 2, encoder)[0]
    space = first.rfind(" ")  # the second half begins with a whole word and the space before it, as tokenizers like it
    middle = space if space > len(first) // 2 else len(first)
    before, target = opening[:middle], opening[middle:]
    return Query(example.id, example.document, example.group, before, target) if target.strip() else None


def _question(example: Example, encoder: Encoder) -> Query | None:
    last = max((i for i, m in enumerate(example.messages) if m.role == "assistant"), default=0)
    messages, answer = example.messages[:last], example.messages[last].content
    if not messages or messages[-1].role != "user" or not answer.strip():
        return None
    if len(encoder.prompt_ids(messages)) + len(encoder.text_ids(answer)) > encoder.window // 2:
        return None
    return Query(example.id, example.document, example.group, messages[-1].content, answer, messages)


def encode_query(query: Query, context: Context | None, encoder: Encoder) -> Encoded:
    """The target with loss after all that the arm is told; None tells it nothing, not even the first half or the
    question. What does not fit the window is left out: examples from the last on, then passages from the first on."""
    target = encoder.text_ids(query.target)
    if context is None:
        return _encoded(query, encoder.prompt_ids([]) if query.messages else [encoder.start], target)
    told = _told(query, context, encoder)
    while len(told) + len(target) > encoder.window and (context.examples or context.passages):
        if context.examples:
            context = Context(context.prompt, context.examples[:-1], context.passages)
        else:
            context = Context(context.prompt, (), context.passages[1:])
        told = _told(query, context, encoder)
    return _encoded(query, told, target)


def _encoded(query: Query, told: Sequence[int], target: Sequence[int]) -> Encoded:
    loss = (*[Loss.NONE] * len(told), *[Loss.TEXT] * len(target))
    return Encoded(query.id, (*told, *target), loss, len(query.target.encode()))


def _told(query: Query, context: Context, encoder: Encoder) -> list[int]:
    if query.messages:
        return encoder.prompt_ids(_conversation(query, context))
    parts = [context.prompt] if context.prompt else []
    parts += [pieces(e.text, EXAMPLE_TOKENS, encoder)[0] + BETWEEN for e in context.examples]
    parts += [passage + BETWEEN for passage in context.passages]
    # Part by part: what is the same for several queries is then the same tokens, which are read once.
    return [encoder.start, *(token for part in (*parts, query.before) for token in encoder.text_ids(part))]


def _conversation(query: Query, context: Context) -> list[Message]:
    """The examples as earlier turns, the passages above the question, the instruction above all."""
    system = [m for m in query.messages[:1] if m.role == "system"]
    shown = [m for example in context.examples for m in example.messages[-2:]]
    asked = list(query.messages[len(system) :])
    asked[-1] = Message("user", BETWEEN.join((*context.passages, query.before)))
    turns = [*shown, *asked]
    if context.prompt:
        turns[0] = Message(turns[0].role, context.prompt + BETWEEN + turns[0].content)
    return [*system, *turns]


def showable(train: Sequence[Example], kind: Kind, n: int, seed: int, encoder: Encoder) -> tuple[Example, ...]:
    """n training examples, drawn at random, that every query is shown in the same order: they are read once a pack."""
    order = sorted((e for e in train if e.is_chat == (kind == "answer")), key=lambda e: e.id)
    random.Random(f"{seed}/examples").shuffle(order)
    found: list[Example] = []
    for example in order:
        if len(found) == n:
            break
        if kind == "text" or is_pair(example, encoder):
            found.append(example)
    return tuple(found)


def is_pair(example: Example, encoder: Encoder) -> bool:
    """Whether it ends with a question and its answer that together are short enough to be shown."""
    roles = tuple(m.role for m in example.messages[-2:])
    return roles == ("user", "assistant") and (
        sum(len(encoder.text_ids(m.content)) for m in example.messages[-2:]) <= 2 * EXAMPLE_TOKENS
    )
