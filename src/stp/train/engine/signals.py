"""Stop requests: SIGTERM and SIGUSR1 end a run after its current step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Schedulers send these signals before they kill a job.
SIGNALS = (signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM))


class StopRequest:
    """Signal handler that remembers whether, and by which signal, a stop was requested."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def __call__(self, number: int, frame: object) -> None:
        """Remember the signal."""
        self.signal = number


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Remember stop signals instead of ending the process, while the context lasts.

    Python lets only the main thread handle signals; in other threads nothing is remembered.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {number: signal.signal(number, request) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def ignore_stop_signals(worker: int) -> None:
    """Ignore stop signals in a worker process, which the trainer ends after its checkpoint.

    Parameters
    ----------
    worker
        Number of the worker; every worker process calls this first.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
