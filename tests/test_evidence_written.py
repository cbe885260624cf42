"""Which answers of the base are replayed: its likeliest and sampled ones in turn, and none that goes in circles."""

from collections.abc import Sequence

import pytest

from metier.evidence import written
from metier.evidence.written import replayed_answers
from metier.models.generate import Answer
from metier.sources import general
from metier.training.replay import ReplayPlan

REQUESTS = ("a", "b", "c", "d", "e")


def test_every_other_is_the_likeliest_and_what_goes_in_circles_is_sampled() -> None:
    asked: list[tuple[str, ...]] = []

    def likeliest(requests: Sequence[str]) -> list[Answer]:
        asked.append(tuple(requests))
        circles = "boil an egg " * 20
        return [Answer(r, circles if r == "c" else f"The plain answer to {r}.", 6, True) for r in requests]

    def sampled(requests: Sequence[str]) -> list[Answer]:
        asked.append(tuple(requests))
        return [Answer(r, f"Perhaps {r}?", 3, True) for r in requests]

    found = replayed_answers(REQUESTS, likeliest, sampled)
    assert asked == [("a", "c", "e"), ("b", "c", "d")]
    assert [a.request for a in found] == list(REQUESTS)
    assert [a.answer.startswith("Perhaps") for a in found] == [False, True, True, True, False]


def test_what_is_replayed_is_greedy_and_sampled_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(_: object, requests: Sequence[str], limit: int, sampled: bool = False) -> list[Answer]:
        assert limit == written.WRITTEN_TOKENS
        return [Answer(r, "by chance" if sampled else "greedy", 2, True) for r in requests]

    monkeypatch.setattr(written, "kept_answers", kept)
    monkeypatch.setattr(written, "_kept_texts", lambda *_: [])
    wanted = ReplayPlan(share=0.15, yours=0.0, answers=5, texts=0)
    found = written.written_for_replay(None, wanted)  # type: ignore[arg-type]
    assert [a.answer for a in found] == ["greedy", "by chance", "greedy", "by chance", "greedy"]
    assert [a.request for a in found] == list(general.replay_requests()[:5])
