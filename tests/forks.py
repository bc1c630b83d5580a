"""Processes that a test starts, kills and waits for, of which none has to import everything anew.

They are forks of one server process, which has imported what they need and done nothing else.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

# What is imported here is torch, AnnData and SpatialData, most of the time of a small run.
IMPORTED = [
    "spatialdata",
    "stp.cli.recipe",
    "stp.io._embed_model",
    "stp.io._store",
    "timm",
    "torch._dynamo",
]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(IMPORTED)


class Fork:
    """A process that calls a function; what it writes to stderr goes to a file.

    Parameters
    ----------
    function
        A function of a module; a number that it returns is the exit status.
    arguments
        What the function is called with.
    messages
        File for what the process writes to stderr.
    variables
        Environment variables, in addition to those of the test.
    """

    def __init__(self, function: Callable, *arguments, messages: Path, **variables: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        self._messages = messages
        self._process = CONTEXT.Process(
            target=_call, args=(function, arguments, str(messages), environment)
        )
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, minus the signal if there was one; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float = 600) -> int:
        """Return the exit status when the process has ended."""
        self._process.join(timeout)
        status = self._process.exitcode
        assert status is not None, f"still runs after {timeout} s: {self.messages()}"
        return status

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that must come true while the process runs."""
        while not condition() and self.poll() is None:
            time.sleep(0.002)
        assert self.poll() is None, "the process ended before: " + self.messages()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process, which must run until then."""
        self.send_signal(signal.SIGKILL)
        status = self.wait()
        assert status == -signal.SIGKILL, f"ended with {status}: {self.messages()}"

    def messages(self) -> str:
        """Return what was written to stderr."""
        return self._messages.read_text() if self._messages.exists() else ""


def run_command(*arguments: object, messages: Path, **variables: str) -> Fork:
    """Start `stp` with arguments in a process."""
    return Fork(_run_stp, *map(str, arguments), messages=messages, **variables)


def run_ranks(function: Callable, *arguments, messages: Path) -> list[int]:
    """Call a function in two processes with the variables that torchrun sets; return statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        Fork(
            function,
            *arguments,
            messages=messages.with_name(f"{messages.name}.{rank}"),
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        for rank in range(2)
    ]
    return [rank.wait() for rank in ranks]


def _run_stp(*arguments: str) -> int:
    from stp.cli.main import main

    return main(list(arguments))


def _call(function: Callable, arguments: tuple, messages: str, environment: dict) -> None:
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(messages, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 2)
    sys.exit(function(*arguments))
