"""Write the slides of a manifest as stores, and describe them in a table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stp._log import count, logger, preview
from stp._progress import Progress
from stp.data.collection import PROBLEM, Collection
from stp.genes.vocabulary import Vocabulary
from stp.io._collection_table import collection_table
from stp.io._manifest import raise_faults, read_manifest
from stp.io._manifest_columns import ManifestRow
from stp.io._prepare_cluster import WorkerOptions, require_main_guard, run_jobs
from stp.io._prepare_log import PrepareLog
from stp.io._prepare_place import Place, place_of
from stp.io._prepare_row import FAILED, SKIPPED, Job, Outcome, find_finished
from stp.io._prepare_vocabularies import SpeciesVocabularies, Vocabularies, save_vocabularies
from stp.remote.folder import in_threads

if TYPE_CHECKING:
    import distributed
    import pandas as pd


def write_collection(
    manifest: "str | Path | pd.DataFrame",
    out: str | Path,
    *,
    client: "distributed.Client | None" = None,
    n_workers: int | None = None,
    memory_limit: int | str | None = None,
    verify: bool = False,
    vocabulary: Vocabulary | Sequence[Vocabulary] | None = None,
    progress: bool = True,
) -> Collection:
    """Write the slides of a manifest as stores, and describe them in a table.

    First the whole manifest is checked. If anything is wrong, one error lists all of it, and
    nothing is written. After that, a row that fails does not stop the others. The next call skips
    rows whose source and settings are unchanged, and does the rest.

    Parameters
    ----------
    manifest
        CSV, TSV or parquet file, or a DataFrame, with one row per slide. Paths are relative to the
        file, or to the working folder.
    out
        Folder of the stores, or its URL. All workers must share it. For a URL, such as
        "s3://bucket/stores", each store is written in the cache of a worker first, see
        :func:`stp.io.upload_store`.
    client
        Client of a Dask cluster that prepares the rows; by default processes of this machine do.
    n_workers
        Number of processes of this machine; by default as many as cores and memory allow, with
        1.5 GB each. One works without a cluster.
    memory_limit
        Memory of each of these processes, as a number of bytes or as text, such as "2 GB".
    verify
        Compare the content of the sources too, not only their paths, sizes and times. A source
        that was only moved or copied is not prepared again then.
    vocabulary
        Genes of the species, or one vocabulary for each species of the manifest; by default the
        human vocabulary.
    progress
        Show a progress bar, or lines of the log if there is no terminal.

    Returns
    -------
    The collection: a row for each store, in the order of the manifest.

    Raises
    ------
    FileNotFoundError
        There is no manifest.
    BlockingIOError
        Another process prepares the same folder.
    ValueError
        The manifest, an option or a folder of a store cannot be used.
    PermissionError
        The server does not allow to write to `out`.
    ConnectionError
        The server of `out` cannot be reached. The next call goes on.
    RuntimeError
        The Dask cluster has no workers, they do not share the folder, or the cluster ended.

    Notes
    -----
    Columns of a manifest are `name` and `path`, and these, which may be empty or missing:

    - `image`: the full-resolution image of an h5ad file or a folder of Space Ranger or Xenium.
    - `um_per_px`, `spot_pitch_um`, `patch_um_per_px`, `layer`, `gene_ids_key`, `image_key`,
      `coordinate_system`, `table_key`: as in :func:`stp.io.write_store`.
    - `bin_um`: side of the bins of Visium HD.
    - `library_key`: column of `obs`, if an h5ad file has several slides; `library` is the one of
      this row, by default its name.
    - `patient`, `organ`, `species`, `platform`, `disease`, `source`, `license`: kept as text.
    - Further columns are kept, too. A name that is almost one of the above is an error.

    The path is an h5ad file, a folder of Space Ranger, Visium HD or Xenium, a SpatialData zarr, or
    the file `st/<id>.h5ad` of a HEST sample. The reduced pictures of Space Ranger are too coarse
    for patches, so that a row without `image` becomes a store without an image.

    `out` gets a store `<name>.zarr` for each row, whose attribute `stp_metadata` has patient, organ
    and the further columns; `collection.parquet` and `collection.csv`; and `prepare.jsonl`, with a
    line per row and call: what was done, warnings, and the error if it failed. The column `problem`
    says why a store cannot be trained on, and is empty if it can. Stores of rows that left the
    manifest stay, but are not in the table. A store appears when it is complete, also if a process
    is killed, and does not depend on the number of workers.

    With a URL, a store is at `<name>/<attempt>/<name>.zarr`, because object stores rename nothing.
    The table says which attempt is the one. Others are deleted at the end, and what killed calls
    left at the next start. Passwords and keys are those of each machine and are written nowhere.

    Scripts that start several processes call this function below `if __name__ == "__main__":`,
    because each process runs the script again.

    Examples
    --------
    >>> import pandas as pd
    >>> adata.write_h5ad("first.h5ad")
    >>> manifest = pd.DataFrame({"name": ["first"], "path": ["first.h5ad"], "patient": ["007"]})
    >>> collection = stp.io.write_collection(manifest, "collection", n_workers=1)
    >>> collection.table[["name", "path", "patient"]].values.tolist()
    [['first', 'first.zarr', '007']]
    """
    require_main_guard()
    workers = WorkerOptions(client, n_workers, memory_limit)
    plan = check_manifest(manifest, out, vocabulary)
    collection, _ = prepare_collection(plan, workers, verify=verify, progress=progress)
    return collection


@dataclass(frozen=True)
class CollectionPlan:
    """The checked rows of a manifest, and where their stores are written.

    Parameters
    ----------
    rows
        Rows of the manifest.
    place
        Where the stores and the table are written.
    vocabularies
        Vocabularies by species.
    """

    rows: list[ManifestRow]
    place: Place
    vocabularies: SpeciesVocabularies


def check_manifest(
    manifest: "str | Path | pd.DataFrame", out: str | Path, vocabulary: Vocabularies
) -> CollectionPlan:
    """Check a whole manifest; see :func:`write_collection`.

    Raises
    ------
    FileNotFoundError
        There is no manifest.
    ValueError
        Something is wrong with it; the message lists all of it.
    """
    place = place_of(out)
    vocabularies = SpeciesVocabularies.collect(vocabulary)
    rows, faults = read_manifest(manifest)
    faults += vocabularies.list_faults(rows)
    faults += place.list_faults(rows)
    raise_faults(faults)
    return CollectionPlan(rows, place, vocabularies)


def prepare_collection(
    plan: CollectionPlan, workers: WorkerOptions, *, verify: bool, progress: bool
) -> tuple[Collection, dict[str, str]]:
    """Return the collection, and the error of each row that failed; see `write_collection`."""
    rows = plan.rows
    with plan.place.lock() as place:
        log = place.log
        files = save_vocabularies(plan.vocabularies, place.stores.scratch)
        jobs = []
        for row in rows:
            digest = plan.vocabularies.of(row).digest
            stored_digest = log.digest_of(row.name)
            jobs.append(Job(row, place.stores, files[digest], digest, verify, stored_digest))
        failures = _run(jobs, workers, log, progress)
        finished = [row for row in rows if row.name not in failures]
        paths = {row.name: log.paths[row.name] for row in finished}
        table = place.write(collection_table(finished, paths, log.measures), paths)
        others = plan.place.list_other_stores(rows, log)
    collection = Collection(table, plan.place.location)
    _log_end(collection, n_rows=len(rows), others=others, label=place.stores.label)
    return collection, failures


def _run(
    jobs: Sequence[Job], workers: WorkerOptions, log: PrepareLog, progress: bool
) -> dict[str, str]:
    """Prepare the rows, write what became of each to the log, and return the errors by name."""
    failures: dict[str, str] = {}
    n_spots = 0
    unfinished = []
    with Progress(len(jobs), "prepare", "slide", is_shown=progress) as bar:

        def add(outcomes: Iterable[Outcome]) -> None:
            nonlocal n_spots
            for outcome in outcomes:
                log.add(outcome)
                _log_outcome(outcome)
                if outcome.status == FAILED:
                    failures[outcome.name] = outcome.error
                else:
                    n_spots += log.measures[outcome.name]["n_spots"]
                bar.note(f"{count(n_spots, 'spot')}, {len(failures)} failed")
                bar.update()

        # A server answers several questions at a time.
        is_remote = jobs[0].stores.local_folder is None
        answers = in_threads(find_finished, jobs) if is_remote else map(find_finished, jobs)
        for job, path in zip(jobs, answers, strict=True):
            if path is None:
                unfinished.append(job)
            else:
                add([Outcome(job.row.name, SKIPPED, path)])
        add(run_jobs(unfinished, workers))
    return failures


def _log_outcome(outcome: Outcome) -> None:
    for text in outcome.warnings:
        logger.warning(f"{outcome.name}: {text}")
    if outcome.reason:
        logger.info(f"{outcome.name} was prepared again: {outcome.reason}")
    if outcome.status == FAILED:
        logger.error(f"{outcome.name} failed: {outcome.error}")


def _log_end(collection: Collection, *, n_rows: int, others: Sequence[str], label: str) -> None:
    """Log how many rows are finished and usable, and warn of stores that are in no row."""
    if others:
        logger.warning(
            f"{count(len(others), 'store')} of {label} are not in the manifest and so not in the "
            f"table: {preview(others, 20)}"
        )
    problems = [problem for problem in collection.table[PROBLEM] if problem]
    text = f"{label} has {len(collection)} of {count(n_rows, 'slide')}"
    if problems:
        text += f"; {len(problems)} cannot be trained on, and the column 'problem' says why"
    logger.info(text)
