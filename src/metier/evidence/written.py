"""What the base and the adapted model answer to requests."""

import time
from collections.abc import Collection, Sequence
from typing import Any

from metier.evidence.answers import repetition
from metier.evidence.kept import KeptReplay, read_replay, write_replay
from metier.evidence.subject import Subject
from metier.models.adapters import disabled
from metier.models.encoding import Encoder
from metier.models.generate import Answer, AnswerCache, Prompt, answer_all, prompts_of
from metier.progress import Progress
from metier.ranks import this_rank
from metier.sources import general
from metier.sources.wheels import cache_folder
from metier.training import parallel
from metier.training.replay import ReplayPlan

ANSWER_TOKENS = 64  # limit of an answer that is measured; most good answers of the general pack are shorter
WRITTEN_TOKENS = 96  # limit of one that is replayed
CIRCLES = 0.25  # of an answer, that repeats itself


def replay_of(subject: Subject, wanted: ReplayPlan) -> KeptReplay:
    """What the base writes for replay; what a run that was killed had written, where it had."""
    kept = parallel.from_first(read_replay(subject.run))
    if kept is None:
        started = time.monotonic()
        kept = KeptReplay(written_for_replay(subject, wanted), time.monotonic() - started)
        if this_rank().is_first:
            write_replay(subject.run, kept)
    return kept


def written_for_replay(subject: Subject, wanted: ReplayPlan) -> list[Answer]:
    """The likeliest answers to the first requests, of which few tokens hold most, but for those that go in circles,
    which are not to be learned; sampled ones to the others.

    Trained on what it would say as often as it would say it, the base has no reason to move (the expected gradient is
    zero), but a few sampled words hold it loosely; ever more of its likeliest words make it surer of them and of
    nothing else (docs/log.md, 2026-11-26).
    """
    requests, n = general.replay_requests()[: wanted.answers], wanted.likeliest
    # In one batch, which is made sooner than two small ones.
    greedy, by_chance, _ = _answer_missing(subject, "requests to replay", WRITTEN_TOKENS, requests[:n], requests[n:])
    straight = [answer for answer in _kept(subject, greedy, requests[:n]) if is_straight(answer)]
    return straight + _kept(subject, by_chance, requests[n:])


def is_straight(answer: Answer) -> bool:
    """Whether it does not go in circles."""
    return repetition(answer.answer) <= CIRCLES


def kept_answers(subject: Subject, wanted: Sequence[str], beside: Sequence[Prompt] = ()) -> list[Answer]:
    """The base's likeliest, of ANSWER_TOKENS at most: to requests, from the cache of the first rank whatever others
    have kept, and to the prompts beside them, of which nothing is kept; what it lacks is answered by all ranks."""
    greedy, _, others = _answer_missing(subject, "general requests", ANSWER_TOKENS, wanted, (), beside)
    return _kept(subject, greedy, wanted) + others


def _kept(subject: Subject, cache: AnswerCache, requests: Sequence[str]) -> list[Answer]:
    return parallel.by_first(lambda: cache.answers(subject.reader.model, subject.encoder, requests))


def _answer_missing(
    subject: Subject,
    what: str,
    limit: int,
    likeliest: Sequence[str],
    sampled: Sequence[str],
    beside: Sequence[Prompt] = (),
) -> tuple[AnswerCache, AnswerCache, list[Answer]]:
    """The caches of both kinds, of which the first rank's have answers to these requests, no request being in both; and
    the likeliest answers to what is asked beside them, in the same batch. what: the requests, for a person."""
    model, encoder, say = subject.reader.model, subject.encoder, subject.say
    greedy, by_chance = (
        AnswerCache(cache_folder(), subject.base.answers_as, encoder, limit, kind) for kind in (False, True)
    )
    first, second = parallel.from_first((greedy.missing(likeliest), by_chance.missing(sampled)))
    prompts = [*prompts_of(encoder, [*first, *second]), *beside]
    if not prompts:
        return greedy, by_chance, []
    told = f"{what} (kept for later runs)" if first or second else "held-out ones"
    say.begin(f"base model answers {told}", len(prompts))
    n_kept = len(first) + len(second)
    with disabled(model):
        answers = answers_of(model, encoder, prompts, say, limit, range(len(first), n_kept))
    if this_rank().is_first:
        greedy.keep(answers[: len(first)])
        by_chance.keep(answers[len(first) : n_kept])
    return greedy, by_chance, answers[n_kept:]


def answers_of(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[Prompt],
    say: Progress,
    limit: int | None = None,
    sampled: Collection[int] = (),
) -> list[Answer]:
    """Answers in the order of the prompts, which are divided over the ranks by their lengths. limit: in tokens,
    ANSWER_TOKENS where None; sampled: as in `answer_all`."""
    own = parallel.own_part([len(prompt.ids) for prompt in prompts])

    def on_batch(done: int, _: int) -> None:
        say.advance(parallel.n_ranks() * done)

    by_chance = {place for place, i in enumerate(own) if i in sampled}
    made = answer_all(model, encoder, [prompts[i] for i in own], limit or ANSWER_TOKENS, on_batch, by_chance)
    by_place = {i: answer for part in parallel.from_all(list(zip(own, made, strict=True))) for i, answer in part}
    return [by_place[i] for i in range(len(prompts))]
