"""Replay: general text and general answers trained beside the field, so that what the model could do it still can."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from metier.models.encoding import Encoded, Encoder
from metier.models.generate import Answer
from metier.sources.examples import Example, Message

Kind = Literal["text", "answers", "chat"]

SHARES: dict[Kind, float] = {"text": 0.15, "answers": 0.15, "chat": 0.15}
"""Of the training tokens, by what the field is made of; measured for answers (docs/log.md). Conversations follow it,
and plain text, too, though it seems to need none."""

# The base's bits per byte on the field over those on general text: above it, the field is far from what the base knows.
FAR = 1.4
FAR_SHARE = 0.25  # from the literature (arXiv 2403.08763: 25 % for a language that is new); not measured here

FEWEST_DOCUMENTS = 24
TOKENS_PER_DOCUMENT = 110  # measured on the embedded base model: a prompt and its answer of at most 96 tokens


@dataclass(frozen=True)
class ReplayPlan:
    """How much is replayed, how much of that is the user's own general text, and what the base is asked to write for
    the rest: answers to requests, and texts of its own."""

    share: float
    yours: float
    answers: int
    texts: int


NO_REPLAY = ReplayPlan(0.0, 0.0, 0, 0)


def kind_of(examples: Sequence[Example]) -> Kind:
    """What most of the learned text is: plain text, single answers, or conversations of several turns."""
    sizes: dict[Kind, int] = {"text": 0, "answers": 0, "chat": 0}
    for example in examples:
        n_answers = sum(message.role == "assistant" for message in example.messages)
        kind: Kind = "text" if not example.is_chat else "answers" if n_answers == 1 else "chat"
        sizes[kind] += len(example.learned_text)
    return max(sizes, key=lambda kind: sizes[kind])


def default_share(kind: Kind, distance: float) -> float:
    """distance: the base's bits per byte on the field over those on general text."""
    return FAR_SHARE if distance > FAR else SHARES[kind]


def share_of_yours(kind: Kind | None) -> float:
    """Of the replay, by what the user's general text is made of. Plain text says nothing of how to answer, so half of
    the replay stays the base's own answers."""
    return 0.0 if kind is None else 0.5 if kind == "text" else 1.0


def plan_replay(train_tokens: int, share: float, yours: float, kind: Kind, available: int) -> ReplayPlan:
    """As many documents as are seen about once. available: requests that there are."""
    if share <= 0 or yours == 1:
        return ReplayPlan(share, yours, 0, 0)
    wanted = max(FEWEST_DOCUMENTS, round(train_tokens * share * (1 - yours) / TOKENS_PER_DOCUMENT))
    n_texts = wanted // 2 if kind == "text" and not yours else 0
    return ReplayPlan(share, yours, min(available, wanted - n_texts), n_texts)


def replay_documents(encoder: Encoder, answers: Sequence[Answer]) -> list[Encoded]:
    """What the base wrote as training documents; one that was cut by the token limit does not teach an end there. An
    answer to no request is a text of its own."""
    documents: list[Encoded] = []
    for i, answer in enumerate(answers):
        if not answer.answer:
            continue
        name = f"replay:{i + 1}"
        if answer.request:
            turns = (Message("user", answer.request), Message("assistant", answer.answer))
            example = Example(name, "replay", i + 1, name, messages=turns)
        else:
            example = Example(name, "replay", i + 1, name, text=answer.answer)
        for document in encoder.encode(example):
            documents.append(document if answer.ended else document.without_end())
    return documents
