"""What is trained in which share: the field, each DATA by its weight, mined tasks, replay."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from metier.errors import DataError
from metier.models.encoding import Encoded
from metier.runs import Json
from metier.settings import Settings
from metier.sources.examples import Example
from metier.sources.find import given_names
from metier.training.stream import FIELD, MINED, OWN_GENERAL, REPLAY, Part, field_documents, replayed

Encode = Callable[[Example], list[Encoded]]
Documents = Iterator[tuple[int, Encoded]]


def by_data(examples: Sequence[Example], settings: Settings) -> list[tuple[str, float, list[Example]]]:
    """(name, share of the field's tokens, examples) of each DATA under --mix; of the field as a whole without.

    Raises:
        DataError: a DATA has no example among these.
    """
    weights = settings.weights()
    if not weights:
        return [(FIELD, 1.0, list(examples))]
    given = given_names(settings.data)
    parts: dict[str, list[Example]] = {name: [] for name in weights}
    for example in examples:
        parts[_data_of(example.source, given)].append(example)
    if empty := [name for name, own in parts.items() if not own]:
        raise DataError(f"{empty[0]} leaves nothing to train on after the split: leave it out of --mix and of DATA.")
    return [(name, weights[name], own) for name, own in parts.items()]


def _data_of(source: str, given: Mapping[str, str]) -> str:
    """The DATA of a file, or of one that lies in a file: "notes.zip/a.txt"."""
    return given[source] if source in given else given[max((n for n in given if source.startswith(n)), key=len)]


def scarcest(examples: Sequence[Example], settings: Settings) -> float:
    """How much of the field's tokens has been read, in the shares of --mix, when a DATA of it was first read once."""
    sizes = [
        (share, sum(len(e.learned_text) + len(e.prompt_text) for e in own))
        for _, share, own in by_data(examples, settings)
    ]
    return min(size / share for share, size in sizes) / max(1, sum(size for _, size in sizes))


@dataclass(frozen=True)
class Beside:
    """What is trained beside the field: tasks mined from it, the user's own general text, what the base wrote."""

    mined: Sequence[Example] = ()
    general: Sequence[Example] = ()
    written: Sequence[Encoded] = ()

    def documents(self, encode: Encode, seed: int) -> dict[str, Documents]:
        """Of each part that there is."""
        found: dict[str, Documents] = {}
        if self.mined:
            found[MINED] = field_documents(self.mined, encode, seed)
        if self.general:
            found[OWN_GENERAL] = field_documents(self.general, encode, seed)
        if self.written:
            found[REPLAY] = replayed(self.written)
        return found


def mixed(
    train: Sequence[Example],
    encode: Encode,
    beside: Mapping[str, Documents],
    shares: Mapping[str, float],
    settings: Settings,
) -> list[Part]:
    """The parts of a run. shares: of all tokens, of what is beside the field; the field's parts divide what is left."""
    others = [Part(name, shares[name], documents) for name, documents in beside.items() if shares[name] > 0]
    left = 1 - sum(part.share for part in others)
    field = [
        Part(name, left * share, field_documents(own, encode, settings.seed))
        for name, share, own in by_data(train, settings)
    ]
    return [*field, *others]


def achieved(parts: Sequence[Part], tokens: Mapping[str, int]) -> list[dict[str, Json]]:
    """What each part was to have and had: the `mix` of results.json."""
    total = max(1, sum(tokens.values()))
    return [
        {
            "part": part.name,
            "wanted": round(part.share, 6),
            "share": tokens.get(part.name, 0) / total,
            "tokens": tokens.get(part.name, 0),
        }
        for part in parts
    ]


def mix_lines(mix: Sequence[Mapping[str, Json]]) -> list[str]:
    """What was trained in which share, for the person who waits; nothing where the field was all."""
    if len(mix) < 2:
        return []
    parts = (f"{part['part']} {part['share']:.1%} (wanted {part['wanted']:.1%})" for part in mix)
    return [f"trained mix, in tokens: {', '.join(parts)}"]
