"""Run the rows of a manifest in this process, on a local cluster, or on any cluster of Dask."""

import logging
import multiprocessing
import os
import socket
import sys
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stp._log import logger
from stp._urls import without_secrets
from stp.io._prepare_files import join, read_file, write_file
from stp.io._prepare_row import FAILED, Job, Outcome, prepare_row
from stp.io._prepare_stores import StoreFolder

WORKER_BYTES = 1_500_000_000  # that a worker needs for tiled sources
SECONDS_TO_START = 60  # for the first worker of a cluster
ENVIRONMENT = "distributed.nanny.pre-spawn-environ"  # of new processes, in the settings of Dask
# By this, Dask has freed memory given back at once. Each large array is then mapped anew, which
# takes a third of the time of a row.
TRIM = "MALLOC_TRIM_THRESHOLD_"
NEEDS_GUARD = (
    "stp.io.write_collection starts processes, which run the script again; call it below "
    '`if __name__ == "__main__":`, or pass n_workers=1'
)


@dataclass(frozen=True)
class WorkerOptions:
    """Where rows are prepared.

    Parameters
    ----------
    client
        Client of a Dask cluster; None for this machine.
    n_workers
        Number of processes; None for as many as cores and memory allow.
    memory_limit
        Memory of each process, as a number of bytes or as text, such as "2 GB".
    """

    client: Any = None
    n_workers: int | None = None
    memory_limit: int | str | None = None

    def __post_init__(self) -> None:
        if self.client is not None:
            if self.n_workers is not None or self.memory_limit is not None:
                raise ValueError(
                    "n_workers and memory_limit are those of a local cluster, and client= is "
                    "another one; leave them out, or leave out client="
                )
            if getattr(self.client, "asynchronous", False):
                raise ValueError("client= is asynchronous; pass a client of distributed.Client()")
        if self.n_workers is not None and self.n_workers < 1:
            raise ValueError(f"n_workers must be 1 or more, not {self.n_workers}")
        if self.memory_limit is not None:
            self._limit_bytes()

    def count_workers(self, n_rows: int) -> int:
        """Return the number of processes of a local cluster for a number of rows."""
        from dask.system import CPU_COUNT
        from distributed.system import MEMORY_LIMIT

        if self.n_workers is not None:
            return max(1, min(self.n_workers, n_rows))
        by_memory = MEMORY_LIMIT // (self._limit_bytes() or WORKER_BYTES)
        return max(1, min(CPU_COUNT, by_memory, n_rows))

    def _limit_bytes(self) -> int | None:
        from dask.utils import parse_bytes

        if self.memory_limit is None:
            return None
        try:
            n_bytes = parse_bytes(self.memory_limit)
        except ValueError as error:
            raise ValueError(
                f'memory_limit is {self.memory_limit!r}; give bytes, or a text such as "2 GB"'
            ) from error
        if n_bytes <= 0:
            raise ValueError(f"memory_limit must be positive, not {self.memory_limit!r}")
        return n_bytes


def run_jobs(jobs: Sequence[Job], options: WorkerOptions) -> Iterator[Outcome]:
    """Prepare rows, and yield what became of each as soon as it is known.

    Raises
    ------
    RuntimeError
        There are no workers, a worker does not share the folder, or the cluster ended.
    """
    if not jobs:
        return
    n_workers = options.count_workers(len(jobs))
    if options.client is not None:
        yield from _run_on(options.client, jobs)
    elif n_workers == 1 and options.memory_limit is None:
        for job in jobs:
            yield prepare_row(job)
    else:
        with _local_client(n_workers, options.memory_limit) as client:
            yield from _run_on(client, jobs)


