"""`stp prepare`: write the slides of a manifest as stores, and describe them in a table."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp._log import count, logger
from stp.cli.paths import path_or_url, require_file, require_folder, require_no_file

if TYPE_CHECKING:
    import pandas as pd

    from stp.data.collection import Collection
    from stp.io._write_collection import CollectionPlan

REPORT = "report.html"
SECONDS_TO_CONNECT = 30


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    summary = "write the slides of a manifest as stores, with a table that describes them"
    parser = commands.add_parser(
        "prepare",
        help=summary,
        description=f"{summary}. Finished slides are skipped.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "manifest", type=Path, nargs="?", help="CSV, TSV or parquet file with one row per slide"
    )
    source.add_argument("--hest", type=Path, metavar="DIR", help="prepare all samples of HEST-1k")
    source.add_argument(
        "--visium", type=Path, metavar="DIR", help="prepare all Space Ranger folders below DIR"
    )
    parser.add_argument(
        "--out", type=path_or_url, required=True, help="folder of the stores, or its URL"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check the manifest and print it, and stop there"
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="use the Dask cluster there")
    parser.add_argument(
        "--workers", type=int, help="processes; by default as cores and memory allow"
    )
    parser.add_argument("--memory-limit", help='memory of each process, such as "2 GB"')
    parser.add_argument(
        "--verify", action="store_true", help="compare the content of sources, not only their times"
    )
    parser.add_argument(
        "--vocabulary",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="vocabulary of another species; may be given for several",
    )
    parser.add_argument(
        "--no-report",
        action="store_true",
        help=f"write no {REPORT}, for which all stores are read if one of them changed",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prepare the slides; return 1 if one of them failed."""
    if options.manifest is not None:
        require_file(options.manifest, "a manifest as .csv, .tsv or .parquet")
    for folder in (options.hest, options.visium):
        if folder is not None:
            require_folder(folder, "the folder with the downloads")
    for file in options.vocabulary:
        require_file(file, "a vocabulary that Vocabulary.save wrote")
    if isinstance(options.out, Path):
        require_no_file(options.out)
    if options.scheduler is not None and (options.workers or options.memory_limit):
        raise argparse.ArgumentError(
            None, "--workers and --memory-limit are those of this machine; leave out --scheduler"
        )
    try:
        return _prepare(options)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        raise argparse.ArgumentError(None, str(error)) from error


def _prepare(options: argparse.Namespace) -> int:
    """Make and show the manifest, and prepare its slides."""
    from stp.genes.vocabulary import Vocabulary
    from stp.io._prepare_cluster import WorkerOptions
    from stp.io._write_collection import check_manifest, prepare_collection

    workers = WorkerOptions(None, options.workers, options.memory_limit)
    manifest = _manifest_of(options)
    vocabularies = [Vocabulary.load(file) for file in options.vocabulary]
    plan = check_manifest(manifest, options.out, vocabularies or None)
    if options.dry_run:
        print(f"The manifest has no faults. This was a dry run: {options.out} has no new stores.")
        return 0
    with _client(options.scheduler) as client:
        if client is not None:
            workers = WorkerOptions(client)
        collection, failures = prepare_collection(
            plan, workers, verify=options.verify, progress=True
        )
    if not options.no_report:
        _write_report(plan, collection, failures)
    if not failures:
        return 0
    print(f"{count(len(failures), 'slide')} failed:")
    for name, error in failures.items():
        print(f"  {name}: {error}")
    return 1


def _write_report(
    plan: "CollectionPlan", collection: "Collection", failures: dict[str, str]
) -> None:
    """Write the page that shows all slides, unless it is there already, and log where it is."""
    from stp.io._prepare_files import join
    from stp.workflows.collection_report_mark import make_mark

    paths = {row.name: row.path for row in plan.rows}
    failed = [
        {"name": name, "path": str(paths[name]), "error": error} for name, error in failures.items()
    ]
    mark = make_mark(collection, failed)
    if _has_end(join(str(plan.place.location), REPORT), mark):
        logger.info(f"{REPORT} is not made again, because no store changed")
        return
    file = plan.place.write_file(REPORT, lambda path: _draw_report(path, collection, failed, mark))
    logger.info(f"{file} shows all slides; open it in a browser")


def _draw_report(
    path: Path, collection: "Collection", failures: list[dict[str, str]], mark: bytes
) -> None:
    """Write the page, and the mark by which the next call recognizes it."""
    from stp.workflows.collection_report import write_report

    duplicates = _duplicates_of(collection)
    write_report(collection, path, failures=failures, duplicates=duplicates)
    with path.open("ab") as file:
        file.write(mark)


def _has_end(file: str, end: bytes) -> bool:
    """Return whether a file, given by path or URL, is there and ends like this."""
    from stp.io._prepare_files import read_file

    try:
        return read_file(file).endswith(end)
    except OSError:
        return False


def _duplicates_of(collection: "Collection") -> "pd.DataFrame | None":
    """Return the pairs of stores that share counts or images; None if there are no pairs at all."""
    from stp.tl import find_duplicates

    return find_duplicates(collection) if len(collection) > 1 else None


@contextmanager
def _client(address: str | None) -> Iterator[Any]:
    """Yield a client of the Dask cluster at an address, or None without one."""
    if address is None:
        yield None
        return
    from distributed import Client

    try:
        client = Client(address, set_as_default=False, timeout=SECONDS_TO_CONNECT)
    except (OSError, ValueError) as error:
        raise OSError(
            f"there is no Dask scheduler at {address} ({error}); start one with dask scheduler"
        ) from error
    with client:
        yield client


def _manifest_of(options: argparse.Namespace) -> Path:
    """Return the manifest, which is made and shown if a folder was given.

    It is written next to the stores, or into the working folder if these are on a server.
    """
    import pandas as pd

    from stp.io._manifest_file import read_cells
    from stp.io._manifest_search import (
        find_hest_samples,
        find_space_ranger_folders,
        write_manifest,
    )

    manifest = options.manifest
    folder = options.out if isinstance(options.out, Path) else Path()
    if options.hest is not None:
        manifest = write_manifest(find_hest_samples(options.hest), folder)
    elif options.visium is not None:
        manifest = write_manifest(find_space_ranger_folders(options.visium), folder)
    if options.manifest is None or options.dry_run:
        cells = read_cells(manifest)
        table = pd.DataFrame(cells.rows, columns=cells.columns).fillna("")
        print(f"{manifest}:\n{table.to_string()}")
    return manifest
