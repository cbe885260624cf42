"""What `--evidence full` adds: the cheaper arms, the controls, the model from scratch; each written to evidence/ as
score records, and concluded from these without a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from metier.errors import DataError
from metier.evidence import controls, scratch
from metier.evidence.cheaper import ADAPTED, BASE
from metier.evidence.cheaper_arms import (
    ANSWER_TOKENS,
    Arms,
    Asked,
    Models,
    answer_arms,
    expected_tokens,
    measure_arms,
    sources_of,
)
from metier.evidence.compared import FACTS, compared, of_arm
from metier.evidence.floors import compressor_bits, ngram_records
from metier.evidence.measure import Before, Subject
from metier.evidence.ngrams import NgramModel
from metier.evidence.queries import HALF_TOKENS, Kind, kind_of_queries, queries_of
from metier.evidence.retrieval import PASSAGE_TOKENS, whole_text
from metier.evidence.rivals import (
    SCRATCH_RATE,
    Steps,
    body_parameters,
    scratch_model,
    share_of,
    shuffled_words,
    train_rival,
    wrong_field,
)
from metier.evidence.score import Record, score_field
from metier.evidence.statistics import bits_per_byte
from metier.models.adapters import at_strength
from metier.models.encoding import Encoded
from metier.models.fit import sizes_of, training_memory
from metier.models.load import empty_model, load_base
from metier.models.machine import free_bytes
from metier.models.methods import add_method
from metier.models.packing import PackReader
from metier.runs import Json, write_json, write_jsonl
from metier.sources.examples import Example
from metier.sources.split import Split
from metier.training.loop import StepMetrics, Trained
from metier.training.plan import Plan, step_size


@dataclass(frozen=True)
class Limits:
    """How much is measured. select, test: queries of each half · answers: queries that are answered in words ·
    controls: which are trained · shares: of the training text that models from scratch get · scratch_tokens: that the
    largest of them reads at most · seeds: other runs that differ in their seed alone."""

    select: int = 16
    test: int = 60
    answers: int = 24
    controls: tuple[str, ...] = (controls.PLACEBO, controls.SHUFFLED)
    shares: tuple[float, ...] = scratch.SHARES
    scratch_tokens: int = 25_000
    seeds: int = 2


LADDER = (
    Limits(),
    Limits(select=12, test=40, answers=16, shares=(0.25, 1.0), scratch_tokens=12_000),
    Limits(select=8, test=30, answers=0, controls=(controls.PLACEBO,), shares=(1.0,), scratch_tokens=6_000, seeds=0),
    Limits(select=8, test=20, answers=0, controls=(), shares=(), seeds=0),
)
"""From everything to the cheaper arms alone: controls and seeds take as long as the training, each."""
FULL_COST = 1.8  # of a LoRA token, on a CPU: the gradients of the weights, and Adam on all of them
ANSWERING_ARMS = 4  # at most


def limits_within(seconds: float, planned: Plan, before: Before, kind: Kind) -> Limits:
    """The largest of LADDER that fits into these seconds; the smallest where none does. kind: of the field."""
    return next((limits for limits in LADDER if expected_seconds(limits, planned, before, kind) <= seconds), LADDER[-1])


def expected_seconds(limits: Limits, planned: Plan, before: Before, kind: Kind) -> float:
    """How long full evidence takes at the speeds of the plan."""
    speed, documents = planned.speed, before.items.field_documents
    field_tokens = sum(len(d.ids) for d in documents)
    query_tokens = min(2 * HALF_TOKENS, field_tokens / max(1, len(documents)))
    told_tokens = PASSAGE_TOKENS if kind == "text" else min(PASSAGE_TOKENS, query_tokens)
    read = expected_tokens(kind, limits.select, limits.test, query_tokens, told_tokens)
    rivals = len(limits.controls) + limits.seeds
    read += (rivals + len(limits.shares)) * field_tokens
    written = ANSWERING_ARMS * limits.answers * ANSWER_TOKENS if kind == "answer" else 0
    scratch_tokens = min(limits.scratch_tokens, planned.train_tokens) * sum(limits.shares)
    trained = rivals * planned.train_tokens + FULL_COST * scratch_tokens
    return read / speed.score_tokens_per_s + written / speed.generate_tokens_per_s + trained / speed.train_tokens_per_s


@dataclass(frozen=True)
class Adapted:
    """The adapted model and how it came to be. reader: reads as the adapted model. peak_lr: that it was trained at.
    replay: the documents beside the field. strength: at which it is measured."""

    reader: PackReader
    trained: Trained
    peak_lr: float
    replay: Sequence[Encoded]
    strength: float = 1.0


def full_evidence(
    subject: Subject, split: Split, planned: Plan, before: Before, adapted: Adapted, limits: Limits = Limits()
) -> dict[str, Json]:
    """Measure, write evidence/arms.jsonl, arm-answers.jsonl, controls.jsonl, seeds.jsonl and scratch.jsonl, and
    conclude.

    Returns the parts `arms`, `controls`, `stability` and `scratch` of results.json; what could not be run says why.
    The scores of both models on the field (scores-base.jsonl, scores-adapted.jsonl) have been written before.

    Raises:
        DivergedError: a rival's loss is not finite.
        RunError: the disk refuses.
    """
    train = [e for e in split.train if e.id in adapted.trained.bytes_by_item]  # exactly what was trained on
    ngrams = _ngrams(subject, train)
    facts = {
        "arms": {
            **_measure_arms(subject, split, train, adapted, ngrams, limits),
            "costs": {"train_s": adapted.trained.seconds, "score_tokens_per_s": planned.speed.score_tokens_per_s},
        },
        "controls": _measure_controls(subject, planned, before, train, adapted, limits),
        "stability": _measure_seeds(subject, split, planned, before, adapted, limits),
        "scratch": _measure_scratch(subject, before, train, adapted, ngrams, limits),
    }
    write_json(subject.run.evidence / FACTS, facts)
    return compared(subject.run)


# the arms ------------------------------------------------------------------------------------------------------------


def _measure_arms(
    subject: Subject, split: Split, train: Sequence[Example], adapted: Adapted, ngrams: NgramModel, limits: Limits
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
    models = Models(_base_reader(subject), adapted.reader, encoder, subject.adapted_encoder)
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
    planned_steps = _same_steps(subject, planned, adapted, settings.seed)
    placebo_text, placebo = wrong_field(settings.data, as_chat=kind_of_queries(train) == "answer")
    texts: dict[str, Callable[[], list[Example]]] = {
        controls.PLACEBO: lambda: placebo,
        controls.SHUFFLED: lambda: shuffled_words(train, settings.seed),
    }
    records: list[Mapping[str, Json]] = []
    for name in limits.controls:
        reader = _fresh_reader(subject)
        _train(subject, f"control: {name}", reader, texts[name](), adapted.replay, planned_steps)
        records += of_arm(name, _score(subject, reader, before))
    write_jsonl(subject.run.evidence / "controls.jsonl", records)
    return {"placebo_text": placebo_text}


def _same_steps(subject: Subject, planned: Plan, adapted: Adapted, seed: int) -> Steps:
    """As many as the adapted model took."""
    trained = adapted.trained
    share = trained.n_replay_tokens / max(1, trained.n_tokens)
    pack_tokens = subject.settings.pack_tokens
    return Steps(trained.n_steps, planned.step_tokens, adapted.peak_lr, pack_tokens, share, seed)


# other seeds ---------------------------------------------------------------------------------------------------------


def _measure_seeds(
    subject: Subject, split: Split, planned: Plan, before: Before, adapted: Adapted, limits: Limits
) -> dict[str, Json]:
    """Other orders of the rows and other starts of the adapter, on the same held-out text."""
    if subject.new_tokens or any(e.rejected for e in split.train) or subject.settings.method == "full":
        return {"why": "other seeds are not trained of whole models, with added tokens or on preferences"}
    records: list[Mapping[str, Json]] = []
    seeds = [subject.settings.seed + 1 + i for i in range(limits.seeds)]
    for seed in seeds:
        reader = _fresh_reader(subject, seed)
        steps = _same_steps(subject, planned, adapted, seed)
        _train(subject, f"seed {seed}", reader, split.train, adapted.replay, steps)
        with at_strength(reader.model, adapted.strength):
            records += of_arm(str(seed), _score(subject, reader, before))
    write_jsonl(subject.run.evidence / "seeds.jsonl", records)
    return {"seed": subject.settings.seed, "seeds": seeds}


# from scratch --------------------------------------------------------------------------------------------------------


def _measure_scratch(
    subject: Subject, before: Before, train: Sequence[Example], adapted: Adapted, ngrams: NgramModel, limits: Limits
) -> dict[str, Json]:
    settings, items = subject.settings, before.items
    n_tokens = min(limits.scratch_tokens, adapted.trained.n_tokens)
    records = of_arm(scratch.NGRAM, ngram_records(ngrams, items.field, items.field_documents))
    sizes: list[dict[str, Json]] = []
    for share in limits.shares if _has_room(subject) else ():
        name = f"scratch {share:g}"
        part = share_of(train, share * n_tokens / adapted.trained.n_tokens, settings.seed)
        step_tokens = step_size(round(share * n_tokens), settings)
        n_steps = max(1, round(share * n_tokens / step_tokens))
        steps = Steps(n_steps, step_tokens, SCRATCH_RATE, settings.pack_tokens, 0.0, settings.seed)
        reader = PackReader(scratch_model(subject.base.model, settings.seed))
        trained = _train(subject, f"from random weights: {share:.0%} of the text", reader, part, (), steps)
        records += of_arm(name, _score(subject, reader, before))
        sizes.append({"arm": name, "tokens": trained.n_tokens, "steps": trained.n_steps})
    write_jsonl(subject.run.evidence / "scratch.jsonl", records)
    return {
        "sizes": sizes,
        "facts": {
            "compressor_bits": compressor_bits([whole_text(e) for e in train], [e.learned_text for e in items.field]),
            "train_characters": sum(len(e.learned_text) for e in train),
            "body_parameters": body_parameters(empty_model(settings.model)),
        },
    }


# models and their scores ---------------------------------------------------------------------------------------------


def _base_reader(subject: Subject) -> PackReader:
    """After full fine-tuning the subject's own weights are no longer the base's."""
    if subject.settings.method != "full":
        return subject.reader
    return PackReader(load_base(subject.settings.model, subject.base.where).model)


def _fresh_reader(subject: Subject, seed: int | None = None) -> PackReader:
    """The base as it was before training, with an adapter that has learned nothing; seed: the run's own where None."""
    settings = subject.settings if seed is None else replace(subject.settings, seed=seed)
    base = load_base(settings.model, subject.base.where)
    return PackReader(
        add_method(base.model, settings.method, settings.r, settings.alpha, settings.seed, settings.top_layers)
    )


