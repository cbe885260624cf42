"""The models that full evidence reads with: the base, the adapted one, and fresh ones to train."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from metier.evidence.subject import Subject
from metier.models.adapters import disabled
from metier.models.encoding import Encoder
from metier.models.fit import sizes_of, training_memory
from metier.models.load import empty_model, load_base
from metier.models.machine import free_bytes
from metier.models.methods import add_method
from metier.models.packing import PackReader

Which = Literal["base", "adapted"]
TWO: tuple[Which, Which] = ("base", "adapted")


@dataclass(frozen=True)
class Models:
    """The two models. `base` and `adapted` are one reader where an adapter is switched off for the base."""

    base: PackReader
    adapted: PackReader
    encoder: Encoder
    adapted_encoder: Encoder

    def encoder_of(self, which: Which) -> Encoder:
        return self.adapted_encoder if which == "adapted" else self.encoder

    @contextmanager
    def reading(self, which: Which) -> Iterator[PackReader]:
        """Within it, the reader reads as that model does."""
        if which == "adapted":
            yield self.adapted
        else:
            with disabled(self.base.model):
                yield self.base


def models_of(subject: Subject, adapted: PackReader) -> Models:
    """After full fine-tuning the subject's own weights are no longer the base's, which is loaded again."""
    base = subject.reader
    if subject.settings.method == "full":
        base = PackReader(load_base(subject.settings.model, subject.base.where).model)
    return Models(base, adapted, subject.encoder, subject.adapted_encoder)


def fresh_reader(subject: Subject, seed: int | None = None) -> PackReader:
    """The base as it was before training, with an adapter that has learned nothing; seed: the run's own where None."""
    settings = subject.settings if seed is None else replace(subject.settings, seed=seed)
    base = load_base(settings.model, subject.base.where)
    return PackReader(
        add_method(base.model, settings.method, settings.r, settings.alpha, settings.seed, settings.top_layers)
    )


def has_room(subject: Subject) -> bool:
    """Whether a second model fits beside the first, with gradients and moments of every weight."""
    settings = subject.settings
    sizes = sizes_of(empty_model(settings.model), "full", settings.r, settings.alpha, settings.seed)
    needed = training_memory(sizes, settings.pack_tokens)
    free = subject.base.where.free_bytes() or free_bytes()
    return free is None or needed.total - needed.runtime <= free
