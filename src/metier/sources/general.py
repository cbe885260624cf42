"""The general pack: text, requests and questions written for this project, whose job is to move when general ability
moves."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from metier.sources.documents import digest
from metier.sources.examples import Example
from metier.sources.read import read_corpus

VERSION = 1
REPLAY_VERSION = 2  # of the requests that are replayed; no score depends on it
SHOWN = ("What is the capital of France?", "Write one sentence about the sea.", "How do I boil an egg?")
"""Requests that every run measures and shows with both answers."""

MOST_MEASURED = 40  # documents of one path of the user's general texts
PROBE_REQUESTS = 20  # the last ones of the replay half of chat.jsonl, two of each kind
PROBE_TEXTS = 36  # the last ones, six of each register
REGISTERS = ("encyclopaedia", "news", "dialogue", "narrative", "instructions", "code")


@dataclass(frozen=True)
class Request:
    """A general request with a good answer."""

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
    """All documents, their register as the group, one of each register in turn: every part of the list is balanced."""
    by_register = [
        [
            Example(row["id"], "general", 1, row["id"], register, row["text"])
            for row in _rows("text", f"{register}.jsonl")
        ]
        for register in REGISTERS
    ]
    return tuple(text for turn in zip(*by_register, strict=True) for text in turn)


@dataclass(frozen=True)
class OwnTexts:
    """The user's own general texts or conversations: no document stands on both sides."""

    measured: tuple[Example, ...]  # the group is the slice, one a path
    replayed: tuple[Example, ...]


def own_texts(paths: Sequence[str]) -> OwnTexts:
    """Half of the documents of each path, MOST_MEASURED at most, are measured; the others are there to be replayed.

    Which is which goes by a hash of a document's name, so that a document more or less moves at most one other. One
    document alone is measured.

    Raises:
        DataError: a file that cannot be read.
    """
    measured: list[Example] = []
    replayed: list[Example] = []
    for path in paths:
        examples = read_corpus([path]).examples
        documents = sorted({e.document for e in examples}, key=lambda name: digest(name))
        held_apart = set(documents[: min(MOST_MEASURED, (len(documents) + 1) // 2)])
        for e in examples:
            named = replace(e, id=f"{path}/{e.id}", document=f"{path}/{e.document}", group=f"your {path}")
            (measured if e.document in held_apart else replayed).append(named)
    return OwnTexts(tuple(measured), tuple(replayed))


@cache
def replay_requests() -> tuple[str, ...]:
    """Requests that the base model answers itself, to be mixed into training; each kind in turn. None of them meets a
    measured one, and no good answer to them is known or needed."""
    rows = [*_chat("replay")[:-PROBE_REQUESTS], *_rows("requests.jsonl")]
    return tuple(row["request"] for row in _in_turn(rows, "kind"))


def measured_texts() -> tuple[Example, ...]:
    """Texts that only measure."""
    return texts()[:-PROBE_TEXTS]


def probe_texts() -> tuple[Example, ...]:
    """Texts by which strengths are chosen; they are neither trained nor measured."""
    return texts()[-PROBE_TEXTS:]


@cache
def probe_requests() -> tuple[Request, ...]:
    """Requests with whose answers learning rates and strengths are chosen; they are neither trained nor measured."""
    return _requests(_chat("replay")[-PROBE_REQUESTS:])


@cache
def measured_requests() -> tuple[Request, ...]:
    """Requests that only measure: those shown in every report, then each kind in turn."""
    requests = _requests(_chat("measure"))
    return tuple(sorted(requests, key=lambda r: SHOWN.index(r.request) if r.request in SHOWN else len(SHOWN)))


def _chat(part: str) -> list[dict[str, Any]]:
    """The rows of one half of chat.jsonl, each kind in turn."""
    return _in_turn([row for row in _rows("chat.jsonl") if row["part"] == part], "kind")


def _requests(rows: Sequence[dict[str, Any]]) -> tuple[Request, ...]:
    return tuple(Request(row["id"], row["kind"], row["request"], row["answer"]) for row in rows)


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
