"""Greedy answers to requests, in batches of like length; and the base model's own answers, kept from run to run."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

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


@torch.no_grad()
def answer_all(
    model: Any, encoder: Encoder, requests: Sequence[str], max_new_tokens: int, progress: Progress | None = None
) -> list[Answer]:
    """Greedy answers, in the order of the requests; each is the first turn of a conversation."""
    prompts = [encoder.prompt_ids([Message("user", request)]) for request in requests]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: dict[int, Answer] = {}
    was_training = model.training
    model.eval()
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        for i, tokens in zip(
            rows, continue_all(model, encoder, [prompts[i] for i in rows], max_new_tokens), strict=True
        ):
            ended = bool(tokens) and tokens[-1] in encoder.ends
            text = encoder.tokenizer.decode(tokens, skip_special_tokens=True).strip()
            answers[i] = Answer(requests[i], text, len(tokens), ended)
        if progress is not None:
            progress(len(answers), len(order))
    model.train(was_training)
    return [answers[i] for i in range(len(requests))]


@torch.no_grad()
def continue_all(model: Any, encoder: Encoder, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
    """Greedy continuations up to and with the end token; prompts are padded on the left and the padding masked."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), encoder.end)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    generated = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        eos_token_id=sorted(encoder.ends),
        pad_token_id=encoder.end,
    )
    continuations = []
    for row in generated[:, longest:].tolist():
        length = next((i + 1 for i, token in enumerate(row) if token in encoder.ends), len(row))
        continuations.append(row[:length])
    return continuations


def _read_answers(path: Path) -> dict[str, Answer]:
    """What was kept, by request; nothing when there is no file, or one that was damaged: it can be made again."""
    try:
        return {record["request"]: Answer(**record) for record in json.loads(path.read_text(encoding="utf-8"))}
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return {}


class AnswerCache:
    """The base model's greedy answers by request, in one file per base model, chat format and token limit."""

    def __init__(self, folder: Path, sha256: str, encoder: Encoder, max_new_tokens: int) -> None:
        # Rendered, so that another template or tokenizer beside the same weights has answers of its own.
        rendered = [*encoder.prompt_ids([Message("user", "What is this?")]), *sorted(encoder.ends)]
        form = hashlib.sha256(json.dumps(rendered).encode()).hexdigest()
        self.path = folder / "answers" / f"{sha256[:16]}-{form[:8]}-{max_new_tokens}.json"
        self.max_new_tokens = max_new_tokens
        self._known = _read_answers(self.path)

    def missing(self, requests: Sequence[str]) -> list[str]:
        return [request for request in requests if request not in self._known]

    def answers(
        self, model: Any, encoder: Encoder, requests: Sequence[str], progress: Progress | None = None
    ) -> list[Answer]:
        """Answers in the order of the requests; those not yet known are generated and kept."""
        missing = self.missing(requests)
        if missing:
            self.keep(answer_all(model, encoder, missing, self.max_new_tokens, progress))
        return [self._known[request] for request in requests]

    def keep(self, answers: Sequence[Answer]) -> None:
        """Remember them, here and in the file."""
        self._known.update({answer.request: answer for answer in answers})
        records = [asdict(self._known[request]) for request in sorted(self._known)]
        write_atomically(self.path, json.dumps(records, ensure_ascii=False, indent=1).encode())
