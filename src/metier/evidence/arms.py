"""One arm of the evidence: everything that is measured of one model, written to the run folder item by item."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from metier.evidence.kept_scores import General, ScoreCache
from metier.evidence.score import Items, Record, score_documents, score_field, score_general
from metier.models.encoding import Encoded, Encoder
from metier.models.generate import Answer, Prompt
from metier.models.packing import PackReader
from metier.progress import Progress
from metier.runs import RunFolder, write_jsonl
from metier.sources.examples import Example

ArmName = Literal["base", "adapted"]
CONTINUED_CHARACTERS = 200  # of a plain text are shown; the model goes on


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


def shown_prompts(encoder: Encoder, examples: Sequence[Example], max_new_tokens: int) -> list[tuple[Prompt, str]]:
    """(what a model is asked, the reference) of held-out examples; a plain text is begun and the model goes on."""
    room = encoder.window - max_new_tokens
    found = []
    for example in examples:
        if example.is_chat:
            last = max(i for i, m in enumerate(example.messages) if m.role == "assistant")
            ids = encoder.prompt_ids(example.messages[:last])
            request, reference = example.messages[last - 1].content if last else "", example.messages[last].content
        else:
            opening, rest = _cut_at_space(example.text, CONTINUED_CHARACTERS)
            ids = encoder.opening_ids(opening)
            request, reference = opening + " …", _cut_at_space(rest, CONTINUED_CHARACTERS)[0]
        found.append((Prompt(request, ids[-room:]), reference))
    return found


def _cut_at_space(text: str, n_characters: int) -> tuple[str, str]:
    if len(text) <= n_characters:
        return text, ""
    cut = text.rfind(" ", 0, n_characters)
    cut = cut if cut > 0 else n_characters
    return text[:cut], text[cut:].lstrip()
