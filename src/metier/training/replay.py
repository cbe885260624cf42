"""Replay: what is general, trained beside the field, so that what the model could do it still can."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from metier.models.encoding import Encoded, Encoder
from metier.models.generate import Answer
from metier.sources.examples import Example, Message

Kind = Literal["text", "answers", "chat"]

SHARES: dict[Kind, float] = {"text": 0.05, "answers": 0.15, "chat": 0.15}
"""Of the training tokens, by what the field is made of; measured for plain text and for answers (docs/log.md), which
conversations follow."""

# The base's bits per byte on the field over those on general text: above it, the field is far from what the base knows.
FAR = 1.4
FAR_SHARE = 0.25  # from the literature (arXiv 2403.08763: 25 % for a language that is new); not measured here

FEWEST_ANSWERS = 8
LIKELIEST = 16  # of the answers; fields of plain text take none of them
TOKENS_PER_ANSWER = 110  # measured on the embedded base model: a prompt and its answer of at most 96 tokens


@dataclass(frozen=True)
class ReplayPlan:
    """How much is replayed, how much of that is the user's own general text, how many requests the base answers for
    the rest, and how many of these answers are its likeliest; the others are sampled."""

    share: float
    yours: float
    answers: int
    likeliest: int


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
    """As many answers as are seen about once. available: requests that there are."""
    if share <= 0 or yours == 1:
        return ReplayPlan(share, yours, 0, 0)
    wanted = max(FEWEST_ANSWERS, round(train_tokens * share * (1 - yours) / TOKENS_PER_ANSWER))
    answers = min(available, wanted)
    return ReplayPlan(share, yours, answers, 0 if kind == "text" else min(LIKELIEST, answers))


def replay_documents(encoder: Encoder, answers: Sequence[Answer]) -> list[Encoded]:
    """What the base wrote as training documents; one that was cut by the token limit does not teach an end there."""
    documents: list[Encoded] = []
    for i, answer in enumerate(answers):
        if not answer.answer:
            continue
        name = f"replay:{i + 1}"
        turns = (Message("user", answer.request), Message("assistant", answer.answer))
        for document in encoder.encode(Example(name, "replay", i + 1, name, messages=turns)):
            documents.append(document if answer.ended else document.without_end())
    return documents
