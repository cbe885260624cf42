"""Rivals of the adapted model, trained by the loop that trained it: on other text, or from random weights on the same;
and the texts that they learn from."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from metier.errors import DataError
from metier.models.encoding import Encoded
from metier.models.packing import PackReader
from metier.settings import Settings
from metier.sources import general
from metier.sources.closeness import closeness
from metier.sources.examples import Example, Message
from metier.sources.packs import cached_pack, list_packs
from metier.sources.read import read_corpus
from metier.training.loop import Recipe, StepMetrics, Trained, train
from metier.training.mix import Beside, mixed
from metier.training.stream import Part, steps

SCRATCH_RATE = 1e-3  # peak, of full training from random weights at the size of the embedded model


@dataclass(frozen=True)
class Steps:
    """How a rival of the adapted model is trained: as many steps, of as many tokens, as it took itself. shares: of all
    tokens, of what is beside the field. settings: with its seed, its packs and its mix."""

    n_steps: int
    step_tokens: int
    peak_lr: float
    shares: Mapping[str, float]
    settings: Settings


def train_rival(
    reader: PackReader,
    examples: Sequence[Example],
    encode: Callable[[Example], list[Encoded]],
    beside: Beside,
    planned: Steps,
    on_step: Callable[[StepMetrics], None] = lambda _: None,
) -> Trained:
    """Train what is trainable of a fresh reader on these examples, by the loop that trains every adapter.

    Raises:
        DataError: the examples hold no supervised token.
        DivergedError: as `train`.
    """
    settings = planned.settings
    torch.manual_seed(settings.seed)

    def parts() -> list[Part]:
        return mixed(examples, encode, beside.documents(encode, settings.seed), planned.shares, settings)

    recipe = Recipe(planned.n_steps, planned.peak_lr, settings.pack_tokens)
    trained = train(reader, lambda: steps(parts(), planned.step_tokens), recipe, on_step)
    if not trained.n_steps:
        raise DataError("There is no text to train a rival of the adapted model on: none of it is supervised.")
    return trained


def shuffled_words(examples: Sequence[Example], seed: int) -> list[Example]:
    """The same examples with the words of every text, question and answer in random order; white space becomes one
    space."""
    rng = random.Random(f"{seed}/shuffled")

    def mixed(text: str) -> str:
        words = text.split()
        rng.shuffle(words)
        return " ".join(words)

    return [
        replace(
            e,
            text=mixed(e.text),
            messages=tuple(m if m.role == "system" else Message(m.role, mixed(m.content)) for m in e.messages),
            rejected="",
        )
        for e in examples
    ]


def scratch_model(base: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A model of the base's configuration, every weight random and trained, in float32 on the base's device."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        base.config, attn_implementation=base.config._attn_implementation
    )
    return model.float().to(base.device).eval().requires_grad_(True)


def body_parameters(model: PreTrainedModel) -> int:
    """Weights without those of the embedding and of the head: the N of the transfer law."""
    outside = {id(m.weight): m.weight.numel() for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    return int(sum(p.numel() for p in model.parameters()) - sum(outside.values()))


def wrong_field(data: Sequence[str], as_chat: bool) -> tuple[str, list[Example]]:
    """(what it is, in words; its examples): another embedded field that is in the cache, else the general pack; as
    questions and answers or as plain texts, whichever the field is made of. data: those of the settings."""
    for pack in list_packs():
        name = f"pack:{pack.name}"
        if name not in data and cached_pack(pack.name) is not None:
            examples = read_corpus([name]).examples
            if not as_chat:
                examples = [replace(e, text=e.learned_text, messages=(), rejected="") for e in examples]
            return f"text of another field ({pack.title.split(':')[0].lower()})", examples
    if as_chat:
        asked = general.measured_requests()
        turns = [(Message("user", r.request), Message("assistant", r.answer)) for r in asked]
        rows = [Example(r.id, "general", 1, r.id, messages=t) for r, t in zip(asked, turns, strict=True)]
        return "general questions and answers", rows
    return "general text", list(general.texts())


def share_of(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Examples with about this share of all learned characters, at least one; a smaller share is part of a larger."""
    order = sorted(examples, key=lambda e: e.id)
    random.Random(f"{seed}/share").shuffle(order)
    return _up_to(order, share)


def _up_to(order: Sequence[Example], share: float) -> list[Example]:
    """The first of them with this share of all learned characters."""
    wanted = share * sum(len(e.learned_text) for e in order)
    found: list[Example] = []
    size = 0
    for example in order:
        if found and size >= wanted:
            break
        found.append(example)
        size += len(example.learned_text)
    return found


def closest_half(examples: Sequence[Example]) -> list[Example]:
    """Half of all learned characters, those of the examples that are closest to the field, which `--select` keeps."""
    weights = dict(zip((e.id for e in examples), closeness([e.learned_text for e in examples]), strict=True))
    return _up_to(sorted(examples, key=lambda e: (-weights[e.id], e.id)), 0.5)
