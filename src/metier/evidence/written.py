"""What the base and the adapted model answer to requests."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from metier.evidence.answers import repetition
from metier.evidence.subject import Subject
from metier.models.adapters import disabled
from metier.models.encoding import Encoder
from metier.models.generate import Answer, AnswerCache, answer_all
from metier.progress import Progress
from metier.ranks import this_rank
from metier.sources import general
from metier.sources.wheels import cache_folder
from metier.training import parallel
from metier.training.replay import ReplayPlan

ANSWER_TOKENS = 64  # limit of an answer that is measured; most good answers of the general pack are shorter
WRITTEN_TOKENS = 96  # limit of one that is replayed
CIRCLES = 0.25  # of an answer, that repeats itself
Answering = Callable[[Sequence[str]], list[Answer]]


def written_for_replay(subject: Subject, wanted: ReplayPlan) -> list[Answer]:
    requests, n = general.replay_requests()[: wanted.answers], wanted.likeliest
    _answer_missing(subject, WRITTEN_TOKENS, requests[:n], requests[n:])  # one batch is made sooner than two small ones
    return replayed_answers(
        requests,
        n,
        lambda requests: kept_answers(subject, requests, WRITTEN_TOKENS),
        lambda requests: kept_answers(subject, requests, WRITTEN_TOKENS, sampled=True),
    )


def replayed_answers(
    requests: Sequence[str], n_likeliest: int, likeliest: Answering, sampled: Answering
) -> list[Answer]:
    """The likeliest answers to the first requests, of which few tokens hold most; sampled ones to the others, and to
    those whose likeliest answer goes in circles, which is not to be learned.

    Trained on what it would say as often as it would say it, the base has no reason to move (the expected gradient is
    zero), but a few sampled words hold it loosely; ever more of its likeliest words make it surer of them and of
    nothing else (docs/log.md, 2026-11-26).
    """
    straight = [a for a in likeliest(requests[:n_likeliest]) if repetition(a.answer) <= CIRCLES]
    known = {answer.request for answer in straight}
    return straight + sampled([request for request in requests if request not in known])


def kept_answers(
    subject: Subject, wanted: Sequence[str], limit: int | None = None, sampled: bool = False
) -> list[Answer]:
    """The base's, of `limit` tokens at most (ANSWER_TOKENS where None), from the cache of the first rank, whatever
    others have kept; what it lacks is answered by all ranks. Greedy, or sampled at temperature 1."""
    caches = _answer_missing(subject, limit or ANSWER_TOKENS, () if sampled else wanted, wanted if sampled else ())
    return parallel.by_first(lambda: caches[sampled].answers(subject.reader.model, subject.encoder, wanted))


def _answer_missing(
    subject: Subject, limit: int, likeliest: Sequence[str], sampled: Sequence[str]
) -> tuple[AnswerCache, AnswerCache]:
    """The caches of both kinds, of which the first rank's have answers to these requests; no request is in both."""
    model, encoder = subject.reader.model, subject.encoder
    greedy, by_chance = (
        AnswerCache(cache_folder(), subject.base.answers_as, encoder, limit, kind) for kind in (False, True)
    )
    first, second = parallel.from_first((greedy.missing(likeliest), by_chance.missing(sampled)))
    if missing := [*first, *second]:
        subject.say.begin("base model answers general requests (kept for later runs)", len(missing))
        with disabled(model):
            answers = answers_of(model, encoder, missing, subject.say, limit, range(len(first), len(missing)))
        if this_rank().is_first:
            greedy.keep(answers[: len(first)])
            by_chance.keep(answers[len(first) :])
    return greedy, by_chance


def answers_of(
    model: Any,
    encoder: Encoder,
    requests: Sequence[str],
    say: Progress,
    limit: int | None = None,
    sampled: Collection[int] = (),
) -> list[Answer]:
    """Answers in the order of the requests, which are divided over the ranks by the length of their prompts; `sampled`
    as in `answer_all`."""
    own = parallel.own_part([len(request) for request in requests])

    def on_batch(done: int, _: int) -> None:
        say.advance(parallel.n_ranks() * done)

    by_chance = {place for place, i in enumerate(own) if i in sampled}
    made = answer_all(model, encoder, [requests[i] for i in own], limit or ANSWER_TOKENS, on_batch, by_chance)
    by_request = {answer.request: answer for answers in parallel.from_all(made) for answer in answers}
    return [by_request[request] for request in requests]
