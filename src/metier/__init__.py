"""Métier: give a general language model a trade, and prove that it learned it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from metier.errors import MetierError

if TYPE_CHECKING:
    from metier.adapt import adapt
    from metier.results import Run

__version__ = "0.1.0"
__all__ = ["MetierError", "Run", "__version__", "adapt"]

_HOMES = {"Run": "metier.results", "adapt": "metier.adapt"}


def __getattr__(name: str) -> Any:
    """Load what is asked for: importing metier does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'metier' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
