"""Métier: give a general language model a trade, and prove that it learned it."""

import sys
from importlib import import_module
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
    import_module(_HOMES[name])
    # Python has just put the modules of these names where the functions belong; put all of them right.
    globals().update({n: getattr(sys.modules[home], n) for n, home in _HOMES.items() if home in sys.modules})
    return globals()[name]