def require_main_guard() -> None:
    """Raise RuntimeError if this is a new process that runs a script to import its functions."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(NEEDS_GUARD)


def _require_guarded_script() -> None:
    """Raise RuntimeError if a script calls without a guard.

    Dask would start processes without end, because each of them fails.
    """
    script = getattr(sys.modules["__main__"], "__file__", None)
    try:
        text = Path(script).read_text(encoding="utf-8") if script else ""
    except (OSError, UnicodeError):
        return
    if text and "__main__" not in text:
        raise RuntimeError(f"{script}: {NEEDS_GUARD}")


@contextmanager
def _local_client(n_workers: int, memory_limit: int | str | None) -> Iterator[Any]:
    """Yield the client of a cluster on this machine, whose processes have one thread each."""
    import dask.config
    from distributed import Client, LocalCluster

    _require_guarded_script()
    logger.info(f"Starting {n_workers} processes")
    limit: int | str = "auto" if memory_limit is None else memory_limit
    environment = dict(dask.config.get(ENVIRONMENT))
    environment.pop(TRIM, None)
    with (
        dask.config.set({ENVIRONMENT: environment}),
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=limit,
            dashboard_address=None,
            silence_logs=logging.ERROR,  # what becomes of a row is in its outcome
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _run_on(client: Any, jobs: Sequence[Job]) -> Iterator[Outcome]:
    """Prepare rows on a cluster, one per worker at a time.

    More would wait in the queues of workers, and if a worker dies, Dask blames all rows of its
    queue.
    """
    from distributed import as_completed

    _check_workers(client, jobs[0].stores)
    waiting = deque(jobs)
    names: dict[str, str] = {}
    running = as_completed(loop=client.loop)
    try:
        while waiting or not running.is_empty():
            n_running = running.count()
            for _ in range(max(1, len(client.nthreads())) - n_running):
                if waiting:
                    job = waiting.popleft()
                    future = client.submit(
                        prepare_row, job, key=f"stp-{uuid.uuid4().hex}", pure=False
                    )
                    names[future.key] = job.row.name
                    running.add(future)
            future = next(running)
            yield _outcome(client, future, names[future.key])
    finally:
        client.cancel(list(running.futures))


def _outcome(client: Any, future: Any, name: str) -> Outcome:
    """Return what became of a row, also if its worker died."""
    from distributed import KilledWorker

    if future.status in ("cancelled", "lost") or client.status != "running":
        raise RuntimeError(
            "the Dask cluster ended before all rows were done; start it and run the same call "
            "again, which skips what is finished"
        )
    error = future.exception()
    if error is None:
        return future.result()
    text = without_secrets(" ".join(str(error).split()))
    if isinstance(error, KilledWorker):
        text = (
            "the process of the worker died each time, often for lack of memory; give each worker "
            "more memory, or run fewer of them"
        )
    return Outcome(name, FAILED, error=f"{type(error).__name__}: {text}")


def _check_workers(client: Any, stores: StoreFolder) -> None:
    """Raise RuntimeError if there are no workers, or one does not share the folder."""
    try:
        client.wait_for_workers(1, timeout=SECONDS_TO_START)
    except TimeoutError as error:
        raise RuntimeError("the Dask cluster has no workers; start some") from error
    token = uuid.uuid4().hex
    question = join(stores.scratch, f"probe-{token}")
    write_file(question, token.encode())
    answers = client.run(answer_probe, question, on_error="return")
    faults = []
    for number, (address, answer) in enumerate(answers.items()):
        fault = _probe_fault(answer, question, token)
        if fault:
            faults.append(f"worker {number} ({address}): {fault}")
    if faults:
        raise RuntimeError(
            f"not every worker can use {stores.label}: {'; '.join(faults)}. All workers need "
            "this package, and a folder for the stores that they share"
        )


def answer_probe(question: str) -> tuple[str, str]:
    """Read a file in the folder of the stores, and write the same next to it.

    Parameters
    ----------
    question
        Path or URL of the file.

    Returns
    -------
    Host of this process, and what was added to the name of the file.
    """
    addition = f"-{uuid.uuid4().hex}"
    write_file(f"{question}{addition}", read_file(question))
    return f"{socket.gethostname()}, process {os.getpid()}", addition


def _probe_fault(answer: Any, question: str, token: str) -> str | None:
    """Return what is wrong with the answer of a worker, or None."""
    if isinstance(answer, BaseException):
        return without_secrets(f"{type(answer).__name__}: {answer}")
    host, addition = answer
    file = f"{question}{addition}"
    try:
        content = read_file(file)
    except FileNotFoundError:
        content = b""
    if content != token.encode():
        return f"what {host} wrote to {without_secrets(file)} is not seen here"
    return None
