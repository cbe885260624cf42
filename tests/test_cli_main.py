import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import metier as package
from command_line import metier, valves, write_rows
from metier import __version__
from metier.cli import finished, terminal
from metier.cli.options import EVIDENCE, PANELS
from metier.cli.reference import reference
from metier.sources.rows import HOW_TO_NAME, NAMEABLE

ROOT = Path(__file__).parents[1]


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **variables}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_help_is_said_without_importing_torch_or_scipy() -> None:
    slow = "{'torch', 'transformers', 'peft', 'scipy', 'numpy', 'altair', 'pyarrow'}"
    code = f"import sys; from metier.cli import main; main(['--help']); print(sorted({slow} & set(sys.modules)))"
    assert python("-c", code).stdout.splitlines()[-1] == "[]"


def test_the_module_runs_as_the_command() -> None:
    finished = python("-m", "metier", "--version")
    assert (finished.returncode, finished.stdout) == (0, f"metier {__version__}\n")


def test_no_argument_is_answered_with_help() -> None:
    shown = metier()
    assert shown.code == 0
    assert "adapt" in shown.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["adpt"], "Did you mean 'adapt'?"),
        (["adapt"], "no data: name a file, a folder or a pack."),
        (["check"], "Missing argument 'DATA'."),
        (["adapt", "x", "--minuts", "3"], "No such option: --minuts"),
        (["adapt", "x", "--minutes", "many"], "--minutes"),
        (["adapt", "x", "--minutes", "0"], "--minutes 0: give a positive number of minutes."),
        (["adapt", "x", "--evidence", "some"], "choose none, quick or full"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(arguments: list[str], said: str) -> None:
    shown = metier(*arguments)
    assert (shown.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert said in shown.complaint


def test_an_unexpected_failure_is_one_line_and_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "table", _fail)
    monkeypatch.setattr(finished.Path, "glob", lambda *_: iter([Path("a/status.json")]))
    shown = metier("runs", ".")
    assert (shown.code, shown.err.count("\n")) == (1, 1)
    assert "ZeroDivisionError: two lines of it" in shown.complaint
    assert "METIER_DEBUG=1" in shown.complaint


def test_the_place_of_an_unexpected_failure_is_shown_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METIER_DEBUG", "1")
    monkeypatch.setattr(finished, "table", _fail)
    monkeypatch.setattr(finished.Path, "glob", lambda *_: iter([Path("a/status.json")]))
    shown = metier("runs", ".")
    assert shown.code == 1
    assert "Traceback" in shown.err


def _fail(*_: object) -> str:
    raise ZeroDivisionError("two lines\nof it")


def test_ctrl_c_anywhere_is_exit_code_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("metier.sources.read.read_corpus", interrupt)
    shown = metier("read", tmp_path)
    assert (shown.code, shown.err) == (130, "metier: interrupted.\n")


def test_a_reader_that_closes_early_is_no_error(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "many.jsonl", valves(20_000))
    command = f"set -o pipefail; '{sys.executable}' -m metier read '{data}' | head -1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=False)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "==> many.jsonl:1 <==\n", "")


def test_text_that_the_terminal_cannot_show_is_written_as_an_escape(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", [{"text": "a crème brûlée, and twenty characters"}])
    shown = python("-m", "metier", "read", str(data), PYTHONIOENCODING="ascii")
    assert shown.returncode == 0
    assert shown.stdout == "a cr\\xe8me br\\xfbl\\xe9e, and twenty characters\n"


def test_what_moves_the_cursor_never_reaches_the_terminal() -> None:
    assert terminal.printable("a\x1b]0;title\x07b\tc\n") == "a\ufffd]0;title\ufffdb\tc\n"


def test_the_reference_is_what_the_parser_says() -> None:
    """If not: python -m metier.cli.reference > docs/cli.md"""
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference()


def test_every_part_of_a_row_and_every_flag_that_an_error_names_can_be_given() -> None:
    page = reference()
    assert all(f"--{part} FIELD" in page for part in NAMEABLE)
    named = set(re.findall(r"--[a-z-]+", HOW_TO_NAME))
    for path in (ROOT / "src" / "metier").rglob("*.py"):
        if "cli" not in path.parts and path.name != "wheels.py":  # which tells of pip's flags
            named |= set(re.findall(r"--[a-z][a-z-]+", path.read_text(encoding="utf-8")))
    offered = set(re.findall(r"--[a-z][a-z-]*", page))
    assert named - offered == {"--nproc-per-node"}  # of torchrun


def test_every_flag_of_a_setting_is_read_by_some_code() -> None:
    sources = [
        p.read_text(encoding="utf-8") for p in (ROOT / "src" / "metier").rglob("*.py") if p.name != "settings.py"
    ]
    read_by_weights = {"mix"}  # a method of the settings themselves
    for name in {*EVIDENCE, *(name for names in PANELS.values() for name in names)} - {"method", *read_by_weights}:
        assert any(f"settings.{name}" in source for source in sources), f"--{name} does nothing"


def test_a_public_name_stays_a_function_when_the_module_of_that_name_is_loaded() -> None:
    assert package.check is import_module("metier.check").check
    assert package.check is import_module("metier.check").check
