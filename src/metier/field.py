"""Training on the field and on what is beside it, from where the journal stands to the saved adapter."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors import SafetensorError

from metier.errors import DataError, RunError
from metier.evidence import measure
from metier.evidence.subject import Subject
from metier.interrupts import StopAfterStep
from metier.models.encoding import Encoded
from metier.models.frozen import lower_outputs_kept
from metier.models.generate import Answer
from metier.models.methods import n_frozen_layers
from metier.progress import Progress
from metier.ranks import this_rank
from metier.runs import Json, RunFolder, write_text
from metier.settings import Settings, to_toml
from metier.sources.examples import Example
from metier.sources.general import own_texts
from metier.sources.mine import mined_tasks
from metier.sources.split import Split
from metier.training import parallel
from metier.training.journal import Journal
from metier.training.loop import Begun, Recipe, StepMetrics, Trained, train
from metier.training.memory import try_longest_pack
from metier.training.mix import Beside, achieved, mix_lines, mixed
from metier.training.plan import Plan
from metier.training.probe import probe
from metier.training.replay import replay_documents
from metier.training.sharding import sharded, whole_state
from metier.training.stream import Part, Step, steps


@dataclass(frozen=True)
class Training:
    """What training did; `probe` is the same held-out rows of the select half before and after."""

    trained: Trained
    probe: dict[str, float]
    too_long: frozenset[str]  # rows whose prompt alone fills the window
    mix: list[dict[str, Json]]
    rate: Mapping[str, Any] | None = None  # how the learning rate was found, where it was looked for


def write_config(run: RunFolder, settings: Settings, planned: Plan, lr: float) -> None:
    """The settings as they were resolved: with them the same run is made again, without looking for a rate."""
    resolved = replace(settings, lr=lr, replay=planned.replay.share, threads=torch.get_num_threads())
    write_text(run.config, to_toml(resolved))


def beside_field(subject: Subject, split: Split, planned: Plan, replay: Sequence[Answer]) -> Beside:
    """What is trained beside the field. replay: what the base wrote."""
    settings = subject.settings
    general = own_texts(settings.general).replayed if planned.replay.yours else ()
    mined = mined_tasks(split.train) if settings.mined else ()
    if settings.mined:
        subject.say.say(f"{len(mined):,} tasks are mined from the plain texts")
    return Beside(mined, general, replay_documents(subject.adapted_encoder, replay))


def train_field(subject: Subject, split: Split, planned: Plan, beside: Beside, journal: Journal) -> Training:
    """Train on the field and on what is beside it from where the journal stands, writing it as it goes.

    Raises:
        DataError: no row of the field has a supervised token.
    """
    encoder, reader, settings = subject.adapted_encoder, subject.reader, subject.settings
    too_long: set[str] = set()

    def encode(example: Example) -> list[Encoded]:
        documents = encoder.encode(example)
        if not documents:
            too_long.add(example.id)
        return documents

    def parts() -> list[Part]:
        others = beside.documents(encoder.encode, settings.seed)
        return mixed(split.train, encode, others, planned.shares(settings.mined), settings)

    def stream() -> Iterator[Step]:
        return steps(parts(), planned.step_tokens)

    moved_on = measure.Probe(encoder, split.select)
    if "nll_before" not in journal.notes:
        journal.notes["nll_before"] = moved_on.nll_per_token(reader, settings.pack_tokens)
    try:
        torch.manual_seed(settings.seed)  # the same start whatever was measured before
        frozen = n_frozen_layers(reader.inner, settings.top_layers) if settings.top_layers and planned.epochs > 1 else 0
        with sharded(reader.model), lower_outputs_kept(reader.inner, frozen):
            pack_tokens = try_longest_pack(reader, stream(), planned.steps, settings.pack_tokens, subject.say.say)
            recipe = Recipe(planned.steps, planned.lr, pack_tokens)
            trained = _train(subject, split, planned, stream, recipe, journal)
    finally:
        journal.close()
        subject.say.end()
    require_trained(trained, settings, len(too_long))
    nll_after = moved_on.nll_per_token(reader, settings.pack_tokens)
    moved = {"n_rows": moved_on.n_rows, "nll_before": journal.notes["nll_before"], "nll_after": nll_after}
    mix = achieved(parts(), trained.tokens_of_part)
    for line in mix_lines(mix):
        subject.say.say(line)
    return Training(trained, moved, frozenset(too_long), mix, journal.notes.get("lr_probe"))


def _train(
    subject: Subject,
    split: Split,
    planned: Plan,
    stream: Callable[[], Iterator[Step]],
    recipe: Recipe,
    journal: Journal,
) -> Trained:
    """The rate first, where it is looked for, then the steps; Ctrl-C and SIGTERM end either after a step."""
    reader, settings, say = subject.reader, subject.settings, subject.say
    with StopAfterStep(say.say) as stop:
        should_stop = lambda: parallel.any_rank(stop.requested())  # noqa: E731
        begun = find_rate(subject, split, planned, stream, recipe, journal, should_stop)
        if begun and begun.done.interrupted:
            return begun.done  # no rate was chosen: a run that goes on tries them again
        rate = journal.notes.get("lr_probe")
        recipe = replace(recipe, peak_lr=rate["chosen"]) if rate else recipe
        write_config(subject.run, settings, planned, recipe.peak_lr)
        done = journal.n_tokens + (begun.done.n_tokens if begun else 0)
        say.begin("training", planned.train_tokens)
        on_step = _told(say, done, lambda m: f"loss {m.loss:.3f}, {m.tokens_per_s:.0f} tokens/s")
        return train(reader, stream, recipe, on_step, should_stop, say.say, journal, begun)


def _told(say: Progress, done: int, line: Callable[[StepMetrics], str]) -> Callable[[StepMetrics], None]:
    """Tells of every step, with all tokens so far. done: those before the first."""

    def on_step(metrics: StepMetrics) -> None:
        nonlocal done
        done += metrics.tokens
        say.advance(done, line(metrics))

    return on_step


def require_trained(trained: Trained, settings: Settings, n_too_long: int) -> None:
    if not trained.n_steps:
        raise DataError(
            f"{settings.data[0]} gives no supervised tokens: the prompts of {n_too_long} rows fill the model's "
            "window; shorten them."
        )


def find_rate(
    subject: Subject,
    split: Split,
    planned: Plan,
    stream: Callable[[], Iterator[Step]],
    recipe: Recipe,
    journal: Journal,
    should_stop: Callable[[], bool],
) -> Begun | None:
    """Try the planned learning rates on the first steps of `stream`, and note in the journal which one was chosen; None
    where nothing is tried, or was before the checkpoint that the run goes on from."""
    say = subject.say
    judge = measure.probe_judge(subject, split.select) if planned.probe and journal.found is None else None
    if not planned.probe or not judge:
        return None
    say.begin("trying learning rates", len(planned.probe.rates) * planned.probe.steps * planned.step_tokens)
    on_step = _told(say, 0, lambda m: f"{m.lr:.2g}: loss {m.loss:.3f}")
    found = probe(subject.reader, stream, planned.probe, recipe, judge, on_step, should_stop, say.say)
    if not found.begun.done.interrupted:
        say.say(found.line())
        journal.notes["lr_probe"] = found.as_json()
    return found.begun


def save_trained(subject: Subject) -> None:
    """The adapter as PEFT writes it, or the whole model if all of it was trained, with the tokenizer and its template;
    whole or not at all. It takes the place of what an interrupted run had left.

    Raises:
        RunError: the disk refuses.
    """
    if not this_rank().is_first:
        return
    folder = subject.run.model if subject.settings.method == "full" else subject.run.adapter
    partial = folder.with_name(f"{folder.name}.tmp")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        options: dict[str, Any] = {"save_embedding_layers": False} if subject.new_tokens else {}
        subject.reader.model.save_pretrained(partial, state_dict=whole_state(subject.reader.model), **options)
        subject.adapted_encoder.tokenizer.save_pretrained(partial)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{folder} cannot be written ({error}): free some space and run again.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
