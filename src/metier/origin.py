"""What a run is made from: settings, data, base model, code. A run that goes on must find all of it as it was."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch

import metier
from metier.errors import RunError
from metier.runs import Json, RunFolder, environment, read_json
from metier.settings import Settings, from_mapping, from_toml
from metier.sources.find import find_sources
from metier.sources.read import Corpus


@dataclass(frozen=True)
class Origin:
    """origin.json. settings: as given, but for the threads, which are resolved. data: {file: sha256 of its bytes}, and
    of its examples for a data set of a hub. base: sha256 of the weights. code: sha256 of this package."""

    settings: dict[str, Json]
    data: dict[str, str]
    base: str
    code: str
    packages: dict[str, str | None]
    processor: str

    def hashes(self) -> dict[str, str]:
        """{part: sha256}, as every checkpoint holds them."""
        code = {"code": self.code, "packages": self.packages}
        return {"config": _hash(self.settings), "data": _hash(self.data), "base model": self.base, "code": _hash(code)}


def origin_of(settings: Settings, corpus: Corpus, base_sha256: str) -> Origin:
    """Of a run that begins or goes on now."""
    found = environment()
    resolved: dict[str, Json] = json.loads(json.dumps(asdict(replace(settings, threads=torch.get_num_threads()))))
    return Origin(resolved, _data(settings, corpus), base_sha256, _code(), found["packages"], found["processor"])


def reopen(folder: Path | str) -> tuple[RunFolder, Settings]:
    """The run and its settings, before anything heavy is loaded.

    Raises:
        RunError: the folder is no run of `metier adapt`, the run is finished, or its config.toml was changed.
    """
    run = RunFolder(folder)
    if not run.path.is_dir():
        raise RunError(f"{run.path} is no run folder: `metier runs` lists them; without one, run `metier adapt DATA`.")
    if not run.origin.exists():
        raise RunError(f"{run.path} is no run of `metier adapt` that can go on: name another, or begin a new one.")
    if run.report.exists() and run.status.exists() and read_json(run.status).get("state") == "done":
        raise RunError(f"{run.path} is finished: `metier report {run.path}` shows it; choose another --out for more.")
    settings = from_mapping(_read(run).settings)
    _require_same_settings(run, settings)
    return run, settings


def require_same(run: RunFolder, now: Origin) -> list[str]:
    """Raise RunError, the difference named, for whatever would make the result another one. Returns what should be
    said: a difference that may show in the last bits."""
    then = _read(run)
    for name in (*then.data, *now.data):
        was, found = then.data.get(name), now.data.get(name)
        if was != found:
            change = "is new" if was is None else "is gone" if found is None else f"was {was[:12]}…, is {found[:12]}…"
            raise _changed(f"{name} changed since {run.path} began (sha256: {change})", "put it back as it was")
    if then.base != now.base:
        name = now.settings["model"]
        raise _changed(
            f"the weights of {name} changed since {run.path} began (sha256: was {then.base[:12]}…, is "
            f"{now.base[:12]}…)",
            "put the model back",
        )
    for package, version in then.packages.items():
        if (found_version := now.packages.get(package)) != version:
            change = f"{package} {version}, and this is {found_version}"
            raise _changed(f"{run.path} was begun with {change}", f"install {package} {version}")
    if then.code != now.code:
        change = f"sha256: was {then.code[:12]}…, is {now.code[:12]}…"
        raise _changed(f"the code of metier changed since {run.path} began ({change})", "put it back")
    notes = []
    if then.settings["threads"] != now.settings["threads"]:
        notes.append(f"{now.settings['threads']} threads instead of {then.settings['threads']}")
    if then.processor != now.processor:
        notes.append(f"another processor ({now.processor}; it was {then.processor})")
    return [f"{note}: the result may differ from a run never stopped in its last bits" for note in notes]


def _read(run: RunFolder) -> Origin:
    try:
        return Origin(**read_json(run.origin))
    except TypeError:
        raise RunError(f"{run.origin} was changed: put it back, or begin a new run.") from None


def _require_same_settings(run: RunFolder, then: Settings) -> None:
    """config.toml against the settings that the run began with; the rate in it is the plan's, or one of those that it
    tries, where none was given."""
    if not run.config.exists():
        if run.plan.exists():
            raise RunError(f"{run.path} has no config.toml: put it back, or begin a new run.")
        return
    was, found = asdict(then), asdict(from_toml(run.config.read_text(encoding="utf-8")))
    if run.plan.exists():
        planned = read_json(run.plan)
        if found["lr"] in (planned["lr"], *(planned.get("probe") or {}).get("rates", ())):
            found["lr"] = was["lr"]
    for name, value in was.items():
        if found[name] != value:
            raise _changed(f"{name} is {found[name]!r} in {run.config} and was {value!r}", "put it back")


def _changed(what: str, remedy: str) -> RunError:
    return RunError(f"{what}: {remedy}, or begin a new run with another --out.")


def _data(settings: Settings, corpus: Corpus) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for source in (s for s in find_sources((*settings.data, *settings.general)) if not s.skip):
        if source.path is not None:
            hashes[source.where] = _hash_of_file(source.path)
        else:
            hashes[source.where] = _hash([asdict(e) for e in corpus.examples if e.source == source.name])
    return hashes


def _hash_of_file(path: Path) -> str:
    """ "" for a file of a folder that is closed to us: its ledger says so, and it gave nothing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _code() -> str:
    """Of every file of this package, the general pack among them."""
    root = Path(str(resources.files(metier)))
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _hash(value: Mapping[str, Any] | list[Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
