"""Replay, first form: general requests answered by the base model itself, trained beside the field."""

from collections.abc import Sequence

from metier.models.encoding import Encoded, Encoder
from metier.models.generate import Answer
from metier.sources.examples import Example, Message

FEWEST_REQUESTS = 24
TOKENS_PER_ANSWERED_REQUEST = 110  # measured on the embedded base model: prompt and answer of at most 96 tokens


def n_requests(train_tokens: int, share: float, available: int) -> int:
    """How many requests to have answered, so that replay is seen about once; 0 without replay."""
    if share <= 0:
        return 0
    wanted = round(train_tokens * share / TOKENS_PER_ANSWERED_REQUEST)
    return min(available, max(FEWEST_REQUESTS, wanted))


def replay_documents(encoder: Encoder, answers: Sequence[Answer]) -> list[Encoded]:
    """The answers as training documents; one that was cut by the token limit does not teach an end there."""
    documents: list[Encoded] = []
    for i, answer in enumerate(answers):
        if not answer.answer:
            continue
        turns = (Message("user", answer.request), Message("assistant", answer.answer))
        for document in encoder.encode(Example(f"replay:{i + 1}", "replay", i + 1, f"replay:{i + 1}", messages=turns)):
            documents.append(document if answer.ended else document.without_end())
    return documents
