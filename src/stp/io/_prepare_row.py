"""Prepare one row of a manifest, in any process that sees the sources and the stores."""

import functools
import gc
import logging
import os
import shutil
import socket
import threading
import time
import traceback
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stp._log import logger
from stp._settings import settings
from stp.genes.vocabulary import Vocabulary
from stp.io._manifest_columns import ManifestRow
from stp.io._prepare_read import find_problem, write_row
from stp.io._prepare_record import PreparedStore, Record, publish, write_record
from stp.io._prepare_source import content_digest, source_digest
from stp.io._store_measures import measure_store

WRITTEN = "written"
DESCRIBED = "described"  # only what the manifest says about the slide changed
SKIPPED = "skipped"
FAILED = "failed"
VOCABULARY = "vocabulary"  # setting: digest of the vocabulary
# Warnings, the log and Dask's settings are those of a whole process, so a process does one row at
# a time.
_ONE_ROW = threading.Lock()


@dataclass(frozen=True)
class Job:
    """A row of a manifest and the places of its store.

    Parameters
    ----------
    row
        Row of the manifest.
    out
        Folder of the stores.
    scratch
        Folder of attempts on the same file system. It is there while the collection is prepared.
    vocabulary
        File with the vocabulary; None for the human one.
    vocabulary_digest
        Digest of the vocabulary.
    verify
        Compare the content of the source, not only its sizes and times.
    measured_digest
        Digest of the store whose measures are known; None if there are none.
    """

    row: ManifestRow
    out: Path
    scratch: Path
    vocabulary: Path | None
    vocabulary_digest: str
    verify: bool
    measured_digest: str | None

    @property
    def store(self) -> Path:
        """The store of the row."""
        return self.out / f"{self.row.name}.zarr"

    def record(self) -> Record:
        """Return what a store of this row would record now."""
        content = content_digest(self.row, self.out) if self.verify else None
        row_settings = self.row.settings | {VOCABULARY: self.vocabulary_digest}
        return Record(source_digest(self.row, self.out), content, row_settings)


@dataclass(frozen=True)
class Outcome:
    """What became of a row.

    Parameters
    ----------
    name
        Name of the row.
    status
        "written", "described", "skipped" or "failed".
    seconds
        Time that it took.
    process
        Host and number of the process.
    reason
        Why a store that existed was written again.
    error
        Why the row failed.
    warnings
        Texts of the warnings.
    measures
        Columns of the collection that are measured; empty if they are known.
    """

    name: str
    status: str
    seconds: float = 0.0
    process: str = ""
    reason: str = ""
    error: str = ""
    warnings: list[str] = field(default_factory=list)
    measures: dict[str, object] = field(default_factory=dict)


def is_finished(job: Job) -> bool:
    """Return whether nothing is left to do for a row; its source is compared by size and time."""
    if job.verify or job.measured_digest is None:
        return False
    former = PreparedStore.read(job.store)
    if former is None or former.digest != job.measured_digest:
        return False
    try:
        is_same = former.record.difference(job.record()) is None
    except OSError:  # the row fails with it later
        return False
    return is_same and former.metadata == job.row.metadata


def prepare_row(job: Job) -> Outcome:
    """Prepare a row, and return what became of it; an error is part of that."""
    start = time.perf_counter()
    error = ""
    status = FAILED
    reason = ""
    measures: dict[str, object] = {}
    with _ONE_ROW, _quiet() as messages:
        try:
            status, reason, measures = _prepare(job)
        except Exception as failure:  # noqa: BLE001 - other rows go on
            text = " ".join(str(failure).split())
            error = f"{type(failure).__name__}: {text}"
            logger.debug(traceback.format_exc())
        gc.collect()  # counts and open files of this row, before the next one needs theirs
    return Outcome(
        name=job.row.name,
        status=status,
        seconds=round(time.perf_counter() - start, 2),
        process=f"{os.getpid()} on {socket.gethostname()}",
        reason=reason,
        error=error,
        warnings=messages,
        measures=measures,
    )


def _prepare(job: Job) -> tuple[str, str, dict[str, object]]:
    """Return status, reason and measures of a row."""
    if not job.scratch.is_dir():
        raise FileNotFoundError(
            f"{job.scratch} is not seen by process {os.getpid()} on {socket.gethostname()}; give "
            "a folder that all workers share"
        )
    record = job.record()
    former = PreparedStore.read(job.store)
    reason = former.record.difference(record) if former is not None else None
    if former is None or reason is not None:
        return WRITTEN, reason or "", _write(job, record)
    is_described = former.metadata != job.row.metadata
    if is_described or (job.verify and former.record != record):
        write_record(job.store, record, job.row.metadata)
    measures = {}
    if former.digest != job.measured_digest:
        measures = _measure(job.store, job)
    return DESCRIBED if is_described else SKIPPED, "", measures


def _write(job: Job, record: Record) -> dict[str, object]:
    """Write the store of a row in a folder that no other process uses, and move it to its place."""
    folder = job.scratch / f"{os.getpid()}-{uuid.uuid4().hex}"
    attempt = folder / job.store.name
    try:
        folder.mkdir()
        write_row(job.row, attempt, _load_vocabulary(job.vocabulary))
        measures = _measure(attempt, job)
        write_record(attempt, record, job.row.metadata)
        publish(attempt, job.store)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return measures


def _measure(store: Path, job: Job) -> dict[str, object]:
    """Return the columns of the collection that are measured, as plain values of Python."""
    measures = measure_store(store, vocabulary=_load_vocabulary(job.vocabulary))
    plain = {
        name: value.item() if hasattr(value, "item") else value for name, value in measures.items()
    }
    return plain | {"problem": find_problem(store)}


@functools.lru_cache(maxsize=4)
def _load_vocabulary(path: Path | None) -> Vocabulary | None:
    return None if path is None else Vocabulary.load(path)


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Yield a list that gets the warnings; log errors only, and let Dask compute in this thread."""
    import dask

    messages: list[str] = []
    has_progress = settings.progress
    level = logger.level
    with dask.config.set(scheduler="synchronous"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default", UserWarning)
        try:
            settings.progress = False
            logger.setLevel(max(level, logging.WARNING) if level > logging.DEBUG else level)
            yield messages
        finally:
            settings.progress = has_progress
            logger.setLevel(level)
            # Packages warn their developers by other classes.
            texts = [str(item.message) for item in caught if item.category is UserWarning]
            messages += dict.fromkeys(" ".join(text.split()) for text in texts)
