"""Which answers of the base are replayed, and what is answered in one batch with what."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from metier.evidence import written
from metier.models.encoding import Encoder
from metier.models.generate import Answer, Prompt, answer_all, prompts_of
from metier.progress import Silent
from metier.sources import general
from metier.training.replay import ReplayPlan
from tiny import tiny_model, tiny_tokenizer

REQUESTS = ("a", "b", "c", "d", "e")


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each batch has that is answered from now on."""
    sizes: list[int] = []
    generated = written.answer_all

    def counted(model: object, encoder: object, prompts: Sequence[Prompt], *rest: Any) -> list[Answer]:
        sizes.append(len(prompts))
        return generated(model, encoder, prompts, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(written, "answer_all", counted)
    return sizes


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A base without an adapter, and an empty cache."""
    monkeypatch.setenv("METIER_CACHE", str(tmp_path))
    monkeypatch.setattr(written, "disabled", lambda _: nullcontext())
    encoder, model = Encoder(tiny_tokenizer(), 512), tiny_model()
    return SimpleNamespace(
        base=SimpleNamespace(answers_as="a" * 64), reader=SimpleNamespace(model=model), encoder=encoder, say=Silent()
    )


def test_what_is_replayed_is_greedy_first_and_sampled_after_in_one_batch(
    subject: Any, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written, "WRITTEN_TOKENS", 6)
    monkeypatch.setattr(written, "CIRCLES", 1.0)
    found = written.written_for_replay(subject, ReplayPlan(share=0.15, yours=0.0, answers=9, likeliest=4))
    requests = list(general.replay_requests()[:9])
    assert batches == [9]
    assert found == answer_all(
        subject.reader.model, subject.encoder, prompts_of(subject.encoder, requests), 6, sampled=range(4, 9)
    )
    assert written.written_for_replay(subject, ReplayPlan(0.15, 0.0, 9, 4)) == found
    assert batches == [9]


def test_a_likeliest_answer_that_goes_in_circles_is_not_replayed(
    subject: Any, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ReplayPlan(share=0.15, yours=0.0, answers=9, likeliest=4)
    monkeypatch.setattr(written, "WRITTEN_TOKENS", 6)
    requests = list(general.replay_requests()[:9])
    every = answer_all(
        subject.reader.model, subject.encoder, prompts_of(subject.encoder, requests), 6, sampled=range(4, 9)
    )
    circling = every[2].answer
    monkeypatch.setattr(written, "repetition", lambda text: 0.3 if text == circling else 0.2)
    assert written.written_for_replay(subject, wanted) == [a for a in every[:4] if a.answer != circling] + every[4:]
    assert batches == [9]


def test_answers_that_go_in_circles_are_told_from_straight_ones() -> None:
    assert not written.is_straight(Answer("b", "boil an egg " * 20, 60, False))
    assert written.is_straight(Answer("b", "Bring a small pan of water to the boil and lower the egg in.", 14, True))


def test_prompts_of_the_run_are_answered_in_the_batch_of_what_is_kept_and_are_not_kept(
    subject: Any, batches: list[int]
) -> None:
    model, encoder = subject.reader.model, subject.encoder
    beside = [Prompt("a", [5, 6, 7]), Prompt("of the field", [8, 9])]  # "a" is a request, too, in other words
    alone = written.answers_of(model, encoder, beside, Silent())
    kept = answer_all(model, encoder, prompts_of(encoder, REQUESTS), written.ANSWER_TOKENS)
    batches.clear()
    assert written.kept_answers(subject, REQUESTS, beside) == kept + alone
    assert batches == [7]
    assert written.kept_answers(subject, REQUESTS, beside) == kept + alone
    assert written.kept_answers(subject, REQUESTS) == kept
    assert batches == [7, 2]


def test_answers_come_in_the_order_of_their_prompts_though_two_have_one_request(subject: Any) -> None:
    model, encoder = subject.reader.model, subject.encoder
    first, second = prompts_of(encoder, ["why?", "the question?"])
    prompts = [Prompt("why?", second.ids), first]
    answers = written.answers_of(model, encoder, prompts, Silent(), 6)
    expected = answer_all(model, encoder, [second, first], 6)
    assert [a.answer for a in answers] == [a.answer for a in expected]
    assert answers[0].answer != answers[1].answer
