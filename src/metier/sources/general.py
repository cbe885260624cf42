"""The general pack: text, requests and questions written for this project, whose job is to move when general ability
moves."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from metier.sources.examples import Example
from metier.sources.read import read_corpus

VERSION = 1
SHOWN = ("What is the capital of France?", "Write one sentence about the sea.", "How do I boil an egg?")
"""Requests that every run measures and shows with both answers."""

MOST_OWN_TEXTS = 40  # of one path of the user's general texts are measured
PROBE_REQUESTS = 20  # the last ones of the replay half, two of each kind
REGISTERS = ("encyclopaedia", "news", "dialogue", "narrative", "instructions", "code")


@dataclass(frozen=True)
class Request:
    """A general request with a good answer. The halves `replay` and `measure` of the pack never meet; the end of the
    first is neither trained nor measured: learning rates are judged by it."""

    id: str
    kind: str
    request: str
    answer: str


@dataclass(frozen=True)
class Choice:
    """A question with four choices; `label` is the index of the right one."""

    id: str
    kind: str
    question: str
    choices: tuple[str, ...]
    label: int
    passage: str = ""

    @property
    def stem(self) -> str:
        """What each choice continues, in cloze form."""
        opening = f"{self.passage}\n" if self.passage else ""
        return f"{opening}Question: {self.question}\nAnswer:"


def _rows(*path: str) -> list[dict[str, Any]]:
    text = resources.files("metier").joinpath("packs", "general", *path).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@cache
def texts() -> tuple[Example, ...]:
    """All documents, their register as the group, one of each register in turn: every beginning of the list is
    balanced."""
    by_register = [
        [
            Example(row["id"], "general", 1, row["id"], register, row["text"])
            for row in _rows("text", f"{register}.jsonl")
        ]
        for register in REGISTERS
    ]
    return tuple(text for turn in zip(*by_register, strict=True) for text in turn)


def own_texts(paths: Sequence[str]) -> tuple[Example, ...]:
    """The user's own general texts or conversations, a slice a path, the first MOST_OWN_TEXTS of each.

    Raises:
        DataError: a file that cannot be read.
    """
    return tuple(
        replace(e, id=f"{path}/{e.id}", document=f"{path}/{e.document}", group=f"your {path}")
        for path in paths
        for e in read_corpus([path]).examples[:MOST_OWN_TEXTS]
    )


def replay_requests() -> tuple[Request, ...]:
    """Requests whose answers by the base model are mixed into training; each kind in turn."""
    return _requests("replay")[:-PROBE_REQUESTS]


def probe_requests() -> tuple[Request, ...]:
    """Requests with whose good answers learning rates are judged, and nothing else is."""
    return _requests("replay")[-PROBE_REQUESTS:]


def measured_requests() -> tuple[Request, ...]:
    """Requests that only measure: those shown in every report, then each kind in turn."""
    requests = _requests("measure")
    return tuple(sorted(requests, key=lambda r: SHOWN.index(r.request) if r.request in SHOWN else len(SHOWN)))


@cache
def _requests(part: str) -> tuple[Request, ...]:
    rows = [row for row in _rows("chat.jsonl") if row["part"] == part]
    return tuple(Request(row["id"], row["kind"], row["request"], row["answer"]) for row in _in_turn(rows, "kind"))


@cache
def choices() -> tuple[Choice, ...]:
    """All multiple-choice items, one of each kind in turn while they last."""
    return tuple(
        Choice(row["id"], row["kind"], row["question"], tuple(row["choices"]), row["label"], row.get("passage", ""))
        for row in _in_turn(_rows("choices.jsonl"), "kind")
    )


def _in_turn(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Rows reordered so that every beginning of the list holds each value of `key` in proportion to its number."""
    counts: dict[str, int] = {}
    totals: dict[str, int] = {}
    for row in rows:
        totals[row[key]] = totals.get(row[key], 0) + 1
    places = []
    for i, row in enumerate(rows):
        kind = row[key]
        counts[kind] = counts.get(kind, 0) + 1
        places.append(((counts[kind] - 0.5) / totals[kind], i))
    return [rows[i] for _, i in sorted(places)]
