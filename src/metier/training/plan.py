"""From minutes to tokens: what this machine can do in the time given, said before it is spent."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from metier.errors import RunError
from metier.models.encoding import Encoded
from metier.models.packing import PackReader, packs_of
from metier.runs import RunFolder, read_json
from metier.settings import Settings
from metier.training.probe import JUDGED_ROWS, MAX_SHARE, ProbePlan, probe_plan
from metier.training.replay import TOKENS_PER_ANSWERED_REQUEST, n_requests

EVIDENCE_SHARE = 0.5  # of the time that is left: evidence may cost as much as training
MARGIN = 0.92  # of the time is planned: machines are shared, and writing takes a moment
FEWEST_STEPS = 8


@dataclass(frozen=True)
class Speed:
    """Measured on this machine, this model and this data; tokens without padding."""

    train_tokens_per_s: float  # 0 where nothing is to be trained
    score_tokens_per_s: float
    generate_tokens_per_s: float


@dataclass(frozen=True)
class Sizes:
    """Tokens of one item of each kind, and how many there are."""

    field_items: int
    field_tokens: float
    train_tokens: int  # one epoch of the field
    texts: int
    text_tokens: float
    own_text_tokens: int  # of all the user's general texts, which are always measured
    requests: int
    request_tokens: float  # a prompt with two answers
    choices: int
    choice_tokens: float
    answer_tokens: int  # limit of a generated answer
    replay_requests: int
    probe_tokens: int  # of the general answers that judge a learning rate


@dataclass(frozen=True)
class EvidencePlan:
    """How many items of each kind are measured, in both arms."""

    field_items: int
    texts: int
    requests: int  # scored with a good answer and the base's own, and answered anew by both arms
    choices: int

    def score_tokens(self, sizes: Sizes) -> float:
        """Tokens read in one arm."""
        return (
            self.field_items * sizes.field_tokens
            + self.texts * sizes.text_tokens
            + sizes.own_text_tokens
            + self.requests * sizes.request_tokens
            + self.choices * sizes.choice_tokens
        )


@dataclass(frozen=True)
class Plan:
    """What will be done; plan.json, with the threads beside it. Times are estimates in seconds."""

    train_tokens: int
    steps: int
    step_tokens: int
    epochs: float
    lr: float
    lr_from: str  # given, table, or probe: the table's is the middle of what is tried
    probe: ProbePlan | None
    replay_share: float
    replay_requests: int
    evidence: EvidencePlan
    speed: Speed
    train_s: float
    evidence_s: float
    notes: tuple[str, ...]


def read_plan(run: RunFolder) -> Plan | None:
    """The plan of a run that goes on: it is measured once. None where none was made yet.

    Raises:
        RunError: plan.json was changed into something else.
    """
    if not run.plan.exists():
        return None
    try:
        values = dict(read_json(run.plan))
        del values["threads"]
        probe = values["probe"]
        values["probe"] = ProbePlan(**{**probe, "rates": tuple(probe["rates"])}) if probe else None
        values |= {"evidence": EvidencePlan(**values["evidence"]), "speed": Speed(**values["speed"])}
        return Plan(**{**values, "notes": tuple(values["notes"])})
    except (KeyError, TypeError, ValueError):
        raise RunError(f"{run.plan} is no plan: put the file back, or begin a new run.") from None


SMALLEST = EvidencePlan(field_items=40, texts=30, requests=60, choices=120)
"""Below it retention is rarely shown: with 40 answers, two ordinary loops leave a share of 10 % open."""

LARGEST_QUICK = EvidencePlan(field_items=200, texts=156, requests=90, choices=240)


def evidence_plan(mode: str, sizes: Sizes, speed: Speed, seconds: float) -> EvidencePlan:
    """The largest evidence between SMALLEST and LARGEST_QUICK that fits `seconds`; everything there is for `full`."""
    if mode == "none":
        return EvidencePlan(0, 0, 0, 0)
    if mode == "full":
        return EvidencePlan(sizes.field_items, sizes.texts, sizes.requests, sizes.choices)
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        if evidence_seconds(_between(middle, sizes), sizes, speed) <= seconds:
            low = middle
        else:
            high = middle
    return _between(low, sizes)


def _between(share: float, sizes: Sizes) -> EvidencePlan:
    """SMALLEST at 0, LARGEST_QUICK at 1, never more than there is."""
    available = {
        "field_items": sizes.field_items,
        "texts": sizes.texts,
        "requests": sizes.requests,
        "choices": sizes.choices,
    }
    small, large = vars(SMALLEST), vars(LARGEST_QUICK)
    return EvidencePlan(
        **{name: min(n, round(small[name] + share * (large[name] - small[name]))) for name, n in available.items()}
    )


def evidence_seconds(evidence: EvidencePlan, sizes: Sizes, speed: Speed) -> float:
    """Both arms: scoring, and the answers that are generated."""
    generated = 2 * evidence.requests * sizes.answer_tokens
    return 2 * evidence.score_tokens(sizes) / speed.score_tokens_per_s + generated / speed.generate_tokens_per_s


def plan(settings: Settings, sizes: Sizes, speed: Speed, seconds: float, lr: float) -> Plan:
    """Divide `seconds` between training and evidence, or take the tokens that the settings name."""
    seconds = MARGIN * max(0.0, seconds)
    share = settings.replay
    most = int(sizes.train_tokens * settings.max_epochs / (1 - share))
    if settings.tokens:
        train_tokens = settings.tokens
        probe = _probe(settings, sizes, min(train_tokens, most), lr)
        left = max(0.0, seconds - (train_tokens + _cost(probe)) / speed.train_tokens_per_s)
        evidence = evidence_plan(settings.evidence, sizes, speed, left)
    else:
        wanted = 0.0 if settings.evidence == "none" else EVIDENCE_SHARE
        evidence = evidence_plan(settings.evidence, sizes, speed, seconds * wanted)
        left = seconds - evidence_seconds(evidence, sizes, speed)
        replay_cost = (
            share * sizes.answer_tokens / TOKENS_PER_ANSWERED_REQUEST / speed.generate_tokens_per_s
        )  # seconds a training token
        per_token = 1 / speed.train_tokens_per_s + replay_cost
        # The probe's time is taken from the run's own: planned for what is left then, it stays within its share.
        probe = _probe(settings, sizes, min(left / per_token / (1 + MAX_SHARE), most), lr)
        left -= _cost(probe) / speed.train_tokens_per_s
        train_tokens = int(max(left, 0) / per_token)
    notes: list[str] = []
    if train_tokens > most:
        notes.append(f"the field is trained {settings.max_epochs} times over, no more: {most:,} tokens suffice")
        train_tokens = most
    floor = min(FEWEST_STEPS * settings.pack_tokens, most)
    if train_tokens < floor and not settings.tokens:
        notes.append(f"{seconds:.0f} s are too few for {FEWEST_STEPS} steps; it will take longer")
        train_tokens = floor
    step_tokens = step_size(train_tokens, settings)
    return Plan(
        train_tokens=train_tokens,
        steps=max(1, round(train_tokens / step_tokens)),
        step_tokens=step_tokens,
        epochs=round(train_tokens * (1 - share) / max(1, sizes.train_tokens), 3),
        lr=settings.lr or lr,
        lr_from="given" if settings.lr else "probe" if probe else "table",
        probe=probe,
        replay_share=share,
        replay_requests=n_requests(train_tokens, share, sizes.replay_requests),
        evidence=evidence,
        speed=speed,
        train_s=round((train_tokens + _cost(probe)) / speed.train_tokens_per_s, 1),
        evidence_s=round(evidence_seconds(evidence, sizes, speed), 1),
        notes=tuple(notes),
    )


def _probe(settings: Settings, sizes: Sizes, train_tokens: float, lr: float) -> ProbePlan | None:
    """None where a rate is given, nothing is held out to judge by, or the run is too short to bear it."""
    if settings.lr or not sizes.field_items:
        return None
    judging = min(JUDGED_ROWS, sizes.field_items) * sizes.field_tokens + sizes.probe_tokens
    return probe_plan(train_tokens, settings.step_tokens, judging, lr)


def _cost(probe: ProbePlan | None) -> int:
    return probe.cost_tokens if probe else 0


def step_size(train_tokens: int, settings: Settings) -> int:
    """Tokens a step: those of the settings, fewer when that would make fewer than 16 steps (small batches train
    well)."""
    return max(settings.pack_tokens, min(settings.step_tokens, train_tokens // 16))


def measure_speed(reader: PackReader, rows: Sequence[Encoded], texts: Sequence[Encoded], pack_tokens: int) -> Speed:
    """Train a pack of rows and score a pack of general texts, twice each; weights and gradients are left as they were.

    Texts are supervised at every token, rows at some: scoring is timed on what costs most.
    """
    batch = next(packs_of(_repeated(rows, pack_tokens), pack_tokens))
    reader.model.train()
    train_tokens_per_s = 0.0
    if any(p.requires_grad for p in reader.model.parameters()):
        train_s = _quicker_of_two(lambda: reader.summed_nll(batch).backward())  # type: ignore[no-untyped-call]
        train_tokens_per_s = batch.n_tokens / train_s
    reader.model.zero_grad(set_to_none=True)
    reader.model.eval()
    read = next(packs_of(_repeated(texts, pack_tokens), pack_tokens, with_end=False))
    score_s = _quicker_of_two(lambda: reader.token_nll(read))
    return Speed(train_tokens_per_s, read.n_tokens / score_s, GENERATE_ROWS / _generate_step(reader))


GENERATE_ROWS = 40
GENERATE_STEPS = 6


@torch.no_grad()
def _generate_step(reader: PackReader) -> float:
    """Seconds of one generated token for a batch of rows."""
    ids = torch.full((GENERATE_ROWS, 8), 5)
    options = {"do_sample": False, "pad_token_id": 0, "eos_token_id": -1, "attention_mask": torch.ones_like(ids)}
    times = []
    for n in (1, 1 + GENERATE_STEPS):
        started = time.perf_counter()
        reader.model.generate(input_ids=ids, max_new_tokens=n, **options)
        times.append(time.perf_counter() - started)
    return max(1e-4, (times[1] - times[0]) / GENERATE_STEPS)


def _quicker_of_two(work: Callable[[], object]) -> float:
    """Seconds; the first call also warms up, so the quicker one counts."""
    times = []
    for _ in range(2):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def _repeated(documents: Sequence[Encoded], n_tokens: int) -> Iterator[Encoded]:
    size = 0
    while documents and size < n_tokens:
        for document in documents:
            size += len(document.ids)
            yield document
