"""Stopping when asked: SIGTERM and SIGUSR1, which schedulers send before they kill, end a run after its step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM))


class StopRequest:
    """Whether, and by which signal, the run was asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def __call__(self, number: int, frame: object) -> None:
        """Take note of a signal."""
        self.signal = number


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Take note of signals instead of dying of them; in the main thread, which alone can."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stop_signals() -> None:
    """Let a worker read on when a signal goes to all processes: the trainer ends it after the checkpoint."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
