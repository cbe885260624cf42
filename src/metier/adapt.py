"""The main path: documents in, an adapted model and a verdict out."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from metier.errors import DataError, RunError
from metier.evidence import conclude, facts, measure, planning
from metier.evidence.measure import Before
from metier.evidence.stored import hashes
from metier.evidence.subject import Subject
from metier.evidence.written import replay_of
from metier.field import Training, beside_field, save_trained, train_field, write_config
from metier.models.device import chosen
from metier.models.encoding import Encoder
from metier.models.methods import n_trained
from metier.models.terms import read_terms
from metier.models.threads import Threads, fit_threads
from metier.models.vocabulary import vocabulary
from metier.origin import Origin, origin_of, reopen, require_same
from metier.prepare import fingerprint, prepare
from metier.progress import Progress, Silent
from metier.proof import measure_trained
from metier.ranks import this_rank
from metier.record import finish, recorded
from metier.results import Run
from metier.runs import Json, RunFolder, default_folder, environment, write_json, write_jsonl, write_text
from metier.settings import Settings, from_mapping, to_toml
from metier.sources.general import texts
from metier.sources.ledger import Ledger
from metier.sources.mine import mined_terms, tasks_of
from metier.sources.read import Corpus, ReadOptions, read_corpus
from metier.sources.shown import corpus_lines, private_lines
from metier.sources.split import Split, split_corpus
from metier.training import parallel
from metier.training.evidence_plan import Sizes
from metier.training.journal import Journal
from metier.training.plan import Plan, read_plan
from metier.training.stream import FIELD, Part, Step, field_documents, steps
from metier.training.trajectory import Trajectory

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
        planned, sizes = parallel.from_first(read_plan(run)), None
        if planned is None:
            planned, sizes = planning.make_plan(subject.base, subject.reader, split, settings, started)
        parallel.require_documents(first_steps(subject, split, planned))
        for line in planning.plan_lines(planned):
            say.say(line)
        write_beginning(run, origin, corpus, split, planned, threads)
        before, planned = measure_base(subject, split, planned, sizes, started, threads)
        replay = replay_of(subject, planned.replay)
        leaks = measure.leaks_of(subject, split, replay.answers, planned.replay)
        beside = beside_field(subject, split, planned, replay.answers)
        journal = open_journal(run, origin, planned, started, say)
        field = train_field(subject, split, planned, beside, journal)
        save_trained(subject)
        settle(corpus.ledger, split, field, before, subject.adapted_encoder)
        write_json(run.ledger, corpus.ledger.as_json())
        if n_cut := corpus.ledger.n_cut:
            say.say(f"{n_cut} conversations did not fit the window of {subject.encoder.window} tokens and were cut")
        if field.trained.interrupted:
            raise KeyboardInterrupt
        seconds = before.seconds + measure_trained(subject, split, planned, before, beside, field, journal, leaks)
        trained = field.trained
        results = {
            "schema": conclude.SCHEMA,
            **parallel.by_first(lambda: conclude.evidence_part(run)),
            "model": facts.model_facts(
                subject.base, subject.reader.model, n_trained(subject.reader.model, settings.method)
            ),
            "data": facts.data_facts(corpus, split, trained.n_tokens),
            "vocabulary": vocabulary_facts(subject, split),
            "training": facts.training_facts(trained, planned, replay.seconds, field.probe, field.mix, field.rate),
            "cost": facts.cost(trained, field.rate, replay.seconds, seconds, journal.elapsed_s),
            "evidence": hashes(run),
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
    for line in (*corpus_lines(corpus), *private_lines(corpus)):
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
    if settings.mined and not any(tasks_of(e) for e in split.train if not e.is_chat):
        raise DataError(f"{settings.data[0]} holds no plain English text to mine tasks from: leave out --mined.")
    if settings.new_tokens and any(e.rejected for e in split.train):
        raise DataError(
            f"{settings.data[0]} holds preferences, which are learned beside the base, and the base cannot read new "
            "tokens: leave out --new-tokens."
        )
    say.say(f"{len(corpus.examples):,} examples; {n_documents} {split.unit}s held out, half of them for the verdict")
    return corpus, split


def measure_base(
    subject: Subject, split: Split, planned: Plan, sizes: Sizes | None, started: float, threads: Threads
) -> tuple[Before, Plan]:
    """The base's evidence, and the plan with the tokens that the time left after it allows; a run that goes on, of
    which no sizes are known, keeps the plan that it has."""
    before = measure.base_arm(subject, split.test, split.unit, planned.evidence)
    if sizes is None:
        return before, planned
    again = planning.after_base(planned, sizes, subject.settings, started, before.seconds)
    if again != planned:
        write_plan(subject.run, again, threads)
        for line in planning.after_base_lines(planned, again, before.seconds):
            subject.say.say(line)
    return before, again


def open_journal(run: RunFolder, origin: Origin, planned: Plan, started: float, say: Progress) -> Journal:
    """With the trajectory, where the evidence will read it."""
    settings = from_mapping(origin.settings)
    journal = Journal(run, origin.hashes(), settings.checkpoint_s, started, say.say)
    if planned.evidence.choosing.strengths:
        journal.trajectory = Trajectory(run.trajectory, planned.steps)
    return journal


def first_steps(subject: Subject, split: Split, planned: Plan) -> Iterator[Step]:
    """Those of the field without replay, to see whether every rank has something to do."""
    field = field_documents(split.train, subject.adapted_encoder.encode, subject.settings.seed)
    return islice(steps([Part(FIELD, 1.0, field)], planned.step_tokens), LOOKED_AT)


def vocabulary_facts(subject: Subject, split: Split) -> dict[str, Json]:
    """How the tokenizer cuts the field and its terms, which are written to terms.jsonl with their definitions."""
    mined = mined_terms(split.train)
    write_jsonl(subject.run.terms, map(asdict, mined))
    field = [e.learned_text for e in split.train]
    return vocabulary(subject.encoder, field, [t.term for t in mined], [t.text for t in texts()])


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
        write_plan(run, planned, threads)
    write_config(run, from_mapping(origin.settings), planned, planned.lr)
    write_json(run.environment, environment())
    write_json(run.splits, split.as_json())
    write_json(run.ledger, corpus.ledger.as_json())


def write_plan(run: RunFolder, planned: Plan, threads: Threads) -> None:
    write_json(run.plan, {**asdict(planned), "threads": asdict(threads)})


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
