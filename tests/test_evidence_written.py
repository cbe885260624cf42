"""Which answers of the base are replayed: its likeliest ones first, sampled ones after them and instead of circles."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from metier.evidence import written
from metier.evidence.written import replayed_answers
from metier.models.encoding import Encoder
from metier.models.generate import Answer
from metier.progress import Silent
from metier.sources import general
from metier.training.replay import ReplayPlan
from tiny import tiny_model, tiny_tokenizer

REQUESTS = ("a", "b", "c", "d", "e")


def test_few_are_the_likeliest_and_what_goes_in_circles_is_sampled() -> None:
    asked: list[tuple[str, ...]] = []

    def likeliest(requests: Sequence[str]) -> list[Answer]:
        asked.append(tuple(requests))
        circles = "boil an egg " * 20
        return [Answer(r, circles if r == "b" else f"The plain answer to {r}.", 6, True) for r in requests]

    def sampled(requests: Sequence[str]) -> list[Answer]:
        asked.append(tuple(requests))
        return [Answer(r, f"Perhaps {r}?", 3, True) for r in requests]

    found = replayed_answers(REQUESTS, 3, likeliest, sampled)
    assert asked == [("a", "b", "c"), ("b", "d", "e")]
    assert [a.request for a in found] == ["a", "c", "b", "d", "e"]
    assert [a.answer.startswith("Perhaps") for a in found] == [False, False, True, True, True]


def test_what_is_replayed_is_greedy_first_and_sampled_after_in_one_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METIER_CACHE", str(tmp_path))
    monkeypatch.setattr(written, "disabled", lambda _: nullcontext())
    monkeypatch.setattr(written, "WRITTEN_TOKENS", 6)
    batches: list[int] = []
    generated = written.answer_all

    def counted(model: object, encoder: object, requests: Sequence[str], *rest: Any) -> list[Answer]:
        batches.append(len(requests))
        return generated(model, encoder, requests, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(written, "answer_all", counted)
    encoder, model = Encoder(tiny_tokenizer(), 512), tiny_model()
    subject: Any = SimpleNamespace(
        base=SimpleNamespace(answers_as="a" * 64), reader=SimpleNamespace(model=model), encoder=encoder, say=Silent()
    )
    monkeypatch.setattr(written, "CIRCLES", 1.0)
    found = written.written_for_replay(subject, ReplayPlan(share=0.15, yours=0.0, answers=9, likeliest=4))
    requests = list(general.replay_requests()[:9])
    assert batches == [9]
    assert found == generated(model, encoder, requests, 6, sampled=range(4, 9))
    assert written.written_for_replay(subject, ReplayPlan(0.15, 0.0, 9, 4)) == found
    assert batches == [9]
