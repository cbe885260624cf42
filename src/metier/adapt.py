"""The main path: documents in, an adapted model and a verdict out."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from metier.errors import DataError, RunError
from metier.evidence import conclude, measure
from metier.evidence.measure import Before, Subject
from metier.interrupts import StopAfterStep
from metier.models.adapters import keep_memory
from metier.models.compiling import compile_layers, recompute_layers, wants_recomputing
from metier.models.device import chosen, placement
from metier.models.encoding import Encoded, Encoder
from metier.models.fit import require_room, sizes_of, training_memory
from metier.models.frozen import lower_outputs_kept
from metier.models.generate import Answer
from metier.models.load import empty_model, load_base
from metier.models.machine import free_bytes
from metier.models.methods import add_method, n_frozen_layers, n_trained
from metier.models.packing import PackReader
from metier.models.terms import NewTokens, add_terms, read_terms
from metier.models.threads import Threads, fit_threads
from metier.origin import Origin, origin_of, reopen, require_same
from metier.progress import Progress, Silent
from metier.ranks import this_rank
from metier.record import finish, recorded
from metier.results import Run
from metier.runs import RunFolder, default_folder, environment, write_json, write_text
from metier.settings import Settings, from_mapping, to_toml
from metier.sources.examples import Example
from metier.sources.ledger import Ledger
from metier.sources.read import Corpus, ReadOptions, read_corpus
from metier.sources.shown import found_lines, left_out_files, removed_lines
from metier.sources.split import Split, split_corpus
from metier.training import parallel
from metier.training.journal import Journal
from metier.training.loop import Begun, Recipe, StepMetrics, Trained, train
from metier.training.memory import try_longest_pack
from metier.training.plan import Plan, read_plan
from metier.training.probe import probe
from metier.training.replay import replay_documents
from metier.training.sharding import shard, sharded, whole_state
from metier.training.stream import Step, field_documents, steps

LOOKED_AT = 8  # steps


def adapt(
    *data: str,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    fields: Mapping[str, str] | None = None,
    skip_bad_rows: bool = False,
    password: str = "",
    progress: Progress | None = None,
    **options: Any,
) -> Run:
    """Adapt a model to the field of `data`, measure what happened, and write it all to the run folder `out`.

    data: files, folders, `pack:NAME`, or a hub id. fields: part → field name where the usual names do not fit.
    options: those of `Settings` (model, minutes, tokens, replay, lr, evidence, seed, …).
    resume: the folder of a run that was stopped or killed, instead of all of these; it ends as if it had never stopped.
    password: opens locked files among the data; it is not written down, so resuming needs it again.

    Raises:
        MetierError: what the user can mend, in one sentence; nothing is left half-written.
        KeyboardInterrupt: after what was trained so far has been written.
    """
    started = time.monotonic()
    say = progress if progress and this_rank().is_first else Silent()
    if resume is None:
        settings = Settings(
            data=tuple(map(str, data)), fields=dict(fields or {}), skip_bad_rows=skip_bad_rows, **options
        )
        if settings.new_tokens:  # the terms themselves are kept: the run no longer depends on a file of them
            settings = replace(settings, new_tokens=read_terms(settings.new_tokens))
        run = RunFolder(out or default_folder(settings.data[0]))
        run.require_free()
        parallel.join(settings.rank_timeout, chosen(settings.device))
    else:
        require_nothing_beside(resume, [*data, *filter(None, (out, fields, skip_bad_rows)), *options])
        run, settings = reopen(resume)
        parallel.join(settings.rank_timeout, chosen(settings.device))
        if parallel.by_first(run.results.exists):  # it was killed while its report was written
            run.set_status("done")
            return finish(run)
    corpus, split = read_data(settings, password, say)
    parallel.require_rows(len(split.train), sum(bool(e.rejected) for e in split.train))
    # Given tokens must give the same adapter whatever else the machine does.
    threads = fit_threads(settings.threads, fixed=bool(settings.tokens))
    if line := threads.line():
        say.say(line)
    subject = prepare(settings, run, say)
    parallel.require_alike("data or a model", fingerprint(subject, split))
    measure.require_renderable(subject.encoder, corpus.examples)
    origin = origin_of(settings, corpus, subject.base.sha256)
    for line in require_same(run, origin) if resume is not None else ():
        say.say(line)
    begin(run, origin)
    with recorded(run, new=resume is None):
        planned = parallel.from_first(read_plan(run)) or measure.make_plan(
            subject.base, subject.reader, split, settings, started
        )
        parallel.require_documents(first_steps(subject, split, planned))
        for line in measure.plan_lines(planned):
            say.say(line)
        write_beginning(run, origin, corpus, split, planned, threads)
        before = measure.base_arm(subject, split.test, split.unit, planned.evidence, planned.replay_requests)
        leaks = measure.leaks_of(subject, split, before.replay)
        journal = Journal(run, origin.hashes(), settings.checkpoint_s, started, say.say)
        field = train_field(subject, split, planned, before.replay, journal)
        save_trained(subject)
        settle(corpus.ledger, split, field, before, subject.adapted_encoder)
        write_json(run.ledger, corpus.ledger.as_json())
        if n_cut := corpus.ledger.n_cut:
            say.say(f"{n_cut} conversations did not fit the window of {subject.encoder.window} tokens and were cut")
        if field.trained.interrupted:
            raise KeyboardInterrupt
        after = measure.adapted_arm(subject, subject.reader, before)
        results = {
            "schema": conclude.SCHEMA,
            **conclude.verdict_part(before, after, split.unit, settings.budget_forgetting, leaks),
            "model": conclude.model_facts(
                subject.base, subject.reader.model, n_trained(subject.reader.model, settings.method)
            ),
            "data": conclude.data_facts(corpus, split, field.trained.n_tokens),
            "training": conclude.training_facts(field.trained, planned, field.probe, field.rate),
            "cost": conclude.cost(field.trained, field.rate, before.seconds + after.seconds, journal.elapsed_s),
        }
        write_json(run.results, results)
    return finish(run)


def require_nothing_beside(resume: str | Path, given: Sequence[object]) -> None:
    """A run goes on with what it began with."""
    if given:
        raise RunError(
            f"{given[0]} cannot be given when a run goes on: `metier adapt --resume {resume}` takes everything from "
            "the run folder."
        )


def read_data(settings: Settings, password: str, say: Progress) -> tuple[Corpus, Split]:
    options = ReadOptions(
        settings.fields,
        settings.skip_bad_rows,
        password=password,
        privacy=settings.privacy,
        select=settings.select,
    )
    corpus = read_corpus(settings.data, options, say)
    for line in (line for found in corpus.formats for line in found_lines(found)):
        say.say(line)
    if left_out := left_out_files(corpus.files):
        say.say(f"{len(corpus.files):,} files, of which {left_out} (the ledger says which)")
    for line in removed_lines(corpus):
        say.say(line)
    split = split_corpus(corpus.examples, settings.seed, settings.held_out, ledger=corpus.ledger)
    if not split.train:
        raise DataError(f"{settings.data[0]} leaves nothing to train on after the split: add documents.")
    n_documents = len({e.document for e in (*split.select, *split.test)})
    if settings.method == "full" and any(e.rejected for e in split.train):
        raise DataError(
            f"{settings.data[0]} holds preferences, which are learned beside the model with its adapter switched off, "
            "and --method full has none: choose an adapter."
        )
    if settings.new_tokens and any(e.rejected for e in split.train):
        raise DataError(
            f"{settings.data[0]} holds preferences, which are learned beside the base, and the base cannot read new "
            "tokens: leave out --new-tokens."
        )
    say.say(f"{len(corpus.examples):,} examples; {n_documents} {split.unit}s held out, half of them for the verdict")
    return corpus, split


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


def first_steps(subject: Subject, split: Split, planned: Plan) -> Iterator[Step]:
    """Those of the field without replay, to see whether every rank has something to do."""
    field = field_documents(split.train, subject.adapted_encoder.encode, subject.settings.seed)
    return islice(steps(field, [], 0.0, planned.step_tokens), LOOKED_AT)


def begin(run: RunFolder, origin: Origin) -> None:
    """Make the folder and write the origin first of all, so that a run that is killed at any later moment can go on."""
    if not run.origin.exists():
        run.create()
        write_json(run.origin, asdict(origin))
    if not run.config.exists():
        write_text(run.config, to_toml(from_mapping(origin.settings)))


def write_beginning(
    run: RunFolder, origin: Origin, corpus: Corpus, split: Split, planned: Plan, threads: Threads
) -> None:
    if not run.plan.exists():
        write_json(run.plan, {**asdict(planned), "threads": asdict(threads)})
    write_config(run, from_mapping(origin.settings), planned.lr)
    write_json(run.environment, environment())
    write_json(run.splits, split.as_json())
    write_json(run.ledger, corpus.ledger.as_json())


def write_config(run: RunFolder, settings: Settings, lr: float) -> None:
    """The settings as they were resolved: with them the same run is made again, without looking for a rate."""
    write_text(run.config, to_toml(replace(settings, lr=lr, threads=torch.get_num_threads())))


@dataclass(frozen=True)
class Training:
    """What training did; `probe` is the same held-out rows of the select half before and after."""

    trained: Trained
    probe: dict[str, float]
    too_long: frozenset[str]  # rows whose prompt alone fills the window
    rate: Mapping[str, Any] | None = None  # how the learning rate was found, where it was looked for


def train_field(subject: Subject, split: Split, planned: Plan, replay: Sequence[Answer], journal: Journal) -> Training:
    """Train on the field and on replay from where the journal stands, writing it as it goes.

    Raises:
        DataError: no row of the field has a supervised token.
    """
    encoder, reader, settings, say = subject.adapted_encoder, subject.reader, subject.settings, subject.say
    too_long: set[str] = set()

    def encode(example: Example) -> list[Encoded]:
        documents = encoder.encode(example)
        if not documents:
            too_long.add(example.id)
        return documents

    def stream() -> Iterator[Step]:
        field = field_documents(split.train, encode, settings.seed)
        return steps(field, replay_documents(encoder, replay), planned.replay_share, planned.step_tokens)

    moved_on = measure.Probe(encoder, split.select)
    if "nll_before" not in journal.notes:
        journal.notes["nll_before"] = moved_on.nll_per_token(reader, settings.pack_tokens)
    done = journal.n_tokens

    def on_step(metrics: StepMetrics) -> None:
        nonlocal done
        done += metrics.tokens
        say.advance(done, f"loss {metrics.loss:.3f}, {metrics.tokens_per_s:.0f} tokens/s")

    try:
        torch.manual_seed(settings.seed)  # the same start whatever was measured before
        frozen = n_frozen_layers(reader.inner, settings.top_layers) if settings.top_layers and planned.epochs > 1 else 0
        with sharded(reader.model), lower_outputs_kept(reader.inner, frozen):
            pack_tokens = try_longest_pack(reader, stream(), planned.steps, settings.pack_tokens, say.say)
            recipe = Recipe(planned.steps, planned.lr, pack_tokens)
            with StopAfterStep(say.say) as stop:
                should_stop = lambda: parallel.any_rank(stop.requested())  # noqa: E731
                begun = find_rate(subject, split, planned, stream, recipe, journal, should_stop)
                if begun and begun.done.interrupted:
                    trained = begun.done  # no rate was chosen: a run that goes on tries them again
                else:
                    rate = journal.notes.get("lr_probe")
                    recipe = replace(recipe, peak_lr=rate["chosen"]) if rate else recipe
                    write_config(subject.run, settings, recipe.peak_lr)
                    done += begun.done.n_tokens if begun else 0
                    say.begin("training", planned.train_tokens)
                    trained = train(reader, stream, recipe, on_step, should_stop, say.say, journal, begun)
    finally:
        journal.close()
        say.end()
    if not trained.n_steps:
        raise DataError(
            f"{settings.data[0]} gives no supervised tokens: the prompts of {len(too_long)} rows fill the model's "
            "window; shorten them."
        )
    nll_after = moved_on.nll_per_token(reader, settings.pack_tokens)
    moved = {"n_rows": moved_on.n_rows, "nll_before": journal.notes["nll_before"], "nll_after": nll_after}
    return Training(trained, moved, frozenset(too_long), journal.notes.get("lr_probe"))


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
    done = 0

    def on_step(metrics: StepMetrics) -> None:
        nonlocal done
        done += metrics.tokens
        say.advance(done, f"{metrics.lr:.2g}: loss {metrics.loss:.3f}")

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


def settle(ledger: Ledger, split: Split, field: Training, before: Before, encoder: Encoder) -> None:
    """Close the account: which rows were trained, how much of a text the budget reached, what did not fit."""
    trained_bytes = field.trained.bytes_by_item
    trained = {e.id: encoder.encode(e) for e in split.train if e.id in trained_bytes}
    cut = measure.cut_bytes(ledger, (*trained.items(), *before.field_by_example(), *((i, []) for i in field.too_long)))
    unreached = {i: sum(d.n_bytes for d in ds) - trained_bytes[i] for i, ds in trained.items()}
    ledger.settle(
        held_out=[e.id for e in (*split.select, *split.test)],
        trained=list(trained),
        cut=cut,
        unreached={i: n for i, n in unreached.items() if n},
    )
