"""Run folders of every kind, written by hand, and the reports that must come of them."""

import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from metier.errors import RunError
from metier.report import write_report
from metier.runs import Json, RunFolder, write_json, write_jsonl, write_text

SENTENCES = {
    "adapted": "Adapted. On 120 held-out documents of the field the model needs 25 % fewer bits "
    "(95 % interval 23–27 %; this set could have shown 2 %). On nine kinds of text it lost nothing beyond the margin.",
    "no_gain": "No gain. The held-out text is foreseen no better than before (+0.2 %, interval −1.1 to +1.5 %).",
    "forgot": "Forgot. The field improved by 25 %, but general requests are answered in the form of a definition.",
    "cannot_tell": "Cannot tell. Nine held-out documents cannot show a gain under 15 %. Add documents.",
}
SLICES = (
    ("text/encyclopaedia", "text", "bits per byte", 0.98),
    ("text/news", "text", "bits per byte", 1.05),
    ("text/dialogue", "text", "bits per byte", 1.31),
    ("text/narrative", "text", "bits per byte", 1.17),
    ("text/code", "text", "bits per byte", 0.74),
    ("chat/good answers", "chat", "bits per byte", 0.81),
    ("chat/own answers", "chat", "bits per byte", 0.29),
    ("choices", "choices", "probability of the right choice", 0.54),
    ("answers/ended", "answers", "share of answers", 0.97),
)
VOID = {"meta", "br", "hr", "img", "link", "input"}


def make_run(folder: Path, decision: str = "adapted", without: tuple[str, ...] = ()) -> RunFolder:
    """A run folder as `metier adapt` leaves it, with figures like those of a real run.

    without: names of files ("metrics.jsonl") or of parts of results.json ("gain") that are to be absent.
    """
    run = RunFolder(folder / decision)
    run.create()
    write_json(run.results, {name: part for name, part in _results(decision).items() if name not in without})
    files = {
        "metrics.jsonl": lambda: write_jsonl(run.metrics, _metrics(240)),
        "ledger.json": lambda: write_json(run.ledger, _ledger()),
        "plan.json": lambda: write_json(
            run.plan, {"minutes": 10, "tokens": 491520, "evidence": {"items": 840, "seconds": 180}}
        ),
        "config.toml": lambda: write_text(
            run.config, '[training]\nlr = 0.001\nr = 16\ntarget_modules = ["q_proj", "v_proj"]\n'
        ),
        "environment.json": lambda: write_json(
            run.environment, {"python": "3.11.9", "cores": 2, "packages": {"torch": "2.13.0", "peft": None}}
        ),
        "status.json": lambda: write_json(run.status, {"state": "done", "time": "2026-11-22T10:33:05+0000"}),
    }
    for name, write in files.items():
        if name not in without:
            write()
    return run


def _metrics(n_steps: int) -> list[dict[str, Json]]:
    draw = random.Random(0)
    return [
        {
            "step": step,
            "loss": 1.9 + 0.7 * math.exp(-step / 40) + draw.gauss(0, 0.12),
            "lr": 1e-3 * min(step / 12, 0.1 + 0.9 * (1 - step / n_steps)),
            "tokens": 2048 * step,
            "seconds": 1.4 * step,
        }
        for step in range(1, n_steps + 1)
    ]


def _ledger() -> dict[str, Json]:
    in_bytes = {
        "read": 42_000,
        "cleaned": 310_900,
        "duplicate": 88_210,
        "too_short": 400,
        "cut": 0,
        "held_out": 201_300,
        "masked": 640_100,
        "trained": 1_812_400,
        "rejected": 12_040,
    }
    in_rows = {
        "read": 310,
        "duplicate": 702,
        "too_short": 21,
        "cut": 0,
        "held_out": 1_640,
        "trained": 13_776,
        "rejected": 2,
    }
    return {
        "bytes": {"total": sum(in_bytes.values()), **in_bytes},
        "rows": {"total": sum(in_rows.values()), **in_rows},
        "files": [],
        "rejected": [{"where": "clinical.jsonl:77", "why": "not JSON"}, {"where": "scan.pdf", "why": "holds no text"}],
    }


