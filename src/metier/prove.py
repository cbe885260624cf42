"""The evidence for any adapter or model, whoever trained it."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from metier.errors import MetierError, ModelError
from metier.evidence import conclude, facts, measure, planning
from metier.evidence.select_half import read_strengths
from metier.evidence.stored import hashes
from metier.evidence.subject import Subject
from metier.models.adapters import base_named_in, keep_memory, load_adapter
from metier.models.device import chosen, placement
from metier.models.load import BaseModel, load_base
from metier.models.packing import PackReader
from metier.models.terms import tokens_of_adapter
from metier.models.threads import fit_threads
from metier.progress import Progress, Silent
from metier.proof import without_leaks, write_field_terms
from metier.ranks import this_rank
from metier.record import finish, recorded
from metier.results import Run
from metier.runs import RunFolder, default_folder, environment, read_json, write_json, write_text
from metier.settings import Settings, to_toml
from metier.sources.documents import digest
from metier.sources.examples import Example
from metier.sources.find import DESCRIBES
from metier.sources.formats.outcome import LEFT_OUT
from metier.sources.leaks import Leaks
from metier.sources.read import Corpus, ReadOptions, read_corpus
from metier.sources.shown import corpus_lines
from metier.sources.split import Split, Unit
from metier.training import parallel
from metier.training.evidence_plan import EvidencePlan, evidence_plan
from metier.training.replay import NO_REPLAY
from metier.training.speed import Speed

FEWEST_TO_CHOOSE = 40  # documents, of which a third chooses


def prove(
    base: str,
    domain: str | Sequence[str],
    adapter: str | Path | None = None,
    model: str | None = None,
    out: str | Path | None = None,
    trained_on: str | Sequence[str] = (),
    password: str = "",
    progress: Progress | None = None,
    **options: Any,
) -> Run:
    """Measure an adapter, or a whole model, against its base on the texts of `domain`, none of which it may have seen.

    trained_on: the data that it was trained on, where that is known: measured text that stands there is no evidence.
    password: opens locked files among the data.
    options: those of `Settings` that concern reading (fields, skip_bad_rows) and the evidence (minutes, evidence,
    budget_forgetting, seed, threads).

    Raises:
        MetierError: what the user can mend, in one sentence.
    """
    started = time.monotonic()
    say = progress if progress and this_rank().is_first else Silent()
    if (adapter is None) == (model is None):
        raise MetierError("name either an --adapter or a --model to prove.")
    data, trained_data = ((given,) if isinstance(given, str) else tuple(given) for given in (domain, trained_on))
    settings = Settings(data=data, model=base, **options)
    run = RunFolder(out or default_folder(data[0]))
    run.require_free()
    parallel.join(settings.rank_timeout, chosen(settings.device))
    corpus, trained = _read(settings, trained_data, password, say)
    split = _halves(corpus.examples, settings, to_choose=adapter is not None)
    subject, proved = _load(settings, run, say, adapter, model)
    for line in proved.slower_paths():
        say.say(line)
    evidence, speed = _plan(subject, split, started)
    run.create()
    with recorded(run):
        write_text(run.config, to_toml(settings))
        write_json(run.plan, {"evidence": asdict(evidence), "speed": asdict(speed)})
        write_json(run.environment, environment())
        write_json(run.splits, split.as_json())
        seconds = _measure(subject, proved, split, evidence, corpus, trained)
        results = {
            "schema": conclude.SCHEMA,
            **parallel.by_first(lambda: conclude.evidence_part(run)),
            "model": facts.model_facts(subject.base, proved.model)
            | {"proved": str(adapter or model), "trained_on": list(trained_data)},
            "data": facts.data_facts(corpus, split, 0),
            "cost": {
                "evidence_s": seconds,
                "total_s": time.monotonic() - started,
                "peak_rss_bytes": facts.peak_rss_bytes(),
            },
            "evidence": hashes(run),
        }
        write_json(run.results, results)
    return finish(run)


def _read(
    settings: Settings, trained_data: Sequence[str], password: str, say: Progress
) -> tuple[Corpus, Corpus | None]:
    """What is measured, and what the model was trained on, where that is named."""
    reading = ReadOptions(settings.fields, settings.skip_bad_rows, password=password, privacy=settings.privacy)
    corpus = read_corpus(settings.data, reading, say)
    trained = read_corpus(trained_data, reading, say) if trained_data else None
    seen = ["what it was trained on, to look for leaks:", *corpus_lines(trained)] if trained else []
    for line in (*corpus_lines(corpus), *seen):
        say.say(line)
    return corpus, trained


def _plan(subject: Subject, split: Split, started: float) -> tuple[EvidencePlan, Speed]:
    """How much is measured in what is left of the minutes, and the speeds that this follows from."""
    settings = subject.settings
    sizes, speed = planning.measure_machine(subject.encoder, subject.reader, split.test, split.test, settings)
    sizes = planning.to_choose_by(sizes, len(split.select))
    seconds = settings.minutes * 60 - (time.monotonic() - started)
    return parallel.from_first(evidence_plan(settings.evidence, sizes, speed, seconds)), speed


def _measure(
    subject: Subject,
    proved: PackReader,
    split: Split,
    evidence: EvidencePlan,
    corpus: Corpus,
    trained: Corpus | None,
) -> float:
    """Write to evidence/ all that the verdict is concluded from; return the seconds it took."""
    run = subject.run
    before = measure.base_arm(subject, split.test, split.unit, evidence)
    cut = measure.cut_bytes(corpus.ledger, before.field_by_example())
    corpus.ledger.settle(held_out=[e.id for e in corpus.examples], trained=[], cut=cut)
    write_json(run.ledger, corpus.ledger.as_json())
    leaks = _leaks(subject, split, trained) if trained else Leaks()
    choosing_s = read_strengths(subject, without_leaks(split, leaks).select, evidence.choosing)
    after = measure.adapted_arm(subject, proved, before)
    language, _ = write_field_terms(run, split, trained.examples if trained else None)
    measure.write_measured(subject, before, after, split.unit, leaks, language=language)
    return before.seconds + choosing_s + after.seconds


def _leaks(subject: Subject, split: Split, trained: Corpus) -> Leaks:
    unread = [f for f in trained.files if f.status in (*LEFT_OUT, "partial") and f.reason != DESCRIBES]
    found = measure.leaks_of(subject, replace(split, train=trained.examples), (), NO_REPLAY)
    return replace(found, unread=len(unread))


def _halves(examples: Sequence[Example], settings: Settings, to_choose: bool) -> Split:
    """Where there are documents enough, a third of them, by a hash of their names, is what a strength is chosen by; the
    claims are made on the others."""
    documents = sorted({e.document for e in examples}, key=lambda name: digest(name))
    n_select = len(documents) // 3 if to_choose and len(documents) >= FEWEST_TO_CHOOSE else 0
    select = set(documents[:n_select])
    unit: Unit = "row" if all(e.document == e.id for e in examples) else "document"
    chosen_on = [e for e in examples if e.document in select]
    return Split([], chosen_on, [e for e in examples if e.document not in select], unit, settings.seed)


def _load(
    settings: Settings, run: RunFolder, say: Progress, adapter: str | Path | None, model: str | None
) -> tuple[Subject, PackReader]:
    """The base, and what reads with the model to be proved: the same weights with an adapter, or weights of its own."""
    if line := fit_threads(settings.threads).line():
        say.say(line)
    keep_memory()
    where = placement(settings.device, settings.method, settings.load_in_4bit)
    with parallel.first_of_a_node_first():
        base = load_base(settings.model, where)
    base.model.requires_grad_(False)  # nothing is trained here, so no speed of training is measured
    if adapter is not None:
        _require_own_base(Path(adapter), base, say)
        new = tokens_of_adapter(base, Path(adapter))
        reader = PackReader(load_adapter(base.model, Path(adapter), new_tokens=new.pieces if new else None))
        return Subject(base, reader, settings, run, say, new), reader
    other = load_base(str(model), where)
    _require_same_tokens(base, other)
    other.model.requires_grad_(False)
    return Subject(base, PackReader(base.model), settings, run, say), PackReader(other.model)


def _require_own_base(adapter: Path, base: BaseModel, say: Progress) -> None:
    """An adapter of our own is of the weights that its run names; of another's only a name is known, and said where it
    is another one: a base of the same shapes takes any adapter, and what is then measured is not what was trained."""
    made = adapter.parent / "results.json"
    recorded = (read_json(made).get("model") or {}) if made.exists() else {}
    if recorded.get("sha256", base.sha256) != base.sha256:
        raise ModelError(
            f"{adapter} was trained on {recorded['base']}, whose weights are not those of {base.name} (their SHA-256 "
            "differ): name the base it was trained on."
        )
    named = "" if recorded else base_named_in(adapter)
    if named and Path(named).name.lower() != Path(base.name).name.lower():
        say.say(f"note: the adapter says that it was trained on {named}; it is measured on {base.name}")


def _require_same_tokens(base: BaseModel, other: BaseModel) -> None:
    if base.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise ModelError(f"{other.name} has another vocabulary than {base.name}: prove it against its own base.")
