"""Prepare one row of a manifest, in any process that sees the sources and the stores."""

import gc
import logging
import os
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stp._log import logger
from stp._settings import settings
from stp._urls import without_secrets
from stp.io._manifest_columns import ManifestRow
from stp.io._prepare_read import find_problem, write_row
from stp.io._prepare_record import Record, write_record
from stp.io._prepare_source import content_digest, source_digest
from stp.io._prepare_stores import StoreFolder
from stp.io._prepare_vocabularies import load_vocabulary
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
    """A row of a manifest and the folder of its store.

    Parameters
    ----------
    row
        Row of the manifest.
    stores
        Folder of the stores.
    vocabulary
        Path or URL of the file with the vocabulary; None for the human one.
    vocabulary_digest
        Digest of the vocabulary.
    verify
        Compare the content of the source, not only its sizes and times.
    measured_digest
        Digest of the store whose measures are known; None if there are none.
    """

    row: ManifestRow
    stores: StoreFolder
    vocabulary: str | None
    vocabulary_digest: str
    verify: bool
    measured_digest: str | None

    def record(self) -> Record:
        """Return what a store of this row would record now."""
        folder = self.stores.local_folder
        content = content_digest(self.row, folder) if self.verify else None
        row_settings = self.row.settings | {VOCABULARY: self.vocabulary_digest}
        return Record(source_digest(self.row, folder), content, row_settings)


@dataclass(frozen=True)
class Outcome:
    """What became of a row.

    Parameters
    ----------
    name
        Name of the row.
    status
        "written", "described", "skipped" or "failed".
    path
        Path of the store in the folder of the stores; empty if the row failed.
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
    path: str = ""
    seconds: float = 0.0
    process: str = ""
    reason: str = ""
    error: str = ""
    warnings: list[str] = field(default_factory=list)
    measures: dict[str, object] = field(default_factory=dict)


def find_finished(job: Job) -> str | None:
    """Return the path of the store of a row for which nothing is left to do, or None.

    The source is compared by size and time.
    """
    if job.verify or job.measured_digest is None:
        return None
    try:
        record = job.record()
    except OSError:  # the row fails with it later
        return None
    former = job.stores.find_store(job.row.name, record)
    if former is None:
        return None
    path, store = former
    is_measured = store.digest == job.measured_digest
    is_same = store.record.difference(record) is None and store.metadata == job.row.metadata
    return path if is_measured and is_same else None


def prepare_row(job: Job) -> Outcome:
    """Prepare a row, and return what became of it; an error is part of that."""
    start = time.perf_counter()
    error = ""
    status = FAILED
    path = ""
    reason = ""
    measures: dict[str, object] = {}
    with _ONE_ROW, _collect_garbage(), _quiet() as messages:
        try:
            status, path, reason, measures = _prepare(job)
        except Exception as failure:  # noqa: BLE001 - other rows go on
            text = without_secrets(" ".join(str(failure).split()))
            error = f"{type(failure).__name__}: {text}"
            logger.debug(traceback.format_exc())
    return Outcome(
        name=job.row.name,
        status=status,
        path=path,
        seconds=round(time.perf_counter() - start, 2),
        process=f"{os.getpid()} on {socket.gethostname()}",
        reason=reason,
        error=error,
        warnings=messages,
        measures=measures,
    )


def _prepare(job: Job) -> tuple[str, str, str, dict[str, object]]:
    """Return status, path of the store, reason and measures of a row."""
    job.stores.require_shared()
    record = job.record()
    former = job.stores.find_store(job.row.name, record)
    if former is None:
        path, measures = _write(job, record)
        return WRITTEN, path, "", measures
    path, store = former
    reason = store.record.difference(record)
    if reason is not None:
        path, measures = _write(job, record)
        return WRITTEN, path, reason, measures
    is_described = store.metadata != job.row.metadata
    if is_described or (job.verify and store.record != record):
        job.stores.describe(path, record, job.row.metadata)
    measures = {}
    if store.digest != job.measured_digest:
        with job.stores.open_local(path) as local:
            measures = _measure(local, job)
    return DESCRIBED if is_described else SKIPPED, path, "", measures


def _write(job: Job, record: Record) -> tuple[str, dict[str, object]]:
    """Write the store of a row where no other process writes, and give it its place."""
    with job.stores.new_attempt(job.row.name) as attempt:
        write_row(job.row, attempt, load_vocabulary(job.vocabulary))
        measures = _measure(attempt, job)
        write_record(attempt, record, job.row.metadata)
        return job.stores.publish(attempt, job.row.name), measures


def _measure(store: Path, job: Job) -> dict[str, object]:
    """Return the columns of the collection that are measured, as plain values of Python."""
    measures = measure_store(store, vocabulary=load_vocabulary(job.vocabulary))
    plain = {
        name: value.item() if hasattr(value, "item") else value for name, value in measures.items()
    }
    return plain | {"problem": find_problem(store)}


@contextmanager
def _collect_garbage() -> Iterator[None]:
    """Free counts and open files of a row at its end, before the next one needs theirs.

    What is older than the row, such as all modules, is not searched.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()


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
            messages += dict.fromkeys(without_secrets(" ".join(text.split())) for text in texts)
