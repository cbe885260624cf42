"""Answers to requests, in batches of like length; those of the base model are kept from run to run."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from metier.models.decoding import continue_all
from metier.models.encoding import Encoder
from metier.sources.examples import Message
from metier.sources.wheels import write_atomically

BATCH = 64
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Answer:
    """What a model answers: the text, its length in tokens, and whether it ended by itself within the limit."""

    request: str
    answer: str
    tokens: int
    ended: bool


class Prompt(NamedTuple):
    """What is answered: the request, as a person reads it, and the tokens that ask it."""

    request: str
    ids: Sequence[int]


def prompts_of(encoder: Encoder, requests: Sequence[str]) -> list[Prompt]:
    """Each request as the first turn of a conversation."""
    return [Prompt(request, encoder.prompt_ids([Message("user", request)])) for request in requests]


@torch.no_grad()
def answer_all(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    progress: Progress | None = None,
    sampled: Collection[int] = (),
) -> list[Answer]:
    """Answers in the order of the prompts: greedy, or, where its number is in `sampled`, sampled at temperature 1 with
    a seed of the request's own."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))
    answers: dict[int, Answer] = {}
    was_training = model.training
    model.eval()
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        chances = [_chance(prompts[i].request) if i in sampled else None for i in rows] if sampled else ()
        said = continue_all(model, [prompts[i].ids for i in rows], max_new_tokens, encoder.ends, chances)
        for i, tokens in zip(rows, said, strict=True):
            ended = bool(tokens) and tokens[-1] in encoder.ends
            text = encoder.tokenizer.decode(tokens, skip_special_tokens=True).strip()
            answers[i] = Answer(prompts[i].request, text, len(tokens), ended)
        if progress is not None:
            progress(len(answers), len(order))
    model.train(was_training)
    return [answers[i] for i in range(len(prompts))]


def _chance(request: str) -> torch.Generator:
    seed = hashlib.sha256(request.encode()).digest()[:7]  # of a generator: 63 bits
    return torch.Generator().manual_seed(int.from_bytes(seed))


def _read_answers(path: Path) -> list[Answer]:
    """What was kept; nothing when there is no file, or one that was damaged: it can be made again."""
    try:
        return [Answer(**record) for record in json.loads(path.read_text(encoding="utf-8"))]
    except (FileNotFoundError, ValueError, TypeError):
        return []


def _write_answers(path: Path, answers: Iterable[Answer]) -> None:
    records = [asdict(answer) for answer in answers]
    write_atomically(path, json.dumps(records, ensure_ascii=False, indent=1).encode())


class AnswerCache:
    """The base model's answers by request, in one file per base model, chat format, token limit and kind: greedy or
    sampled."""

    def __init__(self, folder: Path, sha256: str, encoder: Encoder, max_new_tokens: int, sampled: bool = False) -> None:
        # Rendered, so that another template or tokenizer beside the same weights has answers of its own.
        rendered = [*encoder.prompt_ids([Message("user", "What is this?")]), *sorted(encoder.ends)]
        form = hashlib.sha256(json.dumps(rendered).encode()).hexdigest()
        kind = "-sampled" if sampled else ""
        self.path = folder / "answers" / f"{sha256[:16]}-{form[:8]}-{max_new_tokens}{kind}.json"
        self.max_new_tokens, self.sampled = max_new_tokens, sampled
        self._known = {answer.request: answer for answer in _read_answers(self.path)}

    def missing(self, requests: Sequence[str]) -> list[str]:
        return [request for request in requests if request not in self._known]

    def answers(
        self, model: Any, encoder: Encoder, requests: Sequence[str], progress: Progress | None = None
    ) -> list[Answer]:
        """Answers in the order of the requests; those not yet known are generated and kept."""
        missing = self.missing(requests)
        if missing:
            sampled = range(len(missing)) if self.sampled else ()
            self.keep(answer_all(model, encoder, prompts_of(encoder, missing), self.max_new_tokens, progress, sampled))
        return [self._known[request] for request in requests]

    def keep(self, answers: Sequence[Answer]) -> None:
        """Remember them, here and in the file."""
        self._known.update({answer.request: answer for answer in answers})
        _write_answers(self.path, (self._known[request] for request in sorted(self._known)))