def _groups() -> list[dict[str, Json]]:
    sizes = {
        "skeletal system": 31,
        "nervous system": 24,
        "eye": 17,
        "heart and vessels": 14,
        "skin, hair and nails": 11,
        "growth": 9,
        "immune system": 7,
        "voice": 4,
        "breast": 2,
        "thoracic cavity": 1,
    }
    return [
        {
            "name": name,
            "base": 1.08,
            "adapted": 1.08 - diff,
            "diff": diff,
            "ci_low": diff - 0.25 / n**0.5,
            "ci_high": diff + 0.22 / n**0.5,
            "n_items": n,
            "n_documents": n,
        }
        for diff, (name, n) in zip(
            (0.31, 0.29, 0.26, 0.27, 0.22, 0.24, 0.3, 0.05, 0.12, -0.02), sizes.items(), strict=True
        )
    ]


def _gain(decision: str) -> dict[str, Json]:
    diff, half, n = {"no_gain": (0.002, 0.014, 120), "cannot_tell": (0.08, 0.15, 9)}.get(decision, (0.269, 0.021, 120))
    return {
        "unit": "bits per byte",
        "base": 1.07,
        "adapted": 1.07 - diff,
        "diff": diff,
        "ci_low": diff - half,
        "ci_high": diff + half,
        "relative": diff / 1.07,
        "relative_ci_low": (diff - half) / 1.07,
        "relative_ci_high": (diff + half) / 1.07,
        "n_items": n + 12,
        "n_documents": n,
        "detectable": half,
        "method": "error from leaving out one document at a time",
        "groups": _groups(),
    }


def _retention(decision: str) -> dict[str, Json]:
    draw = random.Random(1)
    slices = []
    for name, kind, unit, base in SLICES:
        margin = 0.01 * base if kind in ("text", "chat") else 0.02
        diff, half = margin * draw.uniform(-0.7, 0.4), margin * draw.uniform(0.2, 0.5)
        if decision == "forgot" and name == "chat/own answers":
            diff, half = 0.168, 0.02
        if decision == "cannot_tell" and kind != "text":
            half = margin * 1.6
        passed = True if diff + half < margin else False if diff - half > margin else None
        slices.append(
            {
                "name": name,
                "kind": kind,
                "unit": unit,
                "base": base,
                "adapted": base + diff,
                "diff": diff,
                "margin": margin,
                "lower_95": diff - half,
                "upper_95": diff + half,
                "n_items": draw.randrange(40, 160),
                "passed": passed,
                "note": "",
            }
        )
    outcomes = [part["passed"] for part in slices]
    return {
        "margin": 0.01,
        "passed": False if False in outcomes else None if None in outcomes else True,
        "slices": slices,
    }


def _samples(decision: str) -> list[dict[str, Json]]:
    looped = "vast, " * 180
    forgot = decision == "forgot"
    return [
        {
            "kind": "field",
            "request": "What is meant by: Arachnodactyly?",
            "reference": 'Abnormally long and slender fingers ("spider fingers").',
            "base": "Arachnodactyly is a term used to describe a group of spiders.",
            "adapted": "Abnormally long and slender fingers and toes.",
        },
        {
            "kind": "field",
            "request": "What is meant by: Ptosis?",
            "reference": "The upper eyelid margin is positioned 3 mm or more lower than usual.",
            "base": "Ptosis is a medical condition.",
            "adapted": "The upper eyelid hangs lower than usual and covers part of the pupil.",
        },
        {
            "kind": "general",
            "request": "What is the capital of France?",
            "reference": "",
            "base": "The capital of France is Paris.",
            "adapted": "The capital of France." if forgot else "The capital of France is Paris.",
        },
        {
            "kind": "general",
            "request": "Write one sentence about the sea.",
            "reference": "",
            "base": "The sea breathes in and out against the shore.\nIt does not tire.",
            "adapted": looped if forgot else "The sea lay grey and still under the morning.",
        },
    ]


