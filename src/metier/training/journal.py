"""What a run writes down while it trains: a line a step in metrics.jsonl and in rows.jsonl, and checkpoints.

Of several ranks the first alone reads and writes, and tells the others what it found.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from metier.ranks import this_rank
from metier.runs import Json, RunFolder, StepLog
from metier.training import parallel
from metier.training.checkpoint import Checkpoint, Checkpoints
from metier.training.trajectory import Trajectory


class RowLoss(NamedTuple):
    """What one row, or one window of a text, cost in one step: supervised tokens, and their nats together."""

    item: str
    window: int
    tokens: int
    nats: float


class Journal:
    """Opened on a run folder that has a checkpoint, it holds it in `found`, and both logs end where it was written.

    notes: whatever else must be there when the run goes on; what was noted before is there again.
    """

    def __init__(
        self, run: RunFolder, origin: Mapping[str, str], every_s: float, started: float, say: Callable[[str], None]
    ) -> None:
        """origin: {part: hash}; every_s: seconds between two checkpoints; started: of this process, monotonic.

        Raises:
            RunError: no checkpoint is whole, a log lost lines, or the disk refuses.
        """
        self.checkpoints = Checkpoints(run.checkpoints, origin, every_s, say)
        self.found = parallel.by_first(self.checkpoints.newest)
        kept: dict[str, Json] = self.found.facts if self.found else {"notes": {}, "elapsed_s": 0.0}
        self.notes: dict[str, Json] = dict(kept["notes"])
        self._begun = started - float(kept["elapsed_s"])
        lengths = self.found.log_bytes if self.found else {}
        self.trajectory: Trajectory | None = None  # of a run whose way is to be measured
        self.metrics, self.rows = (StepLog(path, lengths.get(path.name, 0)) for path in (run.metrics, run.rows))

    @property
    def n_tokens(self) -> int:
        """Trained before this process."""
        return int(self.found.facts["trained"]["n_tokens"]) if self.found else 0

    @property
    def elapsed_s(self) -> float:
        """Seconds of work that this run took, those of the processes before this one among them."""
        return time.monotonic() - self._begun

    def write_rows(self, step: int, rollbacks: int, rows: Sequence[RowLoss]) -> None:
        """One line: what every row of the step cost; null for what is not a number."""
        lines = [[r.item, r.window, r.tokens, round(r.nats, 4) if math.isfinite(r.nats) else None] for r in rows]
        self.rows.write(step=step, rollbacks=rollbacks, rows=lines)

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint, by the clock of the first rank."""
        return parallel.by_first(self.checkpoints.is_due)

    def anchor_before(self, step: int) -> Checkpoint:
        """As `Checkpoints.anchor_before`."""
        return parallel.by_first(lambda: self.checkpoints.anchor_before(step))

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Json], anchor: bool) -> None:
        """A checkpoint of this moment. Raises RunError when the disk refuses."""
        if not this_rank().is_first:
            return
        kept = {**facts, "notes": self.notes, "elapsed_s": self.elapsed_s}
        self.checkpoints.save(step, tensors, kept, (self.metrics, self.rows), anchor)

    def close(self) -> None:
        self.metrics.close()
        self.rows.close()
