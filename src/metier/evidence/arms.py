"""One arm of the evidence: everything that is measured of one model, written to the run folder item by item."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from metier.evidence.kept_scores import General, ScoreCache
from metier.evidence.score import Items, Record, score_documents, score_field, score_general
from metier.models.decoding import continue_all
from metier.models.encoding import Encoded, Encoder
from metier.models.generate import Answer
from metier.models.packing import PackReader
from metier.progress import Progress
from metier.runs import RunFolder, write_jsonl
from metier.sources.examples import Example

ArmName = Literal["base", "adapted"]
CONTINUED_CHARACTERS = 200  # of a plain text are shown; the model continues them
CONTINUED_TOKENS = 48


@dataclass(frozen=True)
class Arm:
    """As in evidence/*.jsonl; tokens are those of the field."""

    scores: list[Record]
    choices: list[Record]
    answers: list[Record]
    tokens: list[Record]


def score_arm(
    reader: PackReader,
    items: Items,
    answers: Sequence[tuple[str, int, Answer]],
    pack_tokens: int,
    progress: Progress,
    cache: ScoreCache | None = None,
) -> Arm:
    """Score every item with one model. answers: (request id, tokens of its good answer, this model's greedy answer).
    cache: of a base model's general scores."""
    done = 0

    def advance(n_tokens: int) -> None:
        nonlocal done
        done += n_tokens
        progress.advance(done)

    field, tokens = score_field(reader, items, pack_tokens, advance)

    def read_general() -> General:
        return score_general(reader, items, pack_tokens, advance)

    general, choices = cache.general(items, read_general) if cache else read_general()
    given = [{"item": i, "good_tokens": n, **asdict(a)} for i, n, a in answers]
    return Arm(field + general, choices, given, tokens)


def write_arm(run: RunFolder, name: ArmName, arm: Arm) -> None:
    write_jsonl(run.evidence / f"scores-{name}.jsonl", arm.scores)
    write_jsonl(run.evidence / f"choices-{name}.jsonl", arm.choices)
    write_jsonl(run.evidence / f"answers-{name}.jsonl", arm.answers)
    write_jsonl(run.evidence / f"tokens-{name}.jsonl", arm.tokens)


def nll_per_token(reader: PackReader, documents: Sequence[Encoded], pack_tokens: int) -> float:
    """Nats per scored token over these documents, for a before-and-after on the same rows."""
    scored = score_documents(reader, documents, pack_tokens, lambda _: None).values()
    return sum(s.nll for s in scored) / max(1, sum(s.tokens for s in scored))


def field_samples(
    model: Any, encoder: Encoder, examples: Sequence[Example], max_new_tokens: int
) -> list[tuple[str, str, str]]:
    """(request, reference, the model's answer) of held-out examples; a plain text is begun and the model goes on."""
    prompts, requests, references, limits = [], [], [], []
    for example in examples:
        if example.is_chat:
            last = max(i for i, m in enumerate(example.messages) if m.role == "assistant")
            prompts.append(encoder.prompt_ids(example.messages[:last]))
            requests.append(example.messages[last - 1].content if last else "")
            references.append(example.messages[last].content)
            limits.append(max_new_tokens)
        else:
            opening, rest = _cut_at_space(example.text, CONTINUED_CHARACTERS)
            prompts.append(encoder.opening_ids(opening))
            requests.append(opening + " …")
            references.append(_cut_at_space(rest, CONTINUED_CHARACTERS)[0])
            limits.append(CONTINUED_TOKENS)
    room = encoder.window - max(limits, default=0)
    prompts = [prompt[-room:] for prompt in prompts]
    answers = continue_all(model, prompts, max(limits), encoder.ends) if prompts else []
    return [
        (request, reference, encoder.tokenizer.decode(ids[:limit], skip_special_tokens=True).strip())
        for request, reference, ids, limit in zip(requests, references, answers, limits, strict=True)
    ]


def _cut_at_space(text: str, n_characters: int) -> tuple[str, str]:
    if len(text) <= n_characters:
        return text, ""
    cut = text.rfind(" ", 0, n_characters)
    cut = cut if cut > 0 else n_characters
    return text[:cut], text[cut:].lstrip()