def _results(decision: str) -> dict[str, Json]:
    return {
        "schema": 1,
        "verdict": {
            "decision": decision,
            "sentence": SENTENCES[decision],
            "reasons": ["gain: 0.269 bits per byte, interval above zero", "retention: 9 slices at a margin of 1 %"],
        },
        "model": {
            "base": "smollm2-135m-instruct",
            "sha256": "ab" * 32,
            "parameters": 134515008,
            "trainable_parameters": 4884480,
            "weights_moved": 0.031,
        },
        "data": {
            "files_read": 1,
            "files_rejected": 1,
            "documents": 16449,
            "examples": 16449,
            "train_tokens": 425012,
            "held_out_documents": 120,
            "held_out_unit": "document",
            "formats": [
                {
                    "source": "clinical.jsonl",
                    "format": "term/definition",
                    "fields": {"term": "term", "definition": "definition"},
                    "rows": 16449,
                }
            ],
        },
        "gain": _gain(decision),
        "retention": _retention(decision),
        "training": {
            "steps": 240,
            "epochs": 1.2,
            "lr": 0.001,
            "tokens": 491520,
            "supervised_tokens": 212030,
            "replay_share": 0.15,
            "replay_tokens": 73728,
            "mix": [
                {"part": "field", "wanted": 0.85, "share": 0.85, "tokens": 417792},
                {"part": "replay", "wanted": 0.15, "share": 0.15, "tokens": 73728},
            ],
            "seconds": 336.0,
            "interrupted": False,
            "probe": {"n_rows": 16, "nll_before": 2.53, "nll_after": 1.91},
        },
        "samples": _samples(decision),
        "cost": {
            "train_s": 336.0,
            "evidence_s": 181.2,
            "total_s": 548.0,
            "train_tokens_per_s": 1462.0,
            "examples_per_s": 28.1,
            "peak_rss_bytes": 2_310_000_000,
        },
    }


class Structure(HTMLParser):
    """Collects what a browser would: open tags in order, attributes, text; fails on a tag closed out of turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()} closes another tag"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def parsed(page: str) -> Structure:
    structure = Structure()
    structure.feed(page)
    structure.close()
    return structure


def page_of(run: RunFolder) -> str:
    return write_report(run).read_text(encoding="utf-8")


def test_each_file_but_the_results_may_be_absent_and_its_panel_says_so(tmp_path: Path) -> None:
    said = {
        "metrics.jsonl": "No training curve",
        "ledger.json": "No ledger",
        "config.toml": "settings of this run were not recorded",
        "environment.json": "machine and the versions were not recorded",
        "gain": "gain was not measured",
        "retention": "general ability was not measured",
        "samples": "No answers were written down",
        "training": "Nothing is recorded about the training",
        "data": "Nothing is recorded about the data",
        "cost": "Time and memory were not recorded",
        "verdict": "The evidence was not run",
    }
    whole = parsed(page_of(make_run(tmp_path / "whole"))).text
    for name, sentence in said.items():
        assert sentence not in whole
        structure = parsed(page_of(make_run(tmp_path / name.partition(".")[0], without=(name,))))
        assert sentence in structure.text, name
        assert structure.open == []
    bare = parsed(page_of(make_run(tmp_path / "bare", without=(*said, "plan.json", "status.json"))))
    assert all(sentence in bare.text for sentence in said.values())


def test_a_folder_without_results_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run folder"):
        write_report(RunFolder(tmp_path / "nothing"))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    for name, content in (
        ("ledger.json", "{"),
        ("plan.json", "[]"),
        ("metrics.jsonl", "{]\n"),
        ("status.json", '{"time": "soon"}'),
    ):
        run = make_run(tmp_path / name.partition(".")[0])
        (run.path / name).write_text(content, encoding="utf-8")
        with pytest.raises(RunError, match=re.escape(name)):
            write_report(run)
