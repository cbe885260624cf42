"""Everything a user can mend.

MetierError                what the user can mend: one sentence saying what, where, and what to do; the command exits 2
├── DataError              a file, a row or a field of the data
├── ModelError             a model folder, an adapter, an architecture
├── RunError               a run folder: exists already, is not one, is incomplete
├── RankError              one of several processes is missing, or reads other data than the rest
└── DivergedError          training produced a number that is not finite
"""


class MetierError(Exception):
    """One sentence: what is wrong, where, and what to do."""


class DataError(MetierError, ValueError):
    """A file, a row or a field that cannot be read as training data."""


class ModelError(MetierError, ValueError):
    """A model or an adapter that cannot be loaded, or cannot take what is asked of it."""


class RunError(MetierError, ValueError):
    """A run folder that cannot be written, or that is not one."""


class RankError(MetierError, RuntimeError):
    """A process of a run of several that is missing, failed, or has other data than the first."""


class DivergedError(MetierError, ArithmeticError):
    """The loss or the gradient norm stopped being finite."""
