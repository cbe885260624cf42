"""What the README and the docs show is true: their commands parse, their links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from metier.cli import app

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
)


def shell_lines(page: Path) -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


METIER_LINES = [
    (page.name, line)
    for page in PAGES
    if page.name != "cli.md"
    for line in shell_lines(page)
    if re.match(r"(torchrun .*)?(\.venv/bin/)?metier [a-z]", line)
]
MAKE_LINES = [(page.name, line) for page in PAGES for line in shell_lines(page) if line.startswith("make ")]


@pytest.mark.parametrize(("page", "line"), METIER_LINES, ids=[line.split("#")[0] for _, line in METIER_LINES])
def test_every_metier_command_in_the_docs_parses(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    words = [word for word in words[1 + next(i for i, w in enumerate(words) if w.endswith("metier")) :] if word != "…"]
    group = get_command(app)
    name, *rest = words
    command = group.commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, [word.rstrip("…") for word in rest])
    assert context.info_name == name, page


@pytest.mark.parametrize(("page", "line"), MAKE_LINES, ids=[line.split("#")[0].strip() for _, line in MAKE_LINES])
def test_every_make_target_in_the_docs_exists(page: str, line: str) -> None:
    target = shlex.split(line, comments=True)[1]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.MULTILINE), page


def test_the_docs_hold_commands() -> None:
    assert len(METIER_LINES) >= 5
    assert len(MAKE_LINES) >= 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
