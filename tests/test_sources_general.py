"""The general pack: what is replayed and what measures never meet."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from metier.sources import general
from metier.sources.general import MOST_MEASURED, measured_requests, own_texts, probe_requests, replay_requests

SAME_WORDS = 0.7  # of all words of two requests: more is one request in two wordings


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def five_grams(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i : i + 5]) for i in range(len(found) - 4)}


def meetings(replayed: list[str], measured: list[str]) -> Iterator[tuple[str, str]]:
    """Pairs that are the same but for case and punctuation, share five words in a row, or most of their words."""
    for one in replayed:
        for other in measured:
            a, b = set(words(one)), set(words(other))
            if five_grams(one) & five_grams(other) or len(a & b) / len(a | b) >= SAME_WORDS:
                yield one, other


def test_no_request_that_is_replayed_meets_one_that_measures_or_judges_a_rate() -> None:
    others = [r.request for r in (*measured_requests(), *probe_requests())]
    assert list(meetings(list(replay_requests()), others)) == []


@pytest.mark.parametrize(
    "near",
    [
        "what is the capital of france",
        "What is the capital of Norway?",
        "I wonder: why do we see lightning before we hear the thunder?",
        "Name five birds that cannot fly.",
    ],
)
def test_a_request_that_meets_one_is_found(near: str) -> None:
    assert list(meetings([near], [r.request for r in measured_requests()]))


def test_replayed_requests_are_many_of_many_kinds_and_none_comes_twice() -> None:
    rows = [*general._rows("chat.jsonl"), *general._rows("requests.jsonl")]
    kinds = {row["request"]: row["kind"] for row in rows}
    asked = replay_requests()
    assert len(asked) >= 300
    assert len({" ".join(words(request)) for request in asked}) == len(asked)
    assert len({kinds[request] for request in asked}) == 13
    assert len({kinds[request] for request in asked[:24]}) >= 10  # a short run sees the beginning


def write_texts(folder: Path, n: int) -> str:
    folder.mkdir()
    for i in range(n):
        (folder / f"{i:03d}.txt").write_text(f"Text number {i} tells about the harbour.")
    return str(folder)


@pytest.mark.parametrize(("n", "measured"), [(1, 1), (7, 4), (30, 15), (100, MOST_MEASURED)])
def test_half_of_the_users_general_texts_are_measured_and_none_of_these_is_replayed(
    n: int, measured: int, tmp_path: Path
) -> None:
    found = own_texts([write_texts(tmp_path / "mine", n)])
    assert (len(found.measured), len(found.replayed)) == (measured, n - measured)
    assert not {e.document for e in found.measured} & {e.document for e in found.replayed}
    assert len({e.id for e in (*found.measured, *found.replayed)}) == n


def test_rows_of_one_document_stay_on_one_side(tmp_path: Path) -> None:
    rows = [{"question": f"Why {i}?", "answer": f"Because {i} is so.", "document": f"d{i % 6}"} for i in range(60)]
    path = tmp_path / "talk.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = own_texts([str(path)])
    assert len(found.measured) == len(found.replayed) == 30
    assert not {e.document for e in found.measured} & {e.document for e in found.replayed}


def test_another_document_moves_at_most_one_to_the_other_side(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "mine", 20)
    before = {e.id for e in own_texts([folder]).measured}
    (tmp_path / "mine" / "more.txt").write_text("One more text about the harbour.")
    assert len(before - {e.id for e in own_texts([folder]).measured}) <= 1
