"""Which answers of the base are replayed: its likeliest ones first, sampled ones after them and instead of circles."""

from collections.abc import Sequence

import pytest

from metier.evidence import written
from metier.evidence.written import replayed_answers
from metier.models.generate import Answer

REQUESTS = ("a", "b", "c", "d", "e")


def test_few_are_the_likeliest_and_what_goes_in_circles_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "LIKELIEST", 3)
    asked: list[tuple[str, ...]] = []

    def likeliest(requests: Sequence[str]) -> list[Answer]:
        asked.append(tuple(requests))
        circles = "boil an egg " * 20
        return [Answer(r, circles if r == "b" else f"The plain answer to {r}.", 6, True) for r in requests]

    def sampled(requests: Sequence[str]) -> list[Answer]:
        asked.append(tuple(requests))
        return [Answer(r, f"Perhaps {r}?", 3, True) for r in requests]

    found = replayed_answers(REQUESTS, likeliest, sampled)
    assert asked == [("a", "b", "c"), ("b", "d", "e")]
    assert [a.request for a in found] == ["a", "c", "b", "d", "e"]
    assert [a.answer.startswith("Perhaps") for a in found] == [False, False, True, True, True]
