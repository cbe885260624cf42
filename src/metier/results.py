"""A run as Python sees it: its verdict, its numbers, its page, its model."""

from functools import cached_property
from pathlib import Path
from typing import Any

from metier.errors import ModelError, RunError
from metier.runs import RunFolder, write_json
from metier.settings import Settings, from_toml


class Run:
    """A run folder that ended. Nothing is loaded before it is asked for."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = RunFolder(folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r})"

    @property
    def path(self) -> Path:
        return self.folder.path

    @cached_property
    def results(self) -> dict[str, Any]:
        """results.json. Raises RunError when the run did not end."""
        return self.folder.require_results()

    @property
    def verdict(self) -> dict[str, Any]:
        """{"decision", "sentence", "reasons"}."""
        verdict: dict[str, Any] = self.results["verdict"]
        return verdict

    @cached_property
    def settings(self) -> Settings:
        if not self.folder.config.exists():
            raise RunError(f"{self.path} has no config.toml: it is not a run folder of `metier adapt`.")
        return from_toml(self.folder.config.read_text(encoding="utf-8"))

    def report(self) -> Path:
        """Write report.html and return its path."""
        from metier.report import write_report

        return write_report(self.folder)

    def conclude(self) -> None:
        """Make the evidence of results.json again from evidence/, without any model.

        Raises:
            RunError: a file of evidence/ is missing, or is not what the run wrote.
        """
        from metier.evidence.conclude import evidence_part
        from metier.evidence.stored import require_unchanged

        if self.results.get("evidence"):
            require_unchanged(self.folder, self.results["evidence"])
            write_json(self.folder.results, {**self.results, **evidence_part(self.folder)})
            del self.results

    @property
    def dial(self) -> float:
        """The strength that was chosen; 1 where none was looked for."""
        return float(self.results.get("dial", {}).get("chosen", 1.0)) if self.folder.results.exists() else 1.0

    def model(self, dial: float | None = None) -> "Talker":
        """The adapted model, its update scaled by `dial`: 0 is the base, 1 what was trained, None what was chosen."""
        return Talker(self, self.dial if dial is None else dial)


class Talker:
    """The base and the adapted model of a run: in one set of weights, or in two after full fine-tuning."""

    def __init__(self, run: Run, dial: float) -> None:
        from metier.models.adapters import load_adapter
        from metier.models.device import placement
        from metier.models.load import load_base
        from metier.models.methods import turn
        from metier.models.terms import tokens_of_adapter

        where = placement("auto", run.settings.method, run.settings.load_in_4bit)
        self.base = load_base(run.settings.model, where)
        if run.folder.results.exists() and self.base.sha256 != run.results["model"]["sha256"]:
            raise ModelError(
                f"{run.settings.model} is not the base that {run.path} was trained on: its weights changed."
            )
        self.model: Any
        self.encoder = self.base.encoder  # of the adapted model
        if run.folder.model.is_dir():
            self.model = load_base(str(run.folder.model), where).model
            turn(self.model, self.base.model, dial)
        else:
            new = tokens_of_adapter(self.base, run.folder.adapter)
            self.model = load_adapter(self.base.model, run.folder.adapter, dial, new.pieces if new else None)
            if new:
                self.encoder = new.encoder

    def generate(self, request: str, max_new_tokens: int = 256, adapted: bool = True) -> str:
        """The greedy answer to one request; `adapted=False` asks the base model."""
        from metier.models.adapters import disabled
        from metier.models.generate import answer_all, prompts_of

        if adapted:
            return answer_all(self.model, self.encoder, prompts_of(self.encoder, [request]), max_new_tokens)[0].answer
        with disabled(self.model):
            return answer_all(
                self.base.model, self.base.encoder, prompts_of(self.base.encoder, [request]), max_new_tokens
            )[0].answer
