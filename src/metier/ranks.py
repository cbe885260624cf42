"""Which of the processes that torchrun started this one is; read from its environment, without torch."""

import os
from dataclasses import dataclass

STARTED_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"


@dataclass(frozen=True)
class Rank:
    """One of `of` processes that share a run, on a node where `on_node` of them run."""

    number: int = 0
    of: int = 1
    number_on_node: int = 0
    on_node: int = 1

    @property
    def is_first(self) -> bool:
        """The first rank alone writes files, draws progress and prints."""
        return self.number == 0


def this_rank() -> Rank:
    """Rank() for a process that torchrun did not start, or started alone."""
    if STARTED_BY_TORCHRUN not in os.environ:
        return Rank()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Rank(*(int(os.environ[name]) for name in names))
