"""What a run works on."""

from dataclasses import dataclass

from metier.models.encoding import Encoder
from metier.models.load import BaseModel
from metier.models.packing import PackReader
from metier.models.terms import NewTokens
from metier.progress import Progress
from metier.runs import RunFolder
from metier.settings import Settings


@dataclass(frozen=True)
class Subject:
    """What a run works on: the base, what reads packs with it and its adapter, and where the evidence goes.

    new_tokens: those that the adapter brings; the base is measured without them, on the same bytes.
    """

    base: BaseModel
    reader: PackReader
    settings: Settings
    run: RunFolder
    say: Progress
    new_tokens: NewTokens | None = None

    @property
    def encoder(self) -> Encoder:
        return self.base.encoder

    @property
    def adapted_encoder(self) -> Encoder:
        return self.new_tokens.encoder if self.new_tokens else self.base.encoder
