"""After training: a strength is chosen, the adapted model is measured at it, and compared with what else there is."""

import time
from collections.abc import Sequence
from dataclasses import replace

from metier.evidence import conclude, measure
from metier.evidence.full.limits import Limits, expected_seconds, limits_within
from metier.evidence.full.measured import Adapted, full_evidence
from metier.evidence.full.queries import kind_of_queries
from metier.evidence.full.questions import ask_as_trained
from metier.evidence.full.readers import models_of
from metier.evidence.jargon.occurrences import terms_in
from metier.evidence.measure import Before
from metier.evidence.select_half import DIAL, read_strengths
from metier.evidence.subject import Subject
from metier.evidence.tasks import read_tasks
from metier.field import Training
from metier.models.adapters import at_strength
from metier.runs import RunFolder, read_jsonl, write_jsonl
from metier.sources.examples import Example
from metier.sources.language import languages
from metier.sources.leaks import Leaks
from metier.sources.split import Split
from metier.sources.terms import terms
from metier.training import parallel
from metier.training.journal import Journal
from metier.training.loop import Trained
from metier.training.mix import Beside
from metier.training.plan import Plan

SHARE_BEYOND = 0.5  # of the minutes, that the comparisons of full evidence may take besides


def measure_trained(
    subject: Subject,
    split: Split,
    planned: Plan,
    before: Before,
    beside: Beside,
    field: Training,
    journal: Journal,
    leaks: Leaks,
) -> float:
    """Write to evidence/ all that the verdict is concluded from; return the seconds of what quick evidence has, too."""
    choosing_s, dial = choose(subject, split, planned, field.trained, journal, leaks)
    rows = trained_on(split, field.trained)
    language, names = write_field_terms(subject.run, split, rows) if before.items.field else ("", [])
    clean = without_leaks(split, leaks)
    with at_strength(subject.reader.model, dial):
        after = measure.adapted_arm(subject, subject.reader, before)
        rate = field.rate["chosen"] if field.rate else planned.lr
        tasks, tasks_s = asked_tasks(subject, clean, before, beside)
        adapted = Adapted(subject.reader, field.trained, rate, beside, dial)
        seconds = comparing_seconds(subject.settings.minutes, journal.elapsed_s)
        limits = compare(subject, clean, planned, before, adapted, names, tasks, seconds)
    if limits and limits.questions:
        ask_as_trained(subject, subject.reader, trained_on(clean, field.trained), limits.questions)
    measure.write_measured(subject, before, after, split.unit, leaks, dial, planned.field_tokens, language)
    if journal.trajectory:
        journal.trajectory.remove()
    return choosing_s + after.seconds + tasks_s


def asked_tasks(subject: Subject, split: Split, before: Before, beside: Beside) -> tuple[list[Example], float]:
    """(the tasks that both models were asked, seconds it took), where some were trained; split: without leaks."""
    started = time.monotonic()
    wanted = beside.mined and before.items.field
    tasks = read_tasks(subject, models_of(subject, subject.reader), split.test) if wanted else []
    return tasks, time.monotonic() - started


def choose(
    subject: Subject, split: Split, planned: Plan, trained: Trained, journal: Journal, leaks: Leaks
) -> tuple[float, float]:
    """(seconds it took, the strength that the adapter is measured at), chosen on the select half."""
    choosing, run = planned.evidence.choosing, subject.run
    if not choosing.strengths:
        return 0.0, 1.0
    rows = trained_on(split, trained)
    select = without_leaks(split, leaks).select
    seconds = read_strengths(subject, select, choosing, journal.trajectory, trained.n_steps, rows)
    margin = subject.settings.budget_forgetting
    found = parallel.by_first(lambda: conclude.dial_of(list(read_jsonl(run.evidence / DIAL)), margin, leaks))
    subject.say.say(found["sentence"])
    return seconds, float(found["chosen"])


def trained_on(split: Split, trained: Trained) -> list[Example]:
    return [e for e in split.train if e.id in trained.bytes_by_item]


def without_leaks(split: Split, leaks: Leaks) -> Split:
    """Of the held-out items those whose text is not trained on."""
    leaked = {leak.id for leak in leaks.held_out}
    select, test = ([e for e in half if e.id not in leaked] for half in (split.select, split.test))
    return replace(split, select=select, test=test)


def comparing_seconds(minutes: float, elapsed_s: float) -> float:
    """How long comparisons may take: all that is left of the minutes, or SHARE_BEYOND of them where that is more."""
    return max(60 * SHARE_BEYOND * minutes, 60 * minutes - elapsed_s)


def compare(
    subject: Subject,
    split: Split,
    planned: Plan,
    before: Before,
    adapted: Adapted,
    names: Sequence[str],
    tasks: Sequence[Example],
    seconds: float,
) -> Limits | None:
    """With --evidence full: what cheaper ways, controls and a model from scratch do on the same held-out text, as much
    as fits into these seconds; returns how much was measured. tasks: mined from held-out texts, as what the model was
    trained on."""
    if subject.settings.evidence != "full":
        return None
    if parallel.n_ranks() > 1:
        subject.say.say("cheaper ways, controls and a model from scratch are compared by one process only: left out")
        return None
    kind = kind_of_queries(split.train)
    limits = limits_within(seconds, planned, before, kind, bool(tasks))
    minutes = expected_seconds(limits, planned, before, kind) / 60
    subject.say.say(f"full evidence: cheaper ways and rivals are compared, about {minutes:.0f} minutes more")
    full_evidence(subject, split, planned, before, adapted, names, limits, tasks)
    return limits


def write_field_terms(run: RunFolder, split: Split, trained: Sequence[Example] | None) -> tuple[str, list[str]]:
    """The field's terms, and which of them stand in what was trained on (None: not known), to evidence/terms.jsonl;
    returns the main language and the terms, the foremost first."""
    examples = (*split.train, *split.select, *split.test)
    language: str = languages([(e.id, e.learned_text) for e in examples])["main"]
    found = [one["term"] for one in terms(examples, language)]
    records: list[dict[str, object]] = [{"term": term} for term in found]
    if trained is not None:
        seen = terms_in([e.learned_text for e in trained], found)
        records = [{"term": term, "seen": term in seen} for term in found]
    write_jsonl(run.evidence / "terms.jsonl", records)
    return language, found
