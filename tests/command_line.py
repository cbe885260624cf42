"""Running `metier` inside the test's own process, and the data that it is run on."""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from metier.cli import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """What was said to the user on stderr beside progress; there must be one such line."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("metier: ")]
        return line


def metier(*arguments: str | Path, stdin: str = "") -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), mock.patch.object(sys, "stdin", io.StringIO(stdin)):
        code = main([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def valves(n: int = 80) -> list[dict[str, object]]:
    """Questions and answers, no two alike."""
    return [
        {"question": f"When does valve {i} close?", "answer": f"Valve {i} closes line {i % 7} below {i + 3} bar."}
        for i in range(n)
    ]
