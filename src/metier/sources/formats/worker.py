"""A process that reads files, so that a file that kills its reader kills nothing else: `python -m` this module.

It takes pickled (path, name, password) from stdin and answers each with a pickled list of `FileFound`.
"""

import contextlib
import os
import pickle
import sys
from pathlib import Path
from typing import BinaryIO

from metier.sources.formats.files import FileFound, read_file

MOST_MEMORY = 4 << 30  # of address space
MOST_SECONDS = 300  # of processor time for one file


def serve(jobs: BinaryIO, answers: BinaryIO) -> None:
    """Read files until `jobs` ends."""
    while True:
        try:
            path, name, password = pickle.load(jobs)
        except EOFError:
            return
        _limit_time()
        try:
            found = read_file(Path(path), name, password)
        except MemoryError:
            found = [FileFound(name, "rejected", "needs more memory than reading may take", "leave it out")]
        pickle.dump(found, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no such limits, a parent may forbid them
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _limit_time() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + MOST_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    _limit_memory()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end among the answers
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        serve(sys.stdin.buffer, answers)
