"""Ctrl-C and SIGTERM: while training the step in hand is finished, and a second one stops at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Within it SIGTERM, which ends a process without a word, raises KeyboardInterrupt as Ctrl-C does. Outside the main
    thread signals are left alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopAfterStep:
    """Context manager; `requested()` tells the loop. Outside the main thread signals are left alone."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._requested = False
        self._before: dict[int, Any] = {}

    def requested(self) -> bool:
        return self._requested

    def __enter__(self) -> "StopAfterStep":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
        self._say("Stopping after this step; Ctrl-C again stops at once.")
