"""Métier: give a general language model a trade, and prove that it learned it."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from metier.errors import MetierError

if TYPE_CHECKING:
    from metier.adapt import adapt
    from metier.check import check
    from metier.prove import prove
    from metier.results import Run

__version__ = "0.1.0"
__all__ = ["MetierError", "Run", "__version__", "adapt", "check", "prove"]

_HOMES = {"Run": "metier.results", "adapt": "metier.adapt", "check": "metier.check", "prove": "metier.prove"}


def __getattr__(name: str) -> Any:
    """Load what is asked for: importing metier does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'metier' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


class _Package(ModuleType):
    """Python binds a module to its package when it is loaded; `metier.adapt` must stay the function even then."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _HOMES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
