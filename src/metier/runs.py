"""The run folder: the names of its files, and writing them whole or not at all.

Of several ranks only the first writes.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from metier.errors import RunError
from metier.ranks import this_rank

Json = Any  # a value that json can write


def write_text(path: Path, text: str) -> None:
    """Write all or nothing: readers never see half a file.

    Raises:
        RunError: the folder or the disk refuses (full, read-only).
    """
    if not this_rank().is_first:
        return
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file name that is no UTF-8 reaches us as lone surrogates; escaped like this they are still JSON.
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunError(
            f"{path} cannot be written ({error.strerror}): free some space or choose another --out."
        ) from error


def write_json(path: Path, value: Json) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, records: Iterable[Mapping[str, Json]]) -> None:
    write_text(path, "".join(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records))


def read_json(path: Path) -> Json:
    """Raises RunError when the file is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} does not exist: name the folder of a finished run.") from None
    except json.JSONDecodeError as error:
        raise RunError(f"{path}:{error.lineno} is not JSON ({error.msg}): the file was changed; run again.") from None


def read_jsonl(path: Path) -> Iterator[dict[str, Json]]:
    """Records of a file written by us; a last line cut by a crash is left out."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


class StepLog:
    """Appends one JSON object a step to a file and flushes it, so that a killed run keeps every step.

    A run that goes on first cuts the file back to `n_bytes`, where its checkpoint was written.
    """

    def __init__(self, path: Path, n_bytes: int | None = None) -> None:
        """Raises RunError when the file cannot be written, or holds less than it held then."""
        self.path = path
        try:
            self._file: TextIO = (path if this_rank().is_first else Path(os.devnull)).open("a", encoding="utf-8")
            if n_bytes is not None and this_rank().is_first:
                self._cut(n_bytes)
        except OSError as error:
            raise self._refused(error) from error

    def write(self, **values: Json) -> None:
        try:
            self._file.write(json.dumps(values, ensure_ascii=True, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._refused(error) from error

    def settle(self) -> int:
        """See that all of it is on the disk, and return its length in bytes."""
        try:
            os.fsync(self._file.fileno())
            return os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        # Every line is flushed when it is written: what is left here is one whose failure was told then.
        with suppress(OSError):
            self._file.close()

    def _cut(self, n_bytes: int) -> None:
        if os.fstat(self._file.fileno()).st_size < n_bytes:
            self.close()
            raise RunError(f"{self.path} lost lines since the run stopped: put the file back, or begin a new run.")
        self._file.truncate(n_bytes)

    def _refused(self, error: OSError) -> RunError:
        return RunError(f"{self.path} cannot be written ({error.strerror}): free some space.")


class RunFolder:
    """The files of one run. Making the object touches nothing; `create` makes the folder."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.toml"
        self.plan = self.path / "plan.json"
        self.ledger = self.path / "ledger.json"
        self.splits = self.path / "splits.json"
        self.terms = self.path / "terms.jsonl"
        self.metrics = self.path / "metrics.jsonl"
        self.rows = self.path / "rows.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.trajectory = self.path / "trajectory"  # until it has been measured
        self.origin = self.path / "origin.json"
        self.adapter = self.path / "adapter"
        self.model = self.path / "model"  # of full fine-tuning, instead of an adapter
        self.evidence = self.path / "evidence"
        self.results = self.path / "results.json"
        self.report = self.path / "report.html"
        self.environment = self.path / "environment.json"
        self.status = self.path / "status.json"

    @property
    def trained(self) -> Path:
        """What training leaves: the adapter, or the model where all of it was trained; named as the flag of prove."""
        return self.model if self.model.is_dir() else self.adapter

    def require_free(self) -> None:
        """Raises RunError when something stands there already: nothing is ever overwritten.

        What a kill left half-written before anything else was, does not count.
        """
        if self.path.exists() and (not self.path.is_dir() or any(p.suffix != ".tmp" for p in self.path.iterdir())):
            raise RunError(f"{self.path} exists already: choose another --out, or remove it.")

    def create(self) -> None:
        """Make the folder.

        Raises:
            RunError: something stands there already, or the folder cannot be made.
        """
        if not this_rank().is_first:
            return
        self.require_free()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{self.path} cannot be made ({error.strerror}): choose another --out.") from error

    def set_status(self, state: str, **values: Json) -> None:
        """state: running, interrupted, failed or done."""
        write_json(self.status, {"state": state, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **values})

    def require_results(self) -> dict[str, Json]:
        """results.json of a finished run.

        Raises:
            RunError: the folder is no run, or the run did not end.
        """
        if not self.path.is_dir():
            raise RunError(f"{self.path} is not a run folder: `metier runs` lists them.")
        if not self.results.exists():
            state = read_json(self.status)["state"] if self.status.exists() else "not a run"
            raise RunError(f"{self.path} has no results.json ({state}): run `metier adapt` to the end first.")
        results: dict[str, Json] = read_json(self.results)
        return results


def default_folder(data: str) -> Path:
    """runs/<name of the data>-<date>-<time>."""
    return Path("runs") / f"{Path(data.removeprefix('pack:')).stem or 'run'}-{time.strftime('%Y%m%d-%H%M%S')}"


def environment() -> dict[str, Json]:
    """What produced the run: versions, processor, threads."""
    packages = ("metier", "torch", "transformers", "peft", "numpy", "safetensors")
    versions = {name: _version(name) for name in packages}
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "ranks": this_rank().of,
        "packages": versions,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
