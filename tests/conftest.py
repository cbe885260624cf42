"""No test touches the user's cache; and what several files of tests are given."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from small import small_pack


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METIER_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def small_general_pack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For tests of whole runs, which share a cache."""
    with small_pack() as patch:
        patch.setenv("METIER_CACHE", str(tmp_path_factory.mktemp("runs-cache")))
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """What is compared to the bit must be computed by the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def sim() -> Iterator[ModuleType]:
    """The simulation of benchmarks/: documents whose truth is known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        import dial_simulation

        yield dial_simulation
        del sys.modules["dial_simulation"]
