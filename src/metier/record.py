"""The record of a run: its folder says at every moment how the run stands, and has its report when the run ends."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from metier.errors import MetierError, RunError
from metier.interrupts import sigterm_interrupts
from metier.ranks import this_rank
from metier.results import Run
from metier.runs import RunFolder


@contextmanager
def recorded(run: RunFolder, new: bool = True) -> Iterator[None]:
    """The run folder, which is there, says at every moment whether the run is running, done, interrupted or failed,
    and why. SIGTERM is taken as Ctrl-C is. new: the run began just now."""
    run.set_status("running")
    try:
        with sigterm_interrupts():
            yield
    except KeyboardInterrupt:
        run.set_status("interrupted")
        raise
    except MetierError as error:
        if new and not run.plan.exists():  # a mistake found before there was a plan: nothing is lost with the folder
            if this_rank().is_first:
                shutil.rmtree(run.path, ignore_errors=True)
        else:
            _try_status(run, "failed", str(error))
        raise
    except BaseException as error:
        _try_status(run, "failed", f"{type(error).__name__}: {error}")
        raise
    run.set_status("done")


def _try_status(run: RunFolder, state: str, reason: str) -> None:
    """On a full disk even this may not be written; the error that is under way matters more."""
    try:
        run.set_status(state, reason=reason)
    except RunError:
        return


def finish(run: RunFolder) -> Run:
    finished = Run(run.path)
    if this_rank().is_first:
        finished.report()
    return finished
