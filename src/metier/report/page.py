"""A run folder as one HTML page that needs no network, no script and no other file."""

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from metier.errors import RunError
from metier.evidence.statistics import POWER
from metier.evidence.verdict import SMALLEST_GAIN
from metier.report import figures, outcome, process
from metier.report.panels.cheaper import cheaper_panel
from metier.report.panels.controls import controls_panel
from metier.report.panels.dial import dial_panel
from metier.report.panels.inside import inside_panel
from metier.report.panels.jargon import jargon_panel
from metier.report.panels.overdone import overdone_panel
from metier.report.panels.preferences import preferences_panel
from metier.report.panels.scratch import scratch_panel
from metier.report.panels.stability import stability_panel
from metier.report.panels.sufficiency import sufficiency_panel
from metier.report.panels.tasks import tasks_panel
from metier.runs import Json, RunFolder, read_json, read_jsonl, write_text

PANELS = {
    "preferences": ("preferences", preferences_panel),
    "dial": ("dial", dial_panel),
    "sufficiency": ("sufficiency", sufficiency_panel),
    "tasks": ("tasks", tasks_panel),
    "jargon": ("jargon", jargon_panel),
    "cheaper": ("arms", cheaper_panel),
    "controls": ("controls", controls_panel),
    "scratch": ("scratch", scratch_panel),
    "stability": ("stability", stability_panel),
    "overdone": ("overdone", overdone_panel),
    "inside": ("inside", inside_panel),
}
"""Fragment of the page in panels/ → its part of results.json, and what makes the one from the other."""

# Control characters and lone surrogates have no place in HTML (or in UTF-8); a model can write any of them.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def write_report(run: RunFolder) -> Path:
    """Make report.html from the files of a run folder and return its path.

    Only results.json must be there; a panel whose file or figures are absent says so.

    Raises:
        RunError: the folder holds no results, a file of it is damaged, or the page cannot be written.
    """
    write_text(run.report, _page(run))
    return run.report


def _page(run: RunFolder) -> str:
    """All text that came from data or from a model is escaped by the template; only our own pictures are markup."""
    results = printable(run.require_results())
    model = results.get("model") or {}
    samples = results.get("samples") or []
    environment = _optional_json(run.environment)
    context = {
        "verdict": outcome.verdict_panel(results),
        "facts": _facts(run, results),
        "data": process.data_panel(results.get("data"), model, results.get("leaks")),
        "vocabulary": process.vocabulary_panel(results.get("vocabulary")),
        "ledger": process.ledger_panel(_optional_json(run.ledger)),
        "training": process.training_panel(results.get("training"), model),
        "curve": process.curve_panel(_metrics(run.metrics)),
        "gain": outcome.gain_panel(results.get("gain"), (results.get("data") or {}).get("held_out_unit", "document")),
        "retention": outcome.retention_panel(results.get("retention")),
        **{name: panel(results.get(part)) for name, (part, panel) in PANELS.items()},
        "samples": process.samples_panel(samples),
        "samples_sentence": process.samples_sentence(samples),
        "smallest_gain": figures.percent(SMALLEST_GAIN),
        "power": figures.percent(POWER),
        "cost": process.cost_rows(results.get("cost") or {}),
        "plan": process.flat_rows(_optional_json(run.plan)),
        "config": printable(run.config.read_text(encoding="utf-8", errors="replace")) if run.config.exists() else "",
        "environment": process.flat_rows(environment),
        "run_name": printable(run.path.resolve().name),
    }
    page = Environment(
        loader=PackageLoader("metier.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup(resources.files("metier.report").joinpath("page.css").read_text(encoding="utf-8"))
    return page.get_template("page.html").render(style=style, panels=list(PANELS), **context)


def _facts(run: RunFolder, results: Mapping[str, Json]) -> list[tuple[str, str]]:
    """The line under the verdict: which model, which field, when, how long."""
    model, data = results.get("model") or {}, results.get("data") or {}
    sources = list(dict.fromkeys(str(found.get("source", "")) for found in data.get("formats") or []))
    base = str(model.get("base", figures.MISSING))
    if model.get("parameters") is not None:
        base += f" ({figures.parameters(model['parameters'])} parameters)"
    return [
        ("Base model", base),
        *([("Proved", str(model["proved"]))] if model.get("proved") else []),
        ("Field", figures.listed(sources) or figures.MISSING),
        ("Date", _day(_finished(run))),
        ("Time taken", figures.duration((results.get("cost") or {}).get("total_s"))),
    ]


def _day(time: datetime) -> str:
    return f"{time.day} {time:%B %Y, %H:%M}"


def _finished(run: RunFolder) -> datetime:
    """When the run ended: its own status, else the age of the results."""
    stamp = _optional_json(run.status).get("time")
    if isinstance(stamp, str):
        try:
            return datetime.fromisoformat(stamp)
        except ValueError:
            raise RunError(f"{run.status} has the time {stamp!r}, which is no date: the file was changed.") from None
    return datetime.fromtimestamp(run.results.stat().st_mtime)


def _optional_json(path: Path) -> dict[str, Json]:
    if not path.exists():
        return {}
    value = printable(read_json(path))
    if not isinstance(value, dict):
        raise RunError(f"{path} is not a JSON object: the file was changed; run again.")
    return value


def _metrics(path: Path) -> list[dict[str, Json]]:
    if not path.exists():
        return []
    try:
        return [printable(record) for record in read_jsonl(path)]
    except json.JSONDecodeError as error:
        raise RunError(f"{path} holds a line that is not JSON ({error.msg}): the file was changed.") from None


def printable(value: Json) -> Json:
    """The same record with nothing a page cannot hold: no NaN or infinity (they become None), no control characters."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _UNPRINTABLE.sub(_REPLACEMENT, value)
    if isinstance(value, dict):
        return {printable(name): printable(held) for name, held in value.items()}
    return [printable(held) for held in value] if isinstance(value, list) else value
