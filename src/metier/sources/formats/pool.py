"""Many files read by several processes at once, answered in the order in which they were given."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from metier.sources.formats.files import FileFound, read_file, suffix_of
from metier.sources.formats.kinds import KINDS, TEXT
from metier.sources.formats.worker import MOST_SECONDS

FEW_BYTES = 8 << 20  # of plain text are read sooner than a process starts
AHEAD = 4  # files a process, read before they are asked for

File = tuple[Path, str]  # where it is, and what it is called


def read_files(files: Sequence[File], password: str = "") -> Iterator[list[FileFound]]:
    """What each file holds. A file whose reader dies is rejected, and the others are read."""
    if _are_few_texts(files):
        yield from (read_file(path, name, password) for path, name in files)
        return
    n_workers = min(_n_cores(), len(files))
    workers = [Worker() for _ in range(n_workers)]
    idle = deque(workers)
    lock = threading.Lock()

    def read(file: File) -> list[FileFound]:
        with lock:
            worker = idle.popleft()
        try:
            return worker.read(*file, password)
        finally:
            with lock:
                idle.append(worker)

    pending: deque[Future[list[FileFound]]] = deque()
    threads = ThreadPoolExecutor(n_workers, thread_name_prefix="read")
    try:
        for file in files:
            pending.append(threads.submit(read, file))
            if len(pending) > AHEAD * n_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for worker in workers:
            worker.close()
        threads.shutdown(cancel_futures=True)


def _are_few_texts(files: Sequence[File]) -> bool:
    if any(KINDS.get(suffix_of(name)) is not TEXT for _, name in files):
        return False
    return sum(path.lstat().st_size for path, _ in files if path.exists()) <= FEW_BYTES


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """One reading process, started when it is needed and again after it died.

    A process of its own making, not one of multiprocessing: that would run the user's script again in each.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def read(self, path: Path, name: str, password: str) -> list[FileFound]:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump((str(path), name, password), process.stdin)
            process.stdin.flush()
            found: list[FileFound] = pickle.load(process.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            code = process.wait()
            self._release()
            if self._closed:
                raise CancelledError from None
            return [FileFound(name, "rejected", _why_it_died(code), "leave it out", path.lstat().st_size)]
        return found

    def close(self) -> None:
        self._closed = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._release()

    def _release(self) -> None:
        process, self._process = self._process, None
        for pipe in (process.stdin, process.stdout) if process is not None else ():
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise CancelledError
        if self._process is None:
            command = [sys.executable, "-m", "metier.sources.formats.worker"]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        return self._process


def _why_it_died(code: int) -> str:
    if hasattr(signal, "SIGXCPU") and code == -signal.SIGXCPU:
        return f"takes more than {MOST_SECONDS} s to read"
    return f"kills its reader ({signal.strsignal(-code) if code < 0 else f'exit code {code}'})"
