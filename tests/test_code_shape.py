"""Imports run one way, files and functions stay small, nothing is named for what it might be one day."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import metier

PACKAGE = Path(metier.__file__).parent
LAYERS = (
    ("errors", "progress", "ranks", "runs", "settings"),
    ("sources",),
    ("models",),
    ("training",),
    ("evidence",),
    ("report",),
    ("results", "interrupts", "origin", "bench", "check"),
    ("field", "prepare", "record"),
    ("proof",),
    ("adapt", "prove"),
    ("cli",),
    ("__init__", "__main__"),
)
HEIGHTS = {name: height for height, names in enumerate(LAYERS) for name in names}
SIDEWAYS = {("settings", "errors"), ("runs", "errors"), ("runs", "ranks")}  # within one layer
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 400, 60, 8
LONG_FUNCTIONS = {"adapt.adapt": 90, "training.loop.train": 90}
FORBIDDEN = {"utils", "util", "helpers", "helper", "manager", "base", "common"}

FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path, package: Path) -> str:
    return ".".join(path.relative_to(package).with_suffix("").parts)


def imports_of(tree: ast.Module) -> Iterator[str]:
    """Rooms of the package that a file imports, also inside functions and for type checking; '.' if relatively."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "."
            continue
        elif isinstance(node, ast.ImportFrom):
            whole = node.module == "metier"
            found = [f"metier.{alias.name}" for alias in node.names] if whole else [node.module or ""]
        else:
            continue
        yield from (module.split(".")[1] for module in found if module.startswith("metier."))


def upward_imports(path: Path, package: Path) -> list[str]:
    """What a file imports from its own height or above, other than its own room; and what it imports relatively."""
    room = path.relative_to(package).with_suffix("").parts[0]
    return [
        f"{module_of(path, package)} imports {imported}"
        for imported in imports_of(ast.parse(path.read_text(encoding="utf-8")))
        if imported != room
        and (room, imported) not in SIDEWAYS
        and imported != "__version__"
        and (imported == "." or HEIGHTS[imported] >= HEIGHTS[room])
    ]


def large_parts(path: Path, package: Path) -> list[str]:
    source = path.read_text(encoding="utf-8")
    module = module_of(path, package)
    n_lines = len(source.splitlines())
    found = [f"{module} is {n_lines} lines"] if n_lines > MAX_FILE else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name = f"{module}.{node.name}"
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONG_FUNCTIONS.get(name, MAX_FUNCTION):
                found.append(f"{name} is {length} lines")
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            n_parameters = sum(argument.arg not in {"self", "cls"} for argument in arguments)
            if n_parameters > MAX_PARAMETERS and not is_command(node):
                found.append(f"{name} takes {n_parameters} parameters")
    return found


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A command of the command line: its parameters are its flags."""
    calls = [d.func for d in function.decorator_list if isinstance(d, ast.Call)]
    return any(isinstance(call, ast.Name) and call.id == "takes" for call in calls)


def prints(path: Path) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def test_every_room_has_a_height() -> None:
    rooms = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in FILES}
    assert rooms <= set(HEIGHTS)


def test_imports_run_one_way() -> None:
    assert [wrong for path in FILES for wrong in upward_imports(path, PACKAGE)] == []


def test_files_functions_and_parameters_stay_small() -> None:
    assert [found for path in FILES for found in large_parts(path, PACKAGE)] == []


def test_only_the_command_line_prints() -> None:
    library = [path for path in FILES if path.relative_to(PACKAGE).parts[0] not in {"cli", "cli.py"}]
    assert {str(path): lines for path in library if (lines := prints(path))} == {}


def test_nothing_is_named_for_what_it_might_be() -> None:
    names = {part for path in FILES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert names & FORBIDDEN == set()


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "from metier.training.loop import train",
        "import metier.training.loop",
        "from metier import training",
        "def late():\n    from metier.evidence import score",
        "from . import load",
    ],
)
def test_an_import_that_points_up_is_found(line: str, toy: Path) -> None:
    path = toy / "models" / "packing.py"
    path.write_text(f"from metier.sources.examples import Example\nfrom metier.models.loss import x\n{line}\n")
    assert len(upward_imports(path, toy)) == 1


def test_an_import_that_points_down_is_left_alone(toy: Path) -> None:
    path = toy / "models" / "packing.py"
    path.write_text("import torch\nfrom metier import runs\nfrom metier.errors import DataError\n")
    assert upward_imports(path, toy) == []


def test_what_is_too_large_is_found(toy: Path) -> None:
    path = toy / "models" / "large.py"
    long_one = "def long():\n" + "    x = 1\n" * 60
    wide_one = f"def wide({', '.join(f'p{i}' for i in range(9))}): print(1)\n"
    path.write_text(long_one + wide_one + "\n" * 340)
    assert large_parts(path, toy) == [
        "models.large is 402 lines",
        "models.large.long is 61 lines",
        "models.large.wide takes 9 parameters",
    ]
    assert prints(path) == [62]
