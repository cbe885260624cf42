"""What `--evidence full` adds: questions about terms, the cheaper arms, controls, other seeds, halves of the text, the
model from scratch; each written to evidence/ as records, from which `compared` concludes without a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean

from metier.errors import DataError
from metier.evidence.full import controls, questions, scratch
from metier.evidence.full.cheaper import ADAPTED, BASE
from metier.evidence.full.cheaper_arms import (
    Arms,
    Asked,
    answer_arms,
    measure_arms,
    sources_of,
)
from metier.evidence.full.compared import FACTS, of_arm
from metier.evidence.full.floors import compressor_bits, ngram_records
from metier.evidence.full.limits import Limits
from metier.evidence.full.ngrams import NgramModel
from metier.evidence.full.queries import kind_of_queries, queries_of
from metier.evidence.full.readers import Models, fresh_reader, has_room, models_of
from metier.evidence.full.retrieval import whole_text
from metier.evidence.full.rivals import (
    SCRATCH_RATE,
    Steps,
    body_parameters,
    closest_half,
    scratch_model,
    share_of,
    shuffled_words,
    train_rival,
    wrong_field,
)
from metier.evidence.measure import Before
from metier.evidence.score import Record, score_field
from metier.evidence.statistics import bits_per_byte
from metier.evidence.subject import Subject
from metier.evidence.sufficiency import quality
from metier.evidence.tasks import WITHOUT, score_tasks
from metier.models.adapters import at_strength
from metier.models.load import empty_model
from metier.models.packing import PackReader
from metier.runs import Json, write_json, write_jsonl
from metier.settings import Settings
from metier.sources.examples import Example
from metier.sources.split import Split
from metier.training.loop import StepMetrics, Trained
from metier.training.mix import Beside
from metier.training.plan import Plan, smallest_step, step_size
from metier.training.stream import MINED, OWN_GENERAL, REPLAY

NO_TIME = "the minutes did not allow it (give more)"
NOT_REPEATED = "are not trained of whole models, with added tokens or on preferences"


@dataclass(frozen=True)
class Adapted:
    """The adapted model and how it came to be. reader: reads as the adapted model. peak_lr: that it was trained at.
    beside: what was trained beside the field. strength: at which it is measured."""

    reader: PackReader
    trained: Trained
    peak_lr: float
    beside: Beside
    strength: float = 1.0


def full_evidence(
    subject: Subject,
    split: Split,
    planned: Plan,
    before: Before,
    adapted: Adapted,
    terms: Sequence[str],
    limits: Limits,
    tasks: Sequence[Example] = (),
) -> None:
    """Measure, and write evidence/arms.jsonl, arm-answers.jsonl, controls.jsonl, seeds.jsonl, halves.jsonl,
    scratch.jsonl, without_tasks.jsonl, questions.jsonl and definitions.jsonl; what could not be run says why in
    compared.json.

    split: without held-out items that leak. terms: of the field, the foremost first. tasks: mined from held-out texts,
    of an adapted model that was trained on mined ones.

    Raises:
        DivergedError: a rival's loss is not finite.
        RunError: the disk refuses.
    """
    train = [e for e in split.train if e.id in adapted.trained.bytes_by_item]  # exactly what was trained on
    ngrams, models = _ngrams(subject, train), models_of(subject, adapted.reader)
    if limits.questions:
        held_out = {e.id for e in split.test}
        passages = [asdict(passage) for passage in before.items.passages if passage.item in held_out]
        questions.ask_about_terms(subject, models, questions.About(limits.questions, passages, terms, split.test))
    facts = {
        "arms": {
            **_measure_arms(subject, models, split, train, ngrams, limits),
            "costs": {"train_s": adapted.trained.seconds, "score_tokens_per_s": planned.speed.score_tokens_per_s},
        },
        "controls": _measure_controls(subject, planned, before, train, adapted, limits),
        "stability": _measure_seeds(subject, split, planned, before, adapted, limits),
        "quality": _measure_halves(subject, planned, before, train, adapted, limits),
        "scratch": _measure_scratch(subject, before, train, adapted, ngrams, limits),
        "tasks": _measure_without_tasks(subject, split, planned, before, adapted, limits, tasks),
    }
    write_json(subject.run.evidence / FACTS, facts)


# the arms ------------------------------------------------------------------------------------------------------------


def _measure_arms(
    subject: Subject, models: Models, split: Split, train: Sequence[Example], ngrams: NgramModel, limits: Limits
) -> dict[str, Json]:
    kind = kind_of_queries(train)
    encoder, seed = subject.encoder, subject.settings.seed
    select, test = (
        queries_of(examples, kind, n, seed, encoder)
        for examples, n in ((split.select, limits.select), (split.test, limits.test))
    )
    if not select or not test:
        return {"why": "no held-out text is long enough to be asked about, or no question short enough"}
    try:
        sources = sources_of(train, (*split.select, *split.test), kind, seed, encoder)
    except DataError as error:
        return {"why": str(error)}
    asked = Asked(kind, select, test, models, sources, subject.settings.pack_tokens)
    arms = measure_arms(asked, ngrams, subject.say)
    write_jsonl(subject.run.evidence / "arms.jsonl", arms.records)
    if kind == "answer" and limits.answers:
        subject.say.begin("arms: answers in words", limits.answers)
        answers = answer_arms(asked, arms.chosen, _answering(arms), limits.answers)
        subject.say.end()
        write_jsonl(subject.run.evidence / "arm-answers.jsonl", answers)
    return {"ngram_shares": list(arms.ngram_shares)}


def _answering(arms: Arms) -> list[str]:
    """Base and adapted, and of the others of each the best on the select half: answers in words take long."""
    bits = {
        name: bits_per_byte(r for r in arms.records if r["arm"] == name and r["half"] == "select")
        for name in arms.chosen
    }
    told = [name for name in bits if name not in (BASE, ADAPTED)]
    best = [
        min((n for n in told if n.startswith(model)), key=lambda n: bits[n], default=model) for model in (BASE, ADAPTED)
    ]
    return [BASE, ADAPTED, *best]


# the controls --------------------------------------------------------------------------------------------------------


def _measure_controls(
    subject: Subject, planned: Plan, before: Before, train: Sequence[Example], adapted: Adapted, limits: Limits
) -> dict[str, Json]:
    settings = subject.settings
    if subject.new_tokens or any(e.rejected for e in train):
        return {"why": "controls are not trained where tokens are added or rows are preferences"}
    if not limits.controls:
        return {"why": NO_TIME}
    planned_steps = _same_steps(replace(settings, mix=()), planned, adapted)
    placebo_text, placebo = wrong_field(settings.data, as_chat=kind_of_queries(train) == "answer")
    texts: dict[str, Callable[[], list[Example]]] = {
        controls.PLACEBO: lambda: placebo,
        controls.SHUFFLED: lambda: shuffled_words(train, settings.seed),
    }
    records: list[Mapping[str, Json]] = []
    for name in limits.controls:
        reader = fresh_reader(subject)
        _train(subject, f"control: {name}", reader, texts[name](), _without_tasks(adapted), planned_steps)
        records += of_arm(name, _score(subject, reader, before))
    write_jsonl(subject.run.evidence / "controls.jsonl", records)
    return {"placebo_text": placebo_text}


def _same_steps(settings: Settings, planned: Plan, adapted: Adapted) -> Steps:
    """As many as the adapted model took, with as much beside the field."""
    trained = adapted.trained
    beside = (MINED, OWN_GENERAL, REPLAY)
    shares = {name: trained.tokens_of_part.get(name, 0) / max(1, trained.n_tokens) for name in beside}
    return Steps(trained.n_steps, planned.step_tokens, adapted.peak_lr, shares, settings)


def _can_repeat(subject: Subject, train: Sequence[Example]) -> bool:
    """Whether the run can be made again beside itself."""
    return not (subject.new_tokens or any(e.rejected for e in train) or subject.settings.method == "full")


def _without_tasks(adapted: Adapted) -> Beside:
    """What was trained beside the field but for the tasks, whose share falls to the text that takes the field's
    place."""
    return replace(adapted.beside, mined=())


# other seeds ---------------------------------------------------------------------------------------------------------


def _measure_seeds(
    subject: Subject, split: Split, planned: Plan, before: Before, adapted: Adapted, limits: Limits
) -> dict[str, Json]:
    """Other orders of the rows and other starts of the adapter, on the same held-out text."""
    if not _can_repeat(subject, split.train):
        return {"why": f"other seeds {NOT_REPEATED}"}
    if not limits.seeds:
        return {"why": NO_TIME}
    records: list[Mapping[str, Json]] = []
    seeds = [subject.settings.seed + 1 + i for i in range(limits.seeds)]
    for seed in seeds:
        reader = fresh_reader(subject, seed)
        steps = _same_steps(replace(subject.settings, seed=seed), planned, adapted)
        _train(subject, f"seed {seed}", reader, split.train, adapted.beside, steps)
        with at_strength(reader.model, adapted.strength):
            records += of_arm(str(seed), _score(subject, reader, before))
    write_jsonl(subject.run.evidence / "seeds.jsonl", records)
    return {"seed": subject.settings.seed, "seeds": seeds}


# quality or quantity -------------------------------------------------------------------------------------------------


def _measure_halves(
    subject: Subject, planned: Plan, before: Before, train: Sequence[Example], adapted: Adapted, limits: Limits
) -> dict[str, Json]:
    """Half of the text at random, and the half that is closest to the field, each for half of the steps."""
    if not _can_repeat(subject, train):
        return {"why": f"halves {NOT_REPEATED}"}
    if not limits.halves:
        return {"why": NO_TIME}
    steps = _same_steps(replace(subject.settings, mix=()), planned, adapted)
    steps = replace(steps, n_steps=max(1, steps.n_steps // 2))
    records: list[Mapping[str, Json]] = []
    for name, half in (
        (quality.RANDOM, share_of(train, 0.5, subject.settings.seed)),
        (quality.FILTERED, closest_half(train)),
    ):
        reader = fresh_reader(subject)
        _train(subject, f"half of the text: {name}", reader, half, _without_tasks(adapted), steps)
        with at_strength(reader.model, adapted.strength):
            records += of_arm(name, _score(subject, reader, before))
    write_jsonl(subject.run.evidence / "halves.jsonl", records)
    return {}


# without mined tasks -------------------------------------------------------------------------------------------------


def _measure_without_tasks(
    subject: Subject,
    split: Split,
    planned: Plan,
    before: Before,
    adapted: Adapted,
    limits: Limits,
    tasks: Sequence[Example],
) -> dict[str, Json]:
    """A run like the adapted model's own, on the field's text in the place of mined tasks."""
    if not tasks:
        return {}
    if not _can_repeat(subject, split.train):
        return {"why": f"runs without them {NOT_REPEATED}"}
    if not limits.without_tasks:
        return {"why": NO_TIME}
    reader = fresh_reader(subject)
    steps = _same_steps(subject.settings, planned, adapted)
    _train(subject, WITHOUT, reader, split.train, _without_tasks(adapted), steps)
    with at_strength(reader.model, adapted.strength):
        records = [*score_tasks(subject, reader, tasks), *_score(subject, reader, before)]
    write_jsonl(subject.run.evidence / "without_tasks.jsonl", of_arm(WITHOUT, records))
    return {}


# from scratch --------------------------------------------------------------------------------------------------------


def _measure_scratch(
    subject: Subject, before: Before, train: Sequence[Example], adapted: Adapted, ngrams: NgramModel, limits: Limits
) -> dict[str, Json]:
    settings, items = subject.settings, before.items
    n_tokens = min(limits.scratch_tokens, adapted.trained.n_tokens)
    records = of_arm(scratch.NGRAM, ngram_records(ngrams, items.field, items.field_documents))
    smallest = smallest_step(settings, round(fmean(d.n_tokens for d in items.field_documents)))
    sizes: list[dict[str, Json]] = []
    why = "" if has_room(subject) else "there is no room in memory for one"
    for share in () if why else limits.shares:
        name = f"scratch {share:g}"
        part = share_of(train, share * n_tokens / adapted.trained.n_tokens, settings.seed)
        step_tokens = step_size(round(share * n_tokens), settings, smallest)
        n_steps = max(1, round(share * n_tokens / step_tokens))
        steps = Steps(n_steps, step_tokens, SCRATCH_RATE, {}, replace(settings, mix=()))
        reader = PackReader(scratch_model(subject.base.model, settings.seed))
        trained = _train(subject, f"from random weights: {share:.0%} of the text", reader, part, Beside(), steps)
        records += of_arm(name, _score(subject, reader, before))
        sizes.append({"arm": name, "tokens": trained.n_tokens, "steps": trained.n_steps})
    write_jsonl(subject.run.evidence / "scratch.jsonl", records)
    return {
        "sizes": sizes,
        "why": why or ("" if limits.shares else NO_TIME),
        "facts": {
            "compressor_bits": compressor_bits([whole_text(e) for e in train], [e.learned_text for e in items.field]),
            "train_characters": sum(len(e.learned_text) for e in train),
            "body_parameters": body_parameters(empty_model(settings.model)),
        },
    }


# models and their scores ---------------------------------------------------------------------------------------------


def _train(
    subject: Subject,
    task: str,
    reader: PackReader,
    examples: Sequence[Example],
    beside: Beside,
    planned: Steps,
) -> Trained:
    done = 0

    def on_step(metrics: StepMetrics) -> None:
        nonlocal done
        done += metrics.tokens
        subject.say.advance(done, f"loss {metrics.loss:.3f}, {metrics.tokens_per_s:.0f} tokens/s")

    subject.say.begin(task, planned.n_steps * planned.step_tokens)
    trained = train_rival(reader, examples, subject.encoder.encode, beside, planned, on_step)
    subject.say.end()
    return trained


def _score(subject: Subject, reader: PackReader, before: Before) -> list[Record]:
    records, _ = score_field(reader, before.items, subject.settings.pack_tokens, lambda _: None)
    return records


def _ngrams(subject: Subject, train: Sequence[Example]) -> NgramModel:
    documents = [d for e in train for d in subject.encoder.encode(e)]
    return NgramModel(documents, subject.base.model.config.get_text_config().vocab_size)