def _has_room(subject: Subject) -> bool:
    """Whether a second model fits beside the first, with gradients and moments of every weight."""
    settings = subject.settings
    sizes = sizes_of(empty_model(settings.model), "full", settings.r, settings.alpha, settings.seed)
    needed = training_memory(sizes, settings.pack_tokens)
    free = subject.base.where.free_bytes() or free_bytes()
    return free is None or needed.total - needed.runtime <= free


def _train(
    subject: Subject,
    task: str,
    reader: PackReader,
    examples: Sequence[Example],
    replay: Sequence[Encoded],
    planned: Steps,
) -> Trained:
    done = 0

    def on_step(metrics: StepMetrics) -> None:
        nonlocal done
        done += metrics.tokens
        subject.say.advance(done, f"loss {metrics.loss:.3f}, {metrics.tokens_per_s:.0f} tokens/s")

    subject.say.begin(task, planned.n_steps * planned.step_tokens)
    trained = train_rival(reader, examples, subject.encoder.encode, replay, planned, on_step)
    subject.say.end()
    return trained


def _score(subject: Subject, reader: PackReader, before: Before) -> list[Record]:
    records, _ = score_field(reader, before.items, subject.settings.pack_tokens, lambda _: None)
    return records


def _ngrams(subject: Subject, train: Sequence[Example]) -> NgramModel:
    documents = [d for e in train for d in subject.encoder.encode(e)]
    return NgramModel(documents, subject.base.model.config.get_text_config().vocab_size)
