"""Which answers of the base are replayed: its likeliest ones first, sampled ones after them and instead of circles."""

from collections.abc import Sequence

import pytest

from metier.evidence import written
from metier.evidence.written import replayed_answers
from metier.models.generate import Answer
from metier.sources import general
from metier.training.replay import ReplayPlan

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


def test_what_is_replayed_is_greedy_first_and_sampled_after(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(_: object, requests: Sequence[str], limit: int, sampled: bool = False) -> list[Answer]:
        assert limit == written.WRITTEN_TOKENS
        return [Answer(r, "by chance" if sampled else "greedy", 2, True) for r in requests]

    monkeypatch.setattr(written, "kept_answers", kept)
    wanted = ReplayPlan(share=0.15, yours=0.0, answers=9, likeliest=4)
    found = written.written_for_replay(None, wanted)  # type: ignore[arg-type]
    assert [a.answer for a in found] == ["greedy"] * 4 + ["by chance"] * 5
    assert [a.request for a in found] == list(general.replay_requests()[:9])
