"""The model, made ready for what it will learn."""

from collections.abc import Iterator

from metier.evidence.subject import Subject
from metier.models.adapters import keep_memory
from metier.models.compiling import compile_layers, recompute_layers, wants_recomputing
from metier.models.device import placement
from metier.models.fit import require_room, sizes_of, training_memory
from metier.models.load import empty_model, load_base
from metier.models.machine import free_bytes
from metier.models.methods import add_method, n_frozen_layers
from metier.models.packing import PackReader
from metier.models.terms import NewTokens, add_terms
from metier.progress import Progress
from metier.runs import RunFolder
from metier.settings import Settings
from metier.sources.split import Split
from metier.training import parallel
from metier.training.sharding import shard


def prepare(settings: Settings, run: RunFolder, say: Progress) -> Subject:
    """Load the model, if it fits, and make trainable what the method trains; before training it computes what its base
    does."""
    keep_memory()
    where = placement(settings.device, settings.method, settings.load_in_4bit)
    method = (settings.method, settings.r, settings.alpha, settings.seed, settings.top_layers)
    free = where.free_bytes() or free_bytes()  # before the other ranks of this node take their own
    with parallel.first_of_a_node_first():
        sizes = sizes_of(empty_model(settings.model), *method)
        if where.device.type == "cpu":
            require_room(settings.model, sizes, settings.pack_tokens, free)
        base = load_base(settings.model, where)
    if not base.encoder.has_own_template:
        say.say(f"{base.name} has no chat template: a plain one with role headings is used and saved with it")
    new = add_terms(base, settings.new_tokens) if settings.new_tokens else None
    if new:
        say.say(new_tokens_line(new))
    reader = PackReader(add_method(base.model, *method, new.pieces if new else None))
    for line in reader.slower_paths():
        say.say(line)
    if settings.sharding == "fsdp" and parallel.n_ranks() > 1:
        shard(reader.model)
    elif where.device.type == "cuda":
        needed = training_memory(sizes, settings.pack_tokens, where.weight_bytes)
        say.say(fit_layers(reader, settings, wants_recomputing(needed.total - needed.runtime, free)))
    return Subject(base, reader, settings, run, say, new)


def fit_layers(reader: PackReader, settings: Settings, tight: bool) -> str:
    """Decoder layers as a GPU reads them best: compiled, or run again in the backward pass where memory is `tight`;
    returns what a person is told."""
    if tight:
        recompute_layers(reader.inner)
        return "memory is tight: the decoder layers run again in the backward pass instead of keeping what they made"
    if not settings.compile:
        return "the decoder layers run as they are (--no-compile)"
    n_frozen = n_frozen_layers(reader.inner, settings.top_layers) if settings.top_layers else 0
    reason = compile_layers(reader, n_frozen)
    return f"the decoder layers cannot be compiled ({reason}): they run as they are" if reason else "layers compiled"


def new_tokens_line(new: NewTokens) -> str:
    """What becomes of the terms."""
    known = f"; {len(new.known)} are single tokens already ({', '.join(new.known[:5])})" if new.known else ""
    return f"{len(new.pieces)} terms become tokens, each from the mean of its pieces{known}"


def fingerprint(subject: Subject, split: Split) -> Iterator[str]:
    """What must be the same on all ranks."""
    yield subject.base.sha256
    for example in (*split.train, *split.select, *split.test):
        yield from (example.id, example.prompt_text, example.learned_text)
